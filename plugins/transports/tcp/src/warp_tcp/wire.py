"""The frame of a message, as `docs/formats/link.md` describes it: a fixed head, the message's header, its payload."""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from warp_core.errors import RemoteProtocolError
from warp_core.interfaces.transports import HEADER_MAX, PAYLOAD_MAX

MAGIC = b"WRPL"
VERSION = 1
HEAD_SIZE = 32

HELLO = (
    0x01  # the first message of each side; its header is for later versions to say what they can
)

# magic, version, flags, zero, header length, payload length, sequence, zero | checksum of all before and of the header
_FIELDS = struct.Struct(">4sBBHIIQI")
_CHECKSUM = struct.Struct(">I")
_HEAD = struct.Struct(">4sBBHIIQII")
_CHECKED = HEAD_SIZE - _CHECKSUM.size


class Head(NamedTuple):
    """What a head says."""

    flags: int
    header_length: int
    payload_length: int
    checksum: int
    begun: int  # checksum of the head alone, which the header's bytes continue


def pack_head(
    header: bytes | bytearray | memoryview, payload_length: int, *, sequence: int, flags: int = 0
) -> bytes:
    """Return the head of a message; lengths are the caller's to check."""
    fields = _FIELDS.pack(MAGIC, VERSION, flags, 0, len(header), payload_length, sequence, 0)
    return fields + _CHECKSUM.pack(crc32(header, crc32(fields)))


def unpack_head(inbox: memoryview, offset: int, *, sequence: int) -> Head:
    """Return what the head at an offset says; its checksum can be compared once the header is there.

    Raises:
        RemoteProtocolError: No head of this protocol, out of order, or beyond the limits.
    """
    magic, version, flags, zero, header, payload, number, spare, checksum = _HEAD.unpack_from(
        inbox, offset
    )
    if magic != MAGIC:
        raise RemoteProtocolError(
            f"peer speaks something else: {magic!r} in the place of {MAGIC!r}"
        )
    if version != VERSION:
        raise RemoteProtocolError(
            f"peer speaks version {version}, this node {VERSION}: upgrade the older one"
        )
    if zero or spare or flags & ~HELLO:
        raise RemoteProtocolError(f"unknown flags {flags:#x}, {zero:#x}, {spare:#x}")
    if number != sequence:
        raise RemoteProtocolError(f"message {number} where {sequence} was due")
    if header > HEADER_MAX:
        raise RemoteProtocolError(f"header of {header} bytes > HEADER_MAX {HEADER_MAX}")
    if payload > PAYLOAD_MAX:
        raise RemoteProtocolError(f"payload of {payload} bytes > PAYLOAD_MAX {PAYLOAD_MAX}")
    begun = crc32(inbox[offset : offset + _CHECKED])
    return Head(flags, header, payload, checksum, begun)
