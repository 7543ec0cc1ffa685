"""Logging of buckets: where the lines of their requests go."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from warp_core.errors import VolumeNotFound

from warp_s3 import xml_output
from warp_s3.access import acl as acls
from warp_s3.access_log import target as targets
from warp_s3.access_log.target import LOGGING, Target
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.owners import owner_of
from warp_s3.receiving import read_document

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]


async def get_logging(service: "Service", call: Call) -> Answer:
    """Tell where a bucket's log goes."""
    document = (await service.objects.volume(call.bucket)).documents.get(LOGGING)
    inside = ""
    if document is not None:
        inside = f"<LoggingEnabled>{targets.decode(document).written}</LoggingEnabled>"
    return xml(xml_output.document("BucketLoggingStatus", inside))


async def put_logging(service: "Service", call: Call) -> Answer:
    """Say where a bucket's log goes, or that it has none."""
    target = targets.read(await read_document(call))
    volume = await service.objects.volume(call.bucket)
    if target is not None:
        await _check(service, volume.owner, target)
    document = targets.encode(target) if target is not None else None
    if document is not None or LOGGING in volume.documents:
        await service.objects.set_document(call.bucket, LOGGING, document)
    service.log.told(call.bucket, target)
    return empty(200)


async def _check(service: "Service", owner: str, target: Target) -> None:
    """Check that a log may go where it is to go.

    Raises:
        S3Error: `InvalidTargetBucketForLogging`, `InvalidArgument`, and what `acl.from_xml` raises.
    """
    details = {"TargetBucket": target.bucket}
    try:
        place = await service.access.settings(target.bucket)
    except VolumeNotFound as error:
        raise S3Error(
            "InvalidTargetBucketForLogging",
            "The target bucket for logging does not exist",
            details=details,
        ) from error
    accounts = await service.accounts()
    if owner_of(accounts, place.owner) != owner_of(accounts, owner):
        raise S3Error(
            "InvalidTargetBucketForLogging",
            "The owner for the bucket to be logged and the target bucket must be the same.",
            details=details,
        )
    if place.snapshot:
        raise S3Error("InvalidTargetBucketForLogging", details=details)
    if not target.grants:
        return
    if place.enforced:
        raise S3Error(
            "InvalidArgument",
            "Target grants are not supported where the target bucket's object ownership is "
            "BucketOwnerEnforced",
        )
    policy = (
        f"<AccessControlPolicy><Owner><ID>{owner_of(accounts, place.owner).canonical_id}</ID>"
        f"</Owner><AccessControlList>{target.grants}</AccessControlList></AccessControlPolicy>"
    )
    acls.from_xml(policy.encode(), accounts, owner=place.owner)


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {"GetBucketLogging": get_logging, "PutBucketLogging": put_logging}
)
