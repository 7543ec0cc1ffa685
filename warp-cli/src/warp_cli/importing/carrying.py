"""One version from another endpoint to here: its bytes in their parts, all that is said of it, and proof that it is the same."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from time import time_ns
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from warp_core.errors import WarpError
from warp_core.s3 import Body, Client, Response

from warp_cli.importing.listing import NULL, Version, is_md5, nanoseconds

T = TypeVar("T")

PIECE: Final = 1024 * 1024
"""Bytes read from the source at a time: with as many of them in memory as there are jobs."""

PARTS_AT_ONCE: Final = 8
"""Questions for the sizes of parts that are asked together."""

GUESSES: Final = tuple(size * 1024 * 1024 for size in (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128))
"""Bytes of parts that clients make; tried where the source does not tell."""

_SYSTEM: Final = (
    *("cache-control", "content-disposition", "content-encoding", "content-language"),
    *("content-type", "expires", "x-amz-website-redirect-location", "x-amz-storage-class"),
)
_CHECKSUMS: Final = "x-amz-checksum-"
KMS_KEY: Final = "x-amz-server-side-encryption-aws-kms-key-id"
"""Says that an ETag is no digest."""

_ARCHIVED: Final = frozenset({"GLACIER", "DEEP_ARCHIVE"})


class NotCarried(WarpError):
    """A version could not be carried over; the message says why."""


@dataclass(frozen=True, slots=True)
class Done:
    """What carrying a version took, and what of it is not as it was."""

    bytes: int = 0
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Carrier:
    """Carries versions from one bucket to another."""

    source: Any  # client of boto3
    pool: Executor
    bucket: str
    target: Client
    volume: str
    ids: bool  # versions keep their ids
    lock: bool  # the target can lock objects
    acl: bool
    _guesses: list[int] = field(default_factory=lambda: list(GUESSES))

    async def carry(self, version: Version, target_key: str) -> Done:
        """Make a version here; again is harmless where ids are kept.

        Raises:
            NotCarried: It cannot be had, or is not what it was.
            WarpError: The target cannot take it.
        """
        path = f"/{self.volume}/{target_key}".encode()
        if version.marker:
            done = await self.target.request("DELETE", path, headers=self._provenance(version))
            _demand(done, "the delete marker")
            return Done()
        head = await self._ask(self.source.head_object, ChecksumMode="ENABLED", **self._at(version))
        raw: Mapping[str, str] = head["ResponseMetadata"]["HTTPHeaders"]
        notes: list[str] = []
        headers = {**self._provenance(version), **self._said(head, raw, notes)}
        if KMS_KEY in raw:  # no digest of the content, there as here
            headers["x-warp-source-etag"] = version.etag
        headers |= await self._asked(version, head, notes)
        sizes = await self._parts(version, head)
        if sizes is None:
            answer = await self._whole(path, version, head, raw, headers)
            etag = answer.headers.get("etag", "")
        else:
            etag = await self._in_parts(path, version, head, headers, sizes)
        if etag.strip('"') != version.etag:
            if sizes is None and is_md5(version.etag):
                raise NotCarried(f"its ETag became {etag}: the content is another")
            notes.append("etag")
        return Done(head["ContentLength"], tuple(notes))

    # What is said of it ---------------------------------------------------------------------------

    def _provenance(self, version: Version) -> dict[str, str]:
        said = {"x-warp-source-modified": str(version.modified_ns)} if version.modified_ns else {}
        if self.ids and version.version not in ("", NULL):
            said["x-warp-source-version-id"] = version.version
        return said

    def _said(
        self, head: Mapping[str, Any], raw: Mapping[str, str], notes: list[str]
    ) -> dict[str, str]:
        headers = {name: raw[name] for name in _SYSTEM if name in raw}
        headers |= {name: text for name, text in raw.items() if name.startswith("x-amz-meta-")}
        storage_class = head.get("StorageClass")
        if storage_class in _ARCHIVED and 'ongoing-request="false"' not in head.get("Restore", ""):
            raise NotCarried(f"it is archived ({storage_class}): restore it first")
        if head.get("ServerSideEncryption", "").startswith("aws:kms"):
            notes.append("encryption")
        if head.get("MissingMeta"):
            notes.append("metadata")
        until: datetime | None = head.get("ObjectLockRetainUntilDate")
        if until is not None and nanoseconds(until) > time_ns():
            if self.lock:
                headers["x-amz-object-lock-mode"] = head["ObjectLockMode"]
                headers["x-amz-object-lock-retain-until-date"] = until.isoformat()
            else:
                notes.append("retention")
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            if self.lock:
                headers["x-amz-object-lock-legal-hold"] = "ON"
            else:
                notes.append("legal hold")
        return headers

    async def _asked(
        self, version: Version, head: Mapping[str, Any], notes: list[str]
    ) -> dict[str, str]:
        headers: dict[str, str] = {}
        if head.get("TagCount") or "TagCount" not in head:
            try:
                found = await self._ask(self.source.get_object_tagging, **self._at(version))
            except NotCarried:
                if head.get("TagCount"):
                    raise
                found = {"TagSet": []}  # an endpoint without tags
            if found["TagSet"]:
                pairs = [(tag["Key"], tag["Value"]) for tag in found["TagSet"]]
                headers["x-amz-tagging"] = urlencode(pairs)
        if self.acl:
            found = await self._ask(self.source.get_object_acl, **self._at(version))
            canned = canned_acl(found)
            if canned is None:
                notes.append("acl")
            elif canned != "private":
                headers["x-amz-acl"] = canned
        return headers

    # Its bytes ------------------------------------------------------------------------------------

    async def _parts(self, version: Version, head: Mapping[str, Any]) -> list[int] | None:
        """Return the sizes of the parts that an object was uploaded in; None for one that was not."""
        _, dash, text = version.etag.rpartition("-")
        if not dash or not text.isdigit() or not head["ContentLength"]:
            return None
        count, size = int(text), head["ContentLength"]
        first = await self._part(version, 1)
        if first is None:
            return self._guessed(count, size)
        last = await self._part(version, count) if count > 1 else first
        if last is None:
            return self._guessed(count, size)
        if first * (count - 1) + last == size:  # alike but for the last, as all but few clients do
            return [first] * (count - 1) + [last]
        sizes = [first]
        for start in range(2, count + 1, PARTS_AT_ONCE):
            numbers = range(start, min(start + PARTS_AT_ONCE, count + 1))
            found = await asyncio.gather(*[self._part(version, number) for number in numbers])
            sizes += [one or 0 for one in found]
        return sizes if sum(sizes) == size else self._guessed(count, size)

    async def _part(self, version: Version, number: int) -> int | None:
        try:
            found = await self._ask(self.source.head_object, PartNumber=number, **self._at(version))
        except NotCarried:
            return None
        if not found.get("PartsCount"):  # an endpoint that does not know parts tells of the whole
            return None
        return int(found["ContentLength"])

    def _guessed(self, count: int, size: int) -> list[int]:
        """Return sizes that fit a number of parts: what the usual clients do, else parts that are alike."""
        for part in self._guesses:
            if part * (count - 1) < size <= part * count:
                break
        else:
            part = -(-size // count)
        if part < 5 * 1024 * 1024 and count > 1:  # as small as no upload's may be
            return [size]
        return [part] * (count - 1) + [size - part * (count - 1)]

    async def _whole(
        self,
        path: bytes,
        version: Version,
        head: Mapping[str, Any],
        raw: Mapping[str, str],
        headers: dict[str, str],
    ) -> Response:
        sums = {name: text for name, text in raw.items() if name.startswith(_CHECKSUMS)}
        if sums.pop("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT" and sums:
            headers |= dict(list(sums.items())[:1])
        elif is_md5(version.etag) and KMS_KEY not in raw:
            digest = bytes.fromhex(version.etag)
            headers["content-md5"] = base64.b64encode(digest).decode()
        size = head["ContentLength"]
        body = Body(size, lambda: self._pieces(version, 0, size)) if size else b""
        answer = await self.target.request("PUT", path, headers=headers, body=body)
        return _demand(answer, "it")

    async def _in_parts(
        self,
        path: bytes,
        version: Version,
        head: Mapping[str, Any],
        headers: dict[str, str],
        sizes: list[int],
    ) -> str:
        begun = await self.target.request("POST", path, query={"uploads": ""}, headers=headers)
        _demand(begun, "its upload")
        upload = begun.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
        try:
            rows: list[str] = []
            offset = 0
            for number, size in enumerate(sizes, 1):
                named = {"uploadId": upload, "partNumber": str(number)}
                body = Body(size, self._reader(version, offset, size))
                part = await self.target.request("PUT", path, query=named, body=body)
                _demand(part, f"part {number}")
                rows.append(
                    f"<Part><PartNumber>{number}</PartNumber><ETag>{part.headers['etag']}</ETag></Part>"
                )
                offset += size
            text = f"<CompleteMultipartUpload>{''.join(rows)}</CompleteMultipartUpload>"
            named = {name: headers[name] for name in headers if name == "x-warp-source-etag"}
            done = await self.target.request(
                "POST", path, query={"uploadId": upload}, headers=named, body=text.encode()
            )
            _demand(done, "its upload")
        except BaseException:
            await self.target.request("DELETE", path, query={"uploadId": upload})
            raise
        tag = done.body.partition(b"<ETag>")[2].partition(b"<")[0].decode()
        return tag.replace("&quot;", '"')

    def _reader(
        self, version: Version, offset: int, length: int
    ) -> Callable[[], AsyncIterator[bytes]]:
        return lambda: self._pieces(version, offset, length)

    async def _pieces(self, version: Version, offset: int, length: int) -> AsyncIterator[bytes]:
        """Read a range; of the version that was described, and no other."""
        named = self._at(version)
        if version.etag:
            named["IfMatch"] = f'"{version.etag}"'
        found = await self._ask(
            self.source.get_object, Range=f"bytes={offset}-{offset + length - 1}", **named
        )
        stream = found["Body"]
        try:
            while piece := await self._in_pool(lambda: stream.read(PIECE)):
                yield piece
        finally:
            stream.close()

    # The source -----------------------------------------------------------------------------------

    def _at(self, version: Version) -> dict[str, str]:
        named = {"Bucket": self.bucket, "Key": version.key}
        if version.version:
            named["VersionId"] = version.version
        return named

    async def _ask(self, method: Callable[..., T], **named: object) -> T:
        return await self._in_pool(lambda: method(**named))

    async def _in_pool(self, work: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        try:
            return await asyncio.get_running_loop().run_in_executor(self.pool, work)
        except (ClientError, BotoCoreError, HTTPError, OSError) as error:
            raise NotCarried(f"the source: {error}") from error


def canned_acl(found: Mapping[str, Any]) -> str | None:
    """Return the canned ACL that says what an ACL does; None if none does."""
    groups = "http://acs.amazonaws.com/groups/"
    owner = found["Owner"].get("ID")
    given = {
        (grant["Grantee"].get("URI", "").removeprefix(groups), grant["Permission"])
        for grant in found["Grants"]
        if grant["Grantee"].get("ID") != owner or grant["Grantee"].get("URI")
    }
    return {
        frozenset(): "private",
        frozenset({("global/AllUsers", "READ")}): "public-read",
        frozenset({("global/AllUsers", "READ"), ("global/AllUsers", "WRITE")}): "public-read-write",
        frozenset({("global/AuthenticatedUsers", "READ")}): "authenticated-read",
    }.get(frozenset(given))


def _demand(answer: Response, what: str) -> Response:
    """Return an answer that is a success.

    Raises:
        NotCarried: It is none.
    """
    if not answer.ok or b"<Error>" in answer.body[:500]:
        raise NotCarried(f"the target refuses {what}: {answer.reason}")
    return answer
