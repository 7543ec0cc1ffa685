"""Lifecycle configurations in XML ↔ rules of core, and the expiry that objects are told with."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final
from urllib.parse import quote
from xml.etree.ElementTree import Element

import msgspec
from warp_core import lifecycle
from warp_core.lifecycle import Lifecycle, Move, Rule
from warp_core.views.objects import ObjectInfo

from warp_s3.errors import S3Error
from warp_s3.locking import moment
from warp_s3.xml_input import TAG_KEY_MAX, TAG_VALUE_MAX, parse
from warp_s3.xml_output import escape

RULES_MAX: Final = 1000
ID_MAX: Final = 255
PREFIX_MAX: Final = 1024
KEEP_MAX: Final = 100
"""S3's own figures."""

CLASSES: Final = frozenset(
    {"STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE"}
)
"""What objects may move to."""

_SINCE: Final[Mapping[str, int]] = {"STANDARD_IA": 30, "ONEZONE_IA": 30}
"""Days that an object stays in STANDARD before it may move to these."""

MINIMUM_HEADER: Final = "x-amz-transition-default-minimum-object-size"
ALL_CLASSES: Final = "all_storage_classes_128K"
VARIES: Final = "varies_by_storage_class"
_SMALL: Final = ("GLACIER", "DEEP_ARCHIVE")
"""Classes that small objects move to as well, where the minimum varies by class."""

_ACTIONS: Final = (
    "Expiration",
    "Transition",
    "NoncurrentVersionExpiration",
    "NoncurrentVersionTransition",
    "AbortIncompleteMultipartUpload",
)
_PREDICATES: Final = frozenset({"Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"})

# How a rule said its filter.
_AS_PREFIX: Final = "prefix"
_AS_FILTER: Final = "filter"
_AS_AND: Final = "and"


def read_configuration(body: bytes, minimum: str, *, minimums: bool = True) -> Lifecycle:
    """Read a LifecycleConfiguration document and check it as S3 does.

    Args:
        body: The document.
        minimum: What the request says about small objects, or nothing.
        minimums: Demand that objects stay in STANDARD for 30 days before they move to an IA class, and leave small ones there.

    Raises:
        S3Error: `MalformedXML`, `InvalidRequest`, `InvalidArgument` or `InvalidTag`.
    """
    if minimum not in {"", ALL_CLASSES, VARIES}:
        raise S3Error("InvalidRequest", f"Invalid value for {MINIMUM_HEADER}")
    elements = parse(body, "LifecycleConfiguration").findall("Rule")
    if not 1 <= len(elements) <= RULES_MAX:
        raise S3Error("MalformedXML")
    rules = tuple(_rule(element, days_min=minimums) for element in elements)
    if len({rule.id for rule in rules}) < len(rules):
        raise _argument("Rule ID must be unique. Found same ID for more than one rule")
    if not minimums:
        return Lifecycle(rules, tuple(sorted(CLASSES)))
    return Lifecycle(rules, _SMALL if minimum == VARIES else ())


def _rule(element: Element, *, days_min: bool) -> Rule:
    status = element.findtext("Status")
    if status not in {"Enabled", "Disabled"}:
        raise S3Error("MalformedXML")
    said = element.findtext("ID") or secrets.token_urlsafe(36)
    if len(said) > ID_MAX:
        raise _argument(f"ID length should not exceed allowed limit of {ID_MAX}")
    rule = msgspec.structs.replace(
        _filtered(element, Rule(id=said, enabled=status == "Enabled")),
        moves=tuple(_move(each, days_min=days_min) for each in element.findall("Transition")),
        noncurrent_moves=tuple(
            _noncurrent_move(each, days_min=days_min)
            for each in element.findall("NoncurrentVersionTransition")
        ),
    )
    if not any(element.find(action) is not None for action in _ACTIONS):
        raise _request("At least one action needs to be specified in a rule")
    rule = _expiring(element, rule)
    _check_together(rule)
    return rule


def _filtered(element: Element, rule: Rule) -> Rule:
    """Read what a rule is about."""
    prefix, chosen = element.find("Prefix"), element.find("Filter")
    if (prefix is None) == (chosen is None):
        raise S3Error("MalformedXML")
    if chosen is None:
        assert prefix is not None
        return msgspec.structs.replace(rule, prefix=_prefix(prefix.text), written=_AS_PREFIX)
    both = chosen.find("And")
    # What stands side by side has to hold together, as in an And: S3 wants the And, other servers do not.
    parts = [part for part in chosen if part is not both]
    if both is not None:
        if len(both) < 2:
            raise S3Error("MalformedXML")
        parts += both
    names = [part.tag for part in parts]
    if not _PREDICATES.issuperset(names):
        raise S3Error("MalformedXML")
    if any(names.count(name) > 1 for name in _PREDICATES - {"Tag", "Prefix"}):
        raise S3Error("MalformedXML")
    found = {part.tag: part.text or "" for part in parts}
    prefixes = [part.text or "" for part in parts if part.tag == "Prefix"]
    prefix_of_all = max(prefixes, key=len, default="")
    if not all(map(prefix_of_all.startswith, prefixes)):
        raise S3Error("MalformedXML")
    larger = _size(found.get("ObjectSizeGreaterThan"), least=0)
    smaller = _size(found.get("ObjectSizeLessThan"), least=1)
    if larger is not None and smaller is not None and larger + 1 >= smaller:
        raise _request(
            "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan' by at "
            "least 2."
        )
    tags = _tags([part for part in parts if part.tag == "Tag"])
    several = [prefix_of_all or None, *tags, larger, smaller]
    joined = both is not None or sum(one is not None for one in several) > 1
    return msgspec.structs.replace(
        rule,
        prefix=_prefix(prefix_of_all),
        tags=tags,
        larger_than=larger,
        smaller_than=smaller,
        written=_AS_AND if joined else _AS_FILTER,
    )


def _prefix(text: str | None) -> str:
    prefix = text or ""
    if len(prefix.encode()) > PREFIX_MAX:
        raise _request(f"The maximum size of a prefix is {PREFIX_MAX}.")
    return prefix


def _tags(elements: Sequence[Element]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for element in elements:
        key, value = element.findtext("Key"), element.findtext("Value")
        if key is None or value is None:
            raise S3Error("MalformedXML")
        if not 1 <= len(key) <= TAG_KEY_MAX:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid")
        if len(value) > TAG_VALUE_MAX:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid")
        if key in tags:
            raise _request("Duplicate Tag Keys are not allowed.")
        tags[key] = value
    return tags


def _size(text: str | None, *, least: int) -> int | None:
    if text is None:
        return None
    size = _number(text)
    if size < least:
        raise S3Error("InvalidRequest", "Filter element is invalid: sizes are not negative.")
    return size


def _expiring(element: Element, rule: Rule) -> Rule:
    """Read what goes, and when."""
    changes: dict[str, object] = {}
    expiration = element.find("Expiration")
    if expiration is not None:
        changes |= _expiration(expiration, rule)
    noncurrent = element.find("NoncurrentVersionExpiration")
    if noncurrent is not None:
        name = "NoncurrentVersionExpiration"
        changes["noncurrent_days"] = _positive(noncurrent, "NoncurrentDays", name)
        changes["noncurrent_keep"] = _keep(noncurrent, name)
    abort = element.find("AbortIncompleteMultipartUpload")
    if abort is not None:
        _refuse_filter(rule, "AbortIncompleteMultipartUpload")
        changes["upload_days"] = _positive(
            abort, "DaysAfterInitiation", "AbortIncompleteMultipartUpload"
        )
    return msgspec.structs.replace(rule, **changes)


def _expiration(element: Element, rule: Rule) -> dict[str, object]:
    days, date = element.findtext("Days"), element.findtext("Date")
    markers = element.findtext("ExpiredObjectDeleteMarker")
    if [days, date, markers].count(None) != 2:
        raise S3Error("MalformedXML")
    if days is not None:
        return {"days": _positive(element, "Days", "Expiration")}
    if date is not None:
        return {"at_s": _midnight(date)}
    _refuse_filter(rule, "ExpiredObjectDeleteMarker")
    if markers not in {"true", "false"}:
        raise S3Error("MalformedXML")
    return {"lone_markers": markers == "true"}


def _refuse_filter(rule: Rule, action: str) -> None:
    if rule.tags:
        raise _request(f"Tag-based filter cannot be used with {action} action")
    if rule.larger_than is not None or rule.smaller_than is not None:
        raise _request(f"Object size-based filter cannot be used with {action} action")


def _move(element: Element, *, days_min: bool) -> Move:
    name = element.findtext("StorageClass")
    days, date = element.findtext("Days"), element.findtext("Date")
    if name not in CLASSES or (days is None) == (date is None):
        raise S3Error("MalformedXML")
    if date is not None:
        return Move(name, at_s=_midnight(date))
    number = _number(days or "")
    if number < 0:
        raise _argument("'Days' in Transition action must be nonnegative")
    _check_days(name, number, "Days", "Transition", days_min=days_min)
    return Move(name, number)


def _noncurrent_move(element: Element, *, days_min: bool) -> Move:
    name = element.findtext("StorageClass")
    if name not in CLASSES:
        raise S3Error("MalformedXML")
    number = _number(element.findtext("NoncurrentDays", ""))
    if number < 0:
        raise _argument("'NoncurrentDays' in NoncurrentVersionTransition must be nonnegative")
    _check_days(name, number, "NoncurrentDays", "NoncurrentVersionTransition", days_min=days_min)
    return Move(name, number, keep=_keep(element, "NoncurrentVersionTransition"))


def _check_days(name: str, days: int, element: str, action: str, *, days_min: bool) -> None:
    least = _SINCE.get(name, 0) if days_min else 0
    if days < least:
        raise _argument(
            f"'{element}' in {action} action must be greater than or equal to {least} for "
            f"storageClass '{name}'"
        )


def _check_together(rule: Rule) -> None:
    """Check what the actions of a rule say of each other."""
    names = [move.storage_class for move in rule.moves]
    if len(set(names)) < len(names):
        raise _request(
            "'StorageClass' must be different for 'Transition' actions in same 'Rule' with "
            f"prefix '{rule.prefix}'"
        )
    dates = [move.at_s is not None for move in rule.moves]
    if rule.days or rule.at_s is not None:
        dates.append(rule.at_s is not None)
    if len(set(dates)) > 1:
        raise _request(
            "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle "
            f"rule for prefix '{rule.prefix}'"
        )
    for move in rule.moves:
        if rule.days and move.days >= rule.days:
            raise _argument(
                f"'Days' in the Expiration action for filter '(prefix={rule.prefix})' must be "
                "greater than 'Days' in the Transition action"
            )
        if rule.at_s is not None and (move.at_s or 0) >= rule.at_s:
            raise _argument(
                f"'Date' in the Expiration action for filter '(prefix={rule.prefix})' must be "
                "later than 'Date' in the Transition action"
            )
    for move in rule.noncurrent_moves:
        if rule.noncurrent_days and move.days >= rule.noncurrent_days:
            raise _argument(
                "'NoncurrentDays' in the NoncurrentVersionExpiration action for filter "
                f"'(prefix={rule.prefix})' must be greater than 'NoncurrentDays' in the "
                "NoncurrentVersionTransition action"
            )


def _positive(element: Element, name: str, action: str) -> int:
    text = element.findtext(name)
    if text is None:
        raise S3Error("MalformedXML")
    number = _number(text)
    if number < 1:
        raise _argument(f"'{name}' for {action} action must be a positive integer")
    return number


def _keep(element: Element, action: str) -> int:
    text = element.findtext("NewerNoncurrentVersions")
    if text is None:
        return 0
    number = _number(text)
    if not 1 <= number <= KEEP_MAX:
        raise _argument(
            f"'NewerNoncurrentVersions' for {action} action must be a positive integer and not "
            f"exceed {KEEP_MAX}"
        )
    return number


def _midnight(text: str) -> int:
    at_ns = moment(text)
    if at_ns is None:
        raise S3Error("MalformedXML")
    if at_ns % lifecycle.DAY_NS:
        raise _argument("'Date' must be at midnight GMT")
    return at_ns // 10**9


def _number(text: str) -> int:
    text = text.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise S3Error("MalformedXML")
    number = int(text)
    if number >= 2**31 and len(text) > 15:
        raise S3Error("MalformedXML")
    return number


def _argument(message: str) -> S3Error:
    return S3Error("InvalidArgument", message)


def _request(message: str) -> S3Error:
    return S3Error("InvalidRequest", message)


# Answers ------------------------------------------------------------------------------------------


def write_rules(found: Lifecycle) -> str:
    """Write the rules of a LifecycleConfiguration."""
    return "".join(map(_rule_element, found.rules))


def minimum_of(found: Lifecycle) -> str:
    """Return what holds for small objects, as the header says it."""
    return VARIES if found.small else ALL_CLASSES


def _rule_element(rule: Rule) -> str:
    status = "Enabled" if rule.enabled else "Disabled"
    parts = [f"<ID>{escape(rule.id)}</ID>", _filter_element(rule), f"<Status>{status}</Status>"]
    parts += [_move_element("Transition", "Days", move) for move in rule.moves]
    expiration = ""
    if rule.days:
        expiration = f"<Days>{rule.days}</Days>"
    elif rule.at_s is not None:
        expiration = f"<Date>{_date(rule.at_s)}</Date>"
    elif rule.lone_markers is not None:
        said = "true" if rule.lone_markers else "false"
        expiration = f"<ExpiredObjectDeleteMarker>{said}</ExpiredObjectDeleteMarker>"
    if expiration:
        parts.append(f"<Expiration>{expiration}</Expiration>")
    parts += [
        _move_element("NoncurrentVersionTransition", "NoncurrentDays", move)
        for move in rule.noncurrent_moves
    ]
    if rule.noncurrent_days:
        parts.append(
            f"<NoncurrentVersionExpiration><NoncurrentDays>{rule.noncurrent_days}</NoncurrentDays>"
            f"{_keep_element(rule.noncurrent_keep)}</NoncurrentVersionExpiration>"
        )
    if rule.upload_days:
        parts.append(
            "<AbortIncompleteMultipartUpload><DaysAfterInitiation>"
            f"{rule.upload_days}</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
        )
    return f"<Rule>{''.join(parts)}</Rule>"


def _filter_element(rule: Rule) -> str:
    prefix = f"<Prefix>{escape(rule.prefix)}</Prefix>"
    if rule.written == _AS_PREFIX:
        return prefix
    said = [prefix] if rule.prefix else []
    said += [
        f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>"
        for key, value in rule.tags.items()
    ]
    if rule.larger_than is not None:
        said.append(f"<ObjectSizeGreaterThan>{rule.larger_than}</ObjectSizeGreaterThan>")
    if rule.smaller_than is not None:
        said.append(f"<ObjectSizeLessThan>{rule.smaller_than}</ObjectSizeLessThan>")
    if rule.written == _AS_AND:
        return f"<Filter><And>{''.join(said)}</And></Filter>"
    return f"<Filter>{''.join(said) or prefix}</Filter>"


def _move_element(name: str, days: str, move: Move) -> str:
    when = f"<{days}>{move.days}</{days}>"
    if move.at_s is not None:
        when = f"<Date>{_date(move.at_s)}</Date>"
    return (
        f"<{name}>{when}{_keep_element(move.keep)}"
        f"<StorageClass>{move.storage_class}</StorageClass></{name}>"
    )


def _keep_element(keep: int) -> str:
    return f"<NewerNoncurrentVersions>{keep}</NewerNoncurrentVersions>" if keep else ""


def _date(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def expiration_header(found: Lifecycle, info: ObjectInfo) -> tuple[str, str] | None:
    """Return the header that says when, and by which rule, the current version of an object expires."""
    if not info.latest or info.marker:
        return None
    due = lifecycle.first_expiry(
        found,
        info.key.decode("utf-8", "replace"),
        info.size,
        info.modified_ns,
        info.attributes.tags,
    )
    if due is None:
        return None
    date = formatdate(due.at_ns // 10**9, usegmt=True)
    return ("x-amz-expiration", f'expiry-date="{date}", rule-id="{quote(due.rule.id, safe="")}"')


class Rules:
    """Rules of buckets in the form that is asked for, remembered as long as their documents stay."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, Lifecycle]] = {}

    def of(self, bucket: str, documents: Mapping[str, bytes]) -> Lifecycle | None:
        """Return a bucket's rules, None if it has none or they cannot be read."""
        document = documents.get(lifecycle.DOCUMENT)
        if document is None:
            return None
        known = self._known.get(bucket)
        if known is not None and known[0] is document:
            return known[1]
        try:
            found = lifecycle.unpack(document)
        except msgspec.DecodeError:  # the service says so in the log
            return None
        if len(self._known) >= BUCKETS_MAX:
            self._known.clear()
        self._known[bucket] = document, found
        return found


BUCKETS_MAX: Final = 1024
"""Buckets whose rules are remembered, some KiB each."""
