"""What can be told of a domain that has no home now: its rows are in the engine, and any node may read them.

Volumes and disks are as the last home committed them, so everything that was acknowledged is there. What only a home has in memory
is not: how much of a disk was written since its rows were last brought up to date.
"""

from __future__ import annotations

import time

from warp_core.cluster.guard import DomainStore
from warp_core.cluster.rows import prefix
from warp_core.errors import Unavailable
from warp_core.interfaces.consistency import Commit, KeyCheck, MetaStore
from warp_core.namespace import keys
from warp_core.namespace.blocks import serial_of
from warp_core.namespace.finding import DEPTH_MAX
from warp_core.namespace.inode_rows import inode_row
from warp_core.namespace.object_volumes import volume_info
from warp_core.namespace.rows import checked, decode_disk
from warp_core.namespace.tree import Rows, ViewSource, Volume
from warp_core.namespace.volumes import Volumes
from warp_core.views.blocks import DiskInfo
from warp_core.views.files import Ref
from warp_core.views.objects import VolumeInfo

NOBODYS = KeyCheck(b"", 0)


class AtRest:
    """The volumes and disks of one domain, read from its rows."""

    def __init__(self, store: MetaStore) -> None:
        """Take the domain's rows: `RowsOnly`."""
        self._store = store
        self._volumes = Volumes(self._store, time.time_ns)

    async def volumes(self) -> list[Volume]:
        """Return the volumes by name; raises what the engine does."""
        return sorted(await self._volumes.all(), key=lambda each: each.row.name)

    async def infos(self) -> list[VolumeInfo]:
        """Return the volumes as `Objects.volumes` does."""
        return [
            volume_info(each, await self._volumes.documents(each)) for each in await self.volumes()
        ]

    async def disks(self) -> list[DiskInfo]:
        """Return the disks as `Blocks.disks` does, but for those in a directory that only an object's key implies."""
        found: list[DiskInfo] = []
        for volume in await self.volumes():
            view = self._store.view()
            try:
                stored = volume.rows(ViewSource(view))
                start, end = keys.DISKS
                while page := await stored.scan(start, end):
                    for key, value in page:
                        disk = await _disk(stored, volume, key, value)
                        if disk is not None:
                            found.append(disk)
                    start = page[-1][0] + b"\0"
            finally:
                view.close()
        return sorted(found, key=lambda each: (each.volume, each.path))


async def _disk(stored: Rows, volume: Volume, key: bytes, value: bytes) -> DiskInfo | None:
    number = int.from_bytes(key[1:9], "big")
    inode = await inode_row(stored, number)
    if inode is None or inode.orphan:
        return None
    parts, directory = [inode.name], inode.directory
    while directory != keys.ROOT:
        above = await inode_row(stored, directory) if directory else None
        if above is None or len(parts) > DEPTH_MAX:
            return None
        parts.append(above.name)
        directory = above.directory
    return DiskInfo(
        ref=Ref(volume.row.name, number, inode.directory, inode.name),
        volume=volume.row.name,
        path=b"/".join(reversed(parts)),
        size=inode.size,
        allocated=inode.allocated,
        serial=serial_of(checked(decode_disk, key, value), volume.number),
    )


class RowsOnly(DomainStore):
    """The rows of a domain for who is not its home: they are read, and that is all."""

    def __init__(self, shared: MetaStore, domain: int) -> None:
        """Take the engine, entered, and the domain's number."""
        super().__init__(shared, prefix(domain), NOBODYS, held=lambda: True, lost=lambda: None)
        self._domain = domain

    async def commit(self, commit: Commit) -> int:
        """Refuse.

        Raises:
            Unavailable: Always.
        """
        raise Unavailable(f"domain {self._domain} has no home now: nothing of it can be changed")
