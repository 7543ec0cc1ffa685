"""One client's connection: bytes between its socket and a disk, many requests at a time.

What can be answered without waiting for a device is answered in the call that brought it, and everything that one receive brought
is answered with one send. The rest goes on in tasks of its own; their number and the bytes they hold are limited, and while a limit
is reached nothing more is read from the socket.

```
 socket ─▶ scratch ─▶ requests ─▶ read_now, write_now ─────────────────▶ replies of the batch ─▶ socket
   └─▶ a large payload, where it stays      ├─▶ a task each: what has to wait ──▶ reply
                                            └─▶ one flush for all FLUSH and FUA of the batch ──▶ replies
```
"""

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from warp_core import logs
from warp_core.errors import OutOfRange, RemoteProtocolError, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.views.blocks import Disk, Run

from warp_nbd import wire
from warp_nbd.errors import errno_of
from warp_nbd.homes import HOMELESS, HeldDisk, HomeLost
from warp_nbd.negotiating import CONTEXT, Chosen, Negotiator
from warp_nbd.replies import Replies
from warp_nbd.session import Negotiation, Request, Requests
from warp_nbd.wire import (
    BLOCK_STATUS,
    CACHE,
    DF,
    DISC,
    FAST_ZERO,
    FLAGS_ALLOWED,
    FLUSH,
    FUA,
    NO_HOLE,
    PAYLOAD_MAX,
    READ,
    REQ_ONE,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    Errno,
    Transmission,
)

if TYPE_CHECKING:
    from warp_nbd.server import Server

NOW_MAX: Final = 256 * 1024
"""Bytes of a read that the loop itself does: about 60 microseconds of copying and checking."""

OUT_MAX: Final = 1024 * 1024
"""Bytes of replies that gather before they are sent, and that the transport may hold."""

PENDING_MAX: Final = 128
"""Requests of one connection that wait for something; more stay in the socket."""

STEP: Final = 1024 * 1024
"""Bytes of a large read that are one chunk: what it holds at a time."""

EXTENTS_MAX: Final = 1024
"""Extents of one block status."""

_log = logs.get("warp_nbd")


class ConnectionLost(Exception):
    """The client is gone; whoever worked for it stops."""


class Connection(asyncio.BufferedProtocol):
    """Negotiates an export, then serves it.

    Attributes:
        peer: Who it is, for the log and for reservations.
        secure: TLS is on.
        active: Bytes moved since the server last looked.
        quiet_s: How long none did, as the server counts.
    """

    def __init__(self, server: "Server") -> None:
        """Start before the connection is made."""
        self._server = server
        self._transport: asyncio.Transport
        self._negotiation: Negotiation | None = Negotiation()
        self._requests = Requests()
        self._replies = Replies(structured=False)
        self._chosen: Chosen
        self._held: HeldDisk
        self._writable = True
        self._sink: memoryview | None = None
        self._filled = 0
        self._out: list[Buffer] = []
        self._out_bytes = 0
        self._durable: list[int] = []  # cookies that are answered after a flush
        self._flushing = False  # one of them is a FLUSH
        self._tasks: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Future[None] | None = None
        self._taker: asyncio.Future[None] | None = (
            None  # while the client does not take what was sent
        )
        self._over: asyncio.Future[None] | None = None
        self._reading = True
        self._switching = False
        self._short = False  # a large payload waits for memory
        self._ended = False  # no more requests are taken
        self._lost = False
        self._task: asyncio.Task[None] | None = None
        self.peer = ""
        self.secure = False
        self.active = True
        self.quiet_s = 0.0

    # What asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to negotiate."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=OUT_MAX)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else "unix"
        plug = transport.get_extra_info("socket")
        if plug is not None and plug.family != socket.AF_UNIX:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._server.connected(self):
            self._task = self._server.loop.create_task(self._run())
        else:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for the client."""
        self._lost = self._ended = True
        self._wake(self._reader)
        self._wake(self._taker)
        self._wake(self._over)
        if self._task is None or self._task.done():
            self._server.disconnected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        return self._server.scratch if self._sink is None else self._sink[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that came."""
        self.active = True
        if self._sink is not None:
            self._filled += nbytes
            if self._filled == len(self._sink):
                self._write_large(self._sink)
            return
        data = self._server.scratch[:nbytes]
        if self._negotiation is not None:
            self._negotiation.receive(data)
            self._read_on()
            self._wake(self._reader)
        elif not self._ended:
            self._requests.feed(data)
            self._work()

    def eof_received(self) -> bool:
        """Answer what was asked, then end."""
        self._end()
        self._wake(self._reader)
        return not self.secure

    def pause_writing(self) -> None:
        """Take no more requests until the client takes replies."""
        self._writable = False
        self._taker = self._server.loop.create_future()
        self._read_on()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._wake(self._taker)
        self._go_on()

    # What the server calls ------------------------------------------------------------------------

    @property
    def waits_for_client(self) -> str:
        """What the client is expected to do now: "negotiate", "go on" in the middle of something, or nothing."""
        if self._negotiation is not None:
            return "negotiate"
        if self._taker is not None and not self._taker.done():
            return "go on"
        if self._transport.is_closing():
            return "go on"
        waits = self._sink is not None or (self._requests.waiting > 0 and self._reading)
        return "go on" if waits else ""

    def leave(self) -> None:
        """End as soon as what has begun is answered."""
        if self._negotiation is not None:
            self._wake(self._reader)
        else:
            self._leave_unless_begun()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    # What negotiation calls (warp_nbd.negotiating.Line) -------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue bytes for the client."""
        self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken most of what was queued."""
        while not self._writable and not self._lost:
            assert self._taker is not None
            await asyncio.shield(self._taker)
        if self._lost:
            raise ConnectionLost

    async def more(self) -> None:
        """Wait for bytes."""
        if self._ended:
            raise ConnectionLost
        self._reader = self._server.loop.create_future()
        self._read_on()
        try:
            await self._reader
        finally:
            self._reader = None

    async def start_tls(self) -> None:
        """Go on inside TLS, once the client begins it."""
        context = self._server.tls
        assert context is not None
        self._switching = True  # what arrives meanwhile must not pause the transport below TLS
        try:
            transport = await self._server.loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._server.handshake_s,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, TimeoutError) as error:
            _log.info("TLS failed", peer=self.peer, error=str(error))
            self._lost = True  # asyncio tells nobody when a handshake fails
            raise ConnectionLost from error
        finally:
            self._switching = False
        if transport is None:
            self._lost = True
            raise ConnectionLost
        self._transport = transport
        self._transport.set_write_buffer_limits(high=OUT_MAX)
        self.secure = True

    # The connection's task ------------------------------------------------------------------------

    async def _run(self) -> None:
        assert self._negotiation is not None
        server = self._server
        negotiator = Negotiator(
            self, self._negotiation, server.exports,
            tls=server.tls is not None, leaving=lambda: server.draining,
        )  # fmt: skip
        try:
            chosen = await negotiator.run()
            if chosen is not None:
                self._held = self._holding(chosen)
                try:
                    await self._transmit(chosen)
                finally:
                    await self._held.close()
            self._transport.close()
        except ConnectionLost:
            self._transport.abort()
        except RemoteProtocolError as error:
            _log.info("client broke the protocol", peer=self.peer, error=str(error))
            self._transport.abort()
        except Exception as error:
            _log.exception("connection failed", error, peer=self.peer)
            self._transport.abort()
        finally:
            if self._lost:
                server.disconnected(self)

    def _holding(self, chosen: Chosen) -> HeldDisk:
        """Return what keeps an export's disk open, wherever its home is."""
        server, name = self._server, chosen.export.name

        async def reopen() -> Disk:
            _, disk = await server.exports.open(name, self.peer)
            return disk

        standing = server.standings.of(chosen.disk)
        return HeldDisk(
            chosen.disk, standing, reopen, self._end, timeout_s=server.home_s, name=name
        )

    async def _transmit(self, chosen: Chosen) -> None:
        """Serve an export until the client or the server leaves."""
        assert self._negotiation is not None
        self._over = self._server.loop.create_future()
        self._chosen = chosen
        self._replies = Replies(structured=chosen.structured)
        rest, self._negotiation = self._negotiation.rest(), None
        if not self._ended:
            self._requests.feed(rest)
            self._work()
            try:
                await self._over
            finally:
                self._ended = True
        if self._sink is not None:
            self._server.memory.give(len(self._sink))
            self._sink = None
        if self._lost:
            for task in self._tasks:
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
            if self._lost:
                for task in self._tasks:
                    task.cancel()

    def _work(self) -> None:
        """Serve the requests that are here, as far as limits allow, and send what is answered."""
        requests, serve = self._requests, self._serve
        try:
            while self._writable and len(self._tasks) < PENDING_MAX and not self._ended:
                request = requests.next()
                if request is None:
                    break
                serve(request)
                if self._out_bytes > OUT_MAX:
                    self._send_out()
        except RemoteProtocolError as error:
            _log.info("client broke the protocol", peer=self.peer, error=str(error))
            self._end()
        requests.settle()
        if self._durable:
            cookies, self._durable = self._durable, []
            asked, self._flushing = self._flushing, False
            self._spawn(self._flush(cookies, asked=asked))
        if self._out:
            self._send_out()
        if requests.large is not None and not self._short and self._sink is None:
            self._short = True
            self._spawn(self._make_room(requests.large))
        self._read_on()
        if self._server.draining:
            self._leave_unless_begun()

    def _go_on(self) -> None:
        """Serve what was left because of a limit."""
        if self._negotiation is None and not self._ended and not self._reading:
            self._work()

    def _read_on(self) -> None:
        """Read from the socket, or do not, as limits say."""
        if self._negotiation is not None:
            wanted = self._writable and (self._reader is not None or not self._negotiation.begun)
        else:
            wanted = (
                self._writable
                and not self._short
                and len(self._tasks) < PENDING_MAX
                and not self._ended
            )
        if self._switching:
            return
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _end(self) -> None:
        """Take no more requests; what has begun is answered."""
        self._ended = True
        self._wake(self._over)

    def _leave_unless_begun(self) -> None:
        """Take no more requests but the one of which a part is here."""
        if self._requests.large is None and not self._requests.waiting:
            self._end()
            self._read_on()

    # Requests -------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        """Answer a request, or begin to."""
        command, flags, cookie, offset, length, payload = request
        try:
            if command == READ and not flags and length <= NOW_MAX:
                runs = self._held.disk.read_now(offset, length)
                if runs is not None:
                    self._out += self._replies.data(cookie, runs)
                    self._out_bytes += length
                    self._server.counts[READ].value += 1
                    return
            elif (
                payload is not None
                and not flags & ~FUA
                and self._held.disk.write_now(offset, payload)
            ):
                self._server.counts[WRITE].value += 1
                self._held.standing.answered += 1
                if flags:
                    self._durable.append(cookie)
                else:
                    self._out.append(self._replies.done(cookie))
                    self._out_bytes += 16
                return
        except HOMELESS:
            pass  # what waits finds the next home
        except WarpError as error:
            self._refuse(request, error)
            return
        self._serve_later(request)

    def _serve_later(self, request: Request) -> None:
        """Check a request and give it to a task."""
        command, flags, cookie, _, length, payload = request
        if command >= len(FLAGS_ALLOWED):
            self._error(cookie, Errno.EINVAL, f"command {command} is unknown")
            return
        self._server.counts[command].value += 1
        if command == DISC:
            self._end()
            return
        if flags & ~FLAGS_ALLOWED[command] or (flags & DF and not self._replies.structured):
            self._error(cookie, Errno.EINVAL, f"flags {flags:#x} of command {command}")
            return
        if length > PAYLOAD_MAX and command == READ:
            self._error(cookie, Errno.EINVAL, f"{length} bytes > {PAYLOAD_MAX}")
            return
        if self._chosen.export.flags & Transmission.READ_ONLY and command in (
            WRITE,
            TRIM,
            WRITE_ZEROES,
        ):
            self._error(cookie, Errno.EPERM, "the export is read only")
            return
        if command == FLUSH:
            self._durable.append(cookie)
            self._flushing = True
            return
        if payload is not None:
            request = request._replace(payload=bytes(payload))
        self._spawn(self._served(request))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._server.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.exception("request failed", error, peer=self.peer)
            self._transport.abort()
        self._go_on()

    async def _served(self, request: Request, *, held: int = 0) -> None:
        """Answer a request that has to wait; `held` bytes of memory are its own already."""
        memory = self._server.memory
        needed = request.length if request.command in (READ, WRITE) and not held else 0
        if needed:
            await memory.take(needed)
        try:
            await self._done(request)
        except WarpError as error:
            self._refuse(request, error)
            self._send_out()
        except ConnectionLost:
            return
        finally:
            memory.give(needed + held)

    async def _done(self, request: Request) -> None:
        command, flags, cookie, offset, length, payload = request
        do = self._held.do
        fua = bool(flags & FUA)
        if command == READ:
            await self._read(request)
            return
        if command == BLOCK_STATUS:
            if not self._chosen.status:
                self._error(cookie, Errno.EINVAL, "block status was not negotiated")
            elif not length:
                self._error(cookie, Errno.EINVAL, "block status of no bytes")
            else:
                limit = 1 if flags & REQ_ONE else EXTENTS_MAX
                found = await do(lambda disk: disk.status(offset, length, limit=limit))
                self._out.append(self._replies.status(cookie, CONTEXT, found))
            self._send_out()
            return
        if command == WRITE:
            assert payload is not None
            await do(lambda disk: disk.write(offset, payload, fua=fua))
        elif command == TRIM:
            await do(lambda disk: disk.trim(offset, length, fua=fua))
        elif command == WRITE_ZEROES:
            if flags & NO_HOLE and flags & FAST_ZERO:
                # Zeros that keep their space are written like other bytes: not faster than a write.
                self._error(cookie, Errno.ENOTSUP, "zeros without a hole are written one by one")
                self._send_out()
                return
            may_trim = not flags & NO_HOLE
            await do(lambda disk: disk.zero(offset, length, fua=fua, may_trim=may_trim))
        elif command == CACHE:
            await self._cache(offset, length)
        if not fua and command != CACHE:
            self._held.standing.answered += 1
        self._out.append(self._replies.done(cookie))
        self._send_out()

    async def _read(self, request: Request) -> None:
        """Read in steps, each a chunk of its own where replies are structured and nobody wants them whole."""
        _, flags, cookie, offset, length, _ = request
        replies = self._replies
        end = offset + length
        self._demand(end)
        gathered: list[Run] = []
        in_steps = replies.structured and not flags & DF
        for at in range(offset, end, STEP):
            gathered += await self._runs(at, min(STEP, end - at))
            if in_steps and at + STEP < end:
                await self.drained()
                self._out += replies.data(cookie, gathered, last=False)
                self._send_out()
                gathered = []
        await self.drained()
        self._out += replies.data(cookie, gathered, whole=bool(flags & DF))
        self._send_out()
        await self.drained()

    async def _cache(self, offset: int, length: int) -> None:
        """Read ahead: what is read lies in the page cache then."""
        self._demand(offset + length)
        for at in range(offset, offset + length, STEP):
            await self._runs(at, min(STEP, offset + length - at))

    async def _runs(self, offset: int, length: int) -> Sequence[Run]:
        return await self._held.do(lambda disk: disk.read_runs(offset, length))

    def _demand(self, end: int) -> None:
        try:
            size = self._held.disk.size
        except HOMELESS:
            return  # the next home says
        if end > size:
            raise OutOfRange(f"up to {end} of a disk of {size}")

    async def _flush(self, cookies: list[int], *, asked: bool) -> None:
        """Make everything durable that was answered, and answer these; `asked` if one is a FLUSH."""
        try:
            await self._held.flush()
        except WarpError as error:
            for cookie in cookies:
                self._error(cookie, errno_of(error), str(error))
            if asked:
                self._held.told()
        else:
            done = self._replies.done
            self._out += [done(cookie) for cookie in cookies]
        self._send_out()

    # Large payloads -------------------------------------------------------------------------------

    async def _make_room(self, request: Request) -> None:
        """Get memory for a payload, and have the rest of it received there."""
        await self._server.memory.take(request.length)
        self._short = False
        if self._lost or self._ended:
            self._server.memory.give(request.length)
            return
        begun = self._requests.begun
        buffer = memoryview(bytearray(request.length))
        buffer[: len(begun)] = begun
        self._filled = len(begun)
        self._sink = buffer
        self._read_on()

    def _write_large(self, payload: memoryview) -> None:
        request = self._requests.large
        assert request is not None
        self._requests.filled()
        self._sink = None
        held = request.length
        request = request._replace(payload=payload)
        self._server.counts[WRITE].value += 1
        if request.flags & ~FUA or self._chosen.export.flags & Transmission.READ_ONLY:
            self._server.memory.give(held)
            refused = Errno.EINVAL if request.flags & ~FUA else Errno.EPERM
            self._error(request.cookie, refused, "flags, or the export is read only")
            self._send_out()
        else:
            self._spawn(self._served(request, held=held))
        self._read_on()
        if self._server.draining:
            self._leave_unless_begun()

    # Replies --------------------------------------------------------------------------------------

    def _refuse(self, request: Request, error: WarpError) -> None:
        writing = request.command in (WRITE, WRITE_ZEROES)
        number = errno_of(error, writing=writing)
        if number is Errno.EIO and not isinstance(error, HomeLost):  # that was said once
            _log.exception(
                "request failed", error, peer=self.peer, export=self._chosen.export.name,
                command=wire.COMMANDS[request.command], offset=request.offset,
            )  # fmt: skip
        self._error(request.cookie, number, str(error))

    def _error(self, cookie: int, error: Errno, message: str) -> None:
        self._out.append(self._replies.error(cookie, error, message))

    def _send_out(self) -> None:
        """Send what was answered."""
        out, self._out = self._out, []
        self._out_bytes = 0
        if self._lost or not out:
            return
        size = sum(map(len, out))
        if size <= NOW_MAX:
            self._transport.write(b"".join(out))
        else:
            for each in out:
                self._transport.write(each)

    @staticmethod
    def _wake(future: asyncio.Future[None] | None) -> None:
        if future is not None and not future.done():
            future.set_result(None)
