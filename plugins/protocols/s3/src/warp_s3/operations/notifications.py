"""Notification configurations: checked and kept. Whether anybody is at the destination is not asked."""

import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element, SubElement

import msgspec

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.operations.configurations import inner
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

NOTIFICATIONS: Final = "s3.notification"
"""Name of the volume's document: what is inside the NotificationConfiguration, in XML."""

CONFIGURATIONS_MAX: Final = 100
"""Of one bucket; S3's own figure."""

VALUE_MAX: Final = 1024
"""Characters of a filter's prefix or suffix; S3's own figure."""

_TARGETS: Final = {
    # element: (element of its ARN, service in the ARN)
    "TopicConfiguration": ("Topic", "sns"),
    "QueueConfiguration": ("Queue", "sqs"),
    "CloudFunctionConfiguration": ("CloudFunction", "lambda"),
}
_ARN: Final = re.compile(r"arn:[^:]+:([^:]+):[^:]*:[^:]*:.+")

# "Event notification types and destinations" in S3's user guide.
_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3:TestEvent": (),
    "s3:ReducedRedundancyLostObject": (),
    "s3:ObjectCreated": ("Put", "Post", "Copy", "CompleteMultipartUpload"),
    "s3:ObjectRemoved": ("Delete", "DeleteMarkerCreated"),
    "s3:ObjectRestore": ("Post", "Completed", "Delete"),
    "s3:Replication": (
        "OperationFailedReplication",
        "OperationMissedThreshold",
        "OperationReplicatedAfterThreshold",
        "OperationNotTracked",
    ),
    "s3:LifecycleExpiration": ("Delete", "DeleteMarkerCreated"),
    "s3:LifecycleTransition": (),
    "s3:IntelligentTiering": (),
    "s3:ObjectTagging": ("Put", "Delete"),
    "s3:ObjectAcl": ("Put",),
}
EVENTS: Final = frozenset(
    {f"{kind}:{each}" for kind, every in _EVENTS.items() for each in (*every, "*") if every}
    | {kind for kind, every in _EVENTS.items() if not every}
)


class _Said(msgspec.Struct, frozen=True):
    """What one configuration listens to."""

    events: frozenset[str]
    prefix: str
    suffix: str


async def get_notifications(service: "Service", call: Call) -> Answer:
    """Tell a bucket's notification configuration, which may be empty."""
    document = (await service.objects.volume(call.bucket)).documents.get(NOTIFICATIONS, b"")
    return xml(xml_output.document("NotificationConfiguration", document.decode()))


async def put_notifications(service: "Service", call: Call) -> Answer:
    """Replace a bucket's notification configuration."""
    element = parse(await read_document(call), "NotificationConfiguration")
    volume = await service.objects.volume(call.bucket)
    check(element)
    document = inner(element).encode() or None
    if document is not None or NOTIFICATIONS in volume.documents:
        await service.objects.set_document(call.bucket, NOTIFICATIONS, document)
    return empty(200)


def check(element: Element) -> None:
    """Check a NotificationConfiguration as S3 does, and give ids to what has none.

    Raises:
        S3Error: `InvalidArgument` or `MalformedXML`.
    """
    if len(element) > CONFIGURATIONS_MAX:
        raise _wrong(f"A bucket has at most {CONFIGURATIONS_MAX} notification configurations")
    names: set[str] = set()
    said: list[_Said] = []
    for each in element:
        if each.tag == "EventBridgeConfiguration":
            continue
        if each.tag not in _TARGETS:
            raise S3Error("MalformedXML")
        said.append(_read(each))
        name = each.find("Id")
        if name is None:
            name = SubElement(each, "Id")
        if not name.text:
            name.text = secrets.token_urlsafe(36)
        if len(name.text) > 255 or name.text in names:
            raise _wrong("Notification configuration ids have to be unique, and at most 255 long")
        names.add(name.text)
    for one, other in combinations(said, 2):
        if _overlap(one, other):
            raise _wrong(
                "Configurations overlap. Configurations on the same bucket cannot share a common "
                "event type."
            )


def _read(element: Element) -> _Said:
    place, service = _TARGETS[element.tag]
    match = _ARN.fullmatch(element.findtext(place) or "")
    if match is None or match[1] != service:
        raise _wrong("The ARN could not be parsed or is not of the destination's service")
    events = [event.text or "" for event in element.findall("Event")]
    if not events:
        raise S3Error("MalformedXML")
    for event in events:
        if event not in EVENTS:
            raise _wrong(f"The event '{event}' is not supported for notifications")
    found: dict[str, str] = {}
    for rule in element.findall("Filter/S3Key/FilterRule"):
        name, value = (rule.findtext("Name") or "").lower(), rule.findtext("Value") or ""
        if name not in {"prefix", "suffix"}:
            raise _wrong("filter rule name must be either prefix or suffix")
        if name in found:
            raise _wrong(f"Cannot specify more than one {name} rule in a filter.")
        if len(value) > VALUE_MAX:
            raise _wrong(f"Size of filter rule value cannot exceed {VALUE_MAX} bytes in UTF-8")
        found[name] = value
    return _Said(frozenset(events), found.get("prefix", ""), found.get("suffix", ""))


def _overlap(one: _Said, other: _Said) -> bool:
    """Say whether an event of one key could fit both."""
    same = any(_fits(a, b) or _fits(b, a) for a in one.events for b in other.events)
    starts = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
    ends = one.suffix.endswith(other.suffix) or other.suffix.endswith(one.suffix)
    return same and starts and ends


def _fits(event: str, pattern: str) -> bool:
    return event == pattern or (pattern.endswith(":*") and event.startswith(pattern[:-1]))


def _wrong(message: str) -> S3Error:
    return S3Error("InvalidArgument", message)


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetBucketNotificationConfiguration": get_notifications,
        "PutBucketNotificationConfiguration": put_notifications,
    }
)
