"""Connections for load: heads that `warp_core.s3` signed go out, answers are read without copying their bodies.

They are kept open, and know just what `warp bench` asks, over plain HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from warp_core.errors import InvalidArgument, RemoteProtocolError, Unavailable
from warp_core.s3.signing import Endpoint

HEAD_MAX = 64 * 1024


class Answer(NamedTuple):
    """A response: its status, and the body if it was kept."""

    status: int
    length: int
    body: bytes


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._head = b""
        self._status = 0
        self._length = 0
        self._left = -1
        self._kept: list[bytes] | None = None
        self._no_body = False
        self._resume: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Connection:
        """Connect.

        Raises:
            Unavailable: Nobody listens there.
            InvalidArgument: It wants TLS.
        """
        if endpoint.secure:
            raise InvalidArgument(f'endpoint "{endpoint.url}": allowed: http://HOST:PORT')
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(cls, endpoint.host, endpoint.port)
        except OSError as error:
            raise Unavailable(
                f"nobody answers at {endpoint.url} ({error.strerror}): is the server running?"
            ) from None
        return made

    async def request(
        self,
        head: bytes,
        body: bytes | memoryview = b"",
        *,
        keep: bool = False,
        no_body: bool = False,
    ) -> Answer:
        """Send a request and wait for its answer; `keep` its body, expect `no_body` after HEAD."""
        assert self._transport is not None, "not connected"
        self._answer = asyncio.get_running_loop().create_future()
        self._kept = [] if keep else None
        self._no_body = no_body
        if len(body) <= 64 * 1024:
            self._transport.write(head + bytes(body))
        else:
            self._transport.write(head)
            self._transport.write(body)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport), "streams have such transports"
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request that waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable(f"the server closed the connection ({error})"))

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer."""
        if self._left < 0:
            data = self._take_head(data)
            if self._left < 0:
                return
        if data:
            if self._kept is not None:
                self._kept.append(data)
            self._left -= len(data)
        if self._left == 0:
            self._finish()

    def _take_head(self, data: bytes) -> bytes:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > HEAD_MAX:
                self._fail(f"a head of more than {HEAD_MAX} bytes")
            return b""
        self._head = b""
        try:
            lines = head.decode("latin-1").split("\r\n")
            self._status = int(lines[0].split(" ", 2)[1])
            fields = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
            }
            self._length = int(fields.get("content-length", "0"))
        except (ValueError, IndexError):
            self._fail("no HTTP answer")
            return b""
        self._left = 0 if self._no_body or self._status in (204, 304) else self._length
        return rest

    def _finish(self) -> None:
        self._left = -1
        body = b"".join(self._kept) if self._kept else b""
        if self._answer is not None and not self._answer.done():
            # Ctrl-C cancels whoever waits from inside of any line, also between these two.
            with contextlib.suppress(asyncio.InvalidStateError):
                self._answer.set_result(Answer(self._status, self._length, body))

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RemoteProtocolError(f"the server sent {why}"))
        self.close()
