"""Copies by reference: what a source is, and what the new object takes from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import msgspec
from warp_core.errors import IsDeleteMarker, NotFound, Sealed
from warp_core.views.objects import Attributes, Digests, ObjectInfo, Sealing

from warp_s3 import encryption, xml_output
from warp_s3.call import Answer, Call, xml
from warp_s3.checksums import ALGORITHMS as CHECKSUMS
from warp_s3.checksums import FULL_OBJECT, Algorithm, algorithm_named, encode
from warp_s3.conditions import check_copy_source, write_condition
from warp_s3.digesting import unique_etag
from warp_s3.errors import S3Error, from_core
from warp_s3.locking import demand_lockable
from warp_s3.metadata import attributes_of, storage_class
from warp_s3.operations.encryption import wish
from warp_s3.operations.lifecycle import expiry
from warp_s3.operations.replication import pending
from warp_s3.website import REDIRECT

if TYPE_CHECKING:
    from warp_s3.service import Service

READ_MAX: Final = 1024 * 1024
"""Bytes that `Reader.read` gives at most."""


async def copy_object(service: "Service", call: Call) -> Answer:
    """Make an object of another's content."""
    headers = call.headers
    bucket, key, version = copy_source(headers["x-amz-copy-source"])
    secret = source_secret(service, call)
    source = await read_source(service, call, bucket, key, version, secret)
    check_copy_source(headers, source)
    owner, acl = await service.access.placed(call)
    given = attributes_of(headers, owner=owner, acl=acl)
    replaces = _replaces(headers, "x-amz-metadata-directive")
    if (
        (bucket, key, version) == (call.bucket, call.key, "")
        and not replaces
        and storage_class(headers) == source.storage_class
        and REDIRECT not in headers
        and not encryption.changes(headers)
    ):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself "
            "without changing the object's metadata, storage class, website redirect location or "
            "encryption attributes.",
        )
    kept = source.attributes
    own = given.headers
    if not replaces:  # where a page is, is said of each object by itself
        redirect = {REDIRECT: own[REDIRECT]} if REDIRECT in own else {}
        own = {name: text for name, text in kept.headers.items() if name != REDIRECT} | redirect
    attributes = Attributes(
        headers=own,
        metadata=given.metadata if replaces else kept.metadata,
        tags=given.tags if _replaces(headers, "x-amz-tagging-directive") else kept.tags,
        storage_class=given.storage_class,
        owner=given.owner,
        acl=given.acl,
        retain_mode=given.retain_mode,
        retain_until_ns=given.retain_until_ns,
        legal_hold=given.legal_hold,
    )
    attributes = await pending(service, call, attributes)
    await demand_lockable(service, call, attributes)
    sealing = await wish(service, call)
    place = (bucket, key, version)
    digests = await _digests(service, headers, source, place, secret)
    digests = await _sealed_digests(service, source, place, secret, sealing, digests)
    info = await service.objects.copy(
        bucket,
        key,
        call.bucket,
        call.key,
        source_version=version,
        attributes=attributes,
        digests=digests,
        condition=write_condition(headers),
        source_secret=secret,
        sealing=sealing,
        origin=service.origin(call, "copy"),
    )
    answer_headers = source_version_header(source)
    answer_headers += encryption.told_of_write(info.seal, headers)
    if info.version != "null":
        answer_headers.append(("x-amz-version-id", info.version))
    answer_headers += await expiry(service, call.bucket, info)
    return xml(xml_output.copied("CopyObjectResult", info), headers=answer_headers)


def source_secret(service: "Service", call: Call) -> bytes:
    """Read the SSE-C key of a copy's source; empty where none is given.

    Raises:
        S3Error: As `encryption.customer_key`.
    """
    secret = encryption.customer_key(call.headers, encryption.SOURCE)
    if secret:
        encryption.check_secure(call, needs_tls=service.config.sse_c_needs_tls)
    return secret


async def _sealed_digests(
    service: "Service",
    source: ObjectInfo,
    place: tuple[str, bytes, str],
    secret: bytes,
    sealing: Sealing | None,
    digests: Digests | None,
) -> Digests | None:
    """Return the digests of a copy, None to keep the source's: whether an ETag is an MD5 depends on the encryption."""
    before = source.seal is None or encryption.plain_etag(source.seal.note)
    after = sealing is None or encryption.plain_etag(sealing.note)
    if before and after:
        return digests
    if after and service.config.etags == "opaque":
        etag = unique_etag()
    elif after:
        md5 = await digest_of(
            service, place, CHECKSUMS["MD5"], offset=0, length=source.size, secret=secret
        )
        etag = md5.hex()
    else:
        etag = encryption.opaque_etag()
    found = digests or Digests(
        etag="",
        checksums=source.checksums,
        checksum_type=source.checksum_type,  # type: ignore[arg-type]
    )
    return msgspec.structs.replace(found, etag=etag)


def copy_source(text: str) -> tuple[str, bytes, str]:
    """Take x-amz-copy-source apart: bucket, key and version, "" for the current one.

    Raises:
        S3Error: `InvalidArgument`.
    """
    path, _, query = text.partition("?")
    bucket, _, key = unquote_to_bytes(path.encode("latin-1")).removeprefix(b"/").partition(b"/")
    name, _, version = query.partition("=")
    try:
        key.decode("utf-8")
        bucket_name = bucket.decode("utf-8")
    except UnicodeDecodeError:
        key = b""
    if not bucket or not key or (query and (name != "versionId" or not version)):
        raise S3Error(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            details={"ArgumentName": "x-amz-copy-source", "ArgumentValue": text},
        )
    return bucket_name, key, version


async def read_source(
    service: "Service", call: Call, bucket: str, key: bytes, version: str, secret: bytes = b""
) -> ObjectInfo:
    """Describe a copy's source to whoever may read it.

    Raises:
        S3Error: `AccessDenied`; `InvalidRequest` for a delete marker named by its version.
        NotFound: It is not there, and whoever asks may know that.
    """
    await service.access.demand(call, "GetObject", bucket, key, version=version)
    expected = call.headers.get("x-amz-source-expected-bucket-owner")
    if expected is not None:
        await service.check_owner(bucket, expected)
    try:
        return await service.objects.head(bucket, key, version=version, secret=secret)
    except Sealed as error:
        raise encryption.refused_read(error) from error
    except IsDeleteMarker as error:
        if version:
            raise S3Error(
                "InvalidRequest",
                "The source of a copy request may not specifically refer to a delete marker by "
                "version id.",
            ) from error
        gone = S3Error("NoSuchKey", details={"Key": key.decode("utf-8", "replace")})
        raise await service.access.hide(call, gone, bucket) from error
    except NotFound as error:
        raise await service.access.hide(call, from_core(error), bucket) from error


def source_version_header(source: ObjectInfo) -> list[tuple[str, str]]:
    """Say which version was copied, where there are versions."""
    if source.version == "null":
        return []
    return [("x-amz-copy-source-version-id", source.version)]


async def digest_of(
    service: "Service",
    source: tuple[str, bytes, str],
    algorithm: Algorithm,
    *,
    offset: int,
    length: int,
    secret: bytes = b"",
) -> bytes:
    """Read a range of an object to compute a checksum that is not kept with it."""
    bucket, key, version = source
    reader = await service.objects.open(bucket, key, version=version, secret=secret)
    running = algorithm.new()
    try:
        end = offset + length
        while offset < end:
            data = await reader.read(offset, min(READ_MAX, end - offset))
            if not data:
                raise S3Error("InternalError")
            running.update(data)
            offset += len(data)
    finally:
        reader.close()
    return running.digest()


async def _digests(
    service: "Service",
    headers: Mapping[str, str],
    info: ObjectInfo,
    source: tuple[str, bytes, str],
    secret: bytes,
) -> Digests | None:
    """Compute the checksum that a copy asks for, unless the source's can be taken over."""
    name = headers.get("x-amz-checksum-algorithm")
    if name is None:
        return None
    algorithm = algorithm_named(name)
    if algorithm.name in info.checksums and info.checksum_type == FULL_OBJECT:
        return None
    digest = await digest_of(service, source, algorithm, offset=0, length=info.size, secret=secret)
    return Digests(
        etag=info.etag, checksums={algorithm.name: encode(digest)}, checksum_type=FULL_OBJECT
    )


def _replaces(headers: Mapping[str, str], name: str) -> bool:
    directive = headers.get(name, "COPY")
    if directive not in {"COPY", "REPLACE"}:
        raise S3Error(
            "InvalidArgument",
            f"Unknown {'metadata' if 'metadata' in name else 'tagging'} directive.",
            details={"ArgumentName": name, "ArgumentValue": directive},
        )
    return directive == "REPLACE"
