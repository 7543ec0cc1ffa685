"""Groups and their members."""

from typing import Final

import msgspec

from warp_s3.iam import names, users
from warp_s3.iam.asking import Ask, Result, below, find, lower_name, moment, page
from warp_s3.iam.directory import Draft
from warp_s3.iam.entities import Group, User
from warp_s3.iam.errors import QueryError
from warp_s3.iam.wire import Tree

GROUPS_MAX: Final = 300
"""Of an account; AWS's own figure."""

OF_USER_MAX: Final = 10
"""Groups of a user; AWS's own figure."""


def create_group(draft: Draft, ask: Ask) -> Result:
    """Make a group."""
    name = names.name(ask.form.need("GroupName"), "groupName", names.GROUP_MAX)
    path = names.path(ask.form.get("Path", "/"))
    if draft.state.find(ask.account.name, Group, name) is not None:
        raise QueryError("EntityAlreadyExists", f"Group with name {name} already exists.")
    if len(draft.state.all(ask.account.name, Group)) >= GROUPS_MAX:
        raise QueryError("LimitExceeded", f"Cannot exceed quota for GroupsPerAccount: {GROUPS_MAX}")
    group = Group(
        account=ask.account.name,
        name=name,
        path=path,
        id=names.new_id("AGPA"),
        created_s=draft.now_s,
    )
    draft.put(group)
    return {"Group": shown(ask, group)}


def get_group(draft: Draft, ask: Ask) -> Result:
    """Tell a group and a page of its members."""
    group = find(draft.state, ask, Group, ask.form.need("GroupName"))
    found = [each for each in draft.state.all(ask.account.name, User) if group.id in each.groups]
    members = page(ask, "Users", found, lower_name, lambda user: users.shown(ask, user))
    return {"Group": shown(ask, group), **members}


def list_groups(draft: Draft, ask: Ask) -> Result:
    """Tell an account's groups."""
    found = below(ask, draft.state.all(ask.account.name, Group))
    return page(ask, "Groups", found, lower_name, lambda group: shown(ask, group))


def update_group(draft: Draft, ask: Ask) -> Result:
    """Give a group another name or path."""
    form = ask.form
    group = find(draft.state, ask, Group, form.need("GroupName"))
    name = names.name(form.get("NewGroupName") or group.name, "newGroupName", names.GROUP_MAX)
    path = names.path(form.get("NewPath") or group.path)
    other = draft.state.find(ask.account.name, Group, name)
    if other is not None and other.id != group.id:
        raise QueryError("EntityAlreadyExists", f"Group with name {name} already exists.")
    draft.delete(group)
    draft.put(msgspec.structs.replace(group, name=name, path=path))
    return None


def delete_group(draft: Draft, ask: Ask) -> Result:
    """Forget a group that has nothing more."""
    group = find(draft.state, ask, Group, ask.form.need("GroupName"))
    if any(group.id in each.groups for each in draft.state.all(ask.account.name, User)):
        raise QueryError(
            "DeleteConflict", "Cannot delete entity, must remove users from group first."
        )
    if group.policies or group.attached:
        raise QueryError("DeleteConflict", "Cannot delete entity, must delete policies first.")
    draft.delete(group)
    return None


def add_user(draft: Draft, ask: Ask) -> Result:
    """Make a user a member."""
    group = find(draft.state, ask, Group, ask.form.need("GroupName"))
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    if group.id in user.groups:
        return None
    if len(user.groups) >= OF_USER_MAX:
        raise QueryError("LimitExceeded", f"Cannot exceed quota for GroupsPerUser: {OF_USER_MAX}")
    draft.put(msgspec.structs.replace(user, groups=(*user.groups, group.id)))
    return None


def remove_user(draft: Draft, ask: Ask) -> Result:
    """Make a user no longer a member."""
    group = find(draft.state, ask, Group, ask.form.need("GroupName"))
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    if group.id not in user.groups:
        raise QueryError("NoSuchEntity", f"User {user.name} is not in group {group.name}.")
    kept = tuple(each for each in user.groups if each != group.id)
    draft.put(msgspec.structs.replace(user, groups=kept))
    return None


def list_groups_for_user(draft: Draft, ask: Ask) -> Result:
    """Tell the groups of a user."""
    user = find(draft.state, ask, User, ask.form.need("UserName"))
    found = [each for each in draft.state.all(ask.account.name, Group) if each.id in user.groups]
    return page(ask, "Groups", found, lower_name, lambda group: shown(ask, group))


def shown(ask: Ask, group: Group) -> dict[str, Tree]:
    """Return a group as answers carry it."""
    return {
        "Path": group.path,
        "GroupName": group.name,
        "GroupId": group.id,
        "Arn": names.arn_of(group, ask.number),
        "CreateDate": moment(group.created_s),
    }
