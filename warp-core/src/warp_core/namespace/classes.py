"""The storage class of a version that is there. Where the class has a policy of its own, the content is written anew under it.

```
 read the old content, write it anew ──▶ read it back, compare ──▶ one transaction: the version leads to the new revision,
                                                                   if it still led to the old one; that lives on for who
                                                                   borrows it, and for snapshots
```

Cut short anywhere before the transaction, what was written is garbage of a writer that is gone, and the next sweep begins anew.
What is written in place (files, disks), lies in its row, or is sealed with a key that nobody here has, keeps its bytes where they
are and changes its label.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec

from warp_core.containers import Chunk, DataPolicy, Owner
from warp_core.containers.keyring import Hold
from warp_core.errors import Corrupt
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.content import (
    READ_MAX,
    REFUSALS,
    extents_of,
    listed_of,
    load_manifest,
    placed,
)
from warp_core.namespace.described import STANDARD
from warp_core.namespace.lookup import sequence_of
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import event_of, summary_of
from warp_core.namespace.paths import Path, extend
from warp_core.namespace.rows import (
    FILE,
    Extent,
    Name,
    PartSummary,
    Revision,
    decode_name,
    encode,
)
from warp_core.namespace.sealing import sealed_policy
from warp_core.namespace.tree import Volume
from warp_core.namespace.versions import version_id
from warp_core.views.origin import Origin


async def set_storage_class(
    namespace: Namespace,
    volume: str,
    key: bytes,
    version: str,
    storage_class: str,
    origin: Origin | None = None,
) -> bool:
    """Let a version be of another class, and its content lie as that says; False if there is no such version any more.

    Raises:
        VolumeNotFound, ReadOnly, Busy
        NoSpace, StoreFailed, Corrupt: It stays of the class that it has.
    """
    kept = "" if storage_class == STANDARD else storage_class
    target = await namespace.volumes.writable(volume)
    wanted = namespace.policy_of(target, kept)

    async def look(change: Change) -> Found | None:
        found = await find_version(change, key, version)
        if found is None:
            return None
        revision = await change.revision(found.whole.revision)
        return replace(found, revision=revision)

    found = await namespace.change(volume, look)
    if found is None:
        return False
    assert found.revision is not None
    now = namespace.policy_of(target, found.name.storage_class)
    if (wanted == now and not found.revision.archived) or not movable(found):
        return await _label(namespace, volume, key, version, kept, origin)
    async with namespace.moving:
        return await _move(namespace, target, key, version, found, wanted, kept, origin)


@dataclass(frozen=True, slots=True)
class Found:
    """A version, where it lies, and what it leads to."""

    path: Path
    place: bytes  # of its row
    name: Name
    whole: Name  # with what its inode knows
    revision: Revision | None = None


async def find_version(change: Change, key: bytes, version: str) -> Found | None:
    """Return a version by its id, without its revision; None if there is none of an object."""
    path = await change.find(key)
    name = path.current
    if name is not None and version_id(name) == version:
        place = keys.name_key(*path.place)
    else:
        await extend(change.rows, path)
        sequence = await sequence_of(change.rows, path, version)
        if sequence is None:
            return None
        place = keys.version_key(*path.place, sequence)
        value = await change.rows.get(place)
        assert value is not None
        name = decode_name(value)
    if name.kind != FILE:
        return None
    whole = await summary_of(change.apart, change.rows, name)
    assert whole is not None
    return Found(path, place, name, whole)


async def _label(
    namespace: Namespace, volume: str, key: bytes, version: str, kept: str, origin: Origin | None
) -> bool:
    """Change what the version and its revision say, and nothing else."""

    async def body(change: Change) -> bool:
        found = await find_version(change, key, version)
        if found is None:
            return False
        change.judged = False
        named = msgspec.structs.replace(found.name, born=change.epoch, storage_class=kept)
        await change.rows.put(found.place, encode(named))
        number = found.whole.revision
        revision = await change.revision(number)
        made = msgspec.structs.replace(
            revision, born=change.epoch, storage_class=kept, restore=None
        )
        await change.rows.put(keys.revision_key(number), encode(made))
        change.tell(event_of("class", change, key, found.whole, origin))
        return True

    return await namespace.change(volume, body)


def movable(found: Found) -> bool:
    """Say whether content can be written anew elsewhere."""
    revision = found.revision
    assert revision is not None
    if not found.name.revision or revision.windowed or revision.base:
        return False
    if revision.inline is not None or not revision.size:
        return False
    return revision.seal is None or not revision.seal.own


async def _move(
    namespace: Namespace,
    target: Volume,
    key: bytes,
    version: str,
    found: Found,
    policy: DataPolicy,
    kept: str,
    origin: Origin | None,
) -> bool:
    old_number = found.name.revision
    made = await written_anew(namespace, target, found, policy)

    async def link(change: Change) -> bool:
        now = await find_version(change, key, version)
        if now is None or now.name.revision != old_number:
            return False
        change.judged = False  # it is no more than it was; what a snapshot keeps is the operator's
        change.moved = old_number
        revision = msgspec.structs.replace(
            await change.revision(old_number),  # its tags and retention may have changed meanwhile
            born=change.epoch,
            extents=made.extents,
            manifest=made.manifest,
            parts=made.parts,
            lenders=(),
            lent_manifest=False,
            listed=made.listed,
            storage_class=kept,
            restore=None,
        )
        await change.put_revision(made.number, revision)
        named = msgspec.structs.replace(
            now.name, born=change.epoch, revision=made.number, storage_class=kept
        )
        await change.rows.put(now.place, encode(named))
        await change.release(old_number, now.path.holder(now.name.sequence))
        change.disturbed.add(now.name.inode)
        change.tell(event_of("class", change, key, named, origin))
        return True

    return await linked(namespace, target, made, link)


@dataclass(frozen=True, slots=True)
class Written:
    """Content that lies elsewhere as well by now: what a revision's row says of it, and the chunks that nothing links yet."""

    number: int  # of the revision that owns it
    extents: tuple[Extent, ...]
    manifest: Chunk | None
    parts: tuple[PartSummary, ...]
    fresh: tuple[Chunk, ...]
    listed: tuple[int, int]  # of its own chunks in the manifest: bytes, stored


async def linked(
    namespace: Namespace, target: Volume, made: Written, link: Callable[[Change], Awaitable[bool]]
) -> bool:
    """Run the change that links what was written; where it does not, that is dropped."""
    try:
        done = await namespace.change(target.row.name, link)
    except REFUSALS:
        namespace.containers.discard(made.fresh)
        raise
    if not done:
        namespace.containers.discard(made.fresh)
    return done


async def written_anew(
    namespace: Namespace, target: Volume, found: Found, policy: DataPolicy
) -> Written:
    """Write the content of a version once more, as another policy says; it is durable and was read back on return.

    Raises:
        NoSpace, StoreFailed, Unavailable, Corrupt, KeyNotFound, KeyDisabled, Sealed
    """
    assert found.revision is not None
    old, old_number = found.revision, found.name.revision
    containers = namespace.containers
    number = await namespace.ids.take()
    owner = Owner(target.number, number, number)
    hold: Hold | None = None
    pin = containers.pin()
    try:
        if old.seal is not None:
            hold = await namespace.sealer.open(old.seal)
        source = list(await extents_of(containers, old))
        parts = old.parts
        if old.manifest is not None:
            parts = (await load_manifest(containers, old.manifest)).parts
        stream = containers.writer(
            policy if hold is None else sealed_policy(policy, hold), owner, size_hint=old.size
        )
        digest = hashlib.blake2b(digest_size=32)
        try:
            async for data in _bytes(namespace, source, old.size):
                digest.update(data)
                await stream.write(data)
            written = await stream.finish(journaled=namespace.journaled)
        except BaseException:
            await stream.abort()
            raise
        extents = [Extent(offset, chunk.length, chunk) for offset, chunk in written]
        fresh = [chunk for _, chunk in written]
        try:
            await containers.sync()
            again = hashlib.blake2b(digest_size=32)
            async for data in _bytes(namespace, extents, old.size):
                again.update(data)
            if again.digest() != digest.digest():
                raise Corrupt(f"revision {old_number} reads differently where it was moved to")
            shown, manifest, summaries = await placed(containers, policy, owner, extents, parts)
        except BaseException:
            containers.discard(fresh)
            raise
    finally:
        pin.release()
        if hold is not None:
            hold.release()
    if manifest is not None:
        fresh.append(manifest)
    listed = listed_of(manifest, extents)
    return Written(number, shown, manifest, summaries, tuple(fresh), listed)


async def _bytes(namespace: Namespace, extents: list[Extent], size: int) -> AsyncIterator[Buffer]:
    """Yield a content, holes as zeros, in pieces of at most READ_MAX."""
    at = 0
    for extent in extents:
        while at < extent.offset:
            step = min(READ_MAX, extent.offset - at)
            yield bytes(step)
            at += step
        end = extent.offset + extent.length
        while at < end:
            step = min(READ_MAX, end - at)
            skip = extent.skip + at - extent.offset
            yield await namespace.containers.read(extent.chunk, offset=skip, length=step)
            at += step
    while at < size:
        step = min(READ_MAX, size - at)
        yield bytes(step)
        at += step
