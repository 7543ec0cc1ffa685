"""Objects: deleted, one by one or by the thousand."""

import asyncio
from typing import TYPE_CHECKING, Final

from warp_core.errors import AlreadyExists, NotFound, VersionNotFound, VolumeNotFound, WarpError
from warp_core.views.objects import Deleted

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.conditions import delete_condition, only_if
from warp_s3.errors import S3Error, from_core
from warp_s3.locking import bypasses
from warp_s3.provenance import provenance_of
from warp_s3.receiving import read_document
from warp_s3.router import KEY_MAX
from warp_s3.xml_input import DeletedKey, deleted_keys

if TYPE_CHECKING:
    from warp_s3.service import Service

AT_ONCE: Final = 64
"""Deletes of one request that run together, to share commits; the rest wait for them."""


async def delete_object(service: "Service", call: Call) -> Answer:
    """Delete an object, hide it behind a marker, or remove one of its versions for good."""
    condition = delete_condition(call.headers)
    provenance = provenance_of(call.headers)
    try:
        deleted = await service.objects.delete(
            call.bucket,
            call.key,
            version=call.query.get("versionId", ""),
            condition=condition,
            bypass=await bypasses(
                service, call, call.bucket, call.key, call.query.get("versionId", "")
            ),
            provenance=provenance,
        )
    except VolumeNotFound as error:
        raise S3Error("NoSuchBucket", details={"BucketName": call.bucket}) from error
    except AlreadyExists:  # the marker of another site, sent again as its answer was lost
        assert provenance is not None
        deleted = Deleted(version=provenance.version, marker=True)
    except VersionNotFound:
        # Deleting what is not there succeeds, of versions as of keys.
        deleted = Deleted(version=call.query.get("versionId", ""), found=False)
    headers = []
    if deleted.marker:
        headers.append(("x-amz-delete-marker", "true"))
    if deleted.version and (deleted.version != "null" or "versionId" in call.query):
        headers.append(("x-amz-version-id", deleted.version))
    return empty(204, headers)


async def delete_objects(service: "Service", call: Call) -> Answer:
    """Delete up to 1,000 keys; each succeeds or fails by itself."""
    keys, quiet = deleted_keys(await read_document(call))
    await service.objects.volume(call.bucket)
    rows: list[str] = []
    for start in range(0, len(keys), AT_ONCE):
        batch = keys[start : start + AT_ONCE]
        rows += await asyncio.gather(*[_delete(service, call, one, quiet) for one in batch])
    return xml(xml_output.document("DeleteResult", "".join(rows)))


async def _delete(service: "Service", call: Call, one: DeletedKey, quiet: bool) -> str:
    key = one.key.encode("utf-8", "surrogatepass")
    try:
        if not 1 <= len(key) <= KEY_MAX:
            raise S3Error("KeyTooLongError" if key else "UserKeyMustBeSpecified")
        version = one.version or ""
        await service.access.demand(call, "DeleteObject", call.bucket, key, version=version)
        deleted = await service.objects.delete(
            call.bucket,
            key,
            version=one.version or "",
            condition=only_if(
                etag=one.etag,
                size=one.size,
                modified=one.modified,
                names=("ETag", "Size", "LastModifiedTime"),
            ),
            bypass=await bypasses(service, call, call.bucket, key, version),
        )
    except NotFound:
        deleted = Deleted(version=one.version or "", found=False)
    except (S3Error, WarpError) as error:
        refusal = error if isinstance(error, S3Error) else from_core(error)
        return xml_output.delete_error_row(one.key, one.version, refusal.code, refusal.message)
    if quiet:
        return ""
    return xml_output.deleted_row(
        one.key, one.version, marker=deleted.marker, made=deleted.version or "null"
    )
