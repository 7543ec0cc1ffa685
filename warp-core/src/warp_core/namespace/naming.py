"""Changing names: making, removing, renaming and linking entries of directories, each in one transaction."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from warp_core.errors import (
    AlreadyExists,
    CrossesVolumes,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    ReadOnly,
    StaleHandle,
    TooManyLinks,
)
from warp_core.namespace import access as permission
from warp_core.namespace import acls, keys, rows
from warp_core.namespace.changes import LEVELS, Change
from warp_core.namespace.finding import (
    DEPTH_MAX,
    SNAPSHOTS_INODE,
    SNAPSHOTS_NAME,
    SPECIAL,
    Finder,
    Found,
    check_name,
)
from warp_core.namespace.inode_rows import inode_row, put_inode
from warp_core.namespace.inodes import Inode
from warp_core.namespace.leases import FOR_NAMES, FOR_WRITE
from warp_core.namespace.opens import Access, Owner
from warp_core.namespace.paths import Path
from warp_core.namespace.rows import Event, Name, decode_name, encode
from warp_core.namespace.tree import Volume
from warp_core.namespace.versions import (
    drop_null,
    keep_version,
    next_sequence,
    put_marker,
    supersede,
)
from warp_core.views.files import (
    LINKS_MAX,
    ROOT,
    TARGET_MAX,
    Caller,
    FileInfo,
    FileKind,
    Ref,
    Rename,
    Want,
)

_TYPE_BITS: Final[dict[FileKind, int]] = {kind: bits for bits, kind in SPECIAL.items()}


_Make = Callable[[Change, Inode], Awaitable[tuple[Name, Inode]]]


class Namer(Finder):
    """The part of the Files view that changes directories."""

    async def mkdir(
        self,
        directory: Ref,
        name: bytes,
        mode: int,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """See `Files.mkdir`."""

        async def make(change: Change, above: Inode) -> tuple[Name, Inode]:
            path = await self._path(change, directory, name, is_directory=True)
            await change.make_way(path)
            kept = None
            if change.versioned:
                kept = await change.rows.get(keys.kept_directory_key(*path.place))
            number = decode_name(kept).inode if kept else await change.take_id()
            entry = Name(change.epoch, rows.DIRECTORY, number, modified_ns=change.now_ns)
            await change.put_name(path, entry)
            inode = new_inode(change, rows.DIRECTORY, mode & 0o7777, above, caller)
            inode = msgspec.structs.replace(inode, links=2, directory=directory.inode, name=name)
            return entry, await put_inode(change, number, inode)

        return await self._make(directory, name, caller, "mkdir", make, by)

    async def symlink(
        self,
        directory: Ref,
        name: bytes,
        target: bytes,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """See `Files.symlink`."""
        if not target or b"\0" in target:
            raise InvalidArgument(f"target {target[:40]!r} of a symbolic link")
        if len(target) > TARGET_MAX:
            raise NameTooLong(f"target of {len(target)} bytes > TARGET_MAX {TARGET_MAX}")

        async def make(change: Change, above: Inode) -> tuple[Name, Inode]:
            inode = new_inode(change, rows.SYMLINK, 0o777, above, caller)
            return await self._put_new(
                change, directory, name, msgspec.structs.replace(inode, target=target)
            )

        return await self._make(directory, name, caller, "symlink", make, by)

    async def readlink(self, file: Ref) -> bytes:
        """See `Files.readlink`."""
        volume = await self._volume(file)
        found = await self._by_ref(self._rows(volume), volume, file)
        if found.inode.kind != rows.SYMLINK:
            raise InvalidArgument(f"inode {file.inode} is no symbolic link")
        self._note_read(volume, file.inode, found.inode)
        return found.inode.target

    async def mknod(
        self,
        directory: Ref,
        name: bytes,
        kind: FileKind,
        mode: int,
        caller: Caller = ROOT,
        *,
        device: tuple[int, int] = (0, 0),
        by: Owner | None = None,
    ) -> FileInfo:
        """See `Files.mknod`."""
        bits = _TYPE_BITS.get(kind)
        if bits is None:
            raise InvalidArgument(f"mknod makes fifos, sockets and devices, not a {kind}")
        whiteout = kind == "character" and device == (0, 0)  # which drives nothing
        if kind in ("block", "character") and not whiteout and not caller.superuser:
            raise NotPermitted("device nodes are the superuser's to make")

        async def make(change: Change, above: Inode) -> tuple[Name, Inode]:
            inode = new_inode(change, rows.SPECIAL, bits | mode & 0o7777, above, caller)
            return await self._put_new(
                change, directory, name, msgspec.structs.replace(inode, device=device)
            )

        return await self._make(directory, name, caller, "mknod", make, by)

    async def _make(
        self,
        directory: Ref,
        name: bytes,
        caller: Caller,
        verb: str,
        make: _Make,
        by: Owner | None,
    ) -> FileInfo:
        """Make an entry that must not be there yet."""
        check_name(name)
        volume = await self._writable(directory)

        async def body(change: Change) -> Found:
            change.by = by
            above = await self._open_directory(change, directory)
            permission.demand(above, Want.EXECUTE, caller, verb)
            await self._absent(change, directory, name)
            permission.demand_entry(above, caller, verb, subdirectory=verb == "mkdir")
            entry, inode = await make(change, above)
            change.tell(event_of(verb, change, directory.inode, name, entry.inode, caller))
            return Found(entry, inode, directory.inode, name)

        found = await self.namespace.change(directory.volume, body)
        if found.is_directory:
            self._remember(volume.number, found.number, directory.inode, name)
        return await self._info(volume, directory, found)

    async def _put_new(
        self, change: Change, directory: Ref, name: bytes, inode: Inode
    ) -> tuple[Name, Inode]:
        """Write the rows of a new entry that is no directory."""
        path = await self._path(change, directory, name, is_directory=False)
        await change.make_way(path)
        await supersede(change, path)
        number = await change.take_id()
        entry = Name(
            change.epoch,
            inode.kind,
            number,
            sequence=await next_sequence(change, path),
            nonce=rows.NULL_VERSION if change.versioning != "on" else secrets.randbits(63) | 1,
            modified_ns=change.now_ns,
            owner=inode.owner,
        )
        await change.put_name(path, entry)
        inode = msgspec.structs.replace(inode, directory=directory.inode, name=name)
        return entry, await put_inode(change, number, inode)

    async def _absent(self, change: Change, directory: Ref, name: bytes) -> None:
        found = await self._find(change.rows, change.rows.volume, directory.inode, name)
        if found is not None or (name == SNAPSHOTS_NAME and directory.inode == keys.ROOT):
            raise AlreadyExists(f"{name!r} exists in directory {directory.inode}")

    async def keep_directory(self, change: Change, directory: Ref) -> None:
        """Make a directory, and those above it, stay from now on: they have rows that tell their path."""
        await self._open_directory(change, directory)

    async def _open_directory(self, change: Change, directory: Ref) -> Inode:
        """Return a directory whose entries are about to change: from now on it stays when it is empty, and those above it (LEVELS).

        A directory that is implied has keys below it, so that a listing need not look.
        """
        if directory.inode == SNAPSHOTS_INODE:
            raise ReadOnly("snapshots are made by snapshot commands")
        volume = change.rows.volume
        inode = await self._directory(change.rows, volume, directory)
        if directory.inode == keys.ROOT:
            return inode
        ref = directory
        for _ in range(LEVELS):
            found = await self._by_ref(change.rows, volume, ref)
            if not found.directory or found.name.kind != rows.IMPLIED:
                break
            made = await self._make_explicit(change, found)
            inode = made if ref is directory else inode
            place = self._places.get((volume.number, found.directory))
            if found.directory == keys.ROOT or place is None:
                break
            ref = Ref(directory.volume, found.directory, *place)
        return inode

    async def _make_explicit(self, change: Change, found: Found) -> Inode:
        above = Ref(change.rows.volume.row.name, found.directory)
        path = await self._path(change, above, found.raw, is_directory=True)
        current = path.current
        assert current is not None
        await change.note_places(path)
        made = msgspec.structs.replace(current, kind=rows.DIRECTORY, born=change.epoch)
        await change.rows.put(keys.name_key(*path.place), encode(made))
        inode = msgspec.structs.replace(found.inode, directory=found.directory, name=found.raw)
        return await put_inode(change, found.number, inode)

    async def _writable(self, ref: Ref) -> Volume:
        if ref.snapshot:
            raise ReadOnly(f"snapshot {ref.snapshot!r} is read only")
        await self.namespace.volumes.writable(ref.volume)
        return await self._volume(ref)

    async def rmdir(
        self, directory: Ref, name: bytes, caller: Caller = ROOT, *, by: Owner | None = None
    ) -> None:
        """See `Files.rmdir`."""
        check_name(name)
        volume = await self._writable(directory)
        target = await self.lookup(directory, name, caller)

        async def body(change: Change) -> None:
            change.by = by
            above = await self._open_directory(change, directory)
            found = await self._existing(change, directory, name)
            permission.demand_removal(above, found.inode, caller, "rmdir")
            if not found.is_directory:
                raise NotADirectory(f"{name!r} is no directory")
            await self._drop_directory(change, directory, found)
            change.tell(event_of("rmdir", change, directory.inode, name, found.number, caller))

        async with self.opens.changing(volume.number, target.ref.inode, FOR_NAMES, by=by):
            await self.namespace.change(directory.volume, body)

    async def _drop_directory(self, change: Change, directory: Ref, found: Found) -> None:
        if await change.rows.scan(*keys.names_of(found.number), limit=1):
            raise NotEmpty(f"directory {found.raw!r} is not empty")
        path = await self._path(change, directory, found.raw, is_directory=True)
        await change.drop_name(path)
        if await inode_row(change.rows, found.number) is not None:
            await change.rows.delete(keys.inode_key(found.number))
        change.forget_directory(found.number)

    async def _existing(self, change: Change, directory: Ref, name: bytes) -> Found:
        found = await self._find(change.rows, change.rows.volume, directory.inode, name)
        if found is None:
            raise NotFound(f"no {name!r} in directory {directory.inode}")
        return found

    async def unlink(
        self, directory: Ref, name: bytes, caller: Caller = ROOT, *, by: Owner | None = None
    ) -> None:
        """See `Files.unlink`."""
        check_name(name)
        volume = await self._writable(directory)
        target = await self.lookup(directory, name, caller)
        number = target.ref.inode
        self.opens.check_share(volume.number, number, Access.DELETE)
        async with self.opens.changing(volume.number, number, FOR_NAMES, by=by):
            await self.inodes.settle(volume.number, number)

            async def body(change: Change) -> None:
                change.by = by
                above = await self._open_directory(change, directory)
                found = await self._existing(change, directory, name)
                permission.demand_removal(above, found.inode, caller, "unlink")
                if found.is_directory:
                    raise IsADirectory(f"{name!r} is a directory")
                self.opens.check_share(volume.number, found.number, Access.DELETE)
                await self._drop_file(change, directory, found)
                change.tell(event_of("unlink", change, directory.inode, name, found.number, caller))
                change.disturbed.clear()  # asked above

            await self.namespace.change(directory.volume, body)

    async def _drop_file(self, change: Change, directory: Ref, found: Found) -> None:
        """Take a name away that is no directory; on a versioned volume a marker takes its place."""
        path = await self._path(change, directory, found.raw, is_directory=False)
        if found.name.kind == rows.FILE:
            await supersede(change, path)
            if change.versioned:
                await put_marker(change, path)
            await take_row(change, path)
            return
        await change.drop_name(path)
        await self.inodes.unnamed(change, found.number)

    async def link(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        by: Owner | None = None,
    ) -> FileInfo:
        """See `Files.link`."""
        check_name(name)
        if file.volume != directory.volume or file.snapshot:
            raise CrossesVolumes("a hard link stays in its volume")
        volume = await self._writable(directory)

        async def body(change: Change) -> Found:
            change.by = by
            above = await self._open_directory(change, directory)
            permission.demand(above, Want.EXECUTE, caller, "link")
            await self._absent(change, directory, name)
            permission.demand_entry(above, caller, "link")
            old = await self._by_ref(change.rows, volume, file)
            if old.is_directory or old.inode.kind == rows.DIRECTORY:
                raise NotPermitted("directories have one name")
            inode = await self._apart(change, file, old)
            if inode.links >= LINKS_MAX:
                raise TooManyLinks(f"inode {file.inode} has {LINKS_MAX} names")
            if inode.orphan:
                await change.rows.delete(keys.orphan_key(file.inode))
                inode = msgspec.structs.replace(inode, directory=directory.inode, name=name)
            path = await self._path(change, directory, name, is_directory=False)
            await change.make_way(path)
            await supersede(change, path)
            entry = Name(
                change.epoch,
                inode.kind,
                file.inode,
                sequence=await next_sequence(change, path),
                nonce=rows.NULL_VERSION if change.versioning != "on" else secrets.randbits(63) | 1,
                modified_ns=change.now_ns,
                owner=inode.owner,
            )
            await change.put_name(path, entry)
            inode = msgspec.structs.replace(
                inode, links=inode.links + 1, orphan=False, changed_ns=change.now_ns
            )
            inode = await put_inode(change, file.inode, inode)
            change.tell(event_of("link", change, directory.inode, name, file.inode, caller))
            return Found(entry, inode, directory.inode, name)

        async with self.opens.changing(volume.number, file.inode, FOR_WRITE, by=by):
            found = await self.namespace.change(directory.volume, body)
        return await self._info(volume, directory, found)

    async def _apart(self, change: Change, file: Ref, found: Found) -> Inode:
        """Return the file's inode row, making it where its name was all there was."""
        inode = await inode_row(change.rows, file.inode)
        if inode is not None:
            return inode
        path = await self._path(
            change, Ref(file.volume, found.directory), found.raw, is_directory=False
        )
        if path.current is None or path.current.inode != file.inode:
            raise StaleHandle(f"inode {file.inode} is gone")
        return await self.inodes.set_apart(change, path)

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
        """See `Files.rename`."""
        check_name(source_name)
        check_name(target_name)
        if how & Rename.EXCHANGE and how != Rename.EXCHANGE:
            raise InvalidArgument("what is exchanged is there before, and leaves nothing behind")
        if source.volume != target.volume:
            raise CrossesVolumes(f"from volume {source.volume!r} to {target.volume!r}")
        volume = await self._writable(source)
        await self._writable(target)
        stored = self._rows(volume)
        touched = [
            found
            for place, name in ((source, source_name), (target, target_name))
            if (found := await self._find(stored, volume, place.inode, name)) is not None
        ]
        same = len(touched) == 2 and touched[0].number == touched[1].number
        if same and not how & (Rename.NOREPLACE | Rename.EXCHANGE):
            return  # POSIX: two names of one file: nothing happens
        asked = {each.number for each in touched}

        async def body(change: Change) -> None:
            change.by = by
            await self._rename(
                change, volume, source, source_name, target, target_name, caller, how
            )
            change.disturbed -= asked

        async with AsyncExitStack() as asking:
            for number in sorted(asked):
                await asking.enter_async_context(
                    self.opens.changing(volume.number, number, FOR_NAMES, by=by)
                )
                await self.inodes.settle(volume.number, number)
            await self.namespace.change(source.volume, body)

    async def _rename(
        self,
        change: Change,
        volume: Volume,
        source: Ref,
        source_name: bytes,
        target: Ref,
        target_name: bytes,
        caller: Caller,
        how: Rename,
    ) -> None:
        from_above = await self._open_directory(change, source)
        to_above = await self._open_directory(change, target)
        for above in (from_above, to_above):
            permission.demand(above, Want.EXECUTE, caller, "rename")
        moved = await self._existing(change, source, source_name)
        there = await self._find(change.rows, change.rows.volume, target.inode, target_name)
        permission.demand_removal(from_above, moved.inode, caller, "rename")
        self._demand_move(to_above, moved, source, target, caller)
        if target_name == SNAPSHOTS_NAME and target.inode == keys.ROOT:
            raise ReadOnly("snapshots are made by snapshot commands")
        if there is not None:
            if how & Rename.NOREPLACE:
                raise AlreadyExists(f"{target_name!r} exists in directory {target.inode}")
            permission.demand_removal(to_above, there.inode, caller, "rename")
            if how & Rename.EXCHANGE:
                self._demand_move(from_above, there, target, source, caller)
            if there.number == moved.number and not how & Rename.EXCHANGE:
                return
        elif how == Rename.EXCHANGE:
            raise NotFound(f"no {target_name!r} in directory {target.inode}")
        for each in (moved, there) if there is not None else (moved,):
            self.opens.check_share(volume.number, each.number, Access.DELETE)
        either = moved.is_directory or (there is not None and there.is_directory)
        if change.lock is not None and either:
            # It would take the versions below it along: what is retained under a key has to stay there.
            raise CrossesVolumes("directories of a volume with object lock keep their names")
        await self._no_circle(change, moved, target)
        if how == Rename.EXCHANGE:
            assert there is not None
            await self._no_circle(change, there, source)
            first = await self._lift(change, source, moved)
            second = await self._lift(change, target, there)
            await self._land(change, target, target_name, moved, first)
            await self._land(change, source, source_name, there, second)
        else:
            if there is not None:
                if moved.is_directory and not there.is_directory:
                    raise NotADirectory(f"{target_name!r} is no directory")
                if there.is_directory and not moved.is_directory:
                    raise IsADirectory(f"{target_name!r} is a directory")
            lifted = await self._lift(change, source, moved)
            if there is not None and there.is_directory:
                await self._drop_directory(change, target, there)
            elif there is not None and there.name.kind != rows.FILE:
                await self._drop_file(change, target, there)
            await self._land(change, target, target_name, moved, lifted)
            if how & Rename.WHITEOUT:
                white = new_inode(change, rows.SPECIAL, _TYPE_BITS["character"], from_above, caller)
                await self._put_new(change, source, source_name, white)
        change.tell(event_of("rename", change, target.inode, target_name, moved.number, caller))

    def _demand_move(
        self, above: Inode, moved: Found, source: Ref, target: Ref, caller: Caller
    ) -> None:
        """Check that something may be put into a directory: one that moves has another `..` then, which is writing it."""
        permission.demand_entry(above, caller, "rename", subdirectory=moved.is_directory)
        if moved.is_directory and source.inode != target.inode:
            permission.demand(moved.inode, Want.WRITE, caller, "rename")

    async def _no_circle(self, change: Change, moved: Found, target: Ref) -> None:
        """Refuse to move a directory below itself."""
        if not moved.is_directory:
            return
        number = change.rows.volume.number
        node = target.inode
        for _ in range(DEPTH_MAX):
            if node == moved.number:
                raise InvalidArgument("a directory cannot be moved below itself")
            if node == keys.ROOT:
                return
            inode = await inode_row(change.rows, node)
            if inode is not None and inode.directory:
                node = inode.directory
                continue
            place = self._places.get((number, node))
            if place is None:
                raise StaleHandle(f"directory {node} is gone")
            node = place[0]
        raise StaleHandle(f"directory {target.inode} lies too deep")

    async def _lift(self, change: Change, place: Ref, moved: Found) -> Name:
        """Take a name from its place without dropping what it leads to; return its row."""
        path = await self._path(change, place, moved.raw, is_directory=moved.is_directory)
        name = path.current
        assert name is not None
        if moved.is_directory:
            if change.versioned:
                kept = keys.kept_directory_key(*path.place)
                if await change.rows.get(kept) is not None:
                    await change.rows.delete(kept)
                    await change.prune_versions(path)
            await change.drop_name(path)
            return name
        if name.kind == rows.FILE and name.revision:
            await self.inodes.set_apart(change, path)
            name = path.current
            assert name is not None
        if name.kind == rows.FILE and change.versioned:
            # The old name keeps what it had as a version behind a marker; the file goes on at the new one.
            inode = await inode_row(change.rows, name.inode)
            assert inode is not None
            version = msgspec.structs.replace(
                name,
                born=change.epoch,
                inode=await change.take_id(),  # the file goes on elsewhere
                revision=inode.revision,
                size=inode.size,
                etag=inode.etag,
                modified_ns=inode.modified_ns,
            )
            if change.versioning == "on" or name.nonce:
                await change.hold(inode.revision, path.holder(name.sequence))
                await put_inode(change, name.inode, msgspec.structs.replace(inode, shared=True))
                await keep_version(change, path, version)
                live = self.inodes.live(change.rows.volume.number, name.inode)
                if live is not None:
                    live.inode = msgspec.structs.replace(live.inode, shared=True)
            if change.versioning == "suspended":
                await drop_null(change, path)  # the marker is the null version from now on
            await put_marker(change, path)
        if name.kind == rows.FILE:
            change.count(objects=-1, bytes=-name.size)  # counted again where it lands
        await take_row(change, path)
        return name

    async def _land(
        self, change: Change, place: Ref, raw: bytes, moved: Found, lifted: Name
    ) -> None:
        """Put a lifted name at its new place, in place of a file that may be there."""
        path = await self._path(change, place, raw, is_directory=moved.is_directory)
        await change.make_way(path)
        kept = keys.kept_directory_key(*path.place)
        if moved.is_directory and change.versioned and await change.rows.get(kept) is not None:
            # Two histories under one name would have to be merged: clients copy instead.
            raise CrossesVolumes(f"there are versions of what was in {raw!r} before")
        if not moved.is_directory:
            await supersede(change, path)
            lifted = msgspec.structs.replace(
                lifted,
                sequence=await next_sequence(change, path),
                nonce=rows.NULL_VERSION if change.versioning != "on" else secrets.randbits(63) | 1,
            )
            path.names = path.names[: len(path.steps) - 1]
        elif lifted.kind == rows.IMPLIED:  # from now on its inode's row says where it is
            lifted = msgspec.structs.replace(lifted, kind=rows.DIRECTORY)
        await change.put_name(path, msgspec.structs.replace(lifted, born=change.epoch))
        history = keys.versions_of(moved.number)
        if moved.is_directory and change.versioned and await change.rows.scan(*history, limit=1):
            await change.keep_directories(path)
            await change.rows.put(
                keys.kept_directory_key(*path.place),
                encode(Name(change.epoch, rows.DIRECTORY, moved.number)),
            )
        inode = await inode_row(change.rows, moved.number)
        if inode is None:
            inode = msgspec.structs.replace(moved.inode, born=change.epoch)
        await put_inode(
            change,
            moved.number,
            msgspec.structs.replace(
                inode, directory=place.inode, name=raw, changed_ns=change.now_ns
            ),
        )
        if moved.is_directory:
            self._remember(change.rows.volume.number, moved.number, place.inode, raw)


async def take_row(change: Change, path: Path) -> None:
    """Remove the row at the end of a path, when its content has gone elsewhere and was counted there."""
    directory, component = path.place
    await change.note_places(path)
    await change.rows.delete(keys.name_key(directory, component))
    change.touch(path.directory())
    for index in range(len(path.steps) - 2, -1, -1):
        if path.names[index].kind != rows.CONTINUED:
            return
        node = path.nodes[index + 1]
        if await change.rows.scan(*keys.names_of(node), limit=1):
            return
        await change.rows.delete(keys.name_key(path.nodes[index], path.steps[index].key))


def new_inode(change: Change, kind: int, mode: int, above: Inode, caller: Caller) -> Inode:
    """Return the inode of a new entry; a set-group-id directory hands its group down."""
    now = change.now_ns
    acl = None
    if kind != rows.SYMLINK:
        directory = kind == rows.DIRECTORY
        mode = permission.made_mode(mode, above, caller, directory=directory)
        acl, mode = acls.inherited(above.acl, mode, caller.umask, directory=directory)
    return Inode(
        born=change.epoch,
        kind=kind,
        mode=mode,
        acl=acl,
        uid=caller.uid,
        gid=above.gid if above.mode & permission.SETGID else caller.gid,
        accessed_ns=now,
        modified_ns=now,
        changed_ns=now,
        created_ns=now,
        owner=caller.name,
    )


def event_of(
    verb: str, change: Change, directory: int, name: bytes, inode: int, caller: Caller
) -> Event:
    """Return what the change feed says of a verb."""
    return Event(
        verb, change.now_ns, directory=directory, name=name, inode=inode, actor=caller.name
    )
