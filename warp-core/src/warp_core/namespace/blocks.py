"""The Blocks view over files: a disk is a regular file with a fixed size, and a row that says it is one."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

import msgspec

from warp_core.errors import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    IsADirectory,
    NotFound,
    QuotaExceeded,
    ReadOnly,
    StaleHandle,
)
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.disks import NamespaceDisk, Shared
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.inode_rows import inode_row, put_disk, put_inode
from warp_core.namespace.leases import FOR_WRITE
from warp_core.namespace.ledgers import Fresh
from warp_core.namespace.openfiles import NamespaceFile
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.reservations import Reserved, decode_reserved
from warp_core.views.blocks import BLOCK, Blocks, Disk, DiskInfo
from warp_core.views.files import FILE_SIZE_MAX, Ref

SNAPSHOT_DIRECTORY: Final = (
    b".disk-snapshots"  # in the root: snapshots of disks are clones that live here
)


class NamespaceBlocks(Blocks):
    """The view: disks of all volumes, by the Files view."""

    disk: ClassVar[type[NamespaceDisk]] = NamespaceDisk

    def __init__(self, files: NamespaceFiles) -> None:
        self._files = files
        self._namespace = files.namespace
        self._shared: dict[tuple[int, int], Shared] = {}
        self.incarnation = secrets.token_hex(8)

    # Disks ----------------------------------------------------------------------------------------

    async def create(self, volume: str, path: bytes, *, size: int | None) -> DiskInfo:
        """See `Blocks.create`."""
        files = self._files
        if size is not None:
            _check_size(size)
        parts = _parts(path)
        directory = await files.root(volume)
        for part in parts[:-1]:
            try:
                directory = (await files.lookup(directory, part)).ref
            except NotFound:
                if size is None:
                    raise
                with suppress(AlreadyExists):
                    await files.mkdir(directory, part, 0o755)
                directory = (await files.lookup(directory, part)).ref
        owner = Owner(HERE, b"disk-create " + path)
        if size is None:
            info = await files.lookup(directory, parts[-1])
            if info.kind == "directory":
                raise IsADirectory(f"{path.decode(errors='replace')!r} is a directory")
            if info.kind != "file":
                raise InvalidArgument(f"{path.decode(errors='replace')!r} is a {info.kind}")
            _check_size(info.size)
            ref = info.ref
            file = await files.open(ref, owner=owner, access=Access.WRITE, deny=Access.NONE)
        else:
            file, _ = await files.create(
                directory, parts[-1], 0o600, owner=owner, access=Access.WRITE, deny=Access.NONE,
                exclusive=True,
            )  # fmt: skip
            ref = file.ref
        try:
            if size is not None:
                try:
                    await file.truncate(size)
                except QuotaExceeded:
                    await files.unlink(directory, parts[-1])
                    raise
                await file.sync()
            await self._settle(volume, ref)
            await self._mark(volume, ref, directory, parts[-1])
        finally:
            await file.close()
        return await self.show(volume, path)

    async def _settle(self, volume: str, ref: Ref) -> None:
        await self._files.inodes.settle(await self._files.number(volume), ref.inode)

    async def _mark(self, volume: str, ref: Ref, directory: Ref, name: bytes) -> None:
        """Make a disk of a file, which is listed by this name of it."""

        async def body(change: Change) -> None:
            inode = await inode_row(change.rows, ref.inode)
            if inode is None or inode.kind != rows.FILE:
                raise StaleHandle(f"inode {ref.inode} is gone")
            await self._files.keep_directory(change, directory)
            inode = msgspec.structs.replace(inode, disk=True, directory=directory.inode, name=name)
            await put_inode(change, ref.inode, inode)
            await put_disk(change, ref.inode)

        await self._namespace.change(volume, body)
        await self._refresh(volume, ref)

    async def _refresh(self, volume: str, ref: Ref) -> None:
        live = self._files.inodes.live(await self._files.number(volume), ref.inode)
        if live is not None:
            stored = Fresh(self._namespace, await self._namespace.volumes.get(volume))
            row = await inode_row(stored, ref.inode)
            if row is not None:
                live.inode = row

    async def _reserved(self, volume: str, ref: Ref) -> Reserved:
        stored = Fresh(self._namespace, await self._namespace.volumes.get(volume))
        key = keys.reserved_key(ref.inode)
        value = await stored.get(key)
        row: Reserved = (
            rows.checked(decode_reserved, key, value) if value is not None else Reserved()
        )
        return row

    async def _serial(self, volume: str, ref: Ref) -> str:
        """Return a disk's serial."""
        known = await self._namespace.volumes.get(volume)
        key = keys.disk_key(ref.inode)
        value = await Fresh(self._namespace, known).get(key)
        if value is None:
            raise StaleHandle(f"inode {ref.inode} is gone")
        return serial_of(rows.checked(rows.decode_disk, key, value), known.number)

    async def show(self, volume: str, path: bytes, *, snapshot: str = "") -> DiskInfo:
        """See `Blocks.show`."""
        info = await self._files.walk(volume, path)
        if not info.disk:
            raise InvalidArgument(
                f"{path.decode(errors='replace')!r} of volume {volume!r} is no disk: `disk create` makes one"
            )
        serial = await self._serial(volume, info.ref)
        if snapshot:
            source = await self._snapshot_of(volume, path, info.ref, snapshot)
            info = await self._files.getattr(source)
        return DiskInfo(
            ref=info.ref,
            volume=volume,
            path=b"/".join(_parts(path)),
            size=info.size,
            allocated=info.allocated,
            read_only=bool(snapshot),
            serial=serial,
            incarnation=self.incarnation,
        )

    async def disks(self, volume: str = "") -> list[DiskInfo]:
        """See `Blocks.disks`."""
        if not volume:
            names = sorted([each.row.name for each in await self._namespace.volumes.all()])
            return [disk for name in names for disk in await self.disks(name)]
        paths: list[bytes] = []
        lost: set[int] = set()
        stored = Fresh(self._namespace, await self._namespace.volumes.get(volume))
        start, end = keys.DISKS
        while page := await stored.scan(start, end):
            for key, _ in page:
                number = int.from_bytes(key[1:9], "big")
                path = await self._files.path_of(volume, number)
                if path is None:
                    lost.add(number)
                else:
                    paths.append(path)
            start = page[-1][0] + b"\0"
        paths += await self._found_again(volume, lost)
        found = [
            await self.show(volume, path)
            for path in paths
            if not path.startswith(SNAPSHOT_DIRECTORY + b"/")
        ]
        return sorted(found, key=lambda disk: disk.path)

    async def _found_again(self, volume: str, lost: set[int]) -> list[bytes]:
        """Return paths of disks that lost the name they were last given and have another; noted, so that it is sought once."""
        stored = Fresh(self._namespace, await self._namespace.volumes.get(volume))
        inodes = {number: await inode_row(stored, number) for number in lost}
        lost = {number for number, inode in inodes.items() if inode and not inode.orphan}
        found: list[bytes] = []
        for number, place in (await self._files.names_of(volume, lost)).items() if lost else ():

            async def body(
                change: Change, number: int = number, place: tuple[int, bytes] = place
            ) -> None:
                inode = await inode_row(change.rows, number)
                if inode is not None:
                    inode = msgspec.structs.replace(inode, directory=place[0], name=place[1])
                    await put_inode(change, number, inode)

            with suppress(ReadOnly, Busy):  # looked for again next time
                await self._namespace.change(volume, body)
            path = await self._files.path_of(volume, number, place)
            if path is not None:
                found.append(path)
        return found

    async def open(
        self,
        volume: str,
        path: bytes,
        *,
        initiator: str,
        read_only: bool = False,
        snapshot: str = "",
    ) -> Disk:
        """See `Blocks.open`."""
        info = await self.show(volume, path, snapshot=snapshot)
        read_only = read_only or info.read_only
        access = Access.READ if read_only else Access.READ | Access.WRITE
        number = await self._files.number(volume)
        owner = Owner(HERE, f"disk {number} {info.ref.inode}".encode())
        # Nobody replaces, renames or removes a disk that is in use.
        file = await self._files.open(info.ref, owner=owner, access=access, deny=Access.DELETE)
        assert isinstance(file, NamespaceFile)
        node = (number, info.ref.inode)
        shared = self._shared.get(node)
        if shared is None:
            shared = self._shared[node] = Shared(await self._reserved(volume, info.ref))
        shared.users += 1

        async def on_close() -> None:
            shared.users -= 1
            if not shared.users:
                self._shared.pop(node, None)
            await file.close()

        async def update(change: Callable[[Reserved], Reserved]) -> None:
            await self._update(volume, info.ref, shared, change)

        return self.disk(
            msgspec.structs.replace(info, read_only=read_only), file, shared, initiator,
            on_close=on_close, update=update,
        )  # fmt: skip

    async def _update(
        self, volume: str, ref: Ref, shared: Shared, change: Callable[[Reserved], Reserved]
    ) -> None:
        async def body(tx: Change) -> Reserved:
            key = keys.reserved_key(ref.inode)
            value = await tx.rows.get_present(key)
            row = change(rows.checked(decode_reserved, key, value) if value else shared.row)
            tx.rows.put_present(key, rows.encode(row))
            return row

        shared.row = await self._namespace.change(volume, body)

    async def resize(self, volume: str, path: bytes, size: int) -> DiskInfo:
        """See `Blocks.resize`."""
        _check_size(size)
        info = await self.show(volume, path)
        await self._files.demand_unlocked(info.ref)
        number = await self._files.number(volume)
        async with self._files.opens.changing(number, info.ref.inode, FOR_WRITE):
            stored = Fresh(self._namespace, await self._namespace.volumes.get(volume))
            inode = await inode_row(stored, info.ref.inode)
            if inode is None:
                raise StaleHandle(f"inode {info.ref.inode} is gone")
            inodes = self._files.inodes
            async with inodes.content(volume, number, info.ref.inode, inode) as content:
                if content.allowance is not None:
                    await content.allowance.ready()
                await content.ready()
                if content.allowance is not None:
                    content.allowance.admit(content.size, content.size, size)
                content.truncate(size)
                await content.fold()
        shared = self._shared.get((number, info.ref.inode))
        for queue in shared.resized if shared else ():
            queue.put_nowait(size)
        return await self.show(volume, path)

    async def delete(self, volume: str, path: bytes) -> None:
        """See `Blocks.delete`."""
        info = await self.show(volume, path)
        number = await self._files.number(volume)
        if self._files.opens.open_count(number, info.ref.inode):
            raise Busy(f"disk {volume}/{path.decode(errors='replace')} is open")
        await self._files.demand_unlocked(info.ref)
        for name in await self.snapshots(volume, path):
            await self.delete_snapshot(volume, path, name)
        parent = await self._files.lookup_parent(volume, path)
        await self._files.unlink(parent, _parts(path)[-1])

    # Snapshots and clones of one disk -------------------------------------------------------------

    async def snapshot(self, volume: str, path: bytes, snapshot: str) -> None:
        """See `Blocks.snapshot`."""
        info = await self.show(volume, path)
        directory = await self._snapshot_directory(volume, info.ref, make=True)
        assert directory is not None
        await self._files.clone(info.ref, directory, _snapshot_name(snapshot), mode=0o400)

    async def snapshots(self, volume: str, path: bytes) -> list[str]:
        """See `Blocks.snapshots`."""
        info = await self.show(volume, path)
        directory = await self._snapshot_directory(volume, info.ref, make=False)
        if directory is None:
            return []
        found: list[tuple[int, str]] = []
        cookie, last = 0, False
        while not last:
            page, last = await self._files.readdir(directory, cookie=cookie)
            for entry in page:
                stat = await self._files.getattr(entry.ref)
                found.append((stat.born_ns, entry.name.decode()))
                cookie = entry.cookie
        return [name for _, name in sorted(found)]

    async def delete_snapshot(self, volume: str, path: bytes, snapshot: str) -> None:
        """See `Blocks.delete_snapshot`."""
        info = await self.show(volume, path)
        directory = await self._snapshot_directory(volume, info.ref, make=False)
        if directory is None:
            raise NotFound(f"disk {path.decode(errors='replace')!r} has no snapshot {snapshot!r}")
        await self._files.unlink(directory, _snapshot_name(snapshot))
        if not await self.snapshots(volume, path):
            above = await self._files.lookup(await self._files.root(volume), SNAPSHOT_DIRECTORY)
            await self._files.rmdir(above.ref, _directory_name(info.ref))
        while not await self._files.inodes.drain(volume):
            pass

    async def clone(
        self, volume: str, path: bytes, target: bytes, *, snapshot: str = ""
    ) -> DiskInfo:
        """See `Blocks.clone`."""
        info = await self.show(volume, path)
        source = info.ref
        if snapshot:
            source = await self._snapshot_of(volume, path, info.ref, snapshot)
        parts = _parts(target)
        above = await self._files.root(volume)
        for part in parts[:-1]:
            with suppress(AlreadyExists):
                await self._files.mkdir(above, part, 0o755)
            above = (await self._files.lookup(above, part)).ref
        made = await self._files.clone(source, above, parts[-1], mode=0o600)
        await self._mark(volume, made.ref, above, parts[-1])
        return await self.show(volume, target)

    async def _snapshot_of(self, volume: str, path: bytes, disk: Ref, snapshot: str) -> Ref:
        directory = await self._snapshot_directory(volume, disk, make=False)
        if directory is None:
            raise NotFound(f"disk {path.decode(errors='replace')!r} has no snapshot {snapshot!r}")
        return (await self._files.lookup(directory, _snapshot_name(snapshot))).ref

    async def _snapshot_directory(self, volume: str, disk: Ref, *, make: bool) -> Ref | None:
        directory = await self._files.root(volume)
        for part in (SNAPSHOT_DIRECTORY, _directory_name(disk)):
            if make:
                with suppress(AlreadyExists):
                    await self._files.mkdir(directory, part, 0o700)
            try:
                directory = (await self._files.lookup(directory, part)).ref
            except NotFound:
                return None
        return directory


def _parts(path: bytes) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part]
    if not parts:
        raise InvalidArgument("a disk has a path in its volume")
    return parts


def _check_size(size: int) -> None:
    if size <= 0 or size % BLOCK or size > FILE_SIZE_MAX:
        raise InvalidArgument(f"disk size {size}: a positive multiple of {BLOCK}")


def _directory_name(disk: Ref) -> bytes:
    """Return where a disk's snapshots lie: by its inode, which a clone of the volume and a rollback leave as it is."""
    return f"{disk.inode:016x}".encode()


def _snapshot_name(name: str) -> bytes:
    packed = name.encode()
    if not 0 < len(packed) <= 128 or b"/" in packed or packed.startswith(b"."):
        raise InvalidArgument(
            f"snapshot name {name!r}: 1 to 128 bytes without slash or leading dot"
        )
    return packed


def serial_of(row: rows.DiskRow, volume: int) -> str:
    """Return the serial of a disk in a volume. Initiators take two disks of one serial for two ways to one: a clone's has another."""
    if row.volume == volume:
        return row.serial
    return hashlib.blake2b(
        bytes.fromhex(row.serial) + volume.to_bytes(4, "big"), digest_size=8
    ).hexdigest()
