"""Multipart uploads: begun, filled part by part, completed or aborted."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from warp_core.errors import AlreadyExists, Sealed, UploadNotFound
from warp_core.views.objects import Digests, PartInfo, Provenance, Sealing, UploadInfo

from warp_s3 import encryption, xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.checksums import (
    ALGORITHMS,
    COMPOSITE,
    DEFAULT,
    FULL_OBJECT,
    HEADERS,
    Algorithm,
    algorithm_named,
    composite,
    decode,
    encode,
    full_object,
)
from warp_s3.conditions import check_copy_source, copy_range, write_condition
from warp_s3.digesting import Expected
from warp_s3.errors import S3Error
from warp_s3.listing_arguments import PAGE_MAX, count_argument, list_arguments
from warp_s3.locking import demand_lockable
from warp_s3.metadata import attributes_of, checksum_headers
from warp_s3.operations.copying import (
    copy_source,
    digest_of,
    read_source,
    source_secret,
    source_version_header,
)
from warp_s3.operations.encryption import wish
from warp_s3.operations.lifecycle import expiry
from warp_s3.operations.replication import pending
from warp_s3.owners import owner_writer
from warp_s3.provenance import with_etag
from warp_s3.receiving import read_document, store
from warp_s3.xml_input import PARTS_MAX, CompletedPart, completed_parts

if TYPE_CHECKING:
    from warp_s3.service import Service

PART_MIN: Final = 5 * 1024 * 1024
"""Bytes of every part but the last; S3's own figure."""


async def create_upload(service: "Service", call: Call) -> Answer:
    """Begin an upload."""
    headers = call.headers
    owner, acl = await service.access.placed(call)
    attributes = await pending(service, call, attributes_of(headers, owner=owner, acl=acl))
    await demand_lockable(service, call, attributes)
    algorithm, kind = _wanted_checksum(call)
    sealing = await wish(service, call)
    upload = await service.objects.create_upload(
        call.bucket,
        call.key,
        attributes,
        checksum_algorithm=algorithm.name if algorithm else "",
        checksum_type=kind,
        sealing=sealing,
    )
    answer_headers = encryption.told_of_write(upload.seal, headers)
    if algorithm is not None:
        answer_headers += [
            ("x-amz-checksum-algorithm", algorithm.name),
            ("x-amz-checksum-type", kind),
        ]
    return xml(
        xml_output.upload_created(call.bucket, call.key, upload.upload), headers=answer_headers
    )


async def upload_part(service: "Service", call: Call) -> Answer:
    """Store a part."""
    if call.request.content_length is None and not call.request.chunked:
        raise S3Error("MissingContentLength")
    number = _part_number(call)
    upload = await _upload(service, call)
    expected = Expected(call.headers, call.payload)
    algorithm = _part_algorithm(upload)
    given = expected.algorithm
    if upload.checksum_algorithm and given is not None and given is not algorithm:
        raise S3Error(
            "InvalidRequest",
            "Checksum Type mismatch occurred, expected checksum Type: "
            f"{algorithm.name.lower()}, actual checksum Type: {given.name.lower()}",
        )
    secret = encryption.secret_of_part(call, upload.seal, needs_tls=service.config.sse_c_needs_tls)
    try:
        writer = await service.objects.part_writer(
            call.bucket, call.key, upload.upload, number, size=call.body.length, secret=secret
        )
    except Sealed as error:
        raise encryption.refused_part(error) from error
    info = await store(service, call, writer, expected, algorithm, _sealing(upload))
    headers = [("ETag", f'"{info.etag}"'), *checksum_headers(info.checksums, "")]
    return empty(200, headers + encryption.told(upload.seal, call.headers))


async def copy_part(service: "Service", call: Call) -> Answer:
    """Make a part of a range of an object."""
    number = _part_number(call)
    source = copy_source(call.headers["x-amz-copy-source"])
    upload = await _upload(service, call)
    from_secret = source_secret(service, call)
    secret = encryption.secret_of_part(call, upload.seal, needs_tls=service.config.sse_c_needs_tls)
    info = await read_source(service, call, *source, from_secret)
    check_copy_source(call.headers, info)
    text = call.headers.get("x-amz-copy-source-range")
    offset, length = (0, info.size) if text is None else copy_range(text, info.size)
    digests = None
    if upload.checksum_algorithm:
        algorithm = ALGORITHMS[upload.checksum_algorithm]
        digest = await digest_of(
            service, source, algorithm, offset=offset, length=length, secret=from_secret
        )
        # The ETag of a copied part is any name of its content; this one costs no second pass.
        name = hashlib.md5(
            f"{info.etag} {offset} {length}".encode(), usedforsecurity=False
        ).hexdigest()
        digests = Digests(etag=name, checksums={algorithm.name: encode(digest)})
    try:
        part = await service.objects.copy_part(
            source[0],
            source[1],
            call.bucket,
            call.key,
            upload.upload,
            number,
            source_version=source[2],
            offset=offset,
            length=length,
            digests=digests,
            source_secret=from_secret,
            secret=secret,
        )
    except Sealed as error:
        raise encryption.refused_part(error) from error
    headers = source_version_header(info) + encryption.told(upload.seal, call.headers)
    return xml(xml_output.copied("CopyPartResult", part), headers=headers)


async def list_parts(service: "Service", call: Call) -> Answer:
    """List the parts that have been stored."""
    upload = await _upload(service, call)
    after = (
        count_argument(call.query, "part-number-marker", PARTS_MAX)
        if (call.query.get("part-number-marker"))
        else 0
    )
    limit = count_argument(call.query, "max-parts", PAGE_MAX)
    rows: Sequence[PartInfo] = ()
    truncated = False
    if limit:
        rows, truncated = await service.objects.list_parts(
            call.bucket, call.key, upload.upload, after=after, limit=limit
        )
    return xml(
        xml_output.parts(
            call.bucket,
            call.key,
            upload,
            rows,
            truncated=truncated,
            after=after,
            limit=limit,
            encoding_type=list_arguments(call.query, "max-parts").encoding_type,
            owner=owner_writer(await service.accounts())(upload.attributes.owner),
        )
    )


async def list_uploads(service: "Service", call: Call) -> Answer:
    """List uploads in progress."""
    arguments = list_arguments(call.query, "max-uploads")
    key_marker = call.query.get("key-marker", "").encode()
    upload_marker = call.query.get("upload-id-marker", "") if key_marker else ""
    rows: Sequence[UploadInfo] = ()
    prefixes: Sequence[bytes] = ()
    truncated = False
    if arguments.limit:
        rows, prefixes, truncated = await service.objects.list_uploads(
            call.bucket,
            prefix=arguments.prefix,
            delimiter=arguments.delimiter,
            key_marker=key_marker,
            upload_marker=upload_marker,
            limit=arguments.limit,
        )
    else:
        await service.objects.volume(call.bucket)
    return xml(
        xml_output.uploads(
            call.bucket,
            rows,
            prefixes,
            truncated=truncated,
            prefix=arguments.prefix,
            delimiter=arguments.delimiter,
            key_marker=key_marker,
            upload_marker=upload_marker,
            limit=arguments.limit,
            encoding_type=arguments.encoding_type,
            owners=owner_writer(await service.accounts()),
        )
    )


async def abort_upload(service: "Service", call: Call) -> Answer:
    """Drop an upload and its parts."""
    try:
        await service.objects.abort_upload(call.bucket, call.key, call.query["uploadId"])
    except UploadNotFound as error:
        raise _no_upload(call) from error
    return empty(204)


async def complete_upload(service: "Service", call: Call) -> Answer:
    """Make an object of the parts that the client names."""
    named = completed_parts(await read_document(call, checksums=False))
    condition = write_condition(call.headers)
    provenance: Provenance | None = None
    try:
        upload = await service.objects.upload(call.bucket, call.key, call.query["uploadId"])
        stored = await _stored_parts(service, call)
    except UploadNotFound:
        # Perhaps it has been completed, and only the answer was lost: core remembers for a while.
        parts = [PartInfo(number=part.number, size=0, etag=part.etag) for part in named]
        digests = Digests(etag=_multipart_etag(parts))
    else:
        parts = _chosen(named, stored)
        digests = with_etag(call.headers, _whole_digests(call, upload, parts))
        provenance = upload.attributes.provenance
    try:
        info = await service.objects.complete_upload(
            call.bucket,
            call.key,
            call.query["uploadId"],
            parts,
            digests,
            condition=condition,
            origin=service.origin(call),
        )
    except UploadNotFound as error:
        raise _no_upload(call) from error
    except AlreadyExists:  # a version of another site, sent again as its answer was lost
        assert provenance is not None
        await service.objects.abort_upload(call.bucket, call.key, call.query["uploadId"])
        info = await service.objects.head(call.bucket, call.key, version=provenance.version)
    place = f"{_base(call)}/{call.bucket}/{xml_output.url_key(call.key)}"
    headers = [("x-amz-version-id", info.version)] if info.version != "null" else []
    headers += await expiry(service, call.bucket, info)
    headers += encryption.told_of_write(info.seal, call.headers)
    return xml(xml_output.upload_completed(place, call.bucket, info), headers=headers)


def _wanted_checksum(call: Call) -> tuple[Algorithm | None, str]:
    """Read which checksum an upload is to have, and of which type."""
    name = call.headers.get("x-amz-checksum-algorithm")
    kind = call.headers.get("x-amz-checksum-type")
    if name is None:
        if kind is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm "
                "header.",
            )
        return None, ""
    algorithm = algorithm_named(name)
    if kind is None:
        return algorithm, algorithm.types[0]
    kind = kind.upper()
    if kind not in {COMPOSITE, FULL_OBJECT}:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if kind not in algorithm.types:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.name.lower()} checksum "
            "algorithm.",
        )
    return algorithm, kind


async def _upload(service: "Service", call: Call) -> UploadInfo:
    try:
        return await service.objects.upload(call.bucket, call.key, call.query["uploadId"])
    except UploadNotFound as error:
        raise _no_upload(call) from error


def _sealing(upload: UploadInfo) -> Sealing | None:
    """Return what an upload's parts are sealed with, as far as their ETags depend on it."""
    return None if upload.seal is None else Sealing(note=upload.seal.note)


def _no_upload(call: Call) -> S3Error:
    return S3Error("NoSuchUpload", details={"UploadId": call.query["uploadId"]})


def _part_algorithm(upload: UploadInfo) -> Algorithm:
    return ALGORITHMS[upload.checksum_algorithm or DEFAULT]


def _part_number(call: Call) -> int:
    text = call.query.get("partNumber", "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
    if not 1 <= number <= PARTS_MAX:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive",
            details={"ArgumentName": "partNumber", "ArgumentValue": text},
        )
    return number


async def _stored_parts(service: "Service", call: Call) -> dict[int, PartInfo]:
    stored: dict[int, PartInfo] = {}
    after, more = 0, True
    while more:
        page, more = await service.objects.list_parts(
            call.bucket, call.key, call.query["uploadId"], after=after, limit=PAGE_MAX
        )
        for part in page:
            stored[part.number] = part
            after = part.number
    return stored


def _chosen(named: Sequence[CompletedPart], stored: dict[int, PartInfo]) -> list[PartInfo]:
    """Match what the client names with what is stored."""
    parts: list[PartInfo] = []
    for one in named:
        part = stored.get(one.number)
        if part is None or part.etag != one.etag:
            raise S3Error("InvalidPart", details={"PartNumber": str(one.number), "ETag": one.etag})
        for name, digest in one.checksums.items():
            if part.checksums.get(name, encode(digest)) != encode(digest):
                raise S3Error(
                    "InvalidPart", details={"PartNumber": str(one.number), "ETag": one.etag}
                )
        parts.append(part)
    for part in parts[:-1]:
        if part.size < PART_MIN:
            raise S3Error(
                "EntityTooSmall",
                details={
                    "ProposedSize": str(part.size),
                    "MinSizeAllowed": str(PART_MIN),
                    "PartNumber": str(part.number),
                    "ETag": part.etag,
                },
            )
    return parts


def _whole_digests(call: Call, upload: UploadInfo, parts: Sequence[PartInfo]) -> Digests:
    """Make the object's digests of its parts', and compare with what the client announces."""
    size = call.headers.get("x-amz-mp-object-size")
    if size is not None and size != str(sum(part.size for part in parts)):
        raise S3Error(
            "InvalidRequest",
            "The provided 'x-amz-mp-object-size' header value does not match what was computed: "
            f"{sum(part.size for part in parts)}",
        )
    algorithm = _part_algorithm(upload)
    kind = upload.checksum_type or FULL_OBJECT
    wanted = call.headers.get("x-amz-checksum-type")
    if wanted is not None and wanted.upper() != kind:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {kind} checksum mode. The complete request must "
            "use the same checksum mode.",
        )
    etag = _multipart_etag(parts)
    known = [part.checksums[algorithm.name] for part in parts if algorithm.name in part.checksums]
    if len(known) < len(parts):
        return Digests(etag=etag)
    digests = [decode(algorithm, text) for text in known]
    if kind == COMPOSITE:
        value = composite(algorithm, digests)
    else:
        sizes = [part.size for part in parts]
        value = full_object(algorithm, zip(digests, sizes, strict=True))
    given = call.headers.get(algorithm.header)
    if given is not None:
        decode(algorithm, given.partition("-")[0])
    if given is not None and given not in {value, value.partition("-")[0]}:
        raise S3Error(
            "BadDigest",
            f"The {algorithm.name.lower()} you specified did not match the calculated checksum.",
        )
    if given is None and any(name in call.headers for name in HEADERS):
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.name.lower()}",
        )
    return Digests(etag=etag, checksums={algorithm.name: value}, checksum_type=kind)  # type: ignore[arg-type]


def _multipart_etag(parts: Sequence[PartInfo]) -> str:
    """Give the MD5 of the parts' MD5s, with their number behind it."""
    try:
        joined = b"".join([bytes.fromhex(part.etag) for part in parts])
    except ValueError:
        joined = "".join([part.etag for part in parts]).encode()
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _base(call: Call) -> str:
    return f"http://{call.headers.get('host', 'localhost')}"
