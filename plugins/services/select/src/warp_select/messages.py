"""What a node and a worker process say to each other.

    u32 length of what follows, little-endian · u8 kind · payload

    node → worker   QUERY  msgpack Job          then, as often as the worker wants:  DATA  bytes
    worker → node   WANT   msgpack (offset, length)
                    RECORDS bytes · PROGRESS msgpack (scanned, processed)
                    DONE · REFUSED msgpack (code, message)

One WANT is open at a time. A worker is done with a query when it says DONE or REFUSED, and may get the next.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from warp_core.interfaces.queries import Query

QUERY: Final = 1
DATA: Final = 2
WANT: Final = 3
RECORDS: Final = 4
PROGRESS: Final = 5
DONE: Final = 6
REFUSED: Final = 7

HEAD: Final = struct.Struct("<IB")

PAYLOAD_MAX: Final = 8 * 1024 * 1024
"""Bytes of a payload: DATA has at most 4 MiB, RECORDS 1 MiB."""

RECORDS_MAX: Final = 1024 * 1024
"""Bytes of records in one message, and in one frame that a client gets; S3's own figure."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A query, and what it is about."""

    query: Query
    size: int
    memory: int  # bytes that DuckDB may use
    now: str  # what UTCNOW() gives


def pack(kind: int, payload: bytes = b"") -> bytes:
    """Make a message."""
    return HEAD.pack(len(payload) + 1, kind) + payload
