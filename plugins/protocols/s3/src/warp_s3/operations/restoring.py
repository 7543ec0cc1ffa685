"""RestoreObject, and what listings tell of it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
from warp_core.errors import IsDeleteMarker, NotFound
from warp_core.views.objects import ObjectInfo, RestoreInfo

from warp_s3.call import Answer, Call, empty
from warp_s3.errors import S3Error
from warp_s3.operations.objects import missing
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

STATUS: Final = "RestoreStatus"
"""What a listing is asked for beside what it always tells."""

_OF_QUERIES: Final = ("Type", "SelectParameters", "OutputLocation")
_TIERS: Final = frozenset({"Standard", "Bulk", "Expedited"})


class Asked(msgspec.Struct, frozen=True):
    """What a request says."""

    days: int
    tier: str


async def restore_object(service: "Service", call: Call) -> Answer:
    """Let an archive's content be readable for some days: 202 if it has to be brought back, 200 if it can be read already."""
    asked = read_request(await read_document(call))
    version = call.query.get("versionId", "")
    try:
        info = await service.objects.head(call.bucket, call.key, version=version)
        if info.storage_class == "DEEP_ARCHIVE" and asked.tier == "Expedited":
            raise S3Error(
                "InvalidArgument",
                "Expedited retrievals are not available for objects of the class DEEP_ARCHIVE.",
                details={"ArgumentName": "Tier", "ArgumentValue": asked.tier},
            )
        begun = await service.objects.restore(
            call.bucket,
            call.key,
            asked.days,
            tier=asked.tier,
            version=version,
            origin=service.origin(call),
        )
    except IsDeleteMarker as error:
        raise S3Error("MethodNotAllowed", headers={"Allow": "DELETE"}) from error
    except NotFound as error:
        raise missing(call, error) from error
    return empty(202 if begun else 200)


def read_request(body: bytes) -> Asked:
    """Read a request.

    Raises:
        S3Error: `MalformedXML`, `InvalidArgument`, or `NotImplemented` for a query over an archive.
    """
    document = parse(body, "RestoreRequest")
    if any(document.find(name) is not None for name in _OF_QUERIES):
        raise S3Error(
            "NotImplemented",
            "Queries over archives (Type SELECT) are not available: restore the object, then use SelectObjectContent.",
        )
    text = (document.findtext("Days") or "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise S3Error("MalformedXML")
    days = int(text)
    if not days:
        raise S3Error(
            "InvalidArgument",
            "Days must be a positive integer.",
            details={"ArgumentName": "Days", "ArgumentValue": text},
        )
    tiers = [document.findtext("Tier"), document.findtext("GlacierJobParameters/Tier")]
    said = [tier.strip() for tier in tiers if tier is not None]
    if any(tier not in _TIERS for tier in said):
        raise S3Error("MalformedXML")
    return Asked(days, said[-1] if said else "Standard")


def wants_status(call: Call) -> bool:
    """Say whether a listing is to tell what was restored.

    Raises:
        S3Error: `InvalidArgument`.
    """
    header = call.headers.get("x-amz-optional-object-attributes")
    if header is None:
        return False
    names = [name.strip() for name in header.split(",")]
    if any(name != STATUS for name in names):
        raise S3Error(
            "InvalidArgument",
            "Invalid attribute name specified",
            details={"ArgumentName": "x-amz-optional-object-attributes", "ArgumentValue": header},
        )
    return True


async def restores_of(
    service: "Service", call: Call, entries: Sequence[ObjectInfo], *, versions: bool = False
) -> Mapping[tuple[bytes, str], RestoreInfo]:
    """Return what was restored of a page's entries, by key and, in a listing of versions, version."""
    if not wants_status(call):
        return {}
    found: dict[tuple[bytes, str], RestoreInfo] = {}
    for entry in entries:
        if entry.storage_class == "STANDARD" or entry.marker:
            continue
        version = entry.version if versions else ""
        try:
            info = await service.objects.head(call.bucket, entry.key, version=version)
        except NotFound:
            continue
        if info.restore is not None:
            found[entry.key, version] = info.restore
    return found


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType({"RestoreObject": restore_object})
