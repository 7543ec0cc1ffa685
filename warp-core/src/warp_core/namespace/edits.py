"""Versions of files that are edited: on a volume with versioning, an edit keeps what the file was.

An *edit* lasts from the first writer's opening to the last one's close. Its first change makes what was current a noncurrent
version, as a PUT would, and gives the file a new version id; until then, and for an edit that changes nothing, nothing is kept. A
file that was just made has nothing to keep, and disks have snapshots instead.
"""

from __future__ import annotations

import msgspec

from warp_core.errors import StaleHandle
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.contents import Content
from warp_core.namespace.inode_rows import inode_row, name_at, put_inode, summary_of
from warp_core.namespace.naming import Namer
from warp_core.namespace.paths import Path
from warp_core.namespace.rows import NULL_VERSION, encode
from warp_core.namespace.versions import drop_null, keep_version, new_nonce
from warp_core.views.files import Ref


class Editor(Namer):
    """The part of the Files view that knows when an edit begins."""

    async def begin_edit(self, file: Ref, content: Content) -> None:
        """Keep what a file is as a version; its writers wait here before their first change."""
        async with content.beginning:
            while content.unedited and not await self._kept(file, content):
                await self.inodes.settle(await self.number(file.volume), file.inode)
                if content.marks:
                    await content.catch_up()

    async def _kept(self, file: Ref, content: Content) -> bool:
        async def body(change: Change) -> bool:
            path = await self._current_path(change, file)
            if path is None:
                return True
            if content.dirty or content.marks:
                return False  # rows do not tell yet what is to be kept
            await self._keep(change, path, content)
            return True

        done = await self.namespace.change(file.volume, body)
        if done:
            content.unedited = False
        return done

    async def _current_path(self, change: Change, file: Ref) -> Path | None:
        """Return the way to a file's name if there is a version to keep at it: that of several by which it was opened."""
        if not change.versioned:
            return None
        inode = await inode_row(change.rows, file.inode)
        if inode is None:
            return None
        # Renamed since it was opened, it has its name in its row.
        for directory, raw in ((file.directory, file.name), (inode.directory, inode.name)):
            found = await name_at(change.rows, directory, raw, is_directory=False)
            if found is not None and found.kind == rows.FILE and found.inode == file.inode:
                if change.versioning == "suspended" and found.nonce == NULL_VERSION:
                    return None
                place = Ref(file.volume, directory)
                return await self._path(change, place, raw, is_directory=False)
        return None

    async def _keep(self, change: Change, path: Path, content: Content) -> None:
        current = path.current
        assert current is not None
        inode = await inode_row(change.rows, current.inode)
        if inode is None:
            raise StaleHandle(f"inode {current.inode} is gone")
        await change.revision(inode.revision)
        await change.hold(inode.revision, path.holder(current.sequence))
        # At once: what is written from now on must not come into the version.
        content.inode = msgspec.structs.replace(content.inode, shared=True)
        row = msgspec.structs.replace(inode, shared=True)
        await put_inode(change, current.inode, row)
        if change.versioning == "suspended":
            await drop_null(change, path)
        # The file goes on: a version that becomes current again is a file of its own.
        version = msgspec.structs.replace(
            summary_of(current, inode), inode=await change.take_id(), born=change.epoch
        )
        await keep_version(change, path, version)
        edited = msgspec.structs.replace(
            current,
            born=change.epoch,
            sequence=current.sequence + 1,
            nonce=NULL_VERSION if change.versioning == "suspended" else new_nonce(),
        )
        await change.rows.put(keys.name_key(*path.place), encode(edited))
