"""Verbs on attributes."""

from __future__ import annotations

import errno
import os
import time
from typing import Final

from warp_core.errors import NotFound
from warp_core.interfaces.stores import Buffer
from warp_core.views.files import (
    NAME_MAX,
    SetInfo,
)

from warp_fuse import wire
from warp_fuse.connection import Answer, Refuse
from warp_fuse.state import NS, State, caller_of
from warp_fuse.wire import Request, SetAttr

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
            await self.files.setattr(node.ref, change, caller_of(request), by=self.cache.owner)
        return await self.attributes(node, handle)

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
        size, flags = wire.SETXATTR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.SETXATTR_IN.size :], 1)
        at = wire.SETXATTR_IN.size + len(name) + 1
        value = bytes(request.body[at : at + size])
        _check_xattr(name)
        ref, caller = self.node(request.node).ref, caller_of(request)
        if flags == os.XATTR_CREATE:
            await self.files.set_xattr(ref, name, value, caller, must="create")
        elif flags == os.XATTR_REPLACE:
            try:
                await self.files.set_xattr(ref, name, value, caller, must="replace")
            except NotFound:
                raise Refuse(errno.ENODATA) from None
        elif flags == 0:
            await self.files.set_xattr(ref, name, value, caller)
        else:
            raise Refuse(errno.EINVAL)
        return b""

    async def getxattr(self, request: Request) -> Answer:
        """Return an extended attribute, or its size."""
        size, _ = wire.GETXATTR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.GETXATTR_IN.size :], 1)
        _check_xattr(name)
        value = (await self.files.xattrs(self.node(request.node).ref)).get(name)
        if value is None:
            raise Refuse(errno.ENODATA)
        return _sized(value, size)

    async def listxattr(self, request: Request) -> Answer:
        """Return the names of the extended attributes, or their size."""
        size, _ = wire.GETXATTR_IN.unpack_from(request.body)
        names = await self.files.xattrs(self.node(request.node).ref)
        return _sized(b"".join(name + b"\0" for name in names), size)

    async def removexattr(self, request: Request) -> Answer:
        """Remove an extended attribute."""
        (name,) = wire.names(request.body, 1)
        _check_xattr(name)
        try:
            await self.files.set_xattr(self.node(request.node).ref, name, None, caller_of(request))
        except NotFound:
            raise Refuse(errno.ENODATA) from None
        return b""


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
    # Not `system.`: those are POSIX ACLs, which the kernel would not obey here.
    if not name.startswith((b"user.", b"trusted.", b"security.")):
        raise Refuse(errno.EOPNOTSUPP)


def _sized(value: Buffer, room: int) -> Buffer:
    if not room:
        return wire.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > room:
        raise Refuse(errno.ERANGE)
    return value
