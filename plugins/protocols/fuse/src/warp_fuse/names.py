"""Verbs on names and directories."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping
from typing import Final

from warp_core.errors import StaleHandle, WarpError
from warp_core.namespace.opens import Access
from warp_core.views.files import (
    DirEntry,
    FileKind,
    Rename,
)

from warp_fuse import wire
from warp_fuse.connection import Answer, Refuse
from warp_fuse.nodes import Node
from warp_fuse.state import TYPES, State, caller_of
from warp_fuse.wire import Request

KINDS: Final[Mapping[int, FileKind]] = {number: kind for kind, number in TYPES.items()}
LISTED: Final = ("file", "directory", "symlink")  # of the others a listing does not know the kind
_RENAMES: Final = Rename.NOREPLACE | Rename.EXCHANGE | Rename.WHITEOUT
PAGE: Final = 256  # names asked for at a time
DOT, DOTS = 1, 2  # cookies that names never have


class Names(State):
    """Names and directories."""

    async def lookup(self, request: Request) -> Answer:
        """Find a name."""
        above = self.node(request.node)
        (name,) = wire.names(request.body, 1)
        if name == b".":
            info = await self.files.getattr(above.ref)
        elif name == b"..":
            info = await self.files.getattr(await self.files.parent(above.ref))
        else:
            info = await self.files.lookup(above.ref, name, caller_of(request))
        return await self.entry(above, name, info)

    async def readlink(self, request: Request) -> Answer:
        """Return where a symbolic link points."""
        return await self.files.readlink(self.node(request.node).ref)

    async def symlink(self, request: Request) -> Answer:
        """Make a symbolic link."""
        above = self.node(request.node)
        name, target = wire.names(request.body, 2)
        info = await self.files.symlink(
            above.ref, name, target, caller_of(request), by=self.cache.owner
        )
        return await self.entry(above, name, info)

    async def mknod(self, request: Request) -> Answer:
        """Make a node: a fifo, socket or device, or an empty file."""
        above = self.node(request.node)
        mode, device, umask, _ = wire.MKNOD_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.MKNOD_IN.size :], 1)
        kind = KINDS.get(stat.S_IFMT(mode))
        if kind is None or kind in ("directory", "symlink"):
            raise Refuse(errno.EINVAL)
        permissions, caller = mode & 0o7777, caller_of(request, umask)
        if kind == "file":
            file, _ = await self.files.create(
                above.ref,
                name,
                permissions,
                caller,
                owner=self.cache.owner,
                access=Access.READ,
                deny=Access.NONE,
                exclusive=True,
            )
            await file.close()
            info = await self.files.lookup(above.ref, name)
        else:
            info = await self.files.mknod(
                above.ref,
                name,
                kind,
                permissions,
                caller,
                device=wire.unpack_device(device),
                by=self.cache.owner,
            )
        return await self.entry(above, name, info)

    async def mkdir(self, request: Request) -> Answer:
        """Make a directory."""
        above = self.node(request.node)
        mode, umask = wire.MKDIR_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.MKDIR_IN.size :], 1)
        info = await self.files.mkdir(
            above.ref, name, mode & 0o7777, caller_of(request, umask), by=self.cache.owner
        )
        return await self.entry(above, name, info)

    async def unlink(self, request: Request) -> Answer:
        """Remove a name that is no directory."""
        above = self.node(request.node)
        (name,) = wire.names(request.body, 1)
        await self.files.unlink(above.ref, name, caller_of(request), by=self.cache.owner)
        return b""

    async def rmdir(self, request: Request) -> Answer:
        """Remove an empty directory."""
        (name,) = wire.names(request.body, 1)
        await self.files.rmdir(
            self.node(request.node).ref, name, caller_of(request), by=self.cache.owner
        )
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
        if flags & ~_RENAMES:
            raise Refuse(errno.EINVAL)
        old, new = wire.names(request.body[size:], 2)
        await self.files.rename(
            self.node(request.node).ref,
            old,
            self.node(target).ref,
            new,
            caller_of(request),
            how=Rename(flags),
            by=self.cache.owner,
        )
        return b""

    async def link(self, request: Request) -> Answer:
        """Give a file another name."""
        above = self.node(request.node)
        (number,) = wire.LINK_IN.unpack_from(request.body)
        (name,) = wire.names(request.body[wire.LINK_IN.size :], 1)
        await self.files.link(
            self.node(number).ref, above.ref, name, caller_of(request), by=self.cache.owner
        )
        # Its size with what was written since its row was.
        return await self.entry(above, name, await self.files.lookup(above.ref, name))

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
        node = self.node(request.node)
        listed: list[bytes] = []
        for at, name in ((DOT, b"."), (DOTS, b"..")):
            if cookie < at:
                line = wire.dirent(node.ref.inode, at, stat.S_IFDIR, name)
                listed.append(bytes(wire.ENTRY_OUT.size + wire.ATTR.size) + line if plus else line)
        room -= sum(map(len, listed))
        after, last = (cookie if cookie > DOTS else 0), False
        while not last:
            entries, last = await self.files.readdir(
                node.ref, cookie=after, limit=PAGE, caller=caller_of(request)
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
        """Return what a lookup of an entry would; nothing where the kernel knows that, or will find out that it is gone."""
        nothing = bytes(wire.ENTRY_OUT.size + wire.ATTR.size)
        known = self.nodes.known(entry.ref)
        if (
            known is not None
            and self.cache.has(known)
            and (above.number, entry.name) in known.names
        ):
            return nothing
        node = self.nodes.told(entry.ref, entry.kind)
        try:
            # The lease first: what is read after it stays true.
            await self.cache.hold(node)
            info = await self.files.lookup(above.ref, entry.name)
            if info.ref.inode != entry.ref.inode:
                raise StaleHandle(f"{entry.name!r} leads elsewhere now")
        except WarpError:
            self.forget(node.number, 1)
            return nothing
        except BaseException:
            self.forget(node.number, 1)
            raise
        node.kind = info.kind
        return self.told(above, entry.name, node, info)
