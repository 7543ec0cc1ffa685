"""Who asks: a token, a certificate, or the user at the other end of the node's own socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from warp_core.errors import Unauthenticated
from warp_core.interfaces.audit import Caller
from warp_core.logs import get
from warp_core.metrics import Counter
from warp_core.node.control import Role
from warp_core.node.tokens import Tokens

from warp_admin.limits import Failures
from warp_admin.problems import Problem

CHALLENGE: Final = ("WWW-Authenticate", 'Bearer realm="warp"')
TOKEN_MAX: Final = 256  # characters

log = get("warp_admin")


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Attributes:
        address: "HOST:PORT", or "pid 4711".
        host: Without the port; "" for a Unix socket.
        user: Who is at the other end of a Unix socket, as `unix:0`; None for TCP.
        names: That its certificate has, proven.
    """

    address: str
    host: str
    user: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who is known."""

    caller: Caller
    role: Role


class Doorman:
    """Says who somebody is."""

    def __init__(
        self,
        tokens: Tokens,
        clients: Mapping[str, str],
        failures_max: int,
        *,
        failed: Counter,
        clock: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._clients = clients
        self._failures = Failures(failures_max, clock)
        self._failed = failed

    async def identify(self, peer: Peer, authorization: str | None) -> Asker:
        """Return who asks. A token goes before everything else.

        Raises:
            Problem: 401 for who is not known, 429 for an address that was wrong too often.
        """
        if authorization is not None:
            return await self._by_token(peer, authorization)
        if peer.user is not None:  # the socket's mode lets only the owner in, and root
            return Asker(Caller(peer.user, "admin", peer.address), Role.ADMIN)
        for name in peer.names:
            role = self._clients.get(name)
            if role is not None:
                who = Caller(f"certificate:{name}", "admin", peer.address)
                return Asker(who, Role[role.upper()])
        detail = "send `Authorization: Bearer TOKEN`; `warp admin token create` makes one"
        if peer.names:
            detail += f"; the certificate's names are not in `clients`: {', '.join(peer.names)}"
        raise Problem(401, "Unauthenticated", detail, headers=[CHALLENGE])

    async def _by_token(self, peer: Peer, authorization: str) -> Asker:
        wait_s = self._failures.wait_s(peer.host) if peer.user is None else 0.0
        if wait_s > 0:
            raise Problem(
                429,
                "TooManyFailures",
                f"too many wrong tokens from {peer.host}: come again in {wait_s:.0f} s",
                headers=[("Retry-After", str(int(wait_s) + 1))],
            )
        scheme, _, text = authorization.partition(" ")
        try:
            if scheme.lower() != "bearer" or len(text) > TOKEN_MAX:
                raise Unauthenticated("not a bearer token")
            token = await self._tokens.find(text.strip())
        except Unauthenticated as error:
            self._failures.failed(peer.host)
            self._failed.add()
            log.warning("wrong token", peer=peer.address)
            raise Problem(
                401,
                "Unauthenticated",
                str(error),
                headers=[(CHALLENGE[0], f'{CHALLENGE[1]}, error="invalid_token"')],
            ) from None
        named = f"token:{token.id}" + (f" ({token.name})" if token.name else "")
        return Asker(Caller(named, "admin", peer.address), Role(token.role))


def names_of(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names of a certificate that was verified, as `ssl` tells it: the common name, then the alternative ones."""
    return tuple(dict.fromkeys(_names(certificate))) if certificate else ()


def _names(certificate: Mapping[str, Any]) -> Iterator[str]:
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                yield value
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in ("DNS", "email", "URI"):
            yield value
