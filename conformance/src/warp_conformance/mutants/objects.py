"""Faulty Objects views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from warp_core.errors import Retained, VersionNotFound
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.stores import Buffer
from warp_core.views.objects import (
    ALWAYS,
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
from warp_core.views.origin import Origin

from warp_conformance.kits.objects import ObjectsKit, Reopen, Usage
from warp_conformance.model import File, Version
from warp_conformance.mutation import Faults
from warp_conformance.reference.object_content import PlainReader, PlainWriter
from warp_conformance.reference.objects import PlainObjects

faults = Faults("objects")

replace = msgspec.structs.replace


class OnObjects(ObjectsKit):
    implementation: ClassVar[type[PlainObjects]] = PlainObjects

    @pytest.fixture
    def subject(self) -> Objects:
        return self.implementation()

    @pytest.fixture
    def usage(self, subject: PlainObjects) -> Usage:
        async def of(volume: str) -> tuple[int, int, int, int]:
            return subject.usage(volume)

        return of

    @pytest.fixture
    def reopen(self, subject: PlainObjects) -> Reopen:
        async def again() -> Objects:
            return subject.crashed()

        return again


@faults(OnObjects, "Objects.create_volume", "takes-over")
class TakesOver(PlainObjects):
    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        if name in self.infos and self.infos[name].owner != owner.name:
            self._set_info(name, owner=owner.name)
            return self.infos[name]
        return await super().create_volume(name, owner=owner, locked=locked)


@faults(OnObjects, "Objects.delete_volume", "forgets-markers")
class DeletesOverMarkers(PlainObjects):
    async def delete_volume(self, name: str) -> None:
        found = self.at(name)
        found.names = {key: each for key, each in found.names.items() if found.current(key)}
        await super().delete_volume(name)


@faults(OnObjects, "Objects.delete_volume", "leaves-documents")
class LeavesDocuments(PlainObjects):
    def __init__(self) -> None:
        super().__init__()
        self.left: dict[str, Mapping[str, bytes]] = {}

    async def delete_volume(self, name: str) -> None:
        self.left[name] = self.infos[name].documents if name in self.infos else {}
        await super().delete_volume(name)

    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        await super().create_volume(name, owner=owner, locked=locked)
        self._set_info(name, documents=self.left.get(name, {}))
        return self.infos[name]


@faults(OnObjects, "Objects.set_document", "keeps-the-first")
class KeepsTheFirstDocument(PlainObjects):
    async def set_document(self, volume: str, name: str, document: bytes | None) -> None:
        if document is None or name not in (await self.volume(volume)).documents:
            await super().set_document(volume, name, document)


@faults(OnObjects, "Objects.put", "lost-write")
class LosesOverwrites(PlainObjects):
    async def put(
        self, volume: str, key: bytes, payload: Buffer, *rest: Any, **more: Any
    ) -> ObjectInfo:
        current = self.at(volume).current(key)
        if current is not None and current.file is not None and len(payload) > 1024:
            return self.describe(key, current)
        return await super().put(volume, key, payload, *rest, **more)


@faults(OnObjects, "Objects.put", "keeps-the-buffer")
class KeepsBuffers(PlainObjects):
    async def put(
        self,
        volume: str,
        key: bytes,
        payload: Buffer,
        attributes: Attributes,
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
        **more: Any,
    ) -> ObjectInfo:
        made = await super().put(
            volume, key, bytes(payload), attributes, digests, condition=condition
        )
        current = self.at(volume).current(key)
        assert current is not None
        assert current.file is not None
        if isinstance(payload, memoryview):
            current.file.content = payload  # type: ignore[assignment]
        return made


@faults(OnObjects, "Objects.put", "early-acknowledgement")
class LosesTheLastPut(PlainObjects):
    def crashed(self) -> PlainObjects:
        for volume in self.model.volumes.values():
            for key, versions in volume.names.items():
                if len(versions) > 1:
                    volume.names[key] = versions[1:]
        return self


@faults(OnObjects, "Objects.put", "check-then-act")
class ChecksThenActs(PlainObjects):
    async def put(
        self, volume: str, *rest: Any, condition: Condition = ALWAYS, **more: Any
    ) -> ObjectInfo:
        import asyncio

        self.check(volume, rest[0], condition)
        await asyncio.sleep(0)
        return await super().put(volume, *rest)


@faults(OnObjects, "Objects.put", "marker-counts-as-object")
class MarkersExist(PlainObjects):
    def check(self, volume: str, key: bytes, condition: Condition) -> None:
        super().check(volume, key, condition)
        if condition.absent and self.at(volume).names.get(key):
            super().check(volume, b"", condition)


@faults(OnObjects, "Objects.put", "ignores-the-etag")
class IgnoresEtags(PlainObjects):
    def check(self, volume: str, key: bytes, condition: Condition) -> None:
        super().check(volume, key, replace(condition, etag="*" if condition.etag else ""))


@faults(OnObjects, "Objects.put", "drops-attributes")
class DropsTags(PlainObjects):
    async def put(
        self,
        volume: str,
        key: bytes,
        payload: Buffer,
        attributes: Attributes,
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
        **more: Any,
    ) -> ObjectInfo:
        plain = replace(attributes, tags={})
        return await super().put(volume, key, payload, plain, digests, condition=condition)


@faults(OnObjects, "Objects.put", "old-attributes-shine-through")
class MergesAttributes(PlainObjects):
    def link(
        self, volume: str, key: bytes, file: File, condition: Condition = ALWAYS
    ) -> ObjectInfo:
        current = self.at(volume).current(key)
        if current is not None and current.file is not None:
            metadata = {**current.file.attributes.metadata, **file.attributes.metadata}
            file.attributes = replace(file.attributes, metadata=metadata)
        return super().link(volume, key, file, condition)


@faults(OnObjects, "Objects.writer", "visible-before-commit")
class ShowsHalves(PlainObjects):
    async def writer(self, volume: str, key: bytes, attributes: Attributes, **more: Any) -> Writer:
        made = await super().writer(volume, key, attributes, **more)
        if self.at(volume).current(key) is None:
            self.link(volume, key, File(b"", attributes, Digests(etag="")))
        return made


@faults(OnObjects, "Objects.writer", "judges-at-the-beginning")
class JudgesEarly(PlainObjects):
    async def writer(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        condition: Condition = ALWAYS,
        size: int | None = None,
        **more: Any,
    ) -> Writer:
        self.check(volume, key, condition)
        return await super().writer(volume, key, attributes)


class _SwapsBuffers(PlainWriter):
    async def write(self, data: Buffer) -> None:
        half = len(data) // 2
        await super().write(bytes(data[half:]) + bytes(data[:half]))


@faults(OnObjects, "Writer.write", "swapped-bytes")
class SwapsBytes(PlainObjects):
    async def writer(self, volume: str, key: bytes, attributes: Attributes, **more: Any) -> Writer:
        made = await super().writer(volume, key, attributes, **more)
        assert isinstance(made, PlainWriter)
        return _SwapsBuffers(made._link)


@faults(OnObjects, "Reader.read", "ignored-range")
class IgnoresRanges(PlainObjects):
    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        reader = await super().open(volume, key, version=version)
        assert isinstance(reader, PlainReader)
        return _IgnoresLength(reader.info, reader.content)


class _IgnoresLength(PlainReader):
    async def read(self, offset: int, length: int) -> Buffer:
        return self.content[offset : offset + (1 << 20)]


@faults(OnObjects, "Objects.open", "stale-read")
class ReadsStale(PlainObjects):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, bytes], Reader] = {}

    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        fresh = await super().open(volume, key, version=version)
        return fresh if version else self.seen.setdefault((volume, key), fresh)


@faults(OnObjects, "Objects.head", "any-version-will-do")
class IgnoresVersions(PlainObjects):
    def find(self, volume: str, key: bytes, version: str) -> Version:
        try:
            return super().find(volume, key, version)
        except VersionNotFound:
            return super().find(volume, key, "")


@faults(OnObjects, "Objects.delete", "forgets-retention")
class ForgetsRetention(PlainObjects):
    def demand_removable(self, volume: str, key: bytes, version: str, *, bypass: bool) -> None:
        found = self.at(volume).find(key, version)
        if found is not None and found.file is not None and found.file.attributes.legal_hold:
            raise Retained(key.hex())


@faults(OnObjects, "Objects.delete", "bypasses-everything")
class BypassesEverything(PlainObjects):
    def demand_removable(self, volume: str, key: bytes, version: str, *, bypass: bool) -> None:
        if not bypass:
            super().demand_removable(volume, key, version, bypass=False)


@faults(OnObjects, "Objects.set_retention", "lets-it-shrink")
class LetsRetentionShrink(PlainObjects):
    async def set_retention(self, *place: Any, bypass: bool = False, **more: Any) -> str:
        return await super().set_retention(*place, bypass=True, **more)


@faults(OnObjects, "Objects.set_legal_hold", "of-the-current-version")
class HoldsTheCurrentVersion(PlainObjects):
    async def set_legal_hold(
        self, volume: str, key: bytes, held: bool, *, version: str = ""
    ) -> str:
        await super().set_legal_hold(volume, key, held)
        return version


@faults(OnObjects, "Objects.set_lock", "is-not-applied")
class ForgetsTheDefault(PlainObjects):
    def locked(self, volume: str, attributes: Attributes) -> Attributes:
        if attributes.retain_mode or attributes.legal_hold:
            return super().locked(volume, attributes)
        return attributes


@faults(OnObjects, "Objects.set_versioning", "of-locked-volumes")
class SuspendsLocked(PlainObjects):
    async def set_versioning(self, volume: str, state: Versioning) -> None:
        self.at(volume).versioning = state
        self._set_info(volume, versioning=state)


@faults(OnObjects, "Objects.copy", "copies-the-current-version")
class CopiesCurrent(PlainObjects):
    async def copy(self, *place: Any, source_version: str = "", **more: Any) -> ObjectInfo:
        if source_version:
            self.find(place[0], place[1], source_version)
        return await super().copy(*place, **more)


@faults(OnObjects, "Objects.copy", "shares-tags")
class SharesAttributes(PlainObjects):
    async def set_tags(
        self,
        volume: str,
        key: bytes,
        tags: Mapping[str, str],
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        for each in self.at(volume).names.get(key, ()):
            if each.file is not None:
                each.file.attributes = replace(each.file.attributes, tags=dict(tags))
        return await super().set_tags(volume, key, tags, version=version)


@faults(OnObjects, "Objects.set_acl", "of-all-versions")
class SharesAcl(PlainObjects):
    async def set_acl(
        self,
        volume: str,
        key: bytes,
        acl: bytes,
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        for each in self.at(volume).names.get(key, ()):
            if each.file is not None:
                each.file.attributes = replace(each.file.attributes, acl=acl)
        return await super().set_acl(volume, key, acl, version=version)


@faults(OnObjects, "Objects.copy", "dies-with-its-source")
class DiesWithItsSource(PlainObjects):
    async def copy(
        self, source_volume: str, source_key: bytes, volume: str, key: bytes, **more: Any
    ) -> ObjectInfo:
        source = self.find(source_volume, source_key, more.get("source_version", "")).file
        made = await super().copy(source_volume, source_key, volume, key, **more)
        current = self.at(volume).current(key)
        assert current is not None
        assert current.file is not None
        assert source is not None
        self.borrowed = {**getattr(self, "borrowed", {}), id(source): current.file}
        return made

    async def delete(self, volume: str, key: bytes, **more: Any) -> Deleted:
        current = self.at(volume).current(key)
        gone = await super().delete(volume, key, **more)
        if current is not None and self.at(volume).versioning == "off":
            for file in filter(None, [getattr(self, "borrowed", {}).get(id(current.file))]):
                file.content = bytes(len(file.content))
        return gone


@faults(OnObjects, "Objects.delete", "wrong-error")
class DeleteRaises(PlainObjects):
    async def delete(self, volume: str, key: bytes, **more: Any) -> Deleted:
        if self.at(volume).current(key) is None and self.at(volume).versioning == "off":
            self.find(volume, key, "")
        return await super().delete(volume, key, **more)


@faults(OnObjects, "Objects.delete", "no-marker-for-nothing")
class NoMarkerForNothing(PlainObjects):
    async def delete(self, volume: str, key: bytes, *, version: str = "", **more: Any) -> Deleted:
        if not version and not self.at(volume).names.get(key):
            return Deleted(found=False)
        return await super().delete(volume, key, version=version, **more)


@faults(OnObjects, "Objects.delete", "removes-a-version-by-the-marker")
class MarkersEatVersions(PlainObjects):
    async def delete(self, volume: str, key: bytes, *, version: str = "", **more: Any) -> Deleted:
        gone = await super().delete(volume, key, version=version, **more)
        versions = self.at(volume).names.get(key, [])
        if gone.marker and not version and len(versions) > 2:
            del versions[2:]
        return gone


@faults(OnObjects, "Objects.delete", "second-null-version")
class SeveralNulls(PlainObjects):
    def new_version(self, volume: str) -> str:
        made = super().new_version(volume)
        if self.at(volume).versioning != "suspended":
            return made
        return f"{next(self.clock):032x}"


@faults(OnObjects, "Objects.list", "lost-at-the-page-border")
class LosesAtTheBorder(PlainObjects):
    async def list(self, volume: str, **how: Any) -> Listing:
        page = await super().list(volume, **how)
        after = page.next and page.next + b"\0"
        return Listing(page.entries, page.prefixes, after)


@faults(OnObjects, "Objects.list", "repeats-common-prefixes")
class RepeatsPrefixes(PlainObjects):
    async def list(
        self, volume: str, *, after: bytes = b"", delimiter: bytes = b"", **how: Any
    ) -> Listing:
        if delimiter and after.endswith(delimiter):
            after = after[:-1]
        return await super().list(volume, after=after, delimiter=delimiter, **how)


@faults(OnObjects, "Objects.list", "only-slashes-delimit")
class OnlySlashes(PlainObjects):
    async def list(self, volume: str, *, delimiter: bytes = b"", **how: Any) -> Listing:
        return await super().list(volume, delimiter=delimiter and b"/", **how)


@faults(OnObjects, "Objects.list", "order-of-text")
class OrdersAsText(PlainObjects):
    async def list(self, volume: str, **how: Any) -> Listing:
        page = await super().list(volume, **how)
        entries = sorted(page.entries, key=lambda entry: entry.key.lower().replace(b"/", b"\0"))
        return Listing(entries, page.prefixes, page.next)


@faults(OnObjects, "Objects.list", "shows-emptied-directories")
class ShowsEmptied(PlainObjects):
    async def list(self, volume: str, **how: Any) -> Listing:
        page = await super().list(volume, **how)
        if how.get("delimiter") != b"/" or page.entries or page.prefixes or how.get("prefix"):
            return page
        phantoms = [key[: key.index(b"/") + 1] for key in self.at(volume).names if b"/" in key]
        return Listing([], phantoms[:1])


@faults(OnObjects, "Objects.list_versions", "forgets-latest")
class EveryVersionIsLatest(PlainObjects):
    async def list_versions(self, volume: str, **how: Any) -> VersionListing:
        page = await super().list_versions(volume, **how)
        entries = [replace(entry, latest=not entry.marker) for entry in page.entries]
        return VersionListing(entries, page.prefixes, page.next_key, page.next_version)


@faults(OnObjects, "Objects.list_versions", "skips-the-rest-of-a-key")
class SkipsTheRest(PlainObjects):
    async def list_versions(
        self, volume: str, *, version_marker: str = "", **how: Any
    ) -> VersionListing:
        return await super().list_versions(volume, **how)


@faults(OnObjects, "Objects.complete_upload", "order-of-arrival")
class JoinsByArrival(PlainObjects):
    async def complete_upload(
        self,
        volume: str,
        key: bytes,
        upload: str,
        parts: Sequence[PartInfo],
        digests: Digests,
        **more: Any,
    ) -> ObjectInfo:
        found = self.uploads.get(volume, {}).get(upload)
        made = await super().complete_upload(volume, key, upload, parts, digests, **more)
        current = self.at(volume).current(key)
        if found is not None and current is not None and current.file is not None:
            chosen = [part.number for part in parts]
            current.file.content = b"".join(
                content for number, (content, _) in found.parts.items() if number in chosen
            )
        return made


@faults(OnObjects, "Objects.complete_upload", "takes-any-etag")
class TakesAnyEtag(PlainObjects):
    async def complete_upload(
        self,
        volume: str,
        key: bytes,
        upload: str,
        parts: Sequence[PartInfo],
        digests: Digests,
        **more: Any,
    ) -> ObjectInfo:
        found = self.uploads[volume].get(upload)
        if found is not None:
            parts = [
                replace(part, etag=found.parts[part.number][1].etag)
                if part.number in found.parts
                else part
                for part in parts
            ]
        return await super().complete_upload(volume, key, upload, parts, digests, **more)


@faults(OnObjects, "Objects.complete_upload", "gone-when-repeated")
class ForgetsCompletion(PlainObjects):
    async def complete_upload(
        self, volume: str, key: bytes, upload: str, *rest: Any, **more: Any
    ) -> ObjectInfo:
        made = await super().complete_upload(volume, key, upload, *rest, **more)
        del self.uploads[volume][upload]
        return made


@faults(OnObjects, "Objects.complete_upload", "lost-when-refused")
class LosesRefusedUploads(PlainObjects):
    async def complete_upload(
        self, volume: str, key: bytes, upload: str, *rest: Any, **more: Any
    ) -> ObjectInfo:
        try:
            return await super().complete_upload(volume, key, upload, *rest, **more)
        except Exception:
            self.uploads[volume].pop(upload, None)
            raise


@faults(OnObjects, "Objects.abort_upload", "still-there")
class NeverAborts(PlainObjects):
    async def abort_upload(self, volume: str, key: bytes, upload: str) -> None:
        self.upload_at(volume, key, upload).parts.clear()


@faults(OnObjects, "Objects.copy_part", "ignored-range")
class CopiesWholes(PlainObjects):
    async def copy_part(
        self, *place: Any, offset: int = 0, length: int | None = None, **more: Any
    ) -> PartInfo:
        return await super().copy_part(*place, length=length, **more)


@faults(OnObjects, "Objects.complete_upload", "forgets-checksums-of-parts")
class ForgetsChecksumsOfParts(PlainObjects):
    def link(
        self, volume: str, key: bytes, file: File, condition: Condition = ALWAYS
    ) -> ObjectInfo:
        file.parts = tuple(replace(part, checksums={}) for part in file.parts)
        return super().link(volume, key, file, condition)


@faults(OnObjects, "Objects.list_parts", "order-of-arrival")
class ListsPartsByArrival(PlainObjects):
    async def list_parts(
        self, volume: str, key: bytes, upload: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[Sequence[PartInfo], bool]:
        parts = self.upload_at(volume, key, upload).parts
        found = [part for number, (_, part) in parts.items() if number > after]
        return found[:limit], len(found) > limit


@faults(OnObjects, "Objects.list_uploads", "one-upload-a-key")
class OneUploadAKey(PlainObjects):
    async def list_uploads(self, volume: str, **how: Any) -> Any:
        uploads, prefixes, more = await super().list_uploads(volume, **how)
        return list({each.key: each for each in uploads}.values()), prefixes, more


@faults(OnObjects, "Objects.upload", "another-key")
class AnyKeyWillDo(PlainObjects):
    async def upload(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        found = self.uploads.get(volume, {}).get(upload)
        return (
            found.info if found and not found.result else await super().upload(volume, key, upload)
        )


@faults(OnObjects, "usage", "counts-replaced-objects")
class LeaksUsage(PlainObjects):
    def __init__(self) -> None:
        super().__init__()
        self.leaked: dict[str, int] = {}

    def link(
        self, volume: str, key: bytes, file: File, condition: Condition = ALWAYS
    ) -> ObjectInfo:
        current = self.at(volume).current(key)
        if current is not None and current.file is not None and self.at(volume).versioning == "off":
            self.leaked[volume] = self.leaked.get(volume, 0) + len(current.file.content)
        return super().link(volume, key, file, condition)

    def usage(self, volume: str) -> tuple[int, int, int, int]:
        objects, size, *rest = super().usage(volume)
        return objects, size + self.leaked.get(volume, 0), rest[0], rest[1]
