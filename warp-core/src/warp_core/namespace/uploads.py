"""Multipart uploads: parts are written under the number of the revision that the object will have, so completing moves nothing."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from warp_core.containers import Chunk, Owner
from warp_core.containers.keyring import Hold
from warp_core.errors import InvalidArgument, OutOfRange
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.namespace import keys
from warp_core.namespace.archives import demand_readable
from warp_core.namespace.changes import Change, own_chunks
from warp_core.namespace.content import (
    REFUSALS,
    ExtentWriter,
    extents_of,
    listed_of,
    placed,
)
from warp_core.namespace.described import STANDARD, cut, lent, make_revision, place, retained_by
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import Also
from warp_core.namespace.object_sources import Found
from warp_core.namespace.pools import Claim
from warp_core.namespace.retention import as_locked
from warp_core.namespace.rows import (
    Extent,
    Name,
    Part,
    PartSummary,
    Revision,
    Seal,
    Upload,
    decode_part,
    decode_upload,
    encode,
)
from warp_core.namespace.sealing import sealed_policy
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.namespace.upload_rows import (
    check_number,
    completed_info,
    list_uploads,
    open_upload,
    parse,
    part_row_info,
    provenance_of,
    scan_parts,
    upload_info,
)
from warp_core.namespace.versions import version_id
from warp_core.views.objects import (
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    PartInfo,
    Provenance,
    Reader,
    Sealing,
    UploadInfo,
    Writer,
)
from warp_core.views.origin import Origin

AT_ONCE: Final = (
    60  # part rows removed in one transaction, within WRITES_MAX beside what else it writes
)
LENDERS_MAX: Final = (
    30  # revisions that one upload borrows from; what is copied from others is copied as bytes
)
COMPLETED_S: Final = 3600  # for so long a repeated completion gets the same answer

Link = Callable[
    [str, bytes, int, Revision, Condition, str, Also | None, Origin | None, Provenance | None],
    Awaitable[ObjectInfo],
]


class Uploads:
    """The verbs of multipart uploads."""

    def __init__(self, namespace: Namespace, link: Link) -> None:
        self._namespace = namespace
        self._containers = namespace.containers
        self._link = link

    async def create(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        algorithm: str,
        kind: str,
        sealing: Sealing | None,
    ) -> UploadInfo:
        """See `Objects.create_upload`."""
        number = await self._namespace.ids.take()
        seal: Seal | None = None
        if sealing is not None:
            seal, hold = await self._namespace.sealer.seal(sealing)
            hold.release()
        storage_class, provenance = attributes.storage_class, attributes.provenance

        async def body(change: Change) -> Upload:
            upload = Upload(
                key,
                change.now_ns,
                attributes.headers,
                attributes.metadata,
                attributes.tags,
                "" if storage_class == STANDARD else storage_class,
                attributes.owner,
                algorithm,
                kind,
                acl=attributes.acl,
                retain_mode=attributes.retain_mode,
                retain_until_ns=attributes.retain_until_ns,
                legal_hold=attributes.legal_hold,
                seal=seal,
                replication=attributes.replication,
                provenance=("", 0)
                if provenance is None
                else (provenance.version, provenance.modified_ns),
            )
            if attributes.retain_mode or attributes.legal_hold:  # refused now, not with all parts
                await as_locked(change.lock, change.lock_clock, retained_by(attributes))
            change.rows.put_present(keys.upload_key(key, number), encode(upload))
            change.count(uploads=1)
            return upload

        return upload_info(number, await self._namespace.change(volume, body))

    async def describe(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        """See `Objects.upload`."""
        return upload_info(parse(upload), await self._row(volume, key, upload))

    async def _row(self, volume: str, key: bytes, upload: str) -> Upload:
        found = await self._namespace.volumes.get(volume)
        view = self._namespace.store.view()
        try:
            return await open_upload(found.rows(ViewSource(view)), key, parse(upload))
        finally:
            view.close()

    # Parts ----------------------------------------------------------------------------------------

    async def part_writer(
        self,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        size: int | None,
        secret: bytes = b"",
    ) -> Writer:
        """See `Objects.part_writer`."""
        check_number(number)
        row = await self._row(volume, key, upload)
        seal = row.seal
        target = await self._namespace.volumes.writable(volume)
        revision = parse(upload)
        owner = Owner(target.number, revision, revision)
        policy = self._namespace.policy_of(target, row.storage_class)

        async def link(extents: Sequence[Extent], length: int, digests: Digests) -> ObjectInfo:
            kept, manifest, _ = await placed(self._containers, policy, owner, extents)
            part = Part(length, digests.etag, 0, kept, manifest, digests.checksums)
            try:
                return await self._link_part(volume, key, revision, number, part, (), claim)
            except REFUSALS:
                if manifest is not None:
                    self._containers.discard([manifest])
                raise

        hold: Hold | None = None
        if seal is not None:
            hold = await self._namespace.sealer.open(seal, secret)
        elif secret:
            await self._namespace.sealer.check(None, secret)
        claim: Claim | None = None
        try:
            claim = await self._reserve(target, revision, number, size)
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

    async def _reserve(
        self, target: Volume, upload: int, number: int, size: int | None
    ) -> Claim | None:
        """Reserve for a part that is about to come, as far as it is larger than the one that it replaces; None without a limit.

        Raises:
            QuotaExceeded
        """
        quotas = self._namespace.quotas
        tracked = quotas.known(target) or await quotas.watch(target)
        if not tracked.pools or size is None:
            return None
        view = self._namespace.store.view()
        try:
            before = await target.rows(ViewSource(view)).get(keys.part_key(upload, number))
        finally:
            view.close()
        there = decode_part(before).size if before is not None else 0
        return quotas.claim(tracked, bytes=max(0, size - there))

    async def _link_part(
        self,
        volume: str,
        key: bytes,
        upload: int,
        number: int,
        part: Part,
        borrowed: Sequence[tuple[int, int]],
        credit: Claim | None = None,
    ) -> ObjectInfo:
        """Make a part of an upload, in place of an earlier one of its number."""

        async def body(change: Change) -> Part:
            change.credit = credit
            row = await open_upload(change.rows, key, upload)
            new = [lender for lender in borrowed if lender not in row.lenders]
            if new:
                row = msgspec.structs.replace(row, lenders=(*row.lenders, *new))
                change.rows.put_present(keys.upload_key(key, upload), encode(row))
                holder = keys.holder_of_revision(change.rows.volume.number, upload)
                for home, lender in new:
                    await (await change.in_volume(home)).hold(lender, holder)
            place_of_part = keys.part_key(upload, number)
            before = await change.rows.get_present(place_of_part)
            if before is not None:
                free_part(change, upload, decode_part(before))
            made = msgspec.structs.replace(part, modified_ns=change.now_ns)
            change.rows.put_present(place_of_part, encode(made))
            change.count(part_bytes=made.size)
            return made

        made = await self._namespace.change(volume, body)
        return ObjectInfo(
            key=key,
            size=made.size,
            etag=made.etag,
            modified_ns=made.modified_ns,
            checksums=made.checksums,
        )

    async def copy_part(
        self,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        find: Callable[[Change], Awaitable[Found]],
        offset: int,
        length: int | None,
        digests: Digests | None,
        open_source: Callable[[], Awaitable[Reader]],
        secret: bytes = b"",
    ) -> PartInfo:
        """See `Objects.copy_part`: by reference where that is possible, else by copying bytes."""
        check_number(number)
        await self.describe(volume, key, upload)
        revision = parse(upload)
        target = await self._namespace.volumes.writable(volume)

        async def body(change: Change) -> tuple[int, Name, Revision, Upload]:
            return *await find(change), await open_upload(change.rows, key, revision)

        home, name, original, row = await self._namespace.change(volume, body)
        size = name.size - offset if length is None else length
        if original.storage_class:
            demand_readable(self._namespace.archives, original, key)
        if offset < 0 or size < 0 or offset + size > name.size:
            raise OutOfRange(f"bytes {offset} to {offset + size} of an object of {name.size}")
        lenders = {(place(home, home, target.number), name.revision)}
        lenders |= {(place(each, home, target.number), lender) for each, lender in original.lenders}
        lenders |= {
            (place(extent.volume, home, target.number), extent.revision)
            for extent in original.extents
            if extent.revision
        }
        in_place = original.windowed or original.base or original.inline is not None
        sealed = original.seal is not None or row.seal is not None
        apart = self._namespace.keeps_apart
        otherwise = original.archived or (
            original.storage_class != row.storage_class
            and (apart(original.storage_class) or apart(row.storage_class))
        )
        if in_place or sealed or otherwise or len(lenders | set(row.lenders)) > LENDERS_MAX:
            return await self._copy_bytes(
                volume, key, upload, number, offset, size, digests, open_source, secret
            )
        extents = cut(await extents_of(self._containers, original), offset, size)
        moved = [lent(extent, home, name.revision, target.number) for extent in extents]
        owner = Owner(target.number, revision, revision)
        policy = self._namespace.policy_of(target)
        kept, manifest, _ = await placed(self._containers, policy, owner, moved)
        etag = digests.etag if digests else os.urandom(16).hex()
        checksums = digests.checksums if digests else {}
        part = Part(size, etag, 0, kept, manifest, checksums)

        async def link() -> ObjectInfo:
            return await self._link_part(volume, key, revision, number, part, sorted(lenders))

        info = await link()
        return PartInfo(
            number=number,
            size=size,
            etag=etag,
            modified_ns=info.modified_ns,
            checksums=checksums,
        )

    async def _copy_bytes(
        self,
        volume: str,
        key: bytes,
        upload: str,
        number: int,
        offset: int,
        size: int,
        digests: Digests | None,
        open_source: Callable[[], Awaitable[Reader]],
        secret: bytes,
    ) -> PartInfo:
        reader = await open_source()
        try:
            writer = await self.part_writer(volume, key, upload, number, size, secret)
        except BaseException:
            reader.close()
            raise
        try:
            end = offset + size
            while offset < end:
                data = await reader.read(offset, end - offset)
                await writer.write(data)
                offset += len(data)
            info = await writer.commit(digests or Digests(etag=os.urandom(16).hex()))
        except BaseException:
            await writer.abort()
            raise
        finally:
            reader.close()
        return PartInfo(
            number=number,
            size=info.size,
            etag=info.etag,
            modified_ns=info.modified_ns,
            checksums=info.checksums,
        )

    async def parts(
        self, volume: str, key: bytes, upload: str, after: int, limit: int
    ) -> tuple[list[PartInfo], bool]:
        """See `Objects.list_parts`."""
        found = await self._namespace.volumes.get(volume)
        number = parse(upload)
        view = self._namespace.store.view()
        try:
            stored = found.rows(ViewSource(view))
            await open_upload(stored, key, number)
            start, end = keys.parts_of(number, after=max(after, -1))
            limit = min(limit, SCAN_MAX)
            page = await stored.scan(start, end, limit=limit) if limit > 0 else []
            more = len(page) == limit > 0 and bool(
                await stored.scan(page[-1][0] + b"\0", end, limit=1)
            )
        finally:
            view.close()
        return [part_row_info(row_key, decode_part(value)) for row_key, value in page], more

    # The end of an upload -------------------------------------------------------------------------

    async def complete(
        self,
        volume: str,
        key: bytes,
        upload: str,
        named: Sequence[PartInfo],
        digests: Digests,
        condition: Condition,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        """See `Objects.complete_upload`."""
        number = parse(upload)
        target = await self._namespace.volumes.writable(volume)
        while True:
            row, stored = await self._all_parts(target, key, number)
            if row.state:
                return completed_info(key, number, row)
            parts = {each: decode_part(value) for each, value in stored.items()}
            chosen = _choose(parts, named)
            try:
                return await self._complete(
                    target, key, number, row, stored, parts, chosen, digests, condition, origin
                )
            except _PartsChanged:
                continue

    async def _all_parts(
        self, volume: Volume, key: bytes, number: int
    ) -> tuple[Upload, dict[int, bytes]]:
        view = self._namespace.store.view()
        try:
            stored = volume.rows(ViewSource(view))
            row = await open_upload(stored, key, number, completed=True)
            return row, await scan_parts(stored.scan, number)
        finally:
            view.close()

    async def _complete(
        self,
        target: Volume,
        key: bytes,
        number: int,
        row: Upload,
        stored: dict[int, bytes],
        parts: dict[int, Part],
        chosen: dict[int, None],
        digests: Digests,
        condition: Condition,
        origin: Origin | None = None,
    ) -> ObjectInfo:
        extents: list[Extent] = []
        unused: list[Chunk] = []
        size = 0
        for each, part in parts.items():
            if part.manifest is not None:
                unused.append(part.manifest)
            own = await extents_of(self._containers, part)
            if each not in chosen:
                unused += own_chunks(own)
                continue
            extents += [
                msgspec.structs.replace(extent, offset=size + extent.offset) for extent in own
            ]
            size += part.size
        summaries = tuple(
            PartSummary(each, parts[each].size, parts[each].etag, parts[each].checksums)
            for each in chosen
        )
        owner = Owner(target.number, number, number)
        policy = self._namespace.policy_of(target)
        kept, manifest, shown = await placed(self._containers, policy, owner, extents, summaries)
        attributes = Attributes(
            headers=row.headers,
            metadata=row.metadata,
            tags=row.tags,
            storage_class=row.storage_class or STANDARD,
            owner=row.owner,
            acl=row.acl,
            retain_mode=row.retain_mode,  # type: ignore[arg-type]
            retain_until_ns=row.retain_until_ns,
            legal_hold=row.legal_hold,
            replication=row.replication,  # type: ignore[arg-type]
            provenance=provenance_of(row),
        )
        revision = make_revision(
            size,
            attributes,
            digests,
            extents=kept,
            manifest=manifest,
            parts=shown,
            part_count=len(summaries),
        )
        revision = msgspec.structs.replace(
            revision,
            lenders=row.lenders,
            seal=row.seal,
            listed=listed_of(manifest, extents),
        )

        async def also(change: Change, name: Name) -> None:
            present = change.rows
            now = await open_upload(present, key, number)
            if await scan_parts(present.scan_present, number) != stored or now != row:
                raise _PartsChanged(f"upload {number} changed while it was completed")
            if unused:
                change.free(number, unused)
            done = msgspec.structs.replace(
                row,
                state="completed",
                digests=(digests.etag, digests.checksums, digests.checksum_type),
                size=size,
                version=version_id(name),
                ended_ns=change.now_ns,
            )
            present.put_present(keys.upload_key(key, number), encode(done))
            change.count(uploads=-1, part_bytes=-sum(part.size for part in parts.values()))
            if len(stored) <= AT_ONCE:
                for each in stored:
                    present.delete_present(keys.part_key(number, each))

        try:
            return await self._link(
                target.row.name,
                key,
                number,
                revision,
                condition,
                "complete",
                also,
                origin,
                attributes.provenance,
            )
        except (*REFUSALS, _PartsChanged):
            if manifest is not None:
                self._containers.discard([manifest])
            raise

    async def abort(self, volume: str, key: bytes, upload: str) -> None:
        """See `Objects.abort_upload`."""
        await abort(self._namespace, volume, key, parse(upload))

    async def list(
        self,
        volume: str,
        prefix: bytes,
        delimiter: bytes,
        key_marker: bytes,
        upload_marker: str,
        limit: int,
    ) -> tuple[list[UploadInfo], list[bytes], bool]:
        """See `Objects.list_uploads`."""
        found = await self._namespace.volumes.get(volume)
        view = self._namespace.store.view()
        try:
            return await list_uploads(
                found.rows(ViewSource(view)),
                prefix,
                delimiter,
                key_marker,
                parse(upload_marker) if upload_marker else None,
                limit,
            )
        finally:
            view.close()


class _PartsChanged(Exception):
    """A part came in while the upload was completed."""


async def abort(namespace: Namespace, volume: str, key: bytes, number: int) -> None:
    """Drop an upload and its parts.

    Raises:
        UploadNotFound
    """

    async def body(change: Change) -> None:
        row = await open_upload(change.rows, key, number)
        ended = msgspec.structs.replace(row, state="aborted", ended_ns=change.now_ns)
        change.rows.put_present(keys.upload_key(key, number), encode(ended))
        change.count(uploads=-1)

    await namespace.change(volume, body)
    while not await sweep(namespace, volume, key, number):
        pass


async def sweep(namespace: Namespace, volume: str, key: bytes, number: int) -> bool:
    """Remove a batch of what an ended upload left; True when nothing is left but, for a while, the row that answers repeats."""

    async def body(change: Change) -> bool:
        change.judged = False
        present = change.rows
        place_of_upload = keys.upload_key(key, number)
        value = await present.get_present(place_of_upload)
        if value is None:
            return True
        row = decode_upload(value)
        if not row.state:
            return True
        start, end = keys.parts_of(number)
        page = await present.scan_present(start, end, limit=AT_ONCE)
        for row_key, packed in page:
            present.delete_present(row_key)
            if row.state == "aborted":
                free_part(change, number, decode_part(packed))
        if len(page) == AT_ONCE:
            return False
        if row.state == "aborted":
            holder = keys.holder_of_revision(present.volume.number, number)
            for home, lender in row.lenders:
                await (await change.in_volume(home)).release(lender, holder)
            present.delete_present(place_of_upload)
        elif row.ended_ns + COMPLETED_S * 10**9 <= change.now_ns:
            present.delete_present(place_of_upload)
        return True

    return await namespace.change(volume, body)


def free_part(change: Change, upload: int, part: Part) -> None:
    """Make garbage of a part."""
    chunks = own_chunks(part.extents)
    if chunks or part.manifest is not None:
        change.free(upload, chunks, part.manifest)
    change.count(part_bytes=-part.size)


def _choose(parts: dict[int, Part], named: Sequence[PartInfo]) -> dict[int, None]:
    """Return the numbers of the parts that make the object, in their order, which is that of `parts`.

    Raises:
        InvalidArgument: None is named, they are not ascending, one is missing or has another etag.
    """
    if not named:
        raise InvalidArgument("an upload is completed with one part at least")
    chosen: dict[int, None] = {}
    last = 0
    for part in named:
        if part.number <= last:
            raise InvalidArgument(f"part {part.number} after part {last}")
        last = part.number
        found = parts.get(last)
        if found is None:
            raise InvalidArgument(f"there is no part {last}")
        if part.etag != found.etag:
            raise InvalidArgument(f"part {last} has ETag {found.etag}, not {part.etag}")
        chosen[last] = None
    return chosen
