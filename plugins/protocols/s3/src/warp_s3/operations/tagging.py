"""Tags of objects and of buckets."""

from typing import TYPE_CHECKING, Final

import msgspec
from warp_core.errors import NotFound

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.operations.objects import missing
from warp_s3.receiving import read_document
from warp_s3.xml_input import BUCKET_TAGS_MAX, tag_set

if TYPE_CHECKING:
    from warp_s3.service import Service

BUCKET_TAGS: Final = "s3.tagging"
"""Name of the volume's document that keeps the bucket's tags, JSON of key to value."""


async def get_tags(service: "Service", call: Call) -> Answer:
    """Tell an object's tags."""
    try:
        info = await service.objects.head(
            call.bucket, call.key, version=call.query.get("versionId", "")
        )
    except NotFound as error:
        raise missing(call, error) from error
    return xml(xml_output.tagging(info.attributes.tags), headers=_version(info.version))


async def put_tags(service: "Service", call: Call) -> Answer:
    """Replace an object's tags."""
    tags = tag_set(await read_document(call))
    return await _set(service, call, tags, 200)


async def delete_tags(service: "Service", call: Call) -> Answer:
    """Drop an object's tags."""
    return await _set(service, call, {}, 204)


async def get_bucket_tags(service: "Service", call: Call) -> Answer:
    """Tell a bucket's tags."""
    volume = await service.objects.volume(call.bucket)
    document = volume.documents.get(BUCKET_TAGS)
    if document is None:
        raise S3Error("NoSuchTagSet", details={"BucketName": call.bucket})
    return xml(xml_output.tagging(msgspec.json.decode(document, type=dict[str, str])))


async def put_bucket_tags(service: "Service", call: Call) -> Answer:
    """Replace a bucket's tags."""
    tags = tag_set(await read_document(call), count_max=BUCKET_TAGS_MAX)
    await service.objects.set_document(call.bucket, BUCKET_TAGS, msgspec.json.encode(tags))
    return empty(204)


async def delete_bucket_tags(service: "Service", call: Call) -> Answer:
    """Drop a bucket's tags."""
    await service.objects.set_document(call.bucket, BUCKET_TAGS, None)
    return empty(204)


async def _set(service: "Service", call: Call, tags: dict[str, str], status: int) -> Answer:
    try:
        version = await service.objects.set_tags(
            call.bucket,
            call.key,
            tags,
            version=call.query.get("versionId", ""),
            origin=service.origin(call),
        )
    except NotFound as error:
        raise missing(call, error) from error
    return empty(status, _version(version))


def _version(version: str) -> list[tuple[str, str]]:
    return [("x-amz-version-id", version)] if version and version != "null" else []
