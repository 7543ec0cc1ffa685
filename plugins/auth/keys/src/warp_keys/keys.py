"""The authenticator: access keys and principals in rows of the metadata engine, the keys all in memory.

The root key comes from the node's environment or key file and is no row.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import msgspec
from warp_core.contexts import AuthContext
from warp_core.errors import (
    AlreadyExists,
    Ambiguous,
    InvalidArgument,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential, Principal
from warp_core.interfaces.consistency import SCAN_MAX, Row
from warp_core.metadata import Transaction, transact

from warp_keys.config import Config
from warp_keys.passwords import hash_password, matches, nobody
from warp_keys.rows import (
    FORMAT,
    KEY,
    KEY_END,
    NOTHING,
    PRINCIPAL,
    PRINCIPAL_END,
    ROOT,
    KeyRow,
    PrincipalRow,
    canonical,
    principal,
    unpack_key,
    unpack_principal,
)
from warp_keys.wrapping import Wrapping

CHECKS_MAX = 4  # passwords hashed at once: each takes 16 MiB
PASSWORD_MAX = 1024  # characters; longer ones cost only the server

_ACCESS_KEY = re.compile(r"[A-Za-z0-9]{3,128}\Z")  # as AWS: what a credential scope can carry
_SECRET_MIN, _SECRET_MAX = 8, 128


class Keys(Authenticator):
    """Access keys with shared secrets."""

    capabilities = AuthCapabilities(shared_secrets=True, passwords=True, manages_keys=True)

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
        self._root = Credential(access, secret, principal(ROOT, NOTHING))
        self._known: dict[str, Credential] = {}
        self._principals: dict[str, PrincipalRow] = {}
        self._revoked = 0  # so far: what a lookup read before the last one is not remembered
        self._checks = asyncio.Semaphore(CHECKS_MAX)
        self._nobody = nobody(config.password_cost)
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
        async for row in self._scan(PRINCIPAL, PRINCIPAL_END):
            name = row.key[len(PRINCIPAL) :].decode()
            self._principals[name] = unpack_principal(name, row.value)
        async for row in self._scan(KEY, KEY_END):
            self._remember(row.key[len(KEY) :].decode(), row.value)
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
        while self._shared and _ACCESS_KEY.match(access_key):
            revoked = self._revoked
            value = await self._read(access_key)
            if revoked != self._revoked:
                continue  # it may have been revoked while it was read
            if value is not None:
                return self._remember(access_key, value)
            self._known.pop(access_key, None)
            break
        raise Unauthenticated("the access key is unknown or revoked")

    async def verify_password(self, user: str, password: str) -> Principal:
        """Return who proved to be an account; see `Authenticator`. At most CHECKS_MAX run at once, others wait."""
        kept, row, name = b"", NOTHING, ""
        try:
            name = canonical(user)
        except InvalidArgument:
            pass  # nobody's name: it takes as long as any other
        else:
            row = await self._read_principal(name)
            kept = row.password
        async with self._checks:
            right = await asyncio.to_thread(matches, password[:PASSWORD_MAX], kept or self._nobody)
        if not right or not kept or len(password) > PASSWORD_MAX:
            raise Unauthenticated("unknown user or wrong password")
        return principal(name, row)

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        """Make a key for an account, "NAME" or "account:NAME"; "root" has all rights."""
        name = canonical(principal)
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
        value = msgspec.msgpack.encode(KeyRow(FORMAT, name, wrapped, time.time_ns()))
        key = KEY + access_key.encode()

        async def create(transaction: Transaction) -> None:
            if await transaction.get(key) is not None:
                raise AlreadyExists(f"access key {access_key} exists")
            transaction.put(key, value)

        await transact(self._store, create)
        return self._remember(access_key, value)

    async def revoke_key(self, access_key: str) -> None:
        """Make a key useless from now on; the root key cannot be revoked."""
        if access_key == self._root.access_key:
            raise InvalidArgument(
                "the root key cannot be revoked: change WARP_ACCESS_KEY and WARP_SECRET_KEY, or delete"
                " root.key, and start the node again"
            )
        key = KEY + access_key.encode()

        async def revoke(transaction: Transaction) -> None:
            if await transaction.get(key) is None:
                raise NotFound(f"there is no access key {access_key}")
            transaction.delete(key)

        try:
            await transact(self._store, revoke)
        except Ambiguous:
            self._forget(access_key)  # nobody may use what may be revoked
            raise
        self._forget(access_key)

    async def list_keys(self) -> list[tuple[str, Principal]]:
        """Return every access key of this node's memory and its principal, sorted by key."""
        return sorted(
            ((key, each.principal) for key, each in self._known.items()), key=lambda pair: pair[0]
        )

    async def set_password(self, principal: str, password: str) -> None:
        """Set what `verify_password` accepts; see `Authenticator`."""
        if len(password) > PASSWORD_MAX:
            raise InvalidArgument(f"password of {len(password)} characters > {PASSWORD_MAX}")
        kept = b""
        if password:
            async with self._checks:
                cost = self._config.password_cost
                kept = await asyncio.to_thread(hash_password, password, cost)
        await self._change(canonical(principal), lambda row: _with(row, password=kept))

    async def set_principal(self, principal: Principal) -> None:
        """Set what is known of an account besides its name and password; its keys stay."""
        await self._change(
            canonical(principal.name),
            lambda row: _with(
                row,
                display=principal.display,
                admin=principal.admin,
                aliases=tuple(sorted(principal.aliases)),
                groups=tuple(sorted(principal.groups)),
            ),
        )

    async def _change(self, name: str, change: Callable[[PrincipalRow], PrincipalRow]) -> None:
        key = PRINCIPAL + name.encode()

        async def body(transaction: Transaction) -> PrincipalRow:
            row = change(unpack_principal(name, await transaction.get(key)))
            transaction.put(key, msgspec.msgpack.encode(row))
            return row

        row = self._principals[name] = await transact(self._store, body)
        self._revoked += 1  # a lookup on its way may have read the row before
        for access_key, known in self._known.items():
            if known.principal.name == name and known is not self._root:
                self._known[access_key] = Credential(access_key, known.secret, principal(name, row))

    async def _scan(self, start: bytes, end: bytes) -> AsyncIterator[Row]:
        """Yield the rows of a range, page by page."""
        while True:
            view = self._store.view()
            try:
                rows = await view.scan(start, end, limit=SCAN_MAX)
            finally:
                view.close()
            for row in rows:
                yield row
            if len(rows) < SCAN_MAX:
                return
            start = rows[-1].key + b"\0"

    async def _read(self, access_key: str) -> bytes | None:
        """Return a key's row, having read its principal's at the same moment."""
        view = self._store.view()
        try:
            found = await view.get(KEY + access_key.encode())
            if found is None:
                return None
            name = unpack_key(access_key, found[0]).principal
            row = await view.get(PRINCIPAL + name.encode())
            self._principals[name] = unpack_principal(name, row[0] if row else None)
            return found[0]
        finally:
            view.close()

    async def _read_principal(self, name: str) -> PrincipalRow:
        view = self._store.view()
        try:
            row = await view.get(PRINCIPAL + name.encode())
        finally:
            view.close()
        return unpack_principal(name, row[0] if row else None)

    def _remember(self, access_key: str, value: bytes) -> Credential:
        row = unpack_key(access_key, value)
        secret = self._wrapping.unwrap(row.wrapped, access_key)
        who = principal(row.principal, self._principals.get(row.principal, NOTHING))
        credential = Credential(access_key, secret, who)
        self._known[access_key] = credential
        self._read_at[access_key] = self._monotonic()
        return credential

    def _forget(self, access_key: str) -> None:
        self._revoked += 1
        self._known.pop(access_key, None)


def _with(row: PrincipalRow, **fields: object) -> PrincipalRow:
    return msgspec.structs.replace(row, **fields)


def _new_access_key() -> str:
    return "WARP" + base64.b32encode(secrets.token_bytes(10)).decode()
