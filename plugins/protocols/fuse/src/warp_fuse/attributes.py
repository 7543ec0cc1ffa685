"""Verbs on attributes."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from warp_core.errors import StaleHandle
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.attributes import LISTS, Must
from warp_core.namespace.nfs_acls import NFS4
from warp_core.views.files import (
    NAME_MAX,
    SetInfo,
)

from warp_fuse import wire
from warp_fuse.connection import Answer, Refuse
from warp_fuse.nodes import Node
from warp_fuse.state import (
    NS,
    Handle,
    State,
    caller_of,
    changed,
    groups_of,
    span,
    statx_of,
    unchecked_caller_of,
)
from warp_fuse.wire import Init, Request, SetAttr

_MUST: Final[Mapping[int, Must]] = {0: "", os.XATTR_CREATE: "create", os.XATTR_REPLACE: "replace"}
_OF_CONTENT_OR_OWNER: Final = SetAttr.UID | SetAttr.GID | SetAttr.SIZE | SetAttr.HANDLE
FREE_INODES: Final = 1 << 31  # there is no such limit; programs want to see one


class Attributes(State):
    """What stat tells, extended attributes, and how full it is."""

    async def getattr(self, request: Request) -> Answer:
        """Return what stat tells."""
        flags, _, number = wire.GETATTR_IN.unpack_from(request.body)
        node = self.node(request.node)
        handle = self.handles.get(number) if flags & wire.GETATTR_HANDLE else None
        return await self.attributes(node, handle)

    async def setattr(self, request: Request) -> Answer:
        """Change attributes."""
        (
            valid, _, number, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _,
        ) = wire.SETATTR_IN.unpack_from(request.body)  # fmt: skip
        node = self.node(request.node)
        asked = SetAttr(valid & 0x1FF)
        handle = self.handles.get(number) if asked & SetAttr.HANDLE else None
        if asked & SetAttr.SIZE:
            self.wrote(node)
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
        if not asked & ~_OF_CONTENT_OR_OWNER:
            change = await self._without_set_gid(request, node, handle, change)
        if (
            change != SetInfo() or handle is None or not asked & SetAttr.SIZE
        ):  # chown(-1, -1) is a change too
            try:
                await self.files.setattr(node.ref, change, caller_of(request), by=self.cache.owner)
            except StaleHandle:
                if node.known is None:
                    raise
                node.known = changed(node.known, change)
        return await self.attributes(node, handle)

    async def _without_set_gid(
        self, request: Request, node: Node, handle: Handle | None, change: SetInfo
    ) -> SetInfo:
        """Take away the set-group-id bit as Linux does when content or owner change.

        The kernel sees to set-user-id, and to set-group-id where the group may execute. Where it may not, it leaves the bit to us,
        unless who changes it is in the group: of its groups only the process itself tells all.
        """
        if not request.uid or node.kind == "directory":
            return change
        info = await self.info(node, handle)
        if not info.mode & stat.S_ISGID or info.gid in groups_of(request):
            return change
        if change == SetInfo() and request.uid != info.uid and not info.mode & stat.S_IWOTH:
            return change  # chown(-1, -1) by somebody else, which looks like a write
        return msgspec.structs.replace(change, mode=info.mode & ~stat.S_ISGID)

    async def statx(self, request: Request) -> Answer:
        """Return what statx tells: all of stat, and when the file was made."""
        flags, _, number, _, _ = wire.STATX_IN.unpack_from(request.body)
        node = self.node(request.node)
        handle = self.handles.get(number) if flags & wire.GETATTR_HANDLE else None
        info = await self.info(node, handle)
        valid = wire.STATX_OUT.pack(*span(self.cache.attributes_s(node)), 0)
        return valid + statx_of(info)

    async def statfs(self, request: Request) -> Answer:
        """Return how full it is."""
        space = await self.files.statfs(self.volume)
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
        more = 0
        if self.agreed & Init.SETXATTR_EXT:
            head = wire.SETXATTR_EXT_IN
            size, flags, more, _ = head.unpack_from(request.body)
        else:
            head = wire.SETXATTR_IN
            size, flags = head.unpack_from(request.body)
        (name,) = wire.names(request.body[head.size :], 1)
        at = head.size + len(name) + 1
        value = bytes(request.body[at : at + size])
        if flags not in _MUST:
            raise Refuse(errno.EINVAL)
        if more & wire.SETXATTR_KILL_SGID:
            await self._kill_sgid(request)
        await self._set(request, name, value, _MUST[flags])
        return b""

    async def getxattr(self, request: Request) -> Answer:
        """Return an extended attribute, or its size."""
        size, _ = wire.GETXATTR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.GETXATTR_IN.size :], 1)
        _check_xattr(name)
        value = await self.files.xattr(self.node(request.node).ref, name, caller_of(request))
        return _sized(value, size)

    async def listxattr(self, request: Request) -> Answer:
        """Return the names of the extended attributes, or their size."""
        size, _ = wire.GETXATTR_IN.unpack_from(request.body)
        found = await self.files.xattrs(self.node(request.node).ref, caller_of(request))
        names = [name for name in found if request.uid == 0 or not name.startswith(b"trusted.")]
        return _sized(b"".join(name + b"\0" for name in names), size)

    async def removexattr(self, request: Request) -> Answer:
        """Remove an extended attribute."""
        (name,) = wire.names(request.body, 1)
        await self._set(request, name, None, "")
        return b""

    async def _set(self, request: Request, name: bytes, value: bytes | None, must: Must) -> None:
        _check_xattr(name)
        # Of what it does not know the kernel checks nothing.
        caller = unchecked_caller_of(request) if name == NFS4 else caller_of(request)
        ref = self.node(request.node).ref
        await self.files.set_xattr(ref, name, value, caller, must=must, by=self.cache.owner)
        if name == NFS4:  # the kernel does not know that modes follow from it
            self.cache.stale(self.node(request.node))

    async def _kill_sgid(self, request: Request) -> None:
        ref = self.node(request.node).ref
        mode = (await self.files.getattr(ref)).mode
        if mode & stat.S_ISGID:
            change = SetInfo(mode=mode & ~stat.S_ISGID)
            await self.files.setattr(ref, change, caller_of(request), by=self.cache.owner)


def _chosen(
    asked: SetAttr, now_bit: SetAttr, now: int, bit: SetAttr, seconds: int, nanoseconds: int
) -> int | None:
    if asked & now_bit:
        return now
    if asked & bit:
        signed = seconds - (1 << 64) if seconds >> 63 else seconds
        return signed * NS + nanoseconds
    return None


def _check_xattr(name: bytes) -> None:
    if name not in LISTS and not name.startswith((b"user.", b"trusted.", b"security.")):
        raise Refuse(errno.EOPNOTSUPP)


def _sized(value: Buffer, room: int) -> Buffer:
    if not room:
        return wire.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise Refuse(errno.ERANGE)
    return value
