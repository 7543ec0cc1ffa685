"""Opening files, and what becomes of them after the last close; what a handle may do is `openfiles.py`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec

from warp_core.errors import (
    AlreadyExists,
    Archived,
    InvalidArgument,
    IsADirectory,
    NoSpace,
    ReadOnly,
    Retained,
    StaleHandle,
    Unsupported,
    WarpError,
)
from warp_core.logs import get
from warp_core.namespace import access as permission
from warp_core.namespace import keys, rows
from warp_core.namespace.apart import Inodes
from warp_core.namespace.archives import demand_readable
from warp_core.namespace.changes import Change
from warp_core.namespace.contents import Content
from warp_core.namespace.edits import Editor
from warp_core.namespace.finding import (
    KINDS,
    SNAPSHOTS_INODE,
    SNAPSHOTS_NAME,
    Found,
    check_name,
)
from warp_core.namespace.inode_rows import inode_row, put_inode
from warp_core.namespace.inodes import Inode
from warp_core.namespace.layers import load_layers
from warp_core.namespace.leases import FOR_WRITE
from warp_core.namespace.ledgers import VolumeLedger
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.naming import event_of, new_inode
from warp_core.namespace.openfiles import SET_IDS, NamespaceFile
from warp_core.namespace.opens import Access, Node, Owner
from warp_core.namespace.rows import Name, Revision
from warp_core.namespace.tree import Rows, Volume
from warp_core.views.files import (
    ROOT,
    Caller,
    FileInfo,
    OpenFile,
    Ref,
    Want,
)

log = get("warp_core.namespace")

_Stat = Callable[[Ref], Awaitable[FileInfo]]


class Opener(Editor):
    """The part of the Files view that makes and opens files."""

    handle: ClassVar[type[NamespaceFile]] = NamespaceFile

    def __init__(self, namespace: Namespace, inodes: Inodes) -> None:
        super().__init__(namespace, inodes)
        self._collecting: set[asyncio.Task[None]] = set()
        self.opens.on_last_close(self._closed)

    async def create(
        self,
        directory: Ref,
        name: bytes,
        mode: int,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> tuple[OpenFile, bool]:
        """See `Files.create`."""
        check_name(name)
        volume = await self._writable(directory)

        async def body(change: Change) -> tuple[Found, bool]:
            change.by = owner
            above = await self._directory(change.rows, volume, directory)
            permission.demand(above, Want.EXECUTE, caller, "create")
            there = await self._find(change.rows, volume, directory.inode, name)
            if there is not None or (name == SNAPSHOTS_NAME and directory.inode == keys.ROOT):
                if exclusive:
                    raise AlreadyExists(f"{name!r} exists in directory {directory.inode}")
                if there is None or there.is_directory:
                    raise IsADirectory(f"{name!r} is a directory")
                return there, False
            above = await self._open_directory(change, directory)
            permission.demand_entry(above, caller, "create")
            inode = new_inode(change, rows.FILE, mode & 0o7777, above, caller)
            inode = await self._with_content(change, inode, caller)
            entry, inode = await self._put_new(change, directory, name, inode)
            change.tell(event_of("create", change, directory.inode, name, entry.inode, caller))
            return Found(entry, inode, directory.inode, name), True

        found, made = await self.namespace.change(directory.volume, body)
        ref = Ref(directory.volume, found.number, directory.inode, name)
        # POSIX: whoever makes a file has the access asked for, whatever its mode.
        file = await self._open(ref, caller, owner, access, deny, truncate and not made, made=made)
        return file, made

    async def _with_content(self, change: Change, inode: Inode, caller: Caller) -> Inode:
        """Return a new file's inode with content, which is empty."""
        revision = await change.take_id()
        etag = f"{secrets.token_hex(16)}-0"
        content = Revision(change.epoch, 0, etag, change.now_ns, owner=caller.name, windowed=True)
        await change.put_revision(revision, content)
        return msgspec.structs.replace(
            inode, revision=revision, etag=etag, folded=self.inodes.log.last()
        )

    async def create_unnamed(
        self,
        directory: Ref,
        mode: int,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
    ) -> OpenFile:
        """See `Files.create_unnamed`."""
        await self._writable(directory)

        async def body(change: Change) -> int:
            if directory.inode == SNAPSHOTS_INODE:
                raise ReadOnly("snapshots are made by snapshot commands")
            above = await self._directory(change.rows, change.rows.volume, directory)
            permission.demand_entry(above, caller, "create")
            inode = new_inode(change, rows.FILE, mode & 0o7777, above, caller)
            inode = await self._with_content(change, inode, caller)
            number = await change.take_id()
            # A crash before somebody has it open: the next start collects it.
            await change.rows.put(keys.orphan_key(number), rows.held(change.epoch))
            await put_inode(change, number, msgspec.structs.replace(inode, links=0, orphan=True))
            return number

        number = await self.namespace.change(directory.volume, body)
        return await self._open(
            Ref(directory.volume, number), caller, owner, access, deny, truncate=False, made=True
        )

    async def open(
        self,
        file: Ref,
        caller: Caller = ROOT,
        *,
        owner: Owner,
        access: Access,
        deny: Access,
        truncate: bool = False,
    ) -> OpenFile:
        """See `Files.open`."""
        return await self._open(file, caller, owner, access, deny, truncate)

    async def _open(
        self,
        file: Ref,
        caller: Caller,
        owner: Owner,
        access: Access,
        deny: Access,
        truncate: bool,
        *,
        made: bool = False,
    ) -> NamespaceFile:
        volume = await self._volume(file)
        stored = self._rows(volume)
        found = await self._by_ref(stored, volume, file)
        if found.is_directory:
            raise IsADirectory(f"inode {file.inode} is a directory")
        if found.inode.kind != rows.FILE:
            raise Unsupported(f"inode {file.inode} is a {KINDS.get(found.name.kind, 'special')}")
        want = Want(0)
        if self.namespace.archives:
            await self._demand_near(stored, file.inode, found.inode.revision, access)
        if access & Access.READ:
            want |= Want.READ
        if access & Access.WRITE or truncate:
            want |= Want.WRITE
        appends = not truncate and not made and permission.appends_only(found.inode, want, caller)
        if appends:
            permission.demand(found.inode, want & ~Want.WRITE, caller, "open")
        elif not made:
            permission.demand(found.inode, want, caller, "open")
        if file.snapshot:
            if want & Want.WRITE:
                raise ReadOnly(f"snapshot {file.snapshot!r} is read only")
            return await self._open_snapshot(file, volume, found, owner, access)
        if want & Want.WRITE:
            await self.namespace.volumes.writable(file.volume)
        if truncate and found.inode.disk:
            raise InvalidArgument(f"inode {file.inode} is a disk: its size is fixed")
        opened = await self.opens.open(volume.number, file.inode, owner, access, deny)
        try:
            inode = found.inode
            if want & Want.WRITE:
                inode = await self._set_apart(file)
                await self.demand_unlocked(file)
            content = await self.inodes.take(file.volume, volume.number, file.inode, inode)
            if want & Want.WRITE and content.inode.mode != inode.mode:
                content.inode = msgspec.structs.replace(content.inode, mode=inode.mode)
        except BaseException:
            self.opens.close(opened)
            raise
        if want & Want.WRITE:
            if not content.writers:
                content.unedited = volume.row.versioning != "off" and not (made or inode.disk)
            content.writers += 1

        async def clears() -> None:
            await self._clear_set_ids(volume, handle.ref, caller, owner)

        async def on_close() -> None:
            if want & Want.WRITE:
                content.writers -= 1
            try:
                await self.inodes.give(volume.number, file.inode)
            finally:
                self.opens.close(opened)

        node = Node(volume.number, file.inode)

        def seen() -> None:
            now_ns = self.namespace.clock_ns()
            self.inodes.accessed.note(node, content.inode, now_ns, content.modified_ns)

        handle = self.handle(
            Ref(file.volume, file.inode, found.directory, found.raw),
            volume.number,
            content,
            self.opens,
            opened,
            owner,
            access,
            on_close=on_close,
            stat=self._stat_open(content),
            room=self._room,
            clears=None if caller.superuser else clears,
            appends=appends,
            seen=seen,
            begin_edit=lambda: self.begin_edit(file, content),
        )
        if truncate and content.size:
            try:
                if not caller.superuser and inode.mode & SET_IDS:
                    await clears()
                await handle.empty()
            except BaseException:
                await handle.close()
                raise
        return handle

    async def _clear_set_ids(self, volume: Volume, file: Ref, caller: Caller, by: Owner) -> None:
        """Take set-id bits from a file that somebody else than the superuser writes to."""

        async def body(change: Change) -> None:
            inode = await inode_row(change.rows, file.inode)
            mode = None if inode is None else permission.without_set_ids(inode, caller)
            if inode is not None and mode is not None:
                mode |= inode.mode & ~0o7777
                new = msgspec.structs.replace(inode, mode=mode, changed_ns=change.now_ns)
                await put_inode(change, file.inode, new)

        async with self.opens.changing(volume.number, file.inode, FOR_WRITE, by=by):
            await self.namespace.change(file.volume, body)
            await self._refresh(volume, file)

    async def _open_snapshot(
        self, file: Ref, volume: Volume, found: Found, owner: Owner, access: Access
    ) -> NamespaceFile:
        ledger = VolumeLedger(self.namespace, file.volume, volume.number, volume)
        above = self.inodes.above(volume)
        layers = await load_layers(ledger, self.inodes.log, found.inode.revision, above)
        content = Content(ledger, self.inodes.log, file.inode, found.inode, layers)

        async def nothing() -> None:
            return

        return self.handle(
            file, volume.number, content, self.opens, None, owner, access,
            on_close=nothing, stat=self.getattr, room=self._room, begin_edit=nothing,
        )  # fmt: skip

    async def _demand_near(self, stored: Rows, inode: int, number: int, access: Access) -> None:
        """Check that a file's content may be read, or written, although its storage class may be an archive.

        Raises:
            Archived: It was not restored; or it is to be changed in place, which an archive's content never is.
        """
        key = keys.revision_key(number)
        value = await stored.get(key) if number else None
        if value is None:
            return
        revision: Revision = rows.checked(rows.decode_revision, key, value)
        if access & Access.WRITE and revision.storage_class in self.namespace.archives:
            raise Archived(
                f"inode {inode} is in {revision.storage_class}: copy it to change it",
                storage_class=revision.storage_class,
            )
        if access & Access.READ:
            demand_readable(self.namespace.archives, revision, f"inode {inode}".encode())

    async def demand_unlocked(self, file: Ref) -> None:
        """Check that a file's content may be written in place.

        Raises:
            Retained: Object lock or a legal hold is on it.
        """
        volume = await self._volume(file)
        if volume.row.lock is None:
            return
        stored = self._rows(volume)
        inode = (await self._by_ref(stored, volume, file)).inode
        value = await stored.get(keys.revision_key(inode.revision))
        if value is None:
            raise StaleHandle(f"inode {file.inode} is gone")
        revision: Revision = rows.checked(
            rows.decode_revision, keys.revision_key(inode.revision), value
        )
        now_ns = await self.namespace.lock_clock.now_ns()
        if revision.legal_hold or (revision.retain_mode and revision.retain_until_ns > now_ns):
            raise Retained(f"inode {file.inode} is retained or under legal hold")

    async def _set_apart(self, file: Ref) -> Inode:
        """Give a file that is about to be changed a row of its own."""
        volume = await self._volume(file)
        inode = await inode_row(self._rows(volume), file.inode)
        if inode is not None:
            return inode

        async def body(change: Change) -> Inode:
            found = await self._by_ref(change.rows, change.rows.volume, file)
            return await self._apart(change, file, found)

        inode = await self.namespace.change(file.volume, body)
        live = self.inodes.live(volume.number, file.inode)
        if live is not None:
            live.inode = inode
        return inode

    async def _refresh(self, volume: Volume, file: Ref) -> None:
        """Tell a live content what its inode's row says now."""
        live = self.inodes.live(volume.number, file.inode)
        if live is not None:
            row = await inode_row(self._rows(volume), file.inode)
            if row is not None:
                live.inode = row
                if not live.unsaid:
                    live.modified_ns = row.modified_ns

    def _stat_open(self, content: Content) -> _Stat:
        async def stat(ref: Ref) -> FileInfo:
            try:
                return await self.getattr(ref)
            except (
                StaleHandle
            ):  # born over S3, unlinked, and only read since: nothing but memory knows it
                volume = await self._volume(ref)
                name = Name(0, rows.FILE, ref.inode)
                inode = msgspec.structs.replace(content.inode, links=0)
                return await self._info(volume, ref, Found(name, inode, 0, b""))

        return stat

    async def _room(self, length: int) -> None:
        """Check that the stores have room for so many bytes more.

        Raises:
            NoSpace
        """
        _, free = await self.inodes.log.space()
        if length > free:
            raise NoSpace(f"room for {length} bytes, the stores have {free}")
        await self.inodes.log.room(min(length, 512 * 1024))

    def _closed(self, node: Node) -> None:
        """Collect a file that has no name, now that nobody has it open."""
        name = self._names.get(node.volume)
        if name is not None:
            task = asyncio.get_running_loop().create_task(self._collect(name, node))
            self._collecting.add(task)
            task.add_done_callback(self._collecting.discard)

    async def _collect(self, name: str, node: Node) -> None:
        try:
            inode = await inode_row(self._rows(await self._volume(name)), node.inode)
            if inode is not None and inode.orphan:
                await self.inodes.collect(name, node)
                while not await self.inodes.drain(name):
                    pass
        except WarpError as error:  # its row says that it has no name: a restart goes on
            log.warning("a file without a name waits", volume=name, error=str(error))

    async def settle_collections(self) -> None:
        """Wait until what is being collected is gone."""
        while self._collecting:
            await asyncio.gather(*self._collecting, return_exceptions=True)
