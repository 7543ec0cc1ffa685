"""Bodies that are read whole or stored: received, hashed, compared with what was announced."""

from typing import TYPE_CHECKING, Final

from warp_core.views.objects import ObjectInfo, Sealing, Writer

from warp_s3.call import Call
from warp_s3.checksums import HEADERS, Algorithm
from warp_s3.digesting import Expected, Sums
from warp_s3.encryption import digests_of, plain_etag
from warp_s3.errors import S3Error
from warp_s3.provenance import with_etag
from warp_s3.xml_input import BODY_MAX

if TYPE_CHECKING:
    from warp_s3.service import Service

OF_PAYLOAD: Final = HEADERS.keys() | {"x-amz-sdk-checksum-algorithm"}
"""Headers that say a checksum."""

OBJECT_MAX: Final = 5 * 1024**4
"""Bytes of an object; S3's own figure. S3 wants more than 5 GiB in parts, which needs no rule here."""


async def read_document(call: Call, *, checksums: bool = True) -> bytes:
    """Read a small body, such as XML, and verify it.

    Args:
        checksums: Headers with checksums speak of this body; where an upload is completed they speak of the object.

    Raises:
        S3Error: It is too long, or not what its headers say.
    """
    headers = call.headers
    if not checksums:
        headers = {name: text for name, text in headers.items() if name not in OF_PAYLOAD}
    expected = Expected(headers, call.payload)
    try:
        body = await call.body.read(BODY_MAX)
    except S3Error as error:
        if error.code == "EntityTooLarge":
            raise S3Error("MaxMessageLengthExceeded") from error
        raise
    sums = expected.sums()
    sums.update(body)
    expected.check(sums, call.body)
    return body


def needs_md5(service: "Service", sealing: Sealing | None) -> bool:
    """Say whether the ETag of new content is its MD5."""
    return service.config.etags == "md5" and (sealing is None or plain_etag(sealing.note))


async def read_small(
    call: Call, expected: Expected, algorithm: Algorithm, *, md5: bool
) -> tuple[bytes, Sums]:
    """Read and verify a payload that is known to be small; with `md5` compute that as well."""
    length = call.body.length or 0
    body = await call.body.read(length)
    if len(body) != length:
        raise S3Error("IncompleteBody", closes=True)
    sums = expected.sums(algorithm, md5=md5)
    sums.update(body)
    expected.check(sums, call.body)
    return body, sums


async def store(
    service: "Service",
    call: Call,
    writer: Writer,
    expected: Expected,
    algorithm: Algorithm,
    sealing: Sealing | None = None,
) -> ObjectInfo:
    """Receive a payload into a writer, verify it and commit.

    The bytes go from the socket into the writer's buffers and are hashed there. Nothing is visible
    unless everything announced holds.
    """
    body = call.body
    sums = expected.sums(algorithm, md5=needs_md5(service, sealing))
    size = 0
    try:
        async with service.uploads:
            while True:
                view = writer.buffer()
                count = await body.fill(view)
                if not count:
                    break
                size += count
                if size > OBJECT_MAX:
                    raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(OBJECT_MAX)})
                await sums.update_in(service.pool, view[:count])
                if writer.wrote(count):
                    await writer.drain()
            expected.check(sums, body)
            digests = digests_of(sealing, sums.digests(algorithm))
            return await writer.commit(with_etag(call.headers, digests))
    except BaseException:
        await writer.abort()
        raise
