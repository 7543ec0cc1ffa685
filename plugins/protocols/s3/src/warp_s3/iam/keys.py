"""Access keys: of users, kept with them, and of the account itself, which are the authenticator's."""

from typing import TYPE_CHECKING, Final

import msgspec
from warp_core.interfaces.auth import Authenticator

from warp_s3.access.members import ACCOUNT, Member
from warp_s3.iam import names
from warp_s3.iam.asking import Ask, Result, moment, page, user_or_self
from warp_s3.iam.directory import Directory, Draft, State
from warp_s3.iam.entities import Key, Own, User
from warp_s3.iam.errors import QueryError
from warp_s3.iam.wire import Tree

if TYPE_CHECKING:
    from warp_s3.iam.service import QueryService

KEYS_MAX: Final = 2
"""Of a user; AWS's own figure."""

_ACTIVE, _INACTIVE = "Active", "Inactive"


async def create_key(service: "QueryService", ask: Ask) -> Result:
    """Make an access key; its secret is told this once."""
    if _of_account(ask):
        made = await service.authenticator.create_key(ask.account.name)
        key = Key(made.access_key, b"", True, service.now_s())
        await service.directory.change(lambda draft: _keep(draft, ask, key))
        return {"AccessKey": {**_shown(ask.account.display, key), "SecretAccessKey": made.secret}}
    secret = names.new_secret()
    key_id = names.new_access_key("WARP")
    sealed = ask.seal(secret.encode(), key_id)

    def decide(draft: Draft) -> tuple[User, Key]:
        user = user_or_self(draft.state, ask)
        if len(user.keys) >= KEYS_MAX:
            raise QueryError(
                "LimitExceeded", f"Cannot exceed quota for AccessKeysPerUser: {KEYS_MAX}"
            )
        key = Key(key_id, sealed, True, draft.now_s)
        draft.put(msgspec.structs.replace(user, keys=(*user.keys, key)))
        return user, key

    user, key = await service.directory.change(decide)
    return {"AccessKey": {**_shown(user.name, key), "SecretAccessKey": secret}}


async def list_keys(service: "QueryService", ask: Ask) -> Result:
    """Tell access keys without their secrets."""
    if _of_account(ask):
        found = await _account_keys(service, ask)
        name = ask.account.display
    else:
        user = user_or_self(service.directory.state, ask)
        found, name = list(user.keys), user.name
    found.sort(key=lambda key: key.id)
    made = page(ask, "AccessKeyMetadata", found, lambda key: key.id, lambda key: _shown(name, key))
    return {"UserName": name, **made}


async def update_key(service: "QueryService", ask: Ask) -> Result:
    """Let an access key rest, or take it up again."""
    key_id = ask.form.need("AccessKeyId")
    status = ask.form.need("Status")
    if status not in {_ACTIVE, _INACTIVE}:
        raise QueryError("ValidationError", f"Status {status[:32]} is neither Active nor Inactive")
    active = status == _ACTIVE
    if not _of_account(ask):

        def decide(draft: Draft) -> None:
            user = user_or_self(draft.state, ask)
            _key(user, key_id)
            keys = tuple(
                msgspec.structs.replace(each, active=active) if each.id == key_id else each
                for each in user.keys
            )
            draft.put(msgspec.structs.replace(user, keys=keys))

        await service.directory.change(decide)
        return None
    for key in await _account_keys(service, ask):
        if key.id == key_id:
            if key.active != active:
                await _switch(service.directory, service.authenticator, ask, key)
            return None
    raise _missing(key_id)


async def _switch(directory: Directory, authenticator: Authenticator, ask: Ask, key: Key) -> None:
    """Take an account's key from the authenticator, or give it back; while it rests its secret is here."""
    if key.active:
        secret = (await authenticator.lookup(key.id)).secret
        resting = Key(key.id, ask.seal(secret.encode(), key.id), False, key.created_s)
        await directory.change(lambda draft: _keep(draft, ask, resting))
        await authenticator.revoke_key(key.id)
        return
    secret = authenticator.unseal(key.sealed, key.id).decode()
    await authenticator.create_key(ask.account.name, access_key=key.id, secret=secret)
    woken = Key(key.id, b"", True, key.created_s)
    await directory.change(lambda draft: _keep(draft, ask, woken))


async def delete_key(service: "QueryService", ask: Ask) -> Result:
    """Make an access key useless for good."""
    key_id = ask.form.need("AccessKeyId")
    if not _of_account(ask):

        def decide(draft: Draft) -> None:
            user = user_or_self(draft.state, ask)
            _key(user, key_id)
            kept = tuple(each for each in user.keys if each.id != key_id)
            draft.put(msgspec.structs.replace(user, keys=kept))

        await service.directory.change(decide)
        return None
    for key in await _account_keys(service, ask):
        if key.id == key_id:
            if key.active:
                await service.authenticator.revoke_key(key_id)
            await service.directory.change(lambda draft: _drop(draft, ask, key_id))
            return None
    raise _missing(key_id)


async def last_used(service: "QueryService", ask: Ask) -> Result:
    """Tell whose an access key is; when it was used last is not kept."""
    key_id = ask.form.need("AccessKeyId")
    found = service.directory.state.keys.get(key_id)
    name = ask.account.display
    if found is not None and found[0].account == ask.account.name:
        name = found[0].name
    elif key_id not in {key.id for key in await _account_keys(service, ask)}:
        raise _missing(key_id)
    return {"UserName": name, "AccessKeyLastUsed": {"ServiceName": "N/A", "Region": "N/A"}}


def _of_account(ask: Ask) -> bool:
    """Say whether a request is about the keys of the account itself: it sends it, and names no user."""
    if ask.form.get("UserName"):
        return False
    return not isinstance(ask.principal, Member) or ask.principal.kind == ACCOUNT


async def _account_keys(service: "QueryService", ask: Ask) -> list[Key]:
    """Return an account's keys: the authenticator's, and those that rest."""
    own = _own(service.directory.state, ask)
    known = {key.id: key for key in own.keys}
    listed = await service.authenticator.list_keys()
    active = [key for key, principal in listed if principal.name == ask.account.name]
    found = [known.get(key) or Key(key, b"", True, 0) for key in active]
    found = [msgspec.structs.replace(key, active=True) for key in found]
    return found + [key for key in own.keys if not key.active and key.id not in active]


def _own(state: State, ask: Ask) -> Own:
    return state.find(ask.account.name, Own, "") or Own(account=ask.account.name)


def _keep(draft: Draft, ask: Ask, key: Key) -> None:
    own = _own(draft.state, ask)
    others = tuple(each for each in own.keys if each.id != key.id)
    draft.put(msgspec.structs.replace(own, keys=(*others, key)))


def _drop(draft: Draft, ask: Ask, key_id: str) -> None:
    own = _own(draft.state, ask)
    kept = tuple(each for each in own.keys if each.id != key_id)
    if kept != own.keys:
        draft.put(msgspec.structs.replace(own, keys=kept))


def _key(user: User, key_id: str) -> Key:
    for each in user.keys:
        if each.id == key_id:
            return each
    raise _missing(key_id)


def _missing(key_id: str) -> QueryError:
    return QueryError("NoSuchEntity", f"The Access Key with id {key_id[:128]} cannot be found.")


def _shown(name: str, key: Key) -> dict[str, Tree]:
    return {
        "UserName": name,
        "AccessKeyId": key.id,
        "Status": _ACTIVE if key.active else _INACTIVE,
        "CreateDate": moment(key.created_s) if key.created_s else None,
    }
