"""Response heads: one `bytes` per answer, ready for a single send together with a small body."""

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from time import gmtime
from typing import Final

from warp_s3.errors import CODES

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# A website may redirect with any status of 3xx, whether that means something or not.
_USED: Final = {
    *(200, 201, 202, 204, 206, 408),
    *range(301, 400),
    *(status for status, _ in CODES.values()),
}
_KNOWN: Final = frozenset(HTTPStatus)

REASONS: Final = {
    status: HTTPStatus(status).phrase if status in _KNOWN else "Redirect" for status in _USED
}

_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {phrase}\r\nServer: WARP\r\nDate: "
    for status, phrase in REASONS.items()
}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


@lru_cache(maxsize=1024)
def http_date(second: int) -> str:
    """Write whole seconds since the epoch as an IMF-fixdate (RFC 9110, 5.6.7)."""
    year, month, day, hour, minute, sec, weekday, _, _ = gmtime(second)
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{sec:02} GMT"
    )


def response_head(
    status: int,
    headers: Sequence[tuple[str, str]],
    *,
    second: int,
    request_id: str,
    length: int | None,
    close: bool = False,
    fields: str = "",
) -> bytes:
    """Build a response head.

    Args:
        status: One of `REASONS`.
        headers: Further fields; values are Latin-1 text. CR, LF and NUL in them become spaces, so
            that nothing a client stored can split a response.
        second: Now, in seconds since the epoch.
        request_id: Names the request in logs and to the client.
        length: Content-Length; None for answers that must not carry one (204, 304).
        close: Announce that the connection ends after this answer.
        fields: Further fields as `field_lines` wrote them.
    """
    if headers:
        fields += field_lines(headers)
    framing = "" if length is None else f"Content-Length: {length}\r\n"
    if close:
        framing += "Connection: close\r\n"
    head = (
        f"{_STATUS_LINES[status]}{http_date(second)}\r\nx-amz-request-id: {request_id}\r\n"
        f"{framing}{fields}\r\n"
    )
    return head.encode("latin-1", "replace")


def field_lines(headers: Sequence[tuple[str, str]]) -> str:
    """Write fields as lines; whatever is in them, it is one line for each."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if fields.count("\n") != len(headers) or fields.count("\r") != len(headers) or "\0" in fields:
        fields = "".join([f"{_one_line(name)}: {_one_line(value)}\r\n" for name, value in headers])
    return fields


def _one_line(text: str) -> str:
    return text.translate({0: " ", 10: " ", 13: " "})
