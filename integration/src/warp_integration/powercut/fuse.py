"""Enough of the FUSE kernel protocol to serve a flat directory of fixed-size files.

Spoken to `/dev/fuse` directly, so that the rig needs no library and no compiler. The kernel sends one request per
read: a header, then a body by opcode; the answer is one write with the same `unique` number.
Layouts are those of `include/uapi/linux/fuse.h`, protocol 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Protocol

WRITE_MAX = 1 << 20  # the kernel's own ceiling: 256 pages a request
READ_MAX = 1 << 20
_CLONE_NEWNS = 0x00020000
_CACHE_S = 3600  # names and sizes never change while mounted

IN_HEADER = struct.Struct("<IIQQIIIHH")  # length opcode unique node uid gid pid extensions pad
OUT_HEADER = struct.Struct("<IiQ")  # length -errno unique
INIT_IN = struct.Struct("<IIII")  # major minor readahead flags
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
IO_IN = struct.Struct("<QQIIQII")  # handle offset size flags owner open-flags pad; READ and WRITE
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY_OUT = struct.Struct("<QQQQII")
ATTR_OUT = struct.Struct("<QII")
OPEN_OUT = struct.Struct("<QII")
WRITE_OUT = struct.Struct("<II")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")

INIT_ASYNC_READ = 1 << 0
INIT_BIG_WRITES = 1 << 5
INIT_MAX_PAGES = 1 << 22
OPEN_DIRECT_IO = 1 << 0
ROOT = 1


class Opcode(IntEnum):
    """The requests that this server knows; the rest get ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


_SILENT = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT}
_EMPTY = {
    Opcode.RELEASE,
    Opcode.RELEASEDIR,
    Opcode.FLUSH,  # close(2), not a flush of the disk
    Opcode.DESTROY,
}


class Disk(Protocol):
    """What a served file stands on; offsets and sizes are bytes."""

    name: str
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take `data`; the view is reused after the call."""

    def sync(self) -> None:
        """Complete a flush of everything written before."""


def mount(directory: Path, namespace: Path) -> int:
    """Mount a FUSE file system on `directory` in another mount namespace; return the descriptor to serve it by.

    The caller ends in the namespace it was in, and that matters: a server that is the last process of the namespace
    would, when it is killed, unmount what stands on its own files before its descriptor is closed, and wait
    for itself for ever.

    Args:
        directory: The mount point.
        namespace: A file such as `/proc/PID/ns/mnt`.

    Raises:
        OSError: Not root, or no FUSE in this kernel.
    """
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,max_read={READ_MAX}"
    libc = ctypes.CDLL(None, use_errno=True)
    nosuid_nodev = 2 | 4
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(libc, there)
        arguments = (b"warp-powercut", bytes(directory), b"fuse", nosuid_nodev, options.encode())
        failed, code = libc.mount(*arguments), ctypes.get_errno()
        _enter(libc, home)
    finally:
        os.close(there)  # else we would keep that namespace alive
        os.close(home)
    if failed:
        os.close(descriptor)
        raise OSError(code, f"mount fuse on {directory}: {os.strerror(code)}")
    return descriptor


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNS):
        code = ctypes.get_errno()
        raise OSError(code, f"enter mount namespace: {os.strerror(code)}")


class Server:
    """Answer the kernel's requests one after the other, which is what gives the trace its order."""

    def __init__(self, descriptor: int, disks: Sequence[Disk]) -> None:
        self._descriptor = descriptor
        self._disks = disks
        self._nodes = {disk.name.encode(): ROOT + 1 + n for n, disk in enumerate(disks)}
        # The kernel insists on room for its largest request in one read.
        self._buffer = bytearray(WRITE_MAX + 4096)

    def serve(self) -> None:
        """Serve until the file system is unmounted."""
        view = memoryview(self._buffer)
        while True:
            try:
                length = os.readv(self._descriptor, [self._buffer])
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):  # the request was withdrawn
                    continue
                raise
            _, code, unique, node, *_ = IN_HEADER.unpack_from(view)
            body = view[IN_HEADER.size : length]
            if code in _SILENT:
                continue
            try:
                reply, status = self._answer(code, node, body), 0
            except OSError as error:
                reply, status = b"", error.errno or errno.EIO
            header = OUT_HEADER.pack(OUT_HEADER.size + len(reply), -status, unique)
            try:
                os.writev(self._descriptor, [header, reply])
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV):  # nobody waits any more
                    raise

    def _answer(self, code: int, node: int, body: memoryview) -> bytes:
        match code:
            case Opcode.WRITE:
                _, offset, size, *_ = IO_IN.unpack_from(body)
                self._disk(node).write(offset, body[IO_IN.size : IO_IN.size + size])
                return WRITE_OUT.pack(size, 0)
            case Opcode.READ:
                _, offset, size, *_ = IO_IN.unpack_from(body)
                return self._disk(node).read(offset, size)
            case Opcode.FSYNC:
                self._disk(node).sync()
                return b""
            case Opcode.LOOKUP:
                found = self._nodes.get(bytes(body).rstrip(b"\0"))
                if found is None:
                    raise OSError(errno.ENOENT, "no such disk")
                return ENTRY_OUT.pack(found, 0, _CACHE_S, _CACHE_S, 0, 0) + self._attributes(found)
            case Opcode.GETATTR | Opcode.SETATTR:
                return ATTR_OUT.pack(_CACHE_S, 0, 0) + self._attributes(node)
            case Opcode.OPEN:
                # Direct: the kernel caches the mounted file system above the loop device already.
                return OPEN_OUT.pack(node, OPEN_DIRECT_IO, 0)
            case Opcode.OPENDIR:
                return OPEN_OUT.pack(node, 0, 0)
            case Opcode.STATFS:
                blocks = sum(disk.size for disk in self._disks) >> 12
                return STATFS_OUT.pack(blocks, 0, 0, len(self._disks), 0, 4096, 255, 4096, 0)
            case Opcode.INIT:
                return self._init(body)
            case _ if code in _EMPTY:
                return b""
            case _:
                raise OSError(errno.ENOSYS, f"opcode {code}")

    def _init(self, body: memoryview) -> bytes:
        major, _, readahead, offered = INIT_IN.unpack_from(body)
        if major != 7:
            raise OSError(errno.EPROTO, f"FUSE protocol {major}")
        flags = offered & (INIT_ASYNC_READ | INIT_BIG_WRITES | INIT_MAX_PAGES)
        return INIT_OUT.pack(7, 31, readahead, flags, 64, 48, WRITE_MAX, 1, 256, 0, 0)

    def _disk(self, node: int) -> Disk:
        return self._disks[node - ROOT - 1]

    def _attributes(self, node: int) -> bytes:
        if node == ROOT:
            mode, size = stat.S_IFDIR | 0o700, 0
        else:
            mode, size = stat.S_IFREG | 0o600, self._disk(node).size
        return ATTR.pack(node, size, size >> 9, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
