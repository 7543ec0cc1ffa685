"""The FUSE kernel protocol, 7.31 and later, as bytes: what the kernel asks and how it wants to be answered.

Layouts are those of Linux's `include/uapi/linux/fuse.h`: native byte order, every request a header and a body by opcode, every answer
one write(2) of a header with the request's number and a body.
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

MAJOR: Final = 7
MINOR: Final = 38
MINOR_MIN: Final = 31  # Linux 5.4
ROOT: Final = 1
BLOCK: Final = 4096
WRITE_MAX: Final = 1 << 20  # the kernel's own ceiling: 256 pages a request
BUFFER: Final = WRITE_MAX + 4096  # what the kernel wants to find room for in each read

IN_HEADER: Final = struct.Struct("=IIQQIIIHH")  # length opcode unique node uid gid pid extensions -
OUT_HEADER: Final = struct.Struct("=IiQ")  # length -errno unique

ATTR: Final = struct.Struct("=QQQQQQIIIIIIIIII")
ENTRY_OUT: Final = struct.Struct("=QQQQII")  # node generation entry-valid attr-valid and their ns
ATTR_OUT: Final = struct.Struct("=QII")  # valid valid-ns -
GETATTR_IN: Final = struct.Struct("=IIQ")  # flags - handle
SETATTR_IN: Final = struct.Struct("=IIQQQQQQIIIIIIII")
MKNOD_IN: Final = struct.Struct("=IIII")  # mode device umask -
MKDIR_IN: Final = struct.Struct("=II")  # mode umask
RENAME_IN: Final = struct.Struct("=Q")
RENAME2_IN: Final = struct.Struct("=QII")  # directory flags -
LINK_IN: Final = struct.Struct("=Q")
OPEN_IN: Final = struct.Struct("=II")  # flags open-flags
CREATE_IN: Final = struct.Struct("=IIII")  # flags mode umask open-flags
OPEN_OUT: Final = struct.Struct("=QIi")  # handle open-flags backing
RELEASE_IN: Final = struct.Struct("=QIIQ")  # handle flags release-flags lock-owner
FLUSH_IN: Final = struct.Struct("=QIIQ")  # handle - - lock-owner
IO_IN: Final = struct.Struct("=QQIIQII")  # handle offset size flags lock-owner open-flags -
WRITE_OUT: Final = struct.Struct("=II")  # size -
STATFS_OUT: Final = struct.Struct("=QQQQQIIII24x")
FSYNC_IN: Final = struct.Struct("=QII")  # handle flags -
SETXATTR_IN: Final = struct.Struct("=II")  # size flags
SETXATTR_EXT_IN: Final = struct.Struct("=IIII")  # size flags more-flags -
GETXATTR_IN: Final = struct.Struct("=II")  # size -
GETXATTR_OUT: Final = struct.Struct("=II")
LOCK_IN: Final = struct.Struct("=QQQQIIII")  # handle owner start end type pid lock-flags -
LOCK_OUT: Final = struct.Struct("=QQII")  # start end type pid
ACCESS_IN: Final = struct.Struct("=II")
INIT_IN: Final = struct.Struct("=IIII")  # major minor readahead flags; then flags2 and room
INIT_OUT: Final = struct.Struct("=IIIIHHIIHHIIH22x")
INTERRUPT_IN: Final = struct.Struct("=Q")
FORGET_IN: Final = struct.Struct("=Q")
BATCH_FORGET_IN: Final = struct.Struct("=II")
FORGET_ONE: Final = struct.Struct("=QQ")  # node count
FALLOCATE_IN: Final = struct.Struct("=QQQII")  # handle offset length mode -
LSEEK_IN: Final = struct.Struct("=QQII")  # handle offset whence -
LSEEK_OUT: Final = struct.Struct("=Q")
COPY_IN: Final = struct.Struct("=QQQQQQQ")  # handle offset node handle offset length flags
COPY_OUT: Final = struct.Struct("=Q")  # bytes copied
STATX_IN: Final = struct.Struct("=IIQII")  # getattr-flags - handle statx-flags statx-mask
STATX_OUT: Final = struct.Struct("=QII16x")  # valid valid-ns flags; then STATX
STATX: Final = struct.Struct("=IIQIIIHxxQQQQqIxxxxqIxxxxqIxxxxqIxxxxIIII112x")
DIRENT: Final = struct.Struct("=QQII")  # inode cookie name-length type
INVAL_INODE: Final = struct.Struct("=Qqq")  # node offset length
INVAL_ENTRY: Final = struct.Struct("=QII")  # directory name-length flags
EXPIRE_ONLY: Final = 1  # FUSE_EXPIRE_ONLY, 7.38
NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_ENTRY: Final = 3


class Opcode(IntEnum):
    """What the kernel may ask. What is not here is answered with ENOSYS, and then not asked again."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Init(IntFlag):
    """What kernel and server agree on, the first 32 of them."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    SETXATTR_EXT = 1 << 29


class SetAttr(IntFlag):
    """Which fields of SETATTR_IN are meant."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    HANDLE = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


class OpenFlag(IntFlag):
    """How the kernel is to treat an open file."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1


SETXATTR_KILL_SGID: Final = 1  # whoever sets the ACL is no member of the file's group
GETATTR_HANDLE: Final = 1  # the request names an open file
STATX_BASIC: Final = 0x7FF  # STATX_BASIC_STATS
STATX_BORN: Final = 0x800  # STATX_BTIME
LOCK_FLOCK: Final = 1  # it is flock(2), not fcntl(2)
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
FSYNC_DATA: Final = 1
LOCK_END: Final = (1 << 63) - 1  # the kernel's OFFSET_MAX


class Request(NamedTuple):
    """One request. `body` is a view into the receive buffer: good until the handler first waits."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: memoryview


def parse(data: memoryview) -> Request:
    """Return a request from what one read(2) brought.

    Raises:
        ValueError: It is no request; the kernel does not send such.
    """
    if len(data) < IN_HEADER.size:
        raise ValueError(f"{len(data)} bytes are no FUSE request")
    length, opcode, unique, node, uid, gid, pid, extensions, _ = IN_HEADER.unpack_from(data)
    if length != len(data) or extensions * 8 > length - IN_HEADER.size:
        raise ValueError(f"a FUSE request of {length} bytes came with {len(data)}")
    body = data[IN_HEADER.size : length - extensions * 8]
    return Request(opcode, unique, node, uid, gid, pid, body)


def names(body: memoryview, count: int) -> list[bytes]:
    """Return the zero-ended names at the start of a body.

    Raises:
        ValueError: There are fewer.
    """
    parts = bytes(body).split(b"\0")
    if len(parts) <= count:
        raise ValueError(f"{len(parts) - 1} names where {count} belong")
    return parts[:count]


def reply(unique: int, body: bytes = b"") -> bytes:
    """Return a good answer."""
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique) + body


def failure(unique: int, code: int) -> bytes:
    """Return an answer that is an errno."""
    if not 0 < code < 1000:  # the kernel takes no others
        code = errno.EIO
    return OUT_HEADER.pack(OUT_HEADER.size, -code, unique)


def forget_inode(node: int) -> bytes:
    """Return the notification that drops what is cached of an inode: pages and attributes."""
    body = INVAL_INODE.pack(node, 0, 0)
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), NOTIFY_INVAL_INODE, 0) + body


def forget_name(directory: int, name: bytes) -> bytes:
    """Return the notification that has the kernel ask anew where a name of a directory leads.

    Linux before 6.2 does not know the flag, and drops the name: who works in a directory of that name has no path then.
    """
    body = INVAL_ENTRY.pack(directory, len(name), EXPIRE_ONLY) + name + b"\0"
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), NOTIFY_INVAL_ENTRY, 0) + body


def pack_device(major: int, minor: int) -> int:
    """Return a device number as the kernel packs it: twenty bits of minor around twelve of major."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def unpack_device(device: int) -> tuple[int, int]:
    """Return (major, minor)."""
    return (device >> 8) & 0xFFF, (device & 0xFF) | ((device >> 12) & 0xFFF00)


def dirent(inode: int, cookie: int, kind: int, name: bytes) -> bytes:
    """Return a directory entry, padded to eight bytes; `kind` is the upper part of a mode."""
    room = -len(name) % 8
    return DIRENT.pack(inode, cookie, len(name), kind >> 12) + name + bytes(room)
