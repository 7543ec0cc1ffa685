"""Disks of another node, behind a line to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from warp_core.errors import InvalidArgument, OutOfRange, Unavailable
from warp_core.forward.line import Answer, Line, Opened, Session, Size, steps, together
from warp_core.forward.messages import RESIZED, SMALL, STEP
from warp_core.forward.objects import beside
from warp_core.forward.verbs import VERBS, Verb, asking
from warp_core.interfaces.stores import Buffer
from warp_core.views.blocks import COMPARE_MAX, IO_MAX, Blocks, Disk, DiskInfo, Run

_info = msgspec.msgpack.Decoder(DiskInfo)
_size = msgspec.msgpack.Decoder(tuple[int, int])
_runs = msgspec.msgpack.Decoder(list[tuple[int, int, bool]])


@asking("blocks", but=("open", "resize"))
class RemoteBlocks(Blocks):
    """The view, done by the home at the other end of a line."""

    def __init__(self, line: Line) -> None:
        """Take the line; it is its owner's to close."""
        self._line = line

    async def _ask(self, verb: Verb, args: Sequence[object], named: Mapping[str, object]) -> Any:
        session = await self._line.session()
        return await session.ask_verb(verb, args, named)

    async def open(
        self,
        volume: str,
        path: bytes,
        *,
        initiator: str,
        read_only: bool = False,
        snapshot: str = "",
    ) -> Disk:
        """As `Blocks.open`."""
        session = await self._line.session()
        named = {"initiator": initiator, "read_only": read_only, "snapshot": snapshot}
        answer = await session.ask_verb(VERBS["blocks.open"], (volume, path), named)
        info: DiskInfo = session.decoded(_info, answer)
        size = session.size_of(info.ref.volume, info.ref.inode, snapshot)
        size.note(answer.reply.size)
        return RemoteDisk(session, answer.reply.handle, info, size)

    async def resize(self, volume: str, path: bytes, size: int) -> DiskInfo:
        """As `Blocks.resize`; disks that are open here know it on return."""
        session = await self._line.session()
        verb = VERBS["blocks.resize"]
        values, _ = verb.pack((volume, path, size), {})
        answer = await session.ask(verb.name, values)
        info: DiskInfo = session.decoded(_info, answer)
        session.size_of(info.ref.volume, info.ref.inode).note(answer.reply.size)
        return info


@asking("disk", but=("read", "read_runs", "write", "compare_and_write"))
class RemoteDisk(Opened, Disk):
    """A disk that the home has open. It dies with its session, and is opened anew by whoever needs it."""

    def __init__(self, session: Session, handle: int, info: DiskInfo, size: Size) -> None:
        """Take what `blocks.open` answered."""
        super().__init__(session, handle, size)
        self.info = info
        self._resizes: asyncio.Queue[int | None] = asyncio.Queue()
        session.hearing[RESIZED, handle] = self._hear

    def _hear(self, values: Buffer | None) -> None:
        if values is None:  # the session ended
            self._resizes.put_nowait(None)
            return
        told = _size.decode(values)
        self._size.note(told)
        self._resizes.put_nowait(told[1])

    async def read(self, offset: int, length: int) -> Buffer:
        """As `Disk.read`; the bytes are received where they are returned from."""
        if not 0 <= length <= IO_MAX:
            raise InvalidArgument(f"a read of {length} bytes > {IO_MAX}")
        room = memoryview(bytearray(length))
        verb = VERBS["disk.read"]

        async def step(at: int) -> None:
            into = room[at : at + STEP]
            answer: Answer = await self._ask(
                verb, (offset + at, len(into)), {}, bulk=len(into) > SMALL, into=into
            )
            found = beside(answer, len(into))
            if len(found) != len(into):
                raise Unavailable(f"{self._session.peer}: {len(found)} bytes of {len(into)}")

        await together([step(at) for at in range(0, max(length, 1), STEP)])
        return room

    async def read_runs(self, offset: int, length: int) -> Sequence[Run]:
        """As `Disk.read_runs`."""
        if not 0 <= length <= IO_MAX:
            raise InvalidArgument(f"a read of {length} bytes > {IO_MAX}")
        verb = VERBS["disk.read_runs"]
        found: list[Run] = []
        for at in range(0, length, STEP):
            wanted = min(STEP, length - at)
            answer: Answer = await self._ask(
                verb, (offset + at, wanted), {}, bulk=wanted > SMALL, raw=True
            )
            place = offset + at
            buffers = iter(answer.buffers)
            for start, size, data in self._session.decoded(_runs, answer):
                content = next(buffers, None) if data else None
                if (
                    start != place
                    or size < 0
                    or (data and (content is None or len(content) != size))
                ):
                    raise Unavailable(f"{self._session.peer}: runs that are none")
                found.append((start, size, content))
                place += size
            if place != offset + at + wanted:
                raise Unavailable(f"{self._session.peer}: runs up to {place} only")
        return found

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """As `Disk.write`."""
        verb = VERBS["disk.write"]

        async def step(at: int, piece: memoryview) -> None:
            await self._ask(verb, (at, piece), {"fua": fua})

        pieces = steps(offset, data) or [(offset, memoryview(b""))]
        end = pieces[-1][0] + len(pieces[-1][1])
        if len(pieces) > 1 and not 0 <= offset <= end <= self.size:
            raise OutOfRange(
                f"{offset} to {end} of a disk of {self.size} bytes"
            )  # and write nothing
        await together([step(at, piece) for at, piece in pieces])

    async def compare_and_write(
        self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
    ) -> None:
        """As `Disk.compare_and_write`."""
        for each in (expected, data):
            if len(memoryview(each).cast("B")) > COMPARE_MAX:
                raise InvalidArgument(f"more than {COMPARE_MAX} bytes to compare")
        await self._ask(VERBS["disk.compare_and_write"], (offset, expected, data), {"fua": fua})

    async def resizes(self) -> AsyncIterator[int]:
        """As `Disk.resizes`."""
        while (size := await self._resizes.get()) is not None:
            yield size

    async def close(self) -> None:
        """As `Disk.close`; returns when the home has closed it."""
        self._session.hearing.pop((RESIZED, self._handle), None)
        self._resizes.put_nowait(None)
        await self._shut()
