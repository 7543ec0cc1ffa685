"""What an S3 endpoint has, key by key, and which of it another one does not have yet.

Versions and delete markers of a key come in one list, newest first. Clients of Python tell them in two lists without saying how they
follow each other, and times of whole seconds do not say it either, so the answer is read from its XML.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element, fromstring

NULL: Final = "null"

UNKNOWN: Final = frozenset(
    {"NotImplemented", "MethodNotAllowed", "NotSupported", "UnsupportedOperation", "InvalidRequest"}
)
"""What endpoints without versions answer to the question for them."""


class Version(NamedTuple):
    """One version of an object, or a delete marker."""

    key: str
    version: str  # empty: the endpoint has no versions
    modified_ns: int
    size: int = 0
    etag: str = ""
    marker: bool = False
    latest: bool = True


class Key(NamedTuple):
    """A key and its versions, oldest first."""

    key: str
    versions: tuple[Version, ...]


def keys_of(client: Any, bucket: str, *, prefix: str, after: str, history: bool) -> Iterator[Key]:
    """Yield the keys of a bucket in order, beginning behind `after`; blocking.

    Args:
        client: Of boto3, asked by nobody else.
        bucket: Whose keys.
        prefix: Of the keys.
        after: A key, or nothing.
        history: With all versions, else the current ones alone.

    Raises:
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError
    """
    entries = _versions(client, bucket, prefix, after) if history else None
    versions: list[Version] = []
    for entry in entries or _current(client, bucket, prefix, after):
        if versions and versions[-1].key != entry.key:
            yield Key(versions[-1].key, tuple(reversed(versions)))
            versions = []
        versions.append(entry)
    if versions:
        yield Key(versions[-1].key, tuple(reversed(versions)))


def _versions(client: Any, bucket: str, prefix: str, after: str) -> Iterator[Version]:
    bodies: list[bytes] = []

    def keep(response_dict: dict[str, Any], **_: object) -> None:
        bodies[:] = [response_dict["body"]]

    client.meta.events.register("before-parse.s3.ListObjectVersions", keep)
    marks = {"KeyMarker": after} if after else {}
    while True:
        page = client.list_object_versions(Bucket=bucket, Prefix=prefix, **marks)
        yield from arranged(list(entries_of(bodies.pop())))
        if not page.get("IsTruncated"):
            return
        marks = {"KeyMarker": page["NextKeyMarker"]}
        if page.get("NextVersionIdMarker"):
            marks["VersionIdMarker"] = page["NextVersionIdMarker"]


def _current(client: Any, bucket: str, prefix: str, after: str) -> Iterator[Version]:
    marks = {"StartAfter": after} if after else {}
    while True:
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, **marks)
        for entry in page.get("Contents", ()):
            yield Version(
                entry["Key"],
                "",
                nanoseconds(entry["LastModified"]),
                entry["Size"],
                entry["ETag"].strip('"'),
            )
        if not page.get("IsTruncated"):
            return
        marks = {"ContinuationToken": page["NextContinuationToken"]}


def entries_of(body: bytes) -> Iterator[Version]:
    """Read versions and markers of a ListVersionsResult, in the order that they have there."""
    root = fromstring(
        body
    )  # of the endpoint that its owner named; expat bounds what entities become
    encoded = _text(root, "EncodingType") == "url"
    for element in root:
        kind = element.tag.rpartition("}")[2]
        if kind not in ("Version", "DeleteMarker"):
            continue
        key = _text(element, "Key")
        yield Version(
            unquote_plus(key) if encoded else key,
            _text(element, "VersionId") or NULL,
            nanoseconds(datetime.fromisoformat(_text(element, "LastModified"))),
            int(_text(element, "Size") or 0),
            _text(element, "ETag").strip('"'),
            kind == "DeleteMarker",
            _text(element, "IsLatest") == "true",
        )


def arranged(page: list[Version]) -> list[Version]:
    """Return a page as S3 has it, of endpoints that tell all versions first and all markers after them: then times have to do."""
    first = next((index for index, one in enumerate(page) if one.marker), len(page))
    if not first or not all(one.marker for one in page[first:]):
        return page
    for before, after in pairwise(page[first - 1 :]):
        later = before.key == after.key and (after.latest or after.modified_ns > before.modified_ns)
        if after.key.encode() < before.key.encode() or later:
            return sorted(
                page, key=lambda one: (one.key.encode(), not one.latest, -one.modified_ns)
            )
    return page


def _text(element: Element, name: str) -> str:
    return next((child.text or "" for child in element if child.tag.rpartition("}")[2] == name), "")


def nanoseconds(moment: datetime) -> int:
    """Return a moment with a zone as nanoseconds since 1970, exact to the microsecond."""
    return calendar.timegm(moment.utctimetuple()) * 10**9 + moment.microsecond * 1000


def wanted(key: Key, *, history: bool) -> tuple[Version, ...]:
    """Return what of a key is to be there: everything, or the current version if it is no marker."""
    if history:
        return key.versions
    return tuple(one for one in key.versions[-1:] if not one.marker)


def missing(
    source: Sequence[Version], target: Sequence[Version], *, ids: bool, history: bool
) -> list[Version] | None:
    """Return which versions of a key are not there yet, oldest first; None if something else is in their place.

    Args:
        source: What is to be there, oldest first.
        target: What is there, oldest first.
        ids: Versions keep their ids, so that each is known by its own.
        history: The target keeps versions: what it has must be the beginning of the source.
    """
    if ids:
        there, ours = {one.version for one in target}, {one.version for one in source}
        others = [one for one in target if one.version not in ours]
        return [
            one
            for one in source
            if one.version not in there
            # The null version has no id to keep: it got one here.
            and not (one.version == NULL and any(alike(one, other) for other in others))
        ]
    if not history:
        if source and target and not target[-1].marker and alike(source[-1], target[-1]):
            return []
        return list(source)
    if len(target) > len(source):
        return None
    if not all(map(alike, source, target)):
        return None
    return list(source[len(target) :])


def alike(source: Version, target: Version) -> bool:
    """Say whether a version is a copy of another: what it is, how long, when it was made; of ETags those that are MD5s survive."""
    if source.marker or target.marker:
        return source.marker == target.marker
    times = source.modified_ns // 10**9, target.modified_ns // 10**9
    if source.size != target.size or times[0] != times[1]:
        return False
    digests = is_md5(source.etag) and is_md5(target.etag)
    return not digests or source.etag == target.etag


def is_md5(etag: str) -> bool:
    """Say whether an ETag looks like the MD5 of an object that was written in one go."""
    return len(etag) == 32 and all(digit in "0123456789abcdef" for digit in etag)
