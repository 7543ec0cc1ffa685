"""Request bodies in XML, read with limits: no document type, no entities, bounded in every way."""

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import msgspec

from warp_s3.checksums import ALGORITHMS, decode
from warp_s3.errors import S3Error

BODY_MAX: Final = 4 * 1024 * 1024
"""Bytes of an XML body: 10,000 parts with checksums need 3 MiB, 1,000 long keys to delete 3 MiB."""

ELEMENTS_MAX: Final = 65_536
"""Elements of a document: 10,000 parts of six elements each."""

DEPTH_MAX: Final = 16
"""Nesting of a document; the deepest that S3 defines has 8."""

PARTS_MAX: Final = 10_000
"""Parts of a multipart upload; S3's own figure."""

DELETE_MAX: Final = 1000
"""Keys of one DeleteObjects; S3's own figure."""

TAGS_MAX: Final = 10
"""Tags of an object; S3's own figure."""

TAG_KEY_MAX: Final = 128
TAG_VALUE_MAX: Final = 256
"""Characters of a tag's key and value; S3's own figures."""

BUCKET_TAGS_MAX: Final = 50
"""Tags of a bucket; S3's own figure."""

_NAMESPACE: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class CompletedPart(msgspec.Struct, frozen=True):
    """A part that CompleteMultipartUpload names."""

    number: int
    etag: str  # without quotes
    checksums: dict[str, bytes]  # algorithm name to digest


class DeletedKey(msgspec.Struct, frozen=True):
    """A key that DeleteObjects names."""

    key: str
    version: str | None
    etag: str | None
    size: str | None = None
    modified: str | None = None

    @property
    def plain(self) -> bool:
        """Whether it names no version and no condition."""
        named = (self.version, self.etag, self.size, self.modified)
        return all(each is None for each in named)


class _BoundedBuilder(TreeBuilder):
    """Builds a tree, unless it is too deep or has too many elements."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._count = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        self._count += 1
        if self._depth > DEPTH_MAX or self._count > ELEMENTS_MAX:
            raise S3Error("MalformedXML")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse(body: bytes, root: str) -> Element:
    """Parse a document and strip S3's namespace, which clients may leave out.

    Raises:
        S3Error: `MalformedXML` if it is no XML, has another root, or breaks a limit.
    """
    if not body:
        raise S3Error("MissingRequestBodyError")
    if len(body) > BODY_MAX:
        raise S3Error("MaxMessageLengthExceeded")
    # Imported here: 5 ms that a server which only moves bytes never needs.
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    parser = DefusedXMLParser(target=_BoundedBuilder(), forbid_dtd=True)
    try:
        parser.feed(body)
        document: Element = parser.close()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise S3Error("MalformedXML") from error
    for element in document.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
    if document.tag != root:
        raise S3Error("MalformedXML")
    return document


def completed_parts(body: bytes) -> list[CompletedPart]:
    """Read a CompleteMultipartUpload document; parts are in ascending order.

    Raises:
        S3Error: `MalformedXML`, `InvalidPartOrder` or `InvalidRequest`.
    """
    if not body:  # no part is named: S3 does not say that the body is missing
        raise S3Error("MalformedXML")
    parts: list[CompletedPart] = []
    document = parse(body, "CompleteMultipartUpload")
    for element in document.iterfind("Part"):
        number = _integer(_text(element, "PartNumber"))
        etag = _text(element, "ETag").strip('"')
        if not 1 <= number <= PARTS_MAX:
            raise S3Error(
                "InvalidArgument",
                f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive",
                details={"ArgumentName": "partNumber", "ArgumentValue": str(number)},
            )
        if parts and number <= parts[-1].number:
            raise S3Error("InvalidPartOrder")
        checksums = {
            algorithm.name: decode(algorithm, value)
            for algorithm in ALGORITHMS.values()
            if (value := element.findtext(algorithm.element)) is not None
        }
        parts.append(CompletedPart(number, etag, checksums))
    if not parts:
        raise S3Error("MalformedXML")
    return parts


def deleted_keys(body: bytes) -> tuple[list[DeletedKey], bool]:
    """Read a Delete document: what to delete, and whether the answer names only failures.

    Raises:
        S3Error: `MalformedXML`.
    """
    document = parse(body, "Delete")
    keys = [
        DeletedKey(
            _text(element, "Key"),
            element.findtext("VersionId") or None,
            element.findtext("ETag") or None,
            element.findtext("Size"),
            element.findtext("LastModifiedTime"),
        )
        for element in document.iterfind("Object")
    ]
    if not 1 <= len(keys) <= DELETE_MAX:
        raise S3Error("MalformedXML")
    return keys, document.findtext("Quiet", "false").strip().lower() == "true"


def tag_set(body: bytes, *, count_max: int = TAGS_MAX) -> dict[str, str]:
    """Read a Tagging document.

    Raises:
        S3Error: `MalformedXML`, `InvalidTag` or `BadRequest`.
    """
    tags = parse(body, "Tagging").find("TagSet")
    if tags is None:
        raise S3Error("MalformedXML")
    return checked_tags(
        ((_text(tag, "Key"), _text(tag, "Value")) for tag in tags.iterfind("Tag")),
        count_max=count_max,
    )


def checked_tags(pairs: Iterator[tuple[str, str]], *, count_max: int = TAGS_MAX) -> dict[str, str]:
    """Check tags against S3's limits, whether they came in XML or in a header.

    Raises:
        S3Error: `InvalidTag` or `BadRequest`.
    """
    tags: dict[str, str] = {}
    for key, value in pairs:
        if not 1 <= len(key) <= TAG_KEY_MAX:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid")
        if len(value) > TAG_VALUE_MAX:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid")
        if key in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
        if key.lower().startswith("aws:"):
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester")
        tags[key] = value
        if len(tags) > count_max:
            kind = "Object" if count_max == TAGS_MAX else "Bucket"
            raise S3Error(
                "BadRequest", f"{kind} tags cannot be greater than {count_max}", closes=False
            )
    return tags


def versioning_status(body: bytes) -> str:
    """Read a VersioningConfiguration document: `Enabled` or `Suspended`.

    Raises:
        S3Error: `MalformedXML`, or `NotImplemented` for MFA delete.
    """
    document = parse(body, "VersioningConfiguration")
    status = document.findtext("Status", "")
    if document.findtext("MfaDelete", "Disabled") != "Disabled":
        raise S3Error("NotImplemented", "MFA delete is not supported.")
    if status not in {"Enabled", "Suspended"}:
        raise S3Error("IllegalVersioningConfigurationException")
    return status


def location_constraint(body: bytes) -> str | None:
    """Read a CreateBucketConfiguration document, which may be absent.

    Raises:
        S3Error: `MalformedXML`.
    """
    if not body:
        return None
    return parse(body, "CreateBucketConfiguration").findtext("LocationConstraint") or None


def _text(element: Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise S3Error("MalformedXML")
    return text


def _integer(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise S3Error("MalformedXML")
    return int(text)
