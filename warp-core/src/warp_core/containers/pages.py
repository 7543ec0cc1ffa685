"""What a container's blob begins and ends with: its first page, and the map of one that was compacted.

Format: `docs/formats/container.md`.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from warp_core.containers.format import PAGE, VERSION, Form, State, checksum
from warp_core.errors import Corrupt, NewerFormat
from warp_core.interfaces.stores import Buffer

PAGE_MAGIC = b"WRc" + bytes([VERSION])

_CHECKSUM = struct.Struct("<Q")
_PAGE = struct.Struct("<Q4sBBBBBBHIQQIIQQQ")
_PAIR_PACK = 8


class Page(msgspec.Struct, frozen=True):
    """A blob's first 4096 bytes."""

    container: int
    form: int = Form.PLAIN
    state: int = State.OPEN
    copies: int = 1
    created_ns: int = 0
    rewrite: int = 0
    size: int = 0
    map_entries: int = 0
    map_place: int = 0
    map_checksum: int = 0
    data_shards: int = 0
    parity_shards: int = 0
    shard: int = 0
    stripe_unit: int = 0


def pack_page(page: Page) -> bytes:
    """Return the 4096 bytes of a page."""
    body = _PAGE.pack(
        0, PAGE_MAGIC, page.form, page.state, page.copies, page.data_shards, page.parity_shards, page.shard, 0,
        page.stripe_unit, page.container, page.created_ns, page.rewrite, page.map_entries, page.size,
        page.map_place, page.map_checksum,
    )  # fmt: skip
    rest = body[8:] + bytes(PAGE - len(body))
    return _CHECKSUM.pack(checksum(rest)) + rest


def unpack_page(data: Buffer) -> Page | None:
    """Return the page that `data` begins with, or None if it is not whole and valid.

    Raises:
        NewerFormat: Written by a later release.
    """
    if len(data) < PAGE:
        return None
    (
        digest, magic, form, state, copies, k, m, shard, _, unit, container, created_ns, rewrite, entries, size,
        map_place, map_checksum,
    ) = _PAGE.unpack_from(data)  # fmt: skip
    if magic[:3] == PAGE_MAGIC[:3] and magic[3] > VERSION:
        raise NewerFormat(
            f"a container has format version {magic[3]}, this release reads up to {VERSION}"
        )
    if magic != PAGE_MAGIC or checksum(memoryview(data)[8:PAGE]) != digest:
        return None
    return Page(
        container=container, form=form, state=state, copies=copies, created_ns=created_ns, rewrite=rewrite,
        size=size, map_entries=entries, map_place=map_place, map_checksum=map_checksum, data_shards=k,
        parity_shards=m, shard=shard, stripe_unit=unit,
    )  # fmt: skip


class Map:
    """Where the runs of a compacted container lie in its blob: offset in the container → position in the blob."""

    __slots__ = ("lengths", "offsets", "positions")

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        """Take the (offset, length) of each run, in bytes and ascending."""
        self.offsets = array("Q")
        self.lengths = array("Q")
        self.positions = array("Q")
        position = PAGE
        for offset, length in runs:
            self.offsets.append(offset)
            self.lengths.append(length)
            self.positions.append(position)
            position += length

    def position(self, offset: int) -> int | None:
        """Return the position of a container offset in the blob, None if it lies in no run."""
        index = bisect_right(self.offsets, offset) - 1
        if index < 0 or offset - self.offsets[index] >= self.lengths[index]:
            return None
        return self.positions[index] + offset - self.offsets[index]

    @property
    def end(self) -> int:
        """Position behind the last run: where the map itself is stored."""
        return self.positions[-1] + self.lengths[-1] if self.positions else PAGE

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (offset, length, position) of each run."""
        return zip(self.offsets, self.lengths, self.positions, strict=True)

    def pack(self) -> bytes:
        """Return the stored form."""
        return pack_ranges(zip(self.offsets, self.lengths, strict=True))

    @classmethod
    def unpack(cls, data: Buffer) -> Map:
        """Read the stored form."""
        return cls(list(unpack_ranges(data)))


def pack_ranges(ranges: Iterator[tuple[int, int]] | Sequence[tuple[int, int]]) -> bytes:
    """Return (offset, length) pairs in units of ALIGN, 8 bytes each."""
    return b"".join(struct.pack("<II", offset >> 3, length >> 3) for offset, length in ranges)


def unpack_ranges(data: Buffer) -> Iterator[tuple[int, int]]:
    """Yield the (offset, length) pairs that `pack_ranges` packed, in bytes.

    Raises:
        Corrupt: The length is no multiple of a pair's.
    """
    if len(data) % _PAIR_PACK:
        raise Corrupt(f"{len(data)} bytes of packed ranges are no multiple of {_PAIR_PACK}")
    for offset, length in struct.iter_unpack("<II", data):
        yield offset << 3, length << 3
