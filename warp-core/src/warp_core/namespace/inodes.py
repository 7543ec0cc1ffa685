"""Inodes: rows of what is more than one name of content written whole: directories, links, files that are written in place.

An object born over S3 has no inode row: its name's row says all there is, and the defaults below are its mode and owner. The first
verb that sets it apart (a write in place, chmod, link, rename, an attribute) writes the row; from then on the name only leads to it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from warp_core.errors import Corrupt
from warp_core.namespace import rows
from warp_core.namespace.acls import Acl

FILE_MODE: Final = 0o644  # of an object born over S3
DIRECTORY_MODE: Final = 0o755  # of a directory that S3 keys imply

Position = tuple[int, int]  # container and offset of a record; positions in the journal only grow


class Inode(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """I: one inode. `kind` is FILE, DIRECTORY, SYMLINK or SPECIAL of `rows`; `mode` has the type bits of a special file."""

    born: int
    kind: int
    mode: int
    uid: int = 0
    gid: int = 0
    links: int = 1  # names; 0: open, and gone with the last close
    revision: int = 0  # current content of a file
    size: int = 0
    etag: str = ""
    accessed_ns: int = 0
    modified_ns: int = 0
    changed_ns: int = 0
    created_ns: int = 0
    change: int = 0  # grows with every change
    allocated: int = 0  # bytes that lie in chunks
    folded: Position = (0, 0)  # records of this file up to here are in its rows
    directory: int = 0  # where it was last named; of a directory its parent
    name: bytes = b""
    owner: str = ""  # principal, as S3 shows it
    device: tuple[int, int] = (0, 0)
    target: bytes = b""  # of a symbolic link
    xattrs: dict[bytes, bytes] = {}
    attributes: int = 0  # DOS attributes
    disk: bool = False  # fixed size, exported by block protocols
    shared: bool = (
        False  # something else refers to the current revision: the next write makes a new one
    )
    orphan: bool = False  # no name is left
    acl: Acl | None = None  # what it says beyond its mode


decode_inode = msgspec.msgpack.Decoder(Inode).decode


def read_inode(number: int, value: bytes) -> Inode:
    """Decode an inode row.

    Raises:
        Corrupt: It is damaged.
    """
    try:
        return decode_inode(value)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the row of inode {number} is damaged: {error}") from error


def implied_file(name: rows.Name, revision: rows.Revision | None = None) -> Inode:
    """Return the inode that a name without an inode row stands for."""
    return Inode(
        born=name.born,
        kind=rows.FILE,
        mode=FILE_MODE,
        revision=name.revision,
        size=name.size,
        etag=name.etag,
        accessed_ns=name.modified_ns,
        modified_ns=name.modified_ns,
        changed_ns=name.modified_ns,
        created_ns=name.modified_ns,
        allocated=sum(each.length for each in revision.extents) if revision else name.size,
        owner=name.owner,
    )


def implied_directory(name: rows.Name, modified_ns: int) -> Inode:
    """Return the inode that a directory without an inode row stands for."""
    return Inode(
        born=name.born,
        kind=rows.DIRECTORY,
        mode=DIRECTORY_MODE,
        links=2,
        accessed_ns=modified_ns,
        modified_ns=modified_ns,
        changed_ns=modified_ns,
        created_ns=modified_ns,
    )
