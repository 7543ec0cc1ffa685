"""What a node can be asked about who administers it: tokens, and the audit log."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from warp_core.audit.files import Head
from warp_core.audit.log import AuditLog
from warp_core.audit.reading import PAGE_MAX, Change, list_changes, verify
from warp_core.errors import InvalidArgument, Unsupported
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Role, Verb
from warp_core.node.tokens import EXPIRES_MAX_S, NAME_MAX, Token, Tokens

ANCHOR_S = 10.0  # how long checking waits for the metadata to know of the newest line


class NewToken(msgspec.Struct, frozen=True):
    """A token to be: what for, what it may do, and how many seconds it is good (0: for ever)."""

    name: Annotated[str, Meta(max_length=NAME_MAX)] = ""
    role: Literal["viewer", "operator", "admin"] = "viewer"
    expires_s: Annotated[float, Meta(ge=0, le=EXPIRES_MAX_S)] = 30 * 86400.0


class OneToken(msgspec.Struct, frozen=True):
    """A token, by its id."""

    id: str


class Listing(msgspec.Struct, frozen=True):
    """Which changes: the newest `limit` whose maker and verb contain `by` and `what`, since a time, with a result."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 100
    by: str = ""
    what: str = ""
    since: str = ""
    result: Literal["", "ok", "refused", "failed", "cancelled", "unfinished"] = ""


class Expected(msgspec.Struct, frozen=True):
    """What the log has to contain: "NUMBER:HASH" of a line, as an earlier check told it."""

    head: str = ""


async def token_create(node: Node, arguments: NewToken, progress: Progress) -> object:
    """Make a token; it is told this once."""
    role = Role[arguments.role.upper()]
    text, token = await Tokens(node.data.metastore).create(
        arguments.name, role, expires_s=arguments.expires_s
    )
    return {"token": text, **_token(token)}


async def token_list(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell every token, but not its secret."""
    return [_token(each) for each in await Tokens(node.data.metastore).all()]


async def token_revoke(node: Node, arguments: OneToken, progress: Progress) -> object:
    """Make a token useless."""
    await Tokens(node.data.metastore).revoke(arguments.id)
    return {"revoked": arguments.id}


def _token(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "role": Role(token.role).name.lower(),
        "created": _time(token.created_s),
        "expires": _time(token.expires_s) if token.expires_s else "",
        "expired": token.expired(time.time()),
    }


async def audit_list(node: Node, arguments: Listing, progress: Progress) -> object:
    """Tell what was changed through this node, by whom, and with which result; the newest last."""
    log = _log(node)
    found = await asyncio.to_thread(
        list_changes,
        log.folder,
        limit=arguments.limit,
        by=arguments.by,
        what=arguments.what,
        since=arguments.since,
        result=arguments.result,
    )
    return [_change(each) for each in found]


def _change(each: Change) -> dict[str, object]:
    entry = each.entry
    return {
        "seq": entry.seq,
        "time": entry.time,
        "node": entry.node,
        "by": entry.by,
        "via": entry.via,
        "address": entry.address,
        "what": entry.what,
        "of": entry.of,
        "result": each.result,
        "error": each.error,
        "message": each.message,
        "ended": each.ended,
    }


async def audit_verify(node: Node, arguments: Expected, progress: Progress) -> object:
    """Check that the audit log is as it was written, and that no line is missing."""
    log, expected = _log(node), _head(arguments.head)
    await log.anchored(ANCHOR_S)
    anchor = await log.anchor()
    end = log.head  # looked at after the anchor, which is never ahead of it
    found = await asyncio.to_thread(verify, log.folder, anchor, expected=expected, end=end)
    broken = found.broken
    return {
        "whole": broken is None,
        "lines": found.lines,
        "files": found.files,
        "first": found.first,
        "head": f"{found.head.seq}:{found.head.hash}",
        "anchored": found.anchored.seq if found.anchored is not None else None,
        "broken": None if broken is None else msgspec.to_builtins(broken),
        "folder": str(log.folder),
    }


def _log(node: Node) -> AuditLog:
    if not isinstance(node.audit, AuditLog):
        raise Unsupported("this node keeps no audit log")
    return node.audit


def _head(text: str) -> Head | None:
    if not text:
        return None
    number, _, hash = text.partition(":")
    if not number.isascii() or not number.isdecimal() or len(number) > 18 or len(hash) != 64:
        raise InvalidArgument('head: "NUMBER:HASH", as `warp audit verify` prints it')
    return Head(int(number), hash.lower())


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


ADMIN_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("admin.token.create", Verb(NewToken, token_create)),
    ("admin.token.list", Verb(Nothing, token_list, role=Role.ADMIN)),
    ("admin.token.revoke", Verb(OneToken, token_revoke)),
    ("audit.entry.list", Verb(Listing, audit_list, role=Role.ADMIN)),
    ("audit.entry.verify", Verb(Expected, audit_verify, role=Role.ADMIN, reads=True)),
)
