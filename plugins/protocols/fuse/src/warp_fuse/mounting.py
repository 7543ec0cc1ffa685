"""Mounting and unmounting: by mount(2) as root, by `fusermount3` as anybody else."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Final

from warp_core.errors import ConfigError

TYPE: Final = "fuse.warp"
DEVICE: Final = "/dev/fuse"
_NOSUID_NODEV: Final = 2 | 4  # mount(2)
_READ_ONLY: Final = 1
_DETACH: Final = 2  # umount2(2): MNT_DETACH
_HELPER: Final = "fusermount3"
_HELPER_S: Final = 30
READ_MAX: Final = 1 << 20

_NO_FUSE: Final = "this kernel has no FUSE: load its module (`modprobe fuse`); a container needs `--device /dev/fuse`"
_NO_HELPER: Final = (
    "only root mounts without the program `fusermount3`: install it "
    "(Debian, Ubuntu: apt install fuse3; Fedora: dnf install fuse3; Alpine: apk add fuse3)"
)


def mount(volume: str, directory: Path, *, allow_other: bool, read_only: bool) -> int:
    """Mount on a directory and return the descriptor to serve it by.

    A mount that a server left behind when it was killed is taken away first.

    Raises:
        ConfigError: It cannot be mounted there; says why and what to do.
    """
    _prepare(directory)
    options = "default_permissions"
    if allow_other:
        options += ",allow_other"
    try:
        if os.geteuid() == 0:
            return _by_system_call(volume, directory, options, read_only)
        return _by_helper(volume, directory, options, read_only)
    except OSError as error:
        raise ConfigError(f"mount on {directory}: {error.strerror or error}") from error


def unmount(directory: Path) -> None:
    """Take a mount away at once; who still has something open there gets errors from the closed connection."""
    if os.geteuid() == 0:
        _libc().umount2(os.fsencode(directory), _DETACH)
    elif (helper := shutil.which(_HELPER)) is not None:
        subprocess.run(
            [helper, "-u", "-q", "-z", "--", directory],
            capture_output=True,
            timeout=_HELPER_S,
            check=False,
        )


def _prepare(directory: Path) -> None:
    try:
        if not stat.S_ISDIR(directory.stat().st_mode):
            raise ConfigError(f"mount on {directory}: it is no directory")
        if any(os.scandir(directory)):
            raise ConfigError(
                f"mount on {directory}: the directory is not empty, and what is in it would be hidden"
            )
    except FileNotFoundError:
        _make(directory)
    except OSError as error:
        if error.errno != errno.ENOTCONN or not _is_ours(directory):
            raise ConfigError(f"mount on {directory}: {error.strerror}") from error
        unmount(directory)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"mount on {directory}: {error.strerror}") from error


def _is_ours(directory: Path) -> bool:
    """Say whether a WARP mount is there; mountinfo escapes blanks as \\040."""
    place = str(directory.absolute()).replace("\\", "\\134").replace(" ", "\\040")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split(" ")
        if words[4] == place and TYPE in words:
            return True
    return False


def _by_system_call(volume: str, directory: Path, options: str, read_only: bool) -> int:
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"mount on {directory}: {_NO_FUSE} ({error.strerror})") from error
    data = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,max_read={READ_MAX},{options}"
    flags = _NOSUID_NODEV | (_READ_ONLY if read_only else 0)
    source = os.fsencode(f"warp:{volume}")
    arguments = (source, os.fsencode(directory), TYPE.encode(), flags, data.encode())
    if _libc().mount(*arguments):
        code = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(code, os.strerror(code))
    return descriptor


def _by_helper(volume: str, directory: Path, options: str, read_only: bool) -> int:
    """Let the setuid program mount, which sends the descriptor over a socket (fusermount3's own protocol)."""
    helper = shutil.which(_HELPER)
    if helper is None:
        raise ConfigError(f"mount on {directory}: {_NO_HELPER}")
    words = f"{options},fsname=warp:{volume},subtype=warp" + (",ro" if read_only else "")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [helper, "-o", words, "--", directory],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=_HELPER_S,
            check=False,
        )
        theirs.close()
        if done.returncode:
            raise ConfigError(f"mount on {directory}: {_advised(done.stderr.strip())}")
        ours.settimeout(_HELPER_S)
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(array.array("i", [0]).itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptor = array.array("i", data[:4])[0]
            os.set_inheritable(descriptor, False)
            os.set_blocking(descriptor, False)
            return descriptor
    raise ConfigError(f"mount on {directory}: {_HELPER} sent no descriptor")


def _advised(said: str) -> str:
    """Return what `fusermount3` says with what to do about it."""
    if DEVICE in said:
        return f"{said}: every user may open it on most systems (chmod 666 {DEVICE})"
    if "user_allow_other" in said:
        return f"{said}; or mount for this user alone (--private, or allow_other = false)"
    return said


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
