"""Buckets: made, listed, described, removed."""

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Final

from warp_core.errors import AlreadyOwned

from warp_s3 import xml_output
from warp_s3.access.members import plain
from warp_s3.access.settings import ACL, OWNERSHIP
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.listing_arguments import count_argument
from warp_s3.metadata import check_refused
from warp_s3.operations.access import new_bucket_documents
from warp_s3.owners import owner_of
from warp_s3.receiving import read_document
from warp_s3.xml_input import location_constraint, versioning_status

if TYPE_CHECKING:
    from warp_s3.service import Service

FORGIVING_REGION: Final = "us-east-1"
"""Where making a bucket that one has already succeeds, as it always has; elsewhere it is an error."""

BUCKETS_PAGE: Final = 10_000
"""Buckets of one page; S3's own figure."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION: Final = re.compile(r"[A-Za-z0-9-]{1,63}")


async def list_buckets(service: "Service", call: Call) -> Answer:
    """List the caller's buckets; an administrator's are all."""
    principal = call.principal
    prefix = call.query.get("prefix", "")
    after = call.query.get("continuation-token", "")
    limit = count_argument(call.query, "max-buckets", BUCKETS_PAGE)
    found = [
        volume
        for volume in await service.objects.volumes()
        if (principal.admin or volume.owner == principal.name)
        and volume.name > after
        and volume.name.startswith(prefix)
    ]
    page = found[:limit]
    token = page[-1].name if page and len(page) < len(found) else ""
    owner = owner_of(await service.accounts(), principal.name)
    return xml(
        xml_output.buckets(
            page,
            owner=owner.canonical_id,
            display=owner.display,
            prefix=prefix,
            token=token,
        )
    )


async def create_bucket(service: "Service", call: Call) -> Answer:
    """Make a bucket."""
    body = await read_document(call)
    name = call.bucket
    if not valid_name(name):
        raise S3Error("InvalidBucketName", details={"BucketName": name})
    check_refused(call.headers)
    locked = call.headers.get("x-amz-bucket-object-lock-enabled", "false").lower() == "true"
    region = location_constraint(body)
    if region is not None and _REGION.fullmatch(region) is None:
        raise S3Error("InvalidLocationConstraint", details={"LocationConstraint": region})
    documents = await new_bucket_documents(service, call)
    try:
        await service.objects.create_volume(name, owner=plain(call.principal), locked=locked)
    except AlreadyOwned:
        if service.region != FORGIVING_REGION:
            raise
        await _check_same(service, name, documents, locked=locked)
        return empty(200, [("Location", f"/{name}")])
    for document, content in documents.items():
        await service.objects.set_document(name, document, content)
    return empty(200, [("Location", f"/{name}")])


async def _check_same(
    service: "Service", name: str, documents: Mapping[str, bytes], *, locked: bool
) -> None:
    """Refuse to make a bucket again as another one than it is.

    Raises:
        S3Error: `BucketAlreadyExists`.
    """
    volume = await service.objects.volume(name)
    kept = volume.documents
    if (
        kept.get(ACL, b"") != documents.get(ACL, b"")
        or (OWNERSHIP in documents and kept.get(OWNERSHIP) != documents[OWNERSHIP])
        or (locked and volume.lock is None)
    ):
        raise S3Error("BucketAlreadyExists")


async def head_bucket(service: "Service", call: Call) -> Answer:
    """Tell whether a bucket is there."""
    await service.objects.volume(call.bucket)
    return empty(
        200, [("x-amz-bucket-region", service.region), ("Content-Type", "application/xml")]
    )


async def delete_bucket(service: "Service", call: Call) -> Answer:
    """Remove an empty bucket."""
    await service.objects.delete_volume(call.bucket)
    return empty(204)


async def get_location(service: "Service", call: Call) -> Answer:
    """Say which region a bucket is in."""
    await service.objects.volume(call.bucket)
    return xml(xml_output.location(service.region))


async def get_versioning(service: "Service", call: Call) -> Answer:
    """Say whether versions are kept."""
    volume = await service.objects.volume(call.bucket)
    return xml(xml_output.versioning(volume.versioning))


async def put_versioning(service: "Service", call: Call) -> Answer:
    """Begin or suspend keeping versions."""
    status = versioning_status(await read_document(call))
    if status != "Enabled" and (await service.objects.volume(call.bucket)).lock is not None:
        raise S3Error(
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state "
            "cannot be changed.",
        )
    await service.objects.set_versioning(call.bucket, "on" if status == "Enabled" else "suspended")
    return empty(200)


def valid_name(name: str) -> bool:
    """Check a new bucket's name against the rules for general purpose buckets."""
    if _NAME.fullmatch(name) is None or ".." in name or ".-" in name or "-." in name:
        return False
    if name.startswith("xn--") or name.endswith(("-s3alias", "--ol-s3")):
        return False
    try:
        IPv4Address(name)
    except AddressValueError:
        return True
    return False
