"""Objects: read, described, written, copied."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from warp_core.errors import (
    AlreadyExists,
    IsDeleteMarker,
    KeyNotFound,
    NotFound,
    Sealed,
    VersionNotFound,
    VolumeNotFound,
)
from warp_core.views.objects import SMALL_MAX, ObjectInfo, Reader

from warp_s3 import xml_output
from warp_s3.begun import begun
from warp_s3.call import Answer, Call, Outcome, empty, xml
from warp_s3.conditions import CONDITIONAL, check_read, requested_range, write_condition
from warp_s3.digesting import Expected, kept_algorithm
from warp_s3.encryption import (
    READ_HEADERS,
    digests_of,
    refused_read,
    secret_of_read,
    told,
    told_of_write,
)
from warp_s3.errors import S3Error, delete_marker
from warp_s3.http import field_lines, http_date
from warp_s3.listing_arguments import PAGE_MAX, count_argument
from warp_s3.locking import demand_lockable
from warp_s3.metadata import attributes_of, checksum_headers, described
from warp_s3.operations.encryption import wish
from warp_s3.operations.lifecycle import expiry, expiry_by
from warp_s3.operations.replication import pending
from warp_s3.provenance import with_etag
from warp_s3.receiving import needs_md5, read_small, store

if TYPE_CHECKING:
    from warp_s3.service import Service

_ATTRIBUTES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})

# Headers that make an answer to GET and HEAD another than all of the object.
_SPECIAL: Final = CONDITIONAL | {"range", "x-amz-checksum-mode"} | READ_HEADERS

DESCRIBED_LENGTH_MAX: Final = 1024
"""Characters of headers that are remembered: all but those with much user metadata."""


# Reading ------------------------------------------------------------------------------------------


def get_object(service: "Service", call: Call) -> Outcome:
    """Send an object, a range of it, or one of the parts it was uploaded in."""
    volume = service.objects.volume_now(call.bucket) if not call.query else None
    reader = service.objects.open_now(call.bucket, call.key) if volume is not None else None
    if volume is None or reader is None:
        return _get_object(service, call)
    if reader.info.storage_class != "STANDARD":
        reader.close()  # it may lie where nobody answers, which is found out before an answer begins
        return _get_object(service, call)
    size = reader.info.size
    plain = _SPECIAL.isdisjoint(call.headers)
    if not plain and not READ_HEADERS.isdisjoint(call.headers):
        reader.close()  # it says something of keys, which is judged first
        return _get_object(service, call)
    if volume.documents and (
        told := expiry_by(service, call.bucket, volume.documents, reader.info)
    ):
        return _send(service, call, reader, told)
    if size and plain:
        fields = _fields(service, call, reader.info)
        return Answer(200, (), b"", size, reader, 0, fields)
    return _send(service, call, reader)


async def open_object(service: "Service", call: Call) -> Reader:
    """Open the object that a request is about, with the key that it brings; the caller closes it."""
    secret = secret_of_read(call, needs_tls=service.config.sse_c_needs_tls)
    try:
        return await service.objects.open(
            call.bucket, call.key, version=_version(call), secret=secret
        )
    except KeyNotFound:
        raise
    except NotFound as error:
        raise missing(call, error) from error
    except Sealed as error:
        raise refused_read(error) from error


async def _get_object(service: "Service", call: Call) -> Answer:
    reader = await open_object(service, call)
    try:
        told = await expiry(service, call.bucket, reader.info)
    except BaseException:
        reader.close()
        raise
    answer = _send(service, call, reader, told)
    return answer if reader.info.storage_class == "STANDARD" else await begun(answer)


def _send(
    service: "Service", call: Call, reader: Reader, told: Sequence[tuple[str, str]] = ()
) -> Answer:
    try:
        answer = _describe(service, call, reader.info, told)
    except BaseException:
        reader.close()
        raise
    if not answer.length:
        reader.close()
        return answer
    return Answer(
        answer.status,
        answer.headers,
        b"",
        answer.length,
        reader,
        answer.offset,
        answer.fields,
    )


def head_object(service: "Service", call: Call) -> Outcome:
    """Describe an object as GET would."""
    volume = service.objects.volume_now(call.bucket) if not call.query else None
    info = service.objects.head_now(call.bucket, call.key) if volume is not None else None
    if volume is None or info is None:
        return _head_object(service, call)
    if info.seal is not None or not READ_HEADERS.isdisjoint(call.headers):
        return _head_object(service, call)
    told = expiry_by(service, call.bucket, volume.documents, info) if volume.documents else ()
    return _describe(service, call, info, told)


async def _head_object(service: "Service", call: Call) -> Answer:
    info = await _info(service, call)
    return _describe(service, call, info, await expiry(service, call.bucket, info))


async def _info(service: "Service", call: Call) -> ObjectInfo:
    """Describe an object to whoever has its key, where it has one of its own."""
    secret = secret_of_read(call, needs_tls=service.config.sse_c_needs_tls)
    try:
        return await service.objects.head(
            call.bucket, call.key, version=_version(call), secret=secret
        )
    except NotFound as error:
        raise missing(call, error) from error
    except Sealed as error:
        raise refused_read(error) from error


async def get_attributes(service: "Service", call: Call) -> Answer:
    """Describe an object in XML, as far as the client wants to know."""
    names = [name.strip() for name in call.headers.get("x-amz-object-attributes", "").split(",")]
    wanted = frozenset(filter(None, names))
    if not wanted or not wanted <= _ATTRIBUTES:
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    info = await _info(service, call)
    arguments = {
        name: call.headers[header]
        for name, header in (("marker", "x-amz-part-number-marker"), ("limit", "x-amz-max-parts"))
        if header in call.headers
    }
    headers = [("Last-Modified", http_date(info.modified_ns // 1_000_000_000))]
    if info.version != "null":
        headers.append(("x-amz-version-id", info.version))
    headers += told(info.seal, call.headers)
    body = xml_output.attributes(
        info,
        wanted,
        part_marker=count_argument({"n": arguments.get("marker", "0")}, "n", 10_000),
        part_limit=count_argument({"n": arguments.get("limit", "")}, "n", PAGE_MAX),
    )
    return xml(body, headers=headers)


def _describe(
    service: "Service", call: Call, info: ObjectInfo, told: Sequence[tuple[str, str]] = ()
) -> Answer:
    """Answer with an object's head: all of it, a part or a range, or 304; `told` is what more there is to say."""
    query = call.query
    if not query and not told and _SPECIAL.isdisjoint(call.headers):
        return Answer(200, (), b"", info.size, None, 0, _fields(service, call, info))
    if not check_read(call.headers, info):
        return empty(304, described(info, query)[:2])
    headers = [*described(info, query, call.headers), *told]
    if "partNumber" in query:
        offset, length, first = _part(query["partNumber"], info)
        if info.size:
            headers.append(("Content-Range", f"bytes {offset}-{offset + length - 1}/{info.size}"))
        if first and call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
            headers += checksum_headers(info.checksums, info.checksum_type)
        return Answer(206, headers, length=length, offset=offset)
    found = requested_range(call.headers, info)
    if found is not None:
        offset, length = found
        headers.append(("Content-Range", f"bytes {offset}-{offset + length - 1}/{info.size}"))
        return Answer(206, headers, length=length, offset=offset)
    if call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers += checksum_headers(info.checksums, info.checksum_type)
    return Answer(200, headers, length=info.size)


def _fields(service: "Service", call: Call, info: ObjectInfo) -> str:
    """Write an object's headers; those of an object that is still the same are remembered, which saves 2 us of a request."""
    place = call.bucket, call.key
    known = service.described.get(place)
    if known is not None and known[0] is info:
        return known[1]
    fields = field_lines(described(info, {}))
    if len(fields) <= DESCRIBED_LENGTH_MAX:
        service.described.offer(place, (info, fields))
    return fields


def _part(text: str, info: ObjectInfo) -> tuple[int, int, bool]:
    """Find a part's offset and length, and whether it is the whole object."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= number <= 10_000:
        raise S3Error(
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000, inclusive",
            details={"ArgumentName": "partNumber", "ArgumentValue": text},
        )
    if not info.parts:
        if number == 1:
            return 0, info.size, True
    elif number <= len(info.parts):
        # Numbers may have gaps when uploaded; afterwards they count from 1.
        offset = sum(part.size for part in info.parts[: number - 1])
        return offset, info.parts[number - 1].size, False
    raise S3Error(
        "InvalidPartNumber",
        details={"ActualPartCount": str(max(1, len(info.parts))), "PartNumberRequested": text},
    )


def _version(call: Call) -> str:
    version = call.query.get("versionId", "")
    if "versionId" in call.query and not version:
        raise S3Error("InvalidArgument", "Version id cannot be the empty string")
    return version


def missing(call: Call, error: NotFound) -> Exception:
    """Say what exactly is not there."""
    if isinstance(error, IsDeleteMarker):
        return delete_marker(error.version, named="versionId" in call.query)
    if isinstance(error, VolumeNotFound):
        return S3Error("NoSuchBucket", details={"BucketName": call.bucket})
    key = call.key.decode("utf-8", "replace")
    if isinstance(error, VersionNotFound):
        return S3Error(
            "NoSuchVersion", details={"Key": key, "VersionId": call.query.get("versionId", "")}
        )
    return S3Error("NoSuchKey", details={"Key": key})


# Writing ------------------------------------------------------------------------------------------


async def put_object(service: "Service", call: Call) -> Answer:
    """Store an object."""
    if call.request.content_length is None and not call.request.chunked:
        raise S3Error("MissingContentLength")
    owner, acl = await service.access.placed(call)
    attributes = await pending(service, call, attributes_of(call.headers, owner=owner, acl=acl))
    if attributes.retain_mode or attributes.legal_hold is not None:
        await demand_lockable(service, call, attributes)
    condition = write_condition(call.headers)
    sealing = await wish(service, call)
    expected = Expected(call.headers, call.payload)
    algorithm = kept_algorithm(expected)
    length = call.body.length
    try:
        if length is not None and length <= SMALL_MAX:
            payload, sums = await read_small(
                call, expected, algorithm, md5=needs_md5(service, sealing)
            )
            info = await service.objects.put(
                call.bucket,
                call.key,
                payload,
                attributes,
                with_etag(call.headers, digests_of(sealing, sums.digests(algorithm))),
                condition=condition,
                sealing=sealing,
                origin=service.origin(call),
            )
        else:
            writer = await service.objects.writer(
                call.bucket,
                call.key,
                attributes,
                condition=condition,
                size=length,
                sealing=sealing,
                origin=service.origin(call),
            )
            info = await store(service, call, writer, expected, algorithm, sealing)
    except AlreadyExists:  # a version of another site, sent again as its answer was lost
        assert attributes.provenance is not None
        version = attributes.provenance.version
        info = await service.objects.head(call.bucket, call.key, version=version)
    headers = [("ETag", f'"{info.etag}"')]
    headers += checksum_headers(info.checksums, info.checksum_type)
    headers += told_of_write(info.seal, call.headers)
    if info.version != "null":
        headers.append(("x-amz-version-id", info.version))
    headers += await expiry(service, call.bucket, info)
    return empty(200, headers)
