"""A link on a non-blocking socket, plain or TLS, driven by the event loop's readiness callbacks.

asyncio's transports join buffers before they write and move what is left after each partial write; on Python 3.11 that costs more than
the rest together. Here payloads go from the caller's buffers to `sendmsg` (or OpenSSL), and from `recv_into` to their final place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from warp_core.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import HEADER_MAX, PAYLOAD_MAX, Allocate, Link, Message

from warp_tcp.session import Inbound
from warp_tcp.tls import Cipher
from warp_tcp.wire import HELLO, pack_head

IOV_MAX = 512  # buffers handed to one sendmsg; Linux takes 1024
SMALL = (
    16 * 1024
)  # up to here one copy costs less than handing buffers over; also what one TLS record holds
TLS_STEP = (
    256 * 1024
)  # encrypted, and received, at once: amortises system calls and stays in the cache

_WOULD_BLOCK = (BlockingIOError, InterruptedError)


class TcpLink(Link):
    """One connection.

    `staging` is room for encrypted bytes on their way in, which all links of a loop share: nothing stays in it between two callbacks.
    """

    def __init__(
        self,
        endpoint: socket.socket,
        *,
        cipher: Cipher | None,
        staging: memoryview,
        peer: str,
        stall_s: float,
        ended: Callable[[TcpLink], None] = lambda link: None,
    ) -> None:
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._socket = endpoint
        self._cipher = cipher
        self._staging = staging
        self._ended = ended
        self._inbound = Inbound()
        self._allocate: Allocate | None = None
        self._receiver: asyncio.Future[Message] | None = None
        self._unclaimed: Message | None = None
        self._greeter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._turns: deque[asyncio.Future[None]] = (
            deque()
        )  # senders that wait for the one that is sending
        self._sending = False
        self._sequence = 0
        self._sent = 0  # bytes, ever
        self._broken: WarpError | None = None
        self._closed = False
        self._reading = False
        self._resume()
        self._stall_s = stall_s
        self._progress = (0, 0)
        self._watch = self._loop.call_later(stall_s / 2, self._look, False)

    # Sending --------------------------------------------------------------------------------------

    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        """Send one message; see `Link`. A send that is cancelled halfway ends the link."""
        length = 0
        for buffer in payload:
            length += buffer.nbytes if type(buffer) is memoryview else len(buffer)
        if len(header) > HEADER_MAX:
            raise TooLarge(f"header of {len(header)} bytes > HEADER_MAX {HEADER_MAX}")
        if length > PAYLOAD_MAX:
            raise TooLarge(f"payload of {length} bytes > PAYLOAD_MAX {PAYLOAD_MAX}")
        if self._sending:
            await self._turn()
        await self._send(header, payload, length, 0)

    async def greet(self) -> None:
        """Exchange hellos: afterwards both sides know that the other speaks this protocol and accepted them.

        Raises:
            Unauthenticated: The other side refused this node's certificate.
            RemoteProtocolError: It speaks something else.
            Unavailable: It ended the link.
        """
        await self._send(b"", (), 0, HELLO)
        self._greeter = self._loop.create_future()
        try:
            if self._cipher is not None:
                self._open(self._cipher)  # the hello may have come with the end of the handshake
            await self._greeter
        finally:
            self._greeter = None

    async def _turn(self) -> None:
        """Wait until it is this sender's turn, first come, first served."""
        turn = self._loop.create_future()
        self._turns.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._sending = False
                self._next_turn()
            raise

    def _next_turn(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                self._sending = True  # on behalf of the one that wakes up
                turn.set_result(None)
                return

    async def _send(
        self, header: Buffer, payload: Sequence[Buffer], length: int, flags: int
    ) -> None:
        self._sending = True
        try:
            if self._closed:
                self._check()
            first = pack_head(header, length, sequence=self._sequence, flags=flags) + header
            self._sequence += 1
            try:
                if len(first) + length <= SMALL:
                    whole = b"".join((first, *payload)) if length else first
                    data = whole if self._cipher is None else self._cipher.seal(whole)
                    sent = self._push(data)
                    if sent < len(data):
                        await self._write([memoryview(data)[sent:]], len(data) - sent)
                elif self._cipher is None:
                    await self._write([first, *payload], len(first) + length)
                else:
                    await self._write_sealed(self._cipher, first, payload)
            except OSError as error:
                self._break(Unavailable(f"link to {self.peer or 'peer'} ended: {error}"))
                self._check()
            except BaseException:
                self._break(Unavailable("a message was abandoned halfway"))
                raise
        finally:
            self._sending = False
            if self._turns:
                self._next_turn()

    def _push(self, data: bytes) -> int:
        """Hand one buffer to the kernel; return how much it took."""
        try:
            sent = self._socket.send(data)
        except _WOULD_BLOCK:
            return 0
        self._sent += sent
        return sent

    async def _write(self, buffers: Sequence[Buffer], left: int) -> None:
        """Hand buffers to the kernel, waiting where it has no room."""
        while left:
            try:
                sent = self._socket.sendmsg(islice(buffers, IOV_MAX))
            except _WOULD_BLOCK:
                sent = 0
            self._sent += sent
            left -= sent
            if left:
                whole = len(buffers) <= IOV_MAX
                buffers = _after(buffers, sent)
                if whole:  # all was offered and not all was taken: the kernel has no more room
                    await self._writable()

    async def _write_sealed(self, cipher: Cipher, first: bytes, payload: Sequence[Buffer]) -> None:
        """Encrypt buffers and hand them to the kernel, step by step."""
        for buffer in (first, *payload):
            view = memoryview(buffer).cast("B")
            for start in range(0, len(view), TLS_STEP):
                data = cipher.seal(view[start : start + TLS_STEP])
                sent = self._push(data)
                if sent < len(data):
                    await self._write([memoryview(data)[sent:]], len(data) - sent)

    async def _writable(self) -> None:
        """Wait until the kernel has room."""
        self._check()
        self._drained = self._loop.create_future()
        descriptor = self._socket.fileno()
        self._loop.add_writer(descriptor, self._on_writable)
        try:
            await self._drained
        finally:
            self._drained = None
            if not self._closed:
                self._loop.remove_writer(descriptor)

    def _on_writable(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # Receiving ------------------------------------------------------------------------------------

    async def receive(self, allocate: Allocate | None = None) -> Message:
        """Return the next message; see `Link`. A cancelled receive loses nothing: the next one goes on where it was."""
        if self._receiver is not None:
            raise LocalProtocolError("two receivers on one link")
        if self._closed and self._broken is None:
            raise Unavailable("link is closed")
        message = self._unclaimed or self._take(allocate)
        if message is not None:
            self._unclaimed = None
            return message
        self._check()
        self._allocate = allocate
        self._receiver = self._loop.create_future()
        try:
            if not self._reading:
                self._resume()
                if self._cipher is not None:
                    self._open(self._cipher)  # it may hold what no readiness will tell of
            return await self._receiver
        except asyncio.CancelledError:
            if (
                self._receiver.done()
                and not self._receiver.cancelled()
                and not self._receiver.exception()
            ):
                self._unclaimed = (
                    self._receiver.result()
                )  # it came in the moment of the cancellation
            raise
        finally:
            self._receiver = self._allocate = None

    def _take(self, allocate: Allocate | None) -> Message | None:
        try:
            return self._inbound.take(allocate)
        except RemoteProtocolError as error:
            self._break(error)
            raise
        except BaseException:
            self._break(Unavailable("a message could not be received into its buffer"))
            raise

    def _on_readable(self) -> None:
        """Receive what is there, and hand over the message that it completes."""
        cipher = self._cipher
        room = self._staging if cipher is not None else self._inbound.room()
        if not room:
            self._pause()  # nobody takes: the kernel's buffers fill, and the peer waits
            return
        try:
            count = self._socket.recv_into(room)
        except _WOULD_BLOCK:
            return
        except OSError as error:
            self._break(Unavailable(f"link to {self.peer or 'peer'} ended: {error}"))
            return
        if not count:
            self._end_of_stream()
        elif cipher is None:
            self._inbound.filled(count)
            self._deliver()
        else:
            cipher.feed(room[:count])
            self._open(cipher)

    def _open(self, cipher: Cipher) -> None:
        """Decrypt what has arrived, as far as there is room for it."""
        while not self._closed:
            room = self._inbound.room()
            if not room:
                self._pause()
                return
            try:
                count = cipher.open_into(room)
            except ssl.SSLZeroReturnError:
                self._end_of_stream()
                return
            except ssl.SSLError as error:
                self._break(self._refused(error))
                return
            if not count:
                return
            self._inbound.filled(count)
            self._deliver()

    def _end_of_stream(self) -> None:
        where = " in the middle of a message" if self._inbound.unfinished else ""
        self._break(Unavailable(f"{self.peer or 'peer'} ended the link{where}"))

    def _deliver(self) -> None:
        """Wake up whoever waits, if what it waits for is there."""
        try:
            if self._greeter is not None:
                if not self._greeter.done() and self._inbound.greeting():
                    self._greeter.set_result(None)
            elif self._receiver is not None and not self._receiver.done():
                message = self._inbound.take(self._allocate)
                if message is not None:
                    self._receiver.set_result(message)
        except RemoteProtocolError as error:
            self._break(error)
        except Exception as error:  # of the caller's `allocate`, so it goes to the caller
            if self._receiver is not None:
                self._receiver.set_exception(error)
            self._break(Unavailable("a message could not be received into its buffer"))

    def _refused(self, error: ssl.SSLError) -> WarpError:
        if self._inbound.greeted:
            return RemoteProtocolError(
                f"TLS of the link to {self.peer} is broken: {error.reason or error}"
            )
        return Unauthenticated(f"the other side refused this node: {error.reason or error}")

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def _resume(self) -> None:
        if not self._reading and not self._closed:
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    # Ending ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the link; harmless when repeated."""
        self.end()

    def end(self) -> None:
        """End the link at once: what was sent is on its way, what was not received is dropped."""
        if self._closed:
            return
        if self._cipher is not None and not self._sending:
            with contextlib.suppress(OSError):  # the peer's answer is not awaited
                self._socket.send(self._cipher.end())
        self._release(Unavailable("link is closed"))

    def _break(self, error: WarpError) -> None:
        if not self._closed:
            self._broken = error
            self._release(error)

    def _release(self, error: WarpError) -> None:
        self._closed = True
        self._watch.cancel()
        descriptor = self._socket.fileno()
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()
        for waiting in (self._receiver, self._greeter, self._drained, *self._turns):
            if waiting is not None and not waiting.done():
                waiting.set_exception(_again(error))
        self._ended(self)

    def _check(self) -> None:
        if self._broken is not None:
            raise _again(self._broken)
        if self._closed:
            raise Unavailable("link is closed")

    def _look(self, stalled: bool) -> None:
        """Every half `stall_s`: a message that has not moved since the last look, and the one before, ends the link."""
        progress = (self._inbound.arrived, self._sent)
        receives = self._receiver is not None and self._inbound.unfinished
        if progress != self._progress or not (receives or self._drained is not None):
            stalled = False
        elif stalled:
            self._break(
                Unavailable(f"{self.peer or 'peer'} stalled for {self._stall_s:g} s in a message")
            )
            return
        else:
            stalled = True
        self._progress = progress
        self._watch = self._loop.call_later(self._stall_s / 2, self._look, stalled)


def _again(error: WarpError) -> WarpError:
    """Return an error like this one, for one more waiter to raise."""
    return type(error)(*error.args)


def _after(buffers: Sequence[Buffer], sent: int) -> Sequence[Buffer]:
    """Return what is left of buffers after their first `sent` bytes."""
    for at, buffer in enumerate(buffers):
        size = memoryview(buffer).nbytes
        if sent < size:
            return [memoryview(buffer).cast("B")[sent:], *buffers[at + 1 :]]
        sent -= size
    return []
