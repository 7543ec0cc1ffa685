"""What the verbs of one mount share, and how files are told to the kernel."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from warp_core import logs
from warp_core.errors import NotFound, StaleHandle, TimedOut, Unavailable, WarpError
from warp_core.namespace.locks import Owner
from warp_core.namespace.opens import Access
from warp_core.namespace.principals import name_of
from warp_core.views.files import (
    Caller,
    FileInfo,
    FileKind,
    Files,
    OpenFile,
    Ref,
    SetInfo,
)

from warp_fuse import wire
from warp_fuse.caching import Cache
from warp_fuse.connection import Refuse
from warp_fuse.nodes import Node, Nodes
from warp_fuse.tether import Tether
from warp_fuse.wire import Init, Request

TYPES: Final[Mapping[FileKind, int]] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}
NS: Final = 1_000_000_000

_log = logs.get("warp_fuse")


class Handle:
    """An open file. `lockers` have locked something by it, and did not close it as a process does."""

    __slots__ = ("failed", "file", "flags", "lockers", "node")

    def __init__(self, file: OpenFile, node: Node, flags: int) -> None:
        self.file = file
        self.node = node
        self.flags = flags
        self.lockers: set[int] = set()
        self.failed = node.failed  # what was written may be lost: the next sync says so
        node.failed = False


class State:
    """What the verbs of one mount share: what the kernel knows, holds open and may keep."""

    def __init__(
        self, files: Files, root: Ref, number: int, nodes: Nodes, cache: Cache, tether: Tether
    ) -> None:
        self.files = files
        self.volume = root.volume
        self.nodes = nodes
        self.cache = cache
        self.tether = tether
        self.handles: dict[int, Handle] = {}
        self.numbers = itertools.count(1)
        self.lockers: dict[int, int] = {}  # process ids by lock owner, for F_GETLK
        self.agreed = Init(0)
        self.locked: set[tuple[int, int | bytes]] = set()  # (node, owner's key) of locks held
        self.unsynced = False  # some file was written since everything was synced
        self.failed = False  # it may be lost, and syncfs did not say so yet
        self._number = number  # of the volume, for ever
        self.changing = 0  # changes in directories that this mount is about
        self.turns = 0  # those that are over

    def agree(self, flags: Init) -> None:
        """Note what kernel and server agreed on."""
        self.agreed = flags

    async def close(self) -> None:
        """Close what is open."""
        for handle in list(self.handles.values()):
            await handle.file.close()
        self.handles.clear()

    def wrote(self, node: Node) -> None:
        """Note that a file has content that a crash of its home would take."""
        node.unsynced = self.unsynced = True

    def parted(self) -> None:
        """Note that the volume's home is away: what was not synced may be lost with it."""
        for node in self.nodes:
            if node.unsynced:
                node.unsynced, node.failed = False, True
        for handle in self.handles.values():
            handle.failed |= handle.node.failed
        for handle in self.handles.values():
            handle.node.failed = False
        self.failed |= self.unsynced
        self.unsynced = False

    async def reopen(self) -> None:
        """Open again what the kernel has open, the volume's home being back. What cannot be found answers ESTALE from now on.

        A file that somebody held a lock on is not opened again: another may have had the lock meanwhile.

        Raises:
            Unavailable: It is away again.
        """
        same = await self.files.number(self.volume) == self._number
        locked = {number for number, _ in self.locked}
        self.locked.clear()
        for handle in list(self.handles.values()):
            if not same or handle.node.number in locked:
                continue
            try:
                handle.file = await self.files.open(
                    handle.node.ref,
                    owner=self.cache.owner,
                    access=access_of(handle.flags),
                    deny=Access.NONE,
                )
            except (Unavailable, TimedOut):
                raise
            except WarpError as error:
                _log.warning("an open file is gone", inode=handle.node.ref.inode, reason=str(error))

    def forget(self, number: int, times: int) -> None:
        """Note that the kernel forgot a node so often."""
        node = self.nodes.forgotten(number, times)
        if node is not None:
            self.cache.forgotten(node)

    async def entry(self, above: Node, name: bytes, info: FileInfo) -> bytes:
        """Tell the kernel of a file, which it then remembers."""
        node = self.nodes.told(info.ref, info.kind)
        try:
            if await self.cache.hold(node):
                # Between the look and the lease it may have changed, or lost the name.
                again = await self.files.lookup(above.ref, name) if name else None
                if again is None or again.ref.inode != info.ref.inode:
                    raise StaleHandle(f"{name!r} leads elsewhere now")
                info = again
        except BaseException:
            self.forget(node.number, 1)
            raise
        return self.told(above, name, node, info)

    def told(self, above: Node, name: bytes, node: Node, info: FileInfo) -> bytes:
        """Return what tells the kernel of a file that a name leads to, under the lease that the node has."""
        if name:
            node.names.add((above.number, name))
        if node.kind == "directory":
            node.known = info
        # Those of a directory are told when they are asked for: see `attributes`.
        seconds = self.cache.attributes_s(node) if node.kind != "directory" else 0.0
        return entry_out(node, info, self.cache.name_s(node), seconds)

    async def attributes(self, node: Node, handle: Handle | None = None) -> bytes:
        """Return what stat tells of a node, also of one that lives by its open files alone."""
        quiet = self.turns if not self.changing else -1
        info = await self.info(node, handle)
        seconds = self.cache.attributes_s(node)
        if node.kind == "directory" and (self.changing or quiet != self.turns):
            seconds = 0.0  # of before or after a change in it: the kernel lets go of what it knew when that is answered
        return wire.ATTR_OUT.pack(*span(seconds), 0) + attr(info)

    async def info(self, node: Node, handle: Handle | None) -> FileInfo:
        """Return what is known of a node, with a lease on it if that is to be had."""
        await self.cache.hold(node)
        try:
            info = await self.files.getattr(node.ref)
            if node.kind == "directory":
                node.known = info
            return info
        except NotFound:
            raise Refuse(errno.ESTALE) from None
        except StaleHandle:
            if node.known is not None:  # somebody has it open, or works in it
                return msgspec.structs.replace(node.known, links=0)
            handle = handle or self.open_on(node)
            if handle is None:
                raise
            return await handle.file.info()  # it has no name, and is open

    def open_on(self, node: Node) -> Handle | None:
        """Return some open file of a node."""
        return next((each for each in self.handles.values() if each.node is node), None)

    def locker(self, locker: int, *, flock: bool) -> Owner:
        """Return who holds a lock: a process, or with `flock` an open file."""
        key = b"flock %x" % locker if flock else locker
        return Owner(self.cache.owner.client, key, several=flock)

    def node(self, number: int) -> Node:
        """Return a node that the kernel was told of; ESTALE without it."""
        try:
            return self.nodes[number]
        except KeyError:
            raise Refuse(errno.ESTALE) from None

    def handle(self, number: int) -> Handle:
        """Return an open file; EBADF without it."""
        try:
            return self.handles[number]
        except KeyError:
            raise Refuse(errno.EBADF) from None


def access_of(flags: int) -> Access:
    """Return what a file is opened for."""
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return Access.READ
    # The kernel reads the rest of a page that is written in part, through whichever handle it has.
    return Access.READ | Access.WRITE


def caller_of(request: Request, umask: int = 0) -> Caller:
    """Return who asks: the kernel has checked what he may."""
    return Caller(
        uid=request.uid, gid=request.gid, name=name_of(request.uid), superuser=True, umask=umask
    )


def unchecked_caller_of(request: Request) -> Caller:
    """Return who asks for what the kernel does not check; it does not tell all of his groups."""
    return Caller(
        uid=request.uid,
        gid=request.gid,
        name=name_of(request.uid),
        superuser=request.uid == 0,
    )


def groups_of(request: Request) -> frozenset[int]:
    """Return all groups of who asks, as far as its process, which waits for the answer, can be looked at."""
    try:
        status = Path(f"/proc/{request.pid}/status").read_text()
    except OSError:  # of another namespace, or gone
        return frozenset((request.gid,))
    line = next((line for line in status.splitlines() if line.startswith("Groups:")), "Groups:")
    return frozenset((request.gid, *map(int, line.split()[1:])))


def span(seconds: float) -> tuple[int, int]:
    """Return seconds and nanoseconds."""
    whole = int(seconds)
    return whole, int((seconds - whole) * NS)


def entry_out(node: Node, info: FileInfo, name_s: float, attributes_s: float) -> bytes:
    """Return the answer that tells of a file."""
    name, name_ns = span(name_s)
    valid, valid_ns = span(attributes_s)
    head = wire.ENTRY_OUT.pack(node.number, 0, name, valid, name_ns, valid_ns)
    return head + attr(info)


def attr(info: FileInfo) -> bytes:
    """Return attributes in the kernel's layout."""
    times = (info.accessed_ns, info.modified_ns, info.changed_ns)
    seconds = [when // NS & 0xFFFF_FFFF_FFFF_FFFF for when in times]
    return wire.ATTR.pack(
        info.ref.inode,
        info.size,
        -(-info.allocated // 512),
        *seconds,
        *(when % NS for when in times),
        _mode_of(info),
        info.links,
        info.uid,
        info.gid,
        wire.pack_device(*info.device),
        wire.BLOCK,
        0,
    )


def _mode_of(info: FileInfo) -> int:
    return TYPES[info.kind] | (info.mode if info.checked_mode is None else info.checked_mode)


def changed(info: FileInfo, change: SetInfo) -> FileInfo:
    """Return what is known of a directory that is gone, and that somebody changes all the same."""
    asked = {
        name: getattr(change, name) for name in ("mode", "uid", "gid", "accessed_ns", "modified_ns")
    }
    told = {name: value for name, value in asked.items() if value is not None}
    return msgspec.structs.replace(info, **told, changed_ns=time.time_ns())


def statx_of(info: FileInfo) -> bytes:
    """Return what statx tells in the kernel's layout."""
    times = (info.accessed_ns, info.born_ns, info.changed_ns, info.modified_ns)
    return wire.STATX.pack(
        wire.STATX_BASIC | wire.STATX_BORN,
        wire.BLOCK,
        0,
        info.links,
        info.uid,
        info.gid,
        _mode_of(info),
        info.ref.inode,
        info.size,
        -(-info.allocated // 512),
        0,
        *(part for when in times for part in divmod(when, NS)),
        *info.device,
        0,
        0,
    )
