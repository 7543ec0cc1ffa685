"""Request heads of HTTP/1.1: bytes in, one frozen `Request` out, or a refusal.

A head that two servers could read differently is how requests are smuggled past one of them, so
this parser has no tolerant mode (RFC 9112, sections 2.2, 5.1, 6.1, 6.3 and 11.2): every line ends
in CR LF, nothing is folded, names are tokens, and a body is framed by exactly one of a single
Content-Length and `Transfer-Encoding: chunked`.
"""

import re
from functools import lru_cache
from typing import Final

import msgspec

from warp_s3.errors import S3Error

HEAD_MAX: Final = 16 * 1024
"""Bytes of a head: a 1,024 byte key escaped, 2 KiB of metadata, a presigned query, cookies."""

FIELDS_MAX: Final = 100
"""Header fields of a head; SDKs send 8 to 20, browsers through proxies up to 40."""

NAME_MAX: Final = 256
"""Bytes of a field name; the longest that S3 defines has 60, `x-amz-meta-*` is the user's."""

LINES_MAX: Final = 2048
"""Field lines remembered, then forgotten together; clients send the same few dozen again and again."""

LINE_KEPT_MAX: Final = 128
"""Characters of a line that is remembered: of those that differ each time, signatures are longer."""

LENGTH_DIGITS_MAX: Final = 18
"""Digits of a Content-Length: below 2**63, so that no arithmetic later can surprise."""

_VISIBLE: Final = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_request_line: Final = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])").fullmatch
_REQUEST_LINE_PARTS: Final = re.compile(r"(\S+) (\S+) HTTP/(\d)\.(\d)")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_.~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

# A field line as sent to name in lower case and value: a cache, so that a line is validated and taken apart once. It saves
# 2 us of the 5 that a head of six lines cost.
_fields: dict[str, tuple[str, str]] = {}

# A second one would say something else than the first, so these may come once.
_SINGLE: Final = frozenset(
    {
        "authorization",
        "content-length",
        "content-md5",
        "content-type",
        "date",
        "expect",
        "host",
        "if-modified-since",
        "if-unmodified-since",
        "range",
        "transfer-encoding",
        "x-amz-content-sha256",
        "x-amz-copy-source",
        "x-amz-copy-source-range",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-security-token",
    }
)


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request head, as its sender wrote it.

    Text is Latin-1: `value.encode("latin-1")` gives back the bytes that came, which is what the
    signature covers.
    """

    method: str
    path: str  # raw: still percent-encoded, starts with "/"
    query: str  # raw, without its "?"
    headers: dict[str, str]  # names in lower case, values stripped
    content_length: int | None  # None: no Content-Length was sent
    chunked: bool  # the body has the chunked transfer coding
    keep_alive: bool
    expects_continue: bool

    @property
    def has_body(self) -> bool:
        """Tell whether bytes of a body follow the head."""
        return self.chunked or bool(self.content_length)


def head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """Find where the head that begins at `start` ends: index of its closing empty line, or -1."""
    return buffer.find(b"\r\n\r\n", start)


def check_partial_head(head: bytes) -> None:
    """Refuse early what no further byte could make a valid head.

    Without this a head with bare line feeds would only be refused at the limit or the timeout.

    Raises:
        S3Error: `BadRequest` or `RequestHeaderSectionTooLarge`; the connection must close.
    """
    if len(head) > HEAD_MAX:
        raise _too_large(f"head longer than {HEAD_MAX} bytes")
    complete = head[:-1] if head.endswith(b"\r") else head
    pairs = complete.count(b"\r\n")
    if len(complete.translate(None, _VISIBLE)) != 2 * pairs:
        raise _control_character()
    if pairs > FIELDS_MAX + 1:
        raise _too_large(f"more than {FIELDS_MAX} header fields")


def parse_head(head: bytes) -> Request:
    """Parse a request head.

    Args:
        head: Everything before the empty line that ends the head, without the last CR LF.

    Raises:
        S3Error: What is wrong with it; `closes` is set, as the framing cannot be trusted.
    """
    if len(head) > HEAD_MAX:
        raise _too_large(f"head of {len(head)} bytes > {HEAD_MAX}")
    lines = head.decode("latin-1").split("\r\n")
    count = len(lines) - 1
    if count > FIELDS_MAX:
        raise _too_large(f"{count} header fields > {FIELDS_MAX}")
    match = _request_line(lines[0])
    if match is None:
        raise _request_line_error(lines[0])
    method, target, minor = match.groups()
    del lines[0]
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _fields.get(line) or _field(line)
        headers[name] = value
    if len(headers) != count:
        headers = _merge_repeated(lines)
    host = headers.get("host")
    if (host is None and minor == "1") or (host is not None and not _valid_host(host)):
        raise _bad("missing or malformed Host")
    path, _, query = target.partition("?")
    length, chunked = _framing(headers, minor) if _has_framing(headers) else (None, False)
    connection = headers.get("connection")
    expect = headers.get("expect")
    return Request(
        method,
        path,
        query,
        headers,
        length,
        chunked,
        minor == "1" if connection is None else _keeps_alive(connection, minor),
        # RFC 9110, 10.1.1: an HTTP/1.0 client is not sent a 100.
        # Other expectations are nobody's, and S3 goes on without a word.
        expect is not None and minor == "1" and expect.lower() == "100-continue",
    )


def _field(line: str) -> tuple[str, str]:
    """Validate a field line, take it apart and remember it."""
    # What can be shown has no control character: no NUL, no bare CR or LF. Of what may not be shown bytes above 7E are allowed.
    if not (line.isascii() and line.isprintable()) and line.encode("latin-1").translate(
        None, _VISIBLE
    ):
        raise _control_character()
    raw, colon, value = line.partition(":")
    if not colon:
        raise _bad("header field without a colon")
    field = _field_name(raw), value.strip(" \t")
    if len(line) <= LINE_KEPT_MAX:
        if len(_fields) >= LINES_MAX:
            _fields.clear()
        _fields[line] = field
    return field


@lru_cache(maxsize=1024)
def _field_name(raw: str) -> str:
    if len(raw) > NAME_MAX or _TOKEN.fullmatch(raw) is None:
        raise _bad("malformed header field name")
    return raw.lower()


@lru_cache(maxsize=256)
def _valid_host(host: str) -> bool:
    return len(host) <= 512 and _HOST.fullmatch(host) is not None


def _merge_repeated(lines: list[str]) -> dict[str, str]:
    """Join repeated fields with commas (RFC 9110, 5.3), except those that may come only once."""
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _field(line)
        if name in headers:
            if name in _SINGLE:
                raise _bad(f"more than one {name} header field")
            value = f"{headers[name]},{value}"
        headers[name] = value
    return headers


def _has_framing(headers: dict[str, str]) -> bool:
    return "content-length" in headers or "transfer-encoding" in headers


def _framing(headers: dict[str, str], minor: str) -> tuple[int | None, bool]:
    """Decide how the body is framed (RFC 9112, 6.3); any doubt is a refusal."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise _bad("both Content-Length and Transfer-Encoding")
        if minor == "0":
            raise _bad("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            raise S3Error(
                "NotImplemented", "The only supported Transfer-Encoding is chunked.", closes=True
            )
        return None, True
    assert length is not None
    # int() would take "+1", "1_0" and non-ASCII digits.
    if not (length.isascii() and length.isdigit() and len(length) <= LENGTH_DIGITS_MAX):
        raise _bad("malformed Content-Length")
    return int(length), False


def _keeps_alive(connection: str, minor: str) -> bool:
    options = {option.strip(" \t") for option in connection.lower().split(",")}
    if "close" in options:
        return False
    return minor == "1" or "keep-alive" in options


def _request_line_error(line: str) -> S3Error:
    if line.encode("latin-1").translate(None, _VISIBLE):
        return _control_character()
    parts = _REQUEST_LINE_PARTS.fullmatch(line)
    if parts is None:
        return _bad("malformed request line")
    _, target, major, _ = parts.groups()
    if major != "1":
        return S3Error("UnsupportedHttpVersion", closes=True)
    if not target.startswith("/"):
        return S3Error("InvalidURI", closes=True)
    return _bad("malformed request line")


def _control_character() -> S3Error:
    return _bad("control character or bare line ending in the head")


def _bad(what: str) -> S3Error:
    return S3Error(
        "BadRequest", f"An error occurred when parsing the HTTP request: {what}.", closes=True
    )


def _too_large(what: str) -> S3Error:
    message = (
        "Your request header and query parameters used to make the request exceed the maximum "
        f"allowed size: {what}."
    )
    return S3Error("RequestHeaderSectionTooLarge", message, closes=True)
