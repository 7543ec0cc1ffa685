"""One version to another S3 endpoint: what is there afterwards has its id, time, ETag, parts and everything that is said of it.

That is so where the other side is a WARP, which understands `x-warp-source-*`. Another server makes a version of its own of it.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from warp_core.errors import Unavailable
from warp_core.interfaces.stores import Buffer
from warp_core.replication import Rule
from warp_core.s3 import Body, Client, Response
from warp_core.views.objects import ObjectInfo, Reader

PIECE: Final = 1024 * 1024
"""Bytes read at a time; what `Reader.read` gives at most."""

ASKED_FIRST: Final = 1024 * 1024
"""Bytes from which it is asked whether a version is there before it is sent again."""

# Answers that the same request may get another instead of, once somebody has done something, or soon.
_LATER: Final = frozenset({401, 403, 408, 409, 429})
_LATER_CODES: Final = frozenset(
    {"NoSuchBucket", "RequestTimeout", "SlowDown", "InvalidAccessKeyId"}
)


class Refused(Exception):
    """The other side will not take this version, now or later; the message says why."""


def demand(answer: Response, what: str) -> Response:
    """Return an answer that is a success.

    Raises:
        Unavailable: It may become one.
        Refused: It will not.
    """
    if answer.ok and b"<Error>" not in answer.body[:500]:
        return answer
    if answer.status >= 500 or answer.status in _LATER or answer.code in _LATER_CODES:
        raise Unavailable(f"{what}: {answer.reason}")
    raise Refused(f"{what}: {answer.reason}")


def provenance(version: str, modified_ns: int) -> dict[str, str]:
    """Return the headers that say which version it is."""
    return {
        "x-warp-source-version-id": version,
        "x-warp-source-modified": str(modified_ns),
        "x-warp-source-replica": "true",
    }


def headers_of(info: ObjectInfo, rule: Rule) -> dict[str, str]:
    """Return everything that is said of a version, as headers of a write."""
    said = info.attributes
    headers = {
        **said.headers,
        **{f"x-amz-meta-{name}": _wire(value) for name, value in said.metadata.items()},
        **provenance(info.version, info.modified_ns),
        "x-warp-source-etag": info.etag,
    }
    if said.tags:
        headers["x-amz-tagging"] = urlencode(said.tags)
    storage_class = rule.storage_class or info.storage_class
    if storage_class != "STANDARD":
        headers["x-amz-storage-class"] = storage_class
    if said.retain_mode:
        headers["x-amz-object-lock-mode"] = said.retain_mode
        headers["x-amz-object-lock-retain-until-date"] = iso_time(said.retain_until_ns)
    if said.legal_hold is not None:
        headers["x-amz-object-lock-legal-hold"] = "ON" if said.legal_hold else "OFF"
    return headers


async def send_version(
    client: Client, path: bytes, info: ObjectInfo, reader: Reader, rule: Rule
) -> None:
    """Make a version there; harmless if it is there already.

    Raises:
        Unavailable, TimedOut, RemoteProtocolError: The other side is away or busy.
        Refused: It will not take it.
    """
    if info.size > ASKED_FIRST:
        found = await client.request("HEAD", path, query={"versionId": info.version})
        if found.ok and found.headers.get("x-amz-replication-status") == "REPLICA":
            return
    headers = headers_of(info, rule)
    if info.parts:
        await _send_parts(client, path, info, reader, headers)
        return
    if info.checksums and info.checksum_type == "FULL_OBJECT":
        name, value = next(iter(info.checksums.items()))
        headers[f"x-amz-checksum-{name.lower()}"] = value
    elif info.seal is None and _is_md5(info.etag):
        headers["content-md5"] = base64.b64encode(bytes.fromhex(info.etag)).decode()
    body = _body(reader, 0, info.size) if info.size else b""
    demand(await client.request("PUT", path, headers=headers, body=body), "PUT")


async def _send_parts(
    client: Client, path: bytes, info: ObjectInfo, reader: Reader, headers: dict[str, str]
) -> None:
    """Upload an object in the parts that it was uploaded in here."""
    begin = dict(headers)
    etag = begin.pop("x-warp-source-etag")
    if info.checksums and info.checksum_type:
        begin["x-amz-checksum-algorithm"] = next(iter(info.checksums))
        begin["x-amz-checksum-type"] = info.checksum_type
    begun = demand(
        await client.request("POST", path, query={"uploads": ""}, headers=begin), "upload"
    )
    upload = begun.body.partition(b"<UploadId>")[2].partition(b"<")[0].decode()
    try:
        rows: list[str] = []
        offset = 0
        for part in info.parts:
            named = {"uploadId": upload, "partNumber": str(part.number)}
            sums = {f"x-amz-checksum-{name.lower()}": text for name, text in part.checksums.items()}
            body = _body(reader, offset, part.size) if part.size else b""
            sent = await client.request("PUT", path, query=named, headers=sums, body=body)
            tag = escape(demand(sent, f"part {part.number}").headers.get("etag", ""))
            rows.append(f"<Part><PartNumber>{part.number}</PartNumber><ETag>{tag}</ETag></Part>")
            offset += part.size
        text = f"<CompleteMultipartUpload>{''.join(rows)}</CompleteMultipartUpload>"
        done = await client.request(
            "POST",
            path,
            query={"uploadId": upload},
            headers={"x-warp-source-etag": etag},
            body=text.encode(),
        )
        demand(done, "completion")
    except (Refused, Unavailable):
        await client.request("DELETE", path, query={"uploadId": upload})
        raise


async def send_marker(client: Client, path: bytes, version: str, modified_ns: int) -> None:
    """Put a delete marker there; raises as `send_version`."""
    headers = provenance(version, modified_ns)
    demand(await client.request("DELETE", path, headers=headers), "DELETE")


async def send_tags(client: Client, path: bytes, info: ObjectInfo) -> None:
    """Replace the tags of a version there; raises as `send_version`."""
    rows = "".join(
        f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
        for name, value in info.attributes.tags.items()
    )
    await _set(client, path, info, "tagging", f"<Tagging><TagSet>{rows}</TagSet></Tagging>")


async def send_lock(client: Client, path: bytes, info: ObjectInfo) -> None:
    """Give a version there the retention and the legal hold that it has here; raises as `send_version`."""
    said = info.attributes
    if said.retain_mode:
        until = iso_time(said.retain_until_ns)
        text = f"<Mode>{said.retain_mode}</Mode><RetainUntilDate>{until}</RetainUntilDate>"
        await _set(client, path, info, "retention", f"<Retention>{text}</Retention>", bypass=True)
    else:
        await _set(client, path, info, "retention", "<Retention/>", bypass=True)
    if said.legal_hold is not None:
        state = "ON" if said.legal_hold else "OFF"
        text = f"<LegalHold><Status>{state}</Status></LegalHold>"
        await _set(client, path, info, "legal-hold", text)


async def _set(
    client: Client, path: bytes, info: ObjectInfo, what: str, text: str, *, bypass: bool = False
) -> None:
    body = text.encode()
    headers = {"x-amz-bypass-governance-retention": "true"} if bypass else {}
    query = {what: "", "versionId": info.version}
    demand(await client.request("PUT", path, query=query, headers=headers, body=body), what)


def iso_time(moment_ns: int) -> str:
    """Write a moment as S3 reads it, exact to the second, and never earlier."""
    seconds = -(-moment_ns // 10**9)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _body(reader: Reader, offset: int, length: int) -> Body:
    async def pieces() -> AsyncIterator[Buffer]:
        at, end = offset, offset + length
        while at < end:
            data = await reader.read(at, min(PIECE, end - at))
            if not data:
                return
            yield data
            at += len(data)

    return Body(length, pieces)


def _is_md5(etag: str) -> bool:
    return len(etag) == 32 and all(digit in "0123456789abcdef" for digit in etag)


def _wire(text: str) -> str:
    """Write text as the Latin-1 that carries its UTF-8 bytes."""
    return text.encode("utf-8").decode("latin-1")
