"""Requests and replies between a node that uses a store and the one that has it, in msgpack arrays.

A request carries a number that its reply repeats; replies come in any order. Content travels as the message's payload.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from warp_core import errors
from warp_core.errors import RemoteProtocolError, StoreFailed, Unavailable, WarpError, leaves
from warp_core.interfaces.stores import BlobInfo

VERSION = 1
NUMBER_MAX = (1 << 63) - 1
LIST_MAX = 250  # names in one reply: with 120 characters each well below a header's 64 KiB
TEXT_MAX = 1000  # characters of an error's message


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
_ERRORS: dict[str, type[WarpError]] = {each.__name__: each for each in leaves()}


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
    if isinstance(error, WarpError) and type(error).__name__ in _ERRORS:
        return Reply(number, type(error).__name__, str(error)[:TEXT_MAX])
    return Reply(number, StoreFailed.__name__, f"{type(error).__name__}: {error}"[:TEXT_MAX])


def raised(reply: Reply, peer: str) -> WarpError:
    """Return the error that a reply tells."""
    kind: Any = _ERRORS.get(reply.error)
    if kind is None:
        return StoreFailed(f"{peer}: {reply.error}: {reply.text}")
    if kind in (errors.Unauthenticated, RemoteProtocolError):
        return Unavailable(f"{peer} refuses: {reply.text}")
    try:
        made: WarpError = kind(f"{peer}: {reply.text}")
    except TypeError:  # a leaf that wants more than a message
        return StoreFailed(f"{peer}: {reply.error}: {reply.text}")
    return made


def infos(reply: Reply) -> list[BlobInfo]:
    """Return the blobs that a reply lists."""
    return [BlobInfo(*each) for each in reply.infos]
