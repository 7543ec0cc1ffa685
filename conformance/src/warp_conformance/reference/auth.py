"""An authenticator in two dictionaries."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from types import TracebackType
from typing import Self

from warp_core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential, Principal

NAME = re.compile(r"(account:)?[A-Za-z0-9._@-]{1,63}")
NOBODY = hashlib.sha256(b"nobody's").digest()


class Disk:
    """What survives the authenticator: keys and password hashes."""

    def __init__(self) -> None:
        self.keys: dict[str, Credential] = {}
        self.passwords: dict[str, bytes] = {}


class MemoryAuth(Authenticator):
    """Keeps everything on a `Disk`."""

    capabilities = AuthCapabilities(shared_secrets=True, passwords=True, manages_keys=True)

    def __init__(self, disk: Disk, root: tuple[str, str]) -> None:
        self.disk = disk
        self.root = Credential(*root, self.principal("account:root"))

    def principal(self, name: str) -> Principal:
        """Return who a name stands for."""
        name = name if ":" in name else f"account:{name}"
        return Principal(name, admin=name == "account:root")

    async def __aenter__(self) -> Self:
        """Nothing is opened."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is closed."""

    def lookup_now(self, access_key: str) -> Credential | None:
        """Look into the dictionary."""
        return self.root if access_key == self.root.access_key else self.disk.keys.get(access_key)

    async def lookup(self, access_key: str) -> Credential:
        """Look into the dictionary."""
        found = self.lookup_now(access_key)
        if found is None:
            raise Unauthenticated("unknown or revoked")
        return found

    async def verify_password(self, user: str, password: str) -> Principal:
        """Compare hashes."""
        who = self.principal(user)
        kept = self.disk.passwords.get(who.name, NOBODY)
        if not hmac.compare_digest(self.hashed(password), kept) or kept is NOBODY or not password:
            raise Unauthenticated("unknown user or wrong password")
        return who

    def hashed(self, password: str) -> bytes:
        """Return what is kept of a password."""
        return hashlib.sha256(password.encode()).digest()

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        """Add to the dictionary."""
        if not NAME.fullmatch(principal):
            raise InvalidArgument(f"no name: {principal!r}")
        access_key = access_key or secrets.token_hex(10).upper()
        if self.lookup_now(access_key):
            raise AlreadyExists(access_key)
        made = Credential(
            access_key, secret or secrets.token_urlsafe(30), self.principal(principal)
        )
        self.disk.keys[access_key] = made
        return made

    async def revoke_key(self, access_key: str) -> None:
        """Remove from the dictionary."""
        if access_key == self.root.access_key:
            raise PermissionDenied("the root key stays")
        if access_key not in self.disk.keys:
            raise NotFound(access_key)
        del self.disk.keys[access_key]

    async def list_keys(self) -> list[tuple[str, Principal]]:
        """Return the dictionary."""
        found = [*self.disk.keys.values(), self.root]
        return sorted(
            ((each.access_key, each.principal) for each in found), key=lambda pair: pair[0]
        )

    async def set_password(self, principal: str, password: str) -> None:
        """Keep a hash."""
        name = self.principal(principal).name
        self.disk.passwords.pop(name, None)
        if password:
            self.disk.passwords[name] = self.hashed(password)
