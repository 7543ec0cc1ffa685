"""The Objects view on the namespace: every verb is one transaction, content is durable before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from warp_core.containers import Owner
from warp_core.containers.keyring import Hold
from warp_core.errors import (
    Busy,
    InvalidArgument,
    TooLarge,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.archives import demand_readable, restore
from warp_core.namespace.changes import Change
from warp_core.namespace.content import (
    REFUSALS,
    ExtentReader,
    ExtentWriter,
    InlineReader,
    listed_of,
    placed,
)
from warp_core.namespace.described import (
    check_acl,
    check_attributes,
    check_key,
    check_size,
    describe,
    make_revision,
)
from warp_core.namespace.direct import Direct, NotHere
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_access import readable
from warp_core.namespace.object_admission import refuse_early, reserve
from warp_core.namespace.object_changes import Also, delete_object, event_of, put_object
from warp_core.namespace.object_copying import NoReference, copy_by_reference, copy_bytes
from warp_core.namespace.object_locking import set_legal_hold, set_retention
from warp_core.namespace.object_reading import ObjectFinder
from warp_core.namespace.object_sources import Source, find_object
from warp_core.namespace.object_volumes import ObjectVolumes
from warp_core.namespace.pools import Claim
from warp_core.namespace.rows import (
    INLINE_MAX,
    Extent,
    Name,
    Revision,
    Seal,
)
from warp_core.namespace.sealing import sealed_policy
from warp_core.namespace.uploads import Uploads
from warp_core.namespace.versions import version_id
from warp_core.views.files import Caller
from warp_core.views.objects import (
    ALWAYS,
    SMALL_MAX,
    TOGETHER_MAX,
    Attributes,
    Condition,
    Deleted,
    Digests,
    LockMode,
    ObjectInfo,
    PartInfo,
    Provenance,
    Reader,
    Replication,
    Sealing,
    UploadInfo,
    Writer,
)
from warp_core.views.origin import Origin


class NamespaceObjects(ObjectVolumes):
    """See `Objects`."""

    def __init__(self, namespace: Namespace, *, reads_archives: bool = False) -> None:
        """Take the namespace; services that copy what is there read archives as well."""
        super().__init__(namespace)
        self._containers = namespace.containers
        self._ids = namespace.ids
        self._uploads = Uploads(namespace, self._link)
        self._archives = frozenset() if reads_archives else namespace.archives
        self._finder = ObjectFinder(namespace)
        self._direct = Direct(namespace)

    # Reading --------------------------------------------------------------------------------------

    async def head(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes | None = None
    ) -> ObjectInfo:
        """See `Objects.head`."""
        await self._settled()
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        name, revision, _ = await self._finder.look(found, key, version, flat=False)
        if secret is not None:
            await self._namespace.sealer.check(revision.seal, secret)
        return await self._finder.info(key, name, revision, latest=not version)

    async def readable(self, volume: str, key: bytes, caller: Caller, *, version: str = "") -> bool:
        """See `Objects.readable`."""
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        return await readable(self._namespace.store, found, key, caller, version=version)

    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        """See `Objects.open`."""
        await self._settled()
        found = self._volumes.known(volume) or await self._volumes.get(volume)
        pin = self._containers.pin()  # before rows are read: what they lead to stays readable
        hold: Hold | None = None
        try:
            name, revision, flat = await self._finder.look(found, key, version, flat=True)
            if revision.storage_class:
                demand_readable(self._archives, revision, key)
            if revision.seal is not None:
                hold = await self._namespace.sealer.open(revision.seal, secret)
            elif secret:
                await self._namespace.sealer.check(None, secret)
            if flat is not None:
                info = describe(key, name, revision, revision.parts, latest=not version)
                return ExtentReader(info, self._containers, flat, pin, hold)
            return await self._finder.reader(key, name, revision, version, pin, hold)
        except BaseException:
            pin.release()
            if hold is not None:
                hold.release()
            raise

    def head_now(self, volume: str, key: bytes) -> ObjectInfo | None:
        """See `Objects.head_now`."""
        if self._namespace.store.unsettled:
            return None
        known = self._finder.known(volume, key)
        return known.info if known is not None else None

    def open_now(self, volume: str, key: bytes) -> Reader | None:
        """See `Objects.open_now`."""
        if self._namespace.store.unsettled:
            return None
        known = self._finder.known(volume, key)
        if known is None:
            return None
        if known.inline is not None:
            return InlineReader(known.info, known.inline)
        hold: Hold | None = None
        if known.seal is not None:
            hold = self._namespace.sealer.open_now(known.seal)
            if hold is None:
                return None
        # Nothing was awaited since the rows were read: the pin is as good as one taken before.
        pin = self._containers.pin()
        return ExtentReader(known.info, self._containers, known.extents, pin, hold)

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
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """See `Objects.put`."""
        size = len(payload)
        if size > SMALL_MAX:
            raise TooLarge(f"payload of {size} bytes > SMALL_MAX {SMALL_MAX}")
        check_key(key)
        target = self._volumes.known(volume) or await self._volumes.writable(volume)
        namespace = self._namespace
        if condition is not ALWAYS:
            await refuse_early(namespace, target, key, condition)
        number = await self._ids.take()
        policy = namespace.policy_of(target, attributes.storage_class)
        seal: Seal | None = None
        hold: Hold | None = None
        if sealing is not None:
            seal, hold = await namespace.sealer.seal(sealing)
            policy = sealed_policy(policy, hold)
        if not size or (size <= INLINE_MAX and not policy.filters):
            if hold is not None:
                hold.release()
            revision = make_revision(size, attributes, digests, inline=bytes(payload), seal=seal)
            return await self._link(
                volume, key, number, revision, condition, "put", None, origin, attributes.provenance
            )
        owner = Owner(target.number, number, number)
        try:
            chunk = self._containers.append(payload, owner=owner, policy=policy)
        except Busy:
            await self._containers.sync()
            chunk = self._containers.append(payload, owner=owner, policy=policy)
        finally:
            if hold is not None:
                hold.release()  # the record is packed
        try:
            if not (namespace.journaled and self._containers.in_journal(chunk)):
                await self._containers.sync()
            extents = (Extent(0, size, chunk),)
            revision = make_revision(size, attributes, digests, extents=extents, seal=seal)
            return await self._link(
                volume, key, number, revision, condition, "put", None, origin, attributes.provenance
            )
        except BaseException as error:
            if isinstance(error, REFUSALS):
                self._containers.discard([chunk])
            if not isinstance(payload, bytes):
                await (
                    self._containers.sync()
                )  # the caller may change its buffer: not before it is written
            raise

    async def _link(
        self,
        volume: str,
        key: bytes,
        number: int,
        revision: Revision,
        condition: Condition,
        verb: str,
        also: Also | None = None,
        origin: Origin | None = None,
        provenance: Provenance | None = None,
        credit: Claim | None = None,
    ) -> ObjectInfo:
        """Make a revision the current version of a key, or the one that its provenance says.

        `also` runs in the same transaction, `credit` was reserved for it.
        """
        if also is None:
            try:
                name = await self._direct.put(
                    volume, key, number, revision, condition, verb, origin, credit
                )
            except NotHere:
                pass
            else:
                return describe(key, name, revision, revision.parts)

        async def body(change: Change) -> Name:
            change.credit = credit
            return await put_object(
                change, key, number, revision, condition, verb, also, origin, provenance
            )

        name = await self._namespace.change(volume, body)
        return describe(key, name, revision, revision.parts)

    async def writer(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        condition: Condition = ALWAYS,
        size: int | None = None,
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> Writer:
        """See `Objects.writer`."""
        check_key(key)
        target = await self._volumes.writable(volume)
        if condition is not ALWAYS:
            await refuse_early(self._namespace, target, key, condition)
        number = await self._ids.take()
        owner = Owner(target.number, number, number)
        policy = self._namespace.policy_of(target, attributes.storage_class)
        seal: Seal | None = None
        hold: Hold | None = None
        if sealing is not None:
            seal, hold = await self._namespace.sealer.seal(sealing)

        async def link(extents: Sequence[Extent], length: int, digests: Digests) -> ObjectInfo:
            kept, manifest, _ = await placed(self._containers, policy, owner, extents)
            revision = make_revision(
                length, attributes, digests, extents=kept, manifest=manifest, seal=seal
            )
            if manifest is not None:
                revision = msgspec.structs.replace(revision, listed=listed_of(manifest, extents))
            try:
                return await self._link(
                    volume,
                    key,
                    number,
                    revision,
                    condition,
                    "put",
                    None,
                    origin,
                    attributes.provenance,
                    claim,
                )
            except REFUSALS:
                if manifest is not None:
                    self._containers.discard([manifest])
                raise

        claim: Claim | None = None
        try:
            claim = await reserve(self._namespace, target, key, size)
            of_content = policy if hold is None else sealed_policy(policy, hold)
            stream = self._containers.writer(of_content, owner, size_hint=size)
        except BaseException:
            if hold is not None:
                hold.release()
            if claim is not None:
                claim.release()
            raise
        return ExtentWriter(
            stream,
            self._containers,
            link,
            journaled=self._namespace.journaled,
            hold=hold,
            claim=claim,
        )

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
        source_secret: bytes = b"",
        sealing: Sealing | None = None,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """See `Objects.copy`."""
        check_key(key)
        there = await self._volumes.get(source_volume)
        source = Source(self._namespace, there, source_key, source_version)
        try:
            name, revision = await copy_by_reference(
                self._namespace,
                source,
                volume,
                key,
                attributes,
                digests,
                condition,
                sealing,
                origin,
            )
        except NoReference:
            reader = await self.open(
                source_volume, source_key, version=source_version, secret=source_secret
            )
            try:
                return await copy_bytes(
                    self, reader, volume, key, attributes, digests, condition, sealing, origin
                )
            finally:
                reader.close()
        return await self._finder.info(key, name, revision, latest=True)

    # Deleting -------------------------------------------------------------------------------------

    async def delete(
        self,
        volume: str,
        key: bytes,
        *,
        version: str = "",
        condition: Condition = ALWAYS,
        bypass: bool = False,
        origin: Origin | None = None,
        provenance: Provenance | None = None,
    ) -> Deleted:
        """See `Objects.delete`."""
        check_key(key)
        if not version and provenance is None:
            try:
                await self._direct.delete(volume, key, condition, origin)
            except NotHere:
                pass
            else:
                return Deleted()
        return await self._namespace.change(
            volume,
            lambda change: delete_object(
                change,
                key,
                version,
                condition,
                bypass=bypass,
                origin=origin,
                provenance=provenance,
            ),
        )

    async def delete_together(
        self, volume: str, keys: Sequence[bytes], *, origin: Origin | None = None
    ) -> Sequence[Deleted]:
        """See `Objects.delete_together`; what one commit has no room for is halved, and halved again."""
        if len(keys) == 1:
            return [await self.delete(volume, keys[0], origin=origin)]
        if len(keys) > TOGETHER_MAX:
            raise InvalidArgument(f"{len(keys)} keys > TOGETHER_MAX {TOGETHER_MAX}")
        for key in keys:
            check_key(key)

        async def body(change: Change) -> list[Deleted]:
            done: list[Deleted] = []
            for key in keys:
                done.append(await delete_object(change, key, "", ALWAYS, origin=origin))
                if (
                    change.untidy
                ):  # a change remembers one key that leaves a deep path of empty directories
                    raise TooLarge(f"{key!r} leaves more directories than one commit removes")
            return done

        try:
            return await self._namespace.change(volume, body)
        except TooLarge:
            half = len(keys) // 2
            first = await self.delete_together(volume, keys[:half], origin=origin)
            return [*first, *await self.delete_together(volume, keys[half:], origin=origin)]

    async def set_tags(
        self,
        volume: str,
        key: bytes,
        tags: Mapping[str, str],
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        """See `Objects.set_tags`."""
        check_size({}, {}, tags)
        verb = "tags" if tags else "untags"
        return await self._set(volume, key, version, verb, origin, tags=dict(tags))

    async def set_acl(
        self,
        volume: str,
        key: bytes,
        acl: bytes,
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        """See `Objects.set_acl`."""
        check_acl(acl)
        return await self._set(volume, key, version, "acl", origin, acl=acl)

    async def set_replication(
        self, volume: str, key: bytes, status: Replication, *, version: str = ""
    ) -> str:
        """See `Objects.set_replication`."""
        return await self._set(volume, key, version, "replication", None, replication=status)

    async def set_retention(
        self,
        volume: str,
        key: bytes,
        mode: LockMode,
        until_ns: int,
        *,
        version: str = "",
        bypass: bool = False,
    ) -> str:
        """See `Objects.set_retention`."""
        return await set_retention(
            self._namespace, volume, key, version, mode, until_ns, bypass=bypass
        )

    async def restore(
        self,
        volume: str,
        key: bytes,
        days: int,
        *,
        tier: str = "",
        version: str = "",
        origin: Origin | None = None,
    ) -> bool:
        """See `Objects.restore`."""
        return await restore(self._namespace, volume, key, version, days, tier, origin)

    async def set_legal_hold(
        self, volume: str, key: bytes, held: bool, *, version: str = ""
    ) -> str:
        """See `Objects.set_legal_hold`."""
        return await set_legal_hold(self._namespace, volume, key, version, held=held)

    async def _set(
        self,
        volume: str,
        key: bytes,
        version: str,
        verb: str,
        origin: Origin | None,
        **fields: object,
    ) -> str:
        """Change what a revision says besides its content; returns the version's id."""

        async def body(change: Change) -> str:
            name = await find_object(change.apart, change.rows, key, version)
            revision = await change.revision(name.revision)
            changed = msgspec.structs.replace(revision, born=change.epoch, **fields)
            await change.put_revision(name.revision, changed)
            await change.note_attributes(key)
            change.tell(event_of(verb, change, key, name, origin))
            return version_id(name)

        return await self._namespace.change(volume, body)

    # Multipart uploads ----------------------------------------------------------------------------

    async def create_upload(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        checksum_algorithm: str = "",
        checksum_type: str = "",
        sealing: Sealing | None = None,
    ) -> UploadInfo:
        """See `Objects.create_upload`."""
        check_key(key)
        check_attributes(attributes)
        return await self._uploads.create(
            volume, key, attributes, checksum_algorithm, checksum_type, sealing
        )

    async def upload(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        """See `Objects.upload`."""
        return await self._uploads.describe(volume, key, upload)

    async def part_writer(
        self,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        *,
        size: int | None = None,
        secret: bytes = b"",
    ) -> Writer:
        """See `Objects.part_writer`."""
        return await self._uploads.part_writer(volume, key, upload, number, size, secret)

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
        source_secret: bytes = b"",
        secret: bytes = b"",
    ) -> PartInfo:
        """See `Objects.copy_part`."""
        there = await self._volumes.get(source_volume)
        source = Source(self._namespace, there, source_key, source_version)

        async def open_source() -> Reader:
            return await self.open(
                source_volume, source_key, version=source_version, secret=source_secret
            )

        return await self._uploads.copy_part(
            volume, key, upload, number, source.find, offset, length, digests, open_source, secret
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
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """See `Objects.complete_upload`."""
        return await self._uploads.complete(volume, key, upload, parts, digests, condition, origin)

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
