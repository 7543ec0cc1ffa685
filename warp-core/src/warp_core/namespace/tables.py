"""Pieces of content held compactly, window by window: what a disk that is written at random has by the hundred thousand.

```
 Overlay   windows  { number: Table }      small pieces, each inside one window of 1 MiB
           holes    [ ──────────── ]       below them: large holes, of trims and truncations

 Table     starts   array of 4-byte offsets in the window, ascending
           rest     44 − 4 bytes a piece: length, skip, chunk, owner
```

A `Piece` with its chunk takes some 350 bytes, a row of a table 44. Tables are stored as they are (`pack`), so that a window
of 256 pieces is read and written in microseconds.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import Corrupt
from warp_core.namespace.extents import WINDOW, Piece, Pieces, pieces_of
from warp_core.namespace.rows import Extent

_ROW = Struct(
    "<IIIIIIQQ"
)  # length, skip, stored, chunk's length, its offset / 8, volume, revision, container
_SIZE: Final = _ROW.size
_OF_CHUNK = Struct("<IIIIQQ")  # the end of a row: what it says of the chunk and its owner
_HEAD = Struct("<BxxxI")  # version, pieces
_VERSION: Final = 1
FEW: Final = 32  # chunks that are looked for one by one in a packed table
_HOLE = bytes(_SIZE - 4)
_unpack = _ROW.unpack_from
_pack = _ROW.pack

assert _SIZE == 40


class Entry(NamedTuple):
    """One row: `length` bytes at `start` in the window are `chunk[skip:]`, a hole where `container` is 0."""

    start: int
    length: int
    skip: int
    stored: int
    whole: int  # the chunk's length
    place: int  # its offset, divided by 8
    volume: int
    revision: int
    container: int

    @property
    def chunk(self) -> Chunk | None:
        """The chunk."""
        return (
            Chunk(self.container, self.place << 3, self.stored, self.whole)
            if self.container
            else None
        )

    def piece(self, base: int) -> Piece:
        """Return it as a piece of the content; `base` is the window's offset."""
        return Piece(
            base + self.start, self.length, self.chunk, self.skip, self.volume, self.revision
        )


class Table:
    """Disjoint pieces of one window, in order. Offsets are the window's."""

    __slots__ = ("rest", "starts")

    def __init__(self) -> None:
        """Begin empty."""
        self.starts = array("I")
        self.rest = bytearray()

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Entry]:
        for start, row in zip(self.starts, _ROW.iter_unpack(self.rest), strict=True):
            yield Entry(start, *row)

    def copy(self) -> Table:
        """Return another with the same rows."""
        made = Table()
        made.starts = self.starts[:]
        made.rest = self.rest[:]
        return made

    def lay(self, piece: Piece, base: int) -> list[Entry]:
        """Lay a piece, whose offset counts from `-base`, over what is there; returns the parts that it covers."""
        chunk = piece.chunk
        start = piece.offset - base
        if chunk is None:
            row = piece.length.to_bytes(4, "little") + _HOLE
        else:
            assert isinstance(chunk, Chunk)
            row = _pack(
                piece.length, piece.skip, chunk.stored, chunk.length, chunk.offset >> 3,
                piece.volume, piece.revision, chunk.container,
            )  # fmt: skip
        return self._replace(start, start + piece.length, start, row)

    def put(self, start: int, length: int, chunk: Chunk, skip: int) -> list[Entry]:
        """Lay data that have no other owner; returns the parts that it covers."""
        row = _pack(
            length, skip, chunk.stored, chunk.length, chunk.offset >> 3, 0, 0, chunk.container
        )
        return self._replace(start, start + length, start, row)

    def lay_row(self, start: int, length: int, row: bytes | bytearray) -> list[Entry]:
        """Lay a row of another table."""
        return self._replace(start, start + length, start, row)

    def rows(self) -> Iterator[tuple[int, int, bytearray]]:
        """Yield (start, length, row) of each piece, for `lay_row` of another table."""
        rest = self.rest
        for index, start in enumerate(self.starts):
            at = index * _SIZE
            yield start, int.from_bytes(rest[at : at + 4], "little"), rest[at : at + _SIZE]

    def cut(self, start: int, end: int) -> list[Entry]:
        """Remove a range and return what it held."""
        return self._replace(start, end, 0, b"")

    def _replace(self, start: int, end: int, new_start: int, row: bytes | bytearray) -> list[Entry]:
        """Put a row (or none) in the place of [start, end)."""
        starts, rest = self.starts, self.rest
        first = bisect_right(starts, start)
        if first and starts[first - 1] + _unpack(rest, (first - 1) * _SIZE)[0] > start:
            first -= 1
        last = bisect_left(starts, end, first)
        low, high = first * _SIZE, last * _SIZE
        if first == last:
            if row:
                starts.insert(first, new_start)
                rest[low:low] = row
            return []
        covered: list[Entry] = []
        new_starts = array("I")
        new_rest = bytearray()
        behind: tuple[int, bytes] | None = None
        for index in range(first, last):
            entry = Entry(starts[index], *_unpack(rest, index * _SIZE))
            entry_end = entry.start + entry.length
            if entry.start < start:
                new_starts.append(entry.start)
                new_rest += _row(_clipped(entry, entry.start, start))
            if entry_end > end:
                behind = end, _row(_clipped(entry, end, entry_end))
            covered.append(_clipped(entry, max(entry.start, start), min(entry_end, end)))
        if row:
            new_starts.append(new_start)
            new_rest += row
        if behind is not None:
            new_starts.append(behind[0])
            new_rest += behind[1]
        starts[first:last] = new_starts
        rest[low:high] = new_rest
        return covered

    def covering(self, start: int, end: int) -> tuple[Chunk | None, int] | None:
        """Return the one chunk that holds all of [start, end) and where in it, (None, 0) for a hole; None if there is no such one."""
        starts = self.starts
        index = bisect_right(starts, start) - 1
        if index < 0:
            return None
        first = starts[index]
        length, skip, stored, whole, place, _, _, container = _unpack(self.rest, index * _SIZE)
        if first + length < end:
            return None
        if not container:
            return None, 0
        return Chunk(container, place << 3, stored, whole), skip + start - first

    def touches(self, start: int, end: int) -> bool:
        """Say whether anything of [start, end) is here."""
        starts = self.starts
        index = bisect_left(starts, end) - 1  # the last one that begins before the end
        return index >= 0 and starts[index] + _unpack(self.rest, index * _SIZE)[0] > start

    def within(self, start: int, end: int) -> list[Entry]:
        """Return the pieces of [start, end), clipped to it."""
        starts, rest = self.starts, self.rest
        first = bisect_right(starts, start)
        if first and starts[first - 1] + _unpack(rest, (first - 1) * _SIZE)[0] > start:
            first -= 1
        found = []
        for index in range(first, bisect_left(starts, end, first)):
            entry = Entry(starts[index], *_unpack(rest, index * _SIZE))
            if entry.start < start or entry.start + entry.length > end:
                entry = _clipped(
                    entry, max(start, entry.start), min(end, entry.start + entry.length)
                )
            found.append(entry)
        return found

    def data_bytes(self) -> int:
        """Return how many bytes are no hole."""
        return sum(row[0] for row in _ROW.iter_unpack(self.rest) if row[7])

    def shows_parts(self, head: int) -> bool:
        """Say whether some piece is only a part of its chunk, `head` bytes of which are never shown."""
        return any(row[0] + head < row[3] and row[7] for row in _ROW.iter_unpack(self.rest))

    def without_holes(self) -> Table:
        """Return the table with its data only."""
        rows = list(_ROW.iter_unpack(self.rest))
        if all(row[7] for row in rows):
            return self
        made = Table()
        for start, row in zip(self.starts, rows, strict=True):
            if row[7]:
                made.starts.append(start)
                made.rest += _pack(*row)
        return made

    def own_chunks(self) -> set[Chunk]:
        """Return the chunks that the row's own revision wrote into this window."""
        return {
            Chunk(row[7], row[4] << 3, row[2], row[3])
            for row in _ROW.iter_unpack(self.rest)
            if row[7] and not row[5] and not row[6]
        }

    def owned_by(self, volume: int) -> Table:
        """Return the table as another volume's: what has no owner there was written by `volume`."""
        made = self.copy()
        for at in range(0, len(made.rest), _SIZE):
            row = _unpack(made.rest, at)
            if not row[5]:
                made.rest[at : at + _SIZE] = _pack(*row[:5], volume, *row[6:])
        return made

    def pack(self) -> bytes:
        """Return it as stored bytes."""
        return b"".join((_HEAD.pack(_VERSION, len(self.starts)), self.starts.tobytes(), self.rest))


def table_of(pieces: Iterable[Piece], base: int) -> Table:
    """Return disjoint pieces, in order, as the table of the window that begins at `base`."""
    made = Table()
    for piece in pieces:
        made.lay(piece, base)
    return made


def unpack_table(packed: bytes) -> Table:
    """Return a table from stored bytes.

    Raises:
        Corrupt: They are damaged.
    """
    try:
        version, count = _HEAD.unpack_from(packed)
        if version != _VERSION or len(packed) != _HEAD.size + count * (4 + _SIZE):
            raise Corrupt(
                f"a table of version {version} with {count} pieces in {len(packed)} bytes"
            )
        made = Table()
        border = _HEAD.size + 4 * count
        made.starts.frombytes(packed[_HEAD.size : border])
        made.rest = bytearray(packed[border:])
    except struct.error as error:
        raise Corrupt(f"a table of {len(packed)} bytes: {error}") from error
    return made


# Rows ---------------------------------------------------------------------------------------------


class Window(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """E: all data of one window; what is not listed is a hole. Offsets count from the window's start."""

    born: int
    extents: bytes | tuple[Extent, ...]  # a packed table; what the first releases wrote: extents


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Window).decode


def pack_window(epoch: int, table: Table) -> bytes:
    """Return the row of a window, which lists no holes."""
    return _encode(Window(epoch, table.without_holes().pack()))


def unpack_window(value: bytes) -> Table:
    """Return what a window's row lists.

    Raises:
        Corrupt: It is damaged.
    """
    try:
        row = _decode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the row of a window is damaged: {error}") from error
    if isinstance(row.extents, bytes):
        return unpack_table(row.extents)
    return table_of(pieces_of(row.extents), 0)


def listed(value: bytes, chunks: Iterable[Chunk]) -> set[Chunk]:
    """Return those of some chunks that a window's row lists as its own revision's; raises as `unpack_window`.

    A few are looked for in the packed table: that takes a microsecond each, and unpacking one of 256 pieces a hundred.
    """
    wanted = list(chunks)
    if len(wanted) > FEW:
        return set(wanted) & unpack_window(value).own_chunks()
    found = set()
    packed = _packed(value)
    if packed is None:
        return set(wanted) & unpack_window(value).own_chunks()
    border = _HEAD.size + 4 * _HEAD.unpack_from(packed)[1]
    for chunk in wanted:
        needle = _OF_CHUNK.pack(
            chunk.stored, chunk.length, chunk.offset >> 3, 0, 0, chunk.container
        )
        at = packed.find(needle, border)
        while at >= 0 and (at - border) % _SIZE != _SIZE - _OF_CHUNK.size:
            at = packed.find(needle, at + 1)
        if at >= 0:
            found.add(chunk)
    return found


def _packed(value: bytes) -> bytes | None:
    """Return the packed table of a window's row, None for a row of the first releases; raises as `unpack_window`."""
    try:
        row = _decode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the row of a window is damaged: {error}") from error
    if not isinstance(row.extents, bytes):
        return None
    if len(row.extents) < _HEAD.size:
        raise Corrupt(f"a table of {len(row.extents)} bytes")
    return row.extents


def pieces_of_window(window: int, value: bytes) -> list[Piece]:
    """Return the same as pieces of the content; raises as `unpack_window`."""
    return [entry.piece(window * WINDOW) for entry in unpack_window(value)]


def chunks_of_window(value: bytes) -> set[Chunk]:
    """Return every chunk that a window's row refers to; raises as `unpack_window`."""
    return {chunk for entry in unpack_window(value) if (chunk := entry.chunk) is not None}


def _clipped(entry: Entry, start: int, end: int) -> Entry:
    skip = entry.skip + start - entry.start if entry.container else 0
    return entry._replace(start=start, length=end - start, skip=skip)


def _row(entry: Entry) -> bytes:
    return _pack(*entry[1:])


class Overlay:
    """Pieces that later ones are laid over, of a whole content. Each piece with data lies inside one window."""

    __slots__ = ("_order", "count", "empty", "holes", "large", "windows")

    def __init__(self) -> None:
        """Begin empty."""
        self.windows: dict[int, Table] = {}
        self.holes = Pieces()
        self.large = False  # there are large holes
        self.empty = True
        self._order: list[int] | None = None  # numbers of the windows, ascending, while it is right
        self.count = 0  # pieces that are no large holes

    def __len__(self) -> int:
        return self.count + len(self.holes)

    def __iter__(self) -> Iterator[Piece]:
        """Yield all pieces so that laying them one after the other gives the same."""
        yield from self.holes
        for number, table in self.windows.items():
            for entry in table:
                yield entry.piece(number * WINDOW)

    def widest(self) -> int:
        """Return how many pieces a window has at most."""
        return max((len(table.starts) for table in self.windows.values()), default=0)

    def put(self, offset: int, length: int, chunk: Chunk, skip: int) -> list[Piece]:
        """Lay data inside one window over what is there, and return the parts with data that they cover."""
        self.empty = False
        number = offset // WINDOW
        base = number * WINDOW
        table = self.windows.get(number)
        if table is None:
            table = self.windows[number] = Table()
            self._order = None
        starts = table.starts
        before = len(starts)
        covered = table.put(offset - base, length, chunk, skip)
        self.count += len(starts) - before
        if not covered:
            return []
        return [each.piece(base) for each in covered if each.container]

    def lay(self, piece: Piece) -> list[Piece]:
        """Lay a piece over what is there, and return the parts with data that it covers."""
        self.empty = False
        number = piece.offset // WINDOW
        base = number * WINDOW
        if piece.offset + piece.length - base > WINDOW:
            assert piece.chunk is None, "data lie inside one window"
            self.holes.lay(piece)
            self.large = True
            return self._cut(piece.offset, piece.end)
        table = self.windows.get(number)
        if table is None:
            table = self.windows[number] = Table()
            self._order = None
        before = len(table)
        covered = table.lay(piece, base)
        self.count += len(table) - before
        if not covered:
            return []
        return [each.piece(base) for each in covered if each.container]

    def _cut(self, start: int, end: int) -> list[Piece]:
        covered: list[Piece] = []
        for number in self._numbers(start, end):
            base = number * WINDOW
            table = self.windows[number]
            before = len(table)
            gone = table.cut(max(0, start - base), min(WINDOW, end - base))
            self.count += len(table) - before
            covered += [each.piece(base) for each in gone if each.container]
            if not len(table):
                del self.windows[number]
                self._order = None
        return covered

    def _numbers(self, start: int, end: int) -> list[int]:
        """Return the windows of a range that have a table, ascending."""
        first, last = start // WINDOW, (end - 1) // WINDOW
        if first == last:
            return [first] if first in self.windows else []
        if self._order is None:
            self._order = sorted(self.windows)
        return self._order[bisect_left(self._order, first) : bisect_right(self._order, last)]

    def within(self, start: int, end: int) -> list[Piece]:
        """Return the pieces of [start, end), clipped to it, in order."""
        found: list[Piece] = []
        at = start
        for number in self._numbers(start, end):
            base = number * WINDOW
            for entry in self.windows[number].within(max(0, start - base), min(WINDOW, end - base)):
                piece = entry.piece(base)
                if piece.offset > at:
                    found += self.holes.within(at, piece.offset)
                found.append(piece)
                at = piece.end
        if at < end:
            found += self.holes.within(at, end)
        return found

    def next_data(self, offset: int) -> int | None:
        """Return where data begin at or after `offset`, None if there are none."""
        if self._order is None:
            self._order = sorted(self.windows)
        for number in self._order[bisect_left(self._order, offset // WINDOW) :]:
            base = number * WINDOW
            for entry in self.windows[number].within(max(0, offset - base), WINDOW):
                if entry.container:
                    return base + entry.start
        return None
