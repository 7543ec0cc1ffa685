"""Finding files: by name, by inode, by path; listing directories."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Sequence
from time import monotonic
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from warp_core.errors import (
    InvalidArgument,
    NameTooLong,
    NotADirectory,
    NotFound,
    StaleHandle,
)
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.metadata import counters
from warp_core.namespace import access as permission
from warp_core.namespace import keys, rows
from warp_core.namespace.apart import Inodes
from warp_core.namespace.attributes import checked_mode
from warp_core.namespace.changes import Change
from warp_core.namespace.inode_rows import inode_row, name_at
from warp_core.namespace.inodes import Inode, implied_directory, implied_file
from warp_core.namespace.ledgers import Fresh
from warp_core.namespace.locks import Node
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.orders import Order, cookie_of, expressible, ordered
from warp_core.namespace.orders import is_directory as is_directory_kind
from warp_core.namespace.paths import Path, resolve
from warp_core.namespace.recount import every
from warp_core.namespace.rows import Name, decode_name
from warp_core.namespace.tree import Rows, Volume
from warp_core.views.files import (
    NAME_MAX,
    ROOT,
    Caller,
    DirEntry,
    FileInfo,
    FileKind,
    Files,
    Ref,
    Want,
)

PLACES_MAX: Final = 65_536  # directories born over S3 whose parent is remembered
BRANCHES_MAX: Final = 65_536  # directories whose number of directories is remembered
ENTRIES_COUNTED: Final = SCAN_MAX - 1  # of a directory whose directories are counted: one page
READDIRS_MAX: Final = 64  # directories whose order of cookies is remembered
READDIR_ENTRIES_MAX: Final = 2_000_000  # their entries, of some 90 bytes each
ORDER_S: Final = (
    60.0  # for so long a listing that goes on does not ask whether the directory changed
)
DEPTH_MAX: Final = 1_024  # directories below one another: a key of S3 cannot have more
SNAPSHOTS_NAME: Final = b".snapshots"
SNAPSHOTS_INODE: Final = 2  # below the first number that is handed out
KINDS: Final[dict[int, FileKind]] = {
    rows.FILE: "file",
    rows.DIRECTORY: "directory",
    rows.IMPLIED: "directory",
    rows.SYMLINK: "symlink",
}
SPECIAL: Final[dict[int, FileKind]] = {
    0o010000: "fifo",
    0o140000: "socket",
    0o060000: "block",
    0o020000: "character",
}


SNAPSHOTS: Final = msgspec.structs.replace(
    implied_directory(Name(0, rows.DIRECTORY, SNAPSHOTS_INODE), 0), mode=0o555
)
"""The directory of snapshots, but for its times."""


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


class Finder(Files):
    """The part of the Files view that finds and lists. `inodes` is shared with whoever else changes inodes."""

    def __init__(self, namespace: Namespace, inodes: Inodes) -> None:
        self.namespace = namespace
        self.inodes = inodes
        self.opens = inodes.opens
        self._places: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()
        self._orders: OrderedDict[tuple[int, int, int], Order] = OrderedDict()
        self._turns: WeakValueDictionary[tuple[int, int, int], asyncio.Lock] = WeakValueDictionary()
        self._branches: OrderedDict[tuple[int, int, int], tuple[bytes | None, int]] = OrderedDict()
        self._names: dict[int, str] = {}
        inodes.on_forget.append(self._forget)

    def _forget(self, volume: int) -> None:
        for place in [place for place in self._places if place[0] == volume]:
            del self._places[place]
        for order in [order for order in self._orders if order[0] == volume]:
            del self._orders[order]
        for counted in [counted for counted in self._branches if counted[0] == volume]:
            del self._branches[counted]

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

    async def _inode(self, stored: Rows, volume: Volume, name: Name) -> Inode:
        """Return the inode that a name leads to, as its row or its name says, and what was written since."""
        if name.kind in (rows.IMPLIED, rows.DIRECTORY):
            found = await inode_row(stored, name.inode)
            inode = found or implied_directory(name, name.modified_ns)
            return _touched(inode, await _times(stored, volume, name.inode))
        found = await inode_row(stored, name.inode) if name.revision == 0 else None
        inode = found or implied_file(name)
        return inode if volume.snapshot else self._lively(volume.number, name.inode, inode)

    def _lively(self, volume: int, number: int, inode: Inode) -> Inode:
        content = self.inodes.live(volume, number)
        if content is None or not content.unsaid:
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
            root = await inode_row(stored, keys.ROOT) or implied_directory(
                Name(0, rows.DIRECTORY, keys.ROOT), volume.row.created_ns
            )
            return _touched(root, await _times(stored, volume, keys.ROOT))
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

    async def located(self, file: Ref) -> tuple[Volume, Inode]:
        """Return the volume that shows a file, and its inode as the rows tell it.

        Raises:
            VolumeNotFound, NotFound, StaleHandle
        """
        volume = await self._volume(file)
        found = await self._by_ref(self._rows(volume), volume, file)
        return volume, found.inode

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
        links = inode.links
        if found.is_directory and found.number != SNAPSHOTS_INODE:
            links = await self._links(volume, found.number)
        accessed_ns = inode.accessed_ns
        if not volume.snapshot:
            accessed_ns = self.inodes.accessed.of(Node(volume.number, found.number), inode)
        kind = KINDS.get(found.name.kind) or SPECIAL.get(inode.mode & 0o170000, "fifo")
        return FileInfo(
            ref=Ref(ref.volume, found.number, found.directory, found.raw, ref.snapshot),
            kind=kind,
            size=len(inode.target) if kind == "symlink" else inode.size,
            mode=inode.mode & 0o7777,
            uid=inode.uid,
            gid=inode.gid,
            links=links,
            allocated=inode.allocated,
            accessed_ns=accessed_ns,
            modified_ns=inode.modified_ns,
            changed_ns=inode.changed_ns,
            born_ns=inode.created_ns,
            change=inode.change,
            device=inode.device,
            disk=inode.disk,
            attributes=inode.attributes,
            checked_mode=None if inode.acl is None else checked_mode(inode),
        )

    async def _links(self, volume: Volume, directory: int) -> int:
        """Return a directory's links: two, and one for each directory in it; 1 where these are not counted, as in ext4."""
        stored = self._rows(volume)
        key = (volume.number, volume.snapshot, directory)
        # A snapshot has no such row, and never changes.
        stamp = None if volume.snapshot else await stored.get(keys.branches_key(directory))
        known = self._branches.get(key)
        if known is None or known[0] != stamp:
            known = self._branches[key] = stamp, await _count_branches(stored, directory)
            if len(self._branches) > BRANCHES_MAX:
                self._branches.popitem(last=False)
        return known[1] + 2 if known[1] >= 0 else 1

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

    async def path_of(
        self, volume: str, number: int, place: tuple[int, bytes] | None = None
    ) -> bytes | None:
        """Return the path of an inode by a name in a directory, or that it was last given; None if that leads elsewhere now."""
        found = await self._volume(volume)
        stored = self._rows(found)
        inode = await inode_row(stored, number)
        if inode is None:
            return None
        directory, name = place or (inode.directory, inode.name)
        if not directory:
            return None
        try:
            above = await self._key(stored, found.number, directory)
        except StaleHandle:
            return None
        there = await self._find(stored, found, directory, name)
        return above + name if there is not None and there.number == number else None

    async def names_of(self, volume: str, numbers: Collection[int]) -> dict[int, tuple[int, bytes]]:
        """Return directory and name of files, one for each that has a name: it reads all names of the volume."""
        known = await self._volume(volume)
        found: dict[int, tuple[int, bytes]] = {}
        continued: dict[int, tuple[int, bytes]] = {}
        async for key, value in every(self.namespace, known, b"D", keys.after(b"D")):
            name = rows.decode_name(value)
            place = int.from_bytes(key[1:9], "big"), keys.raw_of(key[keys.NAME_AT :])
            if name.kind == rows.CONTINUED:
                continued[name.inode] = place
            elif name.kind == rows.FILE and name.inode in numbers:
                found[name.inode] = place
        for number, (directory, raw) in found.items():
            while directory in continued:
                directory, before = continued[directory]
                raw = before + raw
            found[number] = directory, raw
        return found

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
        if not cookie:
            self._note_read(volume, directory.inode, above)
        order = await self._order(stored, volume, directory.inode, fresh=cookie == 0)
        entries, last = order.page(cookie, limit)
        listed = []
        for at, raw, kind, inode in entries:
            ref = Ref(directory.volume, inode, directory.inode, raw, directory.snapshot)
            listed.append(DirEntry(name=raw, ref=ref, kind=KINDS.get(kind) or "fifo", cookie=at))
            if is_directory_kind(kind):
                self._remember(volume.number, inode, directory.inode, raw)
        return listed, last

    def _note_read(self, volume: Volume, number: int, inode: Inode) -> None:
        if not volume.snapshot:
            node = Node(volume.number, number)
            self.inodes.accessed.note(node, inode, self.namespace.clock_ns())

    async def _order(self, stored: Rows, volume: Volume, directory: int, *, fresh: bool) -> Order:
        """Return a directory's entries in the order of cookies.

        A listing that begins (`fresh`) gets them as they are. One that goes on may get them as they were at any moment since it
        began, so that whoever removes what it is shown does not have the directory read anew for each page.
        """
        key = (volume.number, volume.snapshot, directory)
        async with self._turns.setdefault(key, asyncio.Lock()):
            known = self._orders.get(key)
            if known is None or not await self._usable(known, volume, directory, fresh=fresh):
                stamp = await self._stamp(volume, directory)
                self._orders[key] = known = await ordered(stored, directory, stamp, monotonic)
                self._orders.move_to_end(key)
                self._forget_orders(key)
            else:
                self._orders.move_to_end(key)
            return known

    async def _usable(self, order: Order, volume: Volume, directory: int, *, fresh: bool) -> bool:
        if volume.snapshot:
            return True
        if not fresh and monotonic() < order.built_s + ORDER_S:
            return True
        if order.stamp is None or order.continued:
            return False
        return order.stamp == await self._stamp(volume, directory)

    async def _stamp(self, volume: Volume, directory: int) -> int | None:
        """Return the version of the row that changes with each entry of a directory; None where there is none that tells all."""
        if not volume.plain:
            return None
        view = self.namespace.store.latest()
        try:
            row = await view.get(volume.prefix + keys.times_key(directory))
        finally:
            view.close()
        return row[1] if row is not None else 0

    def _forget_orders(self, kept: tuple[int, int, int]) -> None:
        """Keep no more orders than READDIRS_MAX, of no more than READDIR_ENTRIES_MAX entries in all, and the one just made."""
        orders = self._orders
        total = sum(each.count for each in orders.values())
        while len(orders) > READDIRS_MAX or total > READDIR_ENTRIES_MAX:
            oldest = next(iter(orders))
            if oldest == kept:
                return
            total -= orders.pop(oldest).count

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
        inode = msgspec.structs.replace(implied_directory(name, when), mode=SNAPSHOTS.mode)
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


def _touched(directory: Inode, times: bytes | None) -> Inode:
    """Return a directory's inode with the time at which its entries last changed, if they did since that was set."""
    if times is None:
        return directory
    changed = counters(times, 1)[0]
    return msgspec.structs.replace(
        directory, modified_ns=changed, changed_ns=max(directory.changed_ns, changed)
    )


async def _count_branches(stored: Rows, directory: int) -> int:
    """Return how many directories are in a directory; -1 if there are too many entries to look at."""
    left, count, nodes = ENTRIES_COUNTED, 0, [directory]
    while nodes:
        found = await stored.scan(*keys.names_of(nodes.pop()), limit=left + 1)
        left -= len(found)
        if left < 0:
            return -1
        for _, value in found:
            name = decode_name(value)
            count += name.kind in (rows.DIRECTORY, rows.IMPLIED)
            if name.kind == rows.CONTINUED:
                nodes.append(name.inode)
    return count


async def _times(stored: Rows, volume: Volume, directory: int) -> bytes | None:
    """Return when a directory's entries last changed; snapshots do not keep that."""
    return None if volume.snapshot else await stored.get(keys.times_key(directory))


def check_name(name: bytes) -> None:
    """Refuse what is no name of a file.

    Raises:
        InvalidArgument, NameTooLong
    """
    if len(name) > NAME_MAX:
        raise NameTooLong(f"name of {len(name)} bytes > NAME_MAX {NAME_MAX}")
    if not expressible(name) or b"/" in name:
        raise InvalidArgument(f"{name!r} is no name of a file")
