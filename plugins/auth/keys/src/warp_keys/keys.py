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
from warp_core import logs
from warp_core.contexts import AuthContext
from warp_core.errors import (
    AlreadyExists,
    Ambiguous,
    InvalidArgument,
    NotEmpty,
    NotFound,
    TooLarge,
    Unauthenticated,
)
from warp_core.interfaces.accounts import Account, Accounts, made_id, made_number
from warp_core.interfaces.auth import AuthCapabilities, Authenticator, Credential, Principal
from warp_core.interfaces.consistency import SCAN_MAX, Row
from warp_core.interfaces.records import Records
from warp_core.metadata import Transaction, transact
from warp_core.metadata.records import MetaRecords

from warp_keys.config import Config
from warp_keys.passwords import hash_password, matches, nobody
from warp_keys.rows import (
    ACCOUNT,
    FORMAT,
    KEY,
    KEY_END,
    NOTHING,
    PRINCIPAL,
    PRINCIPAL_END,
    ROOT,
    KeyRow,
    PrincipalRow,
    account_of,
    canonical,
    declared_principal,
    principal,
    taken,
    unpack_key,
    unpack_principal,
)
from warp_keys.wrapping import Wrapping

_log = logs.get("warp_keys")

CHECKS_MAX = 4  # passwords hashed at once: each takes 16 MiB
PASSWORD_MAX = 1024  # characters; longer ones cost only the server

_ACCESS_KEY = re.compile(r"[A-Za-z0-9]{3,128}\Z")  # as AWS: what a credential scope can carry
_SECRET_MIN, _SECRET_MAX = 8, 128


class Keys(Authenticator):
    """Access keys with shared secrets."""

    capabilities = AuthCapabilities(
        shared_secrets=True,
        passwords=True,
        manages_keys=True,
        manages_accounts=True,
        keeps_records=True,
    )

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
        self._declared = {each.account.name: each.account for each in context.accounts}
        self._declared_keys = {
            key: Credential(key, secret, declared_principal(each.account))
            for each in context.accounts
            for key, secret in each.keys
        }
        if ROOT in self._declared:
            self._root = Credential(access, secret, declared_principal(self._declared[ROOT]))
        self._directory: Accounts | None = None  # made of all below when it is asked for
        self._listed_at = 0.0
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
        await self._read_principals()
        async for row in self._scan(KEY, KEY_END):
            if self._shared and self._wrapping.is_elsewhere():
                # A witness, which nobody signs in at, or a node that has lost it: it does what else it is there for.
                _log.warning("no wrap.key here: access keys that other nodes made are refused")
                break
            self._remember(row.key[len(KEY) :].decode(), row.value)
        self._known |= self._declared_keys  # the file has the last word
        self._known[self._root.access_key] = self._root
        return self

    async def _read_principals(self) -> None:
        """Read every principal's row."""
        found: dict[str, PrincipalRow] = {}
        async for row in self._scan(PRINCIPAL, PRINCIPAL_END):
            name = row.key[len(PRINCIPAL) :].decode()
            found[name] = unpack_principal(name, row.value)
        self._principals = found
        self._directory = None
        self._listed_at = self._monotonic()

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
        if self._shared and found is not None and access_key in self._read_at:
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

    async def principal_of(self, name: str) -> Principal:
        """Return who an account is; see `Authenticator`."""
        if name in self._declared:
            return declared_principal(self._declared[name])
        row = await self._read_principal(name)
        if row is NOTHING and name not in await self.accounts():
            raise Unauthenticated("no such account")
        return principal(name, row)

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
        return await self.principal_of(name)

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
        account = (await self.accounts()).named(name)

        async def create(transaction: Transaction) -> PrincipalRow | None:
            if await transaction.get(key) is not None:
                raise AlreadyExists(f"access key {access_key} exists")
            transaction.put(key, value)
            if name in self._declared or name == ROOT:
                return None
            if await transaction.get(PRINCIPAL + name.encode()) is not None:
                return None
            # Whoever gets a key is an account from now on, with a number that is nobody else's.
            return await self._write(transaction, account, new=True)

        made = await transact(self._store, create)
        if made is not None:
            self._principals[name] = made
            self._directory = None
        return self._remember(access_key, value)

    async def revoke_key(self, access_key: str) -> None:
        """Make a key useless from now on; the root key cannot be revoked."""
        if access_key == self._root.access_key:
            raise InvalidArgument(
                "the root key cannot be revoked: change WARP_ACCESS_KEY and WARP_SECRET_KEY, or delete"
                " root.key, and start the node again"
            )
        if access_key in self._declared_keys:
            raise InvalidArgument(
                f"access key {access_key} is said by an [[account]] of the configuration: take it out"
                " there, and start the node again"
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

    def records(self, shelf: str) -> Records:
        """Return a shelf of records in the rows of the metadata engine; see `Authenticator`."""
        return MetaRecords(self._store, shelf)

    def seal(self, data: bytes, name: str) -> bytes:
        """Seal data under the key that wraps secrets; see `Authenticator`."""
        return self._wrapping.seal(data, name)

    def unseal(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed; see `Authenticator`."""
        return self._wrapping.unseal(sealed, name)

    async def accounts(self) -> Accounts:
        """Return all accounts; in a cluster, as they were at most `remember` ago."""
        if self._shared and self._monotonic() - self._listed_at >= self._config.remember:
            await self._read_principals()
        if self._directory is None:
            names = {each.principal.name for each in self._known.values()} | self._principals.keys()
            known = {name: account_of(name, self._principals.get(name, NOTHING)) for name in names}
            self._directory = Accounts((known | self._declared).values())
        return self._directory

    async def set_account(self, account: Account, *, new: bool = False) -> Account:
        """Make or change an account; see `Authenticator`."""
        name = canonical(account.name)
        self._check_not_declared(name)
        (await self.accounts()).check_free(account)

        async def body(transaction: Transaction) -> PrincipalRow:
            return await self._write(transaction, account, new=new)

        if new and name in await self.accounts():
            raise AlreadyExists(f"{name} exists")
        if not new and name not in await self.accounts():
            raise NotFound(f"there is no {name}")
        row = self._principals[name] = await transact(self._store, body)
        self._changed(name, row)
        return account_of(name, row)

    async def delete_account(self, name: str) -> None:
        """Forget an account that has no keys; see `Authenticator`."""
        name = canonical(name)
        self._check_not_declared(name)
        if name == ROOT:
            raise InvalidArgument("root is always there")
        if name not in await self.accounts():
            raise NotFound(f"there is no {name}")
        held = [key for key, each in self._known.items() if each.principal.name == name]
        if held:
            raise NotEmpty(f"{name} has access keys: {', '.join(sorted(held)[:8])}; revoke them")
        key = PRINCIPAL + name.encode()

        async def body(transaction: Transaction) -> None:
            row = unpack_principal(name, await transaction.get(key))
            for each in taken(row):
                transaction.delete(each)
            transaction.delete(key)

        await transact(self._store, body)
        self._principals.pop(name, None)
        self._directory = None

    async def _write(
        self, transaction: Transaction, account: Account, *, new: bool
    ) -> PrincipalRow:
        """Write an account's row, and those which say that its id, number and address are taken."""
        name = account.name
        key = PRINCIPAL + name.encode()
        value = await transaction.get(key)
        before = unpack_principal(name, value)
        if new and value is not None:
            raise AlreadyExists(f"{name} exists")
        chosen = account.canonical_id if account.canonical_id != made_id(name) else ""
        row = _with(
            before,
            display=account.display if account.display != name.removeprefix("account:") else "",
            admin=account.admin,
            canonical_id=chosen,
            number=account.number,
            email=account.email,
        )
        turn = 0
        while await self._is_others(transaction, b"n", row.number, name):
            if account.number != made_number(name):
                raise InvalidArgument(f"the account number {row.number} is another's")
            turn += 1
            row = _with(row, number=made_number(name, turn))
        for kind, value_of in ((b"c", row.canonical_id), (b"e", row.email.lower())):
            if value_of and await self._is_others(transaction, kind, value_of, name):
                raise InvalidArgument(f"{value_of} is another account's")
        kept = set(taken(row))
        for each in taken(before):
            if each not in kept:
                transaction.delete(each)
        for each in kept:
            transaction.put(each, name.encode())
        transaction.put(key, msgspec.msgpack.encode(row))
        return row

    async def _is_others(
        self, transaction: Transaction, kind: bytes, value: str, name: str
    ) -> bool:
        holder = await transaction.get(ACCOUNT + kind + value.encode())
        if holder is not None:
            return holder != name.encode()
        if kind != b"n":
            return False
        # Numbers of accounts without a row follow from their names.
        known = self._directory.with_number(value) if self._directory is not None else None
        return known is not None and known.name != name

    def _check_not_declared(self, name: str) -> None:
        if name in self._declared:
            raise InvalidArgument(
                f"{name} is described by an [[account]] of the configuration: change it there, and start"
                " the node again"
            )

    async def _change(self, name: str, change: Callable[[PrincipalRow], PrincipalRow]) -> None:
        key = PRINCIPAL + name.encode()

        async def body(transaction: Transaction) -> PrincipalRow:
            row = change(unpack_principal(name, await transaction.get(key)))
            transaction.put(key, msgspec.msgpack.encode(row))
            return row

        row = self._principals[name] = await transact(self._store, body)
        self._changed(name, row)

    def _changed(self, name: str, row: PrincipalRow) -> None:
        """Let the keys that are known have the principal of a row that changed."""
        self._directory = None
        self._revoked += 1  # a lookup on its way may have read the row before
        for access_key, known in self._known.items():
            if known.principal.name == name and name not in self._declared and name != ROOT:
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
        described = self._declared.get(row.principal)
        if described is not None:
            who = declared_principal(described)
        else:
            who = principal(row.principal, self._principals.get(row.principal, NOTHING))
            self._directory = None
        credential = Credential(access_key, secret, who)
        self._known[access_key] = credential
        self._read_at[access_key] = self._monotonic()
        return credential

    def _forget(self, access_key: str) -> None:
        self._revoked += 1
        self._known.pop(access_key, None)
        self._directory = None


def _with(row: PrincipalRow, **fields: object) -> PrincipalRow:
    return msgspec.structs.replace(row, **fields)


def _new_access_key() -> str:
    return "WARP" + base64.b32encode(secrets.token_bytes(10)).decode()
