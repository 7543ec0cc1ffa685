"""Rows of inodes that something sets apart from their names, and names found by directory."""

from __future__ import annotations

import secrets

import msgspec

from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.inodes import Inode, read_inode
from warp_core.namespace.rows import Name, decode_name, encode
from warp_core.namespace.tree import Rows

# Of a restart: what it holds in memory of the log, and how many rows it waits for at a time.
RECORDS_AT_ONCE = 1024
RECORDS_SIZE = 8 * 1024 * 1024
ROWS_AT_ONCE = 64


async def inode_row(stored: Rows, number: int) -> Inode | None:
    """Return an inode's row, None if it has none."""
    value = await stored.get(keys.inode_key(number))
    return read_inode(number, value) if value is not None else None


async def put_inode(change: Change, number: int, inode: Inode) -> Inode:
    """Write an inode's row and return it as written."""
    inode = msgspec.structs.replace(inode, born=change.epoch, change=inode.change + 1)
    await change.rows.put(keys.inode_key(number), encode(inode))
    return inode


async def put_disk(change: Change, number: int) -> None:
    """Write that an inode is a disk from now on, with a serial of its own; one that is stays as it is."""
    key = keys.disk_key(number)
    if await change.rows.get(key) is None:
        serial = secrets.token_hex(8)
        row = rows.DiskRow(change.epoch, serial, change.rows.volume.number)
        await change.rows.put(key, encode(row))


async def drop_disk(change: Change, number: int) -> None:
    """Remove the rows of an inode that is a disk no more."""
    await change.rows.delete(keys.disk_key(number))
    change.rows.delete_present(keys.reserved_key(number))


def summary_of(name: Name, inode: Inode) -> Name:
    """Return a name with what its inode knows, as a version would have it."""
    return msgspec.structs.replace(
        name,
        revision=inode.revision,
        size=inode.size,
        etag=inode.etag,
        modified_ns=inode.modified_ns,
        owner=inode.owner or name.owner,
    )


async def name_at(stored: Rows, directory: int, name: bytes, *, is_directory: bool) -> Name | None:
    """Return the entry of a directory, of one kind."""
    node = directory
    steps = keys.name_steps(name, directory=is_directory)
    for step in steps:
        value = await stored.get(keys.name_key(node, step.key))
        if value is None:
            return None
        found = decode_name(value)
        node = found.inode
    return found
