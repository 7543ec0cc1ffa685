"""A server of lines: `GET KEY` answers the size of an object of the volume `v`, or why not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from types import TracebackType
from typing import Self

from warp_core.config import Address
from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyRunning, NotFound
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities

LINE_MAX = 1024  # bytes of a request


class Lines(Protocol):
    """One line, one answer."""

    capabilities = ProtocolCapabilities(view="objects", authenticated=False)

    def __init__(self, listen: Address, context: ProtocolContext) -> None:
        self.listen, self.context = listen, context
        self.server: asyncio.Server | None = None
        self.tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.busy: set[asyncio.Task[None]] = set()
        self.leaving = False

    async def __aenter__(self) -> Self:
        """Bind."""
        try:
            await self.bind(self.listen.host, self.listen.port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AlreadyRunning(f"{self.listen} is taken") from error
            raise
        assert self.server
        self.endpoint = f"lines://{self.listen.host}:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def bind(self, host: str, port: int) -> None:
        """Listen."""
        self.server = await asyncio.start_server(self.accept, host, port, limit=LINE_MAX)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop accepting, drain, close."""
        self.leaving = True
        self.stop()
        await self.drain()
        await self.end()

    def stop(self) -> None:
        """Stop accepting."""
        if self.server:
            self.server.close()

    async def drain(self) -> None:
        """End idle connections, give busy ones their time."""
        for task in set(self.tasks) - self.busy:
            task.cancel()
        if self.busy:
            await asyncio.wait(self.busy, timeout=self.context.drain_s)

    async def end(self) -> None:
        """End what is left."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own."""
        task = asyncio.get_running_loop().create_task(self.run(reader, writer))
        self.tasks[task] = writer
        task.add_done_callback(self.forget)

    def forget(self, task: asyncio.Task[None]) -> None:
        """Drop a connection that ended."""
        self.tasks.pop(task, None)
        self.busy.discard(task)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.LimitOverrunError, ValueError):
                await self.converse(reader, writer)
        finally:
            self.hang_up(writer)

    def hang_up(self, writer: asyncio.StreamWriter) -> None:
        """Close a connection."""
        writer.close()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line after line."""
        task = asyncio.current_task()
        assert task
        while not self.leaving:
            first = await reader.read(1)
            if not first:
                return
            self.busy.add(task)
            line = first + await self.rest(reader)
            if not line.endswith(b"\n"):
                return
            writer.write(await self.answer(line))
            await self.flush(writer)
            self.busy.discard(task)

    async def rest(self, reader: asyncio.StreamReader) -> bytes:
        """Read up to the line's end."""
        try:
            return await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return b""

    async def flush(self, writer: asyncio.StreamWriter) -> None:
        """Wait for one who reads slowly."""
        await writer.drain()

    async def answer(self, line: bytes) -> bytes:
        """Answer one line."""
        verb, _, key = line.strip().partition(b" ")
        if verb != b"GET" or not key:
            return b"ERROR what?\n"
        try:
            return b"SIZE %d\n" % (await self.context.objects.head("v", key)).size
        except NotFound:
            return b"ERROR nothing of that name\n"


class Ears(Protocol):
    """A protocol without an address: it hears what is said into a device, and answers nothing."""

    capabilities = ProtocolCapabilities(view="files", authenticated=False)

    def __init__(self) -> None:
        self.device = -1
        self.task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Open the device."""
        self.device = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    async def __aenter__(self) -> Self:
        """Open the device and listen."""
        self.open()
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
        self.endpoint = f"file://{os.devnull}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening, and close."""
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        if self.device >= 0:
            os.close(self.device)
            self.device = -1
