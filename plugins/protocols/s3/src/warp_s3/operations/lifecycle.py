"""Lifecycle configurations: kept with the volume, carried out by the `lifecycle` service."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from warp_core import lifecycle as core
from warp_core.views.objects import ObjectInfo

from warp_s3 import lifecycle, xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.receiving import read_document

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

DOCUMENT_MAX: Final = 60 * 1024
"""Bytes of a volume's document, which the rules of a bucket are kept as."""


async def get_configuration(service: "Service", call: Call) -> Answer:
    """Tell a bucket's rules."""
    document = (await service.objects.volume(call.bucket)).documents.get(core.DOCUMENT)
    if document is None:
        raise S3Error("NoSuchLifecycleConfiguration", details={"BucketName": call.bucket})
    found = core.unpack(document)
    body = xml_output.document("LifecycleConfiguration", lifecycle.write_rules(found))
    return xml(body, headers=[(lifecycle.MINIMUM_HEADER, lifecycle.minimum_of(found))])


async def put_configuration(service: "Service", call: Call) -> Answer:
    """Replace a bucket's rules."""
    body = await read_document(call)
    await service.objects.volume(call.bucket)
    minimum = call.headers.get(lifecycle.MINIMUM_HEADER, "")
    found = lifecycle.read_configuration(body, minimum, minimums=service.config.transition_minimums)
    document = core.pack(found)
    if len(document) > DOCUMENT_MAX:
        raise S3Error("InvalidRequest", f"The rules take more than {DOCUMENT_MAX} bytes.")
    await service.objects.set_document(call.bucket, core.DOCUMENT, document)
    return empty(200, [(lifecycle.MINIMUM_HEADER, lifecycle.minimum_of(found))])


async def delete_configuration(service: "Service", call: Call) -> Answer:
    """Drop a bucket's rules."""
    if core.DOCUMENT in (await service.objects.volume(call.bucket)).documents:
        await service.objects.set_document(call.bucket, core.DOCUMENT, None)
    return empty(204)


async def expiry(service: "Service", bucket: str, info: ObjectInfo) -> list[tuple[str, str]]:
    """Return the header that says when a new object expires, if it does."""
    volume = service.objects.volume_now(bucket) or await service.objects.volume(bucket)
    return expiry_by(service, bucket, volume.documents, info) if volume.documents else []


def expiry_by(
    service: "Service", bucket: str, documents: Mapping[str, bytes], info: ObjectInfo
) -> list[tuple[str, str]]:
    """Return the header that says when an object expires, if it does, from documents that are at hand."""
    rules = service.lifecycles.of(bucket, documents)
    header = lifecycle.expiration_header(rules, info) if rules is not None else None
    return [header] if header is not None else []


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetBucketLifecycleConfiguration": get_configuration,
        "PutBucketLifecycleConfiguration": put_configuration,
        "DeleteBucketLifecycleConfiguration": delete_configuration,
    }
)
