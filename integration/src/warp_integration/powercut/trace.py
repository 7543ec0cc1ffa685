"""The trace: every write and every flush that a set of disks received, in order.

::

    "WARPCUT1"                                   magic and version
    kind u8 · disk u8 · offset u64 · length u32  one header a record, little-endian
    length bytes                                 for a write: its data

Record number n is the n-th since the start; `Position` counts them while they are written. A record that the end
of the file tears off was never answered, so it is left out.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

MAGIC = b"WARPCUT1"
HEADER = struct.Struct("<BBQI")


class Kind(IntEnum):
    """What a disk was told."""

    WRITE = 1
    FLUSH = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One write (`data` lies in the mapped trace and is valid while the trace is open) or one flush."""

    kind: Kind
    disk: int
    offset: int
    data: memoryview


class TraceWriter:
    """Append records; the file is created and must not exist."""

    def __init__(self, path: Path) -> None:
        # Buffered: the recorder's own crash is no part of the model, and a system call less a record is.
        self._file: BinaryIO = path.open("xb", buffering=1 << 20)
        self._file.write(MAGIC)

    def write(self, disk: int, offset: int, data: memoryview) -> None:
        """Append a write of `data` at `offset` bytes of disk number `disk`."""
        self._file.write(HEADER.pack(Kind.WRITE, disk, offset, len(data)))
        self._file.write(data)

    def flush(self, disk: int) -> None:
        """Append a completed flush of disk number `disk`."""
        self._file.write(HEADER.pack(Kind.FLUSH, disk, 0, 0))

    def close(self) -> None:
        """Write out what is buffered and close."""
        self._file.close()


class Trace:
    """Read a finished trace."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        if self._map[: len(MAGIC)] != MAGIC:
            raise ValueError(f"{path} is not a trace of this version: {self._map[: len(MAGIC)]!r}")
        self._view = memoryview(self._map)

    def __iter__(self) -> Iterator[Record]:
        """Walk all complete records in order."""
        at, end = len(MAGIC), len(self._view)
        while at + HEADER.size <= end:
            kind, disk, offset, length = HEADER.unpack_from(self._view, at)
            at += HEADER.size
            if at + length > end:
                return
            yield Record(Kind(kind), disk, offset, self._view[at : at + length])
            at += length
