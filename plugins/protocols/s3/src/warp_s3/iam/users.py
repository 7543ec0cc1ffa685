"""Users, and what they and their account are called."""

import re
from typing import Final

import msgspec

from warp_s3.iam import names
from warp_s3.iam.asking import (
    Ask,
    Result,
    below,
    find,
    lower_name,
    managed,
    moment,
    page,
    sender,
    shown_tags,
    tag,
    tags_of,
    untag,
    user_or_self,
)
from warp_s3.iam.directory import Draft
from warp_s3.iam.entities import Own, User
from warp_s3.iam.errors import QueryError
from warp_s3.iam.wire import Tree

USERS_MAX: Final = 5000
"""Of an account; AWS's own figure."""

_ALIAS: Final = re.compile(r"[a-z0-9](?:[a-z0-9]|-(?!-)){1,61}[a-z0-9]")


def create_user(draft: Draft, ask: Ask) -> Result:
    """Make a user."""
    form = ask.form
    name = names.name(form.need("UserName"), "userName", names.USER_MAX)
    path = names.path(form.get("Path", "/"))
    account = ask.account.name
    if draft.state.find(account, User, name) is not None:
        raise QueryError("EntityAlreadyExists", f"User with name {name} already exists.")
    if len(draft.state.all(account, User)) >= USERS_MAX:
        raise QueryError("LimitExceeded", f"Cannot exceed quota for UsersPerAccount: {USERS_MAX}")
    boundary = form.get("PermissionsBoundary")
    if boundary:
        managed(draft.state, ask, boundary)
    user = User(
        account=account,
        name=name,
        path=path,
        id=names.new_id("AIDA"),
        created_s=draft.now_s,
        tags=tags_of(ask),
        boundary=boundary,
    )
    draft.put(user)
    return {"User": shown(ask, user, whole=True)}


def get_user(draft: Draft, ask: Ask) -> Result:
    """Tell a user; without a name the sender, which may be the account itself."""
    if not ask.form.get("UserName") and sender(draft.state, ask) is None:
        from warp_s3.access.members import Member

        if isinstance(ask.principal, Member) and ask.principal.kind != "Account":
            raise QueryError(
                "ValidationError", "Must specify userName when calling with non-User credentials"
            )
        return {
            "User": {
                "Path": "/",
                "UserName": ask.account.display,
                "UserId": ask.number,
                "Arn": names.arn_of(Own(account=ask.account.name), ask.number),
                "CreateDate": moment(0),
            }
        }
    return {"User": shown(ask, user_or_self(draft.state, ask), whole=True)}


def list_users(draft: Draft, ask: Ask) -> Result:
    """Tell an account's users."""
    found = below(ask, draft.state.all(ask.account.name, User))
    return page(ask, "Users", found, lower_name, lambda user: shown(ask, user))


def update_user(draft: Draft, ask: Ask) -> Result:
    """Give a user another name or path."""
    form = ask.form
    user = find(draft.state, ask, User, form.need("UserName"))
    name = form.get("NewUserName") or user.name
    names.name(name, "newUserName", names.USER_MAX)
    path = names.path(form.get("NewPath") or user.path)
    other = draft.state.find(ask.account.name, User, name)
    if other is not None and other.id != user.id:
        raise QueryError("EntityAlreadyExists", f"User with name {name} already exists.")
    draft.delete(user)
    draft.put(msgspec.structs.replace(user, name=name, path=path))
    return None


def delete_user(draft: Draft, ask: Ask) -> Result:
    """Forget a user who has nothing more."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    for what, held in (
        ("access keys", user.keys),
        ("policies", user.policies),
        ("attached policies", user.attached),
        ("groups", user.groups),
    ):
        if held:
            verb = "be removed from all" if what == "groups" else "delete"
            raise QueryError("DeleteConflict", f"Cannot delete entity, must {verb} {what} first.")
    draft.delete(user)
    return None


def tag_user(draft: Draft, ask: Ask) -> Result:
    """Set tags of a user."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    return tag(draft, ask, user)


def untag_user(draft: Draft, ask: Ask) -> Result:
    """Take tags of a user away."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    return untag(draft, ask, user)


def list_user_tags(draft: Draft, ask: Ask) -> Result:
    """Tell the tags of a user."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    return page(
        ask,
        "Tags",
        sorted(user.tags.items()),
        lambda pair: pair[0],
        lambda pair: {"Key": pair[0], "Value": pair[1]},
    )


def put_boundary(draft: Draft, ask: Ask) -> Result:
    """Set what a user may at most be allowed."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    arn = ask.form.need("PermissionsBoundary")
    managed(draft.state, ask, arn)
    draft.put(msgspec.structs.replace(user, boundary=arn))
    return None


def delete_boundary(draft: Draft, ask: Ask) -> Result:
    """Take that limit away."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    if not user.boundary:
        raise QueryError("NoSuchEntity", f"User {user.name} has no permissions boundary.")
    draft.put(msgspec.structs.replace(user, boundary=""))
    return None


def shown(ask: Ask, user: User, *, whole: bool = False) -> dict[str, Tree]:
    """Return a user as answers carry it; lists do not tell everything."""
    made: dict[str, Tree] = {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.id,
        "Arn": names.arn_of(user, ask.number),
        "CreateDate": moment(user.created_s),
    }
    if whole:
        made |= boundary(user.boundary)
        if user.tags:
            made["Tags"] = shown_tags(user.tags)
    return made


def boundary(arn: str) -> dict[str, Tree]:
    """Return a permissions boundary as answers carry it, nothing where there is none."""
    if not arn:
        return {}
    return {
        "PermissionsBoundary": {
            "PermissionsBoundaryType": "Policy",
            "PermissionsBoundaryArn": arn,
        }
    }


# Accounts -----------------------------------------------------------------------------------------


def create_alias(draft: Draft, ask: Ask) -> Result:
    """Give the account a further name."""
    alias = ask.form.need("AccountAlias")
    if not _ALIAS.fullmatch(alias) or alias.isdigit():
        raise QueryError("ValidationError", f"The account alias {alias[:64]} is not valid.")
    own = draft.state.find(ask.account.name, Own, "") or Own(account=ask.account.name)
    draft.put(msgspec.structs.replace(own, alias=alias))
    return None


def delete_alias(draft: Draft, ask: Ask) -> Result:
    """Take that name away."""
    alias = ask.form.need("AccountAlias")
    own = draft.state.find(ask.account.name, Own, "")
    if own is None or own.alias != alias:
        raise QueryError("NoSuchEntity", f"The account alias {alias[:64]} cannot be found.")
    draft.put(msgspec.structs.replace(own, alias=""))
    return None


def list_aliases(draft: Draft, ask: Ask) -> Result:
    """Tell the account's further name."""
    own = draft.state.find(ask.account.name, Own, "")
    found = [own.alias] if own is not None and own.alias else []
    return page(ask, "AccountAliases", found, lambda alias: alias, lambda alias: alias)
