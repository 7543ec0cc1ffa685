"""Copies of objects: references to the same chunks, or, where that is not possible, the same bytes once more."""

from __future__ import annotations

import msgspec

from warp_core.namespace.archives import demand_readable
from warp_core.namespace.changes import Change
from warp_core.namespace.described import borrowed, with_attributes
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import put_object
from warp_core.namespace.object_sources import Source
from warp_core.namespace.rows import Name, Revision, Seal
from warp_core.namespace.tree import Volume
from warp_core.views.objects import (
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    Objects,
    Reader,
    Sealing,
)
from warp_core.views.origin import Origin


class NoReference(Exception):
    """What is to be copied cannot be referred to."""


async def copy_by_reference(
    namespace: Namespace,
    source: Source,
    volume: str,
    key: bytes,
    attributes: Attributes | None,
    digests: Digests | None,
    condition: Condition,
    sealing: Sealing | None,
    origin: Origin | None,
) -> tuple[Name, Revision]:
    """Make a version of a key that borrows the content of a source.

    Raises:
        NoReference: Then `copy_bytes`; nothing was done.
        What `Objects.copy` raises.
    """
    number = await namespace.ids.take()
    made: list[Revision] = []
    sealer = namespace.sealer

    async def body(change: Change) -> Name:
        home, found, original = await source.find(change)
        if original.storage_class:
            demand_readable(namespace.archives, original, key)
        if original.archived:  # a copy for a while is not to be held by others
            raise NoReference
        if original.windowed or original.base or not _same_key(original.seal, sealing):
            raise NoReference
        if _kept_otherwise(namespace, source.volume, original, change.rows.volume, attributes):
            raise NoReference
        revision = borrowed(original, home, found.revision, change.rows.volume.number)
        if original.seal is not None and sealing is not None:
            seal = await sealer.wrap_again(original.seal, sealing)
            revision = msgspec.structs.replace(revision, seal=seal)
        revision = with_attributes(revision, attributes, digests)
        made[:] = [revision]
        # Before the target is replaced: it may be the source, which must find its borrower when it goes.
        await change.lend(number, revision)
        provenance = None if attributes is None else attributes.provenance
        return await put_object(
            change, key, number, revision, condition, "copy", None, origin, provenance
        )

    name = await namespace.change(volume, body)
    return name, made[0]


def _kept_otherwise(
    namespace: Namespace,
    there: Volume,
    original: Revision,
    target: Volume,
    attributes: Attributes | None,
) -> bool:
    """Say whether a copy is of a class that keeps its content otherwise than the original's does."""
    if not (namespace.classes or namespace.placed) or original.inline is not None:
        return False
    named = original.storage_class if attributes is None else attributes.storage_class
    if not namespace.keeps_apart(named) and not namespace.keeps_apart(original.storage_class):
        return False
    policy_of = namespace.policy_of
    return policy_of(there, original.storage_class) != policy_of(target, named)


async def copy_bytes(
    objects: Objects,
    reader: Reader,
    volume: str,
    key: bytes,
    attributes: Attributes | None,
    digests: Digests | None,
    condition: Condition,
    sealing: Sealing | None,
    origin: Origin | None,
) -> ObjectInfo:
    """Copy what no reference is possible to: what was written in place, which may change at any time, or is sealed otherwise."""
    info = reader.info
    said = info.attributes
    if attributes is not None:
        said = msgspec.structs.replace(attributes, owner=attributes.owner or said.owner)
    writer = await objects.writer(
        volume, key, said, condition=condition, size=info.size, sealing=sealing, origin=origin
    )
    try:
        offset = 0
        while offset < info.size:
            data = await reader.read(offset, info.size - offset)
            await writer.write(data)
            offset += len(data)
        return await writer.commit(
            digests
            or Digests(
                etag=info.etag,
                checksums=info.checksums,
                checksum_type=info.checksum_type,  # type: ignore[arg-type]
            )
        )
    except BaseException:
        await writer.abort()
        raise


def _same_key(seal: Seal | None, sealing: Sealing | None) -> bool:
    """Say whether a copy may keep the data key of what it is copied from: not where a writer's secret is on either side."""
    if seal is None or sealing is None:
        return seal is None and sealing is None
    return not seal.own and not sealing.secret
