"""The protocol's shell: mounts when it is entered and when it is asked to, unmounts when it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from warp_core import logs
from warp_core.contexts import ProtocolContext
from warp_core.errors import AlreadyExists, ConfigError, NotFound, VolumeNotFound, WarpError
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.protocols import Mounted, Mounter, ProtocolCapabilities
from warp_core.namespace.principals import name_of

from warp_fuse import kept
from warp_fuse.config import Config
from warp_fuse.mount import Mount, Wanted

KEY: Final = "protocols.fuse"
CONFIGURED: Final = "configuration"
KEPT: Final = "kept"
MOUNTS_MAX: Final = 1_024  # each has a descriptor, threads, and a client at its volume's home

LOCAL: Final = Principal(name=name_of(0), admin=True)
"""Who owns volumes that a mount of the configuration makes: this machine's root."""

_log = logs.get("warp_fuse")


class Server(Mounter):
    """The mounts of the configuration, and those that were asked for."""

    capabilities = ProtocolCapabilities(view="files", authenticated=False)

    def __init__(self, config: Config, context: ProtocolContext) -> None:
        """Prepare; nothing is mounted yet."""
        self._config = config
        self._context = context
        self._mounts: dict[Path, Mount] = {}
        self._turn = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()
        self._why = ""

    async def __aenter__(self) -> Self:
        """Mount everything that the configuration names, or nothing; and what was kept, as far as that can be.

        Raises:
            ConfigError: One cannot be mounted; says which and why.
        """
        try:
            for place, volume in self._config.mounts.items():
                await self._made(volume)
                await self._open(volume, Path(place), self._config.read_only, CONFIGURED)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        for place, each in kept.read(self._context.data).items():
            if Path(place) in self._mounts:
                continue
            try:
                await self._open(each.volume, Path(place), each.read_only, KEPT)
            except WarpError as error:
                _log.error("a mount that was kept is not made", directory=place, error=str(error))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unmount everything."""
        async with self._turn:
            while self._mounts:
                _, mount = self._mounts.popitem()
                await mount.close(self._context.drain_s)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def mount(
        self, volume: str, directory: Path, *, read_only: bool = False, keep: bool = False
    ) -> None:
        """See `Mounter.mount`."""
        await self._open(
            volume, directory, read_only or self._config.read_only, KEPT if keep else ""
        )
        if keep:
            known = kept.read(self._context.data)
            known[str(directory)] = kept.Kept(volume, read_only)
            kept.write(self._context.data, known)

    async def unmount(self, directory: Path) -> None:
        """See `Mounter.unmount`."""
        async with self._turn:
            mount = self._mounts.pop(directory, None)
            if mount is not None:
                await mount.close(self._context.drain_s)
        known = kept.read(self._context.data)
        was_kept = known.pop(str(directory), None) is not None
        if was_kept:
            kept.write(self._context.data, known)
        if mount is None and not was_kept:
            raise NotFound(f"this node has nothing mounted on {directory}")
        self._tell("")

    def mounted(self) -> Sequence[Mounted]:
        """See `Mounter.mounted`."""
        return [
            Mounted(place, each.wanted.volume, each.wanted.read_only, each.wanted.origin)
            for place, each in sorted(self._mounts.items())
        ]

    async def emptied(self) -> str:
        """See `Mounter.emptied`."""
        await self._emptied.wait()
        return self._why

    async def _made(self, volume: str) -> None:
        """Make a volume of the configuration that is missing."""
        try:
            await self._context.files.root(volume)
        except VolumeNotFound:
            await self._context.objects.create_volume(volume, owner=LOCAL)
            _log.info("volume made", volume=volume)

    async def _open(self, volume: str, directory: Path, read_only: bool, origin: str) -> None:
        if not directory.is_absolute():
            raise ConfigError(f"{KEY}.mounts: {directory} has to be an absolute path")
        wanted = Wanted(
            volume, directory, read_only, f"fuse {self._context.node} {directory}", origin
        )
        async with self._turn:
            if directory in self._mounts:
                there = self._mounts[directory].wanted.volume
                raise AlreadyExists(f"volume {there!r} is mounted on {directory}")
            if len(self._mounts) >= MOUNTS_MAX:
                raise ConfigError(f"{MOUNTS_MAX} volumes are mounted")
            mount = await Mount.open(
                self._context.files,
                self._config,
                wanted,
                lambda why: self._ended(directory, why),
            )
            self._mounts[directory] = mount
        self._tell("")

    def _ended(self, directory: Path, why: str) -> None:
        """Hear that a mount ended by itself."""
        if why:
            _log.error("a mount is given up", directory=str(directory), reason=why)
        task = asyncio.create_task(self._drop(directory, why))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _drop(self, directory: Path, why: str) -> None:
        async with self._turn:
            mount = self._mounts.pop(directory, None)
            if mount is not None:
                await mount.close(0.0 if why else self._context.drain_s)
        self._tell(why)

    def _tell(self, why: str) -> None:
        """Say where mounts are, and whether there are any."""
        self.endpoint = " ".join(f"file://{place}" for place in self._mounts)
        if self._mounts:
            self._emptied.clear()
        else:
            self._why = why
            self._emptied.set()
