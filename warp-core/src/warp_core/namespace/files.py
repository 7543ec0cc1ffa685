"""The Files view over the namespace: names, attributes and handles; content is `contents.py`, inodes are `apart.py`."""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, Final, Literal

import msgspec
from xxhash import xxh3_64_intdigest

from warp_core.errors import (
    AlreadyExists,
    CrossesVolumes,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    PermissionDenied,
    ReadOnly,
    StaleHandle,
    TooLarge,
    TooManyLinks,
    Unsupported,
)
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.metadata import counters
from warp_core.namespace import access as permission
from warp_core.namespace import keys, rows
from warp_core.namespace.apart import Fresh, Inodes, VolumeLedger, inode_row, name_at, put_inode
from warp_core.namespace.changes import Change, Path, resolve
from warp_core.namespace.contents import Content, load_layer
from warp_core.namespace.inodes import Inode, implied_directory, implied_file
from warp_core.namespace.leases import FOR_NAMES, FOR_READ, FOR_WRITE
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.openfiles import NamespaceFile
from warp_core.namespace.opens import HERE, Access, Node, Owner
from warp_core.namespace.rows import Event, Name, Revision, decode_name, encode
from warp_core.namespace.tree import Rows, Volume
from warp_core.views.files import (
    LINKS_MAX,
    NAME_MAX,
    ROOT,
    TARGET_MAX,
    XATTR_NAME_MAX,
    XATTRS_MAX,
    Caller,
    DirEntry,
    FileInfo,
    FileKind,
    Files,
    OpenFile,
    Ref,
    Rename,
    SetInfo,
    SpaceInfo,
    Want,
)

PLACES_MAX: Final = 65_536  # directories born over S3 whose parent is remembered
READDIRS_MAX: Final = 64  # directories whose order of cookies is remembered
DEPTH_MAX: Final = 1_024  # directories below one another: a key of S3 cannot have more
SNAPSHOTS_NAME: Final = b".snapshots"
SNAPSHOTS_INODE: Final = 2  # below the first number that is handed out
_KINDS: Final[dict[int, FileKind]] = {
    rows.FILE: "file",
    rows.DIRECTORY: "directory",
    rows.IMPLIED: "directory",
    rows.SYMLINK: "symlink",
}
_SPECIAL: Final[dict[int, FileKind]] = {
    0o010000: "fifo",
    0o140000: "socket",
    0o060000: "block",
    0o020000: "character",
}
_TYPE_BITS: Final[dict[FileKind, int]] = {kind: bits for bits, kind in _SPECIAL.items()}


_Make = Callable[[Change, Inode], Awaitable[tuple[Name, Inode]]]
_Stat = Callable[[Ref], Awaitable[FileInfo]]


class Found(msgspec.Struct, frozen=True):
    """A file as a lookup finds it: its name's row, and its inode, real or implied."""

    name: Name
    inode: Inode
    directory: int
    raw: bytes

    @property
    def number(self) -> int:
        """The inode's number."""
        return self.name.inode

    @property
    def is_directory(self) -> bool:
        """Say whether it is a directory, made or implied."""
        return self.name.kind in (rows.DIRECTORY, rows.IMPLIED)


class NamespaceFiles(Files):
    """The view. `inodes` is shared with whoever else changes inodes."""

    handle: ClassVar[type[NamespaceFile]] = NamespaceFile

    def __init__(self, namespace: Namespace, inodes: Inodes) -> None:
        self.namespace = namespace
        self.inodes = inodes
        self.opens = inodes.opens
        self._places: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()
        self._orders: OrderedDict[tuple[int, int, int], _Order] = OrderedDict()
        self._names: dict[int, str] = {}
        self._collecting: set[asyncio.Task[None]] = set()
        self.opens.on_last_close(self._closed)

    # Volumes --------------------------------------------------------------------------------------

    async def _volume(self, ref_or_name: Ref | str) -> Volume:
        if isinstance(ref_or_name, str):
            name, snapshot = ref_or_name, ""
        else:
            name, snapshot = ref_or_name.volume, ref_or_name.snapshot
        volume = await self.namespace.volumes.get(f"{name}.snap-{snapshot}" if snapshot else name)
        if not snapshot:
            self._names[volume.number] = name
        return volume

    def _rows(self, volume: Volume) -> Rows:
        return Fresh(self.namespace, volume)

    async def number(self, volume: str) -> int:
        """See `Files.number`."""
        return (await self._volume(volume)).number

    async def root(self, volume: str, *, snapshot: str = "") -> Ref:
        """See `Files.root`."""
        ref = Ref(volume, keys.ROOT, snapshot=snapshot)
        await self._volume(ref)
        return ref

    # Finding --------------------------------------------------------------------------------------

    async def _inode(self, stored: Rows, volume: Volume, name: Name) -> Inode:
        """Return the inode that a name leads to, as its row or its name says, and what was written since."""
        if name.kind in (rows.IMPLIED, rows.DIRECTORY):
            found = await inode_row(stored, name.inode)
            inode = found or implied_directory(name, name.modified_ns)
            times = await _times(stored, volume, name.inode)
            changed = counters(times, 1)[0]
            return msgspec.structs.replace(
                inode,
                modified_ns=max(inode.modified_ns, changed),
                changed_ns=max(inode.changed_ns, changed),
            )
        found = await inode_row(stored, name.inode) if name.revision == 0 else None
        inode = found or implied_file(name)
        return inode if volume.snapshot else self._lively(volume.number, name.inode, inode)

    def _lively(self, volume: int, number: int, inode: Inode) -> Inode:
        content = self.inodes.live(volume, number)
        if content is None or not content.dirty:
            return inode
        return msgspec.structs.replace(
            inode,
            size=content.size,
            modified_ns=max(inode.modified_ns, content.modified_ns),
            changed_ns=max(inode.changed_ns, content.modified_ns),
            change=inode.change + content.changes,
        )

    async def _find(self, stored: Rows, volume: Volume, directory: int, raw: bytes) -> Found | None:
        """Return what an entry of a directory leads to; a directory hides an object of the same name."""
        for is_directory in (True, False):
            name = await name_at(stored, directory, raw, is_directory=is_directory)
            if name is not None:
                if is_directory:
                    self._remember(volume.number, name.inode, directory, raw)
                return Found(name, await self._inode(stored, volume, name), directory, raw)
        return None

    def _remember(self, volume: int, number: int, directory: int, raw: bytes) -> None:
        places = self._places
        places[volume, number] = (directory, raw)
        places.move_to_end((volume, number))
        if len(places) > PLACES_MAX:
            places.popitem(last=False)

    async def _directory(self, stored: Rows, volume: Volume, ref: Ref) -> Inode:
        """Return the inode of a directory.

        Raises:
            NotADirectory, StaleHandle
        """
        if ref.inode == keys.ROOT:
            row = await inode_row(stored, keys.ROOT)
            times = await _times(stored, volume, keys.ROOT)
            changed = max(counters(times, 1)[0], volume.row.created_ns)
            root = row or implied_directory(Name(0, rows.DIRECTORY, keys.ROOT), changed)
            return msgspec.structs.replace(root, modified_ns=max(root.modified_ns, changed))
        found = await self._by_ref(stored, volume, ref)
        if found.inode.kind != rows.DIRECTORY:
            raise NotADirectory(f"inode {ref.inode} is no directory")
        return found.inode

    async def _by_ref(self, stored: Rows, volume: Volume, ref: Ref) -> Found:
        """Return the file that a ref names, wherever its name is now.

        Raises:
            StaleHandle: It is gone.
        """
        inode = await inode_row(stored, ref.inode)
        if inode is not None:
            if inode.kind == rows.DIRECTORY:
                name = Name(inode.born, rows.DIRECTORY, ref.inode)
                return Found(
                    name, await self._inode(stored, volume, name), inode.directory, inode.name
                )
            name = Name(inode.born, inode.kind, ref.inode, owner=inode.owner)
            live = inode if volume.snapshot else self._lively(volume.number, ref.inode, inode)
            return Found(name, live, inode.directory, inode.name)
        place = self._places.get((volume.number, ref.inode)) or (ref.directory, ref.name)
        if place[0]:
            found = await self._find(stored, volume, *place)
            if found is not None and found.number == ref.inode:
                return found
            plain = await name_at(stored, *place, is_directory=False)
            if plain is not None and plain.inode == ref.inode:  # hidden by a directory since
                return Found(plain, await self._inode(stored, volume, plain), *place)
        raise StaleHandle(f"inode {ref.inode} of volume {ref.volume!r} is gone")

    async def _key(self, stored: Rows, volume: int, directory: int) -> bytes:
        """Return the S3 key prefix of a directory: its path with a slash behind each name.

        Raises:
            StaleHandle: It, or one above it, is gone, or was found by nobody since the start.
        """
        parts: list[bytes] = []
        while directory != keys.ROOT:
            inode = await inode_row(stored, directory)
            place = (
                (inode.directory, inode.name)
                if inode is not None and inode.directory
                else self._places.get((volume, directory))
            )
            if place is None or len(parts) > DEPTH_MAX:
                raise StaleHandle(f"directory {directory} is gone")
            parts.append(place[1] + b"/")
            directory = place[0]
        return b"".join(reversed(parts))

    async def _path(
        self, change: Change, directory: Ref, raw: bytes, *, is_directory: bool
    ) -> Path:
        """Return the path from the root to an entry of a directory.

        Raises:
            StaleHandle: The directory is not where it was.
        """
        prefix = await self._key(change.rows, change.rows.volume.number, directory.inode)
        steps = keys.steps(prefix + raw + (b"/" if is_directory else b""))
        if is_directory:
            steps = steps[:-1]
        path = await resolve(change.rows, steps, prefix + raw)
        above = len(steps) - len(keys.name_steps(raw, directory=is_directory))
        if len(path.nodes) <= above or path.nodes[above] != directory.inode:
            raise StaleHandle(f"directory {directory.inode} is gone")
        return path

    async def _info(self, volume: Volume, ref: Ref, found: Found) -> FileInfo:
        inode = found.inode
        kind = _KINDS.get(found.name.kind) or _SPECIAL.get(inode.mode & 0o170000, "fifo")
        return FileInfo(
            ref=Ref(ref.volume, found.number, found.directory, found.raw, ref.snapshot),
            kind=kind,
            size=len(inode.target) if kind == "symlink" else inode.size,
            mode=inode.mode & 0o7777,
            uid=inode.uid,
            gid=inode.gid,
            links=inode.links,
            allocated=inode.allocated,
            accessed_ns=inode.accessed_ns,
            modified_ns=inode.modified_ns,
            changed_ns=inode.changed_ns,
            born_ns=inode.created_ns,
            change=inode.change,
            device=inode.device,
            disk=inode.disk,
            attributes=inode.attributes,
        )

    # Names ----------------------------------------------------------------------------------------

    async def lookup(self, directory: Ref, name: bytes, caller: Caller = ROOT) -> FileInfo:
        """See `Files.lookup`."""
        check_name(name)
        volume = await self._volume(directory)
        stored = self._rows(volume)
        if directory.inode == SNAPSHOTS_INODE:
            return await self._snapshot_info(directory, name)
        above = await self._directory(stored, volume, directory)
        permission.demand(above, Want.EXECUTE, caller, "lookup")
        if name == SNAPSHOTS_NAME and directory.inode == keys.ROOT and not directory.snapshot:
            return await self._snapshots_info(directory.volume)
        found = await self._find(stored, volume, directory.inode, name)
        if found is None:
            raise NotFound(f"no {name!r} in directory {directory.inode} of {directory.volume!r}")
        return await self._info(volume, directory, found)

    async def walk(self, volume: str, path: bytes, caller: Caller = ROOT) -> FileInfo:
        """See `Files.walk`."""
        ref = await self.root(volume)
        parts = [part for part in path.split(b"/") if part]
        if not parts:
            return await self.getattr(ref)
        for part in parts:
            info = await self.lookup(ref, part, caller)
            ref = info.ref
        return info

    async def lookup_parent(self, volume: str, path: bytes) -> Ref:
        """Return the directory in which the last name of a path is."""
        above = path.rstrip(b"/").rpartition(b"/")[0]
        return (await self.walk(volume, above)).ref

    async def path_of(self, volume: str, number: int) -> bytes | None:
        """Return the path of an inode by the name that it was last given; None if that leads elsewhere now."""
        found = await self._volume(volume)
        stored = self._rows(found)
        inode = await inode_row(stored, number)
        if inode is None or not inode.directory:
            return None
        try:
            above = await self._key(stored, found.number, inode.directory)
        except StaleHandle:
            return None
        there = await self._find(stored, found, inode.directory, inode.name)
        return above + inode.name if there is not None and there.number == number else None

    async def parent(self, directory: Ref) -> Ref:
        """See `Files.parent`."""
        if directory.inode in (keys.ROOT, SNAPSHOTS_INODE):
            return Ref(directory.volume, keys.ROOT, snapshot=directory.snapshot)
        volume = await self._volume(directory)
        stored = self._rows(volume)
        found = await self._by_ref(stored, volume, directory)
        if found.directory == keys.ROOT:
            return Ref(directory.volume, keys.ROOT, snapshot=directory.snapshot)
        above = await inode_row(stored, found.directory)
        place = (
            (above.directory, above.name)
            if above is not None
            else self._places.get((volume.number, found.directory), (0, b""))
        )
        return Ref(directory.volume, found.directory, *place, directory.snapshot)

    async def readdir(
        self, directory: Ref, *, cookie: int = 0, limit: int = 1000, caller: Caller = ROOT
    ) -> tuple[Sequence[DirEntry], bool]:
        """See `Files.readdir`."""
        volume = await self._volume(directory)
        if directory.inode == SNAPSHOTS_INODE:
            return await self._list_snapshots(directory, cookie, limit)
        stored = self._rows(volume)
        above = await self._directory(stored, volume, directory)
        permission.demand(above, Want.READ, caller, "readdir")
        order = await self._order(stored, volume, directory.inode, fresh=cookie == 0)
        start = bisect_right(order.cookies, cookie)
        stop = min(start + limit, len(order.cookies))
        entries = []
        for at in range(start, stop):
            raw, name = order.names[at]
            entries.append(
                DirEntry(
                    name=raw,
                    ref=Ref(directory.volume, name.inode, directory.inode, raw, directory.snapshot),
                    kind=_KINDS.get(name.kind) or "fifo",
                    cookie=order.cookies[at],
                )
            )
            if name.kind in (rows.IMPLIED, rows.DIRECTORY):
                self._remember(volume.number, name.inode, directory.inode, raw)
        return entries, stop == len(order.cookies)

    async def _order(self, stored: Rows, volume: Volume, directory: int, *, fresh: bool) -> _Order:
        """Return a directory's entries in the order of cookies: hashes of names, so that a cookie means the same for ever.

        What is remembered from page to page is only a shortcut: it is made anew from the rows whenever it is gone.
        """
        key = (volume.number, volume.snapshot, directory)
        order = self._orders.get(key)
        if order is None or fresh or not order.current(await _times(stored, volume, directory)):
            stamp = await _times(stored, volume, directory)
            order = self._orders[key] = _Order(await _entries(stored, directory), stamp)
            if len(self._orders) > READDIRS_MAX:
                self._orders.popitem(last=False)
        self._orders.move_to_end(key)
        return order

    async def mkdir(
        self, directory: Ref, name: bytes, mode: int, caller: Caller = ROOT
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
            inode = _new_inode(change, rows.DIRECTORY, mode & 0o7777, above, caller)
            inode = msgspec.structs.replace(
                inode,
                links=2,
                directory=directory.inode,
                name=name,
                mode=inode.mode | (above.mode & permission.SETGID),
            )
            return entry, await put_inode(change, number, inode)

        return await self._make(directory, name, caller, "mkdir", make)

    async def symlink(
        self, directory: Ref, name: bytes, target: bytes, caller: Caller = ROOT
    ) -> FileInfo:
        """See `Files.symlink`."""
        if not target or b"\0" in target:
            raise InvalidArgument(f"target {target[:40]!r} of a symbolic link")
        if len(target) > TARGET_MAX:
            raise NameTooLong(f"target of {len(target)} bytes > TARGET_MAX {TARGET_MAX}")

        async def make(change: Change, above: Inode) -> tuple[Name, Inode]:
            inode = _new_inode(change, rows.SYMLINK, 0o777, above, caller)
            return await self._put_new(
                change, directory, name, msgspec.structs.replace(inode, target=target)
            )

        return await self._make(directory, name, caller, "symlink", make)

    async def readlink(self, file: Ref) -> bytes:
        """See `Files.readlink`."""
        volume = await self._volume(file)
        found = await self._by_ref(self._rows(volume), volume, file)
        if found.inode.kind != rows.SYMLINK:
            raise InvalidArgument(f"inode {file.inode} is no symbolic link")
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
    ) -> FileInfo:
        """See `Files.mknod`."""
        bits = _TYPE_BITS.get(kind)
        if bits is None:
            raise InvalidArgument(f"mknod makes fifos, sockets and devices, not a {kind}")
        if kind in ("block", "character") and not caller.superuser:
            raise PermissionDenied("device nodes are the superuser's to make")

        async def make(change: Change, above: Inode) -> tuple[Name, Inode]:
            inode = _new_inode(change, rows.SPECIAL, bits | mode & 0o7777, above, caller)
            return await self._put_new(
                change, directory, name, msgspec.structs.replace(inode, device=device)
            )

        return await self._make(directory, name, caller, "mknod", make)

    async def _make(
        self, directory: Ref, name: bytes, caller: Caller, verb: str, make: _Make
    ) -> FileInfo:
        """Make an entry that must not be there yet."""
        check_name(name)
        volume = await self._writable(directory)

        async def body(change: Change) -> Found:
            above = await self._open_directory(change, directory)
            permission.demand(above, Want.WRITE | Want.EXECUTE, caller, verb)
            await self._absent(change, directory, name)
            entry, inode = await make(change, above)
            change.tell(_event(verb, change, directory.inode, name, entry.inode, caller))
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
        number = await change.take_id()
        entry = Name(
            change.epoch,
            inode.kind,
            number,
            sequence=await change.next_sequence(path),
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

    async def _open_directory(self, change: Change, directory: Ref) -> Inode:
        """Return a directory whose entries are about to change: from now on it stays when it is empty."""
        if directory.inode == SNAPSHOTS_INODE:
            raise ReadOnly("snapshots are made by snapshot commands")
        volume = change.rows.volume
        inode = await self._directory(change.rows, volume, directory)
        if directory.inode == keys.ROOT:
            return inode
        found = await self._by_ref(change.rows, volume, directory)
        if found.directory and found.name.kind == rows.IMPLIED:
            above = Ref(directory.volume, found.directory)
            path = await self._path(change, above, found.raw, is_directory=True)
            current = path.current
            assert current is not None
            made = msgspec.structs.replace(current, kind=rows.DIRECTORY, born=change.epoch)
            await change.rows.put(keys.name_key(*path.place), encode(made))
            inode = msgspec.structs.replace(inode, directory=found.directory, name=found.raw)
            inode = await put_inode(change, directory.inode, inode)
        return inode

    async def _writable(self, ref: Ref) -> Volume:
        if ref.snapshot:
            raise ReadOnly(f"snapshot {ref.snapshot!r} is read only")
        await self.namespace.volumes.writable(ref.volume)
        return await self._volume(ref)

    async def rmdir(self, directory: Ref, name: bytes, caller: Caller = ROOT) -> None:
        """See `Files.rmdir`."""
        check_name(name)
        await self._writable(directory)

        async def body(change: Change) -> None:
            above = await self._open_directory(change, directory)
            found = await self._existing(change, directory, name)
            if not found.is_directory:
                raise NotADirectory(f"{name!r} is no directory")
            permission.demand_removal(above, found.inode, caller, "rmdir")
            await self._drop_directory(change, directory, found)
            change.tell(_event("rmdir", change, directory.inode, name, found.number, caller))

        await self.namespace.change(directory.volume, body)

    async def _drop_directory(self, change: Change, directory: Ref, found: Found) -> None:
        if await change.rows.scan(*keys.names_of(found.number), limit=1):
            raise NotEmpty(f"directory {found.raw!r} is not empty")
        path = await self._path(change, directory, found.raw, is_directory=True)
        await change.drop_name(path)
        if await inode_row(change.rows, found.number) is not None:
            await change.rows.delete(keys.inode_key(found.number))
        change.rows.delete_present(keys.times_key(found.number))

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
                above = await self._open_directory(change, directory)
                found = await self._existing(change, directory, name)
                if found.is_directory:
                    raise IsADirectory(f"{name!r} is a directory")
                permission.demand_removal(above, found.inode, caller, "unlink")
                self.opens.check_share(volume.number, found.number, Access.DELETE)
                await self._drop_file(change, directory, found)
                change.tell(_event("unlink", change, directory.inode, name, found.number, caller))
                change.disturbed.clear()  # asked above

            await self.namespace.change(directory.volume, body)

    async def _drop_file(self, change: Change, directory: Ref, found: Found) -> None:
        """Take a name away that is no directory; on a versioned volume a marker takes its place."""
        path = await self._path(change, directory, found.raw, is_directory=False)
        if found.name.kind == rows.FILE:
            await change.supersede(path)
            if change.versioned:
                await change.put_marker(path)
            await _take_row(change, path)
            return
        inode = await inode_row(change.rows, found.number)
        await change.drop_name(path)
        if inode is not None and inode.links > 1:
            await put_inode(
                change, found.number, msgspec.structs.replace(inode, links=inode.links - 1)
            )
        else:
            await change.rows.delete(keys.inode_key(found.number))

    async def link(self, file: Ref, directory: Ref, name: bytes, caller: Caller = ROOT) -> FileInfo:
        """See `Files.link`."""
        check_name(name)
        if file.volume != directory.volume or file.snapshot:
            raise CrossesVolumes("a hard link stays in its volume")
        volume = await self._writable(directory)

        async def body(change: Change) -> Found:
            above = await self._open_directory(change, directory)
            permission.demand(above, Want.WRITE | Want.EXECUTE, caller, "link")
            await self._absent(change, directory, name)
            old = await self._by_ref(change.rows, volume, file)
            if old.is_directory or old.inode.kind == rows.DIRECTORY:
                raise PermissionDenied("directories have one name")
            inode = await self._apart(change, file, old)
            if inode.links >= LINKS_MAX:
                raise TooManyLinks(f"inode {file.inode} has {LINKS_MAX} names")
            if inode.orphan:
                change.rows.delete_present(keys.orphan_key(file.inode))
            path = await self._path(change, directory, name, is_directory=False)
            await change.make_way(path)
            entry = Name(
                change.epoch,
                inode.kind,
                file.inode,
                sequence=await change.next_sequence(path),
                nonce=rows.NULL_VERSION if change.versioning != "on" else secrets.randbits(63) | 1,
                modified_ns=change.now_ns,
                owner=inode.owner,
            )
            await change.put_name(path, entry)
            inode = msgspec.structs.replace(
                inode, links=inode.links + 1, orphan=False, changed_ns=change.now_ns
            )
            inode = await put_inode(change, file.inode, inode)
            change.tell(_event("link", change, directory.inode, name, file.inode, caller))
            return Found(entry, inode, directory.inode, name)

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
        if len(touched) == 2 and touched[0].number == touched[1].number and how == Rename.REPLACE:
            return  # POSIX: two names of one file: nothing happens
        for number in sorted({each.number for each in touched}):
            await self.opens.recall(volume.number, number, FOR_NAMES, by=by)
            await self.inodes.settle(volume.number, number)

        async def body(change: Change) -> None:
            await self._rename(
                change, volume, source, source_name, target, target_name, caller, how
            )

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
        moved = await self._existing(change, source, source_name)
        there = await self._find(change.rows, change.rows.volume, target.inode, target_name)
        permission.demand_removal(from_above, moved.inode, caller, "rename")
        permission.demand(to_above, Want.WRITE | Want.EXECUTE, caller, "rename")
        if target_name == SNAPSHOTS_NAME and target.inode == keys.ROOT:
            raise ReadOnly("snapshots are made by snapshot commands")
        if there is not None:
            if how == Rename.NOREPLACE:
                raise AlreadyExists(f"{target_name!r} exists in directory {target.inode}")
            permission.demand_removal(to_above, there.inode, caller, "rename")
            if there.number == moved.number and how == Rename.REPLACE:
                return
        elif how == Rename.EXCHANGE:
            raise NotFound(f"no {target_name!r} in directory {target.inode}")
        for each in (moved, there) if there is not None else (moved,):
            self.opens.check_share(volume.number, each.number, Access.DELETE)
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
        change.tell(_event("rename", change, target.inode, target_name, moved.number, caller))

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
                revision=inode.revision,
                size=inode.size,
                etag=inode.etag,
                modified_ns=inode.modified_ns,
            )
            if change.versioning == "on" or name.nonce:
                change.hold(inode.revision, change.holder(path, name.sequence))
                await put_inode(change, name.inode, msgspec.structs.replace(inode, shared=True))
                await change.keep_version(path, version)
                live = self.inodes.live(change.rows.volume.number, name.inode)
                if live is not None:
                    live.inode = msgspec.structs.replace(live.inode, shared=True)
            await change.put_marker(path)
        if name.kind == rows.FILE:
            change.count(objects=-1, bytes=-name.size)  # counted again where it lands
        await _take_row(change, path)
        return name

    async def _land(
        self, change: Change, place: Ref, raw: bytes, moved: Found, lifted: Name
    ) -> None:
        """Put a lifted name at its new place, in place of a file that may be there."""
        path = await self._path(change, place, raw, is_directory=moved.is_directory)
        await change.make_way(path)
        if not moved.is_directory:
            if path.current is not None:
                await change.supersede(path)
            lifted = msgspec.structs.replace(
                lifted,
                sequence=await change.next_sequence(path),
                nonce=rows.NULL_VERSION if change.versioning != "on" else secrets.randbits(63) | 1,
            )
            path.names = path.names[: len(path.steps) - 1]
        await change.put_name(path, msgspec.structs.replace(lifted, born=change.epoch))
        history = keys.versions_of(moved.number)
        if moved.is_directory and change.versioned and await change.rows.scan(*history, limit=1):
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

    # Files ----------------------------------------------------------------------------------------

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
            there = await self._find(change.rows, volume, directory.inode, name)
            if there is not None or (name == SNAPSHOTS_NAME and directory.inode == keys.ROOT):
                if exclusive:
                    raise AlreadyExists(f"{name!r} exists in directory {directory.inode}")
                if there is None or there.is_directory:
                    raise IsADirectory(f"{name!r} is a directory")
                above = await self._directory(change.rows, volume, directory)
                permission.demand(above, Want.EXECUTE, caller, "create")
                return there, False
            above = await self._open_directory(change, directory)
            permission.demand(above, Want.WRITE | Want.EXECUTE, caller, "create")
            inode = _new_inode(change, rows.FILE, mode & 0o7777, above, caller)
            revision = await change.take_id()
            etag = f"{secrets.token_hex(16)}-0"
            content = Revision(
                change.epoch, 0, etag, change.now_ns, owner=caller.name, windowed=True
            )
            await change.put_revision(revision, content)
            inode = msgspec.structs.replace(
                inode, revision=revision, etag=etag, folded=self.inodes.log.end()
            )
            entry, inode = await self._put_new(change, directory, name, inode)
            change.tell(_event("create", change, directory.inode, name, entry.inode, caller))
            return Found(entry, inode, directory.inode, name), True

        found, made = await self.namespace.change(directory.volume, body)
        ref = Ref(directory.volume, found.number, directory.inode, name)
        # POSIX: whoever makes a file has the access asked for, whatever its mode.
        file = await self._open(
            ref, ROOT if made else caller, owner, access, deny, truncate and not made
        )
        return file, made

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
        self, file: Ref, caller: Caller, owner: Owner, access: Access, deny: Access, truncate: bool
    ) -> NamespaceFile:
        volume = await self._volume(file)
        stored = self._rows(volume)
        found = await self._by_ref(stored, volume, file)
        if found.is_directory:
            raise IsADirectory(f"inode {file.inode} is a directory")
        if found.inode.kind != rows.FILE:
            raise Unsupported(f"inode {file.inode} is a {_KINDS.get(found.name.kind, 'special')}")
        want = Want(0)
        if access & Access.READ:
            want |= Want.READ
        if access & Access.WRITE or truncate:
            want |= Want.WRITE
        permission.demand(found.inode, want, caller, "open")
        if file.snapshot:
            if want & Want.WRITE:
                raise ReadOnly(f"snapshot {file.snapshot!r} is read only")
            return await self._open_snapshot(file, volume, found, owner, access)
        if want & Want.WRITE:
            await self.namespace.volumes.writable(file.volume)
        opened = await self.opens.open(volume.number, file.inode, owner, access, deny)
        try:
            inode = found.inode
            if want & Want.WRITE:
                inode = await self._set_apart(file)
            content = await self.inodes.take(file.volume, volume.number, file.inode, inode)
            if want & Want.WRITE and content.inode.mode != inode.mode:
                content.inode = msgspec.structs.replace(content.inode, mode=inode.mode)
        except BaseException:
            self.opens.close(opened)
            raise

        async def on_close() -> None:
            try:
                await self.inodes.give(volume.number, file.inode)
            finally:
                self.opens.close(opened)

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
        )
        if truncate and content.size:
            try:
                await self.opens.recall(volume.number, file.inode, FOR_WRITE, by=owner)
                await content.ready()
                content.truncate(0)
            except BaseException:
                await handle.close()
                raise
        return handle

    async def _open_snapshot(
        self, file: Ref, volume: Volume, found: Found, owner: Owner, access: Access
    ) -> NamespaceFile:
        ledger = VolumeLedger(self.namespace, file.volume, volume.number, volume)
        layer = await load_layer(ledger, self.inodes.log, found.inode.revision)
        content = Content(ledger, self.inodes.log, file.inode, found.inode, layer)

        async def nothing() -> None:
            return

        return self.handle(
            file, volume.number, content, self.opens, None, owner, access,
            on_close=nothing, stat=self.getattr, room=self._room,
        )  # fmt: skip

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
        await self.inodes.log.room(min(length, 512 * 1024))

    async def getattr(self, file: Ref) -> FileInfo:
        """See `Files.getattr`."""
        if file.inode == SNAPSHOTS_INODE:
            return await self._snapshots_info(file.volume)
        volume = await self._volume(file)
        stored = self._rows(volume)
        if file.inode == keys.ROOT:
            inode = await self._directory(stored, volume, file)
            name = Name(0, rows.DIRECTORY, keys.ROOT)
            return await self._info(volume, file, Found(name, inode, 0, b""))
        return await self._info(volume, file, await self._by_ref(stored, volume, file))

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

        async with self.opens.changing(volume.number, file.inode, FOR_WRITE, by=by):
            if asked.modified_ns is not None:
                await self.inodes.settle(volume.number, file.inode)
            await self.namespace.change(file.volume, body)
            await self._refresh(volume, file)
        return await self.getattr(file)

    async def _refresh(self, volume: Volume, file: Ref) -> None:
        """Tell a live content what its inode's row says now."""
        live = self.inodes.live(volume.number, file.inode)
        if live is not None:
            row = await inode_row(self._rows(volume), file.inode)
            if row is not None:
                live.inode = row
                if not live.dirty:
                    live.modified_ns = row.modified_ns

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
        return want & permission.allowed(inode, caller)

    async def xattrs(self, file: Ref) -> Mapping[bytes, bytes]:
        """See `Files.xattrs`."""
        volume = await self._volume(file)
        stored = self._rows(volume)
        if file.inode == keys.ROOT:
            return (await self._directory(stored, volume, file)).xattrs
        return (await self._by_ref(stored, volume, file)).inode.xattrs

    async def set_xattr(
        self,
        file: Ref,
        name: bytes,
        value: bytes | None,
        caller: Caller = ROOT,
        *,
        must: Literal["", "create", "replace"] = "",
    ) -> None:
        """See `Files.set_xattr`."""
        if not 0 < len(name) <= XATTR_NAME_MAX or b"\0" in name:
            raise InvalidArgument(f"attribute name of {len(name)} bytes, 1 to {XATTR_NAME_MAX}")
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
            permission.demand(old, Want.WRITE, caller, "setxattr")
            attributes = dict(old.xattrs)
            if name in attributes and must == "create":
                raise AlreadyExists(f"attribute {name!r} is there")
            if name not in attributes and (must == "replace" or value is None):
                raise NotFound(f"no attribute {name!r}")
            if value is None:
                del attributes[name]
            else:
                attributes[name] = value
            total = sum(len(key) + len(each) for key, each in attributes.items())
            if total > XATTRS_MAX:
                raise TooLarge(f"attributes of {total} bytes > XATTRS_MAX {XATTRS_MAX}")
            await put_inode(
                change,
                file.inode,
                msgspec.structs.replace(old, xattrs=attributes, changed_ns=change.now_ns),
            )

        await self.namespace.change(file.volume, body)
        await self._refresh(volume, file)

    async def statfs(self, volume: str) -> SpaceInfo:
        """See `Files.statfs`."""
        usage = await self.namespace.usage(volume)
        total, free = await self.inodes.log.space()
        return SpaceInfo(total=total, free=free, used=usage.bytes, files=usage.objects)

    async def sync(self, volume: str) -> None:
        """See `Files.sync`."""
        await self._volume(volume)
        await self.inodes.log.flush()

    # The last close -------------------------------------------------------------------------------

    def _closed(self, node: Node) -> None:
        """Collect a file that has no name, now that nobody has it open."""
        name = self._names.get(node.volume)
        if name is not None:
            task = asyncio.get_running_loop().create_task(self._collect(name, node))
            self._collecting.add(task)
            task.add_done_callback(self._collecting.discard)

    async def _collect(self, name: str, node: Node) -> None:
        inode = await inode_row(self._rows(await self._volume(name)), node.inode)
        if inode is not None and inode.orphan:
            await self.inodes.collect(name, node)
            while not await self.inodes.drain(name):
                pass

    async def settle_collections(self) -> None:
        """Wait until what is being collected is gone."""
        while self._collecting:
            await asyncio.gather(*self._collecting, return_exceptions=True)

    # Snapshots ------------------------------------------------------------------------------------

    async def _snapshots(self, volume: str) -> list[tuple[str, int]]:
        found = []
        stored = self._rows(await self._volume(volume))
        start = keys.SNAPSHOTS[0]
        while page := await stored.scan(start, keys.SNAPSHOTS[1]):
            for _, value in page:
                row = rows.decode_snapshot(value)
                if not row.state:
                    found.append((row.name, row.created_ns))
            start = page[-1][0] + b"\0"
        return found

    async def _snapshots_info(self, volume: str) -> FileInfo:
        when = max((created for _, created in await self._snapshots(volume)), default=0)
        name = Name(0, rows.DIRECTORY, SNAPSHOTS_INODE)
        inode = msgspec.structs.replace(implied_directory(name, when), mode=0o555)
        found = Found(name, inode, keys.ROOT, SNAPSHOTS_NAME)
        return await self._info(await self._volume(volume), Ref(volume, SNAPSHOTS_INODE), found)

    async def _snapshot_info(self, directory: Ref, name: bytes) -> FileInfo:
        for snapshot, _ in await self._snapshots(directory.volume):
            if snapshot.encode() == name:
                return await self.getattr(Ref(directory.volume, keys.ROOT, snapshot=snapshot))
        raise NotFound(f"volume {directory.volume!r} has no snapshot {name!r}")

    async def _list_snapshots(
        self, directory: Ref, cookie: int, limit: int
    ) -> tuple[Sequence[DirEntry], bool]:
        entries = sorted(
            (
                DirEntry(
                    name=name.encode(),
                    ref=Ref(directory.volume, keys.ROOT, snapshot=name),
                    kind="directory",
                    cookie=cookie_of(name.encode()),
                )
                for name, _ in await self._snapshots(directory.volume)
            ),
            key=lambda entry: entry.cookie,
        )
        left = [entry for entry in entries if entry.cookie > cookie]
        return left[:limit], len(left) <= limit

    async def clone(
        self,
        file: Ref,
        directory: Ref,
        name: bytes,
        caller: Caller = ROOT,
        *,
        replace: bool = False,
    ) -> FileInfo:
        """See `Files.clone`."""
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
            content.settled(),
        ):

            async def body(change: Change) -> Found:
                return await self._clone(change, file, directory, name, caller)

            found = await self.namespace.change(directory.volume, body)
            content.inode = msgspec.structs.replace(content.inode, shared=True)
        return await self._info(volume, directory, found)

    async def _clone(
        self, change: Change, file: Ref, directory: Ref, name: bytes, caller: Caller
    ) -> Found:
        above = await self._open_directory(change, directory)
        permission.demand(above, Want.WRITE | Want.EXECUTE, caller, "clone")
        await self._absent(change, directory, name)
        old = await inode_row(change.rows, file.inode)
        if old is None or old.kind != rows.FILE:
            raise StaleHandle(f"inode {file.inode} is gone, or no file")
        permission.demand(old, Want.READ, caller, "clone")
        under = await change.revision(old.revision)
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
                retain_mode="",
                retain_until_ns=0,
                legal_hold=False,
            ),
        )
        change.hold(old.revision, keys.holder_of_revision(change.rows.volume.number, revision))
        await put_inode(change, file.inode, msgspec.structs.replace(old, shared=True))
        inode = _new_inode(change, rows.FILE, old.mode, above, caller)
        inode = msgspec.structs.replace(
            inode,
            revision=revision,
            etag=old.etag,
            size=old.size,
            allocated=old.allocated,
            modified_ns=old.modified_ns,
            disk=old.disk,
            folded=self.inodes.log.end(),
        )
        entry, inode = await self._put_new(change, directory, name, inode)
        change.count(bytes=old.size)
        change.tell(_event("clone", change, directory.inode, name, entry.inode, caller))
        return Found(entry, inode, directory.inode, name)


# Pure helpers -------------------------------------------------------------------------------------


class _Order:
    """A directory's names in the order of their cookies."""

    __slots__ = ("_stamp", "cookies", "names")

    def __init__(self, entries: Sequence[tuple[int, bytes, Name]], stamp: bytes | None) -> None:
        self.cookies = [cookie for cookie, _, _ in entries]
        self.names = [(raw, name) for _, raw, name in entries]
        self._stamp = stamp

    def current(self, stamp: bytes | None) -> bool:
        """Say whether the directory's entries did not change since."""
        return stamp == self._stamp


async def _entries(stored: Rows, directory: int) -> list[tuple[int, bytes, Name]]:
    """Return (cookie, name, row) of all entries that a file system can show, in the order of cookies."""
    found: dict[bytes, Name] = {}
    await _gather(stored, directory, b"", found)
    entries: list[tuple[int, bytes, Name]] = []
    taken: set[int] = set()
    for raw in sorted(found):
        cookie = cookie_of(raw)
        while cookie in taken:  # by one in 2^63
            cookie += 1
        taken.add(cookie)
        entries.append((cookie, raw, found[raw]))
    entries.sort(key=lambda entry: entry[0])
    return entries


async def _gather(stored: Rows, directory: int, head: bytes, found: dict[bytes, Name]) -> None:
    start, end = keys.names_of(directory)
    while page := await stored.scan(start, end):
        for key, value in page:
            component = key[keys.NAME_AT :]
            name = decode_name(value)
            raw = head + keys.raw_of(component)
            if name.kind == rows.CONTINUED:
                await _gather(stored, name.inode, raw, found)
                continue
            is_directory = name.kind in (rows.DIRECTORY, rows.IMPLIED)
            if is_directory:
                raw = raw[:-1]
            if _expressible(raw) and (is_directory or raw not in found):
                found[raw] = name
        if len(page) < SCAN_MAX:
            return
        start = page[-1][0] + b"\0"


async def _times(stored: Rows, volume: Volume, directory: int) -> bytes | None:
    """Return when a directory's entries last changed; snapshots do not keep that."""
    return None if volume.snapshot else await stored.get(keys.times_key(directory))


def _expressible(name: bytes) -> bool:
    """Say whether a file system can show the name; others exist for S3 only."""
    return 0 < len(name) <= NAME_MAX and name not in (b".", b"..") and b"\0" not in name


def cookie_of(name: bytes) -> int:
    """Return the cookie of a name: 63 bits, never 0, 1 or 2 (which protocols use for the start, `.` and `..`)."""
    return max(3, xxh3_64_intdigest(name) >> 1)


def check_name(name: bytes) -> None:
    """Refuse what is no name of a file.

    Raises:
        InvalidArgument, NameTooLong
    """
    if len(name) > NAME_MAX:
        raise NameTooLong(f"name of {len(name)} bytes > NAME_MAX {NAME_MAX}")
    if not _expressible(name) or b"/" in name:
        raise InvalidArgument(f"{name!r} is no name of a file")


async def _take_row(change: Change, path: Path) -> None:
    """Remove the row at the end of a path, when its content has gone elsewhere and was counted there."""
    directory, component = path.place
    await change.rows.delete(keys.name_key(directory, component))
    change.touch(directory)
    for index in range(len(path.steps) - 2, -1, -1):
        if path.names[index].kind != rows.CONTINUED:
            return
        node = path.nodes[index + 1]
        if await change.rows.scan(*keys.names_of(node), limit=1):
            return
        await change.rows.delete(keys.name_key(path.nodes[index], path.steps[index].key))


def _new_inode(change: Change, kind: int, mode: int, above: Inode, caller: Caller) -> Inode:
    now = change.now_ns
    return Inode(
        born=change.epoch,
        kind=kind,
        mode=mode,
        uid=caller.uid,
        gid=above.gid if above.mode & permission.SETGID else caller.gid,
        accessed_ns=now,
        modified_ns=now,
        changed_ns=now,
        created_ns=now,
        owner=caller.name,
    )


def _changed(inode: Inode, change: SetInfo, now_ns: int) -> Inode:
    """Return an inode with attributes changed."""
    mode = inode.mode
    if change.mode is not None:
        mode = mode & ~0o7777 | change.mode & 0o7777
    return msgspec.structs.replace(
        inode,
        mode=mode,
        uid=inode.uid if change.uid is None else change.uid,
        gid=inode.gid if change.gid is None else change.gid,
        accessed_ns=inode.accessed_ns if change.accessed_ns is None else change.accessed_ns,
        modified_ns=inode.modified_ns if change.modified_ns is None else change.modified_ns,
        created_ns=inode.created_ns if change.born_ns is None else change.born_ns,
        attributes=inode.attributes if change.attributes is None else change.attributes,
        changed_ns=now_ns,
    )


def _event(
    verb: str, change: Change, directory: int, name: bytes, inode: int, caller: Caller
) -> Event:
    return Event(
        verb, change.now_ns, directory=directory, name=name, inode=inode, actor=caller.name
    )
