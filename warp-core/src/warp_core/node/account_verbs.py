"""What the control socket does with accounts."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from warp_core.errors import NotFound
from warp_core.interfaces.accounts import Account, account
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Verb
from warp_core.ssh_keys import PublicKey, SshKeys, parse


class OneAccount(msgspec.Struct, frozen=True):
    """One account, "NAME" or "account:NAME"."""

    account: str


class SetAccount(msgspec.Struct, frozen=True):
    """An account to be, or changes of one; None leaves as it is."""

    account: str
    canonical_id: str | None = None
    number: str | None = None
    display: str | None = None
    email: str | None = None
    admin: bool | None = None


class NewPassword(msgspec.Struct, frozen=True):
    """A password to be; empty: none any more."""

    account: str
    password: str = ""


class SshKey(msgspec.Struct, frozen=True):
    """A public key of an account: to add, its line; to remove, its fingerprint or its comment."""

    account: str
    key: str


async def account_create(node: Node, arguments: SetAccount, progress: Progress) -> object:
    """Make an account."""
    wanted = account(
        account_name(arguments.account),
        canonical_id=arguments.canonical_id or "",
        number=arguments.number or "",
        display=arguments.display or "",
        email=arguments.email or "",
        admin=arguments.admin or False,
    )
    return _account(await node.authenticator.set_account(wanted, new=True))


async def account_set(node: Node, arguments: SetAccount, progress: Progress) -> object:
    """Change what others see of an account."""
    name = account_name(arguments.account)
    known = await node.authenticator.accounts()
    if name not in known:
        raise NotFound(f"there is no {name}: `warp account list` shows them")
    before = known.named(name)

    def chosen(value: str | None, kept: str) -> str:
        return kept if value is None else value

    wanted = account(
        name,
        canonical_id=chosen(arguments.canonical_id, before.canonical_id),
        number=chosen(arguments.number, before.number),
        display=chosen(arguments.display, before.display),
        email=chosen(arguments.email, before.email),
        admin=before.admin if arguments.admin is None else arguments.admin,
    )
    return _account(await node.authenticator.set_account(wanted))


async def account_list(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell every account."""
    held: dict[str, int] = {}
    for _, principal in await node.authenticator.list_keys():
        held[principal.name] = held.get(principal.name, 0) + 1
    return [
        {**_account(each), "keys": held.get(each.name, 0)}
        for each in await node.authenticator.accounts()
    ]


async def account_show(node: Node, arguments: OneAccount, progress: Progress) -> object:
    """Tell what is known of an account, with its access keys."""
    name = account_name(arguments.account)
    known = await node.authenticator.accounts()
    if name not in known:
        raise NotFound(f"there is no {name}: `warp account list` shows them")
    keys = [key for key, each in await node.authenticator.list_keys() if each.name == name]
    return {**_account(known.named(name)), "keys": keys}


async def account_password(node: Node, arguments: NewPassword, progress: Progress) -> object:
    """Set an account's password; an empty one takes it away."""
    name = await _known(node, arguments.account)
    await node.authenticator.set_password(name, arguments.password)
    return {"account": name, "password": bool(arguments.password)}


async def ssh_key_add(node: Node, arguments: SshKey, progress: Progress) -> object:
    """Give an account a public key."""
    name = await _known(node, arguments.account)
    return _ssh_key(name, await SshKeys(node.authenticator).add(name, parse(arguments.key)))


async def ssh_key_list(node: Node, arguments: OneAccount, progress: Progress) -> object:
    """Tell the public keys of an account."""
    name = await _known(node, arguments.account)
    return [_ssh_key(name, each) for each in await SshKeys(node.authenticator).of(name)]


async def ssh_key_remove(node: Node, arguments: SshKey, progress: Progress) -> object:
    """Take a public key from an account."""
    name = account_name(arguments.account)
    return _ssh_key(name, await SshKeys(node.authenticator).remove(name, arguments.key))


async def account_delete(node: Node, arguments: OneAccount, progress: Progress) -> object:
    """Forget an account that has no keys."""
    name = account_name(arguments.account)
    await node.authenticator.delete_account(name)
    if node.authenticator.capabilities.keeps_records:
        await SshKeys(node.authenticator).forget(name)
    return {"deleted": name}


async def _known(node: Node, account: str) -> str:
    """Return the principal's name of an account that there is."""
    name = account_name(account)
    if name not in await node.authenticator.accounts():
        raise NotFound(f"there is no {name}: `warp account list` shows them")
    return name


def _ssh_key(account: str, key: PublicKey) -> dict[str, object]:
    return {
        "account": account,
        "fingerprint": key.fingerprint,
        "kind": key.kind,
        "comment": key.comment,
        "added": datetime.fromtimestamp(key.added_ns / 1e9, UTC).isoformat(timespec="seconds"),
    }


def account_name(name: str) -> str:
    """Return the principal's name of an account."""
    return name if name.startswith("account:") else f"account:{name}"


def _account(each: Account) -> dict[str, object]:
    return {
        "account": each.name,
        "canonical_id": each.canonical_id,
        "number": each.number,
        "display": each.display,
        "email": each.email,
        "admin": each.admin,
        "declared": each.declared,
    }


TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("account.create", Verb(SetAccount, account_create)),
    ("account.list", Verb(Nothing, account_list)),
    ("account.show", Verb(OneAccount, account_show)),
    ("account.set", Verb(SetAccount, account_set)),
    ("account.delete", Verb(OneAccount, account_delete)),
    ("account.password", Verb(NewPassword, account_password)),
    ("account.ssh-key.add", Verb(SshKey, ssh_key_add)),
    ("account.ssh-key.list", Verb(OneAccount, ssh_key_list)),
    ("account.ssh-key.remove", Verb(SshKey, ssh_key_remove)),
)
