"""How one connection sends: heads with small bodies at once, large ones straight from where they were read.

A small answer is one write of the transport. A large one goes out piece by piece, as the client takes it; what the socket does not
take at once waits for it to be writable, for as long as the client may stall.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Final

from warp_core import logs
from warp_core.errors import WarpError

from warp_s3.call import Answer
from warp_s3.http import response_head

if TYPE_CHECKING:
    from warp_s3.server import Server

JOIN_MAX: Final = 64 * 1024
"""Bytes of a body that is copied behind its head for one send; above, copying costs more."""

PIECE: Final = 1024 * 1024
"""Bytes read from an object at a time; what `Reader.read` gives at most."""

NEVER: Final = float("inf")

_log = logs.get("warp_s3")


class ConnectionLost(Exception):
    """The client is gone; whoever worked for it stops."""


class Sending(asyncio.BufferedProtocol):
    """The half of a connection that sends.

    Attributes:
        deadline: Loop time at which a wait for the client ends; the server checks it.
    """

    def __init__(self, server: "Server") -> None:
        """Start before the connection is made."""
        self._server = server
        self._clock: Callable[[], float] = server.loop.time
        self._transport: asyncio.Transport
        self._direct: socket.socket | None = None
        self._writer: asyncio.Future[None] | None = None
        self._lost = False
        self._secure = False
        self.deadline = NEVER

    def pause_writing(self) -> None:
        """Make senders wait."""
        self._writer = self._server.loop.create_future()

    def resume_writing(self) -> None:
        """Let senders go on."""
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        self._writer = None

    async def _send(self, answer: Answer, request_id: str, closes: bool) -> None:
        if answer.stream is not None:
            await self._send_stream(answer, answer.stream, request_id, closes)
            return
        head = response_head(
            answer.status,
            answer.headers,
            second=self._server.now(),
            request_id=request_id,
            length=answer.length,
            close=closes,
            fields=answer.fields,
        )
        reader = answer.reader
        if reader is None:
            self._transport.write(head + answer.body if answer.body else head)
            if self._writer is not None:
                await self._flushed()
            return
        try:
            length = answer.length or 0
            if length <= JOIN_MAX:
                data = reader.read_now(answer.offset, length)
                if data is None:
                    data = await reader.read(answer.offset, length)
                if len(data) != length:
                    raise self._cut_short(request_id, answer.offset + len(data), length)
                self._transport.write(b"".join((head, data)))
                if self._writer is not None:
                    await self._flushed()
            else:
                await self._stream(head, answer, length, request_id)
        except WarpError as error:
            # The head is out or its length promised: all that is left is to break the connection,
            # so that the client notices.
            _log.exception("read failed", error, request=request_id)
            self._transport.abort()
            raise ConnectionLost from error
        finally:
            reader.close()

    async def _send_stream(
        self,
        answer: Answer,
        stream: AsyncGenerator[bytes, None],
        request_id: str,
        closes: bool,
    ) -> None:
        """Send a body as it comes, in chunks (RFC 9112, 7.1); its end without the last chunk means that it broke."""
        head = response_head(
            answer.status,
            [*answer.headers, ("Transfer-Encoding", "chunked")],
            second=self._server.now(),
            request_id=request_id,
            length=None,
            close=closes,
            fields=answer.fields,
        )
        try:
            self._transport.write(head)
            async for data in stream:
                if data:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
                await self._flushed()
            self._transport.write(b"0\r\n\r\n")
            await self._flushed()
        except WarpError as error:
            _log.exception("answer failed", error, request=request_id)
            self._transport.abort()
            raise ConnectionLost from error
        finally:
            await stream.aclose()

    def _cut_short(self, request_id: str, offset: int, length: int) -> ConnectionLost:
        """Break the connection whose object ended at `offset`, before the length that was promised."""
        _log.error("object ended early", request=request_id, offset=offset, length=length)
        self._transport.abort()
        return ConnectionLost()

    async def _stream(self, head: bytes, answer: Answer, length: int, request_id: str) -> None:
        reader = answer.reader
        assert reader is not None
        offset, end = answer.offset, answer.offset + length
        while offset < end:
            size = min(PIECE, end - offset)
            data = reader.read_now(offset, size)
            if data is None:
                data = await reader.read(offset, size)
            else:
                await asyncio.sleep(0)  # a cached object must not keep the loop to itself
            if not data:
                raise self._cut_short(request_id, offset, length)
            if head:
                self._transport.write(head)
                head = b""
                await self._flushed()
            with memoryview(data) as view:
                if self._secure:
                    self._transport.write(view)
                    await self._flushed()
                else:
                    await self._send_direct(view)
            offset += len(data)

    async def _send_direct(self, view: memoryview) -> None:
        """Send from where the bytes are: the transport would copy what the socket does not take."""
        if self._lost:
            raise ConnectionLost
        if self._direct is None:
            # The loop allows no second watcher on a transport's own descriptor.
            original = self._transport.get_extra_info("socket")
            self._direct = socket.socket(fileno=socket.dup(original.fileno()))
            self._direct.setblocking(False)
        at = 0
        while at < len(view):
            try:
                at += self._direct.send(view[at:])
            except (BlockingIOError, InterruptedError):
                await self._writable(self._direct)
            except OSError as error:
                self._transport.abort()
                raise ConnectionLost from error

    async def _writable(self, direct: socket.socket) -> None:
        loop = self._server.loop
        writable = self._writer = loop.create_future()
        loop.add_writer(direct, self._wake_writer)
        self.deadline = self._clock() + self._server.stall_s
        try:
            await writable
        finally:
            self.deadline = NEVER
            self._writer = None
            if self._direct is not None:
                loop.remove_writer(direct)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    async def _flushed(self) -> None:
        """Wait until the transport holds little."""
        while self._transport.get_write_buffer_size() and not self._lost:
            if self._writer is None:
                return
            self.deadline = self._clock() + self._server.stall_s
            await asyncio.shield(self._writer)
        if self._lost:
            raise ConnectionLost
