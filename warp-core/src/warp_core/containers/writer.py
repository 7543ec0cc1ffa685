"""Streams: a payload of any size goes through a few pooled buffers into containers of its own.

```
buffer() ─ wrote() ─▶ cut ─▶ filters ─▶ checksums ─▶ write to N stores ─┐ IN_FLIGHT at once
   ▲                                                                    │
   └──────────────── pooled 1 MiB buffers ◀─────────────────────────────┘          finish: sync, give the lease back
```

A record of a stream begins before its length is known: its head and table are written last, into the room reserved for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress

from warp_core.containers.appender import OpenContainer
from warp_core.containers.buffers import BufferPool
from warp_core.containers.filters import encode_frames
from warp_core.containers.fleet import Fleet
from warp_core.containers.format import (
    ALIGN,
    FRAME,
    PAGE,
    PAYLOAD_MAX,
    Chunk,
    Kind,
    Owner,
    align,
    frame_checksums,
    frame_count,
    head_size,
    pack_head,
)
from warp_core.containers.leases import Leases
from warp_core.errors import InvalidArgument, LocalProtocolError, WarpError
from warp_core.interfaces.codecs import Chunker, Filter
from warp_core.interfaces.stores import Buffer

IN_FLIGHT = 3  # buffers of one stream on their way to the stores: enough to keep a disk busy while the next one fills
SMALL_MAX = (
    256 * 1024
)  # streams that turn out to be this short are appended with the small payloads: one sync less


class _Record:
    """The record that a stream is writing."""

    __slots__ = ("head", "length", "offset", "room", "stored", "table")

    def __init__(self, offset: int, room: int, filters: str) -> None:
        self.offset = offset
        self.room = room
        self.head = head_size(room, filters)
        self.table: list[tuple[int, int]] = []
        self.length = 0
        self.stored = 0

    @property
    def end(self) -> int:
        """Where the next byte of it goes."""
        return self.offset + self.head + self.stored


class _Batch:
    """Bytes for one place of one container."""

    __slots__ = ("buffers", "container", "end", "offset")

    def __init__(self, container: OpenContainer, offset: int) -> None:
        self.container = container
        self.offset = self.end = offset
        self.buffers: list[Buffer] = []

    def add(self, buffer: Buffer) -> None:
        """Append bytes."""
        self.buffers.append(buffer)
        self.end += len(buffer)


class ChunkWriter:
    """Content on its way in, made by `Containers.writer`. One task uses it; it holds at most IN_FLIGHT + 1 buffers of 1 MiB."""

    def __init__(
        self,
        fleet: Fleet,
        leases: Leases,
        pool: BufferPool,
        *,
        kept: tuple[int, int],
        owner: Owner,
        chunker: Chunker,
        chain: Sequence[Filter],
        filters: str,
        size_hint: int | None,
        codec_threads: Executor,
        append: Callable[[bytes], Chunk],
        sync: Callable[[Sequence[Chunk], bool], Awaitable[None]],
        discard: Callable[[Sequence[tuple[int, int, int]]], None],
    ) -> None:
        self.size = 0
        self._fleet = fleet
        self._leases = leases
        self._pool = pool
        self._kept = kept  # copies, and the number of the place
        self._owner = owner
        self._chunker = chunker
        self._fixed = chunker.min_size == chunker.max_size
        self._chunk_max = min(chunker.max_size, PAYLOAD_MAX)
        if not self._fixed and chunker.max_size > pool.size:
            raise InvalidArgument(
                f"chunks of up to {chunker.max_size} bytes > {pool.size} that a content-defined cut may see"
            )
        self._chain = chain
        self._filters = filters
        self._hint = size_hint
        self._threads = codec_threads
        self._append = append
        self._sync = sync
        self._discard = discard
        self._buffer: memoryview | None = None
        self._filled = 0
        self._consumed = 0  # bytes of the stream that were given a place
        self._container: OpenContainer | None = None
        self._record: _Record | None = None
        self._chunks: list[tuple[int, Chunk]] = []
        self._full: list[OpenContainer] = []  # to be sealed once what is placed in them was sent
        self._writes: set[asyncio.Task[None]] = set()
        self._sealing: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._closed = False

    def buffer(self) -> memoryview:
        """Return the free rest of the current buffer (never empty): receive into it, then tell `wrote`."""
        if self._buffer is None:
            self._check_open()
            self._buffer = self._pool.take_now()
        return self._buffer[self._filled :]

    def wrote(self, length: int) -> bool:
        """Count bytes put into `buffer`; True means that `drain` must be awaited before the next `buffer`."""
        self._filled += length
        self.size += length
        return self._filled == self._pool.size

    async def drain(self) -> None:
        """Hand the buffer on to the stores and get a free one; waits while too many are on their way.

        Raises:
            NoSpace, StoreFailed, Unavailable: The policy's copies cannot be written. Abort.
        """
        self._check_open()
        await self._consume(final=False)

    async def write(self, data: Buffer) -> None:
        """Append bytes by copying, draining as needed; raises as `drain`."""
        view = memoryview(data)
        while view:
            free = self.buffer()
            count = min(len(free), len(view))
            free[:count] = view[:count]
            view = view[count:]
            if self.wrote(count):
                await self.drain()

    async def finish(self, *, journaled: bool = False) -> list[tuple[int, Chunk]]:
        """Return (offset in the stream, chunk) of everything written, once it is durable on all copies.

        Args:
            journaled: The caller commits through the node's journal next: what went there need not be synced before that.

        Raises:
            NoSpace, StoreFailed, Unavailable: As `drain`; nothing may be linked. Abort.
        """
        self._check_open()
        if self._consumed == 0 and self._filled <= SMALL_MAX:
            await self._finish_small(journaled)
        else:
            await self._consume(final=True)
            await self._settle_writes()
            if self._container is not None:
                await self._container.sync()
        await self._close()
        return self._chunks

    async def abort(self) -> None:
        """Drop what was written and give its space back; harmless when repeated and after `finish`."""
        if self._closed:
            return
        with suppress(WarpError):  # already told to whoever wrote
            await self._settle_writes()
        dead = [(chunk.container, chunk.offset, align(chunk.stored)) for _, chunk in self._chunks]
        record, container = self._record, self._container
        if record is not None and container is not None:
            dead.append((container.id, record.offset, align(record.end - record.offset)))
            container.place(record.end - record.offset)
        if container is not None:
            with suppress(WarpError):  # its copies are gone, or it is sealed by the next start
                await container.sync()
        await self._close()
        self._discard(dead)

    # Cutting --------------------------------------------------------------------------------------

    async def _consume(self, *, final: bool) -> None:
        """Give everything in the buffer a place, and send it there; keep what cannot be cut yet."""
        buffer = self._buffer
        if buffer is None:
            buffer = self._pool.take_now()
        batches: list[_Batch] = []
        view = buffer[: self._filled]
        at = 0
        while at < len(view):
            take, ends = self._next_cut(view[at:], final=final)
            if not take:
                break
            await self._place(view[at : at + take], ends=ends, batches=batches)
            at += take
        if final and self._record is not None and self._container is not None:
            front = _Batch(self._container, self._record.offset)
            front.add(self._end_record(self._record, self._container))
            batches.append(front)
        rest = bytes(view[at:])  # less than a frame or than a cut needs goes on in the next buffer
        self._buffer, self._filled = None, 0
        self._send(batches, buffer)
        full, self._full = self._full, []
        for container in full:
            await self._seal(container)
        await self._limit_writes()
        if not final:
            self._buffer = await self._pool.take()
            self._buffer[: len(rest)] = rest
            self._filled = len(rest)

    def _next_cut(self, view: memoryview, *, final: bool) -> tuple[int, bool]:
        """Return how many bytes to place next, and whether they end their record."""
        if not self._fixed:
            length = self._chunker.cut(view[: self._chunker.max_size], final=final)
            return length, True
        left = self._chunk_max
        if self._record is not None:  # one with a room that a wrong hint made too small ends early
            left = min(left, self._record.room * FRAME) - self._record.length
        if len(view) >= left:
            return left, True
        if final:
            return len(view), True
        return len(view) & -FRAME, False

    async def _place(self, piece: memoryview, *, ends: bool, batches: list[_Batch]) -> None:
        record = self._record
        fresh = record is None
        if record is None:
            record = await self._begin(len(piece), whole=ends)
        container = self._container
        assert container is not None
        first = len(record.table)
        if self._chain:
            table, stored = await asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: encode_frames(
                    self._chain, piece, container=container.id, offset=record.offset, first=first
                ),
            )
        else:
            table, stored = frame_checksums(piece), [piece]
        start = record.end
        record.table += table
        record.length += len(piece)
        record.stored += sum(map(len, stored))
        self._consumed += len(piece)
        ends = ends or len(record.table) == record.room  # a wrong hint made the table too small
        head = self._end_record(record, container) if ends else None
        batch = batches[-1] if batches else None
        if head is not None and fresh:
            if batch is None or batch.container is not container or batch.end != record.offset:
                batch = _Batch(container, record.offset)
                batches.append(batch)
            batch.add(head)
        elif batch is None or batch.container is not container or batch.end != start:
            batch = _Batch(container, start)
            batches.append(batch)
        for part in stored:
            batch.add(part)
        if ends and batch.end % ALIGN:
            batch.add(bytes(-batch.end % ALIGN))
        if head is not None and not fresh:
            front = _Batch(container, record.offset)
            front.add(head)
            batches.insert(0, front)

    async def _begin(self, length: int, *, whole: bool) -> _Record:
        """Begin a record of at least `length` bytes, in another container if this one has no room for it."""
        if not whole:
            left = self._chunk_max if self._hint is None else self._hint - self._consumed
            length = max(length, min(self._chunk_max, left))
        room = frame_count(length)
        need = head_size(room, self._filters) + length
        if (
            self._container is not None
            and self._container.room < need
            and self._container.tail > PAGE
        ):
            self._full.append(self._container)
            self._container = None
        if self._container is None:
            need = min(need, self._fleet.container_size)
            self._container = await self._leases.take(self._kept, need)
        self._record = _Record(self._container.tail, room, self._filters)
        return self._record

    def _end_record(self, record: _Record, container: OpenContainer) -> bytes:
        if len(record.table) > record.room:
            raise LocalProtocolError(
                f"{len(record.table)} frames in a record with room for {record.room}"
            )
        head = pack_head(
            Kind.PAYLOAD, container.id, record.offset, self._owner, self._fleet.sequence(), record.length,
            record.table, filters=self._filters, room=record.room,
        )  # fmt: skip
        stored = record.head + record.stored
        container.place(stored)
        chunk = Chunk(container.id, record.offset, stored, record.length)
        self._chunks.append((self._consumed - record.length, chunk))
        self._record = None
        return head

    # Sending --------------------------------------------------------------------------------------

    def _send(self, batches: Sequence[_Batch], buffer: memoryview) -> None:
        """Start writing; `buffer` goes back to the pool when that is done."""
        task = asyncio.create_task(self._write(batches, buffer))
        self._writes.add(task)
        task.add_done_callback(self._wrote)

    async def _write(self, batches: Sequence[_Batch], buffer: memoryview) -> None:
        try:
            for batch in batches:
                await batch.container.write(batch.offset, batch.buffers)
        finally:
            self._pool.give(buffer)

    def _wrote(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = self._error or task.exception()

    async def _limit_writes(self) -> None:
        while len(self._writes) >= IN_FLIGHT:
            await asyncio.wait(self._writes, return_when=asyncio.FIRST_COMPLETED)
        self._raise()

    async def _settle_writes(self) -> None:
        while self._writes:
            await asyncio.wait(self._writes)
        await self._settle_seal()
        self._raise()

    async def _settle_seal(self) -> None:
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            try:
                await sealing
            except WarpError as error:
                self._error = self._error or error

    async def _seal(self, container: OpenContainer) -> None:
        """Sync and seal a full container while the stream goes on in another: one at a time, so that dirty memory is bounded."""
        await self._settle_seal()
        writes = tuple(self._writes)

        async def seal() -> None:
            if writes:
                await asyncio.wait(writes)
            await container.seal()

        self._sealing = asyncio.create_task(seal())

    # Ends -----------------------------------------------------------------------------------------

    async def _finish_small(self, journaled: bool) -> None:
        """Append what fits into one buffer with the small payloads."""
        view = self._buffer[: self._filled] if self._buffer is not None else memoryview(b"")
        at = 0
        while at < len(view):
            take, _ = self._next_cut(view[at:], final=True)
            self._chunks.append((at, self._append(bytes(view[at : at + take]))))
            at += take
        if self._chunks:
            await self._sync([chunk for _, chunk in self._chunks], journaled)

    async def _close(self) -> None:
        self._closed = True
        if self._buffer is not None:
            self._pool.give(self._buffer)
            self._buffer = None
        container, self._container = self._container, None
        if container is not None:
            await self._leases.give_back(container)

    def _check_open(self) -> None:
        if self._closed:
            raise LocalProtocolError("the stream was finished or aborted")
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
