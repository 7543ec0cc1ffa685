"""One client's connection: h11 knows the protocol, this moves the bytes and keeps the time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
from warp_core import logs
from warp_core.node.control import peer_of

from warp_admin.identity import Peer, names_of
from warp_admin.problems import Problem
from warp_admin.service import Request, Response, problem_response

if TYPE_CHECKING:
    from warp_admin.server import Server

HEAD_MAX: Final = 32 * 1024
"""Bytes of a request's head."""

READ: Final = 16 * 1024

Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]

AHEAD_MAX: Final = 64 * 1024
"""Bytes of further requests that are read while one is at work."""

LINGER_MAX: Final = 4 * 1024 * 1024
LINGER_S: Final = 1.0
"""How much and how long a client may still send what nobody wants, so that it sees the answer."""

GOODBYE_S: Final = 1.0
"""How long a closing connection waits for the client to agree."""

COMMON: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))

log = logs.get("warp_admin")


class Connection:
    """Reads requests, has them answered, and sends the answers in order.

    Attributes:
        task: Serves it.
    """

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._ahead = 0
        self._idle = True
        self._method = b""  # of the request under way
        self.task = asyncio.current_task()

    def close_idle(self) -> None:
        """Close if no request is in progress."""
        if self._idle:
            self._writer.close()

    def cancel(self) -> None:
        """Stop whatever is in progress."""
        if self.task is not None:
            self.task.cancel()

    async def serve(self) -> None:
        """Answer until either side has enough."""
        try:
            peer = self._peer()
            while await self._exchange(peer):
                pass
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise
        finally:
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._writer.wait_closed()
            self._writer.transport.abort()

    def _peer(self) -> Peer:
        plug: socket.socket = self._writer.get_extra_info("socket")
        if plug.family == socket.AF_UNIX:
            caller = peer_of(plug, "admin")
            return Peer(caller.address, "", caller.name)
        host, port = (self._writer.get_extra_info("peername") or ("?", 0))[:2]
        certificate = self._writer.get_extra_info("peercert")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return Peer(address, host, None, names_of(certificate))

    async def _exchange(self, peer: Peer) -> bool:
        """Answer one request; False if it was the last."""
        try:
            head = await self._head()
            if head is None:
                return False
            if head.http_version not in (b"1.1", b"1.0"):
                version = head.http_version.decode()
                raise Problem(
                    505, "Unsupported", f"HTTP/{version}: 1.1 is spoken here", closes=True
                )
            request = Request(
                head.method.decode(),
                head.target.decode(),
                {name.decode(): value.decode("latin-1") for name, value in head.headers},
                peer,
                self._body,
                self._gone,
            )
            response = await self._server.answer(request)
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            kind = "TooLarge" if status == 431 else "InvalidArgument"
            response = problem_response(Problem(status, kind, f"no request: {error}"))
            await self._refuse(response)
            return False
        except Problem as problem:
            response = problem_response(problem)
            if problem.closes:
                await self._refuse(response)
                return False
        self._server.count(response.status)
        await self._send(response)
        self._skip()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            await self._linger()
            return False
        self._http.start_next_cycle()
        self._ahead = 0
        return True

    # Receiving ------------------------------------------------------------------------------------

    async def _head(self) -> h11.Request | None:
        """Return the next request, or None at the connection's end."""
        config = self._server.config
        self._idle = not self._http.trailing_data[0]
        event = self._http.next_event()
        if event is h11.NEED_DATA:
            try:
                async with asyncio.timeout(float(config.idle_timeout)):
                    await self._read()
            except TimeoutError:
                return None
            self._idle = False
            event = await self._event(float(config.head_timeout))
        self._idle = False
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method
        return event

    async def _body(self) -> bytes:
        limit = int(self._server.config.body_max)
        length = 0
        pieces: list[bytes] = []
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._write(self._http.send(go_on))
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + float(self._server.config.stall_timeout)
        while True:
            event = await self._event(deadline_s - loop.time())
            if not isinstance(event, h11.Data):
                return b"".join(pieces)
            length += len(event.data)
            if length > limit:
                raise Problem(413, "TooLarge", f"a body of more than {limit} bytes", closes=True)
            pieces.append(bytes(event.data))

    async def _event(self, seconds: float) -> Event:
        """Return what comes next.

        Raises:
            Problem: It takes too long.
        """
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                while (event := self._http.next_event()) is h11.NEED_DATA:
                    await self._read()
        except TimeoutError:
            raise Problem(
                408, "TimedOut", "the request did not come to its end", closes=True
            ) from None
        return event

    def _skip(self) -> None:
        """Drop what has come of a body that nobody wanted."""
        while self._http.their_state is h11.SEND_BODY:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return

    async def _read(self) -> bool:
        data = await self._reader.read(READ)
        self._http.receive_data(data)
        return bool(data)

    async def _gone(self) -> None:
        """Return when the client hangs up, while its request is at work."""
        while self._ahead < AHEAD_MAX:
            data = await self._reader.read(READ)
            self._http.receive_data(data)
            self._ahead += len(data)
            if not data:
                return
        await asyncio.get_running_loop().create_future()

    # Sending --------------------------------------------------------------------------------------

    async def _send(self, response: Response) -> None:
        try:
            headers = self._headers(response)
            without = self._method == b"HEAD"
            if response.stream is None:
                headers.append(("Content-Length", str(len(response.body))))
                data = self._begin(response.status, headers)
                if not without:
                    data += self._http.send(h11.Data(data=response.body)) or b""
                await self._write(data + (self._http.send(h11.EndOfMessage()) or b""))
                return
            await self._write(self._begin(response.status, headers))
            if not without:
                async for piece in response.stream:
                    await self._write(self._http.send(h11.Data(data=piece)))
            await self._write(self._http.send(h11.EndOfMessage()))
        finally:
            if response.stream is not None:
                await response.stream.aclose()
            if response.work is not None:
                response.work.cancel()
                await asyncio.gather(response.work, return_exceptions=True)

    def _headers(self, response: Response) -> list[tuple[str, str]]:
        headers = [("Content-Type", response.kind), *COMMON, *response.headers]
        if self._server.draining:
            headers.append(("Connection", "close"))
        return headers

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        try:
            reason = HTTPStatus(status).phrase.encode()
        except ValueError:
            reason = b""
        head = h11.Response(status_code=status, headers=headers, reason=reason)
        return self._http.send(head) or b""

    async def _write(self, data: bytes | None) -> None:
        if not data:
            return
        self._writer.write(data)
        async with asyncio.timeout(float(self._server.config.stall_timeout)):
            await self._writer.drain()

    async def _refuse(self, response: Response) -> None:
        """Answer what is no request, if there is still a turn to answer."""
        self._server.count(response.status)
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [
                *self._headers(response),
                ("Content-Length", str(len(response.body))),
                ("Connection", "close"),
            ]
            data = self._begin(response.status, headers)
            data += self._http.send(h11.Data(data=response.body)) or b""
            await self._write(data + (self._http.send(h11.EndOfMessage()) or b""))
            await self._linger()

    async def _linger(self) -> None:
        """Read what still comes, and drop it: closing at once would take the answer away from a client that sends."""
        if self._writer.can_write_eof():
            with contextlib.suppress(OSError):
                self._writer.write_eof()
        left = LINGER_MAX
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(LINGER_S):
                while left > 0 and (data := await self._reader.read(READ)):
                    left -= len(data)
