"""The Objects view on the executable model: correct, small, forgetful."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from warp_core.errors import (
    InvalidArgument,
    OutOfRange,
    UploadNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.views.objects import (
    ALWAYS,
    PART_NUMBER_MAX,
    Attributes,
    Condition,
    Digests,
    ObjectInfo,
    PartInfo,
    Sealing,
    UploadInfo,
    VolumeInfo,
    Writer,
)
from warp_core.views.origin import Origin

from warp_conformance.model import File
from warp_conformance.reference.object_content import PlainWriter, refuse_sealing, refuse_secret
from warp_conformance.reference.object_versions import PlainVersions


class Upload:
    """A multipart upload."""

    def __init__(self, info: UploadInfo) -> None:
        self.info = info
        self.parts: dict[int, tuple[bytes, PartInfo]] = {}
        self.result: ObjectInfo | None = None


class PlainObjects(PlainVersions):
    """See `Objects`. Faulty ones override a step."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: dict[str, dict[str, Upload]] = {}

    def crashed(self) -> PlainObjects:
        """Return what a crash leaves: everything."""
        return self

    async def create_volume(
        self, name: str, *, owner: Principal, locked: bool = False
    ) -> VolumeInfo:
        """See `Objects`."""
        made = await super().create_volume(name, owner=owner, locked=locked)
        self.uploads[name] = {}
        return made

    async def delete_volume(self, name: str) -> None:
        """See `Objects`."""
        await super().delete_volume(name)
        del self.uploads[name]

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
        """See `Objects`."""
        refuse_sealing(sealing)
        self.check(volume, key, ALWAYS)
        number = f"{next(self.clock):032x}"
        info = UploadInfo(
            key, number, next(self.clock), attributes, checksum_algorithm, checksum_type
        )
        self.uploads[volume][number] = Upload(info)
        return info

    def upload_at(self, volume: str, key: bytes, upload: str) -> Upload:
        """Return an upload that has not ended."""
        self.at(volume)
        found = self.uploads[volume].get(upload)
        if found is None or found.info.key != key or found.result is not None:
            raise UploadNotFound(upload)
        return found

    async def upload(self, volume: str, key: bytes, upload: str) -> UploadInfo:
        """See `Objects`."""
        return self.upload_at(volume, key, upload).info

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
        """See `Objects`."""
        refuse_secret(secret)
        if not 1 <= number <= PART_NUMBER_MAX:
            raise InvalidArgument(str(number))
        self.upload_at(volume, key, upload)

        def link(content: bytes, digests: Digests) -> ObjectInfo:
            made = self.put_part(volume, key, upload, number, content, digests)
            return ObjectInfo(
                key=key,
                size=made.size,
                etag=made.etag,
                modified_ns=made.modified_ns,
                checksums=made.checksums,
            )

        return PlainWriter(link)

    def put_part(
        self, volume: str, key: bytes, upload: str, number: int, content: bytes, digests: Digests
    ) -> PartInfo:
        """Keep a part in the place of an earlier one."""
        part = PartInfo(
            number=number,
            size=len(content),
            etag=digests.etag,
            modified_ns=next(self.clock),
            checksums=digests.checksums,
        )
        self.upload_at(volume, key, upload).parts[number] = content, part
        return part

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
        """See `Objects`."""
        refuse_secret(source_secret or secret)
        if not 1 <= number <= PART_NUMBER_MAX:
            raise InvalidArgument(str(number))
        self.upload_at(volume, key, upload)
        file = self.find(source_volume, source_key, source_version).file
        assert file is not None
        end = len(file.content) if length is None else offset + length
        if not 0 <= offset <= end <= len(file.content):
            raise OutOfRange(f"{offset} to {end}")
        digests = digests or Digests(etag=os.urandom(16).hex())
        return self.put_part(volume, key, upload, number, file.content[offset:end], digests)

    async def list_parts(
        self, volume: str, key: bytes, upload: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[Sequence[PartInfo], bool]:
        """See `Objects`."""
        parts = self.upload_at(volume, key, upload).parts
        found = [parts[number][1] for number in sorted(parts) if number > after]
        return found[:limit], len(found) > limit

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
        """See `Objects`."""
        self.at(volume)
        ended = self.uploads[volume].get(upload)
        if ended is not None and ended.info.key == key and ended.result is not None:
            return ended.result
        found = self.upload_at(volume, key, upload)
        numbers = [part.number for part in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise InvalidArgument("parts")
        for part in parts:
            if part.number not in found.parts or found.parts[part.number][1].etag != part.etag:
                raise InvalidArgument(f"part {part.number}")
        chosen = [found.parts[number] for number in numbers]
        file = File(
            b"".join(content for content, _ in chosen),
            found.info.attributes,
            digests,
            tuple(part for _, part in chosen),
        )
        found.result = self.link(volume, key, file, condition)
        return found.result

    async def abort_upload(self, volume: str, key: bytes, upload: str) -> None:
        """See `Objects`."""
        self.upload_at(volume, key, upload)
        del self.uploads[volume][upload]

    async def list_uploads(
        self,
        volume: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        upload_marker: str = "",
        limit: int = 1000,
    ) -> tuple[Sequence[UploadInfo], Sequence[bytes], Literal[True, False]]:
        """See `Objects`."""
        self.at(volume)
        open_ = [each.info for each in self.uploads[volume].values() if each.result is None]
        uploads: list[UploadInfo] = []
        prefixes: list[bytes] = []
        for info in sorted(open_, key=lambda each: (each.key, each.upload)):
            behind = info.key > key_marker or not key_marker
            if info.key == key_marker and upload_marker:
                behind = info.upload > upload_marker
            if not info.key.startswith(prefix) or not behind:
                continue
            found = info.key.find(delimiter, len(prefix)) if delimiter else -1
            common = info.key[: found + len(delimiter)] if found >= 0 else b""
            if common and (common in prefixes or key_marker.startswith(common)):
                continue
            if len(uploads) + len(prefixes) == limit:
                return uploads, prefixes, True
            if common:
                prefixes.append(common)
            else:
                uploads.append(info)
        return uploads, prefixes, False
