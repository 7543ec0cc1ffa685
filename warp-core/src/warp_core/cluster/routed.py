"""The views of a whole cluster: each verb goes to the home of its volume.

A protocol sees one Objects, one Files and one Blocks, wherever the volumes are. What is at home in this process is one
dictionary lookup away from what it is without a cluster.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from warp_core.cluster import directory
from warp_core.cluster.claims import RoutedClaims
from warp_core.cluster.router import Router
from warp_core.errors import (
    AlreadyExists,
    CrossesVolumes,
    Unavailable,
    VolumeNotFound,
    WarpError,
)
from warp_core.forward import Views
from warp_core.forward.verbs import OF
from warp_core.interfaces.auth import Principal
from warp_core.logs import get
from warp_core.namespace.locks import Owner
from warp_core.views.blocks import Blocks, DiskInfo
from warp_core.views.claims import Claims
from warp_core.views.files import ROOT, Caller, FileInfo, Files, Ref, Rename
from warp_core.views.objects import (
    ALWAYS,
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    Objects,
    PartInfo,
    Reader,
    Sealing,
    VolumeInfo,
    Writer,
)
from warp_core.views.origin import Origin

_log = get("warp_core.cluster")

COPY_STEP = 1 << 20
LISTING_PATIENCE_S = (
    1.0  # a listing of volumes has something to say without the home that it waits for
)
# Verbs that may be done twice.
READING = frozenset(
    {
        "objects.volume",
        "objects.head",
        "objects.readable",
        "objects.open",
        "objects.list",
        "objects.list_versions",
        "objects.upload",
        "objects.list_parts",
        "objects.list_uploads",
        "files.number",
        "files.root",
        "files.lookup",
        "files.walk",
        "files.parent",
        "files.readdir",
        "files.readlink",
        "files.getattr",
        "files.access",
        "files.xattrs",
        "files.xattr",
        "files.statfs",
        "blocks.open",  # one without an answer ended with the session that asked
        "blocks.show",
        "blocks.snapshots",
    }
)

K = TypeVar("K")


def routing(view: str, *, but: Sequence[str] = ()) -> Callable[[type[K]], type[K]]:
    """Give a class all verbs of a view but those that it has itself: each goes where the volume of its first argument is."""

    def give(kind: type[K]) -> type[K]:
        for method in OF[view][1]:
            if method not in but:
                setattr(kind, method, _method(view, method))
        return kind

    return give


def _method(view: str, method: str) -> Callable[..., Awaitable[Any]]:
    changes = f"{view}.{method}" not in READING

    async def routed(self: Any, *args: Any, **named: Any) -> Any:
        first = args[0] if args else next(iter(named.values()))
        volume: str = first.volume if isinstance(first, Ref) else first

        async def verb(views: Views) -> Any:
            given, keywords = await self._for(views, args, named)
            return await getattr(getattr(views, view), method)(*given, **keywords)

        return await self._router.do(volume, verb, changes=changes)

    routed.__name__ = method
    routed.__doc__ = f"As the view's `{method}`, at the volume's home."
    return routed


async def _as_given(
    views: Views, args: Sequence[Any], named: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return arguments unchanged: nothing in them depends on the home."""
    return args, named


@routing("objects", but=("create_volume", "delete_volume", "volumes", "copy", "copy_part"))
class RoutedObjects(Objects):
    """Objects of all volumes of the cluster."""

    _for = staticmethod(_as_given)

    def __init__(self, router: Router) -> None:
        """Take the router."""
        self._router = router

    def volume_now(self, name: str) -> VolumeInfo | None:
        """As `Objects.volume_now`, where the home is here."""
        stack = self._router.local_now(name)
        return None if stack is None else stack.objects.volume_now(name)

    def head_now(self, volume: str, key: bytes) -> ObjectInfo | None:
        """As `Objects.head_now`, where the home is here."""
        stack = self._router.local_now(volume)
        return None if stack is None else stack.objects.head_now(volume, key)

    def open_now(self, volume: str, key: bytes) -> Reader | None:
        """As `Objects.open_now`, where the home is here."""
        stack = self._router.local_now(volume)
        return None if stack is None else stack.objects.open_now(volume, key)

    async def volumes(self) -> Sequence[VolumeInfo]:
        """As `Objects.volumes`, of all domains; those that are not at home anywhere now are as their rows say.

        Raises:
            Unavailable: Nobody can be asked.
        """
        answers = await self._router.each(
            lambda views: views.objects.volumes(), patience_s=LISTING_PATIENCE_S
        )
        found: list[VolumeInfo] = []
        for domain, answer in answers.items():
            if isinstance(answer, Unavailable):
                found += await self._router.homes.at_rest(domain).infos()
            else:
                found += answer
        return sorted(found, key=lambda each: each.name)

    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        """As `Objects.create_volume`, in the domain of this node unless another has the name.

        Raises:
            Unavailable: This node keeps no volumes (a witness), or its domain has no home now.
        """
        router, homes = self._router, self._router.homes
        if homes.own < 0 and await homes.domain_of(name, fresh=True) is None:
            raise Unavailable(f"volume {name!r} cannot be made here: this node keeps none")
        domain = await directory.claim(homes.shared, name, max(homes.own, 0))
        router.forget(name)
        views, _ = await router.views(domain)
        try:
            made = await views.objects.create_volume(name, owner=owner, locked=locked)
        except AlreadyExists:
            raise
        except WarpError:
            await self._disclaim(name, views)
            raise
        if await directory.claim(homes.shared, name, domain) != domain:
            # It was deleted and made elsewhere while it was made here: theirs is the one that others know.
            await views.objects.delete_volume(name)
            raise AlreadyExists(f"volume {name!r} was made by another node at the same time")
        return made

    async def delete_volume(self, name: str) -> None:
        """As `Objects.delete_volume`; the name is free for all domains afterwards."""
        shared = self._router.homes.shared
        domain, version = await directory.look_up(shared, name)
        if domain is None:
            raise VolumeNotFound(f"no volume {name!r}")
        views, _ = await self._router.views(domain)
        try:
            await views.objects.delete_volume(name)
        except VolumeNotFound:  # a claim that a crash left
            await directory.give_up(shared, name, version)
            self._router.forget(name)
            raise
        await directory.give_up(shared, name, version)
        self._router.forget(name)

    async def _disclaim(self, name: str, views: Views) -> None:
        """Give up a claim if its domain has no volume of that name; harmless where that cannot be found out."""
        shared = self._router.homes.shared
        try:
            _, version = await directory.look_up(shared, name)
            await views.objects.volume(name)
        except VolumeNotFound:
            await directory.give_up(shared, name, version)
        except WarpError:
            pass
        self._router.forget(name)

    async def copy(
        self,
        source_volume: str,
        source_key: bytes,
        volume: str,
        key: bytes,
        *,
        source_version: str = "",
        attributes: Attributes | None = None,
        digests: Digests | None = None,
        condition: Condition = ALWAYS,
        source_secret: bytes = b"",
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """As `Objects.copy`; between domains the bytes are read and written, since they have no chunks in common."""
        if await self._together(source_volume, volume):
            return await self._router.do(
                volume,
                lambda views: views.objects.copy(
                    source_volume,
                    source_key,
                    volume,
                    key,
                    source_version=source_version,
                    attributes=attributes,
                    digests=digests,
                    condition=condition,
                    source_secret=source_secret,
                    sealing=sealing,
                    origin=origin,
                ),
            )
        reader = await self.open(
            source_volume, source_key, version=source_version, secret=source_secret
        )
        try:
            info = reader.info
            writer = await self.writer(
                volume,
                key,
                info.attributes if attributes is None else attributes,
                condition=condition,
                size=info.size,
                sealing=sealing,
                origin=origin,
            )
            return await self._copied(reader, writer, 0, info.size, digests or _digests_of(info))
        finally:
            reader.close()

    async def copy_part(
        self,
        source_volume: str,
        source_key: bytes,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        *,
        source_version: str = "",
        offset: int = 0,
        length: int | None = None,
        digests: Digests | None = None,
        source_secret: bytes = b"",
        secret: bytes = b"",
    ) -> PartInfo:
        """As `Objects.copy_part`; between domains as `copy`."""
        if await self._together(source_volume, volume):
            return await self._router.do(
                volume,
                lambda views: views.objects.copy_part(
                    source_volume,
                    source_key,
                    volume,
                    key,
                    upload,
                    number,
                    source_version=source_version,
                    offset=offset,
                    length=length,
                    digests=digests,
                    source_secret=source_secret,
                    secret=secret,
                ),
            )
        reader = await self.open(
            source_volume, source_key, version=source_version, secret=source_secret
        )
        try:
            end = reader.info.size if length is None else min(reader.info.size, offset + length)
            size = max(0, end - offset)
            writer = await self.part_writer(volume, key, upload, number, size=size, secret=secret)
            opaque = Digests(etag=hashlib.blake2b(os.urandom(16), digest_size=16).hexdigest())
            made = await self._copied(reader, writer, offset, size, digests or opaque)
        finally:
            reader.close()
        return PartInfo(
            number=number,
            size=made.size,
            etag=made.etag,
            modified_ns=made.modified_ns,
            checksums=made.checksums,
        )

    async def _together(self, one: str, other: str) -> bool:
        return one == other or (
            await self._router.domain_of(one) == await self._router.domain_of(other)
        )

    async def _copied(
        self, reader: Reader, writer: Writer, offset: int, size: int, digests: Digests
    ) -> ObjectInfo:
        """Write a range of an open object, and commit it."""
        try:
            end = offset + size
            while offset < end:
                data = await reader.read(offset, min(COPY_STEP, end - offset))
                await writer.write(data)
                offset += len(data)
            return await writer.commit(digests)
        except BaseException:
            await writer.abort()
            raise


def _digests_of(info: ObjectInfo) -> Digests:
    return Digests(
        etag=info.etag,
        checksums=info.checksums,
        checksum_type=info.checksum_type,  # type: ignore[arg-type] # it came from Digests
    )


@routing("files", but=("rename", "link", "clone"))
class RoutedFiles(Files):
    """Files of all volumes of the cluster."""

    def __init__(self, router: Router) -> None:
        """Take the router."""
        self._router = router
        self._claims = RoutedClaims(router)

    @property
    def claims(self) -> Claims:
        """As `Files.claims`: each at the home of its file's volume."""
        return self._claims

    async def _for(
        self, views: Views, args: Sequence[Any], named: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return arguments with owners as the home knows them."""
        if not any(isinstance(each, Owner) for each in (*args, *named.values())):
            return args, named
        claims = self._claims
        return (
            [await claims.owner_at(views, each) for each in args],
            {name: await claims.owner_at(views, each) for name, each in named.items()},
        )

    async def rename(
        self,
        source: Ref,
        source_name: bytes,
        target: Ref,
        target_name: bytes,
        caller: Caller = ROOT,
        *,
        how: Rename = Rename.REPLACE,
        by: Owner | None = None,
    ) -> None:
        """As `Files.rename`."""
        _demand_one(source, target)

        async def verb(views: Views) -> None:
            owner = await self._claims.owner_at(views, by)
            await views.files.rename(
                source, source_name, target, target_name, caller, how=how, by=owner
            )

        await self._router.do(source.volume, verb)

    async def link(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """As `Files.link`."""
        _demand_one(file, directory)

        async def verb(views: Views) -> FileInfo:
            owner = await self._claims.owner_at(views, by)
            return await views.files.link(file, directory, name, caller, by=owner)

        return await self._router.do(file.volume, verb)

    async def clone(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        replace: bool = False,
    ) -> FileInfo:
        """As `Files.clone`."""
        _demand_one(file, directory)
        return await self._router.do(
            file.volume,
            lambda views: views.files.clone(file, directory, name, caller, replace=replace),
        )


def _demand_one(one: Ref, other: Ref) -> None:
    if one.volume != other.volume:
        raise CrossesVolumes(f"from volume {one.volume!r} to {other.volume!r}")


@routing("blocks", but=("disks",))
class RoutedBlocks(Blocks):
    """Disks of all volumes of the cluster."""

    _for = staticmethod(_as_given)

    def __init__(self, router: Router) -> None:
        """Take the router."""
        self._router = router

    async def disks(self, volume: str = "") -> list[DiskInfo]:
        """As `Blocks.disks`, of all domains; those that are not at home anywhere now are as their rows say."""
        if volume:
            return await self._router.do(
                volume, lambda views: views.blocks.disks(volume), changes=False
            )
        found: list[DiskInfo] = []
        answers = await self._router.each(
            lambda views: views.blocks.disks(), patience_s=LISTING_PATIENCE_S
        )
        for domain, answer in answers.items():
            if isinstance(answer, Unavailable):
                _log.warning("disks are listed by their rows", domain=domain, reason=str(answer))
                found += await self._router.homes.at_rest(domain).disks()
            else:
                found += answer
        return sorted(found, key=lambda each: (each.volume, each.path))
