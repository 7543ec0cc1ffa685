"""Conditions and ranges of requests, judged against an object (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from warp_core.views.objects import ALWAYS, Condition, ObjectInfo

from warp_s3.errors import S3Error

_RANGE: Final = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))")
CONDITIONAL: Final = frozenset(
    {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)


def check_read(headers: Mapping[str, str], info: ObjectInfo) -> bool:
    """Judge the conditions of a GET or HEAD, in the order of RFC 9110, section 13.2.2.

    Returns:
        False if the client has this object already, so that 304 is the answer.

    Raises:
        S3Error: `PreconditionFailed`.
    """
    if CONDITIONAL.isdisjoint(headers):
        return True
    return _judge(headers, info, "")


def check_copy_source(headers: Mapping[str, str], info: ObjectInfo) -> None:
    """Judge the conditions on a copy's source.

    Raises:
        S3Error: `PreconditionFailed`.
    """
    if not _judge(headers, info, "x-amz-copy-source-"):
        raise S3Error(
            "PreconditionFailed", details={"Condition": "x-amz-copy-source-If-None-Match"}
        )


def write_condition(headers: Mapping[str, str]) -> Condition:
    """Read what must hold when a write commits: `If-None-Match: *`, `If-Match`.

    Raises:
        S3Error: `NotImplemented` for what S3 does not have either.
    """
    absent = headers.get("if-none-match")
    etag = headers.get("if-match")
    if absent is None and etag is None:
        return ALWAYS
    if absent is not None and etag is not None:
        raise S3Error("NotImplemented", "If-Match and If-None-Match exclude each other.")
    if absent is not None:
        if absent != "*":
            raise S3Error(
                "NotImplemented",
                "A header you provided implies functionality that is not implemented",
                details={"Header": "If-None-Match"},
            )
        return Condition(absent=True)
    return Condition(etag=_unquote(etag or ""))


def delete_condition(headers: Mapping[str, str]) -> Condition:
    """Read what must hold when a delete commits.

    Raises:
        S3Error: `InvalidArgument` for values that are none.
    """
    return only_if(
        etag=headers.get("if-match"),
        size=headers.get("x-amz-if-match-size"),
        modified=headers.get("x-amz-if-match-last-modified-time"),
        names=("If-Match", "x-amz-if-match-size", "x-amz-if-match-last-modified-time"),
    )


def only_if(
    *, etag: str | None, size: str | None, modified: str | None, names: tuple[str, str, str]
) -> Condition:
    """Read what must hold of an object when it is deleted, from texts that `names` calls so.

    Raises:
        S3Error: `InvalidArgument` for values that are none.
    """
    if etag is None and size is None and modified is None:
        return ALWAYS
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 19):
        raise S3Error("InvalidArgument", f"{names[1]} is not a number")
    moment = None if modified is None else http_seconds(modified)
    if modified is not None and moment is None:
        raise S3Error("InvalidArgument", f"{names[2]} is not a date")
    return Condition(
        etag=_unquote(etag or ""),
        size=None if size is None else int(size),
        modified_s=moment,
    )


def requested_range(headers: Mapping[str, str], info: ObjectInfo) -> tuple[int, int] | None:
    """Find the one range a request asks for: first byte and length.

    What is no single range of bytes is ignored, as RFC 9110 and S3 do, and None means everything.

    Raises:
        S3Error: `InvalidRange` if it lies beyond the end.
    """
    text = headers.get("range")
    if text is None:
        return None
    match = _RANGE.fullmatch(text.strip())
    if match is None or not _range_applies(headers, info):
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), info.size)
        if length:
            return info.size - length, length
    else:
        start = int(first)
        end = min(int(last), info.size - 1) if last else info.size - 1
        if last and int(last) < start:
            return None
        if start < info.size:
            return start, end - start + 1
    raise S3Error(
        "InvalidRange",
        details={"ActualObjectSize": str(info.size), "RangeRequested": text},
        headers={"Content-Range": f"bytes */{info.size}"},
    )


def copy_range(text: str, size: int) -> tuple[int, int]:
    """Read x-amz-copy-source-range, which must be complete and within the source.

    Raises:
        S3Error: `InvalidArgument`.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or not match[1] or not match[2] or int(match[2]) < int(match[1]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first "
            "and last are the zero-based offsets of the first and last bytes to copy",
            details={"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": text},
        )
    start, end = int(match[1]), int(match[2])
    if end >= size:
        raise S3Error(
            "InvalidArgument",
            f"Range specified is not valid for source object of size: {size}",
            details={"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": text},
        )
    return start, end - start + 1


@lru_cache(maxsize=1024)
def http_seconds(text: str) -> int | None:
    """Read an HTTP date, or ISO 8601, as seconds since the epoch; None if it is neither."""
    from datetime import UTC, datetime

    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
    try:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (OverflowError, ValueError):
        return None


def _judge(headers: Mapping[str, str], info: ObjectInfo, prefix: str) -> bool:
    modified_s = info.modified_ns // 1_000_000_000
    match = headers.get(prefix + "if-match")
    if match is not None:
        if not _lists(match, info.etag):
            raise _failed(prefix + "If-Match")
    else:
        since = headers.get(prefix + "if-unmodified-since")
        seconds = None if since is None else http_seconds(since)
        if seconds is not None and modified_s > seconds:
            raise _failed(prefix + "If-Unmodified-Since")
    none_match = headers.get(prefix + "if-none-match")
    if none_match is not None:
        return not _lists(none_match, info.etag)
    since = headers.get(prefix + "if-modified-since")
    seconds = None if since is None else http_seconds(since)
    return seconds is None or modified_s > seconds


def _range_applies(headers: Mapping[str, str], info: ObjectInfo) -> bool:
    """Judge If-Range: a range of something else than the client has would mix two objects."""
    validator = headers.get("if-range")
    if validator is None:
        return True
    if validator.startswith('"'):
        return _unquote(validator) == info.etag
    return http_seconds(validator) == info.modified_ns // 1_000_000_000


def _lists(tags: str, etag: str) -> bool:
    """Tell whether a list of entity tags names this one; S3 takes them unquoted as well."""
    return any(tag.strip() == "*" or _unquote(tag) == etag for tag in tags.split(","))


def _unquote(tag: str) -> str:
    tag = tag.strip()
    return tag.removeprefix("W/").strip('"')


def _failed(condition: str) -> S3Error:
    return S3Error("PreconditionFailed", details={"Condition": condition})
