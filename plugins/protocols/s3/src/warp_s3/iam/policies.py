"""Policies: inline ones, managed ones with versions, and what has them."""

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from warp_s3.iam import names
from warp_s3.iam.asking import (
    Ask,
    Result,
    Run,
    below,
    holder,
    identity_policy,
    length,
    lower_name,
    managed,
    moment,
    page,
    shown_tags,
    tag,
    tags_of,
    text,
    untag,
)
from warp_s3.iam.directory import Draft
from warp_s3.iam.entities import Group, Holder, Managed, Role, User, Version
from warp_s3.iam.errors import QueryError
from warp_s3.iam.managed import MANAGED, OWNER
from warp_s3.iam.wire import Tree

INLINE_MAX: Final = {User: 2048, Group: 5120, Role: 10_240}
"""Characters of all inline policies together, white space not counted; AWS's own figures."""

MANAGED_MAX: Final = 6144
"""Characters of a managed policy, white space not counted; AWS's own figure."""

ATTACHED_MAX: Final = 10
"""Managed policies of a user, group or role; AWS's own figure."""

VERSIONS_MAX: Final = 5
"""Versions of a managed policy; AWS's own figure."""

POLICIES_MAX: Final = 1500
"""Managed policies of an account; AWS's own figure."""


# Inline -------------------------------------------------------------------------------------------


def put_inline(kind: type[Holder]) -> Run:
    """Return what sets an inline policy."""

    def run(draft: Draft, ask: Ask) -> Result:
        form = ask.form
        name = names.name(form.need("PolicyName"), "policyName", names.POLICY_MAX)
        document = form.need("PolicyDocument")
        held = holder(draft.state, ask, kind)
        most = INLINE_MAX[kind]
        what = f"{kind.__name__.lower()} {held.name}"
        others = sum(length(each) for other, each in held.policies.items() if other != name)
        identity_policy(document, what, most - others)
        draft.put(msgspec.structs.replace(held, policies={**held.policies, name: document}))
        return None

    return run


def get_inline(kind: type[Holder]) -> Run:
    """Return what tells an inline policy."""

    def run(draft: Draft, ask: Ask) -> Result:
        held = holder(draft.state, ask, kind)
        name = _inline(held, ask)
        return {
            f"{kind.__name__}Name": held.name or ask.form.get("UserName"),
            "PolicyName": name,
            "PolicyDocument": quote(held.policies[name], safe="-_.~"),
        }

    return run


def list_inline(kind: type[Holder]) -> Run:
    """Return what tells the names of inline policies."""

    def run(draft: Draft, ask: Ask) -> Result:
        held = holder(draft.state, ask, kind)
        return page(ask, "PolicyNames", sorted(held.policies), lambda name: name, lambda name: name)

    return run


def delete_inline(kind: type[Holder]) -> Run:
    """Return what takes an inline policy away."""

    def run(draft: Draft, ask: Ask) -> Result:
        held = holder(draft.state, ask, kind)
        name = _inline(held, ask)
        kept = {other: each for other, each in held.policies.items() if other != name}
        draft.put(msgspec.structs.replace(held, policies=kept))
        return None

    return run


def _inline(held: Holder, ask: Ask) -> str:
    name = ask.form.need("PolicyName")
    if name not in held.policies:
        raise QueryError("NoSuchEntity", f"The policy with name {name[:128]} cannot be found.")
    return name


# Attached -----------------------------------------------------------------------------------------


def attach(kind: type[Holder]) -> Run:
    """Return what attaches a managed policy."""

    def run(draft: Draft, ask: Ask) -> Result:
        held = holder(draft.state, ask, kind)
        arn = ask.form.need("PolicyArn")
        managed(draft.state, ask, arn)
        if arn in held.attached:
            return None
        if len(held.attached) >= ATTACHED_MAX:
            raise QueryError(
                "LimitExceeded",
                f"Cannot exceed quota for PoliciesPer{kind.__name__}: {ATTACHED_MAX}",
            )
        draft.put(msgspec.structs.replace(held, attached=(*held.attached, arn)))
        return None

    return run


def detach(kind: type[Holder]) -> Run:
    """Return what detaches a managed policy."""

    def run(draft: Draft, ask: Ask) -> Result:
        held = holder(draft.state, ask, kind)
        arn = ask.form.need("PolicyArn")
        if arn not in held.attached:
            raise QueryError("NoSuchEntity", f"Policy {arn[:256]} was not found.")
        kept = tuple(each for each in held.attached if each != arn)
        draft.put(msgspec.structs.replace(held, attached=kept))
        return None

    return run


def list_attached(kind: type[Holder]) -> Run:
    """Return what tells attached policies."""

    def run(draft: Draft, ask: Ask) -> Result:
        held = holder(draft.state, ask, kind)
        prefix = ask.form.get("PathPrefix", "/")
        found = [
            (each.name, arn)
            for arn in held.attached
            if (each := managed(draft.state, ask, arn)).path.startswith(prefix)
        ]
        return page(
            ask,
            "AttachedPolicies",
            sorted(found),
            lambda pair: pair[0],
            lambda pair: {"PolicyName": pair[0], "PolicyArn": pair[1]},
        )

    return run


# Managed ------------------------------------------------------------------------------------------


def create_policy(draft: Draft, ask: Ask) -> Result:
    """Make a managed policy."""
    form = ask.form
    name = names.name(form.need("PolicyName"), "policyName", names.POLICY_MAX)
    path = names.path(form.get("Path", "/"))
    document = form.need("PolicyDocument")
    if draft.state.find(ask.account.name, Managed, name) is not None:
        raise QueryError(
            "EntityAlreadyExists",
            f"A policy called {name} already exists. Duplicate names are not allowed.",
        )
    if len(draft.state.all(ask.account.name, Managed)) >= POLICIES_MAX:
        raise QueryError(
            "LimitExceeded", f"Cannot exceed quota for PoliciesPerAccount: {POLICIES_MAX}"
        )
    identity_policy(document, f"policy {name}", MANAGED_MAX)
    policy = Managed(
        account=ask.account.name,
        name=name,
        path=path,
        id=names.new_id("ANPA"),
        created_s=draft.now_s,
        updated_s=draft.now_s,
        description=text(ask, "Description"),
        versions=(Version(1, document, draft.now_s),),
        tags=tags_of(ask),
    )
    draft.put(policy)
    return {"Policy": shown(draft, ask, policy)}


def get_policy(draft: Draft, ask: Ask) -> Result:
    """Tell a managed policy."""
    policy = _named(draft, ask)
    return {"Policy": shown(draft, ask, policy, whole=True)}


def list_policies(draft: Draft, ask: Ask) -> Result:
    """Tell managed policies: an account's, those that are always there, or both."""
    scope = ask.form.get("Scope", "All")
    if scope not in {"All", "AWS", "Local"}:
        raise QueryError("ValidationError", f"Scope {scope[:32]} is none of All, AWS, Local")
    found: list[Managed] = []
    if scope != "Local":
        found += MANAGED.values()
    if scope != "AWS":
        found += draft.state.all(ask.account.name, Managed)
    if ask.form.flag("OnlyAttached"):
        found = [each for each in found if _attachments(draft, ask, each)]
    found.sort(key=lower_name)
    return page(
        ask, "Policies", below(ask, found), lower_name, lambda each: shown(draft, ask, each)
    )


def delete_policy(draft: Draft, ask: Ask) -> Result:
    """Forget a managed policy that nothing has and that has one version."""
    policy = _own(draft, ask)
    if _attachments(draft, ask, policy) or _boundaries(draft, ask, policy):
        raise QueryError("DeleteConflict", "Cannot delete a policy attached to entities.")
    if len(policy.versions) > 1:
        raise QueryError(
            "DeleteConflict",
            "This policy has more than one version. Before you delete a policy, you must delete the "
            "policy's versions. The default version is deleted with the policy.",
        )
    draft.delete(policy)
    return None


def create_version(draft: Draft, ask: Ask) -> Result:
    """Add a version to a managed policy."""
    policy = _own(draft, ask)
    document = ask.form.need("PolicyDocument")
    identity_policy(document, f"policy {policy.name}", MANAGED_MAX)
    if len(policy.versions) >= VERSIONS_MAX:
        raise QueryError(
            "LimitExceeded",
            f"A managed policy can have up to {VERSIONS_MAX} versions. Before you create a new version, "
            "you must delete an existing version.",
        )
    number = policy.last + 1
    version = Version(number, document, draft.now_s)
    default = number if ask.form.flag("SetAsDefault") else policy.default
    made = msgspec.structs.replace(
        policy,
        versions=(*policy.versions, version),
        default=default,
        last=number,
        updated_s=draft.now_s,
    )
    draft.put(made)
    return {"PolicyVersion": _shown_version(made, version)}


def get_version(draft: Draft, ask: Ask) -> Result:
    """Tell a version of a managed policy."""
    policy = _named(draft, ask)
    version = _version(policy, ask)
    return {"PolicyVersion": _shown_version(policy, version, document=True)}


def list_versions(draft: Draft, ask: Ask) -> Result:
    """Tell the versions of a managed policy, newest first."""
    policy = _named(draft, ask)
    found = list(reversed(policy.versions))
    return page(
        ask,
        "Versions",
        found,
        lambda version: f"{999_999 - version.number:06}",
        lambda version: _shown_version(policy, version),
    )


def delete_version(draft: Draft, ask: Ask) -> Result:
    """Take a version away that does not hold."""
    policy = _own(draft, ask)
    version = _version(policy, ask)
    if version.number == policy.default:
        raise QueryError("DeleteConflict", "Cannot delete the default version of a policy.")
    kept = tuple(each for each in policy.versions if each is not version)
    draft.put(msgspec.structs.replace(policy, versions=kept, updated_s=draft.now_s))
    return None


def set_default(draft: Draft, ask: Ask) -> Result:
    """Choose the version that holds."""
    policy = _own(draft, ask)
    version = _version(policy, ask)
    draft.put(msgspec.structs.replace(policy, default=version.number, updated_s=draft.now_s))
    return None


def list_entities(draft: Draft, ask: Ask) -> Result:
    """Tell what has a managed policy."""
    policy = _named(draft, ask)
    arn = _arn(ask, policy)
    wanted = ask.form.get("EntityFilter")
    prefix = ask.form.get("PathPrefix", "/")
    found = [
        (f"{type(each).__name__}/{each.name.lower()}", each)
        for each in _holders(draft, ask)
        if wanted in {"", type(each).__name__}
        and arn in each.attached
        and each.path.startswith(prefix)
    ]
    made = page(ask, "All", found, lambda pair: pair[0], lambda pair: pair[0])
    shown_keys = set(made.pop("All"))  # type: ignore[arg-type]
    for kind in (Group, User, Role):
        noun = kind.__name__
        made[f"Policy{noun}s"] = [
            {f"{noun}Name": each.name, f"{noun}Id": getattr(each, "id", "")}
            for key, each in found
            if key in shown_keys and isinstance(each, kind)
        ]
    return made


def tag_policy(draft: Draft, ask: Ask) -> Result:
    """Set tags of a managed policy."""
    policy = _own(draft, ask)
    return tag(draft, ask, policy)


def untag_policy(draft: Draft, ask: Ask) -> Result:
    """Take tags of a managed policy away."""
    policy = _own(draft, ask)
    return untag(draft, ask, policy)


def list_policy_tags(draft: Draft, ask: Ask) -> Result:
    """Tell the tags of a managed policy."""
    return page(
        ask,
        "Tags",
        sorted(_named(draft, ask).tags.items()),
        lambda pair: pair[0],
        lambda pair: {"Key": pair[0], "Value": pair[1]},
    )


def shown(draft: Draft, ask: Ask, policy: Managed, *, whole: bool = False) -> dict[str, Tree]:
    """Return a managed policy as answers carry it; lists do not tell everything."""
    made: dict[str, Tree] = {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": _arn(ask, policy),
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default}",
        "AttachmentCount": _attachments(draft, ask, policy),
        "PermissionsBoundaryUsageCount": _boundaries(draft, ask, policy),
        "IsAttachable": True,
        "CreateDate": moment(policy.created_s),
        "UpdateDate": moment(policy.updated_s),
    }
    if whole:
        made["Description"] = policy.description or None
        made["Tags"] = shown_tags(policy.tags)
    return made


def _shown_version(policy: Managed, version: Version, *, document: bool = False) -> dict[str, Tree]:
    return {
        "Document": quote(version.document, safe="-_.~") if document else None,
        "VersionId": f"v{version.number}",
        "IsDefaultVersion": version.number == policy.default,
        "CreateDate": moment(version.created_s),
    }


def _arn(ask: Ask, policy: Managed) -> str:
    return names.arn_of(policy, OWNER if policy.account == OWNER else ask.number)


def _named(draft: Draft, ask: Ask) -> Managed:
    return managed(draft.state, ask, ask.form.need("PolicyArn"))


def _own(draft: Draft, ask: Ask) -> Managed:
    policy = _named(draft, ask)
    if policy.account == OWNER:
        raise QueryError("AccessDenied", f"Policy {policy.name} cannot be changed.")
    return policy


def _version(policy: Managed, ask: Ask) -> Version:
    wanted = ask.form.need("VersionId")
    for each in policy.versions:
        if f"v{each.number}" == wanted:
            return each
    raise QueryError(
        "NoSuchEntity",
        f"Policy {policy.name} version {wanted[:16]} does not exist or is not attachable.",
    )


def _holders(draft: Draft, ask: Ask) -> list[Group | Role | User]:
    state, account = draft.state, ask.account.name
    return [*state.all(account, Group), *state.all(account, Role), *state.all(account, User)]


def _attachments(draft: Draft, ask: Ask, policy: Managed) -> int:
    arn = _arn(ask, policy)
    return sum(arn in each.attached for each in _holders(draft, ask))


def _boundaries(draft: Draft, ask: Ask, policy: Managed) -> int:
    arn = _arn(ask, policy)
    return sum(each.boundary == arn for each in _holders(draft, ask) if not isinstance(each, Group))


OF_HOLDERS: Final[Mapping[str, Callable[[type[Holder]], Run]]] = {
    # operation, with the kind of holder in place of {}
    "Put{}Policy": put_inline,
    "Get{}Policy": get_inline,
    "List{}Policies": list_inline,
    "Delete{}Policy": delete_inline,
    "Attach{}Policy": attach,
    "Detach{}Policy": detach,
    "ListAttached{}Policies": list_attached,
}
