"""Object lock: what a bucket says of new objects, retention and legal hold of versions."""

import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from warp_core.errors import NotFound
from warp_core.views.objects import Attributes

from warp_s3 import locking
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.operations.objects import missing
from warp_s3.receiving import read_document
from warp_s3.xml_output import iso_time

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]


async def get_configuration(service: "Service", call: Call) -> Answer:
    """Tell what holds for objects that say nothing themselves."""
    lock = (await service.objects.volume(call.bucket)).lock
    if lock is None:
        raise S3Error("ObjectLockConfigurationNotFoundError", details={"BucketName": call.bucket})
    return xml(locking.write_configuration(lock))


async def put_configuration(service: "Service", call: Call) -> Answer:
    """Let objects be locked, and say what holds for those that say nothing themselves."""
    lock = locking.read_configuration(await read_document(call))
    volume = await service.objects.volume(call.bucket)
    if volume.versioning != "on":
        raise S3Error(
            "InvalidBucketState",
            "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
        )
    await service.objects.set_lock(call.bucket, lock)
    return empty(200)


async def get_retention(service: "Service", call: Call) -> Answer:
    """Tell until when a version is retained."""
    said = await _lock_of(service, call)
    if not said.retain_mode:
        raise _unset(call)
    return xml(locking.write_retention(said.retain_mode, said.retain_until_ns))


async def put_retention(service: "Service", call: Call) -> Answer:
    """Retain a version, longer or, where that is allowed, shorter."""
    mode, until_ns = locking.read_retention(await read_document(call))
    await _lock_of(service, call)
    version = call.query.get("versionId", "")
    if mode and until_ns <= time.time_ns():
        raise S3Error("InvalidArgument", "The retain until date must be in the future!")
    days = max(0, (until_ns - time.time_ns()) // (86_400 * 10**9)) if mode else 0
    await service.access.demand(
        call,
        "PutObjectRetention",
        call.bucket,
        call.key,
        version=version,
        more={
            "s3:object-lock-mode": (mode,),
            "s3:object-lock-retain-until-date": (iso_time(until_ns),),
            "s3:object-lock-remaining-retention-days": (str(days),),
        },
    )
    await service.objects.set_retention(
        call.bucket,
        call.key,
        mode,
        until_ns,
        version=version,
        bypass=await locking.bypasses(service, call, call.bucket, call.key, version),
    )
    return empty(200)


async def get_hold(service: "Service", call: Call) -> Answer:
    """Tell whether a version is under legal hold."""
    held = (await _lock_of(service, call)).legal_hold
    if held is None:
        raise _unset(call)
    return xml(locking.write_hold(held))


async def put_hold(service: "Service", call: Call) -> Answer:
    """Put a version under legal hold, or end that."""
    held = locking.read_hold(await read_document(call))
    await _lock_of(service, call)
    await service.objects.set_legal_hold(
        call.bucket, call.key, held, version=call.query.get("versionId", "")
    )
    return empty(200)


async def _lock_of(service: "Service", call: Call) -> Attributes:
    locking.check_lockable(await service.objects.volume(call.bucket))
    try:
        info = await service.objects.head(
            call.bucket, call.key, version=call.query.get("versionId", "")
        )
    except NotFound as error:
        raise missing(call, error) from error
    return info.attributes


def _unset(call: Call) -> S3Error:
    return S3Error(
        "NoSuchObjectLockConfiguration", details={"Key": call.key.decode("utf-8", "replace")}
    )


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetObjectLockConfiguration": get_configuration,
        "PutObjectLockConfiguration": put_configuration,
        "GetObjectRetention": get_retention,
        "PutObjectRetention": put_retention,
        "GetObjectLegalHold": get_hold,
        "PutObjectLegalHold": put_hold,
    }
)
