"""The storage class of a version that is there: a label that its name and its revision carry. No byte moves."""

from __future__ import annotations

import msgspec

from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.described import STANDARD
from warp_core.namespace.lookup import sequence_of
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import event_of, summary_of
from warp_core.namespace.paths import extend
from warp_core.namespace.rows import FILE, decode_name, encode
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
    """Say that a version is of another class; False if there is no such version any more.

    Raises:
        VolumeNotFound, ReadOnly
    """
    kept = "" if storage_class == STANDARD else storage_class

    async def body(change: Change) -> bool:
        path = await change.find(key)
        place, name = b"", path.current
        if name is not None and version_id(name) == version:
            place = keys.name_key(*path.place)
        else:
            await extend(change.rows, path)
            sequence = await sequence_of(change.rows, path, version)
            if sequence is None:
                return False
            place = keys.version_key(*path.place, sequence)
            value = await change.rows.get(place)
            assert value is not None
            name = decode_name(value)
        if name.kind != FILE:
            return False
        whole = await summary_of(change.apart, change.rows, name)
        assert whole is not None
        named = msgspec.structs.replace(name, born=change.epoch, storage_class=kept)
        await change.rows.put(place, encode(named))
        revision = await change.revision(whole.revision)
        made = msgspec.structs.replace(revision, born=change.epoch, storage_class=kept)
        await change.put_revision(whole.revision, made)
        change.tell(event_of("class", change, key, whole, origin))
        return True

    return await namespace.change(volume, body)
