"""Views of one volume and no other, for peers that may have no more: clients that mount it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from warp_core.errors import PermissionDenied, ReadOnly
from warp_core.forward.held import Views
from warp_core.forward.verbs import Verb, asking
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner, Range
from warp_core.namespace.shares import Access
from warp_core.views.blocks import Blocks
from warp_core.views.claims import LOCK_END, Claims, Tell
from warp_core.views.files import Files, Ref
from warp_core.views.objects import Objects

CHANGING: Final = frozenset(
    {
        "mkdir",
        "rmdir",
        "unlink",
        "rename",
        "link",
        "symlink",
        "mknod",
        "create",
        "create_unnamed",
        "setattr",
        "set_xattr",
        "clone",
    }
)
LOOKING: Final = frozenset(
    {
        "number",
        "root",
        "lookup",
        "walk",
        "parent",
        "readdir",
        "readlink",
        "open",
        "getattr",
        "access",
        "xattr",
        "xattrs",
        "statfs",
        "sync",
    }
)


def confined(files: Files, volume: str, *, read_only: bool) -> Views:
    """Return the views of a peer that may use the files of one volume, all callers of which it answers for."""
    return Views(_NoObjects(), ConfinedFiles(files, volume, read_only=read_only), _NoBlocks())


class _Nothing:
    async def _ask(self, verb: Verb, args: Sequence[object], named: Mapping[str, object]) -> Any:
        raise PermissionDenied(f"{verb.name} is not for clients that mount a volume")


@asking("objects")
class _NoObjects(_Nothing, Objects):
    pass


@asking("blocks")
class _NoBlocks(_Nothing, Blocks):
    pass


@asking("files")
class ConfinedFiles(Files):
    """Files of one volume."""

    def __init__(self, files: Files, volume: str, *, read_only: bool) -> None:
        """Take the view of all volumes."""
        self._files = files
        self._volume = volume
        self._read_only = read_only
        self._confined = ConfinedClaims(files.claims, self._demand)

    @property
    def claims(self) -> Claims:
        """As `Files.claims`."""
        return self._confined

    def _demand(self, *values: object) -> None:
        for value in values:
            if isinstance(value, Ref) and value.volume != self._volume:
                raise PermissionDenied(f"volume {value.volume!r} is not the one that is mounted")

    async def _ask(self, verb: Verb, args: Sequence[object], named: Mapping[str, object]) -> Any:
        given = dict(zip(verb.parameters, args, strict=False)) | dict(named)
        if given.get("volume", self._volume) != self._volume:
            raise PermissionDenied(f"volume {given['volume']!r} is not the one that is mounted")
        self._demand(*given.values())
        if verb.method not in LOOKING and (self._read_only or verb.method not in CHANGING):
            raise ReadOnly(f"volume {self._volume!r} is mounted read only")
        if self._read_only and verb.method == "open":
            access = given["access"]
            assert isinstance(access, Access)
            if access & Access.WRITE or given.get("truncate"):
                raise ReadOnly(f"volume {self._volume!r} is mounted read only")
        return await getattr(self._files, verb.method)(*args, **named)


class ConfinedClaims(Claims):
    """Claims on files of one volume. A session knows its own clients."""

    def __init__(self, claims: Claims, demand: Callable[..., None]) -> None:
        """Take the claims of all volumes, and what refuses a file of another."""
        self._claims = claims
        self._demand = demand

    async def add_client(
        self,
        name: str,
        *,
        ttl_s: float | None = None,
        tell: Tell | None = None,
        gone: Callable[[], None] | None = None,
    ) -> int:
        """As `Claims.add_client`."""
        return await self._claims.add_client(name, ttl_s=ttl_s, tell=tell, gone=gone)

    async def renew(self, client: int) -> None:
        """As `Claims.renew`."""
        await self._claims.renew(client)

    async def drop_client(self, client: int) -> None:
        """As `Claims.drop_client`."""
        await self._claims.drop_client(client)

    async def lock(
        self,
        file: Ref,
        owner: Owner,
        start: int,
        end: int,
        *,
        exclusive: bool,
        wait: bool = False,
        cacher: Owner | None = None,
        reclaim: bool = False,
    ) -> None:
        """As `Claims.lock`."""
        self._demand(file)
        await self._claims.lock(
            file,
            owner,
            start,
            end,
            exclusive=exclusive,
            wait=wait,
            cacher=cacher,
            reclaim=reclaim,
        )

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """As `Claims.test_lock`."""
        self._demand(file)
        return await self._claims.test_lock(file, owner, start, end, exclusive=exclusive)

    async def unlock(self, file: Ref, owner: Owner, start: int = 0, end: int = LOCK_END) -> None:
        """As `Claims.unlock`."""
        self._demand(file)
        await self._claims.unlock(file, owner, start, end)

    async def unlock_all(self, file: Ref, owner: Owner) -> None:
        """As `Claims.unlock_all`."""
        self._demand(file)
        await self._claims.unlock_all(file, owner)

    async def lease(
        self,
        file: Ref,
        owner: Owner,
        kinds: Kind,
        *,
        reclaim: bool = False,
        beside_writers: bool = False,
    ) -> Kind:
        """As `Claims.lease`."""
        self._demand(file)
        return await self._claims.lease(
            file, owner, kinds, reclaim=reclaim, beside_writers=beside_writers
        )

    async def give_back(self, file: Ref, owner: Owner, keep: Kind | None = None) -> None:
        """As `Claims.give_back`."""
        self._demand(file)
        await self._claims.give_back(file, owner, keep)

    async def reclaimed(self, volume: str, client: int) -> None:
        """As `Claims.reclaimed`: mounts reclaim nothing.

        Raises:
            PermissionDenied: Always.
        """
        raise PermissionDenied("clients that mount a volume reclaim nothing")
