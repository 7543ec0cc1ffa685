"""The transaction's part of the verbs that change an object: PUT, however its content came about, and DELETE."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec

from warp_core.errors import AlreadyExists, InvalidArgument, PreconditionFailed
from warp_core.namespace import keys
from warp_core.namespace.changes import Apart, Change
from warp_core.namespace.described import judge
from warp_core.namespace.lookup import sequence_of
from warp_core.namespace.paths import Path, extend
from warp_core.namespace.retention import as_locked
from warp_core.namespace.rows import (
    FILE,
    MARKER,
    NULL_VERSION,
    Event,
    Name,
    Revision,
    decode_name,
)
from warp_core.namespace.tree import Rows
from warp_core.namespace.versions import (
    keep_version,
    new_nonce,
    newest_version,
    next_sequence,
    parse_version_id,
    put_marker,
    remove_current,
    remove_version,
    supersede,
    version_id,
)
from warp_core.views.objects import ALWAYS, Condition, Deleted, Provenance
from warp_core.views.origin import Origin

Also = Callable[[Change, Name], Awaitable[None]]

SEQUENCE_MAX: Final = 2**48 - 1
"""Largest number of a version that a caller may name: what comes after it needs numbers, too."""


async def put_object(
    change: Change,
    key: bytes,
    number: int,
    revision: Revision,
    condition: Condition = ALWAYS,
    verb: str = "put",
    also: Also | None = None,
    origin: Origin | None = None,
    provenance: Provenance | None = None,
) -> Name:
    """Make a revision the current version of a key, and do what comes `also` with it.

    The version that a `provenance` names becomes the current one only where it is the newest.

    Raises:
        PreconditionFailed, NotFound: The condition does not hold, or the place of the version is taken by another.
        AlreadyExists: It is there.
    """
    path = await change.find(key)
    if condition is not ALWAYS:
        judge(condition, key, await summary_of(change.apart, change.rows, path.current))
    place = await _place_of(change, path, provenance)
    older = place is not None and not place.newest
    if older:
        await change.make_way_for_versions(path)
    elif not path.complete:
        await change.make_way(path)
    sequence = await next_sequence(change, path) if place is None else place.sequence
    if not older:
        await supersede(change, path)
    if change.lock is not None or revision.retain_mode or revision.legal_hold:
        fresh = verb != "complete"
        revision = await as_locked(change.lock, change.lock_clock, revision, fresh=fresh)
    epoch = change.epoch
    if epoch:
        revision = msgspec.structs.replace(revision, born=epoch)
    await change.put_revision(number, revision)
    if place is not None:
        nonce = place.nonce
    else:
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
    if older:
        await keep_version(change, path, name)
    else:
        await change.put_name(path, name)
    if also is not None:
        await also(change, name)
    change.tell(event_of(verb, change, key, name, origin))
    return name


class _Place(NamedTuple):
    """Where a version of another site goes."""

    sequence: int
    nonce: int
    newest: bool  # after all that are here


async def _place_of(change: Change, path: Path, provenance: Provenance | None) -> _Place | None:
    """Return the place that a provenance names, None where none is to be kept.

    Raises:
        AlreadyExists: The version is there.
        PreconditionFailed: Another one is in its place.
        InvalidArgument: It is no version's id.
    """
    if provenance is None or not provenance.version or change.versioning != "on":
        return None
    parsed = parse_version_id(provenance.version)
    if parsed is None:
        raise InvalidArgument(f"{provenance.version[:64]!r} is no version id of 32 hex digits")
    sequence, nonce = parsed
    if sequence > SEQUENCE_MAX:
        raise InvalidArgument(f"version {provenance.version} is number {sequence} > {SEQUENCE_MAX}")
    there = path.current
    if there is None or sequence < there.sequence:
        way = Path(path.key, path.steps, list(path.nodes), list(path.names))
        await extend(change.rows, way)
        newest = there
        if newest is None and way.complete:
            newest = await newest_version(change, way)
        if newest is None or sequence > newest.sequence:
            return _Place(sequence, nonce, newest=True)
        stored = await change.rows.get(keys.version_key(*way.place, sequence))
        there = decode_name(stored) if stored is not None else None
        if there is None:
            return _Place(sequence, nonce, newest=False)
    elif sequence > there.sequence:
        return _Place(sequence, nonce, newest=True)
    if there.nonce == nonce:
        raise AlreadyExists(f"version {provenance.version} is there")
    raise PreconditionFailed(
        f"{version_id(there)} is in the place of version {provenance.version}", condition="version"
    )


async def delete_object(
    change: Change,
    key: bytes,
    version: str,
    condition: Condition,
    *,
    bypass: bool = False,
    origin: Origin | None = None,
    provenance: Provenance | None = None,
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
    return await _delete_current(change, path, origin, provenance)


async def _delete_current(
    change: Change, path: Path, origin: Origin | None, provenance: Provenance | None
) -> Deleted:
    current = path.current
    if not change.versioned:
        if current is None:
            return Deleted(found=False)
        await supersede(change, path)
        await change.drop_name(path)
        change.tell(event_of("delete", change, path.key, current, origin))
        return Deleted()
    place = await _place_of(change, path, provenance)
    await change.make_way_for_versions(path)
    modified_ns = provenance.modified_ns if provenance is not None else 0
    if place is None:
        await supersede(change, path)
        marker = await put_marker(change, path, modified_ns=modified_ns)
    else:
        if place.newest:
            await supersede(change, path)
        named = place.sequence, place.nonce
        marker = await put_marker(change, path, named, modified_ns=modified_ns)
    if current is not None and (place is None or place.newest):
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
