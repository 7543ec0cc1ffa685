"""Requests to an S3 endpoint over kept-alive connections: bodies are streamed, answers to small questions are read whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Final, NamedTuple, Self

from warp_core.errors import RemoteProtocolError, TimedOut, Unavailable
from warp_core.interfaces.stores import Buffer
from warp_core.s3.signing import EMPTY_SHA256, UNSIGNED, Endpoint, Signer

HEAD_MAX: Final = 64 * 1024
"""Bytes of an answer's head; S3's own are below 8 KiB."""

ANSWER_MAX: Final = 8 * 1024 * 1024
"""Bytes of an answer's body: a listing of 1,000 long keys has 2 MiB."""

CONNECT_S: Final = 10.0
STALL_S: Final = 60.0
"""How long nothing may come or go."""

PIECE: Final = 256 * 1024
"""Bytes written before the other side's pace is waited for."""

_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,100})</Code>")
_MESSAGE: Final = re.compile(rb"<Message>([^<]{0,1000})</Message>")


class Body(NamedTuple):
    """Content that is sent: how long it is, and what yields it from its start, each time that it is called."""

    length: int
    pieces: Callable[[], AsyncIterator[Buffer]]


class Response(NamedTuple):
    """An answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Say whether it is a success."""
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        """The code of an error, where the body says it."""
        found = _CODE.search(self.body)
        return found[1].decode() if found else ""

    @property
    def reason(self) -> str:
        """What went wrong, for a person."""
        found = _MESSAGE.search(self.body)
        message = found[1].decode(errors="replace") if found else ""
        return " ".join(filter(None, (str(self.status), self.code, message)))


class _Link(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class _Gone(Exception):
    """The connection ended before anything of an answer came."""


class Client:
    """Asks one endpoint, on at most so many connections at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connections_max: int = 16,
        stall_s: float = STALL_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare; `tls` replaces the system's authorities for an endpoint of https."""
        self.endpoint = endpoint
        self._signer = Signer(endpoint)
        self._slots = asyncio.Semaphore(connections_max)
        self._idle: list[_Link] = []
        self._stall_s = stall_s
        self._tls = tls

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first request."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close connections that wait."""
        for link in self._idle:
            link.writer.close()
        self._idle.clear()

    async def request(
        self,
        method: str,
        path: bytes,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes = b"",
    ) -> Response:
        """Send a request and return its answer, whatever it says.

        A request whose connection had been waiting, and turned out to be closed, is sent once more on a new one.

        Raises:
            Unavailable: Nobody answers, or not to the end.
            TimedOut: Nothing moved for `stall_s`.
            RemoteProtocolError: What came is no answer of HTTP.
        """
        if isinstance(body, bytes):
            payload = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
            length = len(body)
        else:
            payload, length = UNSIGNED, body.length
        async with self._slots:
            fresh = not self._idle
            while True:
                link = await self._connect() if fresh else self._idle.pop()
                head = self._signer.head(
                    method,
                    path,
                    query=query or {},
                    headers=headers or {},
                    payload=payload,
                    length=length,
                )
                kept = False
                try:
                    response, kept = await self._exchange(link, method, head, body)
                except _Gone as gone:
                    if fresh:
                        raise Unavailable(
                            f"{self.endpoint.url} closed the connection"
                        ) from gone.__cause__
                    fresh = True
                    continue
                finally:
                    if not kept:
                        link.writer.transport.abort()
                self._idle.append(link)
                return response

    async def _connect(self) -> _Link:
        endpoint = self.endpoint
        tls: ssl.SSLContext | None = None
        if endpoint.secure:
            tls = self._tls = self._tls or ssl.create_default_context()
        try:
            async with asyncio.timeout(CONNECT_S):
                made = await asyncio.open_connection(
                    endpoint.host, endpoint.port, ssl=tls, limit=HEAD_MAX
                )
        except TimeoutError as error:
            raise TimedOut(f"{endpoint.url} did not answer within {CONNECT_S:g} s") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"nobody answers at {endpoint.url} ({reason})") from error
        return _Link(*made)

    async def _exchange(
        self, link: _Link, method: str, head: bytes, body: Body | bytes
    ) -> tuple[Response, bool]:
        """Send and receive; also say whether the connection can be used again."""
        whole = True
        try:
            async with asyncio.timeout(self._stall_s) as stall:
                try:
                    await self._send(link, head, body, stall)
                except ConnectionError:
                    whole = False  # perhaps it answered before it hung up
                return await self._receive(link, method, stall, whole=whole)
        except TimeoutError as error:
            raise TimedOut(f"{self.endpoint.url}: nothing for {self._stall_s:g} s") from error

    async def _send(
        self, link: _Link, head: bytes, body: Body | bytes, stall: asyncio.Timeout
    ) -> None:
        writer = link.writer
        if isinstance(body, bytes):
            writer.write(head + body if len(body) <= PIECE else head)
            if len(body) > PIECE:
                writer.write(body)
            await writer.drain()
            return
        writer.write(head)
        sent = 0
        pieces = body.pieces()
        try:
            async for piece in pieces:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                self._moved(stall)
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()
        if sent != body.length:
            raise Unavailable(f"content of {sent} bytes instead of {body.length}")

    async def _receive(
        self, link: _Link, method: str, stall: asyncio.Timeout, *, whole: bool
    ) -> tuple[Response, bool]:
        reader = link.reader
        status = 100
        while status == 100:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                if isinstance(error, asyncio.IncompleteReadError) and error.partial:
                    raise Unavailable(f"{self.endpoint.url} broke off") from error
                raise _Gone from error
            except asyncio.LimitOverrunError as error:
                raise RemoteProtocolError(
                    f"{self.endpoint.url}: a head of more than {HEAD_MAX} bytes"
                ) from error
            status, headers = self._head(head)
        self._moved(stall)
        try:
            content = await self._content(reader, method, status, headers, stall)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Unavailable(f"{self.endpoint.url} broke off") from error
        keeps = whole and headers.get("connection", "").lower() != "close"
        return Response(status, headers, content), keeps

    def _head(self, head: bytes) -> tuple[int, dict[str, str]]:
        lines = head[:-4].decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise RemoteProtocolError(f"{self.endpoint.url} does not speak HTTP/1.1")
        named = (line.partition(":") for line in lines[1:])
        return int(rest[:3]), {name.lower(): value.strip() for name, _, value in named}

    async def _content(
        self,
        reader: asyncio.StreamReader,
        method: str,
        status: int,
        headers: Mapping[str, str],
        stall: asyncio.Timeout,
    ) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            content = b""
            while True:
                line = await reader.readuntil(b"\n")
                size = self._number(line.partition(b";")[0].strip(), 16)
                piece = await self._exactly(reader, size, len(content), stall)
                if not size:
                    break
                content += piece
                await reader.readexactly(2)
            while (await reader.readuntil(b"\n")).strip():
                pass  # trailers
            return content
        length = self._number(headers.get("content-length", "0").encode(), 10)
        return await self._exactly(reader, length, 0, stall)

    async def _exactly(
        self, reader: asyncio.StreamReader, size: int, before: int, stall: asyncio.Timeout
    ) -> bytes:
        if before + size > ANSWER_MAX:
            raise RemoteProtocolError(
                f"{self.endpoint.url}: an answer of more than {ANSWER_MAX} bytes"
            )
        data = await reader.readexactly(size)
        self._moved(stall)
        return data

    def _number(self, text: bytes, base: int) -> int:
        with contextlib.suppress(ValueError):
            if text.isalnum() and len(text) <= 16:
                return int(text, base)
        raise RemoteProtocolError(f"{self.endpoint.url}: {text[:40]!r} is no length")

    def _moved(self, stall: asyncio.Timeout) -> None:
        stall.reschedule(asyncio.get_running_loop().time() + self._stall_s)
