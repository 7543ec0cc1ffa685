"""Verbs on open files."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from warp_core.errors import StaleHandle, Unavailable
from warp_core.namespace.opens import Access
from warp_core.views.files import (
    IO_MAX,
    OpenFile,
)

from warp_fuse import wire
from warp_fuse.connection import Answer, Refuse
from warp_fuse.nodes import Node
from warp_fuse.state import Handle, State, access_of, caller_of, entry_out
from warp_fuse.wire import OpenFlag, Request

_PUNCH: Final = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, which wants FALLOC_FL_KEEP_SIZE
_ZERO: Final = 0x10
_KEEP: Final = 0x01
COPY_MAX: Final = (
    1 << 30
)  # bytes of one copy: so long a signal waits, and more the older answer cannot tell


class OpenFiles(State):
    """Open files."""

    async def open(self, request: Request) -> Answer:
        """Open a regular file."""
        flags, _ = wire.OPEN_IN.unpack_from(request.body)
        node = self.node(request.node)
        file = await self.files.open(
            node.ref,
            caller_of(request),
            owner=self.cache.owner,
            access=access_of(flags),
            deny=Access.NONE,
            truncate=bool(flags & os.O_TRUNC),
        )
        try:
            fresh = await self.cache.hold(node)
        except BaseException:
            await file.close()
            raise
        return self._opened(file, node, flags, keep=not fresh)

    async def create(self, request: Request) -> Answer:
        """Make a regular file and open it."""
        above = self.node(request.node)
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.CREATE_IN.size :], 1)
        file, _ = await self.files.create(
            above.ref,
            name,
            mode & 0o7777,
            caller_of(request, umask),
            owner=self.cache.owner,
            access=access_of(flags),
            deny=Access.NONE,
            exclusive=bool(flags & os.O_EXCL),
            truncate=bool(flags & os.O_TRUNC),
        )
        try:
            entry = await self.entry(above, name, await file.info())
        except BaseException:
            await file.close()
            raise
        return entry + self._opened(file, self.nodes[file.ref.inode], flags, keep=False)

    async def tmpfile(self, request: Request) -> Answer:
        """Make a regular file without a name and open it."""
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request.body)
        file = await self.files.create_unnamed(
            self.node(request.node).ref,
            mode & 0o7777,
            caller_of(request, umask),
            owner=self.cache.owner,
            access=access_of(flags),
            deny=Access.NONE,
        )
        try:
            info = await file.info()
        except BaseException:
            await file.close()
            raise
        node = self.nodes.told(info.ref, info.kind)
        return entry_out(node, info, 0.0, 0.0) + self._opened(file, node, flags, keep=False)

    def _opened(self, file: OpenFile, node: Node, flags: int, *, keep: bool) -> bytes:
        number = next(self.numbers)
        self.handles[number] = Handle(file, node, flags)
        return wire.OPEN_OUT.pack(number, OpenFlag.KEEP_CACHE if keep and node.kinds else 0, 0)

    async def read(self, request: Request) -> Answer:
        """Read from an open file."""
        number, offset, size, *_ = wire.IO_IN.unpack_from(request.body)
        handle = self.handle(number)
        await self.cache.hold(handle.node)  # the kernel will keep what it reads
        data = await handle.file.read(offset, size)
        self.cache.fills(handle.node)
        return data

    async def write(self, request: Request) -> Answer:
        """Write to an open file."""
        number, offset, size, _, _, flags, _ = wire.IO_IN.unpack_from(request.body)
        handle = self.handle(number)
        data = request.body[wire.IO_IN.size : wire.IO_IN.size + size]
        await self.cache.hold(handle.node)  # the kernel keeps what it writes as well
        handle.node.writing += 1
        try:
            await self._write(handle, flags, offset, data)
        finally:
            handle.node.writing -= 1
        return wire.WRITE_OUT.pack(size, 0)

    async def _write(self, handle: Handle, flags: int, offset: int, data: memoryview) -> None:
        self.wrote(handle.node)
        if not flags & os.O_APPEND:
            await handle.file.write(offset, data)
            self.cache.fills(handle.node)
            return
        try:
            # Where the kernel takes the end to be is no more than its guess: others append as well.
            found = await handle.file.append(data)
        except Unavailable:
            raise Refuse(errno.EHOSTDOWN) from None  # it may be there, and must not be twice
        if found == offset:
            self.cache.fills(handle.node)
        else:
            self.cache.stale(handle.node)  # it has to look again

    async def flush(self, request: Request) -> Answer:
        """Drop the locks of a process that closes a file."""
        number, _, _, locker = wire.FLUSH_IN.unpack_from(request.body)
        handle = self.handle(number)
        handle.lockers.discard(locker)
        if self.lockers.pop(locker, None) is not None:
            owner = self.locker(locker, flock=False)
            self.locked.discard((handle.node.number, owner.key))
            with contextlib.suppress(Unavailable, StaleHandle):  # its home lets go by itself
                await self.files.claims.unlock_all(handle.node.ref, owner)
        return b""

    async def release(self, request: Request) -> Answer:
        """Close an open file."""
        number, _, flags, locker = wire.RELEASE_IN.unpack_from(request.body)
        handle = self.handles.pop(number, None)
        if handle is not None:
            # Where the home is away, it lets go of both by itself.
            with contextlib.suppress(Unavailable, StaleHandle):
                if flags & wire.RELEASE_FLOCK_UNLOCK:
                    owner = self.locker(locker, flock=True)
                    self.locked.discard((handle.node.number, owner.key))
                    await self.files.claims.unlock_all(handle.node.ref, owner)
                # Locks of the open file itself (F_OFD_SETLK): the kernel tells of no unlock, and no process has this number.
                for own in handle.lockers:
                    self.lockers.pop(own, None)
                    owner = self.locker(own, flock=False)
                    self.locked.discard((handle.node.number, owner.key))
                    await self.files.claims.unlock_all(handle.node.ref, owner)
            await handle.file.close()
        return b""

    async def fsync(self, request: Request) -> Answer:
        """Make what was written durable."""
        number, _, _ = wire.FSYNC_IN.unpack_from(request.body)
        handle = self.handle(number)
        handle.node.unsynced = False
        try:
            await handle.file.sync()
        except BaseException:
            handle.node.unsynced = True
            raise
        if handle.failed:
            handle.failed = False
            raise Refuse(errno.EIO)
        return b""

    async def syncfs(self, request: Request) -> Answer:
        """Make everything durable."""
        self.unsynced = False
        try:
            await self.files.sync(self.volume)
        except BaseException:
            self.unsynced = True
            raise
        if self.failed:
            self.failed = False
            raise Refuse(errno.EIO)
        return b""

    async def fallocate(self, request: Request) -> Answer:
        """Make room, or a hole, or zeros."""
        number, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(request.body)
        handle = self.handle(number)
        file = handle.file
        self.wrote(handle.node)
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

    async def copy(self, request: Request) -> Answer:
        """Copy between files, without the bytes coming here."""
        return wire.WRITE_OUT.pack(await self._copy(request), 0)

    async def copy_64(self, request: Request) -> Answer:
        """Copy as above, with a count of any size."""
        return wire.COPY_OUT.pack(await self._copy(request))

    async def _copy(self, request: Request) -> int:
        source, offset, _, target, at, length, _ = wire.COPY_IN.unpack_from(request.body)
        to = self.handle(target)
        self.wrote(to.node)
        length = min(length, COPY_MAX)
        return await to.file.copy_from(
            self.handle(source).file, offset=offset, length=length, at=at
        )

    async def lseek(self, request: Request) -> Answer:
        """Find data or a hole."""
        number, offset, whence, _ = wire.LSEEK_IN.unpack_from(request.body)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise Refuse(errno.EINVAL)
        found = await self.handle(number).file.seek(
            offset, "data" if whence == os.SEEK_DATA else "hole"
        )
        return wire.LSEEK_OUT.pack(found)


assert IO_MAX >= wire.WRITE_MAX
