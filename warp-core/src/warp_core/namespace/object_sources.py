"""What an object is copied from: rows of any volume, as the transaction that copies sees them."""

from __future__ import annotations

from typing import NamedTuple

from warp_core.errors import Corrupt, IsDeleteMarker, NotFound, VersionNotFound
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Apart, Change, Held
from warp_core.namespace.described import show
from warp_core.namespace.lookup import find_version
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import summary_of
from warp_core.namespace.rows import FILE, MARKER, Name, Revision, decode_revision
from warp_core.namespace.tree import Rows, Volume
from warp_core.namespace.versions import version_id


class Found(NamedTuple):
    """What is copied from."""

    home: int  # the volume that keeps the revision
    name: Name
    revision: Revision


class Source:
    """One object to copy from. Its holders are asked once to write what they keep back, however often the transaction begins."""

    def __init__(self, namespace: Namespace, volume: Volume, key: bytes, version: str) -> None:
        self._namespace = namespace
        self.volume = volume
        self._key = key
        self._version = version
        self._asked: set[int] = set()

    async def find(self, change: Change) -> Found:
        """Return what a transaction sees of it.

        Raises:
            Held: Somebody holds it, and was not asked.
            NotFound, VersionNotFound, IsDeleteMarker
            Corrupt: Its revision is missing.
        """
        stored = self._rows(change)
        name = await find_object(change.apart, stored, self._key, self._version)
        self._ask(name)
        key = keys.revision_key(name.revision)
        value = await stored.get(key)
        if value is None:
            raise Corrupt(f"revision {name.revision} is missing")
        revision: Revision = rows.checked(decode_revision, key, value)
        return Found(await self._namespace.home_of(stored, self.volume, key), name, revision)

    def _rows(self, change: Change) -> Rows:
        if self.volume.number == change.rows.volume.number and not self.volume.snapshot:
            return change.rows
        return self.volume.rows(change.rows.engine)

    def _ask(self, name: Name) -> None:
        opens = self._namespace.opens
        if opens is None or self.volume.snapshot or name.inode in self._asked:
            return
        if opens.holders(self.volume.number, name.inode):
            self._asked.add(name.inode)
            raise Held(self.volume.number, name.inode)


async def find_object(apart: Apart | None, stored: Rows, key: bytes, version: str) -> Name:
    """Return a version of an object (empty: the current one), with its revision.

    Raises:
        NotFound, VersionNotFound, IsDeleteMarker
    """
    name, current = await find_version(stored, key, version)
    if name is None or name.kind not in (FILE, MARKER):
        if version:
            raise VersionNotFound(f"{show(key)} has no version {version}")
        raise NotFound(f"no object {show(key)}")
    if name.kind == MARKER:
        raise IsDeleteMarker(
            f"version {version} of {show(key)} is a delete marker",
            version=version_id(name),
            current=current,
        )
    found = await summary_of(apart, stored, name)
    assert found is not None
    return found
