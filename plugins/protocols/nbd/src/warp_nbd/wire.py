"""Bytes ↔ records: the numbers and layouts of the NBD protocol (doc/proto.md of the NBD project). Everything is big-endian."""

from collections.abc import Iterable, Sequence
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, NamedTuple

from warp_core.errors import RemoteProtocolError

NBDMAGIC: Final = b"NBDMAGIC"
IHAVEOPT: Final = b"IHAVEOPT"
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
CHUNK_MAGIC: Final = 0x668E33EF

NAME_MAX: Final = 4096
"""Bytes of a string: the protocol's own limit."""

OPTION_MAX: Final = 64 * 1024
"""Bytes of an option that is read: a name and about a dozen queries of full length."""

OPTION_SKIP_MAX: Final = 1024 * 1024
"""Bytes of an option that is skipped and answered; who sends more is cut off."""

QUERIES_MAX: Final = 64
"""Queries of one option, and kinds of information asked for: there are a handful of either."""

PAYLOAD_MAX: Final = 32 * 1024 * 1024
"""Bytes of one read or write: what clients expect that ask for no limits, and what the Blocks view takes."""

BLOCK_MIN: Final = 1
BLOCK_PREFERRED: Final = 4096


class Handshake(IntFlag):
    """Flags of the greeting, and of the client's answer to it."""

    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class Option(IntEnum):
    """What a client may ask for while it negotiates."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Reply(IntEnum):
    """What an option is answered with; errors have the highest bit."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 1 << 31 | 1
    ERR_POLICY = 1 << 31 | 2
    ERR_INVALID = 1 << 31 | 3
    ERR_PLATFORM = 1 << 31 | 4
    ERR_TLS_REQD = 1 << 31 | 5
    ERR_UNKNOWN = 1 << 31 | 6
    ERR_SHUTDOWN = 1 << 31 | 7
    ERR_BLOCK_SIZE_REQD = 1 << 31 | 8
    ERR_TOO_BIG = 1 << 31 | 9


class Info(IntEnum):
    """What INFO and GO tell of an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Transmission(IntFlag):
    """Flags of an export: what it is, and which requests it takes."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


# Plain numbers: these are compared for every request, and an enumeration's attribute costs more than the comparison.
READ: Final = 0
WRITE: Final = 1
DISC: Final = 2
FLUSH: Final = 3
TRIM: Final = 4
CACHE: Final = 5
WRITE_ZEROES: Final = 6
BLOCK_STATUS: Final = 7
COMMANDS: Final = (
    "read", "write", "disc", "flush", "trim", "cache", "write_zeroes", "block_status",
)  # fmt: skip

FUA: Final = 1 << 0
NO_HOLE: Final = 1 << 1
DF: Final = 1 << 2
REQ_ONE: Final = 1 << 3
FAST_ZERO: Final = 1 << 4

FLAGS_ALLOWED: Final = (
    DF | FUA, FUA, FUA, FUA, FUA, FUA, FUA | NO_HOLE | FAST_ZERO, FUA | REQ_ONE,
)  # fmt: skip
"""Flags that each command may carry. FUA may come with any of them and means nothing for most."""


class Errno(IntEnum):
    """The error numbers of replies, whatever they are on this machine."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


# Structured replies: types of their chunks.
CHUNK_DONE: Final = 1
CHUNK_NONE: Final = 0
CHUNK_DATA: Final = 1
CHUNK_HOLE: Final = 2
CHUNK_BLOCK_STATUS: Final = 5
CHUNK_ERROR: Final = 1 << 15 | 1

BASE_ALLOCATION: Final = "base:allocation"
STATE_HOLE: Final = 1
STATE_ZERO: Final = 2

REQUEST: Final = Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
REQUEST_SIZE: Final = REQUEST.size
SIMPLE: Final = Struct(">IIQ")  # magic, error, cookie
CHUNK: Final = Struct(">IHHQI")  # magic, flags, type, cookie, bytes that follow
DATA_CHUNK: Final = Struct(">IHHQIQ")  # … and the offset of the data behind it
HOLE_CHUNK: Final = Struct(">IHHQIQI")  # … and the hole's length
_OPTION: Final = Struct(">8sII")
_OPTION_REPLY: Final = Struct(">QIII")
_EXPORT: Final = Struct(">QH")
_INFO_EXPORT: Final = Struct(">HQH")
_INFO_BLOCK_SIZE: Final = Struct(">HIII")
_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_EXTENT: Final = Struct(">II")
OPTION_HEAD: Final = _OPTION.size


# Negotiation --------------------------------------------------------------------------------------


def greeting() -> bytes:
    """Return what the server says first."""
    flags = Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES
    return NBDMAGIC + IHAVEOPT + _U16.pack(flags)


def unpack_client_flags(data: bytes) -> Handshake:
    """Return the client's flags.

    Raises:
        RemoteProtocolError: Some are unknown, so the rest of what it says may be as well.
    """
    (flags,) = _U32.unpack(data)
    if flags & ~int(Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES):
        raise RemoteProtocolError(f"client flags {flags:#x} are unknown")
    return Handshake(flags)


def unpack_option_head(data: bytes) -> tuple[int, int]:
    """Return an option's number and the bytes that follow.

    Raises:
        RemoteProtocolError: It is none, or longer than anything that is skipped.
    """
    magic, option, length = _OPTION.unpack(data)
    if magic != IHAVEOPT:
        raise RemoteProtocolError(f"{magic!r} where an option begins")
    if length > OPTION_SKIP_MAX:
        raise RemoteProtocolError(f"option {option} of {length} bytes > {OPTION_SKIP_MAX}")
    return option, length


def pack_option(option: int, data: bytes = b"") -> bytes:
    """Return an option as clients send it."""
    return _OPTION.pack(IHAVEOPT, option, len(data)) + data


def pack_option_reply(option: int, reply: int, data: bytes = b"") -> bytes:
    """Return one reply to an option."""
    return _OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(data)) + data


def unpack_option_reply(data: bytes) -> tuple[int, int, int]:
    """Return option, reply and the bytes that follow, of a reply's head."""
    magic, option, reply, length = _OPTION_REPLY.unpack(data)
    if magic != OPTION_REPLY_MAGIC:
        raise RemoteProtocolError(f"{magic:#x} where an option's reply begins")
    return option, reply, length


def pack_export(size: int, flags: int, *, zeroes: bool) -> bytes:
    """Return the answer to EXPORT_NAME."""
    return _EXPORT.pack(size, flags) + (bytes(124) if zeroes else b"")


def pack_info_export(size: int, flags: int) -> bytes:
    """Return what INFO_EXPORT says."""
    return _INFO_EXPORT.pack(Info.EXPORT, size, flags)


def pack_info_block_size() -> bytes:
    """Return what INFO_BLOCK_SIZE says: smallest and best unit, and the largest payload."""
    return _INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, BLOCK_MIN, BLOCK_PREFERRED, PAYLOAD_MAX)


def pack_info_text(kind: Info, text: str) -> bytes:
    """Return what INFO_NAME or INFO_DESCRIPTION say."""
    return _U16.pack(kind) + text.encode()


def pack_server(name: str) -> bytes:
    """Return one export of a list."""
    encoded = name.encode()
    return _U32.pack(len(encoded)) + encoded


def pack_context(number: int, name: str) -> bytes:
    """Return one metadata context and its number."""
    return _U32.pack(number) + name.encode()


class WantsExport(NamedTuple):
    """The data of INFO and GO."""

    name: str
    infos: tuple[int, ...]


def unpack_info_request(data: bytes) -> WantsExport:
    """Read the data of INFO and GO.

    Raises:
        RemoteProtocolError: Lengths do not fit, the name is none, or too much is asked for.
    """
    name, at = _text(data, 0)
    if len(data) < at + 2:
        raise RemoteProtocolError("the number of information requests is missing")
    (count,) = _U16.unpack_from(data, at)
    if count > QUERIES_MAX:
        raise RemoteProtocolError(f"{count} information requests > {QUERIES_MAX}")
    if len(data) != at + 2 + 2 * count:
        raise RemoteProtocolError(f"{count} information requests in {len(data) - at - 2} bytes")
    return WantsExport(name, tuple(_U16.unpack_from(data, at + 2 + 2 * i)[0] for i in range(count)))


def pack_info_request(name: str, infos: Sequence[int] = ()) -> bytes:
    """Return the data of INFO and GO."""
    return pack_server(name) + _U16.pack(len(infos)) + b"".join(map(_U16.pack, infos))


class WantsContexts(NamedTuple):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""

    name: str
    queries: tuple[str, ...]


def unpack_context_request(data: bytes) -> WantsContexts:
    """Read the data of LIST_META_CONTEXT and SET_META_CONTEXT; raises as `unpack_info_request`."""
    name, at = _text(data, 0)
    if len(data) < at + 4:
        raise RemoteProtocolError("the number of queries is missing")
    (count,) = _U32.unpack_from(data, at)
    if count > QUERIES_MAX:
        raise RemoteProtocolError(f"{count} queries > {QUERIES_MAX}")
    at += 4
    queries = []
    for _ in range(count):
        query, at = _text(data, at)
        queries.append(query)
    if at != len(data):
        raise RemoteProtocolError(f"{len(data) - at} bytes behind the last query")
    return WantsContexts(name, tuple(queries))


def pack_context_request(name: str, queries: Sequence[str] = ()) -> bytes:
    """Return the data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return pack_server(name) + _U32.pack(len(queries)) + b"".join(map(pack_server, queries))


def unpack_name(data: bytes) -> str:
    """Read a name that is all of an option's data.

    Raises:
        RemoteProtocolError: It is too long, or no text.
    """
    if len(data) > NAME_MAX:
        raise RemoteProtocolError(f"name of {len(data)} bytes > {NAME_MAX}")
    if b"\0" in data:
        raise RemoteProtocolError("a name with a zero in it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("a name that is no UTF-8") from error


def _text(data: bytes, at: int) -> tuple[str, int]:
    if len(data) < at + 4:
        raise RemoteProtocolError("the length of a name is missing")
    (length,) = _U32.unpack_from(data, at)
    end = at + 4 + length
    if end > len(data):
        raise RemoteProtocolError(f"a name of {length} bytes in {len(data) - at - 4}")
    return unpack_name(data[at + 4 : end]), end


# Transmission -------------------------------------------------------------------------------------


def pack_request(
    command: int, cookie: int, offset: int = 0, length: int = 0, *, flags: int = 0
) -> bytes:
    """Return a request as clients send it; the payload of a write follows."""
    return REQUEST.pack(REQUEST_MAGIC, flags, command, cookie, offset, length)


def pack_simple(cookie: int, error: int = 0) -> bytes:
    """Return a simple reply; the data of a read follow."""
    return SIMPLE.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def pack_done(cookie: int) -> bytes:
    """Return the last chunk of a structured reply that has nothing more to say."""
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, CHUNK_NONE, cookie, 0)


def pack_error(cookie: int, error: int, message: str) -> bytes:
    """Return a structured reply that is an error."""
    text = message.encode()[:NAME_MAX].decode(errors="ignore").encode()
    head = CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, CHUNK_ERROR, cookie, 6 + len(text))
    return head + _U32.pack(error) + _U16.pack(len(text)) + text


def pack_status(cookie: int, context: int, extents: Iterable[tuple[int, int]]) -> bytes:
    """Return a structured reply with (length, state) of each extent."""
    body = _U32.pack(context) + b"".join(_EXTENT.pack(*each) for each in extents)
    head = CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, CHUNK_BLOCK_STATUS, cookie, len(body))
    return head + body
