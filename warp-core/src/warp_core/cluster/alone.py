"""A node alone on an engine that others could use: what an earlier run of it sent, and is still on its way, comes too late.

A process that is killed may leave a commit in a socket, in a proxy, in an engine that is busy. The next run begins at once, reads what
there is, and goes on from there: if the old commit were applied then, it would refer to content that recovery judged as never
acknowledged, or set rows back. So each run writes a row first, and every commit of it checks that row, as those of a domain's home
check the domain's.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from warp_core.cluster import rows
from warp_core.cluster.guard import DomainStore
from warp_core.interfaces.consistency import KeyCheck, MetaStore
from warp_core.logs import get
from warp_core.metadata import Transaction, transact

log = get("warp_core.node")


async def fenced(shared: MetaStore, identity: str) -> MetaStore:
    """Return the rows of an engine for this run of a node, and of no earlier one from now on.

    Args:
        shared: The engine, entered.
        identity: Of the node's data.

    Raises:
        WarpError: The engine cannot be asked.
    """
    row = rows.pack(rows.AloneRow(rows.FORMAT, identity, secrets.token_hex(8)))

    async def body(tx: Transaction) -> str:
        before = await tx.get(rows.ALONE)
        tx.put(rows.ALONE, row)
        return rows.unpack(before, rows.AloneRow).identity if before is not None else identity

    before = await transact(shared, body)
    if before != identity:
        log.warning("the metadata was another node's until now", before=before, now=identity)
    view = shared.view()
    try:
        found = await view.get(rows.ALONE)
    finally:
        view.close()
    version = found[1] if found is not None and found[0] == row else 0  # else fenced already
    return DomainStore(
        shared, b"", KeyCheck(rows.ALONE, version), held=lambda: True, lost=_saying()
    )


def _saying() -> Callable[[], None]:
    said: list[bool] = []

    def lost() -> None:
        if not said:
            said.append(True)
            log.error("another process has this node's metadata: nothing is written any more")

    return lost
