"""One mount of one volume: what the kernel asks, as verbs of the Files view.

Who may do what is checked by the kernel (`default_permissions`), with credentials that only it knows whole; the attributes it checks
with are as fresh as the leases behind them. The caller's numbers come with each request and become owners of what is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from warp_fuse.attributes import Attributes
from warp_fuse.connection import Answer, Handler
from warp_fuse.locking import Locks
from warp_fuse.names import Names
from warp_fuse.opened import OpenFiles
from warp_fuse.wire import Opcode, Request

CHANGING: Final = frozenset(
    {
        Opcode.CREATE,
        Opcode.LINK,
        Opcode.MKDIR,
        Opcode.MKNOD,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.RMDIR,
        Opcode.SYMLINK,
        Opcode.UNLINK,
    }
)
"""What changes entries of directories. Leases do not tell a mount of what it does itself."""


class Verbs(Names, Attributes, OpenFiles, Locks):
    """The handlers of one mount."""

    @property
    def handlers(self) -> Mapping[int, Handler]:
        """Return who answers what."""
        return {
            opcode: self.tether.held(
                opcode, self._noted(handler) if opcode in CHANGING else handler
            )
            for opcode, handler in self._table().items()
        }

    def _noted(self, handler: Handler) -> Handler:
        """Return a handler that changes directories, and is known to do so: their attributes move meanwhile."""

        async def changes(request: Request) -> Answer:
            self.changing += 1
            try:
                return await handler(request)
            finally:
                self.changing -= 1
                self.turns += 1

        return changes

    def _table(self) -> Mapping[int, Handler]:
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
            Opcode.COPY_FILE_RANGE: self.copy,
            Opcode.COPY_FILE_RANGE_64: self.copy_64,
            Opcode.TMPFILE: self.tmpfile,
            Opcode.STATX: self.statx,
            Opcode.DESTROY: self.nothing,
        }

    async def nothing(self, request: Request) -> Answer:
        """Agree to what needs nothing done."""
        return b""
