"""Content of files that are written in place: what the rows say, and what was written since they last said it.

A write appends one self-describing record and notes where it went; there is no transaction. Reads see it at once. `fold` moves what
gathered into the rows: after a while, before a snapshot, and when somebody reads the file by its rows (an S3 GET). After a crash the
records behind the inode's `folded` position are applied again, in their order.

```
 write ──▶ record in the journal, piece in `_fresh` ──┐
 sync  ──▶ one sync of the journal                    │ fold: _fresh becomes _folding; window rows, then the inode row
 read  ◀── _fresh over _folding over window rows over extents over the base's
```
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import Corrupt, OutOfRange, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import extents, keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.extents import (
    CHANGE_HEAD,
    CHUNK_MAX,
    HOLE,
    PIECES_MAX,
    SIZE,
    WINDOW,
    WRITE,
    Piece,
    Pieces,
    pack_change,
    pieces_of,
    split,
)
from warp_core.namespace.inodes import Inode, Position, read_inode
from warp_core.namespace.rows import Revision
from warp_core.namespace.tables import (
    Entry,
    Overlay,
    Table,
    chunks_of_window,
    pack_window,
    table_of,
    unpack_window,
)
from warp_core.namespace.tree import Rows

T = TypeVar("T")

FRESH_MAX: Final = 32_768  # pieces of one file before they are folded, beside further writes: about 10 MiB of memory
FRESH_LIMIT: Final = 2 * FRESH_MAX  # before a write waits for the fold
WINDOWS_CACHED: Final = 4096  # windows of one layer of an open file, and
PIECES_CACHED: Final = (
    524_288  # … pieces in them: 22 MiB, all of a disk of 2 GiB that was written in blocks of 4 KiB
)
BATCH: Final = 12  # windows of one transaction: with archived rows and dead lists within WRITES_MAX and COMMIT_MAX
FEW: Final = (
    PIECES_MAX // 4
)  # fresh pieces of a window that are folded without a look at how many it has; each cuts one in two at most
TOGETHER: Final = 8  # transactions of a fold side by side
DEPTH_MAX: Final = 100_000  # revisions below one another: a damaged chain must end
END: Final = 1 << 62  # beyond every file


class Log(Protocol):
    """Where records go: the containers."""

    def append(self, payload: Buffer, *, volume: int, inode: int, revision: int) -> Chunk:
        """Queue a record and return its place; it can be read at once."""

    async def room(self, length: int) -> None:
        """Wait until so many bytes more can be appended."""

    async def flush(self) -> None:
        """Return when everything appended before is durable."""

    async def read(self, chunk: Chunk, *, offset: int, length: int) -> Buffer:
        """Return verified bytes of a record's payload."""

    def has_room(self, length: int) -> bool:
        """Say whether `room` would not wait."""

    def read_now(self, chunk: Chunk, *, offset: int, length: int) -> Buffer | None:
        """Return them if no device has to be waited for."""


class Ledger(Protocol):
    """Where rows are: one volume of the namespace."""

    @property
    def number(self) -> int:
        """The volume's number."""

    def rows(self) -> Rows:
        """Return the rows as they are now."""

    async def transact(self, body: Callable[[Change], Awaitable[T]]) -> T:
        """Run a body in a transaction, again if another was faster; `finish` is called behind it."""

    async def new_id(self) -> int:
        """Return a number that no inode and no revision had."""

    def now_ns(self) -> int:
        """Return the time, growing with every call."""

    def unfilter(self, inline: bytes, filters: str) -> bytes:
        """Return inline content as it was before the volume's filters."""


@dataclass(slots=True)
class Layer:
    """One revision's stored content: its windows over its extents, or over its base below `cut`."""

    revision: int
    extents: Pieces
    windowed: bool
    cut: int
    base: Layer | None
    windows: dict[int, Table | None] = field(default_factory=dict)  # those read last
    cached: int = 0  # pieces in them
    folded: int = 0  # counts folds: a window that was read before one is not remembered after it

    def remember(self, window: int, table: Table | None) -> None:
        """Keep a window's row in memory; the one that came first leaves when there are too many."""
        windows = self.windows
        old = windows.pop(window, None)
        self.cached += (len(table) if table else 0) - (len(old) if old else 0)
        windows[window] = table
        while len(windows) > WINDOWS_CACHED or (self.cached > PIECES_CACHED and len(windows) > 1):
            gone = windows.pop(next(iter(windows)))
            self.cached -= len(gone) if gone else 0


async def load_layer(ledger: Ledger, log: Log, revision: int) -> Layer:
    """Read a revision and those that it was made of.

    Raises:
        Corrupt: A row or manifest is missing or damaged.
    """
    top: Layer | None = None
    last: Layer | None = None
    stored = ledger.rows()
    for _ in range(DEPTH_MAX):
        key = keys.revision_key(revision)
        value = await stored.get(key)
        if value is None:
            raise Corrupt(f"revision {revision} is missing")
        row: Revision = rows.checked(rows.decode_revision, key, value)
        listed = row.extents
        if row.manifest is not None:
            packed = await log.read(row.manifest, offset=0, length=row.manifest.length)
            listed = rows.checked(rows.decode_manifest, key, bytes(packed)).extents
        pieces = pieces_of(listed, revision=revision)
        if row.inline:
            inline = ledger.unfilter(row.inline, row.filters)
            pieces = [Piece(0, len(inline), inline, revision=revision)]
        layer = Layer(
            revision, Pieces(pieces), row.windowed, row.cut if row.cut >= 0 else END, None
        )
        if last is None:
            top = layer
        else:
            last.base = layer
        last = layer
        revision = row.base
        if not revision:
            assert top is not None
            return top
    raise Corrupt(f"more than {DEPTH_MAX} revisions lie below one another, down to {revision}")


class Content:
    """One file's content while somebody uses it. One instance an inode; its calls may be made concurrently."""

    def __init__(self, ledger: Ledger, log: Log, number: int, inode: Inode, layer: Layer) -> None:
        self.number = number
        self.inode = inode
        self.layer = layer
        self.size = inode.size
        self.failures = 0  # syncs that failed
        self.gone = False  # its volume was rolled back: handles are stale
        self.changes = 0  # since the rows were up to date
        self.modified_ns = inode.modified_ns
        self._ledger = ledger
        self._log = log
        self._fresh = Overlay()
        self._folding = Overlay()
        self._background: asyncio.Task[None] | None = None  # a fold that nobody waits for
        self._cut_at = END  # lowest size that the file had since the last fold
        self._crowded: set[int] = set()  # windows whose rows list more than PIECES_MAX pieces
        self._missing: tuple[Layer, int] = (layer, 0)  # the row that `_resolved` lacked
        self._alive: dict[Chunk, int] = {}  # bytes of each fresh chunk that nothing newer covers
        self._dead: list[
            tuple[Chunk, int]
        ] = []  # overwritten before a row referred to it; its window
        self._partial = False  # a fold broke off: rows may refer to some of what is fresh or dead
        self.last: Position = inode.folded
        self._dirty = False
        self._in_fold = False
        self._inline_checked = False
        self._fold_lock = asyncio.Lock()
        self._share_lock = asyncio.Lock()
        self.appending = asyncio.Lock()  # held by who writes at the end

    # Reading --------------------------------------------------------------------------------------

    async def read(self, offset: int, length: int) -> Buffer:
        """Return bytes; short only at the end."""
        end = min(offset + length, self.size)
        if offset >= end:
            return b""
        found = await self.resolve(offset, end)
        if len(found) == 1 and found[0].offset == offset and found[0].end == end:
            return await self._fetch(found[0])
        result = bytearray(end - offset)
        for piece in found:
            result[piece.offset - offset : piece.end - offset] = await self._fetch(piece)
        return result

    async def _fetch(self, piece: Piece) -> Buffer:
        chunk = piece.chunk
        assert chunk is not None
        if isinstance(chunk, bytes):
            return chunk[piece.skip : piece.skip + piece.length]
        data = self._log.read_now(chunk, offset=piece.skip, length=piece.length)
        if data is None:
            data = await self._log.read(chunk, offset=piece.skip, length=piece.length)
        return data

    async def read_runs(self, offset: int, length: int) -> list[tuple[int, int, Buffer | None]]:
        """Return (offset, length, bytes) of each run, back to back, holes without bytes; short only at the end."""
        end = min(offset + length, self.size)
        runs: list[tuple[int, int, Buffer | None]] = []
        for piece in await self.resolve(offset, end) if offset < end else ():
            if piece.offset > offset:
                runs.append((offset, piece.offset - offset, None))
            runs.append((piece.offset, piece.length, await self._fetch(piece)))
            offset = piece.end
        if offset < end:
            runs.append((offset, end - offset, None))
        return runs

    def read_runs_now(
        self, offset: int, length: int
    ) -> list[tuple[int, int, Buffer | None]] | None:
        """Return what `read_runs` would if neither a row nor a device has to be waited for, else None."""
        end = offset + length
        if end > self.size or not length:
            return None
        window = offset // WINDOW
        base = window * WINDOW
        if end - base <= WINDOW:
            found = self._covering(window, offset - base, end - base)
            if found is not None:
                chunk, skip = found
                if chunk is None:
                    return [(offset, length, None)]
                data = self._log.read_now(chunk, offset=skip, length=length)
                return None if data is None else [(offset, length, data)]
        pieces = self._resolved(offset, end)
        if pieces is None:
            return None
        runs: list[tuple[int, int, Buffer | None]] = []
        for piece in pieces:
            if piece.chunk is None:
                continue
            if piece.offset > offset:
                runs.append((offset, piece.offset - offset, None))
            if isinstance(piece.chunk, bytes):
                data = piece.chunk[piece.skip : piece.skip + piece.length]
            else:
                data = self._log.read_now(piece.chunk, offset=piece.skip, length=piece.length)
            if data is None:
                return None
            runs.append((piece.offset, piece.length, data))
            offset = piece.end
        if offset < end:
            runs.append((offset, end - offset, None))
        return runs

    def _covering(self, window: int, start: int, end: int) -> tuple[Chunk | None, int] | None:
        """Return the one chunk that holds a range of a window, and where in it, as far as that is quickly found."""
        fresh = self._fresh
        table = fresh.windows.get(window)
        if table is not None:
            found = table.covering(start, end)
            if found is not None or table.touches(start, end):
                return found
        if fresh.large or not self._folding.empty:
            return None
        table = self.layer.windows.get(window)
        return table.covering(start, end) if table is not None else None

    async def resolve(self, start: int, end: int) -> list[Piece]:
        """Return the pieces with data of [start, end), in order."""
        found = self._resolved(start, end)
        if found is None:
            found = await self._resolve(start, end)
        return [piece for piece in found if piece.chunk is not None]

    async def _resolve(self, start: int, end: int) -> list[Piece]:
        result = self._fresh.within(start, end)
        for low, high in _gaps(result, start, end):
            held = self._folding.within(low, high)
            result = result + held
            for begin, finish in _gaps(held, low, high):
                while begin < finish:  # one window after the other: not all need fit in memory
                    border = min(finish, (begin // WINDOW + 1) * WINDOW)
                    result += await self._in_window(self.layer, begin, border)
                    begin = border
        return sorted(result)

    def _resolved(self, start: int, end: int) -> list[Piece] | None:
        """Return the pieces of a range, in order; None if a row is not in memory, and `_missing` says which."""
        result = self._fresh.within(start, end)
        for low, high in _gaps(result, start, end):
            held = self._folding.within(low, high)
            result = result + held
            for begin, finish in _gaps(held, low, high):
                stored = self._stored_now(begin, finish)
                if stored is None:
                    return None
                result = result + stored
        return sorted(result)

    def _stored_now(self, start: int, end: int) -> list[Piece] | None:
        """Return what the rows say about a range, holes among them where a window says so; None as `_resolved`."""
        result: list[Piece] = []
        while start < end:
            border = min(end, (start // WINDOW + 1) * WINDOW)
            found = self._in_window_now(self.layer, start, border)
            if found is None:
                return None
            result += found
            start = border
        return result

    def _in_window_now(self, layer: Layer | None, start: int, end: int) -> list[Piece] | None:
        limit = end
        window = start // WINDOW
        base = window * WINDOW
        while layer is not None and start < limit:
            if layer.windowed:
                if window not in layer.windows:
                    self._missing = (layer, window)
                    return None
                table = layer.windows[window]
                if table is not None:
                    return [each.piece(base) for each in table.within(start - base, limit - base)]
            limit = min(limit, layer.cut)
            if start < limit:
                found = layer.extents.within(start, limit)
                if found or layer.base is None:
                    return found
            layer = layer.base
        return []

    async def _in_window(self, layer: Layer, start: int, end: int) -> list[Piece]:
        while (found := self._in_window_now(layer, start, end)) is None:
            await self._window(*self._missing)
        return found

    async def _window(self, layer: Layer, window: int) -> Table | None:
        while window not in layer.windows:
            folded = layer.folded
            key = keys.window_key(layer.revision, window)
            value = await self._ledger.rows().get(key)
            if folded == layer.folded:
                layer.remember(window, unpack_window(value) if value is not None else None)
        return layer.windows[window]

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield all data in order, a window at a time."""
        at = await self._skip_holes(0)
        while at < self.size:
            border = min(self.size, (at // WINDOW + 1) * WINDOW)
            for piece in await self.resolve(at, border):
                yield piece
            at = await self._skip_holes(border)

    async def seek(self, offset: int, *, data: bool) -> int:
        """Return where the next data or hole begins at or after `offset`.

        Raises:
            OutOfRange: `offset` is behind the end, or no data follow.
        """
        if offset >= self.size:
            raise OutOfRange(f"offset {offset} is behind the end at {self.size}")
        at = offset
        while at < self.size:
            if data:
                at = await self._skip_holes(at)
            border = min(self.size, (at // WINDOW + 1) * WINDOW)
            found = await self.resolve(at, border) if at < border else []
            if data and found:
                return found[0].offset
            if not data:
                for piece in found:
                    if piece.offset > at:
                        return at
                    at = piece.end
                if at < border:
                    return at
            at = border
        if data:
            raise OutOfRange(f"no data at or after {offset}")
        return self.size

    async def _skip_holes(self, offset: int) -> int:
        """Return a place at or after `offset` before which there is no data: the next window that anything is known of."""
        candidates = [self.size]
        for pieces in (self._fresh, self._folding):
            data = pieces.next_data(offset)
            if data is not None:
                candidates.append(max(offset, data))
        layer: Layer | None = self.layer
        while layer is not None:
            candidates += [
                max(offset, each.offset) for each in layer.extents.within(offset, END)[:1]
            ]
            if layer.windowed:
                start = keys.window_key(layer.revision, offset // WINDOW)
                found = await self._ledger.rows().scan(
                    start, keys.windows_of(layer.revision)[1], limit=1
                )
                if found:
                    window = int.from_bytes(found[0][0][-8:], "big")
                    candidates.append(max(offset, window * WINDOW))
            layer = layer.base
        return min(candidates)

    # Writing --------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Say whether the rows do not tell all yet: a fold that is under way has told a part."""
        return self._dirty or self._in_fold

    async def ready(self, length: int = 0) -> None:
        """Make sure that the current revision may be changed and the log has room: called before each change, waits if it must.

        Raises:
            NoSpace, ReadOnly: Nothing more can be written.
        """
        await self._log.room(length + CHANGE_HEAD)
        if len(self._fresh) >= FRESH_MAX:
            self._fold_beside()
        if self.inode.shared or len(self._fresh) >= FRESH_LIMIT or not self._inline_checked:
            await self._make_ready()

    def ready_now(self, length: int) -> bool:
        """Say whether `ready` would not wait."""
        if self._fresh.count >= FRESH_MAX:
            self._fold_beside()
            if self._fresh.count >= FRESH_LIMIT:
                return False
        return (
            self._inline_checked
            and not self.inode.shared
            and self._log.has_room(length + CHANGE_HEAD)
        )

    def _fold_beside(self) -> None:
        """Fold while further writes are made; why it failed is told to who waits for the next one."""
        if self._background is None:

            async def fold() -> None:
                try:
                    with suppress(WarpError):
                        await self.fold()
                finally:
                    self._background = None

            self._background = asyncio.get_running_loop().create_task(fold())

    async def _make_ready(self) -> None:
        if len(self._fresh) >= FRESH_LIMIT:
            if self._background is not None:
                await asyncio.wait((self._background,))
            if len(self._fresh) >= FRESH_LIMIT:
                await self.fold()
        async with self._share_lock:
            if self.inode.shared:
                await self._new_revision()
            if not self._inline_checked:
                for piece in await self.resolve(0, min(WINDOW, self.size)):
                    if isinstance(piece.chunk, bytes):  # only chunks can be in windows
                        self.write(piece.offset, await self._fetch(piece))
                self._inline_checked = True

    def write(self, offset: int, data: Buffer) -> None:
        """Write: append records, one for each part of a window. The caller awaited `ready` and checked the size."""
        length = len(data)
        last = offset + length
        if length and offset // CHUNK_MAX == (last - 1) // CHUNK_MAX:
            self._write(offset, length, data)
        else:
            view = memoryview(data)
            for start, end in split(offset, last):
                self._write(start, end - start, view[start - offset : end - offset])
        if last > self.size:
            self.size = last

    def _write(self, offset: int, length: int, data: Buffer) -> None:
        chunk = self._record(b"".join((pack_change((WRITE, offset, length)), data)))
        self._alive[chunk] = length
        covered = self._fresh.put(offset, length, chunk, CHANGE_HEAD)
        if covered:
            self._cover(covered)

    def punch(self, offset: int, length: int) -> None:
        """Make a range read as zeros."""
        length = min(length, max(0, self.size - offset))
        if length:
            self._record(pack_change(extents.Change(HOLE, offset, length)))
            self._cover(self._fresh.lay(Piece(offset, length, None)))

    def truncate(self, size: int) -> None:
        """Set the size; what was behind it is gone for good."""
        self._record(pack_change(extents.Change(SIZE, size, 0)))
        self._cut(size)

    def _cut(self, size: int) -> None:
        if size < self.size:
            self._cover(self._fresh.lay(Piece(size, END - size, None)))
            self._cut_at = min(self._cut_at, size)
        self.size = size

    def _record(self, payload: bytes) -> Chunk:
        chunk = self._log.append(
            payload,
            volume=self._ledger.number,
            inode=self.number,
            revision=self.inode.revision,
        )
        self.last = (chunk.container, chunk.offset)
        self._dirty = True
        self.modified_ns = self._ledger.now_ns()
        self.changes += 1
        if payload[1] != WRITE:
            self._dead.append((chunk, -1))  # of no use any more once its effect is in the rows
        return chunk

    def _cover(self, covered: list[Piece]) -> None:
        for piece in covered:
            if isinstance(piece.chunk, Chunk):
                left = self._alive[piece.chunk] - piece.length
                if left:
                    self._alive[piece.chunk] = left
                else:
                    del self._alive[piece.chunk]
                    self._dead.append((piece.chunk, piece.offset // WINDOW))

    def replay(self, chunk: Chunk, change: extents.Change, time_ns: int) -> None:
        """Apply a record found in the journal after a crash; those that the rows know are ignored."""
        position = (chunk.container, chunk.offset)
        if position <= self.last:
            return
        self.last = position
        self._dirty = self._partial = True
        self.modified_ns = max(self.modified_ns, time_ns)
        if change.what == WRITE:
            self._alive[chunk] = change.length
            self._cover(self._fresh.lay(Piece(change.offset, change.length, chunk, CHANGE_HEAD)))
            self.size = max(self.size, change.offset + change.length)
            return
        self._dead.append((chunk, -1))
        if change.what == HOLE:
            self._cover(self._fresh.lay(Piece(change.offset, change.length, None)))
        else:
            self._cut(change.offset)

    def unlinked_chunks(self) -> list[Chunk]:
        """Return the chunks that no row refers to: garbage when the file goes as it is."""
        return [*self._alive, *(chunk for chunk, _ in self._dead)]

    # Folding --------------------------------------------------------------------------------------

    async def fold(self) -> None:
        """Bring the rows up to date; returns when what was written before the call is in them, durably."""
        async with self._fold_lock:
            if not self._dirty:
                return
            await self._unfragment()
            pieces, self._folding, self._fresh = self._fresh, self._fresh, Overlay()
            state = _Fold(
                pieces,
                self.size,
                self._cut_at,
                self.modified_ns,
                self.last,
                self._dead,
                self._alive,
            )
            self._dead, self._alive, self._dirty, self._cut_at = [], {}, False, END
            self._in_fold = True
            try:
                await self._log.flush()
                await self._fold(state)
            except BaseException:
                self._unfold(state)
                raise
            finally:
                self._in_fold = False
            self._partial = False
            self.changes = 0
            self._folding = Overlay()

    def _unfold(self, state: _Fold) -> None:
        """After a failure: put what could not be folded back below what was written meanwhile."""
        newer, self._fresh, self._folding = self._fresh, state.pieces, Overlay()
        self._dead = state.dead + self._dead
        self._alive = state.alive | self._alive
        self._cut_at = min(self._cut_at, state.cut)
        self._dirty = self._partial = True
        for piece in newer:
            self._cover(self._fresh.lay(piece))

    async def _fold(self, state: _Fold) -> None:
        allocated = 0
        if self._partial:
            state.dead = await self._in_no_row(state.dead)
        cut = min(state.cut, self.layer.cut)
        touched = await self._touched(state.pieces, cut)
        batches = [touched[first : first + BATCH] for first in range(0, len(touched), BATCH)]
        if (
            batches and not self.layer.windowed
        ):  # the first one alone declares that there are windows
            allocated += await self._fold_together(state, [batches.pop(0)], cut)
        for first in range(0, len(batches), TOGETHER):
            allocated += await self._fold_together(state, batches[first : first + TOGETHER], cut)

        async def finish(change: Change) -> tuple[Inode, int]:
            return await self._fold_inode(change, state, cut, allocated)

        self.inode, self.layer.cut = await self._ledger.transact(finish)
        self.layer.windowed = True

    async def _fold_together(self, state: _Fold, batches: list[list[int]], cut: int) -> int:
        """Fold batches of windows in transactions side by side, which share the log's syncs; returns by how much more they take."""
        done = await asyncio.gather(
            *(self._fold_batch(state, batch, cut) for batch in batches), return_exceptions=True
        )
        allocated = 0
        for each in done:
            if isinstance(each, BaseException):
                raise each
            allocated += each
        return allocated

    async def _fold_batch(self, state: _Fold, batch: list[int], cut: int) -> int:
        async def body(change: Change) -> list[tuple[int, Table | None]]:
            if not self.layer.windowed:
                await self._declare_windows(change)
            return [await self._fold_window(change, window, state.pieces, cut) for window in batch]

        done = await self._ledger.transact(body)
        self.layer.windowed = True
        self.layer.folded += 1
        for window, (_, table) in zip(batch, done, strict=True):
            self.layer.remember(window, table)
            if table is not None and len(table) > PIECES_MAX:
                self._crowded.add(window)
            else:
                self._crowded.discard(window)
        return sum(taken for taken, _ in done)

    async def _in_no_row(self, dead: list[tuple[Chunk, int]]) -> list[tuple[Chunk, int]]:
        """Leave out what a fold that broke off has linked: its windows' rows throw it away."""
        linked: set[Chunk] = set()
        for window in {window for _, window in dead if window >= 0}:
            value = await self._ledger.rows().get(keys.window_key(self.layer.revision, window))
            if value is not None:
                linked |= chunks_of_window(value)
        return [each for each in dead if each[0] not in linked]

    async def _touched(self, pieces: Overlay, cut: int) -> list[int]:
        """Return the windows whose rows a fold has to change, ascending."""
        touched = set(pieces.windows)
        for piece in pieces.holes:
            touched.update(await self._known(piece.offset, min(piece.end, cut)))
            if piece.end > cut:  # the rest of what lies below is hidden by the cut
                touched.update(await self._rows_between(max(piece.offset, cut), piece.end))
        return sorted(touched)

    async def _known(self, start: int, end: int) -> set[int]:
        """Return the windows of a range that any layer knows something of."""
        found: set[int] = set()
        layer: Layer | None = self.layer
        while layer is not None:
            for piece in layer.extents.within(start, end):
                found.update(range(piece.offset // WINDOW, (piece.end - 1) // WINDOW + 1))
            if layer.windowed and start < end:
                first = keys.window_key(layer.revision, start // WINDOW)
                last = keys.window_key(layer.revision, (end - 1) // WINDOW) + b"\0"
                found.update(await self._scan_windows(first, last))
            layer = layer.base
        return found

    async def _rows_between(self, start: int, end: int) -> set[int]:
        """Return the windows of a range that the current revision has rows of."""
        first = keys.window_key(self.layer.revision, start // WINDOW)
        last = keys.window_key(self.layer.revision, (end - 1) // WINDOW) + b"\0"
        return await self._scan_windows(first, last)

    async def _scan_windows(self, first: bytes, last: bytes) -> set[int]:
        found: set[int] = set()
        while page := await self._ledger.rows().scan(first, last):
            found.update(int.from_bytes(key[-8:], "big") for key, _ in page)
            first = page[-1][0] + b"\0"
        return found

    async def _declare_windows(self, change: Change) -> None:
        """Say in the revision's row that there are windows, before the first one is there."""
        revision = await self._revision(change)
        revision = msgspec.structs.replace(revision, born=change.epoch, windowed=True)
        await change.rows.put(keys.revision_key(self.layer.revision), rows.encode(revision))

    async def _revision(self, change: Change) -> Revision:
        key = keys.revision_key(self.layer.revision)
        stored = await change.rows.get(key)
        if stored is None:
            raise Corrupt(f"revision {self.layer.revision} of inode {self.number} vanished")
        revision: Revision = rows.checked(rows.decode_revision, key, stored)
        return revision

    async def _fold_window(
        self, change: Change, window: int, fresh: Overlay, cut: int
    ) -> tuple[int, Table | None]:
        """Change one window's row; returns by how much more it takes, and what the row lists now."""
        tx = change.rows
        start, end = window * WINDOW, (window + 1) * WINDOW
        key = keys.window_key(self.layer.revision, window)
        inline = 0
        value = await tx.get(key)
        if value is not None:
            old = unpack_window(value)
            if await tx.get_present(key) is None:  # a clone's base wrote it, and frees it
                old = old.owned_by(tx.volume.bases[0][0])
        else:
            below = await self._below(start, min(end, cut))
            # What lay inline was written anew, as chunks, before the first change.
            old = table_of((each for each in below if isinstance(each.chunk, Chunk)), start)
            inline = sum(each.length for each in below if isinstance(each.chunk, bytes))
        data = old.copy()
        covered: list[Entry] = []
        for hole in fresh.holes.within(start, end):
            covered += data.lay(hole, start)
        newer = fresh.windows.get(window)
        if newer is not None:
            for row in newer.rows():
                covered += data.lay_row(*row)
        data = data.without_holes()
        table: Table | None = data
        if len(data) or await self._below(start, min(end, cut)):
            kept = await tx.put(key, pack_window(tx.epoch, data))
        elif value is not None:
            kept = await tx.delete(key)
            table = None
        else:
            return 0, None
        gone = _no_longer(covered, data)
        if gone and newer is not None:  # after a fold that broke off the row lists them already
            gone -= newer.own_chunks()
        if gone and not kept:
            for other in await tx.relatives(key):
                gone -= chunks_of_window(other)
            if gone:
                change.free(self.layer.revision, gone)
        taken = (newer.data_bytes() if newer is not None else 0) - inline
        taken -= sum(each.length for each in covered if each.container)
        return taken, table

    async def _below(self, start: int, end: int) -> list[Piece]:
        """Return what a window without a row of its own shows, with its owners named."""
        layer = self.layer
        if start >= end:
            return []
        found = layer.extents.within(start, end)
        if found or layer.base is None:
            return found
        base = layer.base
        pieces = await self._in_window(base, start, end)
        return [
            each if each.revision else each._replace(revision=await self._owner(base, start))
            for each in pieces
            if each.chunk is not None
        ]

    async def _owner(self, layer: Layer | None, start: int) -> int:
        """Return which revision below has a row for this window."""
        while layer is not None:
            if layer.windowed and await self._window(layer, start // WINDOW) is not None:
                return layer.revision
            layer = layer.base
        raise Corrupt(f"nothing below inode {self.number} has the window at {start}")

    async def _fold_inode(
        self, change: Change, state: _Fold, cut: int, allocated: int
    ) -> tuple[Inode, int]:
        tx = change.rows
        value = await tx.get(keys.inode_key(self.number))
        if value is None:
            raise Corrupt(f"inode {self.number} vanished while it was written")
        old = read_inode(self.number, value)
        etag = f"{secrets.token_hex(16)}-0"
        inode = msgspec.structs.replace(
            old,
            born=tx.epoch,
            size=state.size,
            etag=etag,
            modified_ns=state.modified_ns,
            changed_ns=max(old.changed_ns, state.modified_ns),
            change=old.change + 1,
            allocated=max(0, old.allocated + allocated),
            folded=max(state.last, old.folded),
        )
        await tx.put(keys.inode_key(self.number), rows.encode(inode))
        revision = await self._revision(change)
        await tx.put(
            keys.revision_key(self.layer.revision),
            rows.encode(
                msgspec.structs.replace(
                    revision,
                    born=tx.epoch,
                    size=state.size,
                    etag=etag,
                    modified_ns=state.modified_ns,
                    windowed=True,  # readers of extents alone would miss the cut and holes behind it
                    cut=cut if cut < END else -1,
                    checksums={},  # of the content that was
                    checksum_type="",
                    parts=(),
                )
            ),
        )
        change.count(bytes=state.size - old.size)
        if state.dead:
            dead = [chunk for chunk, _ in state.dead]
            change.free(self.layer.revision, dead)
        return inode, cut

    async def _unfragment(self) -> None:
        """Write windows anew that are in too many pieces for a row."""
        for window, fresh in list(self._fresh.windows.items()):
            if len(fresh) <= FEW and window not in self._crowded:
                continue
            start = window * WINDOW
            found = await self.resolve(start, start + WINDOW)
            if len(found) > PIECES_MAX:
                data = await self.read(start, WINDOW)
                holes = Pieces(found).gaps(start, start + len(data))
                self.write(start, data)
                for low, high in holes if len(holes) < PIECES_MAX // 4 else ():
                    self.punch(low, high - low)

    # Sharing --------------------------------------------------------------------------------------

    async def _new_revision(self) -> None:
        """Go on in a revision made of the current one, which stays as it is."""
        await self.fold()
        revision = await self._ledger.new_id()
        base = self.layer

        async def body(change: Change) -> Inode:
            tx = change.rows
            value = await tx.get(keys.inode_key(self.number))
            stored = await tx.get(keys.revision_key(base.revision))
            if value is None or stored is None:
                raise Corrupt(f"inode {self.number} or its revision vanished")
            old = read_inode(self.number, value)
            under: Revision = rows.checked(
                rows.decode_revision, keys.revision_key(base.revision), stored
            )
            inode = msgspec.structs.replace(old, born=tx.epoch, revision=revision, shared=False)
            over = Revision(
                born=tx.epoch,
                size=under.size,
                etag=under.etag,
                modified_ns=under.modified_ns,
                headers=under.headers,
                metadata=under.metadata,
                tags=under.tags,
                storage_class=under.storage_class,
                owner=under.owner,
                windowed=True,
                base=base.revision,
            )
            await tx.put(keys.inode_key(self.number), rows.encode(inode))
            await tx.put(keys.revision_key(revision), rows.encode(over))
            volume = self._ledger.number
            await change.hold(base.revision, keys.holder_of_revision(volume, revision))
            await change.release(base.revision, keys.holder_of_inode(self.number))
            return inode

        self.inode = await self._ledger.transact(body)
        self.layer = Layer(revision, Pieces(), windowed=True, cut=END, base=base)

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Fold, and let nobody fold again inside the block: the rows are the content as of its begin."""
        await self.fold()
        async with self._fold_lock:
            yield

    async def sync(self) -> None:
        """Make what was written durable: one sync of the journal."""
        await self._log.flush()


@dataclass(slots=True)
class _Fold:
    pieces: Overlay
    size: int
    cut: int
    modified_ns: int
    last: Position
    dead: list[tuple[Chunk, int]]
    alive: dict[Chunk, int]


def _gaps(pieces: list[Piece], start: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges of [start, end) that none of these disjoint, ordered pieces covers."""
    found = []
    for piece in pieces:
        if piece.offset > start:
            found.append((start, piece.offset))
        start = piece.end
    if start < end:
        found.append((start, end))
    return found


def _no_longer(covered: list[Entry], now: Table) -> set[Chunk]:
    """Return which of the chunks that the revision wrote into a window, and that something covers, it does not list any more."""
    gone: set[Chunk] = set()
    perhaps: set[Chunk] = set()
    for each in covered:
        if each.container and not each.volume and not each.revision:
            chunk = each.chunk
            assert chunk is not None
            # A chunk that is covered in one piece, all of it, is in no other.
            (gone if each.length + CHANGE_HEAD == each.whole else perhaps).add(chunk)
    if perhaps:
        gone |= perhaps - now.own_chunks()
    return gone
