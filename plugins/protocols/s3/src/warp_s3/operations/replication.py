"""Replication configurations: kept with the volume, carried out by the `replication` service."""

import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from warp_core import replication as core
from warp_core.views.objects import Attributes

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.receiving import read_document
from warp_s3.replication import read_configuration

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

DOCUMENT_MAX: Final = 60 * 1024
"""Bytes of a volume's document."""


async def get_configuration(service: "Service", call: Call) -> Answer:
    """Tell a bucket's rules."""
    document = (await service.objects.volume(call.bucket)).documents.get(core.DOCUMENT)
    if document is None:
        raise S3Error("ReplicationConfigurationNotFoundError", details={"BucketName": call.bucket})
    written = core.unpack(document).written
    return xml(xml_output.document("ReplicationConfiguration", written))


async def put_configuration(service: "Service", call: Call) -> Answer:
    """Replace a bucket's rules."""
    found = read_configuration(await read_document(call))
    volume = await service.objects.volume(call.bucket)
    if volume.versioning != "on":
        raise S3Error(
            "InvalidRequest",
            "Versioning must be 'Enabled' on the bucket to apply a replication configuration",
        )
    document = core.pack(msgspec.structs.replace(found, since_ns=time.time_ns()))
    if len(document) > DOCUMENT_MAX:
        raise S3Error("InvalidRequest", f"The rules take more than {DOCUMENT_MAX} bytes.")
    await service.objects.set_document(call.bucket, core.DOCUMENT, document)
    return empty(200)


async def delete_configuration(service: "Service", call: Call) -> Answer:
    """Drop a bucket's rules."""
    if core.DOCUMENT in (await service.objects.volume(call.bucket)).documents:
        await service.objects.set_document(call.bucket, core.DOCUMENT, None)
    return empty(204)


async def pending(service: "Service", call: Call, attributes: Attributes) -> Attributes:
    """Return attributes that say whether the object is to be copied to another site."""
    if attributes.replication:
        return attributes
    volume = service.objects.volume_now(call.bucket) or await service.objects.volume(call.bucket)
    document = volume.documents.get(core.DOCUMENT) if volume.versioning == "on" else None
    if core.pending(document, call.key, attributes.tags):
        return msgspec.structs.replace(attributes, replication="PENDING")
    return attributes


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetBucketReplication": get_configuration,
        "PutBucketReplication": put_configuration,
        "DeleteBucketReplication": delete_configuration,
    }
)
