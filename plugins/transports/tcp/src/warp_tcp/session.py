"""One direction of a link without I/O: bytes as they arrive → messages, payloads straight into their final buffers.

Small messages arrive together in the inbox and are cut out of it. As soon as the head of a message with a payload is there, what came
with it is copied to the payload's buffer, and `room` leads everything that follows straight into that buffer: of a bulk
payload, at most INBOX_STEP bytes are copied.
"""

from __future__ import annotations

from zlib import crc32

from warp_core.errors import LocalProtocolError, RemoteProtocolError
from warp_core.interfaces.transports import HEADER_MAX, Allocate, Message

from warp_tcp.wire import HEAD_SIZE, HELLO, Head, unpack_head

INBOX_STEP = (
    16 * 1024
)  # asked of the kernel at once while no payload is due: many small messages, little of a bulk one
INBOX_SIZE = HEAD_SIZE + HEADER_MAX + INBOX_STEP  # the longest header, and a step behind it

_EMPTY = memoryview(b"")


class Inbound:
    """The receiving half."""

    def __init__(self) -> None:
        self.arrived = 0  # bytes, ever
        self.greeted = False
        self._inbox = memoryview(bytearray(INBOX_SIZE))
        self._start = 0
        self._end = 0
        self._sequence = 0
        self._head: Head | None = None
        self._header = b""
        self._payload: memoryview | None = None
        self._filled = 0  # bytes of the payload

    @property
    def unfinished(self) -> bool:
        """Say whether a message has begun to arrive."""
        return self._head is not None or self._end > self._start

    def room(self) -> memoryview:
        """Return where the next bytes belong: empty while complete messages wait to be taken."""
        if self._payload is not None:
            return self._payload[self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end + INBOX_STEP > INBOX_SIZE and self._start:
            waiting = self._end - self._start
            self._inbox[:waiting] = bytes(self._inbox[self._start : self._end])
            self._start, self._end = 0, waiting
        return self._inbox[self._end : self._end + INBOX_STEP]

    def filled(self, count: int) -> None:
        """Tell that `count` bytes were put into `room`."""
        self.arrived += count
        if self._payload is not None:
            self._filled += count
        else:
            self._end += count

    def take(self, allocate: Allocate | None) -> Message | None:
        """Return the next message once it is complete.

        `allocate` is asked for the payload's buffer when its header has arrived; of a message whose payload is on its way, the
        buffer of an earlier call is kept.

        Raises:
            RemoteProtocolError: The framing is broken; the link cannot continue.
            LocalProtocolError: `allocate` gave a buffer of another size.
        """
        payload = self._payload
        if payload is None:
            if self._start == self._end:
                return None
            head = self._next(0)
            if head is None:
                return None
            payload = self._begin(head.payload_length, allocate)
        if self._filled < len(payload):
            return None
        self._head = self._payload = None
        return Message(self._header, payload)

    def greeting(self) -> bool:
        """Take the peer's hello; say whether it was there.

        Raises:
            RemoteProtocolError: The first message is something else.
        """
        head = self._next(HELLO)
        if head is None:
            return False
        if head.payload_length:
            raise RemoteProtocolError("a hello with a payload")
        self._head = None
        self.greeted = True
        return True

    def _next(self, flags: int) -> Head | None:
        """Cut head and header out of the inbox; None until they are there."""
        start = self._start
        head = self._head
        if head is None:
            if self._end - start < HEAD_SIZE:
                return None
            head = unpack_head(self._inbox, start, sequence=self._sequence)
            if head.flags != flags:
                raise RemoteProtocolError(f"flags {head.flags:#x} where {flags:#x} are due")
            self._head = head
            self._sequence += 1
            self._start = start = start + HEAD_SIZE
        end = start + head.header_length
        if self._end < end:
            return None
        header = self._header = bytes(self._inbox[start:end])
        if crc32(header, head.begun) != head.checksum:
            raise RemoteProtocolError("head or header of a message is damaged")
        self._start = end
        return head

    def _begin(self, length: int, allocate: Allocate | None) -> memoryview:
        """Find the payload's buffer, and move there what has arrived of it."""
        if not length:
            payload = _EMPTY
        elif allocate is None:
            payload = memoryview(bytearray(length))
        else:
            payload = allocate(self._header, length)
            if len(payload) != length or payload.readonly or payload.itemsize != 1:
                raise LocalProtocolError(f"no writable buffer of {length} bytes for a payload")
        ready = min(length, self._end - self._start)
        if ready:
            payload[:ready] = self._inbox[self._start : self._start + ready]
            self._start += ready
        self._payload, self._filled = payload, ready
        return payload
