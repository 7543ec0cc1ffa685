"""What stat tells, as SFTP says it, and the line of `ls -l` that goes with names."""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from typing import Final

from warp_core.views.files import FileInfo, FileKind, SetInfo

from warp_sftp.wire import Attributes

NS: Final = 1_000_000_000
TYPES: Final[Mapping[FileKind, int]] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}
TIME_MAX: Final = (1 << 32) - 1  # seconds: version 3 has 32 bits, which end in 2106
RECENT_S: Final = 15_778_476  # half a year: as `ls`, older lines show the year


def told(info: FileInfo) -> Attributes:
    """Return what a file's attributes are to a client."""
    return Attributes(
        info.size,
        info.uid,
        info.gid,
        TYPES[info.kind] | info.mode,
        _seconds(info.accessed_ns),
        _seconds(info.modified_ns),
    )


def wanted(attributes: Attributes) -> SetInfo:
    """Return what a client wants changed."""
    return SetInfo(
        mode=None if attributes.mode is None else attributes.mode & 0o7777,
        uid=attributes.uid,
        gid=attributes.gid,
        size=attributes.size,
        accessed_ns=None if attributes.accessed_s is None else attributes.accessed_s * NS,
        modified_ns=None if attributes.modified_s is None else attributes.modified_s * NS,
    )


def line(
    name: bytes, attributes: Attributes, links: int, user: str, group: str, *, now_s: float
) -> bytes:
    """Return the line of `ls -l` of a file, in UTC."""
    when_s = attributes.modified_s or 0
    recent = now_s - RECENT_S < when_s <= now_s + 60
    when = time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.gmtime(when_s))
    mode = stat.filemode(attributes.mode or 0)
    size = attributes.size or 0
    return f"{mode} {links:4} {user:8} {group:8} {size:12} {when} ".encode() + name


def _seconds(nanoseconds: int) -> int:
    return min(max(nanoseconds // NS, 0), TIME_MAX)
