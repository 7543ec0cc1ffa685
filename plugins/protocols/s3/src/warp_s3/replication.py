"""Replication configurations in XML → rules of core.

Source: "Replication configuration file elements" in the Amazon S3 user guide. What a rule asks for that is not there is refused.
"""

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, tostring

from warp_core.replication import Replication, Rule
from warp_core.views.classes import STORAGE_CLASSES

from warp_s3.errors import S3Error
from warp_s3.xml_input import TAG_KEY_MAX, TAG_VALUE_MAX, parse

RULES_MAX: Final = 1000
ID_MAX: Final = 255
PREFIX_MAX: Final = 1024
PRIORITY_MAX: Final = 2_147_483_647
ARN: Final = "arn:aws:s3:::"

_STATES: Final = {"Enabled": True, "Disabled": False}


def read_configuration(body: bytes) -> Replication:
    """Read a ReplicationConfiguration document and check it as S3 does.

    Raises:
        S3Error: `MalformedXML`, `InvalidRequest`, `InvalidArgument`, `NotImplemented`.
    """
    root = parse(body, "ReplicationConfiguration")
    if not (root.findtext("Role") or "").strip():
        raise S3Error("MalformedXML")
    elements = root.findall("Rule")
    if not 1 <= len(elements) <= RULES_MAX:
        raise S3Error("MalformedXML")
    rules = tuple(_rule(element, number) for number, element in enumerate(elements))
    if len({rule.id for rule in rules}) < len(rules):
        raise _refused("Rule Id must be unique")
    filtered = [element.find("Filter") is not None for element in elements]
    if any(filtered) and not all(filtered):
        raise _refused("A replication configuration cannot mix rules with and without a Filter")
    if all(filtered):
        _check_priorities(rules)
    written = "".join(tostring(child, encoding="unicode") for child in root)
    return Replication(rules, written)


def _rule(element: Element, number: int) -> Rule:
    found = element.find("Filter")
    deletes = element.find("DeleteMarkerReplication")
    target = element.find("Destination")
    prefix, tags = _filter(element, found)
    name = element.findtext("ID") or f"rule-{number + 1}"
    bucket = (target.findtext("Bucket") or "") if target is not None else ""
    if target is None or len(name) > ID_MAX or len(prefix.encode()) > PREFIX_MAX:
        raise S3Error("MalformedXML")
    if not bucket.startswith(ARN) or not bucket[len(ARN) :]:
        raise S3Error("InvalidArgument", "Invalid bucket ARN", details={"ArgumentName": "Bucket"})
    priority = element.findtext("Priority")
    if found is not None:
        if priority is None or deletes is None:
            missing = "Priority" if priority is None else "DeleteMarkerReplication"
            raise _refused(
                f"{missing} must be specified for this version of Cross Region Replication "
                "configuration schema. Please refer to S3 Developer Guide for more information."
            )
        if tags and _state(deletes):
            raise _refused(
                "Delete marker replication is not supported if any Tag filter is specified. Please "
                "refer to S3 Developer Guide for more information."
            )
    if priority is not None and not (
        priority.isascii() and priority.isdigit() and int(priority) <= PRIORITY_MAX
    ):
        raise S3Error("MalformedXML")
    _refuse_others(element, target)
    storage_class = target.findtext("StorageClass") or ""
    if storage_class and storage_class not in STORAGE_CLASSES:
        raise S3Error("MalformedXML")
    existing = element.find("ExistingObjectReplication")
    sealed = element.find("SourceSelectionCriteria/SseKmsEncryptedObjects")
    return Rule(
        id=name,
        bucket=bucket[len(ARN) :],
        enabled=_state(element),
        priority=int(priority or "0"),
        prefix=prefix,
        tags=tags,
        # The first version of the schema copied them, and said nothing of them.
        markers=_state(deletes) if deletes is not None else found is None,
        existing=existing is not None and _state(existing),
        sealed=sealed is not None and _state(sealed),
        storage_class=storage_class,
    )


def _filter(element: Element, found: Element | None) -> tuple[str, dict[str, str]]:
    """Read which objects a rule means: a prefix and tags."""
    if found is None:
        if element.find("Prefix") is None:
            raise S3Error("MalformedXML")
        return element.findtext("Prefix") or "", {}
    if element.find("Prefix") is not None or len(found) > 1:
        raise S3Error("MalformedXML")
    inner = found.find("And")
    if inner is None:
        inner = found
    tags: dict[str, str] = {}
    for tag in inner.findall("Tag"):
        name, value = tag.findtext("Key") or "", tag.findtext("Value") or ""
        if not 1 <= len(name) <= TAG_KEY_MAX or len(value) > TAG_VALUE_MAX:
            raise S3Error("InvalidTag")
        if name in tags:
            raise _refused("Duplicate Tag Keys are not allowed.")
        tags[name] = value
    return inner.findtext("Prefix") or "", tags


def _refuse_others(element: Element, target: Element) -> None:
    """Refuse what would be ignored at the client's peril."""
    for found, name in (
        (target.find("AccessControlTranslation"), "AccessControlTranslation"),
        (target.find("EncryptionConfiguration"), "EncryptionConfiguration"),
        (target.find("ReplicationTime"), "ReplicationTime"),
        (target.find("Metrics"), "Metrics"),
        (element.find("SourceSelectionCriteria/ReplicaModifications"), "ReplicaModifications"),
    ):
        if found is not None and found.findtext("Status") != "Disabled":
            raise S3Error("NotImplemented", f"{name} of a replication rule is not implemented.")


def _check_priorities(rules: Sequence[Rule]) -> None:
    """Refuse rules of one destination between which nothing decides."""
    seen: set[tuple[str, int]] = set()
    for rule in rules:
        if (rule.bucket, rule.priority) in seen:
            raise _refused(
                f"Found overlapping priorities '{rule.priority}' in rules of destination {rule.bucket}"
            )
        seen.add((rule.bucket, rule.priority))


def _state(element: Element) -> bool:
    state = _STATES.get(element.findtext("Status") or "")
    if state is None:
        raise S3Error("MalformedXML")
    return state


def _refused(message: str) -> S3Error:
    return S3Error("InvalidRequest", message)
