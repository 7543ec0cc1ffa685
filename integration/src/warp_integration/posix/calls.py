"""System calls by name, with arguments as JSON carries them, made in a process that has credentials of its own.

Python's `os` checks, splits and repeats calls; where that would hide what the file system answers, libc is called directly.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

Call = list[Any]  # a name and its arguments

HERE: Final = -100  # AT_FDCWD
NO_FOLLOW: Final = 0x100  # AT_SYMLINK_NOFOLLOW
EMPTY_PATH: Final = 0x1000  # AT_EMPTY_PATH
FOLLOW: Final = 0x400  # AT_SYMLINK_FOLLOW
EFFECTIVE: Final = 0x200  # AT_EACCESS
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2  # UTIME_NOW and UTIME_OMIT, in place of nanoseconds
BAD_POINTER: Final = 1
_FCHMODAT2: Final = 452
_FACCESSAT2: Final = 439
_libc = ctypes.CDLL(None, use_errno=True)
_Ranges = ctypes.c_long * 4


class User:
    """A process with its own credentials, in a directory."""

    def __init__(
        self, directory: Path, uid: int, gid: int, groups: Sequence[int], *, umask: int = 0
    ) -> None:
        ours, theirs = socket.socketpair()
        self._process = os.fork()
        if not self._process:
            try:
                ours.close()
                os.chdir(directory)
                os.umask(umask)
                os.setgroups(groups)
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
                _serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._socket = ours
        self._stream = ours.makefile("rw")

    def call(self, call: Call) -> Any:
        """Make a call and return its answer: a value, or the name of the error."""
        self._stream.write(json.dumps(call) + "\n")
        self._stream.flush()
        return json.loads(self._stream.readline())

    def end(self) -> None:
        """End the process, and with it what it holds open."""
        with suppress(OSError):
            self._stream.write("[]\n")
            self._stream.flush()
        self._socket.close()
        os.waitpid(self._process, 0)


def _serve(channel: socket.socket) -> None:
    stream = channel.makefile("rw")
    process = Process()
    for line in stream:
        call = json.loads(line)
        if not call:
            return
        stream.write(json.dumps(process.answer(call)) + "\n")
        stream.flush()


class Process:
    """Makes calls; what `open` opens is held under a name until `close`, or `forget`."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._sockets: list[socket.socket] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)

    def answer(self, call: Call) -> Any:
        """Make a call and return its answer: a value, or the name of the error."""
        name, *arguments = call
        try:
            return getattr(self, f"do_{name}")(*arguments)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        except KeyError:
            return "nothing is held"
        except ValueError as error:  # Python refuses what no kernel takes
            return type(error).__name__

    # Names ----------------------------------------------------------------------------------------

    def do_mkdir(self, path: str, mode: int = 0o755) -> str:
        return _done(_libc.mkdir(_c(path), mode))

    def do_rmdir(self, path: str) -> str:
        return _done(_libc.rmdir(_c(path)))

    def do_unlink(self, path: str) -> str:
        return _done(_libc.unlink(_c(path)))

    def do_rename(self, source: str, target: str, flags: int = 0) -> str:
        if not flags:
            return _done(_libc.rename(_c(source), _c(target)))
        return _done(_libc.renameat2(HERE, _c(source), HERE, _c(target), flags))

    def do_link(self, source: str, target: str, flags: int = 0) -> str:
        return _done(_libc.linkat(HERE, _c(source), HERE, _c(target), flags))

    def do_link_held(self, key: str, target: str) -> str:
        """Give an open file a name, as O_TMPFILE is meant to be used."""
        source = f"/proc/self/fd/{self._held[key]}"
        return _done(_libc.linkat(HERE, _c(source), HERE, _c(target), FOLLOW))

    def do_symlink(self, target: str, path: str) -> str:
        return _done(_libc.symlink(_c(target), _c(path)))

    def do_readlink(self, path: str) -> str:
        return os.readlink(path)

    def do_mkfifo(self, path: str, mode: int = 0o644) -> str:
        return _done(_libc.mkfifo(_c(path), mode))

    def do_mknod(self, path: str, mode: int, major: int = 0, minor: int = 0) -> str:
        device = ctypes.c_ulong(os.makedev(major, minor))
        return _done(_libc.mknod(_c(path), mode, device))

    def do_bind(self, path: str) -> str:
        """Make a socket by binding one."""
        bound = socket.socket(socket.AF_UNIX)
        try:
            bound.bind(path)
        except OSError:
            bound.close()
            raise
        bound.listen(64)  # nobody takes them off
        self._sockets.append(bound)
        return "done"

    def do_connect(self, path: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        return "done"

    def do_chdir(self, path: str) -> str:
        os.chdir(path)
        return "done"

    def do_listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def do_umask(self, mask: int) -> str:
        os.umask(mask)
        return "done"

    def do_bad_pointer(self, name: str, *arguments: int) -> str:
        """Call a function of libc with an address in place of its path, or paths (-1)."""
        words = [ctypes.c_void_p(BAD_POINTER) if each == -1 else each for each in arguments]
        return _done(getattr(_libc, name)(*words))

    # Attributes -----------------------------------------------------------------------------------

    def do_chmod(self, path: str, mode: int) -> str:
        return _done(_libc.chmod(_c(path), mode))

    def do_lchmod(self, path: str, mode: int) -> str:
        return _done(_libc.syscall(_FCHMODAT2, HERE, _c(path), mode, NO_FOLLOW))

    def do_chown(self, path: str, uid: int, gid: int) -> str:
        return _done(_libc.chown(_c(path), uid, gid))

    def do_lchown(self, path: str, uid: int, gid: int) -> str:
        return _done(_libc.lchown(_c(path), uid, gid))

    def do_truncate(self, path: str, size: int) -> str:
        return _done(_libc.truncate(_c(path), ctypes.c_long(size)))

    def do_utimes(self, path: str, accessed: list[int], modified: list[int], flags: int = 0) -> str:
        """Set times, each seconds and nanoseconds or NOW or OMIT."""
        times = _Ranges(*accessed, *modified)
        return _done(_libc.utimensat(HERE, _c(path), times, flags))

    def do_utimes_null(self, path: str, flags: int = 0) -> str:
        return _done(_libc.utimensat(HERE, _c(path), None, flags))

    def do_stat(self, path: str) -> list[int]:
        found = os.stat(path)
        return [found.st_mode, found.st_uid, found.st_gid]

    def do_lstat(self, path: str) -> list[int]:
        found = os.lstat(path)
        return [found.st_mode, found.st_uid, found.st_gid]

    def do_access(self, path: str, want: int) -> str:
        return _done(_libc.access(_c(path), want))

    def do_faccessat(self, path: str, want: int, flags: int) -> str:
        return _done(_libc.syscall(_FACCESSAT2, HERE, _c(path), want, flags))

    def do_statvfs(self, path: str) -> list[int]:
        return [os.statvfs(path).f_namemax]

    def do_setxattr(self, path: str, name: str, value: str, flags: int = 0) -> str:
        os.setxattr(path, name, value.encode(), flags, follow_symlinks=False)
        return "done"

    def do_getxattr(self, path: str, name: str) -> str:
        return os.getxattr(path, name, follow_symlinks=False).decode()

    def do_removexattr(self, path: str, name: str) -> str:
        os.removexattr(path, name, follow_symlinks=False)
        return "done"

    def do_setacl(self, path: str, name: str, value: str) -> str:
        os.setxattr(path, name, bytes.fromhex(value))
        return "done"

    def do_getacl(self, path: str, name: str) -> str:
        return os.getxattr(path, name).hex()

    # Open files -----------------------------------------------------------------------------------

    def do_open(self, path: str, flags: int, mode: int = 0o644) -> str:
        """Open and close."""
        os.close(os.open(path, flags | os.O_NONBLOCK, mode))
        return "done"

    def do_hold(self, key: str, path: str, flags: int, mode: int = 0o644) -> str:
        """Open, and hold what is open in place of what was."""
        opened = os.open(path, flags | os.O_NONBLOCK, mode)
        self.do_close(key)
        self._held[key] = opened
        return "done"

    def do_close(self, key: str) -> str:
        if key in self._held:
            os.close(self._held.pop(key))
        return "done"

    def do_forget(self) -> str:
        """Close everything, go home, and take back what a case changed of the process."""
        for key in list(self._held):
            self.do_close(key)
        while self._sockets:
            self._sockets.pop().close()
        while self._running:
            program = self._running.pop()
            program.kill()
            program.wait()
        os.umask(0)
        os.fchdir(self._home)
        return "done"

    def do_write(self, path: str, size: int, flags: int = 0) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | flags)
        try:
            return os.write(descriptor, b"x" * size)
        finally:
            os.close(descriptor)

    def do_read(self, path: str) -> str | int:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return len(os.read(descriptor, 1 << 20))
        finally:
            os.close(descriptor)

    def do_pwrite(self, key: str, offset: int, size: int) -> int:
        return os.pwrite(self._held[key], b"z" * size, offset)

    def do_pread(self, key: str, offset: int, size: int) -> int:
        return len(os.pread(self._held[key], size, offset))

    def do_append(self, key: str, size: int) -> int:
        return os.write(self._held[key], b"a" * size)

    def do_ftruncate(self, key: str, size: int) -> str:
        return _done(_libc.ftruncate(self._held[key], ctypes.c_long(size)))

    def do_fchmod(self, key: str, mode: int) -> str:
        return _done(_libc.fchmod(self._held[key], mode))

    def do_fchown(self, key: str, uid: int, gid: int) -> str:
        return _done(_libc.fchown(self._held[key], uid, gid))

    def do_futimes(self, key: str, accessed: list[int], modified: list[int]) -> str:
        return _done(_libc.futimens(self._held[key], _Ranges(*accessed, *modified)))

    def do_fstat(self, key: str) -> list[int]:
        found = os.fstat(self._held[key])
        links = 0 if stat.S_ISDIR(found.st_mode) else found.st_nlink
        size = found.st_size if stat.S_ISREG(found.st_mode) else 0
        return [found.st_mode, links, size, found.st_uid, found.st_gid]

    def do_fallocate(self, key: str, mode: int, offset: int, length: int) -> str:
        words = ctypes.c_long(offset), ctypes.c_long(length)
        return _done(_libc.fallocate(self._held[key], mode, *words))

    def do_posix_fallocate(self, key: str, offset: int, length: int) -> str:
        os.posix_fallocate(self._held[key], offset, length)
        return "done"

    def do_lseek(self, key: str, offset: int, whence: int) -> int:
        return os.lseek(self._held[key], offset, whence)

    def do_fsync(self, key: str) -> str:
        os.fsync(self._held[key])
        return "done"

    def do_fchdir(self, key: str) -> str:
        os.fchdir(self._held[key])
        return "done"

    def do_copy_range(self, source: str, target: str, offset: int, size: int, at: int) -> int:
        return os.copy_file_range(self._held[source], self._held[target], size, offset, at)

    def do_map(self, key: str, write: bool) -> str:
        """Map the first page, and read or write a byte of it."""
        kind = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
        with mmap.mmap(self._held[key], 4096, prot=kind) as mapped:
            if write:
                mapped[0:1] = b"m"
                mapped.flush()
            return str(mapped[0])

    def do_lock(self, key: str, kind: int, start: int, length: int) -> str:
        """Lock a range at once, with fcntl(2)'s locks of processes."""
        fcntl.fcntl(self._held[key], fcntl.F_SETLK, _flock(kind, start, length))
        return "done"

    def do_wait_for_lock(self, key: str, kind: int, start: int, length: int) -> str:
        fcntl.fcntl(self._held[key], fcntl.F_SETLKW, _flock(kind, start, length))
        return "done"

    def do_lock_open(self, key: str, kind: int, start: int, length: int) -> str:
        """Lock a range at once, with fcntl(2)'s locks of open files."""
        fcntl.fcntl(self._held[key], 37, _flock(kind, start, length))  # F_OFD_SETLK
        return "done"

    def do_who_locks(self, key: str, kind: int, start: int, length: int) -> list[int]:
        found = fcntl.fcntl(self._held[key], fcntl.F_GETLK, _flock(kind, start, length))
        found_kind, _, found_start, found_length, _ = struct.unpack("hhqqi4x", found)
        return [found_kind, found_start, found_length]

    def do_flock(self, key: str, how: int) -> str:
        fcntl.flock(self._held[key], how | fcntl.LOCK_NB)
        return "done"

    def do_install(self, path: str, mode: int) -> str:
        """Put a program there: one that sleeps."""
        with open("/bin/sleep", "rb") as program, open(path, "wb") as target:
            target.write(program.read())
        os.chmod(path, mode)
        return "done"

    def do_execute(self, path: str) -> str:
        """Start a program, which runs until `forget`."""
        self._running.append(subprocess.Popen([os.path.abspath(path), "60"]))
        return "done"


def _c(path: str) -> bytes:
    return os.fsencode(path)


def _done(result: int) -> str:
    if result:
        raise OSError(ctypes.get_errno(), "")
    return "done"


def _flock(kind: int, start: int, length: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


CALLS: Final[frozenset[str]] = frozenset(
    name.removeprefix("do_") for name in vars(Process) if name.startswith("do_")
)
