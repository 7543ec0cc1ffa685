"""Tokens: what lets somebody who does not own the node ask it things over the network.

A token is `warp_ID_SECRET`. Rows hold a hash of the secret: 32 random bytes need no slow one. Key: `t` and the id.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec

from warp_core.errors import InvalidArgument, NewerFormat, NotFound, TooLarge, Unauthenticated
from warp_core.interfaces.consistency import MetaStore
from warp_core.metadata import Transaction, prefix_end, transact
from warp_core.node.control import Role

FORMAT: Final = 1
PREFIX: Final = b"t"
BEGIN: Final = "warp_"  # so that tools which look for secrets in repositories know one
TOKENS_MAX: Final = 1000  # one scan; a token is for a program or a person, not for a session
NAME_MAX: Final = 64
EXPIRES_MAX_S: Final = 10 * 365 * 86400.0
_ID_BYTES: Final = 5
_SECRET_BYTES: Final = 32


class Token(msgspec.Struct, frozen=True, array_like=True):
    """A token's row.

    Attributes:
        format: Of the row.
        id: What it is called in lists and in the audit log; no secret.
        name: What it is for, in words.
        role: What it may do.
        digest: SHA-256 of its secret.
        created_s: When, seconds since 1970.
        expires_s: From when on it is worth nothing; 0: never.
        by: Who made it.
    """

    format: int
    id: str
    name: str
    role: int
    digest: bytes
    created_s: float
    expires_s: float
    by: str = ""

    def expired(self, now_s: float) -> bool:
        """Say whether its time is over."""
        return bool(self.expires_s) and now_s >= self.expires_s


_decoder = msgspec.msgpack.Decoder(Token)


class Tokens:
    """The tokens of a node, or of all nodes that share its metadata."""

    def __init__(self, store: MetaStore, clock_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock_s = clock_s

    async def create(
        self, name: str, role: Role, *, expires_s: float, by: str = ""
    ) -> tuple[str, Token]:
        """Make a token; return it, which is not to be had again, and its row.

        Args:
            name: What it is for.
            role: What it may do.
            expires_s: Its life in seconds, 0 for ever.
            by: Who makes it.

        Raises:
            InvalidArgument: A name or a time that cannot be.
            TooLarge: There are TOKENS_MAX.
        """
        if len(name) > NAME_MAX or not name.isprintable():
            raise InvalidArgument(f"name {name[:80]!r}: at most {NAME_MAX} printable characters")
        if not 0 <= expires_s <= EXPIRES_MAX_S:
            raise InvalidArgument(
                f"a token is good for at most {EXPIRES_MAX_S / 86400:g} days, or for ever (0)"
            )
        id = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()
        secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")
        now_s = self._clock_s()
        token = Token(
            FORMAT,
            id,
            name,
            int(role),
            sha256(secret.encode()).digest(),
            now_s,
            now_s + expires_s if expires_s else 0.0,
            by,
        )

        async def add(tx: Transaction) -> None:
            if len(await tx.scan(PREFIX, prefix_end(PREFIX), limit=TOKENS_MAX)) >= TOKENS_MAX:
                raise TooLarge(f"there are {TOKENS_MAX} tokens: revoke some first")
            tx.put(PREFIX + id.encode(), msgspec.msgpack.encode(token))

        await transact(self._store, add)
        return f"{BEGIN}{id}_{secret}", token

    async def all(self) -> list[Token]:
        """Return every token, oldest first."""
        view = self._store.view()
        try:
            rows = await view.scan(PREFIX, prefix_end(PREFIX), limit=TOKENS_MAX)
        finally:
            view.close()
        return sorted((_unpack(row.value) for row in rows), key=lambda token: token.created_s)

    async def answers(self) -> None:
        """Read something.

        Raises:
            WarpError: The metadata does not answer.
        """
        view = self._store.view()
        try:
            await view.get(PREFIX)
        finally:
            view.close()

    async def revoke(self, id: str) -> None:
        """Make a token useless at once.

        Raises:
            NotFound: There is none of that id.
        """

        async def drop(tx: Transaction) -> None:
            if await tx.get(_key(id)) is None:
                raise NotFound(f'there is no token "{id}": `warp admin token list` shows them')
            tx.delete(_key(id))

        await transact(self._store, drop)

    async def find(self, text: str) -> Token:
        """Return whose token this is.

        Raises:
            Unauthenticated: It is none, was revoked, or its time is over. All sound the same.
        """
        begin, _, rest = text.partition("_")
        id, _, secret = rest.partition("_")
        if f"{begin}_" != BEGIN or not id.isalnum() or not secret or not text.isascii():
            raise Unauthenticated(WRONG)
        view = self._store.view()
        try:
            found = await view.get(_key(id))
        finally:
            view.close()
        token = _unpack(found[0]) if found is not None else NO_TOKEN
        right = compare_digest(sha256(secret.encode()).digest(), token.digest)
        if not right or token is NO_TOKEN or token.expired(self._clock_s()):
            raise Unauthenticated(WRONG)
        return token


WRONG: Final = "the token is none, was revoked, or its time is over"
NO_TOKEN: Final = Token(FORMAT, "", "", 0, bytes(32), 0.0, 1.0)


def _key(id: str) -> bytes:
    return PREFIX + id[:NAME_MAX].encode()


def _unpack(value: bytes) -> Token:
    token = _decoder.decode(value)
    if token.format > FORMAT:
        raise NewerFormat(f"a token has format {token.format}, this release reads {FORMAT}")
    return token
