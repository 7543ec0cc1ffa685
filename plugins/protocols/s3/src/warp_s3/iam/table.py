"""The operations of the query protocol: what each does, on what it is judged, and whether it changes anything."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from warp_s3.iam import groups, keys, names, policies, providers, roles, sts, users
from warp_s3.iam.asking import Ask, Result, Run
from warp_s3.iam.directory import State
from warp_s3.iam.entities import Group, Role, User

if TYPE_CHECKING:
    from warp_s3.call import Call
    from warp_s3.iam.service import QueryService

Resource = Callable[[State, Ask], str]
"""The ARN that an operation is about."""

Waits = Callable[["QueryService", Ask], Awaitable[Result]]
Judges = Callable[["QueryService", Ask, "Call"], Awaitable[Result]]


E = TypeVar("E", User, Group, Role)


class Operation(NamedTuple):
    """One operation."""

    resource: Resource
    run: Run | None = None  # decides on the state
    waits: Waits | None = None  # or does more than that
    judges: Judges | None = None  # or says itself who may
    changes: bool = True
    accounts: bool = False  # an account may be named in place of a user


def _named(parameter: str, kind: type[E], noun: str) -> Resource:
    def resource(state: State, ask: Ask) -> str:
        name = ask.form.get(parameter)
        found = state.find(ask.account.name, kind, name) if name else None
        if found is not None:
            return names.arn_of(found, ask.number)
        path = ask.form.get("Path", "/") if not ask.form.says("NewPath") else "/"
        return f"arn:aws:iam::{ask.number}:{noun}{path}{name or '*'}"

    return resource


def _user(state: State, ask: Ask) -> str:
    from warp_s3.iam.asking import sender

    if not ask.form.get("UserName"):
        own = sender(state, ask)
        if own is not None:
            return names.arn_of(own, ask.number)
    return _NAMED_USER(state, ask)


_NAMED_USER: Final = _named("UserName", User, "user")
_USER: Final[Resource] = _user
_GROUP: Final = _named("GroupName", Group, "group")
_ROLE: Final = _named("RoleName", Role, "role")


def _policy(state: State, ask: Ask) -> str:
    arn = ask.form.get("PolicyArn")
    if arn:
        return arn
    return f"arn:aws:iam::{ask.number}:policy{ask.form.get('Path', '/')}{ask.form.get('PolicyName', '*')}"


def _provider(state: State, ask: Ask) -> str:
    arn = ask.form.get("OpenIDConnectProviderArn")
    if arn:
        return arn
    name = ask.form.get("Url").partition("://")[2] or "*"
    return f"arn:aws:iam::{ask.number}:oidc-provider/{name}"


def _everything(state: State, ask: Ask) -> str:
    return "*"


def _changes(resource: Resource, **runs: Run) -> dict[str, Operation]:
    return {name: Operation(resource, run) for name, run in runs.items()}


def _reads(resource: Resource, **runs: Run) -> dict[str, Operation]:
    return {name: Operation(resource, run, changes=False) for name, run in runs.items()}


def _of_holders() -> dict[str, Operation]:
    made = {}
    for kind, resource in ((User, _USER), (Group, _GROUP), (Role, _ROLE)):
        for pattern, make in policies.OF_HOLDERS.items():
            name = pattern.format(kind.__name__)
            changes = not name.startswith(("Get", "List"))
            made[name] = Operation(resource, make(kind), changes=changes, accounts=kind is User)
    return made


IAM: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        **_changes(
            _USER,
            CreateUser=users.create_user,
            UpdateUser=users.update_user,
            DeleteUser=users.delete_user,
            TagUser=users.tag_user,
            UntagUser=users.untag_user,
            PutUserPermissionsBoundary=users.put_boundary,
            DeleteUserPermissionsBoundary=users.delete_boundary,
        ),
        **_reads(
            _USER,
            GetUser=users.get_user,
            ListUsers=users.list_users,
            ListUserTags=users.list_user_tags,
            ListGroupsForUser=groups.list_groups_for_user,
        ),
        "CreateAccessKey": Operation(_USER, waits=keys.create_key),
        "ListAccessKeys": Operation(_USER, waits=keys.list_keys, changes=False),
        "UpdateAccessKey": Operation(_USER, waits=keys.update_key),
        "DeleteAccessKey": Operation(_USER, waits=keys.delete_key),
        "GetAccessKeyLastUsed": Operation(_USER, waits=keys.last_used, changes=False),
        **_changes(
            _everything,
            CreateAccountAlias=users.create_alias,
            DeleteAccountAlias=users.delete_alias,
        ),
        **_reads(_everything, ListAccountAliases=users.list_aliases),
        **_changes(
            _GROUP,
            CreateGroup=groups.create_group,
            UpdateGroup=groups.update_group,
            DeleteGroup=groups.delete_group,
            AddUserToGroup=groups.add_user,
            RemoveUserFromGroup=groups.remove_user,
        ),
        **_reads(_GROUP, GetGroup=groups.get_group, ListGroups=groups.list_groups),
        **_changes(
            _ROLE,
            CreateRole=roles.create_role,
            UpdateRole=roles.update_role,
            UpdateRoleDescription=roles.update_description,
            UpdateAssumeRolePolicy=roles.update_trust,
            DeleteRole=roles.delete_role,
            TagRole=roles.tag_role,
            UntagRole=roles.untag_role,
            PutRolePermissionsBoundary=roles.put_boundary,
            DeleteRolePermissionsBoundary=roles.delete_boundary,
        ),
        **_reads(
            _ROLE,
            GetRole=roles.get_role,
            ListRoles=roles.list_roles,
            ListRoleTags=roles.list_role_tags,
            ListInstanceProfilesForRole=roles.list_instance_profiles,
        ),
        **_changes(
            _policy,
            CreatePolicy=policies.create_policy,
            DeletePolicy=policies.delete_policy,
            CreatePolicyVersion=policies.create_version,
            DeletePolicyVersion=policies.delete_version,
            SetDefaultPolicyVersion=policies.set_default,
            TagPolicy=policies.tag_policy,
            UntagPolicy=policies.untag_policy,
        ),
        **_reads(
            _policy,
            GetPolicy=policies.get_policy,
            ListPolicies=policies.list_policies,
            GetPolicyVersion=policies.get_version,
            ListPolicyVersions=policies.list_versions,
            ListEntitiesForPolicy=policies.list_entities,
            ListPolicyTags=policies.list_policy_tags,
        ),
        **_of_holders(),
        **_changes(
            _provider,
            CreateOpenIDConnectProvider=providers.create_provider,
            DeleteOpenIDConnectProvider=providers.delete_provider,
            AddClientIDToOpenIDConnectProvider=providers.add_client,
            RemoveClientIDFromOpenIDConnectProvider=providers.remove_client,
            UpdateOpenIDConnectProviderThumbprint=providers.update_thumbprints,
            TagOpenIDConnectProvider=providers.tag_provider,
            UntagOpenIDConnectProvider=providers.untag_provider,
        ),
        **_reads(
            _provider,
            GetOpenIDConnectProvider=providers.get_provider,
            ListOpenIDConnectProviders=providers.list_providers,
            ListOpenIDConnectProviderTags=providers.list_provider_tags,
        ),
    }
)

STS: Final[Mapping[str, Operation]] = MappingProxyType(
    {
        "AssumeRole": Operation(_everything, judges=sts.assume_role),
        "AssumeRoleWithWebIdentity": Operation(_everything, judges=sts.assume_with_web_identity),
        "GetCallerIdentity": Operation(_everything, judges=sts.get_caller_identity),
        "GetSessionToken": Operation(_everything, judges=sts.get_session_token),
        "GetAccessKeyInfo": Operation(_everything, judges=sts.get_access_key_info),
    }
)

UNSIGNED: Final = frozenset({"AssumeRoleWithWebIdentity"})
"""Operations whose sender proves in another way who it is."""
