"""An event target and its receiver: messages over TCP, each answered by one byte.

```
→ length of the head (4) · length of the body (4) · head: [id, bucket, event, key, count] in msgpack · body
← "y" taken · "n" refused
```
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from types import TracebackType
from typing import Self

import msgspec
from warp_core.errors import Unavailable
from warp_core.interfaces.targets import EventTarget, Message, TargetCapabilities

from warp_conformance.kits.targets import Mode, Receiver, Taken

LENGTHS = struct.Struct(">II")
LIMIT_S = 10.0  # of one message
AT_ONCE = 4
SECRET = "0c1d2b3a4f5e6d7c"

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PlainReceiver(Receiver):
    """Takes messages in this process; one whose id it knows is there once."""

    modes = frozenset({"takes", "refuses", "hangs", "drops", "holds"})

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.tls = tls
        self.mode: Mode = "takes"
        self._changed = asyncio.Event()
        self._came = asyncio.Event()
        self.found: list[Taken] = []
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """See `Receiver`."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """See `Receiver`."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def taken(self) -> list[Taken]:
        """See `Receiver`."""
        return list(self.found)

    async def behave(self, mode: Mode) -> None:
        """See `Receiver`."""
        self.mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        self._came.clear()

    async def holding(self) -> None:
        """See `Receiver`."""
        await self._came.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("receiver of the kit")
        self._serving.add(task)
        try:
            while await self.one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def may_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Wait as long as the mode says, and say whether a message that came whole is answered at all."""
        while self.mode in ("holds", "hangs"):
            self._came.set()
            await self._changed.wait()
            if self.mode == "hangs" or writer.transport.is_closing() or reader.at_eof():
                return False
        return self.mode != "drops"

    async def one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take one message and answer it; say whether there may be another."""
        head, length = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
        id: str = msgspec.msgpack.decode(await reader.readexactly(head))[0]
        body = await reader.readexactly(length)
        if not await self.may_answer(reader, writer):
            return False
        if self.mode == "takes":
            if id not in [each.id for each in self.found]:
                self.found.append(Taken(id, body))
            writer.write(b"y")
        else:
            writer.write(b"n")
        await writer.drain()
        return True


class PlainTarget(EventTarget):
    """Sends messages to a port of this machine, over connections that it keeps."""

    capabilities = TargetCapabilities(at_once=AT_ONCE, batch_max=10, deduplicates=True)

    def __init__(self, port: int, limit_s: float = LIMIT_S) -> None:
        self.port = port
        self.limit_s = limit_s
        self.secret = SECRET
        self.idle: list[Wire] = []
        self.open = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self.idle:
            self.idle.pop()[1].close()

    async def send(self, message: Message) -> None:
        """See `EventTarget`."""
        try:
            async with asyncio.timeout(self.limit_s), self.open:
                await self.exchange(message)
        except TimeoutError as error:
            raise Unavailable(f"port {self.port}: no answer within {self.limit_s} s") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unavailable(f"port {self.port}: {error}") from error

    async def exchange(self, message: Message) -> None:
        """Send a message and wait for its answer."""
        wire = await self.wire()
        kept = False
        try:
            self.write(wire[1], message)
            await wire[1].drain()
            answer = await self.answer(wire[0])
            kept = True
        finally:
            if kept:
                self.idle.append(wire)
            else:
                self.give_up(wire)
        self.judge(answer)

    async def wire(self) -> Wire:
        """Return a connection that nobody uses."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def give_up(self, wire: Wire) -> None:
        """Close a connection that may have more to say."""
        with contextlib.suppress(OSError):
            wire[1].close()

    def write(self, writer: asyncio.StreamWriter, message: Message) -> None:
        """Write a message."""
        head = msgspec.msgpack.encode(
            [self.id_of(message), message.bucket, message.event, message.key, message.count]
        )
        body = self.body_of(message)
        writer.write(LENGTHS.pack(len(head), len(body)) + head + body)

    def id_of(self, message: Message) -> str:
        """Return what a message is known by."""
        return message.id

    def body_of(self, message: Message) -> bytes:
        """Return what is sent."""
        return message.body

    async def answer(self, reader: asyncio.StreamReader) -> bytes:
        """Read an answer."""
        return await reader.readexactly(1)

    def judge(self, answer: bytes) -> None:
        """Raise unless the answer says that the message was taken.

        Raises:
            Unavailable
        """
        if answer != b"y":
            raise Unavailable(f"port {self.port}: refused")
