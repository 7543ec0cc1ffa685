"""Settings of access: ACLs of buckets and objects, object ownership, public access block, bucket policies."""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element

import msgspec
from warp_core.errors import NotFound

from warp_s3 import xml_output
from warp_s3.access import acl as acls
from warp_s3.access.acl import FULL_CONTROL, Acl, Grant
from warp_s3.access.judging import refuse_unless_harmless
from warp_s3.access.policy import POLICY_MAX, Malformed, is_public, read
from warp_s3.access.settings import (
    ACL,
    BLOCK,
    ENFORCED,
    OWNERSHIP,
    OWNERSHIPS,
    POLICY,
    Block,
    Settings,
)
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.operations.objects import missing
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

_BLOCK_ELEMENTS: Final = {
    "BlockPublicAcls": "block_public_acls",
    "IgnorePublicAcls": "ignore_public_acls",
    "BlockPublicPolicy": "block_public_policy",
    "RestrictPublicBuckets": "restrict_public_buckets",
}


# ACLs ---------------------------------------------------------------------------------------------


async def get_bucket_acl(service: "Service", call: Call) -> Answer:
    """Tell a bucket's ACL."""
    settings = await service.access.settings(call.bucket)
    shown = None if settings.enforced else settings.acl
    return xml(acls.to_xml(shown, settings.owner, await service.accounts()))


async def put_bucket_acl(service: "Service", call: Call) -> Answer:
    """Replace a bucket's ACL."""
    settings = await service.access.settings(call.bucket)
    made = await _said(service, call, settings, settings.owner, bucket=True)
    if not settings.enforced:
        document = acls.pack(made) if made is not None else None
        await service.objects.set_document(call.bucket, ACL, document)
    return empty(200)


async def get_object_acl(service: "Service", call: Call) -> Answer:
    """Tell an object's ACL."""
    settings = await service.access.settings(call.bucket)
    try:
        info = await service.objects.head(
            call.bucket, call.key, version=call.query.get("versionId", "")
        )
    except NotFound as error:
        raise missing(call, error) from error
    owner, shown = settings.owner, None
    if not settings.enforced:
        owner = info.attributes.owner or owner
        shown = acls.unpack(info.attributes.acl)
    headers = [("x-amz-version-id", info.version)] if info.version != "null" else []
    return xml(acls.to_xml(shown, owner, await service.accounts()), headers=headers)


async def put_object_acl(service: "Service", call: Call) -> Answer:
    """Replace an object's ACL."""
    settings = await service.access.settings(call.bucket)
    version = call.query.get("versionId", "")
    try:
        info = await service.objects.head(call.bucket, call.key, version=version)
    except NotFound as error:
        raise missing(call, error) from error
    owner = settings.owner if settings.enforced else info.attributes.owner or settings.owner
    made = await _said(service, call, settings, owner, bucket=False)
    if not settings.enforced:
        origin = service.origin(call)
        await service.objects.set_acl(
            call.bucket, call.key, acls.pack(made), version=version, origin=origin
        )
    return empty(200, [("x-amz-version-id", info.version)] if info.version != "null" else None)


async def _said(
    service: "Service", call: Call, settings: Settings, owner: str, *, bucket: bool
) -> Acl | None:
    """Read the ACL of a request's body or headers, and check that it may be set.

    Raises:
        S3Error: `AccessControlListNotSupported`, `AccessDenied`, `MissingSecurityHeader`, `UnexpectedContent`, what `acl` raises.
    """
    body = await read_document(call)
    accounts = await service.accounts()
    in_headers = not acls.HEADERS.isdisjoint(call.headers)
    if body and in_headers:
        raise S3Error("UnexpectedContent")
    if not body and not in_headers:
        raise S3Error("MissingSecurityHeader", details={"MissingHeaderName": "x-amz-acl"})
    made: Acl | None
    if settings.enforced and in_headers:
        refuse_unless_harmless(call.headers)
        return None
    if body:
        try:
            made = acls.from_xml(body, accounts, owner=owner)
        except S3Error:
            if settings.enforced:
                raise S3Error("AccessControlListNotSupported") from None
            raise
        if settings.enforced and set(made) - {Grant(settings.owner, FULL_CONTROL)}:
            raise S3Error("AccessControlListNotSupported")
    else:
        made = acls.from_headers(
            call.headers, accounts, owner=owner, bucket_owner=settings.owner, bucket=bucket
        )
    if settings.block.block_public_acls and acls.is_public(made):
        raise S3Error("AccessDenied")
    return made


# A new bucket's -----------------------------------------------------------------------------------


async def new_bucket_documents(service: "Service", call: Call) -> dict[str, bytes]:
    """Return the documents that CreateBucket's headers ask for.

    Raises:
        S3Error: `InvalidArgument`, `InvalidBucketAclWithObjectOwnership`, `AccessDenied`.
    """
    documents: dict[str, bytes] = {}
    said = call.headers.get("x-amz-object-ownership")
    if said is not None:
        if said not in OWNERSHIPS:
            raise S3Error(
                "InvalidArgument",
                f"Invalid x-amz-object-ownership header: {said}",
                details={"ArgumentName": "x-amz-object-ownership", "ArgumentValue": said},
            )
        documents[OWNERSHIP] = said.encode()
    if acls.HEADERS.isdisjoint(call.headers):
        return documents
    owner = call.principal.name
    made = acls.from_headers(
        call.headers, await service.accounts(), owner=owner, bucket_owner=owner, bucket=True
    )
    if made is None:
        return documents
    if (said or service.config.object_ownership) == ENFORCED:
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    if service.config.block_public_access and acls.is_public(made):
        raise S3Error("AccessDenied")
    return {**documents, ACL: acls.pack(made)}


# Ownership and public access ----------------------------------------------------------------------


async def get_ownership(service: "Service", call: Call) -> Answer:
    """Tell whose the objects of a bucket are."""
    settings = await service.access.settings(call.bucket)
    if not settings.ownership_said:
        raise S3Error("OwnershipControlsNotFoundError", details={"BucketName": call.bucket})
    return xml(
        xml_output.document(
            "OwnershipControls",
            f"<Rule><ObjectOwnership>{settings.ownership}</ObjectOwnership></Rule>",
        )
    )


async def put_ownership(service: "Service", call: Call) -> Answer:
    """Say whose the objects of a bucket are."""
    rules = parse(await read_document(call), "OwnershipControls").findall("Rule")
    said = rules[0].findtext("ObjectOwnership") if len(rules) == 1 else None
    if said not in OWNERSHIPS:
        raise S3Error("MalformedXML")
    settings = await service.access.settings(call.bucket)
    if said == ENFORCED and any(
        grant.grantee != settings.owner for grant in acls.effective(settings.acl, settings.owner)
    ):
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    await service.objects.set_document(call.bucket, OWNERSHIP, said.encode())
    return empty(200)


async def delete_ownership(service: "Service", call: Call) -> Answer:
    """Take the ownership controls away: objects are their writers'."""
    await service.objects.set_document(call.bucket, OWNERSHIP, b"")
    return empty(204)


async def get_block(service: "Service", call: Call) -> Answer:
    """Tell what is kept from everybody."""
    settings = await service.access.settings(call.bucket)
    if not settings.block_said:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", details={"BucketName": call.bucket})
    rows = "".join(
        [
            f"<{element}>{'true' if getattr(settings.block, field) else 'false'}</{element}>"
            for element, field in _BLOCK_ELEMENTS.items()
        ]
    )
    return xml(xml_output.document("PublicAccessBlockConfiguration", rows))


async def put_block(service: "Service", call: Call) -> Answer:
    """Say what is kept from everybody."""
    made = parse(await read_document(call), "PublicAccessBlockConfiguration")
    block = Block(**{field: _bool(made, name) for name, field in _BLOCK_ELEMENTS.items()})
    await service.objects.set_document(call.bucket, BLOCK, msgspec.json.encode(block))
    return empty(200)


async def delete_block(service: "Service", call: Call) -> Answer:
    """Take the public access block away."""
    await service.objects.set_document(call.bucket, BLOCK, b"")
    return empty(204)


def _bool(made: Element, name: str) -> bool:
    text = made.findtext(name, "false").strip().lower()
    if text not in {"true", "false"}:
        raise S3Error("MalformedXML")
    return text == "true"


# Policies -----------------------------------------------------------------------------------------


async def get_policy(service: "Service", call: Call) -> Answer:
    """Give a bucket's policy back as it was set."""
    volume = await service.objects.volume(call.bucket)
    document = volume.documents.get(POLICY)
    if document is None:
        raise S3Error("NoSuchBucketPolicy", details={"BucketName": call.bucket})
    await _owner_only(service, call)
    return Answer(200, [("Content-Type", "application/json")], document, len(document))


async def put_policy(service: "Service", call: Call) -> Answer:
    """Set a bucket's policy."""
    document = await read_document(call)
    await _owner_only(service, call)
    if not document:
        raise S3Error("MissingRequestBodyError")
    if len(document) > POLICY_MAX:
        raise S3Error(
            "MalformedPolicy", f"Policies of more than {POLICY_MAX} bytes are not allowed"
        )
    known = await service.known_principal()
    try:
        made = read(document, call.bucket, known=known)
    except Malformed as error:
        raise S3Error("MalformedPolicy", str(error)) from error
    settings = await service.access.settings(call.bucket)
    if settings.block.block_public_policy and is_public(made):
        raise S3Error(
            "AccessDenied",
            "Public policies are prevented by the BlockPublicPolicy setting in S3 Block Public Access.",
        )
    await service.objects.set_document(call.bucket, POLICY, document)
    return empty(204)


async def delete_policy(service: "Service", call: Call) -> Answer:
    """Take a bucket's policy away."""
    await _owner_only(service, call)
    await service.objects.set_document(call.bucket, POLICY, None)
    return empty(204)


async def get_policy_status(service: "Service", call: Call) -> Answer:
    """Say whether a bucket lets everybody in, by its policy or its ACL; without a policy, too, where S3 has no answer."""
    settings = await service.access.settings(call.bucket)
    by_acl = (
        not settings.enforced
        and not settings.block.ignore_public_acls
        and acls.is_public(settings.acl)
    )
    text = "true" if settings.policy_public or by_acl else "false"
    return xml(xml_output.document("PolicyStatus", f"<IsPublic>{text}</IsPublic>"))


async def _owner_only(service: "Service", call: Call) -> None:
    """Let only the bucket's owner at its policy, whatever the policy allows others.

    Raises:
        S3Error: `MethodNotAllowed`, as S3 answers others who have the permission.
    """
    principal = call.principal
    if principal.admin:
        return
    owner = (await service.access.settings(call.bucket)).owner
    if owner not in {principal.name, *principal.aliases}:
        raise S3Error("MethodNotAllowed")


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetBucketAcl": get_bucket_acl,
        "PutBucketAcl": put_bucket_acl,
        "GetObjectAcl": get_object_acl,
        "PutObjectAcl": put_object_acl,
        "GetBucketOwnershipControls": get_ownership,
        "PutBucketOwnershipControls": put_ownership,
        "DeleteBucketOwnershipControls": delete_ownership,
        "GetPublicAccessBlock": get_block,
        "PutPublicAccessBlock": put_block,
        "DeletePublicAccessBlock": delete_block,
        "GetBucketPolicy": get_policy,
        "PutBucketPolicy": put_policy,
        "DeleteBucketPolicy": delete_policy,
        "GetBucketPolicyStatus": get_policy_status,
    }
)
