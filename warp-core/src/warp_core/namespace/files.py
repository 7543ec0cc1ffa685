"""The Files view over the namespace.

Names are `naming.py` and `finding.py`, handles `opening.py`, attributes `file_attributes.py`, content `contents.py`.
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from functools import cached_property

import msgspec

from warp_core.errors import (
    CrossesVolumes,
    NotFound,
    StaleHandle,
)
from warp_core.namespace import access as permission
from warp_core.namespace import acls, keys, rows
from warp_core.namespace.archives import demand_readable
from warp_core.namespace.changes import Change
from warp_core.namespace.file_attributes import Attributer
from warp_core.namespace.finding import (
    Found,
    check_name,
)
from warp_core.namespace.folding import note_copy
from warp_core.namespace.inode_rows import inode_row, put_disk, put_inode
from warp_core.namespace.inodes import Inode
from warp_core.namespace.leases import FOR_READ
from warp_core.namespace.naming import event_of, new_inode
from warp_core.views.files import (
    ROOT,
    Caller,
    FileInfo,
    Files,
    Ref,
    Want,
)


class NamespaceFiles(Attributer):
    """The view."""

    @cached_property
    def ordered(self) -> Files:
        """See `Files.ordered`."""
        if not self.namespace.store.capabilities.relaxed:
            return self
        other = copy(self)
        other.namespace = self.namespace.ordered()
        return other

    async def sync(self, volume: str) -> None:
        """See `Files.sync`."""
        await self._volume(volume)
        await self.inodes.log.flush()

    async def clone(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        replace: bool = False,
        mode: int | None = None,
    ) -> FileInfo:
        """See `Files.clone`; `mode` is the clone's, if it is another."""
        check_name(name)
        if file.volume != directory.volume or file.snapshot:
            raise CrossesVolumes("a clone of a file stays in its volume")
        volume = await self._writable(directory)
        await self._set_apart(file)
        await self.opens.recall(volume.number, file.inode, FOR_READ)
        if replace:
            with suppress(NotFound):
                await self.unlink(directory, name, caller)
        inode = await inode_row(self._rows(volume), file.inode)
        if inode is None:
            raise StaleHandle(f"inode {file.inode} is gone")
        async with (
            self.inodes.content(file.volume, volume.number, file.inode, inode) as content,
            content.standing(),
        ):

            async def body(change: Change) -> Found:
                made = await self._clone(change, file, directory, name, caller, mode)
                for row in content.marks:
                    await note_copy(change, row, made.number)
                return made

            found = await self.namespace.change(directory.volume, body)
            content.inode = msgspec.structs.replace(content.inode, shared=True)
        return await self._info(volume, directory, found)

    async def _clone(
        self,
        change: Change,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller,
        mode: int | None,
    ) -> Found:
        above = await self._open_directory(change, directory)
        permission.demand_entry(above, caller, "clone")
        await self._absent(change, directory, name)
        old = await inode_row(change.rows, file.inode)
        if old is None or old.kind != rows.FILE:
            raise StaleHandle(f"inode {file.inode} is gone, or no file")
        permission.demand(old, Want.READ, caller, "clone")
        under = await change.revision(old.revision)
        demand_readable(self.namespace.archives, under, name)
        revision = await change.take_id()
        await change.put_revision(
            revision,
            msgspec.structs.replace(
                under,
                born=change.epoch,
                extents=(),
                manifest=None,
                inline=None,
                windowed=True,
                base=old.revision,
                cut=-1,
                lenders=(),  # it refers to what lies below it, and to nothing of that's
                lent_manifest=False,
                retain_mode="",
                retain_until_ns=0,
                legal_hold=None,
                restore=None,
            ),
        )
        await change.hold(
            old.revision, keys.holder_of_revision(change.rows.volume.number, revision)
        )
        await put_inode(change, file.inode, msgspec.structs.replace(old, shared=True))
        kept = old.mode if mode is None else old.mode & ~0o7777 | mode
        inode = new_inode(change, rows.FILE, kept & 0o7777, above, caller)
        inode = msgspec.structs.replace(
            inode,
            mode=kept,
            acl=_handed_on(old, kept),
            revision=revision,
            etag=old.etag,
            size=old.size,
            allocated=old.allocated,
            modified_ns=old.modified_ns,
            disk=old.disk,
            folded=self.inodes.log.last(),
        )
        entry, inode = await self._put_new(change, directory, name, inode)
        if inode.disk:
            await put_disk(change, entry.inode)
        change.count(bytes=old.size)
        change.tell(event_of("clone", change, directory.inode, name, entry.inode, caller))
        return Found(entry, inode, directory.inode, name)


def _handed_on(inode: Inode, mode: int) -> acls.Acl | None:
    """Return the list of a clone: what its origin's says, so that nobody may more by it."""
    return acls.chmod(inode.acl, inode.mode, mode, directory=False)
