"""One client's connection: bytes between its socket and the service, one request after another.

A request whose head arrives while nothing else is in progress is begun at once, in the call that brought its bytes. What
needs no waiting, such as a small object from memory, is answered there and then by plain calls (`_sent_now`); else the
request's coroutine is begun there. Only if that has to wait for something (a sync, a device, the rest of a body) does it go
on in the connection's task:

    task:   _serve ── parked ·······························─▶ _continued ··· ─▶ parked
    loop:               buffer_updated ─ _answer_now ─ waits ─┘

Small things go through a buffer that all connections share; a large body is received straight into
the buffers it is stored from, and sent straight from those it was read into. A request that comes
while another is answered waits its turn (pipelining); when too much waits, reading stops.
"""

import asyncio
import time
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from warp_core import logs
from warp_core.errors import WarpError
from warp_core.interfaces.stores import Buffer

from warp_s3.answers import error_answer
from warp_s3.body import Body, Client, Note
from warp_s3.call import Answer, Outcome
from warp_s3.errors import S3Error, from_core
from warp_s3.http import CONTINUE, Request, check_partial_head, head_end, parse_head, response_head
from warp_s3.sending import JOIN_MAX, NEVER, ConnectionLost, Sending

if TYPE_CHECKING:
    from warp_s3.server import Server

INBOX_MAX: Final = 128 * 1024
"""Bytes that may wait for their turn: a head, a small body and a few pipelined requests."""

LINGER_S: Final = 2.0
"""How long a client may still send what nobody wants, so that it sees the answer to a request that failed."""

LINGER_MAX: Final = 32 * 1024 * 1024
"""Bytes that it may send meanwhile: the largest part that usual clients send whole before they look for an answer."""

_log = logs.get("warp_s3")


class _Begun(NamedTuple):
    """A request on its way: what it was answered with, or what makes the answer, or why there is none."""

    request: Request | None
    request_id: str
    body: Body | None
    outcome: Outcome | Exception


@types.coroutine
def _continued(
    begun: Coroutine[Any, Any, bool], waited: Any, error: BaseException | None
) -> Generator[Any, Any, bool]:
    """Await a coroutine that somebody began and that waits for `waited`, or gets `error` instead."""
    while True:
        got: Any = None
        if error is None:
            try:
                got = yield waited
            except BaseException as raised:
                error = raised
        try:
            if error is None:
                waited = begun.send(got)
            else:
                thrown, error = error, None
                waited = begun.throw(thrown)
        except StopIteration as done:
            return bool(done.value)


class Connection(Sending):
    """Reads requests, has them answered, and sends the answers in order.

    Attributes:
        idle: Nothing of a request has arrived, so the connection may be closed any time.
        request_id: What the request under way is called.
    """

    def __init__(self, server: "Server") -> None:
        """Start before the connection is made."""
        super().__init__(server)
        self._inbox = b""
        self._sink: memoryview | None = None
        self._filled = 0
        self._reader: asyncio.Future[None] | None = None
        self._parked: asyncio.Future[bool] | None = None  # what the task awaits between requests
        # A request that `_answer_now` began and that waits for something.
        self._begun: tuple[Coroutine[Any, Any, bool], Any] | None = None
        self._reading = True
        self._ended = False  # the client sends no more
        self._lingering = False
        self._linger_left = LINGER_MAX
        self._patience = NEVER  # loop time at which an unwanted body is no longer read
        self._task: asyncio.Task[None] | None = None
        self.idle = True
        self.request_id = ""

    # What asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        self._transport = cast("asyncio.Transport", transport)
        self._secure = transport.get_extra_info("sslcontext") is not None
        if self._server.connected(self):
            self._task = self._server.loop.create_task(self._serve())
        else:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for the client."""
        self._lost = True
        if self._direct is not None:
            self._server.loop.remove_writer(self._direct)
            self._direct.close()
            self._direct = None
        for waiter in (self._reader, self._writer, self._parked):
            if waiter is not None and not waiter.done():
                waiter.set_exception(ConnectionLost())
        self._server.disconnected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        if self._sink is not None and self._filled < len(self._sink):
            return self._sink[self._filled :]
        # Also where a sink is full and its reader has not run yet: TLS reads on, and would take an empty buffer for the client's end.
        return self._server.scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that came."""
        if self._sink is not None and self._filled < len(self._sink):
            self._filled += nbytes
            self.deadline = self._clock() + self._server.stall_s
            if self._filled == len(self._sink):
                self._wake_reader()
            return
        if self._lingering:
            self._linger_left -= nbytes
            if self._linger_left < 0:
                self._transport.abort()
            return
        data = bytes(self._server.scratch[:nbytes])
        self._inbox = self._inbox + data if self._inbox else data
        if len(self._inbox) > INBOX_MAX:
            self._pause()
        if self._parked is None or self._parked.done():
            self._wake_reader()
        elif asyncio.current_task(self._server.loop) is not None:
            self._parked.set_result(True)
        else:
            self._answer_now(self._parked)

    def eof_received(self) -> bool:
        """Remember that nothing more comes; answers may still be sent, except over TLS."""
        self._ended = True
        self._wake_reader()
        if self._parked is not None and not self._parked.done():
            self._parked.set_result(True)
        return not self._secure

    # What the server calls ------------------------------------------------------------------------

    def expire(self) -> None:
        """End a wait whose deadline has passed."""
        self.deadline = NEVER
        if self._writer is not None or self._lingering:
            self._transport.abort()  # closing would wait for what is not sent yet
        elif self.idle:
            self._transport.close()
        elif self._reader is not None and not self._reader.done():
            self._reader.set_exception(S3Error("RequestTimeout", closes=True))

    def close_idle(self) -> None:
        """Close if no request is in progress."""
        if self.idle:
            self._transport.close()

    def cancel(self) -> None:
        """Stop whatever is in progress."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    # What a body calls (warp_s3.body.Source) ------------------------------------------------------

    @property
    def client(self) -> Client:
        """Where the requests come from."""
        peer = self._transport.get_extra_info("peername")
        tls = self._transport.get_extra_info("ssl_object")
        version = tls.version() if tls is not None else None
        return Client(
            peer[0] if isinstance(peer, tuple) else None,
            version.removeprefix("TLSv") if version is not None else None,
        )

    def take(self, length_max: int) -> bytes:
        """Give bytes that have already arrived, perhaps none."""
        data = self._inbox
        if len(data) <= length_max:
            self._inbox = b""
        else:
            self._inbox = data[length_max:]
            data = data[:length_max]
        if not self._reading:
            self._resume()
        return data

    def give_back(self, data: bytes) -> None:
        """Return bytes that belong to the next request."""
        self._inbox = data + self._inbox

    async def more(self) -> None:
        """Wait until `take` has something."""
        if self._inbox:
            return
        self.deadline = min(self._clock() + self._server.stall_s, self._patience)
        await self._wait_for_reader()

    async def fill(self, view: memoryview) -> None:
        """Receive exactly as many bytes as `view` holds, without a copy."""
        assert not self._inbox
        self._sink = view
        self._filled = 0
        self.deadline = self._clock() + self._server.stall_s
        try:
            await self._wait_for_reader()
            if self._filled < len(view):
                raise S3Error("IncompleteBody", closes=True)
        finally:
            self._sink = None

    def proceed(self) -> None:
        """Tell the client to send the body, unless some of it has come."""
        if not self._inbox:
            self._transport.write(CONTINUE)

    # Requests -------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            going_on = True
            while going_on:
                if self._inbox or self._ended or self._lost or self._server.draining:
                    going_on = await self._next_exchange()
                else:
                    going_on = await self._park()
        except ConnectionLost:
            return
        except Exception as error:
            _log.exception("connection failed", error)
            self._transport.abort()

    async def _park(self) -> bool:
        """Wait for bytes, while `_answer_now` answers what it can, and finish what it cannot; False at the connection's end."""
        self._rest()
        error: asyncio.CancelledError | None = None
        self._parked = self._server.loop.create_future()
        try:
            going_on = await self._parked
        except asyncio.CancelledError as cancelled:
            if self._begun is None:
                raise
            error = cancelled  # of the request: it has to clean up
        finally:
            self._parked = None
        if self._begun is None:
            return going_on
        (exchange, waited), self._begun = self._begun, None
        return await _continued(exchange, waited, error)

    def _rest(self) -> None:
        self.idle = True
        self.deadline = self._clock() + self._server.idle_s
        if not self._reading:
            self._resume()

    def _answer_now(self, parked: "asyncio.Future[bool]") -> None:
        """Answer the requests in the inbox as the connection's task, as far as none has to wait."""
        loop, task = self._server.loop, self._task
        assert task is not None
        while True:
            if self._inbox.startswith(b"\r\n"):
                self._inbox = self._inbox[2:]  # as in `_next_head`
            end = head_end(self._inbox)
            if end < 0:
                parked.set_result(True)
                return
            begun = self._begin(self._take_head(end))
            if self._sent_now(begun):
                if self._writer is None:
                    if not self._inbox and not self._ended:
                        self._rest()
                        return
                    continue
                exchange = self._sent()
            else:
                exchange = self._exchange(begun)
            self.idle = False
            self.deadline = NEVER
            _enter_task(loop, task)
            try:
                waited = exchange.send(None)
            except StopIteration as done:
                if not done.value:
                    parked.set_result(False)
                    return
            except Exception as error:
                parked.set_exception(error)
                return
            else:
                self._begun = exchange, waited
                parked.set_result(True)
                return
            finally:
                _leave_task(loop, task)
            if not self._inbox and not self._ended and not self._server.draining:
                self._rest()
                return

    async def _next_exchange(self) -> bool:
        """Wait for a request and answer it; False if the connection ends."""
        try:
            head = await self._next_head()
        except S3Error as error:
            begun = _Begun(None, self._server.next_request_id(), None, error)
        else:
            if head is None:
                self._transport.close()
                return False
            begun = self._begin(head)
        return await self._exchange(begun)

    def _begin(self, head: bytes) -> _Begun:
        """Begin to answer the request of a head."""
        request: Request | None = None
        body: Body | None = None
        request_id = self.request_id = self._server.next_request_id()
        outcome: Outcome | Exception
        try:
            request = parse_head(head)
            body = Body(
                self,
                length=request.content_length or 0,
                chunked=request.chunked,
                expects_continue=request.expects_continue,
            )
            outcome = self._server.service.start(request, body)
        except Exception as error:
            outcome = error
        return _Begun(request, request_id, body, outcome)

    def _sent_now(self, begun: _Begun) -> bool:
        """Send a small answer that is there; False if anything is out of the ordinary, and nothing is done."""
        request, request_id, body, answer = begun
        if not isinstance(answer, Answer) or request is None or body is None or not body.done:
            return False
        if body.note is not None or answer.stream is not None:
            return False
        if not request.keep_alive or self._server.draining or self._writer is not None:
            return False
        data: Buffer = answer.body
        if answer.reader is not None:
            length = answer.length or 0
            if length > JOIN_MAX:
                return False
            try:
                found = answer.reader.read_now(answer.offset, length)
            except WarpError:
                return False  # it will be raised again where it is told
            if found is None or len(found) != length:
                return False
            data = found
        head = response_head(
            answer.status,
            answer.headers,
            second=self._server.now(),
            request_id=request_id,
            length=answer.length,
            fields=answer.fields,
        )
        self._server.count(request, answer, self)
        self._transport.write(b"".join((head, data)) if data else head)
        if answer.reader is not None:
            answer.reader.close()
        return True

    async def _sent(self) -> bool:
        """Wait until the client has taken what was sent."""
        await self._flushed()
        return True

    async def _exchange(self, begun: _Begun) -> bool:
        """Answer one request; False if the connection ends with it."""
        request, request_id, body, outcome = begun
        broken = False
        note = body.note if body is not None else None
        try:
            if isinstance(outcome, Exception):
                raise outcome
            answer = outcome if isinstance(outcome, Answer) else await outcome
        except ConnectionLost:
            raise
        except Exception as error:
            refusal = self._refusal(error, request, request_id)
            answer = error_answer(refusal, request, request_id)
            broken = refusal.closes or request is None
            if note is not None:
                note.error = refusal.code
        if body is not None and not body.done and not broken:
            broken = not await self._discarded(body)
        closes = broken or request is None or not request.keep_alive or self._server.draining
        self._server.count(request, answer, self)
        if note is None or request is None or body is None:
            await self._send(answer, request_id, closes)
        else:
            await self._send_noted(answer, request, request_id, body, note, closes)
        if broken:
            await self._linger()
        elif closes:
            self._transport.close()
        return not closes

    async def _send_noted(
        self,
        answer: Answer,
        request: Request,
        request_id: str,
        body: Body,
        note: Note,
        closes: bool,
    ) -> None:
        """Send an answer, and have it told in the access log of its bucket, however that ends."""
        note.answered_s = time.monotonic()
        size = body.length if request.has_body else None
        if answer.reader is not None:
            size = answer.reader.info.size
        elif request.method == "HEAD" and answer.status == 200:
            size = answer.length
        try:
            await self._send(answer, request_id, closes)
        finally:
            await self._server.service.logged(request, request_id, note, answer, size, self.client)

    def _refusal(self, error: Exception, request: Request | None, request_id: str) -> S3Error:
        if isinstance(error, S3Error):
            return error
        if isinstance(error, WarpError):
            refusal = from_core(error)
        else:
            refusal = S3Error("InternalError")
        if refusal.status == 500:
            _log.exception(
                "request failed",
                error,
                request=request_id,
                method=request.method if request else "",
                path=request.path if request else "",
            )
        return refusal

    async def _discarded(self, body: Body) -> bool:
        """Read an unwanted body, so that the connection stays; False if it is too much or takes too long."""
        self._patience = self._clock() + LINGER_S
        try:
            return await body.discard()
        except S3Error:
            return False
        finally:
            self._patience = NEVER

    def _take_head(self, end: int) -> bytes:
        """Take a head that ends at `end` from the inbox."""
        inbox = self._inbox
        self._inbox = inbox[end + 4 :]
        return inbox[:end]

    async def _next_head(self) -> bytes | None:
        """Wait for a head; None at the end of the connection.

        Raises:
            S3Error: It is malformed, too long or too slow.
        """
        inbox = self._inbox
        if inbox.startswith(b"\r\n"):
            inbox = self._inbox = inbox[2:]
        end = head_end(inbox)
        if end < 0:
            self.idle = not inbox
            self.deadline = self._clock() + (self._server.head_s if inbox else self._server.idle_s)
            searched = 0
            while end < 0:
                if inbox:
                    if self.idle:
                        self.idle = False
                        self.deadline = self._clock() + self._server.head_s
                    check_partial_head(inbox)
                    searched = max(0, len(inbox) - 3)
                elif self._server.draining:
                    return None
                if self._ended:
                    return None
                await self._wait_for_reader(ending=True)
                inbox = self._inbox
                if inbox.startswith(b"\r\n"):
                    # RFC 9112, 2.2: an empty line before a request is ignored.
                    inbox = self._inbox = inbox[2:]
                    searched = 0
                end = head_end(inbox, searched)
            self.deadline = NEVER
            self.idle = False
        return self._take_head(end)

    async def _wait_for_reader(self, *, ending: bool = False) -> None:
        """Wait for bytes; at the end of the stream return if `ending`, else it is an error."""
        if self._lost:
            raise ConnectionLost
        if self._ended and not ending:
            raise S3Error("IncompleteBody", closes=True)
        if not self._reading:
            self._resume()
        self._reader = self._server.loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None
        if self._ended and not ending and self._sink is None and not self._inbox:
            raise S3Error("IncompleteBody", closes=True)

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _pause(self) -> None:
        if self._reading and not self._lost:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._lost and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    # Ends -----------------------------------------------------------------------------------------

    async def _linger(self) -> None:
        """Close so that the client sees the answer even if it is still sending.

        Closing a socket with unread bytes resets the connection, and a reset destroys what the
        client has not read yet: so say that nothing more comes, and read for a moment: at most
        `LINGER_S` and `LINGER_MAX`, whatever the client goes on to send.
        """
        self._lingering = True
        self._inbox = b""
        if self._ended or self._secure or self._lost:
            self._transport.close()
            return
        self._transport.write_eof()
        self._resume()
        self.deadline = self._clock() + LINGER_S
        await self._wait_for_reader(ending=True)
        self._transport.close()
