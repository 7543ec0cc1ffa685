"""Temporary credentials: everything about a session is sealed in its token, so that no node keeps anything.

A session ends when its time is over, or when the user, the role or the access key that it was begun with is gone.
"""

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec
from warp_core.errors import Corrupt, NewerFormat

FORMAT: Final = 1

TOKEN_MAX: Final = 8 * 1024
"""Characters of a token: half of what a request's head may have."""

PACKED_MAX: Final = 4 * 1024
"""Bytes of a session before it is sealed: a token stays below TOKEN_MAX."""

SESSION_MAX: Final = 64 * 1024
"""Bytes of a session that are taken from a token."""

REMEMBERED_MAX: Final = 4096
"""Sessions remembered after their token was opened, about 2 KiB each."""

_NAME: Final = "s3.session"


class Session(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One session, msgpack encoded, compressed, sealed."""

    format: int = FORMAT
    access_key: str
    secret: str
    account: str  # principal's name
    id: str  # of the user or role; empty: the account itself
    parent: str = ""  # the account's access key that began it, if it is the account's
    name: str = ""  # of a role's session
    issued_s: int
    expires_s: int
    policies: tuple[str, ...] = ()  # documents: it may do what these allow as well
    attached: tuple[str, ...] = ()  # ARNs of managed policies of that kind
    tags: dict[str, str] = {}
    transitive: tuple[str, ...] = ()  # keys of tags that go on to further sessions
    source_identity: str = ""
    values: dict[str, list[str]] = {}


_decoder = msgspec.msgpack.Decoder(Session)


class Tokens:
    """Opens and makes tokens, and remembers those it opened last."""

    def __init__(
        self, seal: Callable[[bytes, str], bytes], unseal: Callable[[bytes, str], bytes]
    ) -> None:
        self._seal = seal
        self._unseal = unseal
        self._opened: OrderedDict[str, Session] = OrderedDict()

    def make(self, session: Session) -> tuple[str, int]:
        """Return a session's token, and how much of what one holds it takes, in percent."""
        packed = zlib.compress(msgspec.msgpack.encode(session))
        token = urlsafe_b64encode(self._seal(packed, _NAME)).decode().rstrip("=")
        return token, -(-len(packed) * 100 // PACKED_MAX)

    def open(self, token: str) -> Session:
        """Return the session of a token.

        Raises:
            Corrupt: It is none of ours, or was changed.
            NewerFormat: A later release made it.
        """
        known = self._opened.get(token)
        if known is not None:
            return known
        if len(token) > TOKEN_MAX:
            raise Corrupt("the token is too long")
        try:
            sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (Base64Error, ValueError) as error:
            raise Corrupt("the token is not in base 64") from error
        opener = zlib.decompressobj()
        packed = opener.decompress(self._unseal(sealed, _NAME), SESSION_MAX)
        session = _decoder.decode(packed)
        if session.format > FORMAT:
            raise NewerFormat(f"the token is of format {session.format}")
        self._opened[token] = session
        if len(self._opened) > REMEMBERED_MAX:
            self._opened.popitem(last=False)
        return session
