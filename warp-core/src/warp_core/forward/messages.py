"""Requests and replies between a node that forwards a verb and the one that does it, in msgpack arrays.

A request carries a number that its reply repeats; replies come in any order. Buffers travel as the message's payload, and so do packed
values of more than HEADER_VALUES bytes, before them. A reply with the number 0 is an event.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from warp_core.calls import told, untold
from warp_core.errors import RemoteProtocolError, Unauthenticated, Unavailable, WarpError
from warp_core.interfaces.stores import Buffer

VERSION = 1
STEP = 1 << 20  # bytes of content, or of a large value, in one message
SMALL = 64 * 1024  # content up to here may go with everything small
HEADER_VALUES = (
    8 * 1024
)  # bytes of packed values that stay in the header, which has room for 64 KiB
VALUE_MAX = 256 << 20  # bytes of one packed result: more volumes or disks than one node is made for

NOTHING = msgspec.Raw(b"\xc0")

# Verbs of the line itself.
HELLO = "hello"  # [version, session, link, target] → [version]
PING = "ping"
CANCEL = "cancel"  # handle: the number of the request that nobody waits for any more; has no reply
CLOSE = "close"  # handle
STAGE = "stage"  # handle: a number of the caller's; a buffer that a later request takes as part of its own
# Events.
PART = "part"  # handle: the number of the request whose result this is a part of; payload
RESIZED = "resized"  # handle, [size]
RECALLED = "recalled"  # handle: a client; [volume, inode, owner, kinds, wanted]


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One request."""

    id: int
    verb: str
    handle: int = 0  # of what it is asked, where that was opened before
    values: msgspec.Raw = NOTHING  # packed arguments
    spilled: int = 0  # bytes of packed arguments at the payload's beginning, instead of `values`
    lengths: tuple[int, ...] = ()  # of the buffers in the payload
    staged: int = 0  # which staged parts are the only buffer


class Reply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One reply, or an event."""

    id: int
    error: str = ""  # the name of a class of the error tree; `values` are its fields then. Of an event: which
    text: str = ""
    handle: int = 0  # what was opened
    values: msgspec.Raw = NOTHING  # the packed result
    spilled: int = 0
    lengths: tuple[int, ...] = ()
    size: tuple[int, int] | None = (
        None  # (stamp, size) of the file or disk: the greater stamp is newer
    )


pack = msgspec.msgpack.Encoder().encode
_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.msgpack.Decoder(Reply)
_fields = msgspec.msgpack.Decoder(dict[str, str | int | bool | None])


def read_request(header: Buffer) -> Request:
    """Decode a request.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        request = _requests.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a request that cannot be read: {error}") from error
    if min(request.id, request.handle, request.spilled, request.staged, *request.lengths) < 0:
        raise RemoteProtocolError(f"a request with a number below 0: {request}")
    return request


def is_greeting(header: Buffer) -> bool:
    """Say whether a link's first message begins a session; those of other protocols have a number for a verb."""
    try:
        return _requests.decode(header).verb == HELLO
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def read_reply(header: Buffer) -> Reply:
    """Decode a reply.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        reply = _replies.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a reply that cannot be read: {error}") from error
    if min(reply.id, reply.handle, reply.spilled, *reply.lengths) < 0:
        raise RemoteProtocolError(f"a reply with a number below 0: {reply}")
    return reply


def divide(message: Request | Reply, payload: memoryview) -> tuple[Buffer, list[memoryview]]:
    """Return the packed values of a message, and its buffers.

    Raises:
        RemoteProtocolError: They are not as long as the payload.
    """
    if message.spilled + sum(message.lengths) != len(payload):
        raise RemoteProtocolError(
            f"a payload of {len(payload)} bytes, announced {message.spilled} and {message.lengths}"
        )
    at = message.spilled
    buffers = []
    for length in message.lengths:
        buffers.append(payload[at : at + length])
        at += length
    return (payload[: message.spilled] if message.spilled else message.values), buffers


def lengths_of(buffers: Sequence[Buffer]) -> tuple[int, ...]:
    """Return how long buffers are, in bytes."""
    return tuple(each.nbytes if isinstance(each, memoryview) else len(each) for each in buffers)


def refusal(number: int, error: Exception) -> Reply:
    """Return the reply that tells an error with its fields; what is no error of the tree becomes StoreFailed."""
    name, text, fields = told(error)
    return Reply(number, name, text, values=msgspec.Raw(pack(fields)) if fields else NOTHING)


def raised(reply: Reply, peer: str) -> WarpError:
    """Return the error that a reply tells: the home's own, as if it were here."""
    if reply.error in (Unauthenticated.__name__, RemoteProtocolError.__name__):
        return Unavailable(f"{peer} refuses: {reply.text}")
    try:
        fields = _fields.decode(reply.values) if reply.values != NOTHING else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unavailable(f"{peer}: an error that cannot be read: {error}")
    return untold(reply.error, reply.text, fields)
