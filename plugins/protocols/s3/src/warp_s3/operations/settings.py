"""Settings of buckets and objects that have one fixed state here, and their standard answers.

Clients ask for these as a matter of course. The answers are true: there is no lifecycle, so
NoSuchLifecycleConfiguration. Deleting what is not set succeeds. Changing the rest is refused as
not implemented, by the router's names.
"""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

# Operation to the error that says that nothing is set.
_UNSET: Final = {
    "GetBucketCors": "NoSuchCORSConfiguration",
    "GetBucketEncryption": "ServerSideEncryptionConfigurationNotFoundError",
    "GetBucketLifecycleConfiguration": "NoSuchLifecycleConfiguration",
    "GetBucketReplication": "ReplicationConfigurationNotFoundError",
    "GetBucketWebsite": "NoSuchWebsiteConfiguration",
    "GetObjectLockConfiguration": "ObjectLockConfigurationNotFoundError",
}

# Operation to root element and content of the document that says how things are.
_FIXED: Final = {
    "GetBucketAccelerateConfiguration": ("AccelerateConfiguration", ""),
    "GetBucketLogging": ("BucketLoggingStatus", ""),
    "GetBucketNotificationConfiguration": ("NotificationConfiguration", ""),
    "GetBucketRequestPayment": ("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
}

_DELETES: Final = (
    "DeleteBucketCors",
    "DeleteBucketEncryption",
    "DeleteBucketLifecycleConfiguration",
    "DeleteBucketReplication",
    "DeleteBucketWebsite",
)


def _unset(code: str) -> Handler:
    async def answer(service: "Service", call: Call) -> Answer:
        await service.objects.volume(call.bucket)
        raise S3Error(code, details={"BucketName": call.bucket})

    return answer


def _fixed(root: str, content: str) -> Handler:
    body = xml_output.document(root, content)

    async def answer(service: "Service", call: Call) -> Answer:
        await service.objects.volume(call.bucket)
        return xml(body)

    return answer


async def _deleted(service: "Service", call: Call) -> Answer:
    await service.objects.volume(call.bucket)
    return empty(204)


async def _preflight(service: "Service", call: Call) -> Answer:
    raise S3Error("AccessForbidden")


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        **{name: _unset(code) for name, code in _UNSET.items()},
        **{name: _fixed(root, content) for name, (root, content) in _FIXED.items()},
        **dict.fromkeys(_DELETES, _deleted),
        "Preflight": _preflight,
    }
)
