"""Rows of access keys and principals, as `docs/formats/keys.md` describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from warp_core.errors import InvalidArgument, NewerFormat
from warp_core.interfaces.accounts import Account, made_id, made_number
from warp_core.interfaces.auth import Principal

FORMAT = 1
KEY = b"k"  # + access key
KEY_END = b"l"
PRINCIPAL = b"p"  # + canonical name
PRINCIPAL_END = b"q"
ACCOUNT = (
    b"a"  # + what is taken ("c" canonical id, "e" e-mail address, "n" number) + it: whose it is
)
ROOT = "account:root"

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}\Z")


class KeyRow(msgspec.Struct, frozen=True, array_like=True):
    """An access key, msgpack encoded."""

    format: int
    principal: str
    wrapped: bytes
    created_ns: int


class PrincipalRow(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a principal besides its name, msgpack encoded; without a row, nothing is."""

    format: int = FORMAT
    display: str = ""
    admin: bool = False
    aliases: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    password: bytes = b""  # a hash (`passwords.py`), empty for none
    canonical_id: str = ""  # chosen; empty: it follows from the name
    number: str = ""  # as `canonical_id`
    email: str = ""


NOTHING = PrincipalRow()

_key_row = msgspec.msgpack.Decoder(KeyRow)
_principal_row = msgspec.msgpack.Decoder(PrincipalRow)


def unpack_key(access_key: str, value: bytes) -> KeyRow:
    """Read an access key's row.

    Raises:
        NewerFormat: A later release wrote it.
    """
    row = _key_row.decode(value)
    if row.format > FORMAT:
        raise NewerFormat(
            f"access key {access_key} is of format {row.format}, this release reads up to {FORMAT}"
        )
    return row


def unpack_principal(name: str, value: bytes | None) -> PrincipalRow:
    """Read a principal's row, if there is one.

    Raises:
        NewerFormat: A later release wrote it.
    """
    row = _principal_row.decode(value) if value is not None else NOTHING
    if row.format > FORMAT:
        raise NewerFormat(
            f"principal {name} is of format {row.format}, this release reads up to {FORMAT}"
        )
    return row


def account_of(name: str, row: PrincipalRow) -> Account:
    """Return what others see of a principal."""
    return Account(
        name,
        row.canonical_id or made_id(name),
        row.number or made_number(name),
        row.display or name.removeprefix("account:"),
        row.email,
        row.admin or name == ROOT,
    )


def taken(row: PrincipalRow) -> Iterator[bytes]:
    """Yield the keys of the rows which say that what a principal's row holds is no other's."""
    for kind, value in ((b"c", row.canonical_id), (b"e", row.email.lower()), (b"n", row.number)):
        if value:
            yield ACCOUNT + kind + value.encode()


def canonical(name: str) -> str:
    """Return the canonical name of an account, "NAME" or "account:NAME".

    Raises:
        InvalidArgument: It is no name of an account.
    """
    account = name.removeprefix("account:")
    if not _ACCOUNT.match(account):
        raise InvalidArgument(
            f'account "{account}": up to 63 letters, digits and . _ @ - are allowed, a letter or digit first'
        )
    return f"account:{account}"


def principal(name: str, row: PrincipalRow) -> Principal:
    """Return who a canonical name stands for; "root" has all rights."""
    return Principal(
        name,
        display=row.display or name.removeprefix("account:"),
        admin=row.admin or name == ROOT,
        aliases=frozenset(row.aliases),
        groups=frozenset(row.groups),
    )


def declared_principal(account: Account) -> Principal:
    """Return who an account of the configuration is."""
    return Principal(account.name, display=account.display, admin=account.admin)
