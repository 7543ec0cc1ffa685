"""Open disks: one connection to a disk, and what all connections to one share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from warp_core.errors import (
    InvalidArgument,
    OutOfRange,
    PreconditionFailed,
    ReadOnly,
    StaleHandle,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import reservations
from warp_core.namespace.openfiles import NamespaceFile
from warp_core.namespace.reservations import Reserved
from warp_core.views.blocks import (
    COMPARE_MAX,
    IO_MAX,
    Disk,
    DiskInfo,
    Reservation,
    ReservationInfo,
    Run,
    Status,
)

FILE_IO: Final = 1024 * 1024  # bytes handed to the file at once


class Shared:
    """What all connections of a disk share in memory: its row, who waits for resizes, and the order of compare_and_write."""

    def __init__(self, row: Reserved) -> None:
        self.row = row
        self.users = 0
        self.resized: set[asyncio.Queue[int]] = set()
        self.writes = 0  # under way
        self.idle = asyncio.Event()
        self.idle.set()
        self.exclusive = asyncio.Lock()


class NamespaceDisk(Disk):
    """One connection to a disk."""

    def __init__(
        self,
        info: DiskInfo,
        file: NamespaceFile,
        shared: Shared,
        initiator: str,
        *,
        on_close: Callable[[], Awaitable[None]],
        update: Callable[[Callable[[Reserved], Reserved]], Awaitable[None]],
    ) -> None:
        self.info = info
        self._file = file
        self._shared = shared
        self._initiator = initiator
        self._on_close = on_close
        self._update = update
        self._queues: set[asyncio.Queue[int]] = set()
        self._closed = False

    @property
    def size(self) -> int:
        """The disk's size now."""
        return self._file.size

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Disk.read`."""
        self._range(offset, length)
        self._may_read()
        if length <= FILE_IO:
            data = await self._file.read(offset, length)
            return self._whole(data, length)
        parts = [
            self._whole(await self._file.read(at, step), step)
            for at, step in _steps(offset, length)
        ]
        return b"".join(parts)

    def _whole(self, data: Buffer, length: int) -> Buffer:
        if len(data) != length:  # the disk shrank meanwhile
            raise OutOfRange(f"the disk ends at {self.size}")
        return data

    async def read_runs(self, offset: int, length: int) -> Sequence[Run]:
        """See `Disk.read_runs`."""
        self._range(offset, length)
        self._may_read()
        found: list[Run] = []
        for at, step in _steps(offset, length):
            runs = await self._file.read_runs(at, step)
            if sum(run[1] for run in runs) != step:
                raise OutOfRange(f"the disk ends at {self.size}")  # it shrank meanwhile
            found += runs
        return found

    def read_now(self, offset: int, length: int) -> Sequence[Run] | None:
        """See `Disk.read_now`."""
        if not 0 <= offset <= self._file.content.size - length or length > IO_MAX or self._closed:
            self._range(offset, length)
        if self._shared.row.kind:
            self._may_read()
        return self._file.read_runs_now(offset, length)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """See `Disk.write_now`."""
        if not 0 <= offset <= self._file.content.size - len(data) or self._closed:
            self._range(offset, len(data))
        if self._shared.row.kind or self.info.read_only:
            self._may_write()
        return not self._shared.exclusive.locked() and self._file.write_now(offset, data)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """See `Disk.write`."""
        self._range(offset, len(data))
        self._may_write()
        async with _Writing(self._shared):
            view = memoryview(data)
            for at, step in _steps(offset, len(view)):
                await self._file.write(at, view[at - offset : at - offset + step])
        if fua:
            await self._file.sync()

    async def flush(self) -> None:
        """See `Disk.flush`."""
        await self._file.sync()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """See `Disk.trim`."""
        self._range(offset, length, large=True)
        self._may_write()
        if length:
            async with _Writing(self._shared):
                await self._file.punch(offset, length)
        if fua:
            await self._file.sync()

    async def zero(
        self, offset: int, length: int, *, fua: bool = False, may_trim: bool = True
    ) -> None:
        """See `Disk.zero`. Zeros that may not be given back are written, so that their space stays."""
        if may_trim:
            await self.trim(offset, length, fua=fua)
            return
        self._range(offset, length, large=True)
        self._may_write()
        async with _Writing(self._shared):
            for at, step in _steps(offset, length):
                await self._file.write(at, bytes(step))
        if fua:
            await self._file.sync()

    async def status(self, offset: int, length: int, *, limit: int = 1024) -> Sequence[Status]:
        """See `Disk.status`."""
        self._range(offset, length, large=True)
        found: list[Status] = []
        at, end = offset, offset + length
        while at < end and len(found) < limit:
            try:
                data = min(end, await self._file.seek(at, "data"))
            except OutOfRange:
                data = end
            if data > at:
                found.append(Status(at, data - at, hole=True))
                at = data
                continue
            hole = min(end, await self._file.seek(at, "hole"))
            found.append(Status(at, hole - at, hole=False))
            at = hole
        return found

    async def compare_and_write(
        self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
    ) -> None:
        """See `Disk.compare_and_write`."""
        if len(expected) != len(data) or len(data) > COMPARE_MAX:
            raise InvalidArgument(
                f"compare {len(expected)} and write {len(data)} bytes: equal, at most {COMPARE_MAX}"
            )
        self._range(offset, len(data))
        self._may_write()
        async with self._shared.exclusive:
            await self._shared.idle.wait()
            found = bytes(await self._file.read(offset, len(data)))
            wanted = bytes(expected)
            if found != wanted:
                differs = next(
                    i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b
                )
                raise PreconditionFailed(f"byte {offset + differs} differs", condition=str(differs))
            await self._file.write(offset, data)
        if fua:
            await self._file.sync()

    async def resizes(self) -> AsyncIterator[int]:
        """See `Disk.resizes`."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        self._shared.resized.add(queue)
        self._queues.add(queue)
        try:
            while (size := await queue.get()) >= 0:
                yield size
        finally:
            self._shared.resized.discard(queue)
            self._queues.discard(queue)

    async def close(self) -> None:
        """See `Disk.close`."""
        if not self._closed:
            self._closed = True
            for queue in self._queues:
                queue.put_nowait(-1)
            await self._on_close()

    # Reservations ---------------------------------------------------------------------------------

    async def register(self, key: int, *, old: int | None = None) -> None:
        """See `Disk.register`."""
        await self._update(
            partial(reservations.register, initiator=self._initiator, key=key, old=old)
        )

    async def reserve(self, key: int, kind: Reservation) -> None:
        """See `Disk.reserve`."""
        await self._update(
            partial(reservations.reserve, initiator=self._initiator, key=key, kind=kind)
        )

    async def release(self, key: int, kind: Reservation) -> None:
        """See `Disk.release`."""
        await self._update(
            partial(reservations.release, initiator=self._initiator, key=key, kind=kind)
        )

    async def preempt(self, key: int, victim: int, kind: Reservation) -> None:
        """See `Disk.preempt`."""
        await self._update(
            partial(
                reservations.preempt, initiator=self._initiator, key=key, victim=victim, kind=kind
            )
        )

    async def clear(self, key: int) -> None:
        """See `Disk.clear`."""
        await self._update(partial(reservations.clear, initiator=self._initiator, key=key))

    async def reservations(self) -> ReservationInfo:
        """See `Disk.reservations`."""
        return reservations.show(self._shared.row)

    def _may_write(self) -> None:
        """Refuse what a connection or a reservation refuses."""
        if self.info.read_only:
            raise ReadOnly("the disk was opened read only")
        row = self._shared.row
        if row.kind:
            reservations.check_write(row, self._initiator)

    def _may_read(self) -> None:
        row = self._shared.row
        if row.kind:
            reservations.check_read(row, self._initiator)

    def _range(self, offset: int, length: int, *, large: bool = False) -> None:
        if self._closed:
            raise StaleHandle("the disk is closed")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfRange(f"{length} bytes at {offset} of a disk of {self.size}")
        if not large and length > IO_MAX:
            raise InvalidArgument(f"{length} bytes at once > IO_MAX {IO_MAX}")


class _Writing:
    """A write under way: it waits for a compare_and_write, and that one for it."""

    __slots__ = ("_shared",)

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def __aenter__(self) -> None:
        shared = self._shared
        while shared.exclusive.locked():
            async with shared.exclusive:
                pass
        shared.writes += 1
        shared.idle.clear()

    async def __aexit__(self, *_: object) -> None:
        self._shared.writes -= 1
        if not self._shared.writes:
            self._shared.idle.set()


def _steps(offset: int, length: int) -> list[tuple[int, int]]:
    end = offset + length
    return [(at, min(FILE_IO, end - at)) for at in range(offset, end, FILE_IO)]
