"""Transports: authenticated links between nodes that carry framed messages.

A message is a small header (msgspec-encoded by the caller) and a raw payload. The receiver names the buffer that the payload is
received into, so bulk data is copied once. Links are mutually authenticated; `peer` is the name that the certificate proved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from warp_core.interfaces.stores import Buffer

HEADER_MAX = 64 * 1024
PAYLOAD_MAX = 4 * 1024 * 1024  # so that a small message never waits behind more than this


class Message(NamedTuple):
    """One message as received; `payload` is what `allocate` returned, filled."""

    header: bytes
    payload: memoryview


Allocate = Callable[
    [bytes, int], memoryview
]  # (header, payload length) → writable buffer of that length


@dataclass(frozen=True, slots=True)
class TransportCapabilities:
    """What a transport claims."""

    authenticated: bool = False
    encrypted: bool = False
    remote: bool = True  # reaches other hosts
    migrates: bool = False  # a link survives a change of address


class Link(ABC):
    """One connection. Messages arrive whole and in order, or the link ends."""

    peer: str  # the authenticated name of the other side, "" where the transport proves none

    @abstractmethod
    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        """Send one message; returns when the buffers may be reused. Waits while the peer is slow.

        Raises:
            TooLarge: Beyond HEADER_MAX or PAYLOAD_MAX.
            Unavailable: The link ended.
        """

    @abstractmethod
    async def receive(self, allocate: Allocate | None = None) -> Message:
        """Return the next message.

        Raises:
            Unavailable: The link ended, at a message's border or not.
            RemoteProtocolError: The peer's framing is broken; the link is closed.
        """

    @abstractmethod
    async def close(self) -> None:
        """End the link; harmless when repeated."""


class Listener(ABC):
    """An address that accepts links until closed."""

    address: str  # as peers dial it, with the port that was bound

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting, end accepted links."""


class Transport(ABC):
    """A way between nodes. Open it with `async with`."""

    capabilities: TransportCapabilities

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        """Open a link; with `peer`, only to a node that proves this name.

        Raises:
            Unavailable: Nobody answers.
            Unauthenticated: The other side proved another name, or none.
            TimedOut: The deadline passed.
        """

    @abstractmethod
    async def listen(self, address: str, serve: Callable[[Link], Awaitable[None]]) -> Listener:
        """Accept links at `address`; each runs `serve` in a task of its own and is closed when that returns.

        Raises:
            AlreadyRunning: The address is taken.
        """
