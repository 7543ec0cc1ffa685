"""Bytes ↔ records of SFTP version 3 (draft-ietf-secsh-filexfer-02) and of OpenSSH's extensions (its PROTOCOL, section 4).

A message is a length, a type, and what the type says; all but the first carry an id, which its answer repeats:

    u32 length | u8 type | u32 id | ...
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

import msgspec
from warp_core.errors import RemoteProtocolError
from warp_core.interfaces.stores import Buffer

VERSION: Final = 3

MESSAGE_MAX: Final = 256 * 1024
"""Bytes of a message without its length, as OpenSSH has it (SFTP_MAX_MSG_LENGTH)."""

TRANSFER_MAX: Final = MESSAGE_MAX - 1024
"""Bytes of one read or write, as OpenSSH has it: a handle and the numbers beside it fit as well."""

PATH_MAX: Final = 4096
"""Bytes of a path, as Linux has it."""

HANDLE_MAX: Final = 256
"""Bytes of a handle, as the draft has it; ours have 4."""

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_ANSWER: Final = struct.Struct(">IBI")  # length, type, id
_READ: Final = struct.Struct(">QI")
_DATA: Final = struct.Struct(">IBII")  # length, type, id, bytes of data


class Kind(IntEnum):
    """Types of messages (draft 02, section 3)."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    """What an answer says that is no data (draft 02, section 7); version 3 has no others."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class Flag(IntFlag):
    """How a file is opened (draft 02, section 6.3)."""

    READ = 0x01
    WRITE = 0x02
    APPEND = 0x04
    CREATE = 0x08
    TRUNCATE = 0x10
    EXCLUSIVE = 0x20


class Has(IntFlag):
    """Which attributes there are (draft 02, section 5)."""

    SIZE = 0x1
    OWNER = 0x2
    MODE = 0x4
    TIMES = 0x8
    EXTENDED = 0x8000_0000


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """Attributes of a file; None: not said. The mode has the bits of the kind, times are whole seconds."""

    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    accessed_s: int | None = None
    modified_s: int | None = None


class Malformed(RemoteProtocolError):
    """A message that ends before it should, or goes on after it."""


class Fields:
    """What is left to read of a message."""

    __slots__ = ("_at", "_view")

    def __init__(self, view: memoryview, at: int = 0) -> None:
        self._view = view
        self._at = at

    def u32(self) -> int:
        """Take a number."""
        try:
            (value,) = _U32.unpack_from(self._view, self._at)
        except struct.error:
            raise Malformed("the message is too short") from None
        self._at += 4
        return int(value)

    def u64(self) -> int:
        """Take a number of 64 bits."""
        try:
            (value,) = _U64.unpack_from(self._view, self._at)
        except struct.error:
            raise Malformed("the message is too short") from None
        self._at += 8
        return int(value)

    def view(self) -> memoryview:
        """Take a string without copying it."""
        length = self.u32()
        start = self._at
        if length > len(self._view) - start:
            raise Malformed("a string is longer than its message")
        self._at += length
        return self._view[start : start + length]

    def string(self, limit: int = PATH_MAX) -> bytes:
        """Take a string."""
        found = self.view()
        if len(found) > limit:
            raise Malformed(f"string of {len(found)} bytes > {limit}")
        return bytes(found)

    def attributes(self) -> Attributes:
        """Take attributes; extended ones are skipped."""
        has = self.u32()
        size = self.u64() if has & Has.SIZE else None
        uid, gid = (self.u32(), self.u32()) if has & Has.OWNER else (None, None)
        mode = self.u32() if has & Has.MODE else None
        accessed, modified = (self.u32(), self.u32()) if has & Has.TIMES else (None, None)
        if has & Has.EXTENDED:
            for _ in range(self.u32()):
                self.view()
                self.view()
        return Attributes(size, uid, gid, mode, accessed, modified)

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._view):
            raise Malformed(f"{len(self._view) - self._at} bytes too many")


def unpack_read(view: memoryview) -> tuple[int, bytes, int, int]:
    """Return id, handle, offset and length of a READ; the hottest of all requests."""
    try:
        number, length = _ID_AND_LENGTH.unpack_from(view, 1)
        handle = bytes(view[9 : 9 + length])
        offset, wanted = _READ.unpack_from(view, 9 + length)
    except struct.error:
        raise Malformed("READ is too short") from None
    if len(view) != 21 + length:
        raise Malformed("READ is too long")
    return number, handle, offset, wanted


_ID_AND_LENGTH: Final = struct.Struct(">II")


def string(value: Buffer) -> bytes:
    """Return a string as it is sent."""
    return _U32.pack(len(value)) + value


def u32(value: int) -> bytes:
    """Return a number as it is sent."""
    return _U32.pack(value)


def u64(*values: int) -> bytes:
    """Return numbers of 64 bits as they are sent."""
    return b"".join(map(_U64.pack, values))


def pack_attributes(attributes: Attributes) -> bytes:
    """Return attributes as they are sent."""
    has, parts = 0, []
    if attributes.size is not None:
        has |= Has.SIZE
        parts.append(_U64.pack(attributes.size))
    if attributes.uid is not None and attributes.gid is not None:
        has |= Has.OWNER
        parts.append(_ID_AND_LENGTH.pack(attributes.uid, attributes.gid))
    if attributes.mode is not None:
        has |= Has.MODE
        parts.append(_U32.pack(attributes.mode))
    if attributes.accessed_s is not None and attributes.modified_s is not None:
        has |= Has.TIMES
        parts.append(_ID_AND_LENGTH.pack(attributes.accessed_s, attributes.modified_s))
    return b"".join((_U32.pack(has), *parts))


def answer(kind: Kind, number: int, body: Buffer) -> bytes:
    """Return an answer of a body."""
    return _ANSWER.pack(5 + len(body), kind, number) + body


def version(extensions: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the answer to INIT."""
    body = _U32.pack(VERSION) + b"".join(string(name) + string(data) for name, data in extensions)
    return _U32.pack(1 + len(body)) + bytes((Kind.VERSION,)) + body


def status(number: int, code: Status, message: str = "") -> bytes:
    """Return a STATUS; the message is for people."""
    text = message.encode("utf-8", "replace")
    return answer(Kind.STATUS, number, _U32.pack(code) + string(text) + _LANGUAGE)


_LANGUAGE: Final = string(b"en")


def data_head(number: int, length: int) -> bytes:
    """Return what stands before `length` bytes of data that answer a READ."""
    return _DATA.pack(9 + length, Kind.DATA, number, length)


def names(number: int, entries: list[tuple[bytes, bytes, Attributes]]) -> bytes:
    """Return a NAME of (name, line of `ls -l`, attributes)."""
    parts = [_U32.pack(len(entries))]
    for name, line, attributes in entries:
        parts += (string(name), string(line), pack_attributes(attributes))
    return answer(Kind.NAME, number, b"".join(parts))
