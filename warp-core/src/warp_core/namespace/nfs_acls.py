"""Lists as Linux's NFS client shows them in `system.nfs4_acl`: what GETATTR brings, XDR (RFC 8881, 6.2.1).

u32 entries     then for each     u32 kind     u32 flags     u32 rights     u32 length, name, zeros up to four
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from warp_core.errors import InvalidArgument
from warp_core.namespace.acls import ENTRIES_MAX, WHO_MAX, Ace

NFS4: Final = b"system.nfs4_acl"

_COUNT: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">IIII")


def pack(entries: Sequence[Ace]) -> bytes:
    """Return entries as an extended attribute; numbers are written as such."""
    parts = [_COUNT.pack(len(entries))]
    for entry in entries:
        who = str(entry.who).encode()
        parts.append(_HEAD.pack(entry.kind, entry.flags, entry.rights, len(who)))
        parts.append(who + bytes(-len(who) % 4))
    return b"".join(parts)


def parse(value: bytes) -> list[Ace]:
    """Return the entries in an extended attribute, as they are said there.

    Raises:
        InvalidArgument: It is none.
    """
    if len(value) < _COUNT.size:
        raise InvalidArgument(f"{len(value)} bytes are no list of NFSv4")
    (count,) = _COUNT.unpack_from(value)
    if count > ENTRIES_MAX:
        raise InvalidArgument(f"{count} entries > ENTRIES_MAX {ENTRIES_MAX}")
    at, entries = _COUNT.size, []
    for _ in range(count):
        if len(value) - at < _HEAD.size:
            raise InvalidArgument("a list of NFSv4 ends within an entry")
        kind, flags, rights, length = _HEAD.unpack_from(value, at)
        at += _HEAD.size
        if length > WHO_MAX or len(value) - at < length + -length % 4:
            raise InvalidArgument(f"a name of {length} bytes in a list of NFSv4")
        entries.append(Ace(kind, flags, rights, _who(value[at : at + length])))
        at += length + -length % 4
    if at != len(value):
        raise InvalidArgument(f"{len(value) - at} bytes behind a list of NFSv4")
    return entries


def _who(name: bytes) -> int | str:
    try:
        who = name.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the name {name!r} is no UTF-8") from error
    return int(who) if who.isascii() and who.isdecimal() and len(who) <= 10 else who
