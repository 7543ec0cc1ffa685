"""Objects: deleted, one by one or by the thousand."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from warp_core.errors import AlreadyExists, NotFound, VersionNotFound, VolumeNotFound, WarpError
from warp_core.views.objects import TOGETHER_MAX, Deleted

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

AT_ONCE: Final = 256
"""Keys of one request that are deleted at once, so that their commits share syncs; the rest wait for them."""

_Outcome = Deleted | S3Error | WarpError


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
            origin=service.origin(call),
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
    """Delete up to 1,000 keys; each succeeds or fails by itself.

    Keys without a version or a condition are deleted several in one commit, all others one by one; commits of one request share syncs.
    """
    keys, quiet = deleted_keys(await read_document(call))
    await service.objects.volume(call.bucket)
    outcomes: list[_Outcome] = []
    for start in range(0, len(keys), AT_ONCE):
        outcomes += await _delete_some(service, call, keys[start : start + AT_ONCE])
    rows = [_row(one, outcome, quiet) for one, outcome in zip(keys, outcomes, strict=True)]
    return xml(xml_output.document("DeleteResult", "".join(rows)))


async def _delete_some(
    service: "Service", call: Call, some: Sequence[DeletedKey]
) -> Sequence[_Outcome]:
    """Delete keys at once and return what became of each."""
    outcomes: list[_Outcome | None] = [
        await _refused(service, call, one, one.key.encode("utf-8", "surrogatepass")) for one in some
    ]
    left = [index for index, outcome in enumerate(outcomes) if outcome is None]
    plain = [index for index in left if some[index].plain]
    groups = [plain[start : start + TOGETHER_MAX] for start in range(0, len(plain), TOGETHER_MAX)]
    groups += [[index] for index in left if not some[index].plain]

    async def work(group: Sequence[int]) -> None:
        found = await _delete_group(service, call, [some[index] for index in group])
        for index, outcome in zip(group, found, strict=True):
            outcomes[index] = outcome

    async with asyncio.TaskGroup() as tasks:
        for group in groups:
            tasks.create_task(work(group))
    return [outcome for outcome in outcomes if outcome is not None]


async def _refused(service: "Service", call: Call, one: DeletedKey, key: bytes) -> _Outcome | None:
    """Return why a key may not be deleted, or that it is not there; None if it may."""
    try:
        if not 1 <= len(key) <= KEY_MAX:
            raise S3Error("KeyTooLongError" if key else "UserKeyMustBeSpecified")
        await service.access.demand(
            call, "DeleteObject", call.bucket, key, version=one.version or ""
        )
    except NotFound:
        return Deleted(version=one.version or "", found=False)
    except (S3Error, WarpError) as error:
        return error
    return None


async def _delete_group(
    service: "Service", call: Call, group: Sequence[DeletedKey]
) -> Sequence[_Outcome]:
    """Delete keys in one commit, or one by one where they have to be, or where that does not work: then each has its own reason."""
    if len(group) > 1:
        with suppress(WarpError):
            keys = [one.key.encode("utf-8", "surrogatepass") for one in group]
            return await service.objects.delete_together(call.bucket, keys)
    return [await _delete(service, call, one) for one in group]


async def _delete(service: "Service", call: Call, one: DeletedKey) -> _Outcome:
    key = one.key.encode("utf-8", "surrogatepass")
    version = one.version or ""
    try:
        return await service.objects.delete(
            call.bucket,
            key,
            version=version,
            condition=only_if(
                etag=one.etag,
                size=one.size,
                modified=one.modified,
                names=("ETag", "Size", "LastModifiedTime"),
            ),
            bypass=await bypasses(service, call, call.bucket, key, version),
            origin=service.origin(call),
        )
    except NotFound:
        return Deleted(version=version, found=False)
    except (S3Error, WarpError) as error:
        return error


def _row(one: DeletedKey, outcome: _Outcome, quiet: bool) -> str:
    if not isinstance(outcome, Deleted):
        refusal = outcome if isinstance(outcome, S3Error) else from_core(outcome)
        return xml_output.delete_error_row(one.key, one.version, refusal.code, refusal.message)
    if quiet:
        return ""
    return xml_output.deleted_row(
        one.key, one.version, marker=outcome.marker, made=outcome.version or "null"
    )
