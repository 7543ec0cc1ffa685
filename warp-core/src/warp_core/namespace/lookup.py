"""Finding versions of a key among rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from warp_core.interfaces.consistency import MetaStore, View
from warp_core.namespace import keys
from warp_core.namespace.paths import Path, extend, resolve
from warp_core.namespace.rows import Name, decode_name, decode_null, decode_way
from warp_core.namespace.tree import Rows
from warp_core.namespace.versions import parse_version_id, version_id

WAYS_MAX: Final = 2048  # prefixes of keys whose way is remembered
WAY_MAX: Final = 8  # rows of one: about 200 bytes each, so a few MiB in all


_Get = Callable[[bytes], tuple[bytes, int] | None]


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


class Ways:
    """Finds names at once, from an engine that answers without waiting.

    The rows of the directories on a way are read each time. What is remembered of a way saves making their keys and decoding them, and
    where a volume has many directories, memory that no cache of the processor has.
    """

    def __init__(self) -> None:
        # By the volume's prefix and the keys' prefix: the rows on the way, (key, value), and the directory that it leads to.
        self._known: dict[bytes, tuple[tuple[tuple[bytes, bytes], ...], int]] = {}

    def name_now(self, source: MetaStore | View, prefix: bytes, key: bytes) -> bytes | None:
        """Return the row of a key's current version as `find_plain` finds it in the volume of a prefix."""
        get = source.get_now
        cut = key.rfind(b"/") + 1
        if len(key) - cut >= keys.NODE_BYTES:  # its name goes through further rows
            return self._walked(get, prefix, key)
        directory = keys.ROOT
        if cut:
            known = self._known.get(prefix + key[:cut])
            if known is None:
                return self._walked(get, prefix, key)
            way, directory = known
            for row_key, value in way:
                row = get(row_key)
                if row is None or row[0] != value:
                    return self._walked(get, prefix, key)
        found = get(prefix + keys.name_key(directory, keys.escape(key[cut:]) + keys.FILE_END))
        return found[0] if found else None

    def _walked(self, get: _Get, prefix: bytes, key: bytes) -> bytes | None:
        """Find a name step by step, and remember the way to its directory."""
        directory = keys.ROOT
        way: list[tuple[bytes, bytes]] = []
        *above, last = keys.steps(key)
        for step in above:
            row_key = prefix + keys.name_key(directory, step[0])
            found = get(row_key)
            if found is None:
                return None
            way.append((row_key, found[0]))
            directory = decode_way(found[0]).inode
        cut = key.rfind(b"/") + 1
        if len(key) - cut < keys.NODE_BYTES and len(way) <= WAY_MAX:
            if len(self._known) >= WAYS_MAX:
                self._known.clear()
            self._known[prefix + key[:cut]] = tuple(way), directory
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
