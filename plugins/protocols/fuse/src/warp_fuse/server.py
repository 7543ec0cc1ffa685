"""The protocol's shell: mounts when it is entered, unmounts when it is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from warp_core import logs
from warp_core.contexts import ProtocolContext
from warp_core.errors import ConfigError, VolumeNotFound
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.protocols import Protocol, ProtocolCapabilities
from warp_core.namespace.principals import name_of

from warp_fuse import mounting
from warp_fuse.caching import Cache
from warp_fuse.config import Config
from warp_fuse.connection import Connection
from warp_fuse.nodes import Nodes
from warp_fuse.verbs import Verbs

KEY: Final = "protocols.fuse"

LOCAL: Final = Principal(name=name_of(0), admin=True)
"""Who owns volumes that a mount makes: this machine's root."""

_log = logs.get("warp_fuse")


class Mount:
    """One volume on one directory."""

    def __init__(
        self, volume: str, directory: Path, connection: Connection, verbs: Verbs, cache: Cache
    ) -> None:
        self.volume = volume
        self.directory = directory
        self._connection = connection
        self._verbs = verbs
        self._cache = cache

    async def close(self, within_s: float) -> None:
        """Unmount; what was asked before is answered, as far as `within_s` allows."""
        # Other threads: the kernel sends a last request of its own, which this loop has to answer.
        await asyncio.to_thread(mounting.unmount, self.directory)
        await self._connection.drained(within_s)
        await self._connection.close()
        await self._verbs.close()
        await self._cache.end()


class Server(Protocol):
    """The mounts of the configuration."""

    capabilities = ProtocolCapabilities(view="files", authenticated=False)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare; nothing is mounted yet."""
        self._config = config
        self._context = context
        self._mounts: list[Mount] = []

    async def __aenter__(self) -> Self:
        """Mount everything, or nothing.

        Raises:
            ConfigError: One cannot be mounted; says which and why.
        """
        try:
            for place, volume in self._config.mounts.items():
                self._mounts.append(await self._mount(volume, Path(place)))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        self.endpoint = " ".join(f"file://{mount.directory}" for mount in self._mounts)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unmount everything."""
        while self._mounts:
            await self._mounts.pop().close(self._context.drain_s)

    async def _mount(self, volume: str, directory: Path) -> Mount:
        config, files = self._config, self._context.files
        if not directory.is_absolute():
            raise ConfigError(f"{KEY}.mounts: {directory} has to be an absolute path")
        try:
            root = await files.root(volume)
        except VolumeNotFound:
            await self._context.objects.create_volume(volume, owner=LOCAL)
            _log.info("volume made", volume=volume)
            root = await files.root(volume)
        nodes = Nodes(root)
        connection: Connection | None = None

        async def notify(message: bytes) -> None:
            if connection is not None:
                await connection.notify(message)

        cache = Cache(
            files.claims,
            nodes,
            notify,
            seconds=float(config.cached),
            wait_s=float(config.recall_wait),
        )
        await cache.begin(f"fuse {self._context.node} {directory}")
        try:
            descriptor = await asyncio.to_thread(
                mounting.mount,
                volume,
                directory,
                allow_other=config.allow_other,
                read_only=config.read_only,
            )
        except BaseException:
            await cache.end()
            raise
        verbs = Verbs(files, root, nodes, cache)

        def ended() -> None:
            _log.info("unmounted by somebody else", volume=volume, directory=str(directory))

        connection = Connection(descriptor, verbs.handlers, verbs.forget, ended, verbs.agree)
        return Mount(volume, directory, connection, verbs, cache)
