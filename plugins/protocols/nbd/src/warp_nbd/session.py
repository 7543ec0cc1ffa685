"""What arrives, cut into what it asks for: options first, requests then. No I/O, no clock.

```
 Negotiation   flags ─▶ option ─▶ option ─▶ …          one at a time: the next comes after the answer
 Requests      request ─▶ request ─▶ …                 many in one receive, served as a batch
                  └─ a large payload that is not all here: `large` says where the rest belongs
```
"""

from typing import Final, NamedTuple

from warp_core.errors import RemoteProtocolError
from warp_core.interfaces.stores import Buffer

from warp_nbd import wire
from warp_nbd.wire import Handshake

OPTIONS_MAX: Final = 1000
"""Options of one connection: a person who tries things out needs a few dozen."""

STRAIGHT: Final = 32 * 1024
"""Bytes of a payload that are still to come from which they are received where they belong, not copied there."""


class Asked(NamedTuple):
    """An option; no data if there were more than OPTION_MAX, which were thrown away."""

    option: int
    data: bytes | None


class Negotiation:
    """Cuts what a client says into its flags and options.

    Attributes:
        flags: The client's, once they came.
    """

    def __init__(self) -> None:
        """Begin behind the greeting."""
        self.flags: Handshake | None = None
        self._inbox = bytearray()
        self._skip = 0  # bytes of an option's data to throw away
        self._skipping: int | None = None
        self._options = 0

    @property
    def begun(self) -> bool:
        """Whether a part of something is here."""
        return bool(self._inbox) or self._skipping is not None

    def receive(self, data: Buffer) -> None:
        """Take bytes."""
        self._inbox += data

    def next(self) -> Asked | None:
        """Return the next option that is complete.

        Raises:
            RemoteProtocolError: The client speaks something else, or too much.
        """
        inbox = self._inbox
        if self.flags is None:
            if len(inbox) < 4:
                return None
            self.flags = wire.unpack_client_flags(bytes(inbox[:4]))
            del inbox[:4]
        if self._skipping is None:
            if len(inbox) < wire.OPTION_HEAD:
                if not wire.IHAVEOPT.startswith(inbox[:8]):
                    raise RemoteProtocolError(f"{bytes(inbox[:8])!r} where an option begins")
                return None
            option, length = wire.unpack_option_head(bytes(inbox[: wire.OPTION_HEAD]))
            if length <= wire.OPTION_MAX:
                end = wire.OPTION_HEAD + length
                if len(inbox) < end:
                    return None
                data = bytes(inbox[wire.OPTION_HEAD : end])
                del inbox[:end]
                return self._asked(option, data)
            del inbox[: wire.OPTION_HEAD]
            self._skipping, self._skip = option, length
        taken = min(self._skip, len(inbox))
        del inbox[:taken]
        self._skip -= taken
        if self._skip:
            return None
        option, self._skipping = self._skipping, None
        return self._asked(option, None)

    def rest(self) -> bytes:
        """Give what came behind the last option."""
        rest = bytes(self._inbox)
        self._inbox.clear()
        return rest

    def _asked(self, option: int, data: bytes | None) -> Asked:
        self._options += 1
        if self._options > OPTIONS_MAX:
            raise RemoteProtocolError(f"more than {OPTIONS_MAX} options")
        return Asked(option, data)


class Request(NamedTuple):
    """One request. The payload of a write is a view of what arrived: of no use once more is fed."""

    command: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: Buffer | None


_new = tuple.__new__  # a named tuple's own constructor takes three times as long, for every request


class Requests:
    """Cuts what arrives into requests.

    Attributes:
        large: A write of which much is still to come; nothing more is cut until `filled`.
        begun: The bytes of its payload that came already.
    """

    __slots__ = ("_at", "_data", "_end", "_lent", "begun", "large")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._data: Buffer = b""
        self._at = 0
        self._end = 0
        self._lent = False  # what is here is somebody else's buffer
        self.large: Request | None = None
        self.begun: Buffer = b""

    @property
    def waiting(self) -> int:
        """Bytes that are here and not cut yet."""
        return self._end - self._at

    def feed(self, data: Buffer) -> None:
        """Take bytes; they have to stay as they are until `settle`."""
        self._lent = True
        if self._at < self._end:
            data = b"".join((memoryview(self._data)[self._at : self._end], data))
            self._lent = False
        self._data, self._at, self._end = data, 0, len(data)

    def next(self) -> Request | None:
        """Return the next request that is complete.

        Raises:
            RemoteProtocolError: Something else stands where a request begins, or a payload is too long.
        """
        at = self._at
        behind = at + wire.REQUEST_SIZE
        if behind > self._end or self.large is not None:
            return None
        magic, flags, command, cookie, offset, length = wire.REQUEST.unpack_from(self._data, at)
        if magic != wire.REQUEST_MAGIC:
            raise RemoteProtocolError(f"{magic:#010x} where a request begins")
        if command != wire.WRITE:
            self._at = behind
            return _new(Request, (command, flags, cookie, offset, length, None))
        end = behind + length
        if end <= self._end:
            self._at = end
            payload = memoryview(self._data)[behind:end]
            return _new(Request, (command, flags, cookie, offset, length, payload))
        if length > wire.PAYLOAD_MAX:
            raise RemoteProtocolError(f"a write of {length} bytes > {wire.PAYLOAD_MAX}")
        if end - self._end >= STRAIGHT:
            self.large = Request(command, flags, cookie, offset, length, None)
            self.begun = bytes(memoryview(self._data)[behind : self._end])
            self._at = self._end
        return None

    def filled(self) -> None:
        """Say that the large payload is complete."""
        self.large = None
        self.begun = b""

    def settle(self) -> None:
        """Keep a copy of what is not cut yet: the buffer that was fed is used again."""
        if self._lent:
            self._data = bytes(memoryview(self._data)[self._at : self._end])
            self._at, self._end = 0, len(self._data)
            self._lent = False
