"""Objects in dictionaries: what the S3 server's own tests run against, with nothing but core beside it."""

import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from warp_core.errors import (
    AlreadyExists,
    AlreadyOwned,
    InvalidArgument,
    IsDeleteMarker,
    NotEmpty,
    NotFound,
    PreconditionFailed,
    UploadNotFound,
    VersionNotFound,
    VolumeNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.views import Objects
from warp_core.views.objects import (
    ALWAYS,
    Attributes,
    Condition,
    Deleted,
    Digests,
    Listing,
    ObjectInfo,
    PartInfo,
    Reader,
    UploadInfo,
    VersionListing,
    VolumeInfo,
    Writer,
)

BUFFER = 256 * 1024
replace = msgspec.structs.replace


class MemoryReader(Reader):
    """Bytes in memory; `waits` makes every read suspend, as one from a disk would."""

    def __init__(self, info: ObjectInfo, data: bytes, owner: "MemoryObjects") -> None:
        self.info = info
        self._data = memoryview(data)
        self._owner = owner
        self._open = True
        owner.open_readers += 1

    def read_now(self, offset: int, length: int) -> memoryview | None:
        if self._owner.waits:
            return None
        return self._give(offset, length)

    async def read(self, offset: int, length: int) -> memoryview:
        await self._owner.pause()
        return self._give(offset, length)

    def _give(self, offset: int, length: int) -> memoryview:
        return self._data[: self._owner.cut_at][offset : offset + min(length, 1 << 20)]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._owner.open_readers -= 1


class MemoryWriter(Writer):
    """Collects bytes; `commit` hands them to a function."""

    def __init__(self, owner: "MemoryObjects", commit: Any) -> None:
        self._owner = owner
        self._commit = commit
        self._done = bytearray()
        self._buffer = bytearray(BUFFER)
        self._filled = 0
        owner.open_writers += 1
        self._open = True

    def buffer(self) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def wrote(self, length: int) -> bool:
        self._filled += length
        return self._filled == BUFFER

    async def drain(self) -> None:
        await self._owner.pause()
        self._done += self._buffer
        self._filled = 0

    async def write(self, data: Any) -> None:
        self._done += memoryview(self._buffer)[: self._filled]
        self._filled = 0
        self._done += data

    async def commit(self, digests: Digests) -> ObjectInfo:
        data = bytes(self._done) + bytes(self._buffer[: self._filled])
        self._close()
        result: ObjectInfo = await self._commit(data, digests)
        return result

    async def abort(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._owner.open_writers -= 1


class Volume:
    def __init__(self, info: VolumeInfo) -> None:
        self.info = info
        self.keys: dict[bytes, list[tuple[ObjectInfo, bytes]]] = {}  # newest first
        self.uploads: dict[str, tuple[UploadInfo, dict[int, tuple[PartInfo, bytes]]]] = {}


class MemoryObjects(Objects):
    """The view over dictionaries.

    Attributes:
        waits: Reads and writes suspend.
        open_readers, open_writers: How many have not been closed.
    """

    def __init__(self) -> None:
        self._volumes: dict[str, Volume] = {}
        self._ids = itertools.count(1)
        self.waits = False
        self.cut_at: int | None = None
        """Where every object ends, whatever its size says: as a defect below would."""
        self.open_readers = 0
        self.open_writers = 0
        self.failure: BaseException | None = None

    async def pause(self) -> None:
        import asyncio

        if self.failure is not None:
            raise self.failure
        if self.waits:
            await asyncio.sleep(0)

    def _volume(self, name: str) -> Volume:
        try:
            return self._volumes[name]
        except KeyError:
            raise VolumeNotFound(name) from None

    async def create_volume(self, name: str, *, owner: Principal) -> VolumeInfo:
        if name in self._volumes:
            kind = AlreadyOwned if self._volumes[name].info.owner == owner.name else AlreadyExists
            raise kind(name)
        info = VolumeInfo(name, time.time_ns(), owner.name)
        self._volumes[name] = Volume(info)
        return info

    async def delete_volume(self, name: str) -> None:
        if self._volume(name).keys:
            raise NotEmpty(name)
        del self._volumes[name]

    async def volume(self, name: str) -> VolumeInfo:
        return self._volume(name).info

    async def volumes(self) -> Sequence[VolumeInfo]:
        return [self._volumes[name].info for name in sorted(self._volumes)]

    def _change(self, name: str, **changes: Any) -> None:
        import dataclasses

        volume = self._volume(name)
        volume.info = dataclasses.replace(volume.info, **changes)

    async def set_versioning(self, volume: str, state: Literal["off", "on", "suspended"]) -> None:
        self._change(volume, versioning=state)

    async def set_document(self, volume: str, name: str, document: bytes | None) -> None:
        documents = dict(self._volume(volume).info.documents)
        if document is None:
            documents.pop(name, None)
        else:
            documents[name] = document
        self._change(volume, documents=documents)

    def _find(self, volume: str, key: bytes, version: str) -> tuple[ObjectInfo, bytes]:
        if self.failure is not None:
            raise self.failure
        versions = self._volume(volume).keys.get(key, [])
        if version:
            found = next((one for one in versions if one[0].version == version), None)
            if found is None:
                raise VersionNotFound(version)
        elif versions:
            found = versions[0]
        else:
            raise NotFound(key.decode("utf-8", "replace"))
        if found[0].marker:
            raise IsDeleteMarker("marker", version=found[0].version, current=not version)
        return found

    async def head(self, volume: str, key: bytes, *, version: str = "") -> ObjectInfo:
        return self._find(volume, key, version)[0]

    async def open(self, volume: str, key: bytes, *, version: str = "") -> Reader:
        info, data = self._find(volume, key, version)
        return MemoryReader(info, data, self)

    def _current(self, volume: Volume, key: bytes) -> ObjectInfo | None:
        versions = volume.keys.get(key)
        return versions[0][0] if versions and not versions[0][0].marker else None

    def _check(self, volume: Volume, key: bytes, condition: Condition) -> None:
        if condition == ALWAYS:
            return
        current = self._current(volume, key)
        if condition.absent:
            if current is not None:
                raise PreconditionFailed("it exists", condition="If-None-Match")
            return
        if current is None:
            raise NotFound(key.decode())
        if condition.etag and condition.etag not in {"*", current.etag}:
            raise PreconditionFailed("another etag", condition="If-Match")
        if condition.size not in {None, current.size}:
            raise PreconditionFailed("another size", condition="x-amz-if-match-size")
        if condition.modified_s not in {None, current.modified_ns // 10**9}:
            raise PreconditionFailed("another time", condition="x-amz-if-match-last-modified-time")

    def _insert(self, volume: Volume, info: ObjectInfo, data: bytes) -> ObjectInfo:
        versions = volume.keys.setdefault(info.key, [])
        if volume.info.versioning == "on":
            info = replace(info, version=secrets.token_hex(16))
        else:
            versions[:] = [one for one in versions if one[0].version != "null"]
        if versions:
            versions[0] = (replace(versions[0][0], latest=False), versions[0][1])
        versions.insert(0, (info, data))
        return info

    def _link(
        self,
        volume: str,
        key: bytes,
        data: bytes,
        attributes: Attributes,
        digests: Digests,
        condition: Condition,
        parts: tuple[PartInfo, ...] = (),
    ) -> ObjectInfo:
        if self.failure is not None:
            raise self.failure
        where = self._volume(volume)
        self._check(where, key, condition)
        info = ObjectInfo(
            key=key,
            size=len(data),
            etag=digests.etag,
            modified_ns=time.time_ns(),
            owner=attributes.owner,
            storage_class=attributes.storage_class,
            checksum_algorithms=tuple(digests.checksums),
            checksum_type=digests.checksum_type,
            attributes=attributes,
            checksums=digests.checksums,
            parts=parts,
        )
        return self._insert(where, info, data)

    async def put(
        self,
        volume: str,
        key: bytes,
        payload: Any,
        attributes: Attributes,
        digests: Digests,
        *,
        condition: Condition = ALWAYS,
    ) -> ObjectInfo:
        return self._link(volume, key, bytes(payload), attributes, digests, condition)

    async def writer(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        condition: Condition = ALWAYS,
        size: int | None = None,
    ) -> Writer:
        self._check(self._volume(volume), key, condition)

        async def commit(data: bytes, digests: Digests) -> ObjectInfo:
            return self._link(volume, key, data, attributes, digests, condition)

        return MemoryWriter(self, commit)

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
        info, data = self._find(source_volume, source_key, source_version)
        kept = Digests(
            etag=info.etag,
            checksums=info.checksums,
            checksum_type=info.checksum_type,  # type: ignore[arg-type]
        )
        return self._link(
            volume, key, data, attributes or info.attributes, digests or kept, condition
        )

    async def delete(
        self, volume: str, key: bytes, *, version: str = "", condition: Condition = ALWAYS
    ) -> Deleted:
        where = self._volume(volume)
        self._check(where, key, condition)
        versions = where.keys.get(key, [])
        if version:
            for index, (info, _) in enumerate(versions):
                if info.version == version:
                    del versions[index]
                    if versions:
                        versions[0] = (replace(versions[0][0], latest=True), versions[0][1])
                    else:
                        del where.keys[key]
                    return Deleted(version, info.marker)
            raise VersionNotFound(version)
        if where.info.versioning == "off":
            return Deleted(found=where.keys.pop(key, None) is not None)
        marker = ObjectInfo(key=key, size=0, etag="", modified_ns=time.time_ns(), marker=True)
        return Deleted(self._insert(where, marker, b"").version, marker=True)

    async def set_tags(
        self, volume: str, key: bytes, tags: Mapping[str, str], *, version: str = ""
    ) -> str:
        info, data = self._find(volume, key, version)
        versions = self._volume(volume).keys[key]
        changed = replace(info, attributes=replace(info.attributes, tags=dict(tags)))
        versions[versions.index((info, data))] = (changed, data)
        return info.version

    async def set_acl(self, volume: str, key: bytes, acl: bytes, *, version: str = "") -> str:
        info, data = self._find(volume, key, version)
        versions = self._volume(volume).keys[key]
        changed = replace(info, attributes=replace(info.attributes, acl=acl))
        versions[versions.index((info, data))] = (changed, data)
        return info.version

    async def list(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        limit: int = 1000,
    ) -> Listing:
        where = self._volume(volume)
        entries: dict[bytes, ObjectInfo | None] = {}
        for key in sorted(where.keys):
            current = self._current(where, key)
            if current is None or not key.startswith(prefix):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if cut < 0 else key[: cut + len(delimiter)]
            if name > after and not (cut >= 0 and after.startswith(name)):
                entries[name] = current if cut < 0 else None
        page = list(entries.items())[:limit]
        return Listing(
            [info for _, info in page if info is not None],
            [name for name, info in page if info is None],
            page[-1][0] if len(page) < len(entries) else b"",
        )

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
        where = self._volume(volume)
        rows: list[tuple[bytes, ObjectInfo | None]] = []
        for key in sorted(where.keys):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if not key.startswith(prefix):
                continue
            if cut >= 0:
                name = key[: cut + len(delimiter)]
                if name > key_marker and (name, None) not in rows:
                    rows.append((name, None))
                continue
            infos = [info for info, _ in where.keys[key]]
            if key == key_marker and version_marker:
                ids = [info.version for info in infos]
                infos = infos[ids.index(version_marker) + 1 :] if version_marker in ids else []
            elif key <= key_marker:
                continue
            rows += [(key, info) for info in infos]
        page = rows[:limit]
        truncated = len(page) < len(rows)
        last = page[-1] if truncated else (b"", None)
        return VersionListing(
            [info for _, info in page if info is not None],
            [name for name, info in page if info is None],
            last[0],
            last[1].version if last[1] is not None else "",
        )

    async def create_upload(
        self,
        volume: str,
        key: bytes,
        attributes: Attributes,
        *,
        checksum_algorithm: str = "",
        checksum_type: str = "",
    ) -> UploadInfo:
        upload = UploadInfo(
            key,
            f"{next(self._ids):032x}",
            time.time_ns(),
            attributes,
            checksum_algorithm,
            checksum_type,
        )
        self._volume(volume).uploads[upload.upload] = (upload, {})
        return upload

    def _upload(
        self, volume: str, key: bytes, upload: str
    ) -> tuple[UploadInfo, dict[int, tuple[PartInfo, bytes]]]:
        found = self._volume(volume).uploads.get(upload)
        if found is None or found[0].key != key:
            raise UploadNotFound(upload)
        return found

    async def upload(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        return self._upload(volume, key, upload)[0]

    def _add_part(
        self, volume: str, key: bytes, upload: str, number: int, data: bytes, digests: Digests
    ) -> PartInfo:
        part = PartInfo(
            number=number,
            size=len(data),
            etag=digests.etag,
            modified_ns=time.time_ns(),
            checksums=digests.checksums,
        )
        self._upload(volume, key, upload)[1][number] = (part, data)
        return part

    async def part_writer(
        self, volume: str, key: bytes, upload: str, number: int, *, size: int | None = None
    ) -> Writer:
        self._upload(volume, key, upload)

        async def commit(data: bytes, digests: Digests) -> ObjectInfo:
            part = self._add_part(volume, key, upload, number, data, digests)
            return ObjectInfo(
                key=key,
                size=part.size,
                etag=part.etag,
                modified_ns=part.modified_ns,
                checksums=part.checksums,
            )

        return MemoryWriter(self, commit)

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
        info, data = self._find(source_volume, source_key, source_version)
        piece = data[offset : offset + (info.size if length is None else length)]
        return self._add_part(
            volume, key, upload, number, piece, digests or Digests(etag=secrets.token_hex(16))
        )

    async def list_parts(
        self, volume: str, key: bytes, upload: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[Sequence[PartInfo], bool]:
        parts = self._upload(volume, key, upload)[1]
        rows = [parts[number][0] for number in sorted(parts) if number > after]
        return rows[:limit], len(rows) > limit

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
        info, stored = self._upload(volume, key, upload)
        if any(stored.get(part.number, (None,))[0] != part for part in parts):
            raise InvalidArgument("a part is not there")
        data = b"".join(stored[part.number][1] for part in parts)
        done = self._link(volume, key, data, info.attributes, digests, condition, tuple(parts))
        del self._volume(volume).uploads[upload]
        return done

    async def abort_upload(self, volume: str, key: bytes, upload: str) -> None:
        self._upload(volume, key, upload)
        del self._volume(volume).uploads[upload]

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
        rows = sorted(
            (info for info, _ in self._volume(volume).uploads.values()),
            key=lambda info: (info.key, info.upload),
        )
        rows = [row for row in rows if row.key.startswith(prefix)]
        if upload_marker:
            rows = [row for row in rows if (row.key, row.upload) > (key_marker, upload_marker)]
        else:
            rows = [row for row in rows if row.key > key_marker]
        prefixes = []
        if delimiter:
            cuts = [(row, row.key.find(delimiter, len(prefix))) for row in rows]
            rows = [row for row, cut in cuts if cut < 0]
            prefixes = sorted({row.key[: cut + len(delimiter)] for row, cut in cuts if cut >= 0})
        return rows[:limit], prefixes, len(rows) > limit
