"""Where a bucket's log goes: the BucketLoggingStatus that S3 keeps."""

import hashlib
from time import gmtime, strftime
from typing import Final
from xml.etree.ElementTree import Element, tostring

import msgspec

from warp_s3.errors import S3Error
from warp_s3.xml_input import parse

LOGGING: Final = "s3.logging"
"""Name of the volume's document."""

PREFIX_MAX: Final = 512
EVENT: Final = "EventTime"
DELIVERY: Final = "DeliveryTime"


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bucket's log."""

    bucket: str
    prefix: str
    partition: str = ""  # EVENT, DELIVERY or none
    grants: str = ""  # Grant elements, as they came
    written: str = ""  # inside the LoggingEnabled, as it came


_decoder = msgspec.json.Decoder(Target)
encode = msgspec.json.Encoder().encode


def decode(document: bytes) -> Target:
    """Read a document."""
    return _decoder.decode(document)


def read(body: bytes) -> Target | None:
    """Read a BucketLoggingStatus; None turns logging off.

    Raises:
        S3Error: `MalformedXML`.
    """
    status = parse(body, "BucketLoggingStatus")
    enabled = status.find("LoggingEnabled")
    if enabled is None:
        if len(status):
            raise S3Error("MalformedXML")
        return None
    bucket, prefix = enabled.findtext("TargetBucket"), enabled.findtext("TargetPrefix")
    if not bucket or prefix is None or len(prefix) > PREFIX_MAX:
        raise S3Error("MalformedXML")
    grants = enabled.find("TargetGrants")
    return Target(
        bucket,
        prefix,
        _partition(enabled.find("TargetObjectKeyFormat")),
        _grants(grants) if grants is not None else "",
        "".join(tostring(child, encoding="unicode") for child in enabled),
    )


def _partition(element: Element | None) -> str:
    if element is None:
        return ""
    if len(element) != 1:
        raise S3Error("MalformedXML")
    kind = element[0]
    if kind.tag == "SimplePrefix":
        return ""
    source = kind.findtext("PartitionDateSource", DELIVERY)
    if kind.tag != "PartitionedPrefix" or source not in {EVENT, DELIVERY}:
        raise S3Error("MalformedXML")
    return source


def _grants(element: Element) -> str:
    for grant in element:
        if grant.tag != "Grant" or grant.findtext("Permission") not in {
            *("FULL_CONTROL", "READ", "WRITE"),
        }:
            raise S3Error("MalformedXML")
    return "".join(tostring(grant, encoding="unicode") for grant in element)


def object_key(
    target: Target, *, number: str, region: str, bucket: str, second: int, event: bool, batch: str
) -> bytes:
    """Name the object of a batch of lines.

    Args:
        target: Where it goes.
        number: Account number of the source bucket's owner.
        region: Region of the source.
        bucket: The source.
        second: Of the delivery or, by `event`, of the day that all its lines are of.
        event: The name has the day of the lines, and no time of the day.
        batch: What the lines were read from: the same batch is delivered under the same name.
    """
    unique = hashlib.sha256(f"{batch} {bucket} {second}".encode()).hexdigest()[:16].upper()
    when = gmtime(second)
    name = strftime("%Y-%m-%d-00-00-00" if event else "%Y-%m-%d-%H-%M-%S", when)
    path = ""
    if target.partition:
        path = f"{number}/{region}/{bucket}/{strftime('%Y/%m/%d', when)}/"
    return f"{target.prefix}{path}{name}-{unique}".encode()
