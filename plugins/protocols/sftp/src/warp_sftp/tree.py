"""What one login sees: a tree of the volumes that its account may use, or one directory, which no path leaves.

Above the volumes stands a directory that is nobody's file, the *top*. A path is walked name by name; `..` goes back the way that was
come, never above the root, and a symbolic link goes on from where it lies, or from the root if it begins with a slash. So a link can
lead to no place that its reader could not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

import msgspec
from warp_core.errors import (
    AlreadyExists,
    NotADirectory,
    NotFound,
    PermissionDenied,
    TooManyLinks,
    VolumeNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.namespace.principals import caller_of
from warp_core.views import Files, Objects
from warp_core.views.files import Caller, FileInfo, Ref
from warp_core.views.objects import VolumeInfo

from warp_sftp.config import Config

FOLLOWED_MAX: Final = 40
"""Symbolic links on one way, as Linux has it; more are taken for a loop."""

DEPTH_MAX: Final = 2048
"""Names on one way: as many as fit a path."""


class Top(NamedTuple):
    """The directory of volumes."""


TOP: Final = Top()
Directory = Ref | Top


class Found(NamedTuple):
    """Where a path leads: `info` is None where nothing is there yet; the top has no info either, and is its own parent."""

    parent: Directory
    name: bytes  # b"" for the root of what is seen
    info: FileInfo | None
    path: bytes  # without links and dots

    @property
    def is_top(self) -> bool:
        """Say whether it is the directory of volumes."""
        return not self.name and isinstance(self.parent, Top)


class Tree:
    """The tree of one login."""

    def __init__(
        self, files: Files, objects: Objects, principal: Principal, config: Config
    ) -> None:
        self._files = files
        self._objects = objects
        self._config = config
        self._names = frozenset((principal.name, *principal.aliases))
        self._accounts = tuple(name.removeprefix("account:") for name in self._names)
        self._admin = principal.admin
        self._plain = caller_of(principal)
        self._master = msgspec.structs.replace(self._plain, superuser=True)
        self._root: Directory = TOP
        self._home = ""  # the volume of a home

    @property
    def plain(self) -> Caller:
        """The account's numbers."""
        return self._plain

    async def enter(self, account: str) -> None:
        """Find the home, if the configuration says one.

        Raises:
            VolumeNotFound, NotADirectory
        """
        if not self._config.home:
            return
        home = self._config.home.replace("{account}", account)
        volume, _, path = home.strip("/").partition("/")
        at = await self._files.root(volume)
        for name in filter(None, path.encode().split(b"/")):
            try:
                info = await self._files.lookup(at, name)
            except NotFound:
                info = await self._make(at, name)
            if info.kind != "directory":
                raise NotADirectory(f"the home {home!r} is no directory")
            at = info.ref
        self._root, self._home = at, volume

    async def _make(self, above: Ref, name: bytes) -> FileInfo:
        try:
            return await self._files.mkdir(above, name, 0o700, self._master)
        except AlreadyExists:  # another login of the account made it
            return await self._files.lookup(above, name)

    # Volumes --------------------------------------------------------------------------------------

    async def volumes(self) -> Sequence[VolumeInfo]:
        """Return the volumes that the account finds."""
        return [each for each in await self._objects.volumes() if self._finds(each)]

    async def caller(self, volume: str) -> Caller:
        """Return as whom the account acts in a volume: its owner may do everything there, as over S3; for others modes decide.

        Raises:
            VolumeNotFound: Also where the account does not find it: there is no difference to be seen.
        """
        if volume == self._home:
            return self._master
        known = self._objects.volume_now(volume) or await self._objects.volume(volume)
        if self._owns(known):
            return self._master
        if self._is_shared(known):
            return self._plain
        raise VolumeNotFound(f"no volume {volume!r}")

    def _finds(self, volume: VolumeInfo) -> bool:
        return self._owns(volume) or self._is_shared(volume)

    def _owns(self, volume: VolumeInfo) -> bool:
        return self._admin or volume.owner in self._names

    def _is_shared(self, volume: VolumeInfo) -> bool:
        return any(
            fnmatchcase(volume.name, pattern)
            and any(fnmatchcase(name, each) for each in accounts for name in self._accounts)
            for pattern, accounts in self._config.shared.items()
        )

    # Paths ----------------------------------------------------------------------------------------

    async def find(self, path: bytes, *, follow: bool = True) -> Found:
        """Walk a path; its last name may be missing. Paths without a slash in front begin at the root as well.

        Raises:
            NotFound, NotADirectory, PermissionDenied: On the way.
            TooManyLinks: Links that lead in circles.
        """
        way: list[tuple[Directory, bytes]] = []  # directories below the root, with their names
        rest = _names(path)
        here, followed = self._root, 0
        last: Found | None = None
        while rest:
            name = rest.pop()
            if name == b"..":
                if way:
                    way.pop()
                here = way[-1][0] if way else self._root
                continue
            info = await self._step(here, name)
            if info is None:
                if rest:
                    raise NotFound(f"no directory {_shown(way, name)!r}")
                return Found(here, name, None, _path(way, name))
            if info.kind == "symlink" and (rest or follow):
                followed += 1
                if followed > FOLLOWED_MAX:
                    raise TooManyLinks(f"more than {FOLLOWED_MAX} symbolic links")
                target = await self._files.readlink(info.ref)
                if target.startswith(b"/"):
                    way.clear()
                    here = self._root
                rest += _names(target)
                if len(rest) > DEPTH_MAX:
                    raise TooManyLinks(f"a way of more than {DEPTH_MAX} names")
                continue
            if not rest:
                last = Found(here, name, info, _path(way, name))
                break
            if info.kind != "directory":
                raise NotADirectory(f"{_shown(way, name)!r} is no directory")
            here = info.ref
            way.append((here, name))
        return last or await self._standing(way)

    async def _standing(self, way: list[tuple[Directory, bytes]]) -> Found:
        """Return the directory that a way of dots ends in."""
        if not way:
            if isinstance(self._root, Top):
                return Found(TOP, b"", None, b"/")
            return Found(self._root, b"", await self._files.getattr(self._root), b"/")
        here, name = way[-1]
        assert isinstance(here, Ref)
        above = way[-2][0] if len(way) > 1 else self._root
        return Found(above, name, await self._files.getattr(here), _path(way[:-1], name))

    async def _step(self, here: Directory, name: bytes) -> FileInfo | None:
        if isinstance(here, Top):
            try:
                volume = name.decode()
                await self.caller(volume)
                return await self._files.getattr(await self._files.root(volume))
            except (UnicodeDecodeError, VolumeNotFound):
                return None
        try:
            return await self._files.lookup(here, name, await self.caller(here.volume))
        except NotFound:
            return None

    async def there(self, path: bytes, *, follow: bool = True) -> Found:
        """As `find`, of something that is there.

        Raises:
            NotFound
        """
        found = await self.find(path, follow=follow)
        if found.info is None and not found.is_top:
            raise NotFound(f"{path!r} is not there")
        return found

    async def place(self, path: bytes, *, follow: bool = False) -> tuple[Ref, bytes, Caller]:
        """Return directory, name and caller of a path whose last name is to be made, changed or removed.

        Raises:
            PermissionDenied: It is a volume, or the root.
        """
        found = await self.find(path, follow=follow)
        if isinstance(found.parent, Top) or not found.name:
            raise PermissionDenied(
                "volumes are made and removed with `warp volume`, or over S3, not here"
            )
        return found.parent, found.name, await self.caller(found.parent.volume)


def _names(path: bytes) -> list[bytes]:
    """Return the names of a path, last first, without those that mean nothing."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def _path(way: list[tuple[Directory, bytes]], name: bytes) -> bytes:
    return b"/" + b"/".join((*(each for _, each in way), name))


def _shown(way: list[tuple[Directory, bytes]], name: bytes) -> str:
    return _path(way, name).decode("utf-8", "replace")
