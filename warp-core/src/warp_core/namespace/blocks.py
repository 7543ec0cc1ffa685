"""The Blocks view over files: a disk is a regular file with a fixed size, and a row that says it is one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Final

import msgspec

from warp_core.errors import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    IsADirectory,
    Locked,
    NotFound,
    OutOfRange,
    PreconditionFailed,
    ReadOnly,
    StaleHandle,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import keys, rows
from warp_core.namespace.apart import Fresh, inode_row, put_disk, put_inode
from warp_core.namespace.changes import Change
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.leases import FOR_WRITE
from warp_core.namespace.openfiles import NamespaceFile
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.views.blocks import (
    BLOCK,
    COMPARE_MAX,
    IO_MAX,
    REGISTRATIONS_MAX,
    Blocks,
    Disk,
    DiskInfo,
    Reservation,
    ReservationInfo,
    Run,
    Status,
)
from warp_core.views.files import FILE_SIZE_MAX, Ref, SetInfo

FILE_IO: Final = 1024 * 1024  # bytes handed to the file at once
SNAPSHOT_DIRECTORY: Final = (
    b".disk-snapshots"  # in the root: snapshots of disks are clones that live here
)
_ALL_REGISTRANTS: Final = (Reservation.WRITE_EXCLUSIVE_ALL, Reservation.EXCLUSIVE_ALL)
_REGISTRANTS: Final = (
    Reservation.WRITE_EXCLUSIVE_REGISTRANTS,
    Reservation.EXCLUSIVE_REGISTRANTS,
    *_ALL_REGISTRANTS,
)
_EXCLUSIVE: Final = (
    Reservation.EXCLUSIVE,
    Reservation.EXCLUSIVE_REGISTRANTS,
    Reservation.EXCLUSIVE_ALL,
)


class Reserved(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """B: who is registered with a disk, and its reservation. They are kept across restarts (SPC-4, APTPL)."""

    generation: int = 0
    keys: dict[str, int] = {}  # initiator → key
    kind: int = 0
    holder: str = ""


_decode = msgspec.msgpack.Decoder(Reserved).decode


class _Shared:
    """What all connections of a disk share in memory: its row, who waits for resizes, and the order of compare_and_write."""

    def __init__(self, row: Reserved) -> None:
        self.row = row
        self.users = 0
        self.resized: set[asyncio.Queue[int]] = set()
        self.writes = 0  # under way
        self.idle = asyncio.Event()
        self.idle.set()
        self.exclusive = asyncio.Lock()


class NamespaceBlocks(Blocks):
    """The view: disks of all volumes, by the Files view."""

    disk: ClassVar[type[NamespaceDisk]]

    def __init__(self, files: NamespaceFiles) -> None:
        self._files = files
        self._namespace = files.namespace
        self._shared: dict[tuple[int, int], _Shared] = {}

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
                await file.truncate(size)
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
        row: Reserved = rows.checked(_decode, key, value) if value is not None else Reserved()
        return row

    async def _serial(self, volume: str, ref: Ref) -> str:
        """Return a disk's serial. Initiators take two disks of one serial for two ways to one: a clone's has another."""
        known = await self._namespace.volumes.get(volume)
        key = keys.disk_key(ref.inode)
        value = await Fresh(self._namespace, known).get(key)
        if value is None:
            raise StaleHandle(f"inode {ref.inode} is gone")
        row: rows.DiskRow = rows.checked(rows.decode_disk, key, value)
        if row.volume == known.number:
            return row.serial
        return hashlib.blake2b(
            bytes.fromhex(row.serial) + known.number.to_bytes(4, "big"), digest_size=8
        ).hexdigest()

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
            shared = self._shared[node] = _Shared(await self._reserved(volume, info.ref))
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
        self, volume: str, ref: Ref, shared: _Shared, change: Callable[[Reserved], Reserved]
    ) -> None:
        async def body(tx: Change) -> Reserved:
            key = keys.reserved_key(ref.inode)
            value = await tx.rows.get_present(key)
            row = change(rows.checked(_decode, key, value) if value else shared.row)
            tx.rows.put_present(key, rows.encode(row))
            return row

        shared.row = await self._namespace.change(volume, body)

    async def resize(self, volume: str, path: bytes, size: int) -> DiskInfo:
        """See `Blocks.resize`."""
        _check_size(size)
        info = await self.show(volume, path)
        number = await self._files.number(volume)
        async with self._files.opens.changing(number, info.ref.inode, FOR_WRITE):
            stored = Fresh(self._namespace, await self._namespace.volumes.get(volume))
            inode = await inode_row(stored, info.ref.inode)
            if inode is None:
                raise StaleHandle(f"inode {info.ref.inode} is gone")
            inodes = self._files.inodes
            async with inodes.content(volume, number, info.ref.inode, inode) as content:
                await content.ready()
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
        clone = await self._files.clone(info.ref, directory, _snapshot_name(snapshot))
        await self._files.setattr(clone.ref, SetInfo(mode=0o400))

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
        made = await self._files.clone(source, above, parts[-1])
        await self._files.setattr(made.ref, SetInfo(mode=0o600))
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


class NamespaceDisk(Disk):
    """One connection to a disk."""

    def __init__(
        self,
        info: DiskInfo,
        file: NamespaceFile,
        shared: _Shared,
        initiator: str,
        *,
        on_close: Callable[[], Awaitable[None]],
        update: Callable[[Callable[[Reserved], Reserved]], Awaitable[None]],
    ) -> None:
        self.info = info
        self._file = file
        self._shared = shared
        self._initiator = initiator
        self._on_close = on_close
        self._update = update
        self._queues: set[asyncio.Queue[int]] = set()
        self._closed = False

    @property
    def size(self) -> int:
        """The disk's size now."""
        return self._file.size

    async def read(self, offset: int, length: int) -> Buffer:
        """See `Disk.read`."""
        self._range(offset, length)
        self._may_read()
        if length <= FILE_IO:
            data = await self._file.read(offset, length)
            return self._whole(data, length)
        parts = [
            self._whole(await self._file.read(at, step), step)
            for at, step in _steps(offset, length)
        ]
        return b"".join(parts)

    def _whole(self, data: Buffer, length: int) -> Buffer:
        if len(data) != length:  # the disk shrank meanwhile
            raise OutOfRange(f"the disk ends at {self.size}")
        return data

    async def read_runs(self, offset: int, length: int) -> Sequence[Run]:
        """See `Disk.read_runs`."""
        self._range(offset, length)
        self._may_read()
        found: list[Run] = []
        for at, step in _steps(offset, length):
            runs = await self._file.read_runs(at, step)
            if sum(run[1] for run in runs) != step:
                raise OutOfRange(f"the disk ends at {self.size}")  # it shrank meanwhile
            found += runs
        return found

    def read_now(self, offset: int, length: int) -> Sequence[Run] | None:
        """See `Disk.read_now`."""
        if self._closed or offset + length > self._file.content.size or length > IO_MAX:
            self._range(offset, length)
        if self._shared.row.kind:
            self._may_read()
        return self._file.read_runs_now(offset, length)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """See `Disk.write_now`."""
        if self._closed or offset + len(data) > self._file.content.size:
            self._range(offset, len(data))
        if self._shared.row.kind or self.info.read_only:
            self._may_write()
        return not self._shared.exclusive.locked() and self._file.write_now(offset, data)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """See `Disk.write`."""
        self._range(offset, len(data))
        self._may_write()
        async with _Writing(self._shared):
            view = memoryview(data)
            for at, step in _steps(offset, len(view)):
                await self._file.write(at, view[at - offset : at - offset + step])
        if fua:
            await self._file.sync()

    async def flush(self) -> None:
        """See `Disk.flush`."""
        await self._file.sync()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """See `Disk.trim`."""
        self._range(offset, length, large=True)
        self._may_write()
        if length:
            async with _Writing(self._shared):
                await self._file.punch(offset, length)
        if fua:
            await self._file.sync()

    async def zero(
        self, offset: int, length: int, *, fua: bool = False, may_trim: bool = True
    ) -> None:
        """See `Disk.zero`. Zeros that may not be given back are written, so that their space stays."""
        if may_trim:
            await self.trim(offset, length, fua=fua)
            return
        self._range(offset, length, large=True)
        self._may_write()
        async with _Writing(self._shared):
            for at, step in _steps(offset, length):
                await self._file.write(at, bytes(step))
        if fua:
            await self._file.sync()

    async def status(self, offset: int, length: int, *, limit: int = 1024) -> Sequence[Status]:
        """See `Disk.status`."""
        self._range(offset, length, large=True)
        found: list[Status] = []
        at, end = offset, offset + length
        while at < end and len(found) < limit:
            try:
                data = min(end, await self._file.seek(at, "data"))
            except OutOfRange:
                data = end
            if data > at:
                found.append(Status(at, data - at, hole=True))
                at = data
                continue
            hole = min(end, await self._file.seek(at, "hole"))
            found.append(Status(at, hole - at, hole=False))
            at = hole
        return found

    async def compare_and_write(
        self, offset: int, expected: Buffer, data: Buffer, *, fua: bool = False
    ) -> None:
        """See `Disk.compare_and_write`."""
        if len(expected) != len(data) or len(data) > COMPARE_MAX:
            raise InvalidArgument(
                f"compare {len(expected)} and write {len(data)} bytes: equal, at most {COMPARE_MAX}"
            )
        self._range(offset, len(data))
        self._may_write()
        async with self._shared.exclusive:
            await self._shared.idle.wait()
            found = bytes(await self._file.read(offset, len(data)))
            wanted = bytes(expected)
            if found != wanted:
                differs = next(
                    i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b
                )
                raise PreconditionFailed(f"byte {offset + differs} differs", condition=str(differs))
            await self._file.write(offset, data)
        if fua:
            await self._file.sync()

    async def resizes(self) -> AsyncIterator[int]:
        """See `Disk.resizes`."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        self._shared.resized.add(queue)
        self._queues.add(queue)
        try:
            while (size := await queue.get()) >= 0:
                yield size
        finally:
            self._shared.resized.discard(queue)
            self._queues.discard(queue)

    async def close(self) -> None:
        """See `Disk.close`."""
        if not self._closed:
            self._closed = True
            for queue in self._queues:
                queue.put_nowait(-1)
            await self._on_close()

    # Reservations ---------------------------------------------------------------------------------

    async def register(self, key: int, *, old: int | None = None) -> None:
        """See `Disk.register`."""
        _check_key(key)

        def change(row: Reserved) -> Reserved:
            have = row.keys.get(self._initiator, 0)
            if old is not None and old != have:
                raise Locked(f"the key of {self._initiator} is not {old:#x}")
            registered = dict(row.keys)
            if key:
                registered[self._initiator] = key
            else:
                registered.pop(self._initiator, None)
            if len(registered) > REGISTRATIONS_MAX:
                raise Busy(f"{REGISTRATIONS_MAX} initiators are registered")
            return _without_orphan(row, registered)

        await self._update(change)

    async def reserve(self, key: int, kind: Reservation) -> None:
        """See `Disk.reserve`."""

        def change(row: Reserved) -> Reserved:
            self._registered(row, key)
            if row.kind:
                mine = self._holds(row)
                if not mine or row.kind != kind:
                    raise Locked(f"the disk is reserved ({Reservation(row.kind).name})")
                return row
            holder = "" if kind in _ALL_REGISTRANTS else self._initiator
            return msgspec.structs.replace(row, kind=int(kind), holder=holder)

        if kind == Reservation.NONE:
            raise InvalidArgument("a reservation has a kind")
        await self._update(change)

    async def release(self, key: int, kind: Reservation) -> None:
        """See `Disk.release`."""

        def change(row: Reserved) -> Reserved:
            self._registered(row, key)
            if not row.kind or not self._holds(row):
                return row
            if row.kind != kind:
                raise InvalidArgument(f"the reservation is {Reservation(row.kind).name}")
            return msgspec.structs.replace(row, kind=0, holder="")

        await self._update(change)

    async def preempt(self, key: int, victim: int, kind: Reservation) -> None:
        """See `Disk.preempt`."""

        def change(row: Reserved) -> Reserved:
            self._registered(row, key)
            gone = {who for who, each in row.keys.items() if each == victim}
            if not gone:
                raise Locked(f"nobody is registered with {victim:#x}")
            theirs = bool(row.kind) and (
                row.holder in gone or (row.kind in _ALL_REGISTRANTS and self._initiator not in gone)
            )
            left = {
                who: each
                for who, each in row.keys.items()
                if who not in gone or who == self._initiator
            }
            row = msgspec.structs.replace(row, keys=left, generation=row.generation + 1)
            if not theirs:
                return row
            holder = "" if kind in _ALL_REGISTRANTS else self._initiator
            return msgspec.structs.replace(row, kind=int(kind), holder=holder)

        await self._update(change)

    async def clear(self, key: int) -> None:
        """See `Disk.clear`."""

        def change(row: Reserved) -> Reserved:
            self._registered(row, key)
            return msgspec.structs.replace(
                row, keys={}, kind=0, holder="", generation=row.generation + 1
            )

        await self._update(change)

    async def reservations(self) -> ReservationInfo:
        """See `Disk.reservations`."""
        row = self._shared.row
        registered = tuple(sorted(row.keys.items()))
        return ReservationInfo(row.generation, registered, Reservation(row.kind), row.holder)

    def _registered(self, row: Reserved, key: int) -> None:
        if not key or row.keys.get(self._initiator) != key:
            raise Locked(f"{self._initiator} is not registered with {key:#x}")

    def _holds(self, row: Reserved) -> bool:
        if row.kind in _ALL_REGISTRANTS:
            return self._initiator in row.keys
        return row.holder == self._initiator

    def _may_write(self) -> None:
        """Refuse what a reservation refuses (SPC-4, table 65)."""
        if self.info.read_only:
            raise ReadOnly("the disk was opened read only")
        row = self._shared.row
        if not row.kind or self._holds(row):
            return
        if row.kind in _REGISTRANTS and self._initiator in row.keys:
            return
        raise Locked(f"the disk is reserved ({Reservation(row.kind).name})")

    def _may_read(self) -> None:
        row = self._shared.row
        if row.kind not in _EXCLUSIVE or self._holds(row):
            return
        if row.kind in _REGISTRANTS and self._initiator in row.keys:
            return
        raise Locked(f"the disk is reserved ({Reservation(row.kind).name})")

    def _range(self, offset: int, length: int, *, large: bool = False) -> None:
        if self._closed:
            raise StaleHandle("the disk is closed")
        if offset < 0 or length < 0 or offset + length > self.size:
            raise OutOfRange(f"{length} bytes at {offset} of a disk of {self.size}")
        if not large and length > IO_MAX:
            raise InvalidArgument(f"{length} bytes at once > IO_MAX {IO_MAX}")


NamespaceBlocks.disk = NamespaceDisk


class _Writing:
    """A write under way: it waits for a compare_and_write, and that one for it."""

    __slots__ = ("_shared",)

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared

    async def __aenter__(self) -> None:
        shared = self._shared
        while shared.exclusive.locked():
            async with shared.exclusive:
                pass
        shared.writes += 1
        shared.idle.clear()

    async def __aexit__(self, *_: object) -> None:
        self._shared.writes -= 1
        if not self._shared.writes:
            self._shared.idle.set()


def _without_orphan(row: Reserved, registered: dict[str, int]) -> Reserved:
    """Return the row with other registrations; a reservation ends with its holder's, or with the last one (SPC-4, 5.13.11.2)."""
    over = row.kind and (
        not registered if row.kind in _ALL_REGISTRANTS else row.holder not in registered
    )
    return msgspec.structs.replace(
        row,
        keys=registered,
        generation=row.generation + 1,
        kind=0 if over else row.kind,
        holder="" if over else row.holder,
    )


def _steps(offset: int, length: int) -> list[tuple[int, int]]:
    end = offset + length
    return [(at, min(FILE_IO, end - at)) for at in range(offset, end, FILE_IO)]


def _parts(path: bytes) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part]
    if not parts:
        raise InvalidArgument("a disk has a path in its volume")
    return parts


def _check_size(size: int) -> None:
    if size <= 0 or size % BLOCK or size > FILE_SIZE_MAX:
        raise InvalidArgument(f"disk size {size}: a positive multiple of {BLOCK}")


def _check_key(key: int) -> None:
    if not 0 <= key < 1 << 64:
        raise InvalidArgument(f"key {key} is not a 64-bit number")


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
