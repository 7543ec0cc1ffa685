"""The transaction's part of the verbs that change an object: PUT, however its content came about, and DELETE."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from warp_core.namespace.changes import Apart, Change
from warp_core.namespace.described import judge
from warp_core.namespace.lookup import sequence_of
from warp_core.namespace.paths import Path, extend
from warp_core.namespace.retention import as_locked
from warp_core.namespace.rows import FILE, MARKER, NULL_VERSION, Event, Name, Revision
from warp_core.namespace.tree import Rows
from warp_core.namespace.versions import (
    new_nonce,
    next_sequence,
    put_marker,
    remove_current,
    remove_version,
    supersede,
    version_id,
)
from warp_core.views.objects import ALWAYS, Condition, Deleted
from warp_core.views.origin import Origin

Also = Callable[[Change, Name], Awaitable[None]]


async def put_object(
    change: Change,
    key: bytes,
    number: int,
    revision: Revision,
    condition: Condition = ALWAYS,
    verb: str = "put",
    also: Also | None = None,
    origin: Origin | None = None,
) -> Name:
    """Make a revision the current version of a key, and do what comes `also` with it.

    Raises:
        PreconditionFailed, NotFound: The condition does not hold.
    """
    path = await change.find(key)
    if condition is not ALWAYS:
        judge(condition, key, await summary_of(change.apart, change.rows, path.current))
    if not path.complete:
        await change.make_way(path)
    sequence = await next_sequence(change, path)
    await supersede(change, path)
    if change.lock is not None or revision.retain_mode or revision.legal_hold:
        fresh = verb != "complete"
        revision = await as_locked(change.lock, change.lock_clock, revision, fresh=fresh)
    epoch = change.epoch
    if epoch:
        revision = msgspec.structs.replace(revision, born=epoch)
    await change.put_revision(number, revision)
    nonce = new_nonce() if change.versioning == "on" else NULL_VERSION
    name = Name(
        epoch,
        FILE,
        number,
        number,
        sequence,
        nonce,
        revision.size,
        revision.etag,
        revision.modified_ns or change.now_ns,
        revision.owner,
        revision.storage_class,
        tuple(revision.checksums),
        revision.checksum_type,
    )
    await change.put_name(path, name)
    if also is not None:
        await also(change, name)
    change.tell(event_of(verb, change, key, name, origin))
    return name


async def delete_object(
    change: Change,
    key: bytes,
    version: str,
    condition: Condition,
    *,
    bypass: bool = False,
    origin: Origin | None = None,
) -> Deleted:
    """Remove the current version of a key or put a marker before it, as versioning says, or remove the named version for good.

    Raises:
        PreconditionFailed, NotFound: The condition does not hold.
        Retained: What would be dropped is locked.
    """
    path = await change.find(key)
    if path.current is not None and path.current.kind != FILE:
        return Deleted(found=False)
    if condition is not ALWAYS:
        judge(condition, key, await summary_of(change.apart, change.rows, path.current))
    if version:
        return await _delete_version(change, path, version, bypass=bypass, origin=origin)
    return await _delete_current(change, path, origin)


async def _delete_current(change: Change, path: Path, origin: Origin | None) -> Deleted:
    current = path.current
    if not change.versioned:
        if current is None:
            return Deleted(found=False)
        await supersede(change, path)
        await change.drop_name(path)
        change.tell(event_of("delete", change, path.key, current, origin))
        return Deleted()
    await change.make_way_for_versions(path)
    await supersede(change, path)
    marker = await put_marker(change, path)
    if current is not None:
        await change.drop_name(path)
    change.tell(event_of("marker", change, path.key, marker, origin))
    return Deleted(version=version_id(marker), marker=True, found=current is not None)


async def _delete_version(
    change: Change, path: Path, version: str, *, bypass: bool, origin: Origin | None
) -> Deleted:
    current = path.current
    if current is not None and version_id(current) == version:
        await remove_current(change, path, bypass=bypass)
        change.tell(event_of("remove", change, path.key, current, origin))
        return Deleted(version=version)
    names = len(path.names)
    await extend(change.rows, path)
    sequence = await sequence_of(change.rows, path, version)
    if sequence is None:
        return Deleted(version=version, found=False)
    dropped = await remove_version(
        change, path, sequence, live=names == len(path.steps), bypass=bypass
    )
    change.tell(event_of("remove", change, path.key, dropped, origin))
    return Deleted(version=version, marker=dropped.kind == MARKER)


async def summary_of(apart: Apart | None, stored: Rows, name: Name | None) -> Name | None:
    """Return a name with what an inode that is set apart from it knows."""
    if name is None or name.kind != FILE or name.revision or apart is None:
        return name
    return await apart.summary(stored, name)


def event_of(
    verb: str, change: Change, key: bytes, name: Name, origin: Origin | None = None
) -> Event:
    """Return what the change feed tells of a version; without an origin, its owner is who did it."""
    return Event(
        verb,
        change.now_ns,
        key,
        inode=name.inode,
        version=version_id(name),
        size=name.size,
        etag=name.etag,
        actor=origin.actor if origin is not None and origin.actor else name.owner,
        origin=origin,
    )
