"""What stat and extended attributes of files tell, and changing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from warp_core.errors import (
    AttributeNotFound,
    StaleHandle,
)
from warp_core.namespace import access as permission
from warp_core.namespace import acls, attributes, keys, object_words, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.described import describe
from warp_core.namespace.finding import (
    SNAPSHOTS,
    SNAPSHOTS_INODE,
)
from warp_core.namespace.inode_rows import put_inode
from warp_core.namespace.inodes import Inode
from warp_core.namespace.leases import FOR_WRITE
from warp_core.namespace.opening import Opener
from warp_core.namespace.opens import HERE, Access, Node, Owner
from warp_core.views.files import (
    ROOT,
    Caller,
    FileInfo,
    Ref,
    SetInfo,
    SpaceInfo,
    Want,
)
from warp_core.views.objects import ObjectInfo


class Attributer(Opener):
    """The part of the Files view that tells and changes attributes."""

    async def setattr(
        self, file: Ref, change: SetInfo, caller: Caller = ROOT, *, by: Owner | None = None
    ) -> FileInfo:
        """See `Files.setattr`."""
        volume = await self._writable(file)
        asked = change
        if asked.size is not None:
            await self._truncate(file, asked, caller, by)

        async def body(tx: Change) -> None:
            if file.inode == keys.ROOT:
                old = await self._directory(tx.rows, tx.rows.volume, file)
            else:
                found = await self._by_ref(tx.rows, tx.rows.volume, file)
                old = found.inode
                if found.is_directory:
                    await self._open_directory(tx, file)
                else:
                    old = await self._apart(tx, file, found)
            wanted = permission.demand_change(old, asked, caller, "setattr")
            await put_inode(tx, file.inode, _changed(old, wanted, tx.now_ns))
            if asked.modified_ns is not None and old.kind == rows.DIRECTORY:
                tx.rows.delete_present(keys.times_key(file.inode))  # which is shown instead

        node = Node(volume.number, file.inode)
        async with self.opens.changing(*node, FOR_WRITE, by=by):
            if asked.accessed_ns is not None:
                self.inodes.accessed.forget(node)
            if asked.modified_ns is not None:
                await self.inodes.settle(volume.number, file.inode)
            await self.namespace.change(file.volume, body)
            await self._refresh(volume, file)
        return await self.getattr(file)

    async def _truncate(self, file: Ref, asked: SetInfo, caller: Caller, by: Owner | None) -> None:
        assert asked.size is not None
        volume = await self._volume(file)
        found = await self._by_ref(self._rows(volume), volume, file)
        permission.demand_change(found.inode, asked, caller, "setattr")
        owner = by or Owner(HERE, f"truncate {file.inode}".encode())
        handle = await self._open(file, ROOT, owner, Access.WRITE, Access.NONE, False)
        try:
            await handle.truncate(asked.size)
        finally:
            await handle.close()

    async def access(self, file: Ref, want: Want, caller: Caller) -> Want:
        """See `Files.access`."""
        volume = await self._volume(file)
        stored = self._rows(volume)
        if file.inode == keys.ROOT:
            inode = await self._directory(stored, volume, file)
        else:
            inode = (await self._by_ref(stored, volume, file)).inode
        return permission.best(inode, want, caller)

    async def xattrs(self, file: Ref, caller: Caller = ROOT) -> Mapping[bytes, bytes]:
        """See `Files.xattrs`."""
        return attributes.visible(await self._any_inode(file), caller)

    async def xattr(self, file: Ref, name: bytes, caller: Caller = ROOT) -> bytes:
        """See `Files.xattr`."""
        attributes.check_name(name)
        inode = await self._any_inode(file)
        if not object_words.is_word(name):
            return attributes.value_of(inode, name, caller)
        permission.demand(inode, Want.READ, caller, "getxattr")
        info = await self._as_object(file)
        value = None if info is None else object_words.word(info, name)
        if value is None:
            raise AttributeNotFound(f"no attribute {name!r}")
        return value

    async def _as_object(self, file: Ref) -> ObjectInfo | None:
        """Return what S3 is told of a file, None if it is told nothing."""
        if file.inode in (keys.ROOT, SNAPSHOTS_INODE):
            return None
        volume = await self._volume(file)
        await self.inodes.settle(volume.number, file.inode)
        stored = self._rows(volume)
        found = await self._by_ref(stored, volume, file)
        if found.name.kind != rows.FILE:
            return None
        name = found.name
        if name.revision == 0:
            name = await self.inodes.summary(stored, name)
        key = keys.revision_key(name.revision)
        value = await stored.get(key)
        if value is None:
            raise StaleHandle(f"inode {file.inode} is gone")
        return describe(found.raw, name, rows.checked(rows.decode_revision, key, value))

    async def _any_inode(self, file: Ref) -> Inode:
        """Return the inode of a file or directory, the one of snapshots among them."""
        if file.inode == SNAPSHOTS_INODE:
            return SNAPSHOTS
        volume = await self._volume(file)
        stored = self._rows(volume)
        if file.inode == keys.ROOT:
            return await self._directory(stored, volume, file)
        return (await self._by_ref(stored, volume, file)).inode

    async def set_xattr(
        self,
        file: Ref,
        name: bytes,
        value: bytes | None,
        caller: Caller = ROOT,
        *,
        must: Literal["", "create", "replace"] = "",
        by: Owner | None = None,
    ) -> None:
        """See `Files.set_xattr`."""
        attributes.check_name(name)
        volume = await self._writable(file)

        async def body(change: Change) -> None:
            if file.inode == keys.ROOT:
                old = await self._directory(change.rows, change.rows.volume, file)
            else:
                found = await self._by_ref(change.rows, change.rows.volume, file)
                if found.is_directory:
                    old = await self._open_directory(change, file)
                else:
                    old = await self._apart(change, file, found)
            new = attributes.changed(old, name, value, caller, must=must)
            new = msgspec.structs.replace(new, changed_ns=change.now_ns)
            await put_inode(change, file.inode, new)

        async with self.opens.changing(volume.number, file.inode, FOR_WRITE, by=by):
            await self.namespace.change(file.volume, body)
            await self._refresh(volume, file)

    async def statfs(self, volume: str) -> SpaceInfo:
        """See `Files.statfs`."""
        usage = await self.namespace.usage(volume)
        total, free = await self.inodes.log.space()
        tracked = await self.namespace.quotas.watch(await self.namespace.volumes.get(volume))
        for pool in tracked.pools:
            room = pool.room()
            if room is not None:  # what a disk-usage tool shows fits what a write is told
                total, free = min(total, pool.bytes + room), min(free, room)
        return SpaceInfo(total=total, free=free, used=usage.bytes, files=usage.objects)


def _changed(inode: Inode, change: SetInfo, now_ns: int) -> Inode:
    """Return an inode with attributes changed."""
    mode, acl = inode.mode, inode.acl
    if change.mode is not None:
        mode = mode & ~0o7777 | change.mode & 0o7777
        acl = acls.chmod(acl, inode.mode, mode, directory=inode.kind == rows.DIRECTORY)
    return msgspec.structs.replace(
        inode,
        mode=mode,
        acl=acl,
        uid=inode.uid if change.uid is None else change.uid,
        gid=inode.gid if change.gid is None else change.gid,
        accessed_ns=inode.accessed_ns if change.accessed_ns is None else change.accessed_ns,
        modified_ns=inode.modified_ns if change.modified_ns is None else change.modified_ns,
        created_ns=inode.created_ns if change.born_ns is None else change.born_ns,
        attributes=inode.attributes if change.attributes is None else change.attributes,
        changed_ns=now_ns,
    )
