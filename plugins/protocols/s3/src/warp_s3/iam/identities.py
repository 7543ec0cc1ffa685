"""Access keys and tokens to who sent a request: accounts, users, and sessions of either and of roles."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from warp_core.errors import Corrupt, Unauthenticated
from warp_core.interfaces.accounts import Account, Accounts
from warp_core.interfaces.auth import Authenticator, Credential, Principal

from warp_s3.access.members import ACCOUNT, ROLE, USER, Member
from warp_s3.access.policy import Policy, read_identity
from warp_s3.errors import S3Error
from warp_s3.iam import names
from warp_s3.iam.directory import Directory
from warp_s3.iam.entities import Group, Key, Managed, Own, Role, User
from warp_s3.iam.known import known_principal
from warp_s3.iam.managed import MANAGED
from warp_s3.iam.sessions import Session, Tokens

T = TypeVar("T")

_REMEMBERED_MAX = 8192  # members and parsed policies, forgotten with every change


class Identities:
    """Who has an access key.

    Attributes:
        directory: Users, groups, roles and policies.
        tokens: Makes and opens tokens of sessions.
    """

    def __init__(
        self, authenticator: Authenticator, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._authenticator = authenticator
        self._wall = wall
        self.directory = Directory(authenticator.records("iam"), wall=wall)
        self.tokens = Tokens(authenticator.seal, authenticator.unseal)

    def find_now(self, access_key: str, token: str | None) -> Credential | None:
        """Return the credential of an access key if it is known without waiting, else None: then ask `find`.

        Raises:
            S3Error: As `find`.
        """
        directory = self.directory
        if token is None:
            known = self._authenticator.lookup_now(access_key)
            if known is not None and directory.fresh:
                if known.principal.name not in directory.state.said:
                    return known  # nearly every request
                return self._said(known) if "accounts" in directory.memory else None
        if not directory.fresh:
            return None
        accounts = directory.memory.get("accounts")
        if not isinstance(accounts, Accounts):
            return None
        if token is None and not access_key.startswith(names.TEMPORARY):
            found = directory.state.keys.get(access_key)
            return (
                self._of_user(*found, accounts) if found is not None and found[1].active else None
            )
        session = self._session(access_key, token)
        parent: Credential | None = None
        if not session.id:
            parent = self._authenticator.lookup_now(session.parent)
            if parent is None:
                return None
        return self._of_session(session, parent, accounts)

    async def find(self, access_key: str, token: str | None) -> Credential:
        """Return the credential of an access key, and of a token where it is a session's.

        Raises:
            S3Error: `InvalidAccessKeyId`, `InvalidToken`, `ExpiredToken`.
        """
        directory = self.directory
        if not directory.fresh:
            await directory.refresh()
        accounts = await self._authenticator.accounts()
        if directory.memory.get("accounts") is not accounts:
            directory.memory = {"accounts": accounts}  # an account's number is in its members' ARNs
        if token is not None or access_key.startswith(names.TEMPORARY):
            session = self._session(access_key, token)
            parent = None
            if not session.id:
                parent = await self._look_up(session.parent)
            return self._of_session(session, parent, accounts)
        found = directory.state.keys.get(access_key)
        if found is None and directory.shared and not self._authenticator.lookup_now(access_key):
            await directory.refresh()  # another node may have made it just now
            directory.memory.setdefault("accounts", accounts)
            found = directory.state.keys.get(access_key)
        if found is None:
            known = await self._look_up(access_key)
            return known if known.principal.name not in directory.state.said else self._said(known)
        if not found[1].active:
            raise _unknown(access_key)
        return self._of_user(*found, accounts)

    async def known_principal(self, accounts: Accounts) -> Callable[[str, str], bool]:
        """Return what tells whether a policy's principal exists."""
        if not self.directory.fresh:
            await self.directory.refresh()
        return known_principal(self.directory.state, accounts)

    async def accounts(self) -> Accounts:
        """Return who is known."""
        return await self._authenticator.accounts()

    async def _look_up(self, access_key: str) -> Credential:
        try:
            return await self._authenticator.lookup(access_key)
        except Unauthenticated as error:
            raise _unknown(access_key) from error

    # Accounts -------------------------------------------------------------------------------------

    def _said(self, known: Credential) -> Credential:
        """Return an account of which an administrator said what it may do."""
        if known.principal.admin:
            return known
        member = self._remembered(
            f"account {known.access_key}", lambda: self._account(known.principal)
        )
        return Credential(known.access_key, known.secret, member)

    def _account(self, principal: Principal, session: Session | None = None) -> Member:
        own = self.directory.state.said.get(principal.name)
        account = self._accounts().named(principal.name)
        arn = names.arn_of(Own(account=account.name), account.number)
        values: dict[str, Sequence[str]] = {"sts:authentication": ("false",)}
        if session is not None:
            values = {"sts:authentication": ("true",), **_times(session)}
        return Member(
            principal.name,
            display=principal.display,
            admin=principal.admin,
            aliases=principal.aliases,
            groups=principal.groups,
            kind=ACCOUNT,
            arn=arn,
            policies=self._policies(own) if own is not None else (),
            values=values,
            session=session is not None,
        )

    # Users ----------------------------------------------------------------------------------------

    def _of_user(self, user: User, key: Key, accounts: Accounts) -> Credential:
        account = _account_of(user, key.id, accounts)

        def make() -> tuple[str, Member]:
            secret = self._authenticator.unseal(key.sealed, key.id).decode()
            return secret, self._user(user, account)

        secret, member = self._remembered(f"key {key.id}", make)
        return Credential(key.id, secret, member)

    def _user(self, user: User, account: Account, session: Session | None = None) -> Member:
        arn = names.arn_of(user, account.number)
        values: dict[str, Sequence[str]] = {
            "aws:username": (user.name,),
            "aws:userid": (user.id,),
            "aws:principaltype": ("User",),
            "aws:principalarn": (arn,),
            "sts:authentication": ("true" if session is not None else "false",),
            **_tag_values(user.tags),
        }
        if session is not None:
            values |= _times(session)
        return Member(
            account.name,
            display=account.display,
            kind=USER,
            id=user.id,
            user_id=user.id,
            arn=arn,
            arns=frozenset({arn, arn.replace(account.number, "", 1)}),
            alone=frozenset({arn}),
            policies=self._policies(user),
            limits=self._boundary(user, account),
            values=values,
            session=session is not None,
        )

    # Sessions -------------------------------------------------------------------------------------

    def _session(self, access_key: str, token: str | None) -> Session:
        """Open a token.

        Raises:
            S3Error: `InvalidToken`, `ExpiredToken`, `InvalidAccessKeyId`; `AccessDenied` for the token of another access key.
        """
        if token is None:
            raise _unknown(access_key)
        try:
            session = self.tokens.open(token)
        except Corrupt as error:
            raise S3Error("InvalidToken", details={"Token-0": token[:64]}) from error
        if session.access_key != access_key:
            raise S3Error("AccessDenied", "The token is of another access key.")
        if session.expires_s <= self._wall():
            raise S3Error("ExpiredToken", details={"Token-0": token[:64]})
        return session

    def _of_session(
        self, session: Session, parent: Credential | None, accounts: Accounts
    ) -> Credential:
        def make() -> Member:
            if parent is not None:
                return self._account(parent.principal, session)
            entity = self.directory.state.by_id.get(session.id)
            if entity is None or entity.account != session.account:
                raise S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": session.access_key})
            account = _account_of(entity, session.access_key, accounts)
            if isinstance(entity, User):
                return self._user(entity, account, session)
            return self._role(entity, account, session)

        member = self._remembered(f"session {session.access_key}", make)
        return Credential(session.access_key, session.secret, member)

    def _role(self, role: Role, account: Account, session: Session) -> Member:
        arn = f"arn:aws:sts::{account.number}:assumed-role/{role.name}/{session.name}"
        of_role = names.arn_of(role, account.number)
        values: dict[str, Sequence[str]] = {
            "aws:username": (),
            "aws:userid": (f"{role.id}:{session.name}",),
            "aws:principaltype": ("AssumedRole",),
            "aws:principalarn": (of_role,),
            "sts:authentication": ("true",),
            "sts:rolesessionname": (session.name,),
            **_tag_values({**role.tags, **session.tags}),
            **session.values,
            **_times(session),
        }
        if session.source_identity:
            values["aws:sourceidentity"] = (session.source_identity,)
        limits = self._boundary(role, account)
        if session.policies or session.attached:
            limits = (*limits, self._documents(session, account))
        return Member(
            account.name,
            display=account.display,
            kind=ROLE,
            id=role.id,
            user_id=f"{role.id}:{session.name}",
            arn=arn,
            arns=frozenset({arn, of_role, of_role.replace(account.number, "", 1)}),
            alone=frozenset({arn}),
            policies=self._policies(role),
            limits=limits,
            values=values,
            tags={key: session.tags[key] for key in session.transitive if key in session.tags},
            session=True,
            source_identity=session.source_identity,
        )

    # Policies -------------------------------------------------------------------------------------

    def _policies(self, entity: User | Role | Own) -> tuple[Policy, ...]:
        """Return what a user, role or account is allowed and denied, also by its groups."""
        state = self.directory.state
        holders: list[User | Role | Own | Group] = [entity]
        if isinstance(entity, User) and entity.groups:
            holders += [g for g in state.all(entity.account, Group) if g.id in entity.groups]
        made = []
        for each in holders:
            made += [self._parsed(document) for document in each.policies.values()]
            made += self._attached(each.account, each.attached)
        return tuple(made)

    def _attached(self, account: str, arns: Sequence[str]) -> list[Policy]:
        found = (self._managed(account, arn) for arn in arns)
        return [self._parsed(each.document()) for each in found if each is not None]

    def _managed(self, account: str, arn: str) -> Managed | None:
        if arn in MANAGED:
            return MANAGED[arn]
        found = self.directory.state.find(account, Managed, arn.rpartition("/")[2])
        if found is None:  # an administrator may attach a policy of its own account to another
            other = self._accounts().with_number(arn.split(":", 5)[4])
            if other is not None:
                found = self.directory.state.find(other.name, Managed, arn.rpartition("/")[2])
        return found

    def _boundary(self, entity: User | Role, account: Account) -> tuple[tuple[Policy, ...], ...]:
        if not entity.boundary:
            return ()
        # A boundary that is gone allows nothing.
        return (tuple(self._attached(account.name, [entity.boundary])),)

    def _documents(self, session: Session, account: Account) -> tuple[Policy, ...]:
        made = [self._parsed(document) for document in session.policies]
        return (*made, *self._attached(account.name, session.attached))

    def _parsed(self, document: str) -> Policy:
        return self._remembered(f"policy {document}", lambda: read_identity(document.encode()))

    def _accounts(self) -> Accounts:
        accounts = self.directory.memory.get("accounts")
        return accounts if isinstance(accounts, Accounts) else Accounts()

    def _remembered(self, name: str, make: Callable[[], T]) -> T:
        memory = self.directory.memory
        found = memory.get(name)
        if found is None:
            if len(memory) > _REMEMBERED_MAX:
                memory.clear()
            found = memory[name] = make()
        return found  # type: ignore[return-value]


def _account_of(entity: User | Role, access_key: str, accounts: Accounts) -> Account:
    """Return the account of a user or role: with it go all that it had.

    Raises:
        S3Error: `InvalidAccessKeyId`.
    """
    if entity.account not in accounts:
        raise _unknown(access_key)
    return accounts.named(entity.account)


def _unknown(access_key: str) -> S3Error:
    return S3Error("InvalidAccessKeyId", details={"AWSAccessKeyId": access_key})


def _tag_values(tags: Mapping[str, str]) -> dict[str, Sequence[str]]:
    return {f"aws:principaltag/{key.lower()}": (value,) for key, value in tags.items()}


def _times(session: Session) -> dict[str, Sequence[str]]:
    return {"aws:tokenissuetime": (datetime.fromtimestamp(session.issued_s, UTC).isoformat(),)}
