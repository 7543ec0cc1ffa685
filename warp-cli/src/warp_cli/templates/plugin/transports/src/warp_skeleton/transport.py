"""The transport: authenticated links that carry framed messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from warp_core.contexts import TransportContext
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import (
    Allocate,
    Link,
    Listener,
    Message,
    Transport,
    TransportCapabilities,
)

from warp_skeleton.config import Config


class SkeletonLink(Link):
    """One connection."""

    peer = ""

    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        """Send one message; returns when the buffers may be reused.

        Raises:
            TooLarge: Beyond HEADER_MAX or PAYLOAD_MAX.
            Unavailable: The link ended.
        """
        raise NotImplementedError

    async def receive(self, allocate: Allocate | None = None) -> Message:
        """Return the next message; its payload is received into what `allocate` returns.

        Raises:
            Unavailable: The link ended.
            RemoteProtocolError: The peer broke the framing.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """End the link; harmless when repeated."""
        raise NotImplementedError


class Skeleton(Transport):
    """Say what it runs over, and how peers prove who they are."""

    capabilities = TransportCapabilities(authenticated=False, encrypted=False)

    def __init__(self, config: Config, context: TransportContext) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        """Open what links share."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""

    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        """Open a link; with `peer`, only to a node that proves this name.

        Raises:
            Unavailable: Nobody answers in time.
            Unauthenticated: Somebody else does.
        """
        raise NotImplementedError

    async def listen(self, address: str, serve: Callable[[Link], Awaitable[None]]) -> Listener:
        """Accept links; each runs `serve` in a task of its own and is closed when that returns.

        Raises:
            AlreadyRunning: The address is taken.
        """
        raise NotImplementedError
