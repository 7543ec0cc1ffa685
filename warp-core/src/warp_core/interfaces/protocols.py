"""Protocols: serve a view of the namespace to clients until cancelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume that is a directory of this machine."""

    directory: Path
    volume: str
    read_only: bool
    origin: str  # "configuration", "kept", or "" where the next start does not mount it again


class Mounter(Protocol):
    """A protocol that makes directories of this machine of volumes, also while it runs."""

    @abstractmethod
    async def mount(
        self, volume: str, directory: Path, *, read_only: bool = False, keep: bool = False
    ) -> None:
        """Mount a volume; with `keep`, the next start does so as well.

        Raises:
            ConfigError: It cannot be mounted there; says why and what to do.
            AlreadyExists: Something of ours is mounted there.
            VolumeNotFound
        """

    @abstractmethod
    async def unmount(self, directory: Path) -> None:
        """Take a mount away; the next start does not mount it again unless the configuration says so.

        Raises:
            NotFound: Nothing of ours is mounted there.
        """

    @abstractmethod
    def mounted(self) -> Sequence[Mounted]:
        """Return what is mounted now."""

    @abstractmethod
    async def emptied(self) -> str:
        """Wait until nothing is mounted any more, and return why."""
