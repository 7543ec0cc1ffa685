"""The authenticator: access keys in rows of the metadata engine, all of them in memory.

The root key comes from the node's environment or key file and is no row. Row `k` + access key holds
the principal and the wrapped secret.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from warp_core.contexts import AuthContext
from warp_core.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    NewerFormat,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential, Principal
from warp_core.interfaces.consistency import SCAN_MAX, Commit, KeyCheck, Write

from warp_keys.config import Config
from warp_keys.wrapping import Wrapping

FORMAT = 1
ROW = b"k"
ROW_END = b"l"
ROOT = "account:root"

_ACCESS_KEY = re.compile(r"[A-Za-z0-9]{3,128}\Z")  # as AWS: what a credential scope can carry
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}\Z")
_SECRET_MIN, _SECRET_MAX = 8, 128


class KeyRow(msgspec.Struct, frozen=True, array_like=True):
    """The value of a row, msgpack encoded."""

    format: int
    principal: str
    wrapped: bytes
    created_ns: int


class Keys(Authenticator):
    """Access keys with shared secrets."""

    capabilities = AuthCapabilities(shared_secrets=True, manages_keys=True)

    def __init__(
        self,
        config: Config,
        context: AuthContext,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = context.metastore
        self._wrapping = Wrapping(context.data)
        access, secret = context.root
        self._root = Credential(access, secret, Principal(ROOT, "root", admin=True))
        self._known: dict[str, Credential] = {}
        self._read_at: dict[str, float] = {}
        self._monotonic = monotonic
        # Where other nodes change keys too, what memory holds is asked for again after a while.
        self._shared = context.metastore.capabilities.shared

    async def __aenter__(self) -> Self:
        """Read every key.

        Raises:
            Corrupt: A secret cannot be unwrapped.
            NewerFormat: A row was written by a later release.
        """
        start = ROW
        while True:
            view = self._store.view()
            try:
                rows = await view.scan(start, ROW_END, limit=SCAN_MAX)
            finally:
                view.close()
            for row in rows:
                self._remember(row.key[len(ROW) :].decode(), row.value)
            if len(rows) < SCAN_MAX:
                break
            start = rows[-1].key + b"\0"
        self._known[self._root.access_key] = self._root
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._known.clear()

    def lookup_now(self, access_key: str) -> Credential | None:
        """Return the credential from memory, unless another node may have changed it since."""
        found = self._known.get(access_key)
        if self._shared and found is not None and found is not self._root:
            age = self._monotonic() - self._read_at[access_key]
            return found if age < self._config.remember else None
        return found

    async def lookup(self, access_key: str) -> Credential:
        """Return the credential, read from its row where memory does not hold it."""
        found = self.lookup_now(access_key)
        if found is not None:
            return found
        # Without other nodes memory is complete: an unknown key costs no read.
        if self._shared and _ACCESS_KEY.match(access_key):
            view = self._store.view()
            try:
                row = await view.get(ROW + access_key.encode())
            finally:
                view.close()
            if row is not None:
                return self._remember(access_key, row[0])
            self._known.pop(access_key, None)
        raise Unauthenticated("the access key is unknown or revoked")

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        """Make a key for an account, "NAME" or "account:NAME"; "root" has all rights."""
        who = _principal(principal)
        access_key = access_key or _new_access_key()
        secret = secret or secrets.token_urlsafe(30)
        if not _ACCESS_KEY.match(access_key):
            raise InvalidArgument(
                f'access key "{access_key}": 3 to 128 letters and digits are allowed'
            )
        if not _SECRET_MIN <= len(secret) <= _SECRET_MAX or not secret.isprintable():
            raise InvalidArgument(
                f"a secret has {_SECRET_MIN} to {_SECRET_MAX} printable characters"
            )
        if access_key in self._known:
            raise AlreadyExists(f"access key {access_key} exists")
        if len(self._known) > self._config.keys_max:
            raise TooLarge(f"{self._config.keys_max} access keys exist, the limit auth.keys_max")
        wrapped = self._wrapping.wrap(secret, access_key)
        value = msgspec.msgpack.encode(KeyRow(FORMAT, who.name, wrapped, time.time_ns()))
        key = ROW + access_key.encode()
        try:
            await self._store.commit(
                Commit(
                    checks=[KeyCheck(key, 0)],
                    writes=[Write(key, value)],
                    request_id=secrets.token_bytes(16),
                )
            )
        except Conflict:
            raise AlreadyExists(f"access key {access_key} exists") from None
        return self._remember(access_key, value)

    async def revoke_key(self, access_key: str) -> None:
        """Make a key useless from now on; the root key cannot be revoked."""
        if access_key == self._root.access_key:
            raise InvalidArgument(
                "the root key cannot be revoked: change WARP_ACCESS_KEY and WARP_SECRET_KEY, or delete"
                " root.key, and start the node again"
            )
        key = ROW + access_key.encode()
        view = self._store.view()
        try:
            found = await view.get(key)
        finally:
            view.close()
        if found is None:
            raise NotFound(f"there is no access key {access_key}")
        await self._store.commit(
            Commit(writes=[Write(key, None)], request_id=secrets.token_bytes(16))
        )
        self._known.pop(access_key, None)

    async def list_keys(self) -> list[tuple[str, Principal]]:
        """Return every access key of this node's memory and its principal, sorted by key."""
        return sorted((key, each.principal) for key, each in self._known.items())

    def _remember(self, access_key: str, value: bytes) -> Credential:
        row = msgspec.msgpack.decode(value, type=KeyRow)
        if row.format > FORMAT:
            raise NewerFormat(
                f"access key {access_key} is of format {row.format}, this release reads up to {FORMAT}"
            )
        secret = self._wrapping.unwrap(row.wrapped, access_key)
        credential = Credential(access_key, secret, _principal(row.principal))
        self._known[access_key] = credential
        self._read_at[access_key] = self._monotonic()
        return credential


def _principal(name: str) -> Principal:
    """Return who an account's name stands for.

    Raises:
        InvalidArgument: It is no name of an account.
    """
    account = name.removeprefix("account:")
    if not _ACCOUNT.match(account):
        raise InvalidArgument(
            f'account "{account}": up to 63 letters, digits and . _ @ - are allowed, a letter or digit first'
        )
    return Principal(f"account:{account}", account, admin=account == "root")


def _new_access_key() -> str:
    return "WARP" + base64.b32encode(secrets.token_bytes(10)).decode()
