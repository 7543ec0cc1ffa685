"""Objects of another node, behind a line to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from warp_core.errors import InvalidArgument, Unavailable, WarpError
from warp_core.forward.line import Line, Session
from warp_core.forward.messages import SMALL, STEP
from warp_core.forward.verbs import VERBS, Verb, asking
from warp_core.interfaces.stores import Buffer
from warp_core.views.objects import (
    ALWAYS,
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    Objects,
    Reader,
    Sealing,
    Writer,
)
from warp_core.views.origin import Origin

WINDOW = 4  # messages of one writer on their way at once: its memory is one buffer more

_info = msgspec.msgpack.Decoder(ObjectInfo)


@asking("objects", but=("open", "writer", "part_writer"))
class RemoteObjects(Objects):
    """The view, done by the home at the other end of a line."""

    def __init__(self, line: Line) -> None:
        """Take the line; it is its owner's to close."""
        self._line = line

    async def _ask(self, verb: Verb, args: Sequence[object], named: Mapping[str, object]) -> Any:
        session = await self._line.session()
        return await session.ask_verb(verb, args, named)

    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        """As `Objects.open`; the content of a small object comes along."""
        session = await self._line.session()
        verb = VERBS["objects.open"]
        named = {"version": version, "secret": secret}
        answer = await session.ask_verb(verb, (volume, key), named)
        info = session.decoded(_info, answer)
        content = answer.buffers[0] if answer.buffers else None
        if content is None and not answer.reply.handle:
            raise Unavailable(f"{session.peer}: neither a reader nor its content")
        return RemoteReader(session, answer.reply.handle, info, content)

    async def writer(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        condition: Condition = ALWAYS,
        size: int | None = None,
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> Writer:
        """As `Objects.writer`."""
        session = await self._line.session()
        verb = VERBS["objects.writer"]
        named = {"condition": condition, "size": size, "sealing": sealing, "origin": origin}
        answer = await session.ask_verb(verb, (volume, key, attributes), named)
        return RemoteWriter(session, answer.reply.handle)

    async def part_writer(
        self,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        *,
        size: int | None = None,
        secret: bytes = b"",
    ) -> Writer:
        """As `Objects.part_writer`."""
        session = await self._line.session()
        verb = VERBS["objects.part_writer"]
        named = {"size": size, "secret": secret}
        answer = await session.ask_verb(verb, (volume, key, upload, number), named)
        return RemoteWriter(session, answer.reply.handle)


class RemoteReader(Reader):
    """An object that the home has open."""

    def __init__(
        self, session: Session, handle: int, info: ObjectInfo, content: memoryview | None
    ) -> None:
        """Take what `objects.open` answered."""
        self.info = info
        self._session = session
        self._handle = handle
        self._content = content

    def read_now(self, offset: int, length: int) -> Buffer | None:
        """As `Reader.read_now`."""
        if self._content is None:
            return None
        return self._content[offset : offset + length]

    async def read(self, offset: int, length: int) -> Buffer:
        """As `Reader.read`."""
        if self._content is not None:
            return self._content[offset : offset + length]
        answer = await self._session.ask_verb(
            VERBS["reader.read"],
            (offset, length),
            {},
            handle=self._handle,
            bulk=length > SMALL,
        )
        return beside(answer, length)

    def close(self) -> None:
        """As `Reader.close`."""
        self._session.drop(self._handle)
        self._handle = 0


class RemoteWriter(Writer):
    """Content on its way to the home. All of it goes over the bulk link, in order."""

    def __init__(self, session: Session, handle: int) -> None:
        """Take what opened it."""
        self._session = session
        self._handle = handle
        self._buffer = memoryview(bytearray(STEP))
        self._filled = 0
        self._spare: list[memoryview] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._failed: WarpError | None = None

    def buffer(self) -> memoryview:
        """As `Writer.buffer`."""
        if self._filled == STEP:
            raise InvalidArgument("the buffer is full: drain first")
        return self._buffer[self._filled :]

    def wrote(self, length: int) -> bool:
        """As `Writer.wrote`."""
        self._filled += length
        return self._filled == STEP

    async def drain(self) -> None:
        """As `Writer.drain`."""
        if self._filled == STEP:
            self._send()
        while len(self._sending) >= WINDOW:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        self._check()

    async def write(self, data: Buffer) -> None:
        """As `Writer.write`."""
        rest = memoryview(data).cast("B")
        while len(rest):
            room = self.buffer()
            piece = rest[: len(room)]
            room[: len(piece)] = piece
            rest = rest[len(piece) :]
            if self.wrote(len(piece)):
                await self.drain()
        self._check()

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _send(self) -> None:
        full, self._filled = self._buffer[: self._filled], 0
        task = self._session.later(self._sent(self._buffer, full))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        self._buffer = self._spare.pop() if self._spare else memoryview(bytearray(STEP))

    async def _sent(self, whole: memoryview, full: memoryview) -> None:
        try:
            await self._ask("writer.write", full)
        except WarpError as error:
            self._failed = self._failed or error
        self._spare.append(whole)

    async def _ask(self, name: str, *args: object) -> Any:
        return await self._session.ask_verb(VERBS[name], args, {}, handle=self._handle, bulk=True)

    async def commit(self, digests: Digests) -> ObjectInfo:
        """As `Writer.commit`."""
        if self._filled:
            self._send()
        while self._sending:
            await asyncio.wait(self._sending)
        self._check()
        made: ObjectInfo = await self._ask("writer.commit", digests)
        self._session.drop(self._handle)
        self._handle = 0
        return made

    async def abort(self) -> None:
        """As `Writer.abort`."""
        for task in list(self._sending):
            task.cancel()
        if self._handle:
            self._session.drop(self._handle)
            self._handle = 0


def beside(answer: Any, most: int) -> memoryview:
    """Return the one buffer of an answer.

    Raises:
        Unavailable: There is none, or it is longer than what was asked for.
    """
    if len(answer.buffers) != 1 or len(answer.buffers[0]) > most:
        raise Unavailable(
            f"an answer with {len(answer.buffers)} buffers, or more than {most} bytes"
        )
    found: memoryview = answer.buffers[0]
    return found
