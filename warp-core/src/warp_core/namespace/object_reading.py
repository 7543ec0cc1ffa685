"""Finding an object for a reader: at once from rows that are in memory, or at one moment of the rows, with what holders keep back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from warp_core.containers.keyring import Hold
from warp_core.containers.reclaim import Pin
from warp_core.errors import Corrupt, IsDeleteMarker, NotFound, VersionNotFound
from warp_core.interfaces.consistency import View
from warp_core.kept import Kept
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Held
from warp_core.namespace.content import ExtentReader, InlineReader, load_manifest
from warp_core.namespace.described import describe, show
from warp_core.namespace.leases import FOR_READ
from warp_core.namespace.lookup import Ways, find_plain, find_version
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.paths import extend, resolve
from warp_core.namespace.pending import NOTHING
from warp_core.namespace.rows import (
    FILE,
    MARKER,
    Extent,
    Name,
    Revision,
    Seal,
    decode_name,
    decode_revision,
)
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.namespace.versions import version_id
from warp_core.views.objects import ObjectInfo, Reader

KNOWN_MAX: Final = 4096
"""Objects whose rows are kept decoded, the last that were read: about 3 KiB each, 5 where the content lies in the row."""

KNOWN_ROW_MAX: Final = 2048
"""Bytes of a revision row that is kept decoded: most have 200 to 300, with inline content 1,300."""


class Known(NamedTuple):
    """An object's rows and what they say; true as long as the rows are the same."""

    name_row: bytes
    revision_row: bytes
    revision_key: bytes
    inode: int
    info: ObjectInfo
    extents: Sequence[Extent]
    inline: bytes | None
    seal: Seal | None


class ObjectFinder:
    """What every GET and HEAD begins with."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._containers = namespace.containers
        self._volumes = namespace.volumes
        self._immediate = namespace.store.capabilities.immediate
        self._known: Kept[tuple[int, bytes], Known] = Kept(KNOWN_MAX)
        self._ways = Ways()

    def known(self, volume: str, key: bytes) -> Known | None:
        """Return what the rows of a plain volume's object say now; None where that is for `look` to find out.

        The rows are read each time, so that what is remembered need not be told of changes: it only saves decoding them.
        """
        found = self._volumes.known(volume)
        if not self._immediate or found is None or not found.plain:
            return None
        store = self._namespace.store
        name_row = self._ways.name_now(store, found.prefix, key)
        if name_row is None:
            return None
        known = self._known.get((found.number, key))
        if known is None or known.name_row != name_row:
            return self._learn(found, key, name_row)
        opens = self._namespace.opens
        if opens is not None and opens.holders(found.number, known.inode):
            return None
        row = store.get_now(known.revision_key)
        if row is None or row[0] != known.revision_row:
            return self._learn(found, key, name_row)
        return known

    def _learn(self, volume: Volume, key: bytes, name_row: bytes) -> Known | None:
        """Decode an object's rows and remember them, unless it is one that has to be put together."""
        name = decode_name(name_row)
        if name.kind != FILE or not name.revision:
            return None
        opens = self._namespace.opens
        if opens is not None and opens.holders(volume.number, name.inode):
            return None
        revision_key = volume.prefix + keys.revision_key(name.revision)
        row = self._namespace.store.get_now(revision_key)
        if row is None:
            return None
        revision: Revision = rows.checked(decode_revision, revision_key, row[0])
        if revision.manifest is not None or revision.windowed or revision.base:
            return None
        if revision.storage_class and revision.storage_class in self._namespace.archives:
            return None  # whether it can be read is for `open` to judge
        info = describe(key, name, revision, revision.parts)
        known = Known(
            name_row,
            row[0],
            revision_key,
            name.inode,
            info,
            revision.extents,
            revision.inline,
            revision.seal,
        )
        if len(row[0]) <= KNOWN_ROW_MAX:
            self._known.offer((volume.number, key), known)
        return known

    async def look(
        self, volume: Volume, key: bytes, version: str, *, flat: bool
    ) -> tuple[Name, Revision, Sequence[Extent] | None]:
        """Find a version and its revision at one moment; with `flat` also the extents of one that was written in place.

        If somebody holds the file, what they hold back is asked for first.
        """
        try:
            return await self._look_now(volume, key, version, flat=flat, asked=False)
        except Held as held:
            namespace = self._namespace
            if namespace.opens is not None:
                await namespace.opens.recall(held.volume, held.inode, FOR_READ)
            if namespace.apart is not None:
                await namespace.apart.settle(held.volume, held.inode)
        return await self._look_now(volume, key, version, flat=flat, asked=True)

    async def _look_now(
        self, volume: Volume, key: bytes, version: str, *, flat: bool, asked: bool
    ) -> tuple[Name, Revision, Sequence[Extent] | None]:
        apart = self._namespace.apart
        above = apart.above(volume) if apart is not None else NOTHING
        view = self._namespace.store.view()
        try:
            name, revision = await self._find(volume, view, key, version, asked=asked)
            if not flat or not (revision.windowed or revision.base) or apart is None:
                return name, revision, None
            stored = volume.rows(ViewSource(view))
            return name, revision, await apart.flatten(stored, name.revision, revision.size, above)
        finally:
            view.close()

    async def reader(
        self,
        key: bytes,
        name: Name,
        revision: Revision,
        version: str,
        pin: Pin,
        hold: Hold | None,
    ) -> Reader:
        """Return who reads a revision that was not written in place; the pin and the hold are its own now."""
        if revision.manifest is not None:
            manifest = await load_manifest(self._containers, revision.manifest)
            parts = manifest.parts or revision.parts
            info = describe(key, name, revision, parts, latest=not version)
            return ExtentReader(info, self._containers, manifest.extents, pin, hold)
        info = describe(key, name, revision, revision.parts, latest=not version)
        if revision.inline is not None:
            pin.release()
            if hold is not None:
                hold.release()
            return InlineReader(info, revision.inline)
        return ExtentReader(info, self._containers, revision.extents, pin, hold)

    async def _find(
        self, volume: Volume, view: View, key: bytes, version: str, *, asked: bool
    ) -> tuple[Name, Revision]:
        """Return a version of an object and its revision.

        Raises:
            Held: Somebody holds it, and was not asked.
            NotFound, VersionNotFound, IsDeleteMarker
        """
        if volume.plain and not version:
            name = await self._plain(volume, view, key)
            if name is None or name.kind != FILE:
                raise await self._absence(volume, view, key)
        else:
            stored = volume.rows(ViewSource(view))
            found, current = await find_version(stored, key, version)
            if found is None or found.kind not in (FILE, MARKER):
                if version:
                    raise VersionNotFound(f"{show(key)} has no version {version}")
                raise await self._absence(volume, view, key)
            if found.kind == MARKER:
                raise IsDeleteMarker(
                    f"version {version} of {show(key)} is a delete marker",
                    version=version_id(found),
                    current=current,
                )
            name = found
        opens = self._namespace.opens
        if not asked and opens is not None and opens.holders(volume.number, name.inode):
            raise Held(volume.number, name.inode)
        if not name.revision:
            apart = self._namespace.apart
            if apart is None:
                raise Corrupt(f"{show(key)} leads to inode {name.inode}, which nothing here reads")
            name = await apart.summary(volume.rows(ViewSource(view)), name)
        revision_key = keys.revision_key(name.revision)
        if volume.plain:
            row = await view.get(volume.prefix + revision_key)
            value = row[0] if row else None
        else:
            value = await volume.rows(ViewSource(view)).get(revision_key)
        if value is None:
            raise Corrupt(f"revision {name.revision} of {show(key)} is missing")
        revision: Revision = rows.checked(decode_revision, revision_key, value)
        return name, revision

    async def _plain(self, volume: Volume, view: View, key: bytes) -> Name | None:
        """Return the current version of a key in a volume that is neither snapshot nor clone."""
        if not self._immediate:
            return await find_plain(view, volume.prefix, key)
        row = self._ways.name_now(view, volume.prefix, key)
        return decode_name(row) if row is not None else None

    async def _absence(self, volume: Volume, view: View, key: bytes) -> NotFound:
        """Return why an object is not there: its newest version is a marker, or there is none."""
        if volume.row.versioning != "off" or volume.bases:
            stored = volume.rows(ViewSource(view))
            path = await extend(stored, await resolve(stored, keys.steps(key), key))
            if path.complete and path.current is None:
                found = await stored.scan(*keys.versions_of_name(*path.place), limit=1)
                if found:
                    marker = version_id(decode_name(found[0][1]))
                    return IsDeleteMarker(f"{show(key)} is deleted", version=marker)
        return NotFound(f"no object {show(key)}")

    async def info(self, key: bytes, name: Name, revision: Revision, *, latest: bool) -> ObjectInfo:
        """Return what is known of an object, with its parts."""
        parts = revision.parts
        if revision.part_count and not parts and revision.manifest is not None:
            parts = (await load_manifest(self._containers, revision.manifest)).parts
        return describe(key, name, revision, parts, latest=latest)
