"""Versions of a name: the current one is its D row, older ones and markers are V rows, as the volume's versioning says."""

from __future__ import annotations

import os

import msgspec

from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.paths import Path
from warp_core.namespace.rows import (
    FILE,
    MARKER,
    NULL_VERSION,
    Name,
    NullVersion,
    decode_name,
    decode_null,
    encode,
)


def version_id(name: Name) -> str:
    """Return a version's id as S3 shows it."""
    return f"{name.sequence:016x}{name.nonce:016x}" if name.nonce else "null"


def parse_version_id(version: str) -> tuple[int, int] | None:
    """Return sequence and nonce of a version id other than `null`; None if it cannot be one."""
    if len(version) != 32:
        return None
    try:
        packed = bytes.fromhex(version)
    except ValueError:
        return None
    sequence, nonce = int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:], "big")
    # No nonce is what the null version has, and that has one id only.
    return (sequence, nonce) if nonce else None


def new_nonce() -> int:
    """Return the random half of a version id, never that of the null version."""
    return int.from_bytes(os.urandom(8), "big") or 1


async def next_sequence(change: Change, path: Path) -> int:
    """Return the number of the version that comes next at the end of a path."""
    current = path.current
    if current is not None:
        return current.sequence + 1 if change.versioned else current.sequence
    if not change.versioned or not path.complete:
        return 0
    newest = await newest_version(change, path)
    return newest.sequence + 1 if newest else 0


async def newest_version(change: Change, path: Path) -> Name | None:
    """Return the newest noncurrent version or marker at the end of a complete path."""
    found = await change.rows.scan(*keys.versions_of_name(*path.place), limit=1)
    return decode_name(found[0][1]) if found else None


async def supersede(change: Change, path: Path) -> None:
    """Make room for a new current version or a marker: keep the present one as a version, or drop it, as versioning says.

    The D row stays: `put_name` or `drop_name` follow. A suspended volume has one null version at most: an older one is dropped.
    """
    current = path.current
    if current is not None:
        change.disturbed.add(current.inode)
    kept: Name | None
    if current is not None and current.kind != FILE:
        assert change.apart is not None, "a symbolic link, and no Files view"
        await change.apart.unnamed(change, current.inode)
        kept = None
    elif current is not None and current.revision == 0:
        assert change.apart is not None, "an inode set apart, and no Files view"
        kept = await change.apart.unlinked(change, current, path.holder(current.sequence))
    else:
        kept = current
    if current is not None and path.names[-1].kind == FILE:
        change.count(objects=-1, bytes=-current.size)
    if not change.versioned:
        if kept is not None and kept.revision:
            await change.release(kept.revision, path.holder(kept.sequence))
        return
    if change.versioning == "suspended":
        if kept is not None and kept.nonce == NULL_VERSION:
            if kept.revision:
                await change.release(kept.revision, path.holder(kept.sequence))
            return
        await drop_null(change, path)
    if kept is not None and kept.revision:
        await keep_version(change, path, msgspec.structs.replace(kept, born=change.epoch))


async def keep_version(change: Change, path: Path, version: Name) -> None:
    """Write a V row, and the rows that keep the directories above it."""
    directory, component = path.place
    await change.keep_directories(path)
    await change.rows.put(keys.version_key(directory, component, version.sequence), encode(version))
    if version.nonce == NULL_VERSION:
        pointer = NullVersion(change.epoch, version.sequence)
        await change.rows.put(keys.null_version_key(directory, component), encode(pointer))
    change.count(versions=1, version_bytes=version.size)


async def drop_version(change: Change, path: Path, sequence: int) -> Name:
    """Remove a V row, what it alone holds, and the rows that kept directories for it."""
    version = await take_version(change, path, sequence)
    if version.revision:
        await change.release(version.revision, path.holder(sequence))
    await change.prune_versions(path)
    return version


async def drop_null(change: Change, path: Path) -> None:
    """Drop the noncurrent null version, if there is one: another takes its place."""
    value = await change.rows.get(keys.null_version_key(*path.place))
    if value is not None:
        await drop_version(change, path, decode_null(value).sequence)


async def take_version(change: Change, path: Path, sequence: int) -> Name:
    """Remove a V row and return it; its revision stays with the caller, who calls `prune_versions` at the end."""
    directory, component = path.place
    key = keys.version_key(directory, component, sequence)
    value = await change.rows.get(key)
    assert value is not None
    version = decode_name(value)
    await change.rows.delete(key)
    if version.nonce == NULL_VERSION:
        await change.rows.delete(keys.null_version_key(directory, component))
    change.count(versions=-1, version_bytes=-version.size)
    return version


async def put_marker(
    change: Change, path: Path, named: tuple[int, int] | None = None, *, modified_ns: int = 0
) -> Name:
    """Write a delete marker of a complete path: the newest version, after `supersede`, or the one that is `named`."""
    current = path.current
    if named is not None:
        sequence, nonce = named
    else:
        nonce = NULL_VERSION if change.versioning == "suspended" else new_nonce()
        sequence = await next_sequence(change, path)
    marker = Name(
        change.epoch,
        MARKER,
        0,
        0,
        sequence,
        nonce,
        modified_ns=modified_ns or change.now_ns,
        owner=current.owner if current else "",
    )
    await keep_version(change, path, marker)
    return marker


async def demand_removable(change: Change, number: int, *, bypass: bool) -> None:
    """Check that a version's revision may go.

    Raises:
        Retained: It is locked, and not in a mode that `bypass` ends.
    """
    revision = await change.revision(number)
    if bypass and revision.retain_mode == "GOVERNANCE":
        change.unlocked = number
    await change.check_retention(number, revision)


async def remove_current(change: Change, path: Path, *, bypass: bool = False) -> None:
    """Remove the current version for good; the one before it becomes current, unless that is a marker.

    Raises:
        Retained: It is locked.
    """
    current = path.current
    assert current is not None
    change.disturbed.add(current.inode)
    gone = current
    if current.revision == 0 and current.kind == FILE:
        assert change.apart is not None, "an inode set apart, and no Files view"
        gone = await change.apart.unlinked(change, current, path.holder(current.sequence))
    if gone.revision:
        await demand_removable(change, gone.revision, bypass=bypass)
        await change.release(gone.revision, path.holder(gone.sequence))
    # Bytes of an inode set apart are counted with it, not with its names.
    change.count(objects=-1, bytes=-current.size)
    newest = await newest_version(change, path) if change.versioned else None
    if newest is None or newest.kind == MARKER:
        await change.drop_name(path)
    else:
        await _promote(change, path, newest)


async def remove_version(
    change: Change, path: Path, sequence: int, *, live: bool, bypass: bool = False
) -> Name:
    """Remove a noncurrent version or marker for good; where no version is current (`live`), the newest becomes so if it is none.

    Raises:
        Retained: It is locked.
    """
    version = await take_version(change, path, sequence)
    if version.revision:
        await demand_removable(change, version.revision, bypass=bypass)
        await change.release(version.revision, path.holder(sequence))
    newest = None if live else await newest_version(change, path)
    if newest is not None and newest.kind != MARKER:
        found = await change.find(path.key)
        await change.make_way(found)
        await _promote(change, found, newest)
    else:
        await change.prune_versions(path)
    return version


async def _promote(change: Change, path: Path, newest: Name) -> None:
    version = await take_version(change, path, newest.sequence)
    await change.put_name(path, msgspec.structs.replace(version, born=change.epoch))
    await change.prune_versions(path)
