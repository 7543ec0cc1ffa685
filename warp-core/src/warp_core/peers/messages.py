"""Requests and replies between a node that uses a store and the one that has it, in msgpack arrays.

A request carries a number that its reply repeats; replies come in any order. Content travels as the message's payload.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import msgspec

from warp_core.calls import told, untold
from warp_core.errors import RemoteProtocolError, Unauthenticated, Unavailable, WarpError
from warp_core.interfaces.stores import BlobInfo

VERSION = 1
NUMBER_MAX = (1 << 63) - 1
LIST_MAX = 250  # names in one reply: with 120 characters each well below a header's 64 KiB


class Verb(IntEnum):
    """What a request asks for. A number never changes its meaning."""

    HELLO = 0  # name: the export; offset: VERSION → numbers: VERSION, text: store's id, token: incarnation, flags: Claim
    PUT = 1  # name, flags, payload; offset: parts that came before as PART
    PART = 2  # payload; token: which put it belongs to
    READ = 3  # name, offset, length → payload
    DELETE = 4  # name
    LIST = 5  # name: prefix, token: after, length: limit → infos
    STAT = 6  # name → infos
    SPACE = 7  # → numbers: total, free, reserve
    CREATE = 8  # name, length: reserve, flags
    WRITE = 9  # name, offset, flags, token: incarnation or empty, payload → token: incarnation
    SYNC = 10  # name, token: incarnation
    SEAL = 11  # name, length: size, token: incarnation
    PUNCH = 12  # name, offset, length


class Flag(IntEnum):
    """Bits of `Request.flags`."""

    VITAL = 1
    SYNC = 2
    RECYCLE = 4


class Claim(IntEnum):
    """Bits of a hello's reply: what the store claims."""

    DURABLE = 1
    GROW = 2
    PUNCH = 4


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One request."""

    id: int
    verb: int
    name: str = ""
    offset: int = 0
    length: int = 0
    flags: int = 0
    token: str = ""


class Reply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One reply; `error` names a class of the error tree, or is empty."""

    id: int
    error: str = ""
    text: str = ""
    token: str = ""
    flags: int = 0
    numbers: tuple[int, ...] = ()
    infos: tuple[tuple[str, int, int], ...] = ()


_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.msgpack.Decoder(Reply)
pack = msgspec.msgpack.Encoder().encode


def read_request(header: bytes) -> Request:
    """Decode a request.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        request = _requests.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a request that cannot be read: {error}") from error
    if min(request.id, request.offset, request.length, request.flags) < 0:
        raise RemoteProtocolError(f"a request with a number below 0: {request}")
    return request


def numbered(request: Request) -> Callable[[int], bytes]:
    """Return what makes the message of a request that has no number yet."""
    return lambda number: pack(msgspec.structs.replace(request, id=number))


def read_reply(header: bytes) -> Reply:
    """Decode a reply.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        return _replies.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"a reply that cannot be read: {error}") from error


def refusal(number: int, error: Exception) -> Reply:
    """Return the reply that tells an error; what is no error of the tree becomes StoreFailed."""
    name, text, _ = told(error)
    return Reply(number, name, text)


def raised(reply: Reply, peer: str) -> WarpError:
    """Return the error that a reply tells."""
    if reply.error in (Unauthenticated.__name__, RemoteProtocolError.__name__):
        return Unavailable(f"{peer} refuses: {reply.text}")
    return untold(reply.error, f"{peer}: {reply.text}", {})


def infos(reply: Reply) -> list[BlobInfo]:
    """Return the blobs that a reply lists."""
    return [BlobInfo(*each) for each in reply.infos]
