"""Frames of AWS's event stream, which SelectObjectContent answers with.

    u32 length of all · u32 length of headers · u32 CRC-32 of these · headers · payload · u32 CRC-32 of all before

A header is u8 length, name, u8 7 (text), u16 length, value. Numbers are big-endian. Source: "Appendix: SelectObjectContent Response"
(S3 API reference).
"""

import struct
from typing import Final
from zlib import crc32

PAYLOAD_MAX: Final = 1024 * 1024
"""Bytes of records in a frame; S3's own figure."""

_PRELUDE: Final = struct.Struct(">III")
_TEXT: Final = 7
_TEXT_MAX: Final = 1024
"""Characters of a header's value: a message for a person."""


def frame(headers: dict[str, str], payload: bytes = b"") -> bytes:
    """Make a frame."""
    fields = b"".join(_field(name, value) for name, value in headers.items())
    length = _PRELUDE.size + len(fields) + len(payload) + 4
    prelude = struct.pack(">II", length, len(fields))
    head = prelude + struct.pack(">I", crc32(prelude)) + fields
    return b"".join((head, payload, struct.pack(">I", crc32(payload, crc32(head)))))


def _field(name: str, value: str) -> bytes:
    key, text = name.encode(), value[:_TEXT_MAX].encode("utf-8", "replace")
    return struct.pack(">B", len(key)) + key + struct.pack(">BH", _TEXT, len(text)) + text


def event(kind: str, payload: bytes = b"", content_type: str = "") -> bytes:
    """Make the frame of an event."""
    headers = {":message-type": "event", ":event-type": kind}
    if content_type:
        headers[":content-type"] = content_type
    return frame(headers, payload)


def records(payload: bytes) -> bytes:
    """Make a frame of records."""
    return event("Records", payload, "application/octet-stream")


def counts(kind: str, *, scanned: int, processed: int, returned: int) -> bytes:
    """Make a frame of kind "Progress" or "Stats"."""
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?><{kind}><BytesScanned>{scanned}</BytesScanned>'
        f"<BytesProcessed>{processed}</BytesProcessed><BytesReturned>{returned}</BytesReturned></{kind}>"
    )
    return event(kind, text.encode(), "text/xml")


def error(code: str, message: str) -> bytes:
    """Make the frame that ends an answer which failed on its way."""
    return frame({":error-code": code, ":error-message": message, ":message-type": "error"})


CONTINUATION: Final = event("Cont")
END: Final = event("End")
