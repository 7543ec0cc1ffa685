"""Notification configurations: checked, kept, and told to every target that they name; the `events` service carries them out."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring

import msgspec
from warp_core import notifications as core
from warp_core.errors import Unavailable
from warp_core.notifications import Rule

from warp_s3 import xml_output
from warp_s3.call import Answer, Call, empty, xml
from warp_s3.errors import S3Error
from warp_s3.receiving import read_document
from warp_s3.xml_input import parse

if TYPE_CHECKING:
    from warp_core.interfaces.targets import Targets

    from warp_s3.service import Service

Handler = Callable[["Service", Call], Coroutine[Any, Any, Answer]]

CONFIGURATIONS_MAX: Final = 100
"""Of one bucket; S3's own figure."""

VALUE_MAX: Final = 1024
"""Characters of a filter's prefix or suffix; S3's own figure."""

ID_MAX: Final = 255
"""Characters of a configuration's id."""

DOCUMENT_MAX: Final = 60 * 1024
"""Bytes of a volume's document, which the rules of a bucket are kept as."""

_SHAPES: Final[Mapping[str, tuple[core.Shape, str, str]]] = {
    # element: (shape, element of its ARN, service in the ARN)
    "TopicConfiguration": ("topic", "Topic", "sns"),
    "QueueConfiguration": ("queue", "Queue", "sqs"),
    "CloudFunctionConfiguration": ("function", "CloudFunction", "lambda"),
}
_PLACES: Final = {shape: place for shape, place, _ in _SHAPES.values()}
_ARN: Final = re.compile(r"arn:([^:]+):([^:]+):[^:]*:([^:]*):(.+)")

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


async def get_notifications(service: "Service", call: Call) -> Answer:
    """Tell a bucket's notification configuration, which may be empty."""
    document = (await service.objects.volume(call.bucket)).documents.get(core.DOCUMENT)
    rules = core.unpack(document).rules if document is not None else ()
    return xml(
        xml_output.document("NotificationConfiguration", "".join(_written(each) for each in rules))
    )


async def put_notifications(service: "Service", call: Call) -> Answer:
    """Replace a bucket's notification configuration, once every target that it names has taken a test event."""
    element = parse(await read_document(call), "NotificationConfiguration")
    volume = await service.objects.volume(call.bucket)
    now_ns = time.time_ns()
    rules = _since(read(element, service.targets), volume.documents.get(core.DOCUMENT), now_ns)
    if not rules:
        if core.DOCUMENT in volume.documents:
            await service.objects.set_document(call.bucket, core.DOCUMENT, None)
        return empty(200)
    document = core.pack(core.Notifications(rules, now_ns, call.bucket))
    if len(document) > DOCUMENT_MAX:
        raise S3Error("InvalidRequest", f"The rules take more than {DOCUMENT_MAX} bytes.")
    if call.headers.get("x-amz-skip-destination-validation", "").lower() != "true":
        await _test(service, call, rules)
    await service.objects.set_document(call.bucket, core.DOCUMENT, document)
    return empty(200)


def read(element: Element, targets: "Targets") -> tuple[Rule, ...]:
    """Read a NotificationConfiguration, checked as S3 does; what has no id gets one.

    Raises:
        S3Error: `InvalidArgument`, `MalformedXML`, or `NotImplemented` for EventBridge.
    """
    if len(element) > CONFIGURATIONS_MAX:
        raise _wrong(f"A bucket has at most {CONFIGURATIONS_MAX} notification configurations")
    rules: list[Rule] = []
    for each in element:
        if each.tag == "EventBridgeConfiguration":
            raise S3Error("NotImplemented", "There is no EventBridge that events could go to.")
        if each.tag not in _SHAPES:
            raise S3Error("MalformedXML")
        rules.append(_read(each, targets))
    names = [rule.id for rule in rules]
    if len(set(names)) < len(names) or any(len(name) > ID_MAX for name in names):
        raise _wrong(f"Notification configuration ids have to be unique, and at most {ID_MAX} long")
    for one, other in combinations(rules, 2):
        if _overlap(one, other):
            raise _wrong(
                "Configurations overlap. Configurations on the same bucket cannot share a common "
                "event type."
            )
    return tuple(rules)


def _read(element: Element, targets: "Targets") -> Rule:
    shape, place, _ = _SHAPES[element.tag]
    arn = element.findtext(place) or ""
    target = target_of(arn, element.tag)
    if target is None:
        raise _wrong("The ARN could not be parsed or is not of the destination's service")
    if target not in targets:
        raise _unreachable(place, arn, f"no [[event_target]] is called {target}")
    events = [event.text or "" for event in element.findall("Event")]
    if not events:
        raise S3Error("MalformedXML")
    for event in events:
        if event not in EVENTS:
            raise _wrong(f"The event '{event}' is not supported for notifications")
    found: dict[str, str] = {}
    written: list[str] = []
    for rule in element.findall("Filter/S3Key/FilterRule"):
        name, value = (rule.findtext("Name") or "").lower(), rule.findtext("Value") or ""
        if name not in {"prefix", "suffix"}:
            raise _wrong("filter rule name must be either prefix or suffix")
        if name in found:
            raise _wrong(f"Cannot specify more than one {name} rule in a filter.")
        if len(value) > VALUE_MAX:
            raise _wrong(f"Size of filter rule value cannot exceed {VALUE_MAX} bytes in UTF-8")
        found[name] = value
        written.append(rule.findtext("Name") or "")
    return Rule(
        id=element.findtext("Id") or secrets.token_urlsafe(36),
        arn=arn,
        target=target,
        shape=shape,
        events=tuple(events),
        prefix=found.get("prefix", ""),
        suffix=found.get("suffix", ""),
        filters=tuple(written),
    )


def target_of(arn: str, tag: str) -> str | None:
    """Return the name of the target that an ARN means, None where it is no ARN of the element's service.

    `arn:aws:sqs:REGION:ACCOUNT:NAME`, for functions `...:function:NAME` or `...:function:NAME:ALIAS`, whatever the region and account
    are. MinIO writes `arn:minio:sqs:REGION:NAME:KIND`.
    """
    match = _ARN.fullmatch(arn)
    if match is None or match[2] != _SHAPES[tag][2]:
        return None
    partition, _, account, resource = match.groups()
    if partition == "minio":
        return account or None
    if match[2] == "lambda":
        function = resource.split(":")
        return function[1] if function[0] == "function" and len(function) in (2, 3) else None
    return resource


def _since(rules: Sequence[Rule], before: bytes | None, now_ns: int) -> tuple[Rule, ...]:
    """Date rules: a target that is named already is named since then."""
    known = core.unpack(before).targets() if before is not None else {}
    return tuple(
        msgspec.structs.replace(
            rule,
            since_ns=known[rule.target][0].since_ns if rule.target in known else now_ns,
        )
        for rule in rules
    )


async def _test(service: "Service", call: Call, rules: Sequence[Rule]) -> None:
    """Send the event that S3 sends first to everything that a configuration names.

    Raises:
        S3Error: `InvalidArgument`: somebody did not take it.
    """
    from warp_core.interfaces.targets import Message  # a start does without

    request_id = call.body.request_id
    body = msgspec.json.encode(
        {
            "Service": "Amazon S3",
            "Event": "s3:TestEvent",
            "Time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "Bucket": call.bucket,
            "RequestId": request_id,
            "HostId": request_id,
        }
    )
    arns = {rule.target: rule for rule in rules}

    async def send(rule: Rule) -> None:
        message = Message(f"test-{secrets.token_hex(8)}", body, call.bucket, "TestEvent")
        try:
            await service.targets[rule.target].send(message)
        except Unavailable as error:
            place = _PLACES[rule.shape]
            raise _unreachable(place, rule.arn, str(error)) from error

    refused = await asyncio.gather(*(send(rule) for rule in arns.values()), return_exceptions=True)
    for each in refused:
        if isinstance(each, BaseException):
            raise each


def _written(rule: Rule) -> str:
    """Write a rule as it came."""
    tag, place = next((tag, each[1]) for tag, each in _SHAPES.items() if each[0] == rule.shape)
    root = Element(tag)
    SubElement(root, "Id").text = rule.id
    SubElement(root, place).text = rule.arn
    for event in rule.events:
        SubElement(root, "Event").text = event
    if rule.filters:
        key = SubElement(SubElement(root, "Filter"), "S3Key")
        for name in rule.filters:
            filter_rule = SubElement(key, "FilterRule")
            SubElement(filter_rule, "Name").text = name
            value = rule.prefix if name.lower() == "prefix" else rule.suffix
            SubElement(filter_rule, "Value").text = value
    return tostring(root, encoding="unicode")


def _overlap(one: Rule, other: Rule) -> bool:
    """Say whether an event of one key could fit both."""
    same = any(_fits(a, b) or _fits(b, a) for a in one.events for b in other.events)
    starts = one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)
    ends = one.suffix.endswith(other.suffix) or other.suffix.endswith(one.suffix)
    return same and starts and ends


def _fits(event: str, pattern: str) -> bool:
    return event == pattern or (pattern.endswith(":*") and event.startswith(pattern[:-1]))


def _unreachable(place: str, arn: str, why: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Unable to validate the following destination configurations: {why}",
        details={"ArgumentName": place, "ArgumentValue": arn},
    )


def _wrong(message: str) -> S3Error:
    return S3Error("InvalidArgument", message)


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "GetBucketNotificationConfiguration": get_notifications,
        "PutBucketNotificationConfiguration": put_notifications,
    }
)
