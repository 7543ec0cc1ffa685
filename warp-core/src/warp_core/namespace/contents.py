"""Content of files that are written in place: what the rows say, and what was written since they last said it.

A write appends one self-describing record and notes where it went; there is no transaction. Reads see it at once. `fold` moves what
gathered into the rows: after a while, and when somebody reads the file by its rows (an S3 GET). Who shares the file, a snapshot or a
clone, need not wait for that: the rows then say what is still to come (`pending.py`). After a crash the records behind the inode's
`folded` position are applied again, in their order.

```
 write ──▶ record in the journal, piece in `_fresh` ──┐
 sync  ──▶ one sync of the journal                    │ gather: a stretch (`stretches.py`); fold: into the rows
 read  ◀── _fresh over stretches over window rows over extents over the base's
```
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import OutOfRange, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import extents
from warp_core.namespace.allowance import Allowance
from warp_core.namespace.extents import (
    CHANGE_HEAD,
    CHUNK_MAX,
    HOLE,
    PIECES_MAX,
    SIZE,
    WINDOW,
    WRITE,
    Piece,
    gaps,
    pack_change,
    split,
)
from warp_core.namespace.folding import BATCH, put_revision_above
from warp_core.namespace.inodes import Inode, Position
from warp_core.namespace.layers import Layers, Ledger, Log
from warp_core.namespace.pending import END, Gathered, Pending, cover
from warp_core.namespace.pools import Claim
from warp_core.namespace.stretches import Stretches
from warp_core.namespace.tables import Overlay

FRESH_MAX: Final = 32_768  # pieces of one file before they are folded, beside further writes: about 10 MiB of memory
FRESH_LIMIT: Final = 2 * FRESH_MAX  # pieces that no fold has done before writes are slowed down;
# at twice that they wait for the fold
FEW: Final = (
    PIECES_MAX // 4
)  # fresh pieces of a window that are folded without a look at how many it has; each cuts one in two at most
MARKED_FEW: Final = (
    PIECES_MAX // 2
)  # the same before a snapshot: 512 and two for each of these fit in a row with those of FEW
AT_ONCE: Final = (
    2 * BATCH
)  # windows that are folded rather than marked: no more commits, and nothing left to do
HURRY_S: Final = 0.001  # between two writes that are slowed down: folds are much faster
FILTERED_ROOM: Final = (
    8 * 1024
)  # bytes of a filtered record besides twice its payload, at most: its names and frame table
TIDIED_MAX: Final = (
    64  # windows that one fold writes anew because they keep more than they show: 64 MiB at most
)


class Content:
    """One file's content while somebody uses it. One instance an inode; its calls may be made concurrently."""

    def __init__(
        self,
        ledger: Ledger,
        log: Log,
        number: int,
        inode: Inode,
        layers: Layers,
        pending: Pending | None = None,
    ) -> None:
        self.number = number
        self.inode = inode
        self.size = inode.size
        self.failures = 0  # syncs that failed
        self.seal = (
            ""  # the filter that new content is sealed with: whoever lends this holds its key
        )
        self.gone = False  # its volume was rolled back: handles are stale
        self.allowance: Allowance | None = None  # None: it is not written for a volume
        self.changes = 0  # since the rows were up to date
        self.modified_ns = inode.modified_ns
        self._ledger = ledger
        self._log = log
        self._layers = layers
        self._fresh = Overlay()
        self._stretches = Stretches(
            ledger, log, number, layers, Pending() if pending is None else pending, self._now_is
        )
        self._background: asyncio.Task[None] | None = None  # a fold that nobody waits for
        self._cut_at = END  # lowest size that the file had since the last fold
        self._filters = ""  # those of the volume, as of the last look
        self._thawed: asyncio.Event | None = None  # set when changes, which wait now, may go on
        self._standing = asyncio.Lock()  # held by who has them wait
        self._pace = asyncio.Lock()  # held by the write whose turn it is while they are slowed down
        self._alive: dict[Chunk, int] = {}  # bytes of each fresh chunk that nothing newer covers
        self._dead: list[
            tuple[Chunk, int]
        ] = []  # overwritten before a row referred to it; its window
        self._partial = False  # a fold broke off: rows may refer to some of what is fresh or dead
        self.last: Position = inode.folded
        self._dirty = False
        self._inline_checked = False
        self._share_lock = asyncio.Lock()
        self.appending = asyncio.Lock()  # held by who writes at the end
        self.writers = 0  # handles that may write
        self.unedited = False  # its first change is to keep what it was as a version
        self.beginning = asyncio.Lock()  # held by who keeps it

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
        if fresh.large:
            return None
        top = self._layers.top
        if top.above:
            return self._covering_above(window, start, end)
        table = top.windows.get(window)
        return table.covering(start, end) if table is not None else None

    def _covering_above(self, window: int, start: int, end: int) -> tuple[Chunk | None, int] | None:
        """Return what `_covering` does, of stretches that are not in the rows."""
        top = self._layers.top
        for gathered in reversed(top.above):
            table = gathered.pieces.windows.get(window)
            if table is not None:
                found = table.covering(start, end)
                if found is not None or table.touches(start, end):
                    return found
            if gathered.pieces.large:
                return None
        table = top.windows.get(window)
        return table.covering(start, end) if table is not None else None

    async def resolve(self, start: int, end: int) -> list[Piece]:
        """Return the pieces with data of [start, end), in order."""
        found = self._resolved(start, end)
        if found is None:
            found = await self._resolve(start, end)
        return [piece for piece in found if piece.chunk is not None]

    async def _resolve(self, start: int, end: int) -> list[Piece]:
        result = self._fresh.within(start, end)
        for low, high in gaps(result, start, end):
            result = result + await self._layers.within(low, high)
        return sorted(result)

    def _resolved(self, start: int, end: int) -> list[Piece] | None:
        """Return the pieces of a range, in order; None if a row is not in memory."""
        result = self._fresh.within(start, end)
        for low, high in gaps(result, start, end):
            stored = self._layers.now(low, high)
            if stored is None:
                return None
            result = result + stored
        return sorted(result)

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
        data = self._fresh.next_data(offset)
        stored = await self._layers.next_data(offset)
        return min(self.size, stored, max(offset, data) if data is not None else stored)

    # Writing --------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Say whether the rows do not tell all yet: a fold that is under way has told a part."""
        return self.unsaid or bool(self._stretches.windows.wasteful)

    @property
    def unsaid(self) -> bool:
        """Say whether something was written that the rows do not tell yet."""
        return self._dirty or bool(self._stretches.queue)

    @property
    def marks(self) -> set[bytes]:
        """The keys of the N rows that say of this file what is still to come into windows."""
        return self._stretches.marks

    async def ready(self, length: int = 0) -> None:
        """Make sure that the current revision may be changed and the log has room: called before each change, waits if it must.

        Raises:
            NoSpace, ReadOnly: Nothing more can be written.
        """
        slowed = False
        while True:
            await self._log.room(self._room(length))
            if len(self._fresh) >= FRESH_MAX:
                self._fold_beside()
            if self._thawed is not None:
                await self._thawed.wait()
            elif self.inode.shared or not self._inline_checked:
                await self._make_ready()
            elif len(self._fresh) + self._stretches.pieces >= FRESH_LIMIT and not slowed:
                await self._slow_down()
                slowed = True
            else:
                return  # nothing was waited for since these were looked at

    async def _slow_down(self) -> None:
        """Let folds catch up: a short wait for each write, and a long one only where that does not help.

        Raises:
            NoSpace, ReadOnly: What was written cannot be folded.
        """
        self._fold_beside()
        async with self._pace:
            if len(self._fresh) + self._stretches.pieces < 2 * FRESH_LIMIT:
                await asyncio.sleep(HURRY_S)
                return
            if self._background is not None:
                await asyncio.wait((self._background,))
            if len(self._fresh) + self._stretches.pieces >= 2 * FRESH_LIMIT:
                await self.fold()

    def ready_now(self, length: int) -> bool:
        """Say whether `ready` would not wait."""
        if self._fresh.count + self._stretches.pieces >= FRESH_MAX:
            self._fold_beside()
            if self._fresh.count + self._stretches.pieces >= FRESH_LIMIT:
                return False
        return (
            self._inline_checked
            and not self.inode.shared
            and self._thawed is None
            and self._log.has_room(
                length + CHANGE_HEAD if not self._filters else self._room(length)
            )
        )

    def _all_filters(self) -> str:
        """Return the filters of new content: those of the volume, then the seal."""
        own = self._ledger.filters()
        return f"{own},{self.seal}" if own and self.seal else own or self.seal

    def _room(self, length: int) -> int:
        """Return the bytes that a write may take in the log."""
        return 2 * (length + CHANGE_HEAD) + FILTERED_ROOM if self._filters else length + CHANGE_HEAD

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
        async with self._share_lock:
            if self.inode.shared:
                async with self.still():
                    self._gather()
                    await (
                        self._stretches.mark()
                    )  # else what was written before would come into the new one
                    inode = await put_revision_above(self._ledger, self.number, self._layers)
                    self.inode = inode
                    self._stretches.windows.wasteful.clear()  # they are the other revision's
                self.fold_later()
            if not self._inline_checked:
                self._filters = self._all_filters()
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
        else:
            self.truncate(self.size)  # nothing is there, and the file counts as changed

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
            filters=self._filters,
        )
        self.last = (chunk.container, chunk.offset)
        self._dirty = True
        self.modified_ns = self._ledger.now_ns()
        self.changes += 1
        if payload[1] != WRITE:
            self._dead.append((chunk, -1))  # of no use any more once its effect is in the rows
        return chunk

    def _cover(self, covered: list[Piece]) -> None:
        cover(self._alive, self._dead, covered)

    def replay(self, chunk: Chunk, change: extents.Change, time_ns: int) -> None:
        """Apply a record found in the journal after a crash; those that the rows know are ignored."""
        position = (chunk.container, chunk.offset)
        if position <= self.last:
            return
        self.last = position
        stretch = self._stretches.at(position)
        if stretch is not None:
            stretch.apply(chunk, change)
            return
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
        found = [*self._alive, *(chunk for chunk, _ in self._dead)]
        for gathered in self._stretches.queue:
            found += [*gathered.alive, *(chunk for chunk, _ in gathered.dead)]
        return found

    def adopt(self, stretches: list[Gathered]) -> None:
        """Take what was marked before a crash, oldest first; their pieces come with `replay`."""
        for gathered in stretches:
            gathered.owner, gathered.finish = self, self.catch_up
            self._stretches.adopt(gathered)

    # Folding --------------------------------------------------------------------------------------

    async def fold(self) -> None:
        """Bring the rows up to date; returns when what was written before the call is in them, durably."""
        async with self._stretches.folding:
            self._filters = self._all_filters()
            await self._give_back()
            await self._unfragment(FEW)
            self._gather()
            await self._stretches.fold(self._let_pass)
            self.changes = 0

    async def catch_up(self) -> None:
        """Return when what was marked before the call is in the rows."""
        async with self._stretches.folding:
            await self._stretches.fold(self._let_pass)

    async def _let_pass(self) -> None:
        """Wait for a snapshot that is being made, and has writes wait."""
        while self._thawed is not None:
            await self._thawed.wait()

    def _gather(self) -> None:
        """Close the stretch that is being written."""
        if not self._dirty:
            return
        gathered = Gathered(
            self._layers.top.revision,
            self,
            self.catch_up,
            self._fresh,
            self.size,
            self._cut_at,
            self.modified_ns,
            self.last,
            self._dead,
            self._alive,
            self.allowance.gathered(self.size) if self.allowance is not None else Claim(),
            self._partial,
            widest=self._fresh.widest(),
        )
        self._fresh = Overlay()
        self._dead, self._alive, self._dirty, self._cut_at = [], {}, False, END
        self._partial = False
        self._stretches.add(gathered)

    def _now_is(self, inode: Inode) -> None:
        """Take what the inode's row says, except for what only this knows for sure."""
        self.inode = msgspec.structs.replace(
            inode, revision=self.inode.revision, shared=self.inode.shared
        )

    async def _unfragment(self, few: int) -> None:
        """Write windows anew that are in too many pieces for a row."""
        for window in self._stretches.in_many_pieces(self._fresh, few):
            if await self._is_crowded(window):
                async with self.still():
                    await self._write_anew(window)

    async def _is_crowded(self, window: int) -> bool:
        return len(await self.resolve(window * WINDOW, (window + 1) * WINDOW)) > PIECES_MAX

    async def _give_back(self) -> None:
        """Write windows anew that keep more than they show, some of them."""
        windows = self._stretches.windows
        wasteful = sorted(windows.wasteful)[:TIDIED_MAX]
        windows.wasteful.difference_update(wasteful)
        for window in wasteful:
            if self._log.has_room(self._room(WINDOW)):
                async with self.still():
                    await self._write_anew(window)

    async def _write_anew(self, window: int) -> None:
        """Write a window in as few pieces as it takes; nobody else writes meanwhile."""
        if self.inode.shared:
            return  # what would be written belongs to a revision that has not been made yet
        start, end = window * WINDOW, (window + 1) * WINDOW
        found = await self.resolve(start, end)
        runs: list[tuple[int, int]] = []
        for piece in found:
            if runs and runs[-1][1] == piece.offset:
                runs[-1] = (runs[-1][0], piece.end)
            else:
                runs.append((piece.offset, piece.end))
        if len(runs) >= PIECES_MAX // 4:  # its holes become zeros
            runs = [(start, min(end, self.size))]
        modified_ns = self.modified_ns
        for low, high, data in [(*run, await self.read(run[0], run[1] - run[0])) for run in runs]:
            assert len(data) == high - low
            self.write(low, data)
        self.modified_ns = modified_ns  # nobody sees a change

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Have changes wait inside the block, which waits for no fold."""
        async with self._standing:
            self._thawed = thawed = asyncio.Event()
            try:
                yield
            finally:
                self._thawed = None
                thawed.set()

    async def prepare(self) -> None:
        """Do beside further writes what `conclude` would do while they wait."""
        self._filters = self._all_filters()
        await self._unfragment(MARKED_FEW)

    async def conclude(self) -> None:
        """Have the rows say what the content is, or how to find out; changes wait. What is shared now never changes.

        A little is folded. More is marked, and folded later.
        """
        for window in self._stretches.in_many_pieces(self._fresh, MARKED_FEW):  # since `prepare`
            if await self._is_crowded(window):
                await self._write_anew(window)
        little = not (
            self._stretches.queue or self._fresh.large or self._stretches.folding.locked()
        )
        if little and len(self._fresh.windows) <= AT_ONCE and not self._layers.lent(self):
            async with self._stretches.folding:  # which nobody holds
                self._gather()
                await self._stretches.fold(_at_once)
                self.changes = 0
        else:
            self._gather()
            await self._stretches.mark()

    def fold_later(self) -> None:
        """Fold in the background what was only marked."""
        if self._stretches.queue:
            self._fold_beside()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Have changes wait inside the block, and the rows say what the content is, or how to find out."""
        await self.prepare()
        try:
            async with self.still():
                await self.conclude()
                yield
        finally:
            self.fold_later()

    def leave(self) -> None:
        """Let the windows that are still to be written anew be: nobody uses the file any more."""
        self._stretches.windows.wasteful.clear()

    async def sync(self) -> None:
        """Make what was written durable: one sync of the journal."""
        await self._log.flush()


async def _at_once() -> None:
    """Pause for nobody."""
