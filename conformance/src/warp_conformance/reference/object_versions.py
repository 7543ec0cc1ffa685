"""Volumes and versions of objects on the executable model."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence

import msgspec
from warp_core.errors import (
    AlreadyExists,
    AlreadyOwned,
    InvalidArgument,
    IsDeleteMarker,
    NameTooLong,
    NotEmpty,
    NotFound,
    PreconditionFailed,
    Retained,
    TooLarge,
    VersionNotFound,
    VolumeNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.stores import Buffer
from warp_core.views.objects import (
    ALWAYS,
    KEY_MAX,
    SMALL_MAX,
    Attributes,
    Condition,
    Deleted,
    Digests,
    Listing,
    LockMode,
    ObjectInfo,
    Objects,
    Provenance,
    Reader,
    Replication,
    Sealing,
    Versioning,
    VersionListing,
    VolumeInfo,
    VolumeLock,
    Writer,
)
from warp_core.views.origin import Origin

from warp_conformance.model import File, Model, ModelVolume, Version
from warp_conformance.reference.object_content import (
    PlainReader,
    PlainWriter,
    refuse_sealing,
    refuse_secret,
)

replace = msgspec.structs.replace
DAY_NS = 24 * 3600 * 10**9


class PlainVersions(Objects):
    """The part of `Objects` that is not about uploads. Faulty ones override a step."""

    def __init__(self) -> None:
        self.model = Model()
        self.infos: dict[str, VolumeInfo] = {}
        self.clock = itertools.count(1_700_000_000_000_000_000, 1_000_000_000)
        self.times: dict[int, int] = {}
        self.bases = itertools.count(
            0, 1 << 32
        )  # of what volumes count, so that times are one table
        self.sequence = itertools.count(1)

    def usage(self, volume: str) -> tuple[int, int, int, int]:
        """Return objects, their bytes, noncurrent versions, their bytes."""
        return self.at(volume).usage()

    # Volumes --------------------------------------------------------------------------------------

    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        """See `Objects`."""
        if name in self.infos:
            mine = self.infos[name].owner == owner.name
            raise (AlreadyOwned if mine else AlreadyExists)(name)
        self.model.create(name)
        self.at(name).made = next(self.bases)
        self.infos[name] = VolumeInfo(name, next(self.clock), owner.name)
        if locked:
            self.at(name).versioning = "on"
            self._set_info(name, versioning="on", lock=VolumeLock())
        return self.infos[name]

    async def delete_volume(self, name: str) -> None:
        """See `Objects`."""
        if self.at(name).names:
            raise NotEmpty(name)
        del self.model.volumes[name], self.infos[name]

    async def volume(self, name: str) -> VolumeInfo:
        """See `Objects`."""
        self.at(name)
        return self.infos[name]

    async def volumes(self) -> Sequence[VolumeInfo]:
        """See `Objects`."""
        return [self.infos[name] for name in sorted(self.infos)]

    async def set_versioning(self, volume: str, state: Versioning) -> None:
        """See `Objects`."""
        found = self.at(volume)
        if state == "off" and found.versioning != "off":
            raise InvalidArgument(volume)
        if state != "on" and self.infos[volume].lock is not None:
            raise InvalidArgument(volume)
        found.versioning = state
        self._set_info(volume, versioning=state)

    async def set_lock(self, volume: str, lock: VolumeLock) -> None:
        """See `Objects`."""
        if self.at(volume).versioning != "on" or bool(lock.days) + bool(lock.years) != bool(
            lock.mode
        ):
            raise InvalidArgument(volume)
        self._set_info(volume, lock=lock)

    async def set_document(self, volume: str, name: str, document: bytes | None) -> None:
        """See `Objects`."""
        self.at(volume)
        if document is not None and len(document) > 60 * 1024:
            raise InvalidArgument(name)
        documents = {**self.infos[volume].documents}
        documents.pop(name, None)
        if document is not None:
            documents[name] = document
        self._set_info(volume, documents=documents)

    def _set_info(self, volume: str, **changes: object) -> None:
        old = self.infos[volume]
        fields = {field: getattr(old, field) for field in old.__slots__}
        self.infos[volume] = VolumeInfo(**{**fields, **changes})

    def at(self, volume: str) -> ModelVolume:
        """Return a volume."""
        if volume not in self.model.volumes:
            raise VolumeNotFound(volume)
        return self.model.volumes[volume]

    # Objects --------------------------------------------------------------------------------------

    async def head(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes | None = None
    ) -> ObjectInfo:
        """See `Objects`."""
        refuse_secret(secret)
        return self.describe(key, self.find(volume, key, version), latest=not version)

    async def open(
        self, volume: str, key: bytes, *, version: str = "", secret: bytes = b""
    ) -> Reader:
        """See `Objects`."""
        refuse_secret(secret)
        found = self.find(volume, key, version)
        assert found.file is not None
        return PlainReader(self.describe(key, found, latest=not version), found.file.content)

    def find(self, volume: str, key: bytes, version: str) -> Version:
        """Return a version that is no marker."""
        versions = self.at(volume).names.get(key, [])
        if version:
            found = self.at(volume).find(key, version)
            if found is None:
                raise VersionNotFound(key.hex())
        elif not versions:
            raise NotFound(key.hex())
        else:
            found = versions[0]
        if found.marker:
            newest = found is versions[0]
            raise IsDeleteMarker(key.hex(), version=found.version, current=newest)
        return found

    def describe(self, key: bytes, version: Version, *, latest: bool = True) -> ObjectInfo:
        """Return what is known of a version."""
        file = version.file
        if file is None:
            return ObjectInfo(
                key=key,
                size=0,
                etag="",
                modified_ns=self.times[version.made],
                version=version.version,
                latest=latest,
                marker=True,
            )
        return ObjectInfo(
            key=key,
            size=len(file.content),
            etag=file.digests.etag,
            modified_ns=self.times[version.made],
            version=version.version,
            latest=latest,
            owner=file.attributes.owner,
            storage_class=file.attributes.storage_class,
            checksum_algorithms=tuple(file.digests.checksums),
            checksum_type=file.digests.checksum_type,
            attributes=file.attributes,
            checksums=file.digests.checksums,
            parts=file.parts,
        )

    def new_version(self, volume: str) -> str:
        """Draw a version id as versioning says."""
        if self.at(volume).versioning != "on":
            return "null"
        return f"{next(self.sequence):016x}{os.urandom(8).hex()}"

    def placed(self, volume: str, key: bytes, provenance: Provenance | None) -> str:
        """Return the id of a new version: what its provenance says, or one of its own."""
        if provenance is None or not provenance.version or self.at(volume).versioning != "on":
            return self.new_version(volume)
        try:
            packed = bytes.fromhex(provenance.version)
            valid = len(packed) == 16 and packed[:2] == b"\0\0"
        except ValueError:
            valid = False
        if not valid:
            raise InvalidArgument(provenance.version)
        for there in self.at(volume).names.get(key, ()):
            if there.version == provenance.version:
                raise AlreadyExists(provenance.version)
            if there.version[:16] == provenance.version[:16]:
                raise PreconditionFailed(provenance.version, condition="version")
        return provenance.version

    def arrange(self, volume: str, key: bytes, version: str, provenance: Provenance | None) -> None:
        """Put a version that was made just now where its provenance says."""
        versions = self.at(volume).names[key]
        made = versions[0]
        if provenance is None:
            self.times[made.made] = next(self.clock)
            return
        self.times[made.made] = provenance.modified_ns or next(self.clock)
        if provenance.version == version:
            versions.sort(key=lambda each: each.version, reverse=True)

    def check(self, volume: str, key: bytes, condition: Condition) -> None:
        """Refuse what must not be written."""
        found = self.at(volume).current(key)
        if not key:
            raise InvalidArgument("empty key")
        if len(key) > KEY_MAX:
            raise NameTooLong(key.hex())
        if condition.absent and found is not None:
            raise PreconditionFailed(key.hex(), condition="If-None-Match")
        asked = condition.etag or condition.size is not None or condition.modified_s is not None
        if asked and found is None:
            raise NotFound(key.hex())
        if found is None or found.file is None:
            return
        if condition.etag not in ("", "*", found.file.digests.etag):
            raise PreconditionFailed(key.hex(), condition="If-Match")
        if condition.size not in (None, len(found.file.content)):
            raise PreconditionFailed(key.hex(), condition="size")
        if condition.modified_s not in (None, self.times[found.made] // 10**9):
            raise PreconditionFailed(key.hex(), condition="modified")

    def link(
        self, volume: str, key: bytes, file: File, condition: Condition = ALWAYS
    ) -> ObjectInfo:
        """Make a file the current version."""
        self.check(volume, key, condition)
        provenance = file.attributes.provenance
        version = self.placed(volume, key, provenance)
        file.attributes = replace(self.locked(volume, file.attributes), provenance=None)
        made = self.at(volume).put(key, file, version)
        self.arrange(volume, key, version, provenance)
        return self.describe(key, made)

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
        """See `Objects`."""
        refuse_sealing(sealing)
        if len(payload) > SMALL_MAX:
            raise TooLarge(str(len(payload)))
        return self.link(volume, key, File(bytes(payload), attributes, digests), condition)

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
        """See `Objects`."""
        refuse_sealing(sealing)
        self.check(volume, key, condition)

        def link(content: bytes, digests: Digests) -> ObjectInfo:
            return self.link(volume, key, File(content, attributes, digests), condition)

        return PlainWriter(link)

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
        """See `Objects`."""
        refuse_secret(source_secret)
        refuse_sealing(sealing)
        found = self.find(source_volume, source_key, source_version).file
        assert found is not None
        made = File(found.content, found.attributes, found.digests, found.parts)
        if attributes is not None:
            made.attributes = replace(attributes, owner=attributes.owner or found.attributes.owner)
        else:  # a lock is not copied
            made.attributes = replace(
                found.attributes,
                retain_mode="",
                retain_until_ns=0,
                legal_hold=None,
                replication="",
            )
        if digests is not None:
            made.digests, made.parts = digests, ()
        return self.link(volume, key, made, condition)

    def locked(self, volume: str, attributes: Attributes) -> Attributes:
        """Return attributes with the retention that the volume gives."""
        lock = self.infos[volume].lock
        if lock is None:
            if attributes.retain_mode or attributes.legal_hold:
                raise InvalidArgument(volume)
            return attributes
        if attributes.retain_mode or not lock.mode:
            return attributes
        until_ns = time.time_ns() + (lock.days + 365 * lock.years) * DAY_NS
        return replace(attributes, retain_mode=lock.mode, retain_until_ns=until_ns)

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
        """See `Objects`."""
        found = self.find(volume, key, version)
        assert found.file is not None
        if self.infos[volume].lock is None or (mode and until_ns <= time.time_ns()):
            raise InvalidArgument(volume)
        old = found.file.attributes
        if old.retain_mode and old.retain_until_ns > time.time_ns():
            longer = until_ns >= old.retain_until_ns and mode == old.retain_mode
            if not longer and (old.retain_mode == "COMPLIANCE" or not bypass):
                raise Retained(key.hex())
        found.file.attributes = replace(old, retain_mode=mode, retain_until_ns=until_ns)
        return found.version

    async def set_legal_hold(
        self, volume: str, key: bytes, held: bool, *, version: str = ""
    ) -> str:
        """See `Objects`."""
        found = self.find(volume, key, version)
        assert found.file is not None
        if self.infos[volume].lock is None:
            raise InvalidArgument(volume)
        found.file.attributes = replace(found.file.attributes, legal_hold=held)
        return found.version

    def demand_removable(self, volume: str, key: bytes, version: str, *, bypass: bool) -> None:
        """Refuse to remove a version that is locked."""
        found = self.at(volume).find(key, version)
        if found is None or found.file is None:
            return
        said = found.file.attributes
        ends = bypass and said.retain_mode == "GOVERNANCE"
        retained = said.retain_mode and said.retain_until_ns > time.time_ns() and not ends
        if said.legal_hold or retained:
            raise Retained(key.hex())

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
        """See `Objects`."""
        found = self.at(volume)
        self.check(volume, key, condition)
        if version:
            self.demand_removable(volume, key, version, bypass=bypass)
            removed = found.remove(key, version)
            if removed is None:
                return Deleted(version=version, found=False)
            return Deleted(version=version, marker=removed.marker)
        marker = self.placed(volume, key, provenance)
        existed = found.delete(key, marker)
        if found.versioning == "off":
            return Deleted(found=existed)
        self.arrange(volume, key, marker, provenance)
        return Deleted(version=marker, marker=True, found=existed)

    async def set_tags(
        self,
        volume: str,
        key: bytes,
        tags: Mapping[str, str],
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        """See `Objects`."""
        found = self.find(volume, key, version)
        assert found.file is not None
        found.file.attributes = replace(found.file.attributes, tags=dict(tags))
        return found.version

    async def set_acl(
        self,
        volume: str,
        key: bytes,
        acl: bytes,
        *,
        version: str = "",
        origin: Origin | None = None,
    ) -> str:
        """See `Objects`."""
        found = self.find(volume, key, version)
        assert found.file is not None
        found.file.attributes = replace(found.file.attributes, acl=acl)
        return found.version

    async def set_replication(
        self, volume: str, key: bytes, status: Replication, *, version: str = ""
    ) -> str:
        """See `Objects`."""
        found = self.find(volume, key, version)
        assert found.file is not None
        found.file.attributes = replace(found.file.attributes, replication=status)
        return found.version

    async def list(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        limit: int = 1000,
    ) -> Listing:
        """See `Objects`."""
        found = self.at(volume)
        page = found.list(prefix, delimiter, after, limit)
        entries = [self.summary(volume, key, version) for key, version in page.entries]
        last = max([*(key for key, _ in page.entries[-1:]), *page.prefixes[-1:]], default=b"")
        return Listing(entries, page.prefixes, last if page.more else b"")

    def summary(self, volume: str, key: bytes, version: str) -> ObjectInfo:
        """Return what a listing tells of a version."""
        found = self.at(volume).find(key, version)
        assert found is not None
        info = self.describe(key, found, latest=self.at(volume).names[key][0] is found)
        return replace(info, attributes=Attributes(), checksums={}, parts=())

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
        """See `Objects`."""
        page = self.at(volume).list_versions(prefix, delimiter, key_marker, version_marker, limit)
        entries = [self.summary(volume, key, version) for key, version in page.entries]
        if not page.more:
            return VersionListing(entries, page.prefixes)
        last = page.entries[-1] if page.entries else (b"", "")
        if page.prefixes and page.prefixes[-1] > last[0]:
            last = page.prefixes[-1], ""
        return VersionListing(entries, page.prefixes, *last)
