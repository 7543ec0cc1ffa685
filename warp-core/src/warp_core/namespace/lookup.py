"""Finding versions of a key among rows."""

from __future__ import annotations

from warp_core.interfaces.consistency import MetaStore, View
from warp_core.namespace import keys
from warp_core.namespace.paths import Path, extend, resolve
from warp_core.namespace.rows import Name, decode_name, decode_null, decode_way
from warp_core.namespace.tree import Rows
from warp_core.namespace.versions import parse_version_id, version_id


async def find_plain(view: View, prefix: bytes, key: bytes) -> Name | None:
    """Return the current version of a key in a volume that is neither snapshot nor clone: one `get` a level."""
    directory = keys.ROOT
    get = view.get
    *above, last = keys.steps(key)
    for step in above:
        found = await get(prefix + keys.name_key(directory, step[0]))
        if found is None:
            return None
        directory = decode_way(found[0]).inode
    found = await get(prefix + keys.name_key(directory, last[0]))
    return decode_name(found[0]) if found else None


def name_now(store: MetaStore, prefix: bytes, key: bytes) -> bytes | None:
    """Return the row of a key's current version as `find_plain` finds it, from an engine that answers without waiting."""
    get = store.get_now
    directory = keys.ROOT
    *above, last = keys.steps(key)
    for step in above:
        found = get(prefix + keys.name_key(directory, step[0]))
        if found is None:
            return None
        directory = decode_way(found[0]).inode
    found = get(prefix + keys.name_key(directory, last[0]))
    return found[0] if found else None


async def find_version(stored: Rows, key: bytes, version: str) -> tuple[Name | None, bool]:
    """Return the named version of a key (empty: the current one), which may be a marker, and whether it is the newest."""
    path = await resolve(stored, keys.steps(key), key)
    current = path.current
    if not version:
        return current, True
    if current is not None and version_id(current) == version:
        return current, True
    await extend(stored, path)
    sequence = await sequence_of(stored, path, version)
    if sequence is None:
        return None, False
    value = await stored.get(keys.version_key(*path.place, sequence))
    if value is None:
        return None, False
    newest = False
    if current is None:
        found = await stored.scan(*keys.versions_of_name(*path.place), limit=1)
        newest = bool(found) and decode_name(found[0][1]).sequence == sequence
    return decode_name(value), newest


async def sequence_of(stored: Rows, path: Path, version: str) -> int | None:
    """Return the number of a noncurrent version of the name at the end of a path, None if there is none of that id."""
    if not path.complete:
        return None
    directory, component = path.place
    if version == "null":
        value = await stored.get(keys.null_version_key(directory, component))
        return decode_null(value).sequence if value else None
    parsed = parse_version_id(version)
    if parsed is None:
        return None
    sequence, nonce = parsed
    value = await stored.get(keys.version_key(directory, component, sequence))
    return sequence if value is not None and decode_name(value).nonce == nonce else None
