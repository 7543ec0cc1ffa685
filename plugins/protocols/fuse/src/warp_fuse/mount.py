"""One volume on one directory: its parts put together, and taken apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warp_core import logs
from warp_core.views.claims import LocalClaims
from warp_core.views.files import Files

from warp_fuse import mounting
from warp_fuse.caching import Cache
from warp_fuse.config import Config
from warp_fuse.connection import Connection
from warp_fuse.nodes import Nodes
from warp_fuse.tether import Tether
from warp_fuse.verbs import Verbs

_log = logs.get("warp_fuse")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be mounted where. `name` is what the mount calls itself, the same after a restart."""

    volume: str
    directory: Path
    read_only: bool
    name: str
    origin: str


class Mount:
    """A mount that is served."""

    def __init__(
        self, wanted: Wanted, connection: Connection, verbs: Verbs, cache: Cache, tether: Tether
    ) -> None:
        self.wanted = wanted
        self.closing = False
        self._connection = connection
        self._verbs = verbs
        self._cache = cache
        self._tether = tether

    @classmethod
    async def open(
        cls, files: Files, config: Config, wanted: Wanted, ended: Callable[[str], None]
    ) -> Mount:
        """Mount; `ended` is told why if it ends by itself.

        Raises:
            ConfigError: It cannot be mounted there.
            VolumeNotFound
        """
        volume, directory = wanted.volume, wanted.directory
        files = files.ordered if config.names == "ordered" else files
        root = await files.root(volume)
        number = await files.number(volume)
        nodes = Nodes(root)
        connection: Connection | None = None

        async def notify(message: bytes) -> None:
            if connection is not None:
                await connection.notify(message)

        def unmounted() -> None:
            if mount.closing:
                return
            _log.info("unmounted by somebody else", volume=volume, directory=str(directory))
            ended("")

        def gave_up() -> None:
            ended(f"the node was away for longer than {float(config.give_up):g} s")

        cache = Cache(
            files.claims,
            nodes,
            notify,
            seconds=float(config.cached),
            wait_s=float(config.recall_wait),
        )
        tether = Tether(
            remote=not isinstance(files.claims, LocalClaims),
            patience_s=float(config.patience),
            give_up_s=float(config.give_up),
            gave_up=gave_up,
        )
        verbs = Verbs(files, root, number, nodes, cache, tether)

        async def leave() -> None:
            verbs.parted()
            await cache.lost()

        async def enter() -> None:
            await cache.begin(wanted.name, tether.gone)
            await verbs.reopen()

        tether.leave, tether.enter = leave, enter
        await cache.begin(wanted.name, tether.gone)
        try:
            descriptor = await asyncio.to_thread(
                mounting.mount,
                volume,
                directory,
                allow_other=config.allow_other,
                read_only=wanted.read_only,
            )
        except BaseException:
            await tether.close()
            await cache.end()
            raise
        connection = Connection(descriptor, verbs.handlers, verbs.forget, unmounted, verbs.agree)
        mount = cls(wanted, connection, verbs, cache, tether)
        return mount

    async def close(self, within_s: float) -> None:
        """Unmount; what was asked before is answered, as far as `within_s` allows."""
        self.closing = True
        if self._connection.open:  # else what is mounted there now is somebody else's
            # Other threads: the kernel sends a last request of its own, which this loop has to answer.
            await asyncio.to_thread(mounting.unmount, self.wanted.directory)
        await self._tether.close()
        await self._connection.drained(within_s)
        await self._connection.close()
        await self._verbs.close()
        await self._cache.end()
