"""Roles."""

from typing import Final
from urllib.parse import quote

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
    shown_tags,
    tag,
    tags_of,
    text,
    trust_policy,
    untag,
)
from warp_s3.iam.directory import Draft
from warp_s3.iam.entities import Role
from warp_s3.iam.errors import QueryError
from warp_s3.iam.known import known_principal
from warp_s3.iam.users import boundary
from warp_s3.iam.wire import Tree

ROLES_MAX: Final = 1000
"""Of an account; AWS's own figure."""

DURATION_MAX_S: Final = 12 * 3600


def create_role(draft: Draft, ask: Ask) -> Result:
    """Make a role."""
    form = ask.form
    name = names.name(form.need("RoleName"), "roleName", names.ROLE_MAX)
    path = names.path(form.get("Path", "/"))
    trust = form.need("AssumeRolePolicyDocument")
    if draft.state.find(ask.account.name, Role, name) is not None:
        raise QueryError("EntityAlreadyExists", f"Role with name {name} already exists.")
    if len(draft.state.all(ask.account.name, Role)) >= ROLES_MAX:
        raise QueryError("LimitExceeded", f"Cannot exceed quota for RolesPerAccount: {ROLES_MAX}")
    trust_policy(trust, known_principal(draft.state, ask.accounts))
    limit = form.get("PermissionsBoundary")
    if limit:
        managed(draft.state, ask, limit)
    role = Role(
        account=ask.account.name,
        name=name,
        path=path,
        id=names.new_id("AROA"),
        created_s=draft.now_s,
        trust=trust,
        description=text(ask, "Description"),
        duration_max_s=form.number("MaxSessionDuration", 3600, least=3600, most=DURATION_MAX_S),
        tags=tags_of(ask),
        boundary=limit,
    )
    draft.put(role)
    return {"Role": shown(ask, role, whole=True)}


def get_role(draft: Draft, ask: Ask) -> Result:
    """Tell a role."""
    return {"Role": shown(ask, _named(draft, ask), whole=True)}


def list_roles(draft: Draft, ask: Ask) -> Result:
    """Tell an account's roles."""
    found = below(ask, draft.state.all(ask.account.name, Role))
    return page(ask, "Roles", found, lower_name, lambda role: shown(ask, role))


def update_role(draft: Draft, ask: Ask) -> Result:
    """Change what is said of a role."""
    role = _named(draft, ask)
    form = ask.form
    description = text(ask, "Description") if form.says("Description") else role.description
    most = form.number("MaxSessionDuration", role.duration_max_s, least=3600, most=DURATION_MAX_S)
    draft.put(msgspec.structs.replace(role, description=description, duration_max_s=most))
    return {}


def update_description(draft: Draft, ask: Ask) -> Result:
    """Change the description of a role."""
    role = msgspec.structs.replace(_named(draft, ask), description=text(ask, "Description"))
    draft.put(role)
    return {"Role": shown(ask, role, whole=True)}


def update_trust(draft: Draft, ask: Ask) -> Result:
    """Change who may become a role."""
    role = _named(draft, ask)
    document = ask.form.need("PolicyDocument")
    trust_policy(document, known_principal(draft.state, ask.accounts))
    draft.put(msgspec.structs.replace(role, trust=document))
    return None


def delete_role(draft: Draft, ask: Ask) -> Result:
    """Forget a role that has nothing more; its sessions end."""
    role = _named(draft, ask)
    if role.attached:
        raise QueryError("DeleteConflict", "Cannot delete entity, must detach all policies first.")
    if role.policies:
        raise QueryError("DeleteConflict", "Cannot delete entity, must delete policies first.")
    draft.delete(role)
    return None


def tag_role(draft: Draft, ask: Ask) -> Result:
    """Set tags of a role."""
    role = _named(draft, ask)
    return tag(draft, ask, role)


def untag_role(draft: Draft, ask: Ask) -> Result:
    """Take tags of a role away."""
    role = _named(draft, ask)
    return untag(draft, ask, role)


def list_role_tags(draft: Draft, ask: Ask) -> Result:
    """Tell the tags of a role."""
    return page(
        ask,
        "Tags",
        sorted(_named(draft, ask).tags.items()),
        lambda pair: pair[0],
        lambda pair: {"Key": pair[0], "Value": pair[1]},
    )


def put_boundary(draft: Draft, ask: Ask) -> Result:
    """Set what a role may at most be allowed."""
    role = _named(draft, ask)
    arn = ask.form.need("PermissionsBoundary")
    managed(draft.state, ask, arn)
    draft.put(msgspec.structs.replace(role, boundary=arn))
    return None


def delete_boundary(draft: Draft, ask: Ask) -> Result:
    """Take that limit away."""
    role = _named(draft, ask)
    if not role.boundary:
        raise QueryError("NoSuchEntity", f"Role {role.name} has no permissions boundary.")
    draft.put(msgspec.structs.replace(role, boundary=""))
    return None


def list_instance_profiles(draft: Draft, ask: Ask) -> Result:
    """Tell the machines' profiles of a role: there are no machines here, so none."""
    _named(draft, ask)
    return {"InstanceProfiles": [], "IsTruncated": False}


def _named(draft: Draft, ask: Ask) -> Role:
    return find(draft.state, ask, Role, ask.form.need("RoleName"))


def shown(ask: Ask, role: Role, *, whole: bool = False) -> dict[str, Tree]:
    """Return a role as answers carry it; lists do not tell everything."""
    made: dict[str, Tree] = {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": names.arn_of(role, ask.number),
        "CreateDate": moment(role.created_s),
        "AssumeRolePolicyDocument": quote(role.trust, safe="-_.~"),
        "Description": role.description or None,
        "MaxSessionDuration": role.duration_max_s,
    }
    if whole:
        made |= boundary(role.boundary)
        if role.tags:
            made["Tags"] = shown_tags(role.tags)
    return made
