"""One mount of one volume: what the kernel asks, as verbs of the Files view.

Who may do what is checked by the kernel (`default_permissions`), with credentials that only it knows whole; the attributes it checks
with are as fresh as the leases behind them. The caller's numbers come with each request and become owners of what is made.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Mapping
from typing import Final

from warp_core.errors import NotFound, StaleHandle, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.locks import Owner
from warp_core.namespace.opens import Access
from warp_core.namespace.principals import name_of
from warp_core.views.files import (
    IO_MAX,
    NAME_MAX,
    Caller,
    DirEntry,
    FileInfo,
    FileKind,
    Files,
    OpenFile,
    Ref,
    Rename,
    SetInfo,
)

from warp_fuse import wire
from warp_fuse.caching import Cache
from warp_fuse.connection import Answer, Handler, Refuse, interruptible
from warp_fuse.nodes import Node, Nodes
from warp_fuse.wire import Opcode, OpenFlag, Request, SetAttr

TYPES: Final[Mapping[FileKind, int]] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}
KINDS: Final[Mapping[int, FileKind]] = {number: kind for kind, number in TYPES.items()}
LISTED: Final = ("file", "directory", "symlink")  # of the others a listing does not know the kind
NS: Final = 1_000_000_000
FREE_INODES: Final = 1 << 31  # there is no such limit; programs want to see one
PAGE: Final = 256  # names asked for at a time
DOT, DOTS = 1, 2  # cookies that names never have
FLOCK_AT: Final = (
    1 << 63
)  # beyond every byte of fcntl(2): the two kinds of locks do not see each other, as on Linux

_PUNCH: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, which wants FALLOC_FL_KEEP_SIZE
_ZERO: Final = 0x10
_KEEP: Final = 0x01


class Handle:
    """An open file."""

    __slots__ = ("file", "flags", "node")

    def __init__(self, file: OpenFile, node: Node, flags: int) -> None:
        self.file = file
        self.node = node
        self.flags = flags


class Verbs:
    """The handlers of one mount."""

    def __init__(self, files: Files, root: Ref, nodes: Nodes, cache: Cache) -> None:
        self._files = files
        self._volume = root.volume
        self._nodes = nodes
        self._cache = cache
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._lockers: dict[int, int] = {}  # process ids by lock owner, for F_GETLK

    @property
    def handlers(self) -> Mapping[int, Handler]:
        """Return who answers what."""
        return {
            Opcode.LOOKUP: self.lookup,
            Opcode.GETATTR: self.getattr,
            Opcode.SETATTR: self.setattr,
            Opcode.READLINK: self.readlink,
            Opcode.SYMLINK: self.symlink,
            Opcode.MKNOD: self.mknod,
            Opcode.MKDIR: self.mkdir,
            Opcode.UNLINK: self.unlink,
            Opcode.RMDIR: self.rmdir,
            Opcode.RENAME: self.rename,
            Opcode.RENAME2: self.rename2,
            Opcode.LINK: self.link,
            Opcode.OPEN: self.open,
            Opcode.CREATE: self.create,
            Opcode.READ: self.read,
            Opcode.WRITE: self.write,
            Opcode.STATFS: self.statfs,
            Opcode.FLUSH: self.flush,
            Opcode.RELEASE: self.release,
            Opcode.FSYNC: self.fsync,
            Opcode.SETXATTR: self.setxattr,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.REMOVEXATTR: self.removexattr,
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIR: self.readdir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.nothing,
            Opcode.FSYNCDIR: self.syncfs,
            Opcode.SYNCFS: self.syncfs,
            Opcode.GETLK: self.getlk,
            Opcode.SETLK: self.setlk,
            Opcode.SETLKW: self.setlkw,
            Opcode.FALLOCATE: self.fallocate,
            Opcode.LSEEK: self.lseek,
            Opcode.DESTROY: self.nothing,
        }

    async def close(self) -> None:
        """Close what is open."""
        for handle in list(self._handles.values()):
            await handle.file.close()
        self._handles.clear()

    def forget(self, number: int, times: int) -> None:
        """Note that the kernel forgot a node so often."""
        node = self._nodes.forgotten(number, times)
        if node is not None:
            self._cache.forgotten(node)

    # Names ----------------------------------------------------------------------------------------

    async def lookup(self, request: Request) -> Answer:
        """Find a name."""
        above = self._node(request.node)
        (name,) = wire.names(request.body, 1)
        if name == b".":
            info = await self._files.getattr(above.ref)
        elif name == b"..":
            info = await self._files.getattr(await self._files.parent(above.ref))
        else:
            info = await self._files.lookup(above.ref, name, _caller(request))
        return await self._entry(above, name, info)

    async def _entry(self, above: Node, name: bytes, info: FileInfo) -> bytes:
        """Tell the kernel of a file, which it then remembers."""
        node = self._nodes.told(info.ref, info.kind)
        try:
            if await self._cache.hold(node):
                # Between the look and the lease it may have changed, or lost the name.
                again = await self._files.lookup(above.ref, name) if name else None
                if again is None or again.ref.inode != info.ref.inode:
                    raise StaleHandle(f"{name!r} leads elsewhere now")
                info = again
        except BaseException:
            self.forget(node.number, 1)
            raise
        if name:
            node.names.add((above.number, name))
        return _entry_out(node, info, self._cache.name_s(node), self._cache.attributes_s(node))

    async def readlink(self, request: Request) -> Answer:
        """Return where a symbolic link points."""
        return await self._files.readlink(self._node(request.node).ref)

    async def symlink(self, request: Request) -> Answer:
        """Make a symbolic link."""
        above = self._node(request.node)
        name, target = wire.names(request.body, 2)
        info = await self._files.symlink(above.ref, name, target, _caller(request))
        return await self._entry(above, name, info)

    async def mknod(self, request: Request) -> Answer:
        """Make a node: a fifo, socket or device, or an empty file."""
        above = self._node(request.node)
        mode, device, _, _ = wire.MKNOD_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.MKNOD_IN.size :], 1)
        kind = KINDS.get(stat.S_IFMT(mode))
        if kind is None or kind in ("directory", "symlink"):
            raise Refuse(errno.EINVAL)
        permissions, caller = mode & 0o7777, _caller(request)
        if kind == "file":
            file, _ = await self._files.create(
                above.ref,
                name,
                permissions,
                caller,
                owner=self._cache.owner,
                access=Access.READ,
                deny=Access.NONE,
                exclusive=True,
            )
            await file.close()
            info = await self._files.lookup(above.ref, name)
        else:
            info = await self._files.mknod(
                above.ref, name, kind, permissions, caller, device=wire.unpack_device(device)
            )
        return await self._entry(above, name, info)

    async def mkdir(self, request: Request) -> Answer:
        """Make a directory."""
        above = self._node(request.node)
        mode, _ = wire.MKDIR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.MKDIR_IN.size :], 1)
        info = await self._files.mkdir(above.ref, name, mode & 0o7777, _caller(request))
        return await self._entry(above, name, info)

    async def unlink(self, request: Request) -> Answer:
        """Remove a name that is no directory."""
        above = self._node(request.node)
        (name,) = wire.names(request.body, 1)
        await self._files.unlink(above.ref, name, _caller(request), by=self._cache.owner)
        return b""

    async def rmdir(self, request: Request) -> Answer:
        """Remove an empty directory."""
        (name,) = wire.names(request.body, 1)
        await self._files.rmdir(self._node(request.node).ref, name, _caller(request))
        return b""

    async def rename(self, request: Request) -> Answer:
        """Rename, replacing what is there."""
        (target,) = wire.RENAME_IN.unpack_from(request.body)
        return await self._rename(request, target, 0, wire.RENAME_IN.size)

    async def rename2(self, request: Request) -> Answer:
        """Rename as renameat2(2) does."""
        target, flags, _ = wire.RENAME2_IN.unpack_from(request.body)
        return await self._rename(request, target, flags, wire.RENAME2_IN.size)

    async def _rename(self, request: Request, target: int, flags: int, size: int) -> Answer:
        if flags not in (0, Rename.NOREPLACE, Rename.EXCHANGE):
            raise Refuse(errno.EINVAL)
        old, new = wire.names(request.body[size:], 2)
        await self._files.rename(
            self._node(request.node).ref,
            old,
            self._node(target).ref,
            new,
            _caller(request),
            how=Rename(flags),
            by=self._cache.owner,
        )
        return b""

    async def link(self, request: Request) -> Answer:
        """Give a file another name."""
        above = self._node(request.node)
        (number,) = wire.LINK_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.LINK_IN.size :], 1)
        info = await self._files.link(self._node(number).ref, above.ref, name, _caller(request))
        return await self._entry(above, name, info)

    # Attributes -----------------------------------------------------------------------------------

    async def getattr(self, request: Request) -> Answer:
        """Return what stat tells."""
        flags, _, number = wire.GETATTR_IN.unpack_from(request.body)
        node = self._node(request.node)
        handle = self._handles.get(number) if flags & wire.GETATTR_HANDLE else None
        return await self._attributes(node, handle)

    async def _attributes(self, node: Node, handle: Handle | None = None) -> bytes:
        await self._cache.hold(node)
        try:
            info = await self._files.getattr(node.ref)
        except NotFound:
            raise Refuse(errno.ESTALE) from None
        except StaleHandle:
            handle = handle or self._open_on(node)
            if handle is None:
                raise
            info = await handle.file.info()  # it has no name, and is open
        return wire.ATTR_OUT.pack(*_span(self._cache.attributes_s(node)), 0) + _attr(node, info)

    def _open_on(self, node: Node) -> Handle | None:
        return next((each for each in self._handles.values() if each.node is node), None)

    async def setattr(self, request: Request) -> Answer:
        """Change attributes."""
        (
            valid, _, number, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _,
        ) = wire.SETATTR_IN.unpack_from(request.body)  # fmt: skip
        node = self._node(request.node)
        asked = SetAttr(valid & 0x1FF)
        handle = self._handles.get(number) if asked & SetAttr.HANDLE else None
        if asked & SetAttr.SIZE and handle is not None:
            await handle.file.truncate(size)
        now = time.time_ns() if asked & (SetAttr.ATIME_NOW | SetAttr.MTIME_NOW) else 0
        change = SetInfo(
            mode=mode & 0o7777 if asked & SetAttr.MODE else None,
            uid=uid if asked & SetAttr.UID else None,
            gid=gid if asked & SetAttr.GID else None,
            size=size if asked & SetAttr.SIZE and handle is None else None,
            accessed_ns=_chosen(asked, SetAttr.ATIME_NOW, now, SetAttr.ATIME, atime, atime_ns),
            modified_ns=_chosen(asked, SetAttr.MTIME_NOW, now, SetAttr.MTIME, mtime, mtime_ns),
        )
        if (
            change != SetInfo() or handle is None or not asked & SetAttr.SIZE
        ):  # chown(-1, -1) is a change too
            await self._files.setattr(node.ref, change, _caller(request), by=self._cache.owner)
        return await self._attributes(node, handle)

    async def statfs(self, request: Request) -> Answer:
        """Return how full it is."""
        space = await self._files.statfs(self._volume)
        free = space.free // wire.BLOCK
        return wire.STATFS_OUT.pack(
            space.total // wire.BLOCK,
            free,
            free,
            space.files + FREE_INODES,
            FREE_INODES,
            wire.BLOCK,
            NAME_MAX,
            wire.BLOCK,
            0,
        )

    async def setxattr(self, request: Request) -> Answer:
        """Set an extended attribute."""
        size, flags = wire.SETXATTR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.SETXATTR_IN.size :], 1)
        at = wire.SETXATTR_IN.size + len(name) + 1
        value = bytes(request.body[at : at + size])
        _check_xattr(name)
        ref, caller = self._node(request.node).ref, _caller(request)
        if flags == os.XATTR_CREATE:
            await self._files.set_xattr(ref, name, value, caller, must="create")
        elif flags == os.XATTR_REPLACE:
            try:
                await self._files.set_xattr(ref, name, value, caller, must="replace")
            except NotFound:
                raise Refuse(errno.ENODATA) from None
        elif flags == 0:
            await self._files.set_xattr(ref, name, value, caller)
        else:
            raise Refuse(errno.EINVAL)
        return b""

    async def getxattr(self, request: Request) -> Answer:
        """Return an extended attribute, or its size."""
        size, _ = wire.GETXATTR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.GETXATTR_IN.size :], 1)
        _check_xattr(name)
        value = (await self._files.xattrs(self._node(request.node).ref)).get(name)
        if value is None:
            raise Refuse(errno.ENODATA)
        return _sized(value, size)

    async def listxattr(self, request: Request) -> Answer:
        """Return the names of the extended attributes, or their size."""
        size, _ = wire.GETXATTR_IN.unpack_from(request.body)
        names = await self._files.xattrs(self._node(request.node).ref)
        return _sized(b"".join(name + b"\0" for name in names), size)

    async def removexattr(self, request: Request) -> Answer:
        """Remove an extended attribute."""
        (name,) = wire.names(request.body, 1)
        _check_xattr(name)
        try:
            await self._files.set_xattr(self._node(request.node).ref, name, None, _caller(request))
        except NotFound:
            raise Refuse(errno.ENODATA) from None
        return b""

    # Open files -----------------------------------------------------------------------------------

    async def open(self, request: Request) -> Answer:
        """Open a regular file."""
        flags, _ = wire.OPEN_IN.unpack_from(request.body)
        node = self._node(request.node)
        file = await self._files.open(
            node.ref,
            _caller(request),
            owner=self._cache.owner,
            access=_access(flags),
            deny=Access.NONE,
            truncate=bool(flags & os.O_TRUNC),
        )
        try:
            fresh = await self._cache.hold(node)
        except BaseException:
            await file.close()
            raise
        return self._opened(file, node, flags, keep=not fresh)

    async def create(self, request: Request) -> Answer:
        """Make a regular file and open it."""
        above = self._node(request.node)
        flags, mode, _, _ = wire.CREATE_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.CREATE_IN.size :], 1)
        file, _ = await self._files.create(
            above.ref,
            name,
            mode & 0o7777,
            _caller(request),
            owner=self._cache.owner,
            access=_access(flags),
            deny=Access.NONE,
            exclusive=bool(flags & os.O_EXCL),
            truncate=bool(flags & os.O_TRUNC),
        )
        try:
            entry = await self._entry(above, name, await file.info())
        except BaseException:
            await file.close()
            raise
        return entry + self._opened(file, self._nodes[file.ref.inode], flags, keep=False)

    def _opened(self, file: OpenFile, node: Node, flags: int, *, keep: bool) -> bytes:
        number = next(self._numbers)
        self._handles[number] = Handle(file, node, flags)
        return wire.OPEN_OUT.pack(number, OpenFlag.KEEP_CACHE if keep and node.kinds else 0, 0)

    async def read(self, request: Request) -> Answer:
        """Read from an open file."""
        number, offset, size, *_ = wire.IO_IN.unpack_from(request.body)
        handle = self._handle(number)
        await self._cache.hold(handle.node)  # the kernel will keep what it reads
        data = await handle.file.read(offset, size)
        self._cache.fills(handle.node)
        return data

    async def write(self, request: Request) -> Answer:
        """Write to an open file."""
        number, offset, size, _, _, flags, _ = wire.IO_IN.unpack_from(request.body)
        handle = self._handle(number)
        data = request.body[wire.IO_IN.size : wire.IO_IN.size + size]
        if flags & os.O_APPEND and offset != handle.file.size:
            # Others made it longer since the kernel last looked: it has to look again.
            await handle.file.append(data)
            self._cache.stale(handle.node)
        else:
            await handle.file.write(offset, data)
        return wire.WRITE_OUT.pack(size, 0)

    async def flush(self, request: Request) -> Answer:
        """Drop the locks of a process that closes a file."""
        number, _, _, locker = wire.FLUSH_IN.unpack_from(request.body)
        handle = self._handle(number)
        if self._lockers.pop(locker, None) is not None:
            await self._files.claims.unlock_all(handle.node.ref, self._locker(locker, flock=False))
        return b""

    async def release(self, request: Request) -> Answer:
        """Close an open file."""
        number, _, flags, locker = wire.RELEASE_IN.unpack_from(request.body)
        handle = self._handles.pop(number, None)
        if handle is not None:
            if flags & wire.RELEASE_FLOCK_UNLOCK:
                owner = self._locker(locker, flock=True)
                await self._files.claims.unlock_all(handle.node.ref, owner)
            await handle.file.close()
        return b""

    async def fsync(self, request: Request) -> Answer:
        """Make what was written durable."""
        number, _, _ = wire.FSYNC_IN.unpack_from(request.body)
        await self._handle(number).file.sync()
        return b""

    async def syncfs(self, request: Request) -> Answer:
        """Make everything durable."""
        await self._files.sync(self._volume)
        return b""

    async def fallocate(self, request: Request) -> Answer:
        """Make room, or a hole, or zeros."""
        number, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(request.body)
        file = self._handle(number).file
        if mode & ~_KEEP == 0:
            await file.allocate(offset, length, keep_size=bool(mode & _KEEP))
        elif mode == _PUNCH:
            await file.punch(offset, length)
        elif mode & ~_KEEP == _ZERO:
            await file.punch(offset, length)
            await file.allocate(offset, length, keep_size=bool(mode & _KEEP))
        else:
            raise Refuse(errno.EOPNOTSUPP)
        return b""

    async def lseek(self, request: Request) -> Answer:
        """Find data or a hole."""
        number, offset, whence, _ = wire.LSEEK_IN.unpack_from(request.body)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise Refuse(errno.EINVAL)
        found = await self._handle(number).file.seek(
            offset, "data" if whence == os.SEEK_DATA else "hole"
        )
        return wire.LSEEK_OUT.pack(found)

    # Directories ----------------------------------------------------------------------------------

    async def opendir(self, request: Request) -> Answer:
        """Open a directory: reading it needs no state, cookies mean the same for ever."""
        return wire.OPEN_OUT.pack(0, 0, 0)

    async def readdir(self, request: Request) -> Answer:
        """Return entries after a cookie, as many as fit."""
        return await self._listing(request, plus=False)

    async def readdirplus(self, request: Request) -> Answer:
        """Return entries with what stat tells of each."""
        return await self._listing(request, plus=True)

    async def _listing(self, request: Request, *, plus: bool) -> Answer:
        _, cookie, room, *_ = wire.IO_IN.unpack_from(request.body)
        node = self._node(request.node)
        listed: list[bytes] = []
        for at, name in ((DOT, b"."), (DOTS, b"..")):
            if cookie < at:
                line = wire.dirent(node.ref.inode, at, stat.S_IFDIR, name)
                listed.append(bytes(wire.ENTRY_OUT.size + wire.ATTR.size) + line if plus else line)
        room -= sum(map(len, listed))
        after, last = (cookie if cookie > DOTS else 0), False
        while not last:
            entries, last = await self._files.readdir(
                node.ref, cookie=after, limit=PAGE, caller=_caller(request)
            )
            for entry in entries:
                line = self._line(entry)
                need = len(line) + (wire.ENTRY_OUT.size + wire.ATTR.size if plus else 0)
                if need > room:
                    return listed
                if plus:
                    listed.append(await self._told(node, entry))
                listed.append(line)
                room -= need
                after = entry.cookie
        return listed

    def _line(self, entry: DirEntry) -> bytes:
        kind = TYPES[entry.kind] if entry.kind in LISTED else 0
        return wire.dirent(entry.ref.inode, entry.cookie, kind, entry.name)

    async def _told(self, above: Node, entry: DirEntry) -> bytes:
        """Return what a lookup of an entry would; nothing if it is gone, which the kernel then finds out."""
        try:
            return await self._entry(above, entry.name, await self._files.getattr(entry.ref))
        except WarpError:
            return bytes(wire.ENTRY_OUT.size + wire.ATTR.size)

    async def nothing(self, request: Request) -> Answer:
        """Agree to what needs nothing done."""
        return b""

    # Locks ----------------------------------------------------------------------------------------

    async def getlk(self, request: Request) -> Answer:
        """Return a lock that is in the way."""
        number, locker, start, end, kind, _, flags, _ = wire.LOCK_IN.unpack_from(request.body)
        node = self._handle(number).node
        found = await self._files.claims.test_lock(
            node.ref,
            self._locker(locker, flock=bool(flags & wire.LOCK_FLOCK)),
            start,
            min(end + 1, FLOCK_AT),
            exclusive=kind == fcntl.F_WRLCK,
        )
        if found is None:
            return wire.LOCK_OUT.pack(start, end, fcntl.F_UNLCK, 0)
        client, key, _ = found.owner
        ours = client == self._cache.owner.client and isinstance(key, int)
        pid = self._lockers.get(int(key), 0) if ours else 0
        mode = fcntl.F_WRLCK if found.exclusive else fcntl.F_RDLCK
        last = min(found.end - 1, wire.LOCK_END)
        return wire.LOCK_OUT.pack(found.start, last, mode, pid)

    async def setlk(self, request: Request) -> Answer:
        """Lock or unlock, at once or not at all."""
        await self._lock(request, wait=False)
        return b""

    async def setlkw(self, request: Request) -> Answer:
        """Lock, waiting for others; a signal ends it."""
        with interruptible():
            await self._lock(request, wait=True)
        return b""

    async def _lock(self, request: Request, *, wait: bool) -> None:
        number, locker, start, end, kind, pid, flags, _ = wire.LOCK_IN.unpack_from(request.body)
        node = self._handle(number).node
        flock = bool(flags & wire.LOCK_FLOCK)
        owner = self._locker(locker, flock=flock)
        stop = min(end + 1, FLOCK_AT)
        if flock:
            start, stop = FLOCK_AT, FLOCK_AT + 1
        if kind == fcntl.F_UNLCK:
            await self._files.claims.unlock(node.ref, owner, start, stop)
            return
        if not flock:
            self._lockers[locker] = pid
        await self._files.claims.lock(
            node.ref,
            owner,
            start,
            stop,
            exclusive=kind == fcntl.F_WRLCK,
            wait=wait,
            cacher=self._cache.owner,
        )

    def _locker(self, locker: int, *, flock: bool) -> Owner:
        key = b"flock %x" % locker if flock else locker
        return Owner(self._cache.owner.client, key, several=flock)

    # ----------------------------------------------------------------------------------------------

    def _node(self, number: int) -> Node:
        try:
            return self._nodes[number]
        except KeyError:
            raise Refuse(errno.ESTALE) from None

    def _handle(self, number: int) -> Handle:
        try:
            return self._handles[number]
        except KeyError:
            raise Refuse(errno.EBADF) from None


def _caller(request: Request) -> Caller:
    return Caller(uid=request.uid, gid=request.gid, name=name_of(request.uid), superuser=True)


def _access(flags: int) -> Access:
    mode = flags & os.O_ACCMODE
    if mode == os.O_RDONLY:
        return Access.READ
    # The kernel reads the rest of a page that is written in part, through whichever handle it has.
    return Access.READ | Access.WRITE


def _chosen(
    asked: SetAttr, now_bit: SetAttr, now: int, bit: SetAttr, seconds: int, nanoseconds: int
) -> int | None:
    if asked & now_bit:
        return now
    if asked & bit:
        signed = seconds - (1 << 64) if seconds >> 63 else seconds
        return signed * NS + nanoseconds
    return None


def _span(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * NS)


def _entry_out(node: Node, info: FileInfo, name_s: float, attributes_s: float) -> bytes:
    name, name_ns = _span(name_s)
    valid, valid_ns = _span(attributes_s)
    head = wire.ENTRY_OUT.pack(node.number, 0, name, valid, name_ns, valid_ns)
    return head + _attr(node, info)


def _attr(node: Node, info: FileInfo) -> bytes:
    times = (info.accessed_ns, info.modified_ns, info.changed_ns)
    seconds = [when // NS & 0xFFFF_FFFF_FFFF_FFFF for when in times]
    return wire.ATTR.pack(
        info.ref.inode,
        info.size,
        -(-info.allocated // 512),
        *seconds,
        *(when % NS for when in times),
        TYPES[info.kind] | info.mode,
        info.links,
        info.uid,
        info.gid,
        wire.pack_device(*info.device),
        wire.BLOCK,
        0,
    )


def _check_xattr(name: bytes) -> None:
    # Not `system.`: those are POSIX ACLs, which the kernel would not obey here.
    if not name.startswith((b"user.", b"trusted.", b"security.")):
        raise Refuse(errno.EOPNOTSUPP)


def _sized(value: Buffer, room: int) -> Buffer:
    if not room:
        return wire.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise Refuse(errno.ERANGE)
    return value


assert IO_MAX >= wire.WRITE_MAX
