"""The journal: one log of everything small that must be durable soon, in copies on several stores.

```
 append append append …            in the loop's thread: a place is assigned, buffers are queued
        │ queued batch │ ─────────▶ one write and one sync a copy, all copies at once ──▶ flush() returns
               ▲                            meanwhile the next batch fills: group commit
```

Segments are containers of lane 1. A batch begins with a mark that says what was durable before it;
after a crash the end is the first place where no copy has a valid record and no mark says that
there was one (`segments.recover`). Records are only ever added: a segment is never appended to by a
later run. See `docs/formats/journal.md`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import msgspec

from warp_core.containers import format as fmt
from warp_core.containers import segments as seg
from warp_core.containers.generations import Copies, Copy, Leaving
from warp_core.containers.past import Past
from warp_core.containers.segment_maker import SegmentMaker
from warp_core.containers.segments import START, Entry, Gap, Mark, Position, Segment
from warp_core.errors import (
    Busy,
    Corrupt,
    NoSpace,
    TooLarge,
    Unavailable,
    WarpError,
    WritesStopped,
)
from warp_core.interfaces.stores import BlobStore, Buffer

BATCH_MAX = 1024 * 1024  # bytes of one write and sync: larger ones only make the first in it wait
QUEUE_MAX = 16 * 1024 * 1024  # bytes queued; beyond it `append` refuses and `room` waits
JOIN_MAX = 8 * 1024  # records up to here are joined: a copy is cheaper than three more buffers
BUFFERS_MAX = 1000  # of one batch: the kernel takes 1024 at once
SPARE_AT = 4  # the next segment is made when a quarter of the current one is used
MARK_ROOM = 256  # bytes that a mark takes at most
ROOM = 1024  # bytes that a record of one frame and a mark take at most, besides its payload

_encode = msgspec.msgpack.Encoder().encode


class _Batch:
    """Records of one segment that are written together."""

    __slots__ = ("buffers", "number", "offset", "payload", "segment", "sequence", "size", "waiting")

    def __init__(self, number: int, segment: Segment, offset: int) -> None:
        self.number = number
        self.segment = segment
        self.offset = offset
        self.size = 0
        self.payload = 0
        self.sequence = 0
        self.buffers: list[Buffer] = []
        self.waiting: list[asyncio.Future[None]] = []


class Packer(Protocol):
    """Makes records whose stored bytes are not the payload's: `filters.FilteredRecords`."""

    def most(self, length: int) -> int:
        """Return what a record of so many bytes may take, padding included."""

    def pack(
        self,
        kind: int,
        container: int,
        offset: int,
        owner: fmt.Owner,
        sequence: int,
        payload: Buffer,
    ) -> tuple[list[Buffer], int]:
        """Return the buffers of a record for its place, padding included, and its bytes without it."""


class Journal:
    """Open it with `async with`; all calls come from the loop's thread.

    `sequence` is that of the newest record appended, `durable` of the newest that is durable,
    `batch` the number of the batch that is filling: what is appended under one number becomes
    durable together.
    """

    def __init__(
        self,
        stores: Sequence[BlobStore],
        *,
        epoch: int | None = None,
        segment_size: int = fmt.CONTAINER_SIZE,
        wall_ns: Callable[[], int] = time.time_ns,
        on_sealed: Callable[[Segment], None] | None = None,
        leaving: Leaving | None = None,
        whole: Collection[str] = (),
    ) -> None:
        """Take the stores of the copies.

        Args:
            epoch: Of this run; without one the journal makes one that it has not used.
            on_sealed: Told of each segment of this run that will not grow any more.
            leaving: Asked before copies are left behind.
            whole: Ids of the stores that it was last asked to go on with, if somebody kept them.
        """
        if not stores:
            raise Unavailable("a journal needs at least one store")
        self._copies = Copies(stores, leaving, whole)
        self._epoch = epoch
        self._segment_size = segment_size
        self._wall_ns = wall_ns
        self.on_sealed = on_sealed
        self.sequence = 0
        self.durable = 0
        self.batch = 0
        self.queued = 0  # bytes
        self.batches_written = 0
        self.bytes_written = 0  # to each copy
        self.failed: WarpError | None = None
        # Of this run, and those that the last one left open.
        self._segments: dict[int, Segment] = {}
        self._past = Past(())
        self._released = START
        self._segment: Segment | None = None
        self._capacity = segment_size
        self._offset = 0
        self._previous = 0
        self._durable_at = START
        self._maker = SegmentMaker(
            self._copies,
            size=segment_size,
            wall_ns=wall_ns,
            pressed=lambda: self._segment is None or self._offset > self._capacity // 2,
            failed=self._stop,
        )
        self._queue: deque[_Batch] = deque()
        self._writing: _Batch | None = None
        self._flush_to = -1
        self._wake: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._closing = False

    # Opening and closing --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Recover what earlier runs left, seal it, and begin a segment.

        Raises:
            Corrupt: No copy can be read.
            StoreFailed: Only copies that miss what was acknowledged could be read and completed.
            NewerFormat: Written by a later release.
        """
        copies = self._copies
        await copies.find()
        # A stale copy may still have open segments that the others have sealed, or deleted.
        states = [copy.state for copy in copies.all if copy.state]
        sealed_below = min((state.sealed_below for state in states), default=0)
        self._past = Past(copies.all)
        empty = await self._past.recover(
            sealed_below=sealed_below,
            created_ns=self._wall_ns(),
            require_whole=copies.require_whole,
        )
        self._segments.update(self._past.opened)
        # Old segments may be deleted by now: the state remembers the epoch of the last run too.
        used = [self._past.greatest, *(state.sealed_below for state in states)]
        last = max(map(fmt.epoch_of, used))
        if self._epoch is None:
            self._epoch = fmt.next_epoch(last, self._wall_ns() / 1e9)
        elif self._epoch <= last:
            raise Corrupt(f"epoch {self._epoch} is not new: the journal has seen {last}")
        self._maker.epoch = self._epoch
        self._previous = self._past.newest
        copies.sealed_below = self._maker.next_id
        await copies.change()
        for segment in empty:
            await self._maker.delete(segment.blob)
        self._writer = asyncio.create_task(self._write_batches(), name="journal writer")
        await self._maker.make()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take nothing more, flush, seal the segment, and end the writer."""
        self._closing = True  # whatever came later would wait for a writer that is gone
        with suppress(WarpError):  # whoever waits for these records hears of it
            if self.failed is None:
                await self.flush()
        await self._maker.settle()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if self.failed is None:
            with suppress(WarpError):  # then the next start does it
                if self._segment is not None:
                    await self._finish(self._segment, self._offset)
                if self._maker.spare is not None:
                    await self._maker.delete(self._maker.take().blob)
                self._copies.sealed_below = self._maker.next_id
                await self._copies.change()
        self.failed = self.failed or _closed()

    # Writing --------------------------------------------------------------------------------------

    def append(
        self,
        kind: int,
        payload: Buffer,
        *,
        owner: fmt.Owner = fmt.NOBODY,
        packer: Packer | None = None,
    ) -> fmt.Chunk:
        """Queue a record and return its place; `flush` makes it durable. The payload must not
        change until then. A packer makes it, where it is not to be stored as it is.

        Raises:
            Busy: More than QUEUE_MAX is queued, or the next segment is being made: await `room`
                first. NoSpace: The stores are full. TooLarge: Beyond RECORD_MAX. WritesStopped: No copy
                could be written any more.
        """
        if self.tight is not None:
            self._maker.try_again()
            if kind != fmt.Kind.COMMIT:
                raise self.tight  # what is left is for commits: deletes need them
        length = len(payload)
        stored = fmt.stored_size(length)
        size = fmt.align(stored) if packer is None else packer.most(length)
        batch = self._queue[-1] if self._queue else None
        if (
            batch is None
            or batch.size + size > BATCH_MAX
            or self._offset + size > self._capacity
            or len(batch.buffers) > BUFFERS_MAX
        ):
            batch = self._begin(size)
        segment = batch.segment
        offset = self._offset
        now = self._wall_ns()
        sequence = self.sequence = now if now > self.sequence else self.sequence + 1
        if packer is None:
            buffers = (fmt.pack_small if 0 < length <= fmt.FRAME else fmt.pack)(
                kind, segment.container, offset, owner, sequence, payload
            )
        else:
            buffers, stored = packer.pack(kind, segment.container, offset, owner, sequence, payload)
            size = fmt.align(stored)
        if size <= JOIN_MAX:
            batch.buffers.append(b"".join(buffers))
        else:
            batch.buffers += buffers
        batch.sequence = sequence
        batch.size += size
        if kind != fmt.Kind.COMMIT:
            batch.payload += size
        self._offset = offset + size
        self.queued += size
        if self.queued > BATCH_MAX and self._wake is not None:
            self._kick(batch.number - 1)
        return fmt.Chunk(segment.container, offset, stored, length)

    def has_room(self, length: int) -> bool:
        """Tell whether `append` of so many bytes would succeed now."""
        if (
            length <= fmt.FRAME
            and self.failed is None
            and not self._closing
            and self._segment is not None
            and self._offset + length + ROOM <= self._capacity
        ):
            return self.queued <= QUEUE_MAX
        return self._refusal(fmt.align(fmt.stored_size(length))) is None

    async def room(self, length: int) -> None:
        """Wait until a record of so many bytes can be appended: the queue is the limit on memory.

        Raises:
            NoSpace: The stores are full.
            TooLarge: Beyond RECORD_MAX.
            WritesStopped: No copy could be written any more.
        """
        size = fmt.align(fmt.stored_size(length))
        tried = False
        while (error := self._refusal(size)) is not None:
            if isinstance(error, NoSpace) and not tried:
                tried = True
                await self._maker.wait()
                continue
            if not isinstance(error, Busy):
                raise error
            if self.queued > QUEUE_MAX:
                self._kick(self.batch)
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._room.append(future)
                await future
            else:
                await self._maker.wait()

    def _refusal(self, size: int) -> WarpError | None:
        """Return why a record of `size` bytes cannot be appended now."""
        if self.failed is not None:
            return self.failed
        if self._closing:
            return _closed()
        if size > seg.RECORD_MAX or size > self._segment_size - fmt.PAGE - MARK_ROOM:
            return TooLarge(f"record of {size} bytes > {min(seg.RECORD_MAX, self._segment_size)}")
        if self.queued > QUEUE_MAX:
            return Busy(f"{self.queued} bytes are queued > QUEUE_MAX {QUEUE_MAX}")
        if self._segment is not None and self._offset + size + MARK_ROOM <= self._capacity:
            return None
        spare = self._maker.spare
        if spare is None or fmt.PAGE + size + MARK_ROOM > spare.size:
            return self.tight or Busy("the next segment is being made")
        return None

    def _begin(self, size: int) -> _Batch:
        """Begin a batch that has room for a record of `size` bytes, in the next segment if need be."""
        refusal = self._refusal(size)
        if refusal is not None:
            raise refusal
        segment = self._segment
        if segment is None or self._offset + size + MARK_ROOM > self._capacity:
            if segment is not None:
                self._previous = segment.container
                segment.size = self._offset
                written = self._writing is None or self._writing.segment is not segment
                if written and not any(batch.segment is segment for batch in self._queue):
                    # Else the writer does it, when it is.
                    self._maker.background(self._finish(segment, segment.size))
            segment = self._segment = self._maker.take()
            self._capacity, segment.size = segment.size, 0
            self._offset = fmt.PAGE
            self._segments[segment.container] = segment
        if self._maker.spare is None and self._offset > self._capacity // SPARE_AT:
            self._maker.begin()
        self.batch += 1
        batch = _Batch(self.batch, segment, self._offset)
        now = self._wall_ns()
        batch.sequence = self.sequence = now if now > self.sequence else self.sequence + 1
        mark = _encode(Mark(*self._durable_at, self._previous))
        buffers = fmt.pack_small(
            fmt.Kind.BATCH, segment.container, self._offset, fmt.NOBODY, batch.sequence, mark
        )
        batch.buffers.append(b"".join(buffers))
        batch.size = len(batch.buffers[0])
        self._offset += batch.size
        self.queued += batch.size
        self._queue.append(batch)
        return batch

    async def flush(self) -> None:
        """Return when everything appended so far is durable on every copy.

        Raises:
            WritesStopped: No copy could be written: what was appended may or may not be found after a
                restart.
        """
        if self._queue:
            batch = self._queue[-1]
        elif self._writing is not None:
            batch = self._writing
        elif self.failed is not None and self.durable < self.sequence:
            raise self.failed
        else:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch.waiting.append(future)
        self._kick(batch.number)
        await future

    def _kick(self, number: int) -> None:
        """Let the writer write batches up to `number`."""
        if number > self._flush_to:
            self._flush_to = number
        if self._wake is not None:
            self._wake.set_result(None)
            self._wake = None

    async def _write_batches(self) -> None:
        """Write what is queued, one batch after the other; the next fills meanwhile."""
        queue = self._queue
        loop = asyncio.get_running_loop()
        while True:
            while not queue or (queue[0].number > self._flush_to and self.queued < BATCH_MAX):
                self._wake = loop.create_future()
                await self._wake
            batch = self._writing = queue.popleft()
            try:
                await self._copies.each(
                    partial(_write, batch.segment.blob, offset=batch.offset, buffers=batch.buffers)
                )
            except WarpError as error:
                self._fail(batch, error)
                return
            except Exception as error:
                self._fail(batch, WritesStopped(f"the journal failed: {error!r}"))
                raise
            self._writing = None
            self.durable = batch.sequence
            self.queued -= batch.size
            self.batches_written += 1
            self.bytes_written += batch.size
            segment = batch.segment
            segment.payload += batch.payload
            end = batch.offset + batch.size
            self._durable_at = Position(segment.container, end)
            for future in batch.waiting:
                if not future.done():
                    future.set_result(None)
            if self._room:
                self._let_in()
            if segment is not self._segment and (not queue or queue[0].segment is not segment):
                self._maker.background(self._finish(segment, segment.size))

    def _fail(self, batch: _Batch, error: WarpError) -> None:
        """Stop for good: nothing more is written in this run."""
        self._drop([batch, *self._queue], error)

    def _drop(self, batches: Sequence[_Batch], error: WarpError) -> None:
        self.failed = self.failed or error
        self._writing = None
        self._queue.clear()
        self.queued = 0
        for batch in batches:
            for future in batch.waiting:
                if not future.done():
                    future.set_exception(error)
        self._let_in()

    def abandon(self, error: WarpError) -> None:
        """Stop for good, whatever is queued: another node may be writing by now. Closing writes nothing then."""
        if self._writer is not None:
            self._writer.cancel()
        writing = [self._writing] if self._writing is not None else []
        self._drop([*writing, *self._queue], error)

    def _let_in(self) -> None:
        waiting, self._room = self._room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # Segments -------------------------------------------------------------------------------------

    async def _finish(self, segment: Segment, end: int) -> None:
        """Seal a segment that nothing will be appended to, or delete it if it holds nothing."""
        if end <= fmt.PAGE:
            self._segments.pop(segment.container, None)
            await self._maker.delete(segment.blob)
            return
        await self._maker.seal(segment, end)
        if self.on_sealed is not None:
            self.on_sealed(segment)
        await self._drop_released()

    def _stop(self, error: WarpError) -> None:
        self.failed = self.failed or error

    @property
    def tight(self) -> NoSpace | None:
        """Why only commits are taken: a store has no room for the next segment."""
        return self._maker.tight

    def release(self, before: Position) -> None:
        """Say that commit records before a position are not needed any more.

        Segments of nothing else are deleted.
        """
        if before > self._released:
            self._released = before
            if any(self._droppable(segment) for segment in self._segments.values()):
                self._maker.background(self._drop_released())

    def needed(self, container: int) -> bool:
        """Tell whether a segment may hold commit records that are not released: it must not be
        compacted or deleted.
        """
        segment = self._segments.get(container)
        if segment is None:
            return container >= min(self._newest, self._released.container)
        if container >= self._newest:
            return True
        # The segment in which a replay begins is read by it, even if it begins at its end.
        return not segment.sealed or Position(container, segment.size) >= self._released

    @property
    def _newest(self) -> int:
        """The newest segment that holds something durable: it stays, so that the next run can tell
        what came before it.
        """
        return self._durable_at.container or self._past.newest

    def _droppable(self, segment: Segment) -> bool:
        return (
            segment.sealed
            and not segment.payload
            and fmt.epoch_of(segment.container) == self._epoch
            and Position(segment.container, segment.size) <= self._released
            and segment.container < self._newest
        )

    async def _drop_released(self) -> None:
        for segment in [segment for segment in self._segments.values() if self._droppable(segment)]:
            self._segments.pop(segment.container, None)
            await self._maker.delete(segment.blob)

    @property
    def copies(self) -> list[Copy]:
        """The copies, in the order of the stores; `alive` and `reason` say how they are."""
        return self._copies.all

    @property
    def generation(self) -> int:
        """Grows whenever the set of whole copies changes."""
        return self._copies.generation

    # Reading --------------------------------------------------------------------------------------

    @property
    def end(self) -> Position:
        """Where the next record will lie, or later."""
        if self._segment is None:
            return Position(fmt.container_id(fmt.Lane.JOURNAL, self._epoch or 0, 0), fmt.PAGE)
        return Position(self._segment.container, self._offset)

    def queued_record(self, chunk: fmt.Chunk) -> bytes | None:
        """Return a record's bytes if it is still queued or being written: stores cannot show it
        yet.
        """
        batches = [self._writing, *self._queue] if self._writing is not None else self._queue
        for batch in batches:
            assert batch is not None
            skip = chunk.offset - batch.offset
            if batch.segment.container == chunk.container and 0 <= skip < batch.size:
                data = b"".join(batch.buffers)
                return data[skip : skip + chunk.stored]
        return None

    def lost(self, chunk: fmt.Chunk) -> WarpError | None:
        """Return why a record of this run was never written, None for those that were: it is not damaged, it never was there."""
        place = Position(chunk.container, chunk.offset)
        mine = fmt.epoch_of(chunk.container) == self._epoch
        return self.failed if mine and place >= self._durable_at else None

    async def reaches(self, since: Position) -> bool:
        """Tell whether everything appended by earlier runs after `since` is still here."""
        return await self._past.reaches(since)

    async def logged_since(self, since: Position) -> int:
        """Return how many bytes earlier runs appended from `since` on; what this one did is `bytes_written`."""
        return await self._past.size_since(since)

    def replay(self, since: Position = START, *, strict: bool = True) -> AsyncIterator[Entry | Gap]:
        """Yield what earlier runs appended from `since` on: verified records in order, and ranges that no copy has any more.

        Without `strict`, segments that are missing or unreadable as a whole are passed over: for a rebuild from what is left.

        Raises:
            Corrupt: A segment is missing as a whole.
        """
        return self._past.replay(since, strict=strict)

    def inspect(self) -> AsyncIterator[str]:
        """Read every segment of earlier runs on every copy and say, in a sentence each, what is not as it should be."""
        return self._past.inspect()


def _closed() -> Unavailable:
    return Unavailable("the journal is closed")


async def _write(blob: str, store: BlobStore, *, offset: int, buffers: Sequence[Buffer]) -> None:
    await store.write(blob, offset=offset, buffers=buffers, sync=True)
