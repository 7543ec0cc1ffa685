"""Settings of buckets and objects that have one fixed state here, and their standard answers.

Clients ask for these as a matter of course. The answers are true: there is no policy, so
NoSuchBucketPolicy; ACLs are off, as in every new bucket of S3, so the owner has full control and
setting any other ACL is refused. Deleting what is not set succeeds. Changing the rest is refused as
not implemented, by the router's names.
"""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from warp_core.errors import NotFound

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.metadata import check_refused
from warp_s3.operations.objects import missing
from warp_s3.owners import owner_of
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

# Operation to the error that says that nothing is set.
_UNSET: Final = {
    "GetBucketCors": "NoSuchCORSConfiguration",
    "GetBucketEncryption": "ServerSideEncryptionConfigurationNotFoundError",
    "GetBucketLifecycleConfiguration": "NoSuchLifecycleConfiguration",
    "GetBucketPolicy": "NoSuchBucketPolicy",
    "GetBucketPolicyStatus": "NoSuchBucketPolicy",
    "GetBucketReplication": "ReplicationConfigurationNotFoundError",
    "GetBucketWebsite": "NoSuchWebsiteConfiguration",
    "GetObjectLockConfiguration": "ObjectLockConfigurationNotFoundError",
    "GetPublicAccessBlock": "NoSuchPublicAccessBlockConfiguration",
}

# Operation to root element and content of the document that says how things are.
_FIXED: Final = {
    "GetBucketAccelerateConfiguration": ("AccelerateConfiguration", ""),
    "GetBucketLogging": ("BucketLoggingStatus", ""),
    "GetBucketNotificationConfiguration": ("NotificationConfiguration", ""),
    "GetBucketOwnershipControls": (
        "OwnershipControls",
        "<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>",
    ),
    "GetBucketRequestPayment": ("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
}

_DELETES: Final = (
    "DeleteBucketCors",
    "DeleteBucketEncryption",
    "DeleteBucketLifecycleConfiguration",
    "DeleteBucketPolicy",
    "DeleteBucketReplication",
    "DeleteBucketWebsite",
    "DeletePublicAccessBlock",
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


async def _get_bucket_acl(service: "Service", call: Call) -> Answer:
    volume = await service.objects.volume(call.bucket)
    owner = owner_of(await service.accounts(), volume.owner)
    return xml(xml_output.access_control(owner.canonical_id, owner.display))


async def _get_object_acl(service: "Service", call: Call) -> Answer:
    try:
        info = await service.objects.head(
            call.bucket, call.key, version=call.query.get("versionId", "")
        )
    except NotFound as error:
        raise missing(call, error) from error
    # Ownership is enforced: a bucket's owner owns what is in it, whoever put it there.
    volume = await service.objects.volume(call.bucket)
    owner = owner_of(await service.accounts(), volume.owner or info.owner)
    return xml(xml_output.access_control(owner.canonical_id, owner.display))


async def _put_bucket_acl(service: "Service", call: Call) -> Answer:
    volume = await service.objects.volume(call.bucket)
    return await _put_acl(call, owner_of(await service.accounts(), volume.owner).canonical_id)


async def _put_object_acl(service: "Service", call: Call) -> Answer:
    try:
        await service.objects.head(call.bucket, call.key, version=call.query.get("versionId", ""))
    except NotFound as error:
        raise missing(call, error) from error
    volume = await service.objects.volume(call.bucket)
    return await _put_acl(call, owner_of(await service.accounts(), volume.owner).canonical_id)


async def _put_acl(call: Call, owner: str) -> Answer:
    """Accept the ACL that holds anyway, and no other."""
    body = await read_document(call)
    check_refused(call.headers)
    if body:
        grants = parse(body, "AccessControlPolicy").findall("AccessControlList/Grant")
        for grant in grants:
            if (
                grant.findtext("Permission") != "FULL_CONTROL"
                or grant.findtext("Grantee/ID") != owner
            ):
                raise S3Error("AccessControlListNotSupported")
    elif "x-amz-acl" not in call.headers:
        raise S3Error("MissingSecurityHeader", details={"MissingHeaderName": "x-amz-acl"})
    return empty(200)


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        **{name: _unset(code) for name, code in _UNSET.items()},
        **{name: _fixed(root, content) for name, (root, content) in _FIXED.items()},
        **dict.fromkeys(_DELETES, _deleted),
        "Preflight": _preflight,
        "GetBucketAcl": _get_bucket_acl,
        "PutBucketAcl": _put_bucket_acl,
        "GetObjectAcl": _get_object_acl,
        "PutObjectAcl": _put_object_acl,
    }
)
