"""Ranges of content and the chunks they lie in: pure functions on ordered lists of disjoint pieces.

```
 newest   unfolded   what was written since the last fold, in memory, found again in the journal after a crash     │
          windows    one packed row for each 1 MiB that was written at random: complete for its MiB                │ looked
          extents    in the revision's row or manifest: content written whole                                      │ up in
          base       windows and extents of the revision that this one was made of (a clone, a version)            ▼ this order
```

Where nothing is found content reads as zeros. A piece without a chunk is a hole that hides what lies below it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from warp_core.containers import Chunk
from warp_core.errors import Corrupt, NewerFormat
from warp_core.namespace.rows import Extent

WINDOW: Final = (
    1024 * 1024
)  # bytes of content in one row; also the largest chunk that a write makes
CHUNK_MAX: Final = (
    512 * 1024
)  # bytes of one write's chunk: with its head within the 1 MiB of a small payload
PIECES_MAX: Final = 512  # of one window: at 44 bytes each the row keeps to 22 KiB; then it is rewritten as one chunk


class Piece(NamedTuple):
    """content[offset : offset + length] = chunk[skip : skip + length]; a hole where the chunk is None.

    `volume` and `revision` say whose record the chunk is. Zeros: the row's own revision wrote it into this window, so that it is
    garbage as soon as the window does not refer to it.
    """

    offset: int
    length: int
    chunk: Chunk | bytes | None  # bytes: content that lies inline in the revision's row
    skip: int = 0
    volume: int = 0
    revision: int = 0

    @property
    def end(self) -> int:
        """The offset behind the piece."""
        return self.offset + self.length

    def clipped(self, start: int, end: int) -> Piece:
        """Return the part inside [start, end), which must not be empty."""
        ahead = max(0, start - self.offset)
        behind = max(0, self.end - end)
        return self._replace(
            offset=self.offset + ahead,
            length=self.length - ahead - behind,
            skip=self.skip + ahead if self.chunk is not None else 0,
        )


class Pieces:
    """An ordered list of disjoint pieces that later ones are laid over."""

    __slots__ = ("_list", "_starts")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        """Begin with pieces that are disjoint and in order."""
        self._list = list(pieces)
        self._starts = [piece.offset for piece in self._list]

    def __iter__(self) -> Iterator[Piece]:
        return iter(self._list)

    def __len__(self) -> int:
        return len(self._list)

    def lay(self, piece: Piece) -> list[Piece]:
        """Lay a piece over what is there and return the parts that it covers; a neighbour that it continues absorbs it."""
        covered = self.cut(piece.offset, piece.end)
        index = bisect_right(self._starts, piece.offset)
        if index and _continues(self._list[index - 1], piece):
            before = self._list[index - 1]
            self._list[index - 1] = before._replace(length=before.length + piece.length)
        else:
            self._list.insert(index, piece)
            self._starts.insert(index, piece.offset)
        return covered

    def cut(self, start: int, end: int) -> list[Piece]:
        """Remove [start, end) and return what it held."""
        first, last = self._span(start, end)
        if first == last:
            return []
        old = self._list[first:last]
        rest = []
        if old[0].offset < start:
            rest.append(old[0].clipped(0, start))
        if old[-1].end > end:
            rest.append(old[-1].clipped(end, old[-1].end))
        self._list[first:last] = rest
        self._starts[first:last] = [piece.offset for piece in rest]
        return [piece.clipped(start, end) for piece in old]

    def within(self, start: int, end: int) -> list[Piece]:
        """Return the pieces of [start, end), clipped to it."""
        first, last = self._span(start, end)
        return [piece.clipped(start, end) for piece in self._list[first:last]]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges of [start, end) that no piece covers."""
        found = []
        at = start
        for piece in self.within(start, end):
            if piece.offset > at:
                found.append((at, piece.offset))
            at = piece.end
        if at < end:
            found.append((at, end))
        return found

    def _span(self, start: int, end: int) -> tuple[int, int]:
        """Return which pieces touch [start, end)."""
        if start >= end:
            return 0, 0
        first = bisect_right(self._starts, start)
        if first and self._list[first - 1].end > start:
            first -= 1
        return first, max(first, bisect_right(self._starts, end - 1))


def _continues(before: Piece, piece: Piece) -> bool:
    if before.end != piece.offset or before[4:] != piece[4:]:
        return False
    if before.chunk is None or piece.chunk is None:
        return before.chunk is piece.chunk
    if isinstance(before.chunk, bytes) or isinstance(piece.chunk, bytes):
        return False
    return before.chunk == piece.chunk and before.skip + before.length == piece.skip


def chunks(pieces: Iterable[Piece]) -> set[Chunk]:
    """Return every chunk that the pieces refer to."""
    return {piece.chunk for piece in pieces if isinstance(piece.chunk, Chunk)}


def split(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a range into what a write makes chunks of: none lies in two windows."""
    while start < end:
        border = min(end, (start // CHUNK_MAX + 1) * CHUNK_MAX)
        yield start, border
        start = border


# Rows ---------------------------------------------------------------------------------------------


def pieces_of(
    extents: Iterable[Extent], *, shift: int = 0, volume: int = 0, revision: int = 0
) -> list[Piece]:
    """Return extents of a row as pieces; those that the row's revision wrote itself get `volume` and `revision` as their owner."""
    return [
        Piece(
            each.offset + shift,
            each.length,
            each.chunk,
            each.skip,
            each.volume or volume,
            each.revision or revision,
        )
        for each in extents
    ]


# Records in the journal ---------------------------------------------------------------------------

CHANGE_VERSION: Final = 1
WRITE: Final = 1
HOLE: Final = 2  # the range reads as zeros from now on
SIZE: Final = 3  # the file ends at `offset` from now on
_CHANGE = Struct("<BBHIQQ")  # version, what, 0, 0, offset, length
CHANGE_HEAD: Final = (
    _CHANGE.size
)  # bytes of a record's payload before the data: the skip of its extent


class Change(NamedTuple):
    """What one record did to a file; its data, if any, follow in the record."""

    what: int
    offset: int
    length: int


def pack_change(change: tuple[int, int, int]) -> bytes:
    """Return what a record of a `Change` begins with."""
    what, offset, length = change
    return _CHANGE.pack(CHANGE_VERSION, what, 0, 0, offset, length)


def unpack_change(payload: bytes | bytearray | memoryview) -> Change:
    """Return what a record's payload says.

    Raises:
        Corrupt: Too short, or says what no release wrote.
        NewerFormat: A later release wrote it.
    """
    if len(payload) < CHANGE_HEAD:
        raise Corrupt(f"a change record of {len(payload)} bytes")
    version, what, _, _, offset, length = _CHANGE.unpack_from(payload)
    if version > CHANGE_VERSION:
        raise NewerFormat(
            f"a change record has version {version}, this release reads {CHANGE_VERSION}"
        )
    data = len(payload) - CHANGE_HEAD
    if version != CHANGE_VERSION or what not in (WRITE, HOLE, SIZE):
        raise Corrupt(f"a change record of version {version} that does {what}")
    if data != (length if what == WRITE else 0):
        raise Corrupt(f"a change record of {length} bytes holds {data}")
    return Change(what, offset, length)


def gaps(pieces: Iterable[Piece], start: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges of [start, end) that none of these disjoint, ordered pieces covers."""
    found = []
    for piece in pieces:
        if piece.offset > start:
            found.append((start, piece.offset))
        start = piece.end
    if start < end:
        found.append((start, end))
    return found
