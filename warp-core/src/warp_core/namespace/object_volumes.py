"""The volumes of the Objects view: made, described, listed, told what they keep, deleted."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from warp_core.errors import InvalidArgument, NotEmpty
from warp_core.interfaces.auth import Principal
from warp_core.metadata import Transaction
from warp_core.namespace import keys
from warp_core.namespace.listing import list_names, list_versions
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.retention import check_lock
from warp_core.namespace.rows import DIRECTORY, VolumeRow, decode_name
from warp_core.namespace.tree import Volume, VolumeTransaction
from warp_core.views.objects import (
    Listing,
    Objects,
    Versioning,
    VersionListing,
    VolumeInfo,
    VolumeLock,
)

INFOS_MAX = 4096  # volumes whose description is remembered, which every request asks for: about 500 bytes each


class ObjectVolumes(Objects):
    """The part of `Objects` that is about volumes and what is in them."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._volumes = namespace.volumes
        self._infos: dict[str, tuple[Volume, Mapping[str, bytes], VolumeInfo]] = {}

    async def _settled(self) -> None:
        """Return when what files did so far is durable: nothing else is told here, and nothing of it may be missing."""
        if self._namespace.store.unsettled:
            await self._namespace.store.settle()

    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        """See `Objects.create_volume`."""
        if not locked:
            return await self._volume_info(await self._volumes.create(name, owner=owner.name))
        await self._namespace.lock_clock.start()
        made = await self._volumes.create(
            name, owner=owner.name, versioning="on", lock=VolumeLock()
        )
        return await self._volume_info(made)

    async def delete_volume(self, name: str) -> None:
        """See `Objects.delete_volume`."""

        async def may_go(tx: VolumeTransaction) -> None:
            for start, end in (keys.names_of(keys.ROOT), keys.versions_of(keys.ROOT)):
                found = await tx.scan(start, end, limit=1)
                if found and decode_name(found[0][1]).kind == DIRECTORY:
                    raise NotEmpty(
                        f"volume {name!r} has a directory that was made over a file protocol:"
                        " remove it there"
                    )
                if found:
                    raise NotEmpty(f"volume {name!r} is not empty")

        number = (await self._volumes.get(name)).number
        await self._volumes.delete(name, may_go)
        self._namespace.quotas.forget(number)

    async def volume(self, name: str) -> VolumeInfo:
        """See `Objects.volume`."""
        return self.volume_now(name) or await self._volume_info(await self._volumes.get(name))

    def volume_now(self, name: str) -> VolumeInfo | None:
        """See `Objects.volume_now`."""
        volume = self._volumes.known(name)
        documents = self._volumes.documents_now(volume) if volume is not None else None
        if volume is None or documents is None:
            return None
        known = self._infos.get(name)
        if known is not None and known[0] is volume and known[1] is documents:
            return known[2]
        if len(self._infos) >= INFOS_MAX:
            self._infos.clear()
        info = volume_info(volume, documents)
        self._infos[name] = volume, documents, info
        return info

    async def volumes(self) -> list[VolumeInfo]:
        """See `Objects.volumes`."""
        return [await self._volume_info(volume) for volume in await self._volumes.all()]

    async def set_versioning(self, volume: str, state: Versioning) -> None:
        """See `Objects.set_versioning`."""

        async def change(row: VolumeRow, _: Transaction) -> VolumeRow:
            if state == "off" and row.versioning != "off":
                raise InvalidArgument(f"volume {volume!r} had versioning: it can be suspended only")
            if state != "on" and row.lock is not None:
                raise InvalidArgument(f"volume {volume!r} has object lock: versioning stays on")
            return msgspec.structs.replace(row, versioning=state)

        await self._volumes.writable(volume)
        await self._volumes.update(volume, change)

    async def set_lock(self, volume: str, lock: VolumeLock) -> None:
        """See `Objects.set_lock`."""
        check_lock(lock)

        async def change(row: VolumeRow, _: Transaction) -> VolumeRow:
            if row.versioning != "on":
                raise InvalidArgument(f"volume {volume!r} needs versioning for object lock")
            return msgspec.structs.replace(row, lock=lock)

        await self._volumes.writable(volume)
        await self._namespace.lock_clock.start()
        await self._volumes.update(volume, change)

    async def set_document(self, volume: str, name: str, document: bytes | None) -> None:
        """See `Objects.set_document`."""
        await self._volumes.writable(volume)
        await self._volumes.set_document(volume, name, document)

    async def _volume_info(self, volume: Volume) -> VolumeInfo:
        return volume_info(volume, await self._volumes.documents(volume))

    # Listing --------------------------------------------------------------------------------------

    async def list(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        limit: int = 1000,
    ) -> Listing:
        """See `Objects.list`."""
        await self._settled()
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        view = self._namespace.store.view()
        try:
            return await list_names(
                found, view, prefix, delimiter, after, limit, self._namespace.apart
            )
        finally:
            view.close()

    async def list_versions(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        version_marker: str = "",
        limit: int = 1000,
    ) -> VersionListing:
        """See `Objects.list_versions`."""
        await self._settled()
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        view = self._namespace.store.view()
        try:
            return await list_versions(
                found,
                view,
                prefix,
                delimiter,
                key_marker,
                version_marker,
                limit,
                self._namespace.apart,
            )
        finally:
            view.close()


def volume_info(volume: Volume, documents: Mapping[str, bytes]) -> VolumeInfo:
    """Return what is told of a volume with these documents."""
    row = volume.row
    return VolumeInfo(
        name=row.name,
        created_ns=row.created_ns,
        owner=row.owner,
        versioning=row.versioning,  # type: ignore[arg-type]
        tags=row.tags,
        documents=documents,
        lock=row.lock,
    )
