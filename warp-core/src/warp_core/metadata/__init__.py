"""Transactions over any MetaStore, and the bricks that embedded engines share."""

from warp_core.metadata.counters import INT64_MIN, combined, counters, merged
from warp_core.metadata.keys import KEY_END, prefix_end, successor
from warp_core.metadata.limits import check_limits
from warp_core.metadata.transaction import (
    Transaction,
    commit_once,
    new_request_id,
    transact,
)

__all__ = [
    "INT64_MIN",
    "KEY_END",
    "Transaction",
    "check_limits",
    "combined",
    "commit_once",
    "counters",
    "merged",
    "new_request_id",
    "prefix_end",
    "successor",
    "transact",
]
