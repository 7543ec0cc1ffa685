"""Configurations that a bucket has several of, each with an id: inventories, analytics, metrics, intelligent tiering.

They are checked, kept and listed as S3 does. Nothing is reported or moved by them.
"""

import re
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from xml.etree.ElementTree import Element, tostring

import msgspec

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.listing_arguments import read_token, write_token
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

PAGE: Final = 100
"""Configurations of one page; S3's own figure."""

DOCUMENT_MAX: Final = 60 * 1024
"""Bytes of all configurations of one kind: they are one document of the volume, some 200 of them."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class _Kind(NamedTuple):
    """One kind of configuration."""

    noun: str  # in names of operations
    root: str  # element of one
    listed: str  # root element of a page
    check: Callable[[Element], bool]


def _one_of(element: Element, path: str, *allowed: str) -> bool:
    return element.findtext(path) in allowed


def _inventory(element: Element) -> bool:
    place = "Destination/S3BucketDestination"
    return (
        _one_of(element, "IsEnabled", "true", "false")
        and _one_of(element, "IncludedObjectVersions", "All", "Current")
        and _one_of(element, "Schedule/Frequency", "Daily", "Weekly")
        and _one_of(element, f"{place}/Format", "CSV", "ORC", "Parquet")
        and (element.findtext(f"{place}/Bucket") or "").startswith("arn:aws:s3:::")
    )


def _analytics(element: Element) -> bool:
    return element.find("StorageClassAnalysis") is not None


def _metrics(element: Element) -> bool:
    return all(child.tag in {"Id", "Filter"} for child in element)


def _tiering(element: Element) -> bool:
    tiers = element.findall("Tiering")
    return (
        _one_of(element, "Status", "Enabled", "Disabled")
        and bool(tiers)
        and all(
            _one_of(tier, "AccessTier", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS")
            and (tier.findtext("Days") or "").isdigit()
            for tier in tiers
        )
    )


_KINDS: Final = (
    _Kind("Inventory", "InventoryConfiguration", "ListInventoryConfigurationsResult", _inventory),
    _Kind(
        "Analytics",
        "AnalyticsConfiguration",
        "ListBucketAnalyticsConfigurationsResult",
        _analytics,
    ),
    _Kind("Metrics", "MetricsConfiguration", "ListMetricsConfigurationsResult", _metrics),
    _Kind(
        "IntelligentTiering",
        "IntelligentTieringConfiguration",
        "ListBucketIntelligentTieringConfigurationsOutput",
        _tiering,
    ),
)


def inner(element: Element) -> str:
    """Write what is inside an element that `parse` gave."""
    return "".join(tostring(child, encoding="unicode") for child in element)


def _document(kind: _Kind) -> str:
    return f"s3.{kind.noun.lower()}"


async def _kept(service: "Service", call: Call, kind: _Kind) -> dict[str, str]:
    document = (await service.objects.volume(call.bucket)).documents.get(_document(kind))
    return {} if document is None else msgspec.json.decode(document, type=dict[str, str])


async def _keep(service: "Service", call: Call, kind: _Kind, kept: dict[str, str]) -> None:
    document = msgspec.json.encode(kept) if kept else None
    if document is not None and len(document) > DOCUMENT_MAX:
        raise S3Error("TooManyConfigurations")
    await service.objects.set_document(call.bucket, _document(kind), document)


def _getting(kind: _Kind) -> Handler:
    async def get(service: "Service", call: Call) -> Answer:
        kept = await _kept(service, call, kind)
        name = call.query.get("id")
        if name is None:
            return _page(call, kind, kept)
        if name not in kept:
            raise S3Error("NoSuchConfiguration")
        return xml(xml_output.document(kind.root, kept[name]))

    return get


def _page(call: Call, kind: _Kind, kept: Mapping[str, str]) -> Answer:
    token = call.query.get("continuation-token", "")
    after = read_token(token).decode("utf-8", "replace") if token else ""
    names = [name for name in sorted(kept) if name > after]
    page = names[:PAGE]
    parts = [f"<{kind.root}>{kept[name]}</{kind.root}>" for name in page]
    more = len(page) < len(names)
    parts.append(f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>")
    if token:
        parts.append(f"<ContinuationToken>{xml_output.escape(token)}</ContinuationToken>")
    if more:
        following = write_token(page[-1].encode())
        parts.append(f"<NextContinuationToken>{following}</NextContinuationToken>")
    return xml(xml_output.document(kind.listed, "".join(parts)))


def _putting(kind: _Kind) -> Handler:
    async def put(service: "Service", call: Call) -> Answer:
        name = _named(call)
        element = parse(await read_document(call), kind.root)
        kept = await _kept(service, call, kind)
        if not kind.check(element):
            raise S3Error("MalformedXML")
        if element.findtext("Id") != name:
            raise S3Error(
                "InvalidArgument",
                "The id of the configuration is not that of the request.",
                details={"ArgumentName": "id", "ArgumentValue": name},
            )
        await _keep(service, call, kind, {**kept, name: inner(element)})
        return empty(200)

    return put


def _deleting(kind: _Kind) -> Handler:
    async def delete(service: "Service", call: Call) -> Answer:
        name = _named(call)
        kept = await _kept(service, call, kind)
        if name not in kept:
            raise S3Error("NoSuchConfiguration")
        del kept[name]
        await _keep(service, call, kind, kept)
        return empty(204)

    return delete


def _named(call: Call) -> str:
    name = call.query.get("id", "")
    if _ID.fullmatch(name) is None:
        raise S3Error(
            "InvalidArgument",
            "The id of a configuration is 1 to 64 letters, digits, dots, dashes and underscores.",
            details={"ArgumentName": "id", "ArgumentValue": name},
        )
    return name


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        f"{verb}Bucket{kind.noun}Configuration": make(kind)
        for kind in _KINDS
        for verb, make in (("Get", _getting), ("Put", _putting), ("Delete", _deleting))
    }
)
