"""Principals that policies name: whether they exist."""

from collections.abc import Callable

from warp_core.interfaces.accounts import Accounts

from warp_s3.access.judging import known_principal as known_account
from warp_s3.iam.directory import State
from warp_s3.iam.entities import Role, User
from warp_s3.iam.errors import QueryError
from warp_s3.iam.names import read_arn


def known_principal(state: State, accounts: Accounts) -> Callable[[str, str], bool]:
    """Return what tells whether a policy's principal exists: an account, a user, a role, or a session of a role."""
    of_accounts = known_account(accounts)

    def known(kind: str, name: str) -> bool:
        if of_accounts(kind, name):
            return True
        if kind != "arn":
            return False
        try:
            parts = read_arn(name)
        except QueryError:
            return False
        account = accounts.with_number(parts.number)
        if account is None:
            return False
        if parts.kind == "user":
            user = state.find(account.name, User, parts.name)
            return user is not None and user.path == parts.path
        if parts.kind == "role":
            role = state.find(account.name, Role, parts.name)
            return role is not None and role.path == parts.path
        if parts.kind == "assumed-role":
            return state.find(account.name, Role, parts.name.partition("/")[0]) is not None
        return False

    return known
