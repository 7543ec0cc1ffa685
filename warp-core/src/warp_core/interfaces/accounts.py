"""Accounts as others see them: what a bucket's owner, an ACL's grantee and a policy's principal are called.

Every account has a canonical id (64 hexadecimal digits, as at AWS) and an account number (12 digits). Both are made of its name where
nobody chose them, so that they are the same on every node and need no row; chosen ones let a server take the place of another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from warp_core.errors import InvalidArgument

ROOT: Final = "account:root"

_CANONICAL_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_NUMBER: Final = re.compile(r"[0-9]{12}\Z")
_EMAIL: Final = re.compile(r"[^\s@<>&\"]{1,64}@[^\s@<>&\"]{1,190}\Z")
DISPLAY_MAX: Final = 128  # characters


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `declared` says that the configuration describes it, so nothing else changes it."""

    name: str  # `account:NAME`, or another principal's name
    canonical_id: str
    number: str
    display: str
    email: str = ""
    admin: bool = False
    declared: bool = False


@dataclass(frozen=True, slots=True)
class DeclaredAccount:
    """An account that the configuration describes, with its keys: (access key, secret)."""

    account: Account
    keys: Sequence[tuple[str, str]] = field(default=(), repr=False)


class Accounts:
    """A directory of accounts at one moment."""

    __slots__ = ("_by_email", "_by_id", "_by_name", "_by_number")

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._by_name = {each.name: each for each in accounts}
        self._by_id = {each.canonical_id: each for each in self._by_name.values()}
        self._by_number = {each.number: each for each in self._by_name.values()}
        self._by_email = {each.email.lower(): each for each in self._by_name.values() if each.email}

    def __iter__(self) -> Iterator[Account]:
        return iter(sorted(self._by_name.values(), key=lambda each: each.name))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def named(self, name: str) -> Account:
        """Return the account of a principal's name; one that is not listed has what follows from its name."""
        return self._by_name.get(name) or account(name)

    def with_id(self, canonical_id: str) -> Account | None:
        """Return the account of a canonical id."""
        return self._by_id.get(canonical_id)

    def with_number(self, number: str) -> Account | None:
        """Return the account of an account number."""
        return self._by_number.get(number)

    def with_email(self, email: str) -> Account | None:
        """Return the account of an e-mail address."""
        return self._by_email.get(email.lower())

    def check_free(self, wanted: Account) -> None:
        """Check that no other account has an id, number or address of `wanted`.

        Raises:
            InvalidArgument
        """
        for what, other in (
            ("canonical id", self.with_id(wanted.canonical_id)),
            ("account number", self.with_number(wanted.number)),
            ("e-mail address", self.with_email(wanted.email) if wanted.email else None),
        ):
            if other is not None and other.name != wanted.name:
                raise InvalidArgument(f"the {what} of {wanted.name} is that of {other.name}")


def account(
    name: str,
    *,
    canonical_id: str = "",
    number: str = "",
    display: str = "",
    email: str = "",
    admin: bool = False,
    declared: bool = False,
) -> Account:
    """Describe an account; what is empty is made of its name.

    Raises:
        InvalidArgument: An id, number, address or display name that cannot be one.
    """
    if canonical_id and not _CANONICAL_ID.match(canonical_id):
        raise InvalidArgument(
            f'canonical id "{canonical_id}": up to 64 letters, digits and . _ - are allowed'
        )
    if number and not _NUMBER.match(number):
        raise InvalidArgument(f'account number "{number}": 12 digits are allowed')
    if email and not _EMAIL.match(email):
        raise InvalidArgument(f'e-mail address "{email}": name@domain is allowed')
    if len(display) > DISPLAY_MAX or not display.isprintable():
        raise InvalidArgument(f"a display name has up to {DISPLAY_MAX} printable characters")
    return Account(
        name,
        canonical_id or made_id(name),
        number or made_number(name),
        display or name.removeprefix("account:"),
        email,
        admin or name == ROOT,
        declared,
    )


def made_id(name: str) -> str:
    """Return the canonical id that follows from a name."""
    return hashlib.sha256(b"warp canonical id\0" + name.encode()).hexdigest()


def made_number(name: str, turn: int = 0) -> str:
    """Return the account number that follows from a name; further turns give others, where it is taken."""
    digest = hashlib.sha256(b"warp account number\0%d\0" % turn + name.encode()).digest()
    return f"{int.from_bytes(digest[:8], 'big') % 10**12:012}"
