"""Authenticators turn credentials into a `Principal`; authorizers say what a principal may do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from warp_core.errors import Unauthenticated, Unsupported
from warp_core.interfaces.accounts import Account, Accounts
from warp_core.interfaces.records import Records


@dataclass(frozen=True, slots=True)
class Principal:
    """One identity, whatever protocol it came by.

    `name` is canonical: `account:NAME`, `unix:1000`, `sid:S-1-5-…`; `aliases` are the same identity's other names.
    """

    name: str
    display: str = ""
    admin: bool = False
    aliases: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()


ANONYMOUS = Principal("anonymous")
SYSTEM = Principal("system", admin=True)  # WARP's own services


@dataclass(frozen=True, slots=True)
class Credential:
    """A shared secret and whose it is; the secret never appears in a repr."""

    access_key: str
    secret: str = field(repr=False)
    principal: Principal


@dataclass(frozen=True, slots=True)
class AuthCapabilities:
    """What an authenticator claims."""

    shared_secrets: bool = False  # lookup(): SigV4, CHAP, NTLM
    passwords: bool = False  # verify_password()
    manages_keys: bool = False  # create_key, revoke_key, list_keys, set_password
    manages_accounts: bool = False  # set_account, delete_account, and those of the configuration
    keeps_records: bool = False  # records, seal, unseal


class Authenticator(ABC):
    """Knows credentials. Open it with `async with`."""

    capabilities: AuthCapabilities

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def lookup_now(self, access_key: str) -> Credential | None:
        """Return the credential if it is known without waiting, else None: then ask `lookup`."""
        return None

    async def lookup(self, access_key: str) -> Credential:
        """Return the secret that requests of this access key are signed with.

        Raises:
            Unauthenticated: Unknown or revoked.
            Unsupported: Without the capability shared_secrets.
        """
        raise Unsupported("this authenticator keeps no shared secrets")

    async def principal_of(self, name: str) -> Principal:
        """Return who an account is, by its principal's name: for who proved it in another way than by a secret known here.

        Raises:
            Unauthenticated: There is no such account.
        """
        known = await self.accounts()
        if name not in known:
            raise Unauthenticated("no such account")
        found = known.named(name)
        return Principal(name, display=found.display, admin=found.admin)

    async def verify_password(self, user: str, password: str) -> Principal:
        """Return who proved to be `user`; takes the same time whether or not the user exists.

        Raises:
            Unauthenticated: Unknown user or wrong password, not told apart.
            Unsupported: Without the capability passwords.
        """
        raise Unsupported("this authenticator checks no passwords")

    async def set_password(self, principal: str, password: str) -> None:
        """Set the password of a principal; an empty one takes it away.

        Raises:
            Unsupported: Without the capabilities passwords and manages_keys.
        """
        raise Unsupported("this authenticator sets no passwords")

    async def create_key(
        self, principal: str, *, access_key: str = "", secret: str = ""
    ) -> Credential:
        """Make an access key for a principal (generated where not given); the secret is shown this once.

        Raises:
            AlreadyExists: The access key is taken.
        """
        raise Unsupported("this authenticator manages no keys")

    async def revoke_key(self, access_key: str) -> None:
        """Make an access key useless from now on.

        Raises:
            NotFound: No such key.
        """
        raise Unsupported("this authenticator manages no keys")

    async def list_keys(self) -> list[tuple[str, Principal]]:
        """Return every access key and its principal, sorted by key."""
        raise Unsupported("this authenticator manages no keys")

    async def accounts(self) -> Accounts:
        """Return who is known; cheap enough to be asked in each request that shows or compares owners."""
        return Accounts()

    async def set_account(self, account: Account, *, new: bool = False) -> Account:
        """Make an account, or change what others see of it; its keys and its password stay.

        Raises:
            AlreadyExists: It is to be new, and is known.
            NotFound: It is to be changed, and is not known.
            InvalidArgument: Another has its canonical id, number or address; or the configuration describes it.
        """
        raise Unsupported("this authenticator manages no accounts")

    async def delete_account(self, name: str) -> None:
        """Forget an account that has no keys; what it owns stays its own, under its name.

        Raises:
            NotFound: No such account.
            NotEmpty: It has keys.
            InvalidArgument: The configuration describes it, or it is root.
        """
        raise Unsupported("this authenticator manages no accounts")

    def records(self, shelf: str) -> Records:
        """Return a shelf of records beside the keys, for what a protocol knows of identities besides.

        Raises:
            Unsupported: Without the capability keeps_records.
        """
        raise Unsupported("this authenticator keeps no records")

    def seal(self, data: bytes, name: str) -> bytes:
        """Return data that only `unseal` with the same name opens, so that it may lie or travel where others can read it.

        Raises:
            Unsupported: Without the capability keeps_records.
        """
        raise Unsupported("this authenticator seals nothing")

    def unseal(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed.

        Raises:
            Corrupt: It was changed, or sealed under another name or key.
            Unsupported: Without the capability keeps_records.
        """
        raise Unsupported("this authenticator seals nothing")


class Authorizer(ABC):
    """Judges verbs on things, asked before the namespace acts."""

    @abstractmethod
    async def allows(self, principal: Principal, verb: str, resource: str) -> bool:
        """Say whether `principal` may do `verb` (such as "s3:GetObject") to `resource` ("volume" or "volume/key")."""
