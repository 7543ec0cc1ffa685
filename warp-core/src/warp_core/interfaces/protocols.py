"""Protocols: serve a view of the namespace to clients until cancelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class ProtocolCapabilities:
    """What a protocol claims."""

    view: str = "objects"  # objects, files or blocks
    authenticated: bool = True
    tls: bool = False


class Protocol(ABC):
    """One protocol of one node. Entering opens the listening sockets, leaving drains them."""

    capabilities: ProtocolCapabilities
    endpoint: str = ""  # a URL with the port that was bound, known once entered

    def attach(self, volume: str, path: bytes) -> str:
        """Return what a client is told to get at a disk, for `warp disk`; "" if the protocol does not export it."""
        return ""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Bind and accept connections.

        Raises:
            AlreadyRunning: The address is taken; the message says by whom to ask.
        """

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop accepting, let requests in flight finish within the drain time, close."""
