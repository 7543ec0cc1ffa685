"""Tokens of other providers of identities (OpenID Connect): whether one is what its provider said, and for whom.

A provider's keys come from where its discovery document says. They are kept for a while; a token of a key that is not among them has
them read again, but not more often than every `AGAIN_S`, so that nobody makes this server ask all the time.

Source: OpenID Connect Core 1.0, section 3.1.3.7, and OpenID Connect Discovery 1.0, section 4.
"""

import asyncio
import json
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from warp_s3.access.conditions import like
from warp_s3.iam.errors import QueryError

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

    from warp_s3.iam.entities import Provider

TOKEN_MAX: Final = 20_000
"""Characters of a token; AWS's own figure."""

DOCUMENT_MAX: Final = 256 * 1024
"""Bytes of a discovery document or a set of keys."""

FETCH_S: Final = 5.0
KEEP_S: Final = 600.0
AGAIN_S: Final = 30.0
SKEW_S: Final = 60
PROVIDERS_MAX: Final = 256
"""Providers whose keys are kept."""

ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512"]

Fetch = Callable[[str], bytes]


class WebIdentities:
    """Verifies tokens."""

    def __init__(
        self,
        allowed: Sequence[str],
        *,
        fetch: "Fetch | None" = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take patterns of the addresses that may be asked."""
        self._allowed = allowed
        self._fetch = fetch or _get
        self._monotonic = monotonic
        self._kept: dict[str, tuple[float, KeySet]] = {}
        self._asking: dict[
            str, asyncio.Lock
        ] = {}  # a provider that is slow keeps nobody else waiting

    async def verify(self, token: str, provider: "Provider", *, now_s: float) -> dict[str, Any]:
        """Return what a token claims.

        Raises:
            QueryError: `InvalidIdentityToken`, `ExpiredTokenException`, `IDPCommunicationError`.
        """
        from joserfc import jwt
        from joserfc.errors import JoseError

        keys = await self._keys(provider, again=False)
        try:
            try:
                decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            except (JoseError, ValueError):
                # Perhaps it is of a key that is new.
                keys = await self._keys(provider, again=True)
                decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise QueryError(
                "InvalidIdentityToken", "The token's signature could not be verified."
            ) from error
        claims = decoded.claims
        _check(claims, provider, now_s)
        return claims

    async def _keys(self, provider: "Provider", *, again: bool) -> "KeySet":
        from joserfc.jwk import KeySet

        if len(self._asking) >= PROVIDERS_MAX:
            self._asking = {url: lock for url, lock in self._asking.items() if lock.locked()}
        async with self._asking.setdefault(provider.url, asyncio.Lock()):
            known = self._kept.get(provider.url)
            now = self._monotonic()
            if known is not None and now - known[0] < (AGAIN_S if again else KEEP_S):
                return known[1]
            try:
                async with asyncio.timeout(2 * FETCH_S):
                    keys = KeySet.import_key_set(await asyncio.to_thread(self._read, provider.url))
            except QueryError:
                raise
            except Exception as error:
                raise QueryError(
                    "IDPCommunicationError",
                    f"The keys of {provider.url} could not be read.",
                ) from error
            if len(self._kept) >= PROVIDERS_MAX:
                self._kept.clear()
            self._kept[provider.url] = now, keys
            return keys

    def _read(self, url: str) -> Any:
        """Read a provider's keys; runs in a thread."""
        document = self._json(url.rstrip("/") + "/.well-known/openid-configuration")
        if str(document.get("issuer", "")).rstrip("/") != url.rstrip("/"):
            raise QueryError("IDPCommunicationError", f"{url} says it is another issuer.")
        return self._json(str(document.get("jwks_uri", "")))

    def _json(self, url: str) -> Any:
        if not any(like(pattern, url) for pattern in self._allowed):
            raise QueryError(
                "IDPCommunicationError",
                f"{url[:256]} is not among the addresses that this server asks (identity_providers).",
            )
        made = json.loads(self._fetch(url))
        if not isinstance(made, dict):
            raise ValueError("no JSON object")
        return made


def issuer_of(token: str) -> str:
    """Return who a token says made it, unverified, without "https://".

    Raises:
        QueryError: `InvalidIdentityToken`.
    """
    try:
        if len(token) > TOKEN_MAX:
            raise ValueError("too long")
        _, payload, _ = token.split(".")
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issuer = claims["iss"]
        if not isinstance(issuer, str):
            raise TypeError("iss")
    except (ValueError, KeyError, TypeError, Base64Error, RecursionError) as error:
        raise QueryError(
            "InvalidIdentityToken", "The ID Token provided is not a valid JWT."
        ) from error
    return (issuer.partition("://")[2] or issuer).rstrip("/")


def audience_of(claims: Mapping[str, Any]) -> str:
    """Return whom a token is for: who was authorized, or its only audience."""
    authorized = claims.get("azp")
    if isinstance(authorized, str) and authorized:
        return authorized
    audiences = _audiences(claims)
    return audiences[0] if audiences else ""


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    said = claims.get("aud", [])
    return [said] if isinstance(said, str) else [one for one in said if isinstance(one, str)]


def _check(claims: Mapping[str, Any], provider: "Provider", now_s: float) -> None:
    # Google's tokens have no "https://" in front of their issuer, as AWS accepts.
    if str(claims.get("iss", "")).rstrip("/") not in {provider.url.rstrip("/"), provider.name}:
        raise QueryError("InvalidIdentityToken", "The token is of another issuer.")
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if value is None and name == "nbf":
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise QueryError("InvalidIdentityToken", f"The token has no {name}.")
        if name == "exp" and value + SKEW_S <= now_s:
            raise QueryError(
                "ExpiredTokenException", "Token expired: current date/time is later than exp"
            )
        if name != "exp" and value - SKEW_S > now_s:
            raise QueryError("InvalidIdentityToken", f"The token's {name} is in the future.")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise QueryError("InvalidIdentityToken", "The token has no sub.")
    if {audience_of(claims), *_audiences(claims)}.isdisjoint(provider.clients):
        raise QueryError("InvalidIdentityToken", "Incorrect token audience")


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str) -> bytes:
    if urlsplit(url).scheme not in {"https", "http"}:
        raise ValueError(url)
    opener = urllib.request.build_opener(_Staying)
    with opener.open(url, timeout=FETCH_S) as answer:
        data: bytes = answer.read(DOCUMENT_MAX + 1)
    if len(data) > DOCUMENT_MAX:
        raise ValueError("too long")
    return data
