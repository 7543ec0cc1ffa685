"""The Objects view on the namespace: every verb is one transaction, content is durable before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from warp_core.containers import Owner
from warp_core.containers.reclaim import Pin
from warp_core.errors import (
    Busy,
    Corrupt,
    InvalidArgument,
    IsDeleteMarker,
    NotEmpty,
    NotFound,
    TooLarge,
    VersionNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.consistency import View
from warp_core.interfaces.stores import Buffer
from warp_core.metadata import Transaction
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change, Held, Path, extend, new_nonce, resolve, version_id
from warp_core.namespace.content import (
    REFUSALS,
    ExtentReader,
    ExtentWriter,
    InlineReader,
    load_manifest,
    placed,
)
from warp_core.namespace.described import (
    borrowed,
    check_attributes,
    check_key,
    check_size,
    describe,
    judge,
    make_revision,
    show,
    with_attributes,
)
from warp_core.namespace.leases import FOR_READ
from warp_core.namespace.listing import list_names, list_versions
from warp_core.namespace.lookup import find_plain, find_version, name_now, sequence_of
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import (
    DIRECTORY,
    FILE,
    INLINE_MAX,
    MARKER,
    NULL_VERSION,
    Event,
    Extent,
    Name,
    Revision,
    VolumeRow,
    decode_name,
    decode_revision,
)
from warp_core.namespace.tree import Rows, ViewSource, Volume, VolumeTransaction
from warp_core.namespace.uploads import Uploads
from warp_core.views.objects import (
    ALWAYS,
    SMALL_MAX,
    Attributes,
    Condition,
    Deleted,
    Digests,
    Listing,
    ObjectInfo,
    Objects,
    PartInfo,
    Reader,
    UploadInfo,
    Versioning,
    VersionListing,
    VolumeInfo,
    Writer,
)

KNOWN_MAX: Final = 4096
"""Objects whose rows are kept decoded, the last that were read: about 3 KiB each, 5 where the content lies in the row."""

KNOWN_ROW_MAX: Final = 2048
"""Bytes of a revision row that is kept decoded: most have 200 to 300, with inline content 1,300."""


class _Known(NamedTuple):
    """An object's rows and what they say; true as long as the rows are the same."""

    name_row: bytes
    revision_row: bytes
    revision_key: bytes
    inode: int
    info: ObjectInfo
    extents: Sequence[Extent]
    inline: bytes | None


class NamespaceObjects(Objects):
    """See `Objects`."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._containers = namespace.containers
        self._volumes = namespace.volumes
        self._ids = namespace.ids
        self._uploads = Uploads(namespace, self._link)
        self._immediate = namespace.store.capabilities.immediate
        self._known: dict[tuple[int, bytes], _Known] = {}

    # Volumes --------------------------------------------------------------------------------------

    async def create_volume(self, name: str, *, owner: Principal) -> VolumeInfo:
        """See `Objects.create_volume`."""
        return await self._volume_info(await self._volumes.create(name, owner=owner.name))

    async def delete_volume(self, name: str) -> None:
        """See `Objects.delete_volume`."""

        async def may_go(tx: VolumeTransaction) -> None:
            for start, end in (keys.names_of(keys.ROOT), keys.versions_of(keys.ROOT)):
                found = await tx.scan(start, end, limit=1)
                if found and decode_name(found[0][1]).kind == DIRECTORY:
                    raise NotEmpty(
                        f"volume {name!r} has a directory that was made over a file protocol:"
                        " remove it there"
                    )
                if found:
                    raise NotEmpty(f"volume {name!r} is not empty")

        await self._volumes.delete(name, may_go)

    async def volume(self, name: str) -> VolumeInfo:
        """See `Objects.volume`."""
        return await self._volume_info(await self._volumes.get(name))

    async def volumes(self) -> list[VolumeInfo]:
        """See `Objects.volumes`."""
        return [await self._volume_info(volume) for volume in await self._volumes.all()]

    async def set_versioning(self, volume: str, state: Versioning) -> None:
        """See `Objects.set_versioning`."""

        async def change(row: VolumeRow, _: Transaction) -> VolumeRow:
            if state == "off" and row.versioning != "off":
                raise InvalidArgument(f"volume {volume!r} had versioning: it can be suspended only")
            return msgspec.structs.replace(row, versioning=state)

        await self._volumes.writable(volume)
        await self._volumes.update(volume, change)

    async def set_document(self, volume: str, name: str, document: bytes | None) -> None:
        """See `Objects.set_document`."""
        await self._volumes.writable(volume)
        await self._volumes.set_document(volume, name, document)

    async def _volume_info(self, volume: Volume) -> VolumeInfo:
        row = volume.row
        return VolumeInfo(
            name=row.name,
            created_ns=row.created_ns,
            owner=row.owner,
            versioning=row.versioning,  # type: ignore[arg-type]
            tags=row.tags,
            documents=await self._volumes.documents(volume),
        )

    # Reading --------------------------------------------------------------------------------------

    async def head(self, volume: str, key: bytes, *, version: str = "") -> ObjectInfo:
        """See `Objects.head`."""
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        name, revision, _ = await self._look(found, key, version, flat=False)
        return await self._info(key, name, revision, latest=not version)

    async def open(self, volume: str, key: bytes, *, version: str = "") -> Reader:
        """See `Objects.open`."""
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        pin = self._containers.pin()  # before rows are read: what they lead to stays readable
        try:
            name, revision, flat = await self._look(found, key, version, flat=True)
            if flat is not None:
                info = describe(key, name, revision, revision.parts, latest=not version)
                return ExtentReader(info, self._containers, flat, pin)
            return await self._reader(key, name, revision, version, pin)
        except BaseException:
            pin.release()
            raise

    def head_now(self, volume: str, key: bytes) -> ObjectInfo | None:
        """See `Objects.head_now`."""
        known = self._look_up(volume, key)
        return known.info if known is not None else None

    def open_now(self, volume: str, key: bytes) -> Reader | None:
        """See `Objects.open_now`."""
        known = self._look_up(volume, key)
        if known is None:
            return None
        if known.inline is not None:
            return InlineReader(known.info, known.inline)
        # Nothing was awaited since the rows were read: the pin is as good as one taken before.
        return ExtentReader(known.info, self._containers, known.extents, self._containers.pin())

    def _look_up(self, volume: str, key: bytes) -> _Known | None:
        """Return what the rows of a plain volume's object say now; None where that is for `_look` to find out.

        The rows are read each time, so that what is remembered need not be told of changes: it only saves decoding them.
        """
        found = self._volumes.known(volume)
        if not self._immediate or found is None or not found.plain:
            return None
        store = self._namespace.store
        name_row = name_now(store, found.prefix, key)
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

    def _learn(self, volume: Volume, key: bytes, name_row: bytes) -> _Known | None:
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
        info = describe(key, name, revision, revision.parts)
        known = _Known(
            name_row, row[0], revision_key, name.inode, info, revision.extents, revision.inline
        )
        if len(row[0]) <= KNOWN_ROW_MAX:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[volume.number, key] = known
        return known

    async def _look(
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
        view = self._namespace.store.view()
        try:
            name, revision = await self._find(volume, view, key, version, asked=asked)
            apart = self._namespace.apart
            if not flat or not (revision.windowed or revision.base) or apart is None:
                return name, revision, None
            stored = volume.rows(ViewSource(view))
            return name, revision, await apart.flatten(stored, name.revision, revision.size)
        finally:
            view.close()

    async def _reader(
        self, key: bytes, name: Name, revision: Revision, version: str, pin: Pin
    ) -> Reader:
        if revision.manifest is not None:
            manifest = await load_manifest(self._containers, revision.manifest)
            parts = manifest.parts or revision.parts
            info = describe(key, name, revision, parts, latest=not version)
            return ExtentReader(info, self._containers, manifest.extents, pin)
        info = describe(key, name, revision, revision.parts, latest=not version)
        if revision.inline is not None:
            pin.release()
            return InlineReader(info, revision.inline)
        return ExtentReader(info, self._containers, revision.extents, pin)

    async def _find(
        self, volume: Volume, view: View, key: bytes, version: str, *, asked: bool
    ) -> tuple[Name, Revision]:
        """Return a version of an object and its revision.

        Raises:
            Held: Somebody holds it, and was not asked.
            NotFound, VersionNotFound, IsDeleteMarker
        """
        if volume.plain and not version:
            name = await find_plain(view, volume.prefix, key)
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

    async def _info(
        self, key: bytes, name: Name, revision: Revision, *, latest: bool
    ) -> ObjectInfo:
        parts = revision.parts
        if revision.part_count and not parts and revision.manifest is not None:
            parts = (await load_manifest(self._containers, revision.manifest)).parts
        return describe(key, name, revision, parts, latest=latest)

    # Writing --------------------------------------------------------------------------------------

    async def put(
        self,
        volume: str,
        key: bytes,
        payload: Buffer,
        attributes: Attributes,
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
    ) -> ObjectInfo:
        """See `Objects.put`."""
        size = len(payload)
        if size > SMALL_MAX:
            raise TooLarge(f"payload of {size} bytes > SMALL_MAX {SMALL_MAX}")
        check_key(key)
        target = self._volumes.known(volume) or await self._volumes.writable(volume)
        namespace = self._namespace
        if condition is not ALWAYS:
            await self._refuse_early(target, key, condition)
        number = await self._ids.take()
        policy = namespace.policy_of(target)
        if size <= INLINE_MAX and not policy.filters:
            revision = make_revision(size, attributes, digests, inline=bytes(payload))
            return await self._link(volume, key, number, revision, condition, "put")
        owner = Owner(target.number, number, number)
        try:
            chunk = self._containers.append(payload, owner=owner, policy=policy)
        except Busy:
            await self._containers.sync()
            chunk = self._containers.append(payload, owner=owner, policy=policy)
        try:
            if not (namespace.journaled and self._containers.in_journal(chunk)):
                await self._containers.sync()
            extents = (Extent(0, size, chunk),)
            revision = make_revision(size, attributes, digests, extents=extents)
            return await self._link(volume, key, number, revision, condition, "put")
        except BaseException as error:
            if isinstance(error, REFUSALS):
                self._containers.discard([chunk])
            if not isinstance(payload, bytes):
                await (
                    self._containers.sync()
                )  # the caller may change its buffer: not before it is written
            raise

    async def _refuse_early(self, volume: Volume, key: bytes, condition: Condition) -> None:
        """Judge a condition before anything is written for it; the transaction judges again."""
        view = self._namespace.store.view()
        try:
            stored = volume.rows(ViewSource(view))
            current = (await resolve(stored, keys.steps(key), key)).current
            judge(condition, key, await self._summary(stored, current))
        finally:
            view.close()

    async def _summary(self, stored: Rows, name: Name | None) -> Name | None:
        if name is None or name.kind != FILE or name.revision or self._namespace.apart is None:
            return name
        return await self._namespace.apart.summary(stored, name)

    async def _link(
        self,
        volume: str,
        key: bytes,
        number: int,
        revision: Revision,
        condition: Condition,
        verb: str,
        also: Callable[[Change, Name], Awaitable[None]] | None = None,
    ) -> ObjectInfo:
        """Make a revision the current version of a key; `also` runs in the same transaction."""

        async def body(change: Change) -> Name:
            return await self.link(change, key, number, revision, condition, verb, also)

        name = await self._namespace.change(volume, body)
        return describe(key, name, revision, revision.parts)

    async def link(
        self,
        change: Change,
        key: bytes,
        number: int,
        revision: Revision,
        condition: Condition = ALWAYS,
        verb: str = "put",
        also: Callable[[Change, Name], Awaitable[None]] | None = None,
    ) -> Name:
        """Do the transaction's part of a PUT.

        Raises:
            PreconditionFailed, NotFound: The condition does not hold.
        """
        path = await change.find(key)
        if condition is not ALWAYS:
            judge(condition, key, await self._summary(change.rows, path.current))
        if not path.complete:
            await change.make_way(path)
        sequence = await change.next_sequence(path)
        await change.supersede(path)
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
        change.tell(
            Event(
                verb,
                change.now_ns,
                key,
                0,
                b"",
                number,
                version_id(name),
                name.size,
                name.etag,
                name.owner,
            )
        )
        return name

    async def writer(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        condition: Condition = ALWAYS,
        size: int | None = None,
    ) -> Writer:
        """See `Objects.writer`."""
        check_key(key)
        target = await self._volumes.writable(volume)
        if condition is not ALWAYS:
            await self._refuse_early(target, key, condition)
        number = await self._ids.take()
        owner = Owner(target.number, number, number)
        policy = self._namespace.policy_of(target)

        async def link(extents: Sequence[Extent], length: int, digests: Digests) -> ObjectInfo:
            kept, manifest, _ = await placed(self._containers, policy, owner, extents)
            revision = make_revision(length, attributes, digests, extents=kept, manifest=manifest)
            try:
                return await self._link(volume, key, number, revision, condition, "put")
            except REFUSALS:
                if manifest is not None:
                    self._containers.discard([manifest])
                raise

        stream = self._containers.writer(policy, owner, size_hint=size)
        return ExtentWriter(stream, self._containers, link, journaled=self._namespace.journaled)

    async def copy(
        self,
        source_volume: str,
        source_key: bytes,
        volume: str,
        key: bytes,
        *,
        source_version: str = "",
        attributes: Attributes | None = None,
        digests: Digests | None = None,
        condition: Condition = ALWAYS,
    ) -> ObjectInfo:
        """See `Objects.copy`."""
        check_key(key)
        source = await self._volumes.get(source_volume)
        number = await self._ids.take()
        made: list[Revision] = []
        asked: set[int] = set()

        async def body(change: Change) -> Name:
            stored = await self._source_rows(change, source)
            found = await self._source(stored, source_key, source_version)
            self._ask(source, found, asked)
            original = await self._source_revision(stored, found)
            if original.windowed or original.base:
                raise _InPlace
            home = await self._namespace.home_of(stored, source, keys.revision_key(found.revision))
            revision = borrowed(original, home, found.revision, change.rows.volume.number)
            revision = with_attributes(revision, attributes, digests)
            made[:] = [revision]
            # Before the target is replaced: it may be the source, which must find its borrower when it goes.
            await change.lend(number, revision)
            return await self.link(change, key, number, revision, condition, "copy")

        try:
            name = await self._namespace.change(volume, body)
        except _InPlace:
            reader = await self.open(source_volume, source_key, version=source_version)
            try:
                return await self._copy_bytes(reader, volume, key, attributes, digests, condition)
            finally:
                reader.close()
        return await self._info(key, name, made[0], latest=True)

    async def _copy_bytes(
        self,
        reader: Reader,
        volume: str,
        key: bytes,
        attributes: Attributes | None,
        digests: Digests | None,
        condition: Condition,
    ) -> ObjectInfo:
        """Copy what was written in place: its windows may change at any time, a copy's content never does."""
        info = reader.info
        said = info.attributes
        if attributes is not None:
            said = msgspec.structs.replace(attributes, owner=attributes.owner or said.owner)
        writer = await self.writer(volume, key, said, condition=condition, size=info.size)
        try:
            offset = 0
            while offset < info.size:
                data = await reader.read(offset, info.size - offset)
                await writer.write(data)
                offset += len(data)
            return await writer.commit(digests or Digests(etag=info.etag))
        except BaseException:
            await writer.abort()
            raise

    async def _source_rows(self, change: Change, source: Volume) -> Rows:
        """Return the rows of what is copied from, as the transaction sees them."""
        if source.number == change.rows.volume.number and not source.snapshot:
            return change.rows
        return source.rows(change.rows.engine)

    def _ask(self, source: Volume, name: Name, asked: set[int]) -> None:
        """Have what holders of a source keep back written, before it is copied: once, then begin again.

        Raises:
            Held
        """
        opens = self._namespace.opens
        if opens is None or source.snapshot or name.inode in asked:
            return
        if opens.holders(source.number, name.inode):
            asked.add(name.inode)
            raise Held(source.number, name.inode)

    async def _source(self, stored: Rows, key: bytes, version: str) -> Name:
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
        found = await self._summary(stored, name)
        assert found is not None
        return found

    async def _source_revision(self, stored: Rows, name: Name) -> Revision:
        key = keys.revision_key(name.revision)
        value = await stored.get(key)
        if value is None:
            raise Corrupt(f"revision {name.revision} is missing")
        revision: Revision = rows.checked(decode_revision, key, value)
        return revision

    # Deleting -------------------------------------------------------------------------------------

    async def delete(
        self, volume: str, key: bytes, *, version: str = "", condition: Condition = ALWAYS
    ) -> Deleted:
        """See `Objects.delete`."""

        async def body(change: Change) -> Deleted:
            path = await change.find(key)
            if path.current is not None and path.current.kind != FILE:
                return Deleted(found=False)
            if condition is not ALWAYS:
                judge(condition, key, await self._summary(change.rows, path.current))
            if version:
                return await self._delete_version(change, path, version)
            return await self._delete_current(change, path)

        check_key(key)
        return await self._namespace.change(volume, body)

    async def _delete_current(self, change: Change, path: Path) -> Deleted:
        current = path.current
        if not change.versioned:
            if current is None:
                return Deleted(found=False)
            await change.supersede(path)
            await change.drop_name(path)
            change.tell(_event("delete", change, path.key, current))
            return Deleted()
        await change.make_way_for_versions(path)
        await change.supersede(path)
        marker = await change.put_marker(path)
        if current is not None:
            await change.drop_name(path)
        change.tell(_event("marker", change, path.key, marker))
        return Deleted(version=version_id(marker), marker=True, found=current is not None)

    async def _delete_version(self, change: Change, path: Path, version: str) -> Deleted:
        current = path.current
        if current is not None and version_id(current) == version:
            await change.remove_current(path)
            change.tell(_event("remove", change, path.key, current))
            return Deleted(version=version)
        names = len(path.names)
        await extend(change.rows, path)
        sequence = await sequence_of(change.rows, path, version)
        if sequence is None:
            return Deleted(version=version, found=False)
        dropped = await change.remove_version(path, sequence, live=names == len(path.steps))
        change.tell(_event("remove", change, path.key, dropped))
        return Deleted(version=version, marker=dropped.kind == MARKER)

    async def set_tags(
        self, volume: str, key: bytes, tags: Mapping[str, str], *, version: str = ""
    ) -> str:
        """See `Objects.set_tags`."""

        async def body(change: Change) -> str:
            name = await self._source(change.rows, key, version)
            revision = await change.revision(name.revision)
            tagged = msgspec.structs.replace(revision, tags=dict(tags), born=change.epoch)
            await change.put_revision(name.revision, tagged)
            change.tell(_event("tags", change, key, name))
            return version_id(name)

        check_size({}, {}, tags)
        return await self._namespace.change(volume, body)

    # Listing --------------------------------------------------------------------------------------

    async def list(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        limit: int = 1000,
    ) -> Listing:
        """See `Objects.list`."""
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        view = self._namespace.store.view()
        try:
            return await list_names(
                found, view, prefix, delimiter, after, limit, self._namespace.apart
            )
        finally:
            view.close()

    async def list_versions(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        version_marker: str = "",
        limit: int = 1000,
    ) -> VersionListing:
        """See `Objects.list_versions`."""
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        view = self._namespace.store.view()
        try:
            return await list_versions(
                found,
                view,
                prefix,
                delimiter,
                key_marker,
                version_marker,
                limit,
                self._namespace.apart,
            )
        finally:
            view.close()

    # Multipart uploads ----------------------------------------------------------------------------

    async def create_upload(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        checksum_algorithm: str = "",
        checksum_type: str = "",
    ) -> UploadInfo:
        """See `Objects.create_upload`."""
        check_key(key)
        check_attributes(attributes)
        return await self._uploads.create(
            volume, key, attributes, checksum_algorithm, checksum_type
        )

    async def upload(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        """See `Objects.upload`."""
        return await self._uploads.describe(volume, key, upload)

    async def part_writer(
        self, volume: str, key: bytes, upload: str, number: int, *, size: int | None = None
    ) -> Writer:
        """See `Objects.part_writer`."""
        return await self._uploads.part_writer(volume, key, upload, number, size)

    async def copy_part(
        self,
        source_volume: str,
        source_key: bytes,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        *,
        source_version: str = "",
        offset: int = 0,
        length: int | None = None,
        digests: Digests | None = None,
    ) -> PartInfo:
        """See `Objects.copy_part`."""
        source = await self._volumes.get(source_volume)
        asked: set[int] = set()

        async def find(change: Change) -> tuple[int, Name, Revision]:
            stored = await self._source_rows(change, source)
            name = await self._source(stored, source_key, source_version)
            self._ask(source, name, asked)
            revision = await self._source_revision(stored, name)
            home = await self._namespace.home_of(stored, source, keys.revision_key(name.revision))
            return home, name, revision

        async def open_source() -> Reader:
            return await self.open(source_volume, source_key, version=source_version)

        return await self._uploads.copy_part(
            volume, key, upload, number, find, offset, length, digests, open_source
        )

    async def list_parts(
        self, volume: str, key: bytes, upload: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[Sequence[PartInfo], bool]:
        """See `Objects.list_parts`."""
        return await self._uploads.parts(volume, key, upload, after, limit)

    async def complete_upload(
        self,
        volume: str,
        key: bytes,
        upload: str,
        parts: Sequence[PartInfo],
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
    ) -> ObjectInfo:
        """See `Objects.complete_upload`."""
        return await self._uploads.complete(volume, key, upload, parts, digests, condition)

    async def abort_upload(self, volume: str, key: bytes, upload: str) -> None:
        """See `Objects.abort_upload`."""
        await self._uploads.abort(volume, key, upload)

    async def list_uploads(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        upload_marker: str = "",
        limit: int = 1000,
    ) -> tuple[Sequence[UploadInfo], Sequence[bytes], bool]:
        """See `Objects.list_uploads`."""
        return await self._uploads.list(volume, prefix, delimiter, key_marker, upload_marker, limit)


class _InPlace(Exception):
    """What is to be copied was written in place."""


def _event(verb: str, change: Change, key: bytes, name: Name) -> Event:
    return Event(
        verb,
        change.now_ns,
        key,
        inode=name.inode,
        version=version_id(name),
        size=name.size,
        etag=name.etag,
        actor=name.owner,
    )
