"""File calls: plain functions that a thread runs, and the error that each `OSError` becomes."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from warp_core.errors import NoSpace, NotFound, StoreFailed, WarpError
from warp_core.interfaces.stores import Buffer

IOV_MAX = 1024  # buffers of one pwritev: Linux's UIO_MAXIOV
ZERO_BLOCK = bytes(1024 * 1024)

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
_FULL = (errno.ENOSPC, errno.EDQUOT)
_libc = ctypes.CDLL(None, use_errno=True)
_CACHESTAT = 451  # Linux 6.5; the same number on every architecture
_PAGE_SHIFT = os.sysconf("SC_PAGESIZE").bit_length() - 1
_range = (ctypes.c_uint64 * 2)()
_counts = (ctypes.c_uint64 * 5)()


def explained(error: OSError, doing: str, path: Path | str) -> WarpError:
    """Return what an `OSError` means to callers of a store."""
    message = f"{doing} {path}: {error.strerror or error}"
    if error.errno in _FULL:
        return NoSpace(message)
    if error.errno == errno.ENOENT:
        return NotFound(message)
    return StoreFailed(message)


def write_at(descriptor: int, offset: int, buffers: Sequence[Buffer]) -> None:
    """Write all the buffers one after the other from `offset` on."""
    views: Sequence[Buffer] = buffers
    if len(buffers) > IOV_MAX:
        for start in range(0, len(buffers), IOV_MAX):
            part = buffers[start : start + IOV_MAX]
            write_at(descriptor, offset, part)
            offset += sum(map(len, part))
        return
    left = sum(map(len, views))
    while left:
        written = os.pwritev(descriptor, views, offset)
        if written == 0:
            raise OSError(errno.EIO, "the device accepts no bytes")
        left -= written
        offset += written
        if left:
            views = _after(views, written)


def _after(buffers: Sequence[Buffer], count: int) -> list[Buffer]:
    rest: list[Buffer] = []
    for buffer in buffers:
        size = len(buffer)
        if count >= size:
            count -= size
        else:
            rest.append(memoryview(buffer)[count:] if count else buffer)
            count = 0
    return rest


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Return `length` bytes from `offset`, fewer at the file's end."""
    data = os.pread(descriptor, length, offset)  # fresh memory that nobody had to zero
    if len(data) == length or not data:
        return data
    parts = [data]
    got = len(data)
    while got < length and (data := os.pread(descriptor, length - got, offset + got)):
        parts.append(data)
        got += len(data)
    return b"".join(parts)


def read_into_at(descriptor: int, offset: int, buffer: memoryview) -> int:
    """Fill `buffer` from `offset`; return how many bytes there were."""
    got = 0
    while got < len(buffer):
        count = os.preadv(descriptor, (buffer[got:],), offset + got)
        if count == 0:
            break
        got += count
    return got


def cached(descriptor: int, offset: int, length: int) -> bool:
    """Say whether the page cache has a range; False where the kernel cannot tell. For one thread: the loop's."""
    _range[0], _range[1] = offset, length
    if not length or _libc.syscall(_CACHESTAT, descriptor, _range, _counts, 0):
        return False
    pages = (offset + length - 1 >> _PAGE_SHIFT) - (offset >> _PAGE_SHIFT) + 1
    return bool(_counts[0] >= pages)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate(descriptor: int, size: int) -> None:
    """Give a file `size` bytes of space, reading zeros."""
    if size:
        os.posix_fallocate(descriptor, 0, size)


def overwrite_with_zeros(descriptor: int, begin: int, end: int) -> None:
    """Write every block of a range, so that overwriting and syncing them later changes no extents."""
    for offset in range(begin, end, len(ZERO_BLOCK)):
        write_at(descriptor, offset, (memoryview(ZERO_BLOCK)[: end - offset],))


def punch(descriptor: int, offset: int, length: int) -> None:
    """Free whole blocks of a range and zero the rest of it."""
    result = _libc.fallocate(
        descriptor, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)
    )
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def can_punch(folder: Path) -> bool:
    """Try whether the file system frees ranges."""
    descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.pwrite(descriptor, ZERO_BLOCK[:8192], 0)
        punch(descriptor, 0, 4096)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def replace_durably(path: Path, incoming: Path, buffers: Sequence[Buffer], mode: int) -> None:
    """Make `path` a file of these bytes: whole and durable on return, untouched on error."""
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            write_at(descriptor, 0, buffers)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(incoming, path)
    except OSError:
        incoming.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
