"""Temporary credentials: who may have them, and what they say.

A role's own policy (its trust) says who may become it. One of the same account whom it names needs nothing else; whom it lets in only
as one of an account needs the permission `sts:AssumeRole` as well. One of another account whom it names by its own ARN is let in,
too, where AWS would ask that account's policies: what is given away is the role's, and its account decided.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from warp_core.interfaces.auth import ANONYMOUS

from warp_s3.access.judging import who
from warp_s3.access.members import ACCOUNT, ROLE, Member, judge
from warp_s3.access.policy import Policy, Verdict, Who, evaluate, read_trust
from warp_s3.access.values import RequestValues
from warp_s3.iam import names
from warp_s3.iam.asking import Ask, Result, identity_policy, managed, moment, tags_of
from warp_s3.iam.entities import Own, Provider, Role
from warp_s3.iam.errors import QueryError
from warp_s3.iam.oidc import audience_of, issuer_of
from warp_s3.iam.sessions import TOKEN_MAX, Session

if TYPE_CHECKING:
    from warp_s3.call import Call
    from warp_s3.iam.service import QueryService

DURATION_MIN_S: Final = 900
CHAINED_MAX_S: Final = 3600
TOKEN_DURATION_MAX_S: Final = 36 * 3600
SESSION_POLICY_MAX: Final = 2048
SESSION_POLICIES_MAX: Final = 10

_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_EXTERNAL_ID: Final = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_TAGS: Final = "https://aws.amazon.com/tags"
_SOURCE_IDENTITY: Final = "https://aws.amazon.com/source_identity"


async def assume_role(service: "QueryService", ask: Ask, call: "Call") -> Result:
    """Become a role for a while."""
    form = ask.form
    arn = form.need("RoleArn")
    name = _session_name(ask)
    member = ask.principal if isinstance(ask.principal, Member) else None
    carried = dict(member.tags) if member is not None else {}
    tags = {**tags_of(ask), **carried}
    transitive = [*form.texts("TransitiveTagKeys"), *carried]
    source = form.get("SourceIdentity") or (member.source_identity if member is not None else "")
    more = _more(ask, name, tags, transitive, source)
    role = _role(service, ask, arn)
    if role is None:
        raise _denied(ask, "AssumeRole", arn)
    actions = ["AssumeRole"]
    actions += ["TagSession"] if form.structs("Tags", "Key", "Value") else []
    actions += ["SetSourceIdentity"] if form.get("SourceIdentity") else []
    for action in actions:
        values = service.values(call, ask, {**more, **_of_role(role)})
        if not _trusts(role, ask, f"sts:{action}", arn, values):
            raise _denied(ask, action, arn)
    most = role.duration_max_s
    if member is not None and member.kind == ROLE:
        most = min(most, CHAINED_MAX_S)
    session = _new_session(service, ask, role, name, most)
    session = msgspec.structs.replace(
        session, tags=tags, transitive=tuple(transitive), source_identity=source
    )
    return _begun(service, ask, role, session) | {"SourceIdentity": source or None}


async def assume_with_web_identity(service: "QueryService", ask: Ask, call: "Call") -> Result:
    """Become a role for a while, by what another provider says of who asks."""
    form = ask.form
    arn = form.need("RoleArn")
    name = _session_name(ask)
    token = form.need("WebIdentityToken")
    issuer = issuer_of(token)
    role = _role(service, ask, arn)
    found = service.directory.state.find(role.account, Provider, issuer) if role else None
    if role is None or found is None:
        # What is there is not for strangers to find out.
        raise QueryError(
            "InvalidIdentityToken",
            "No OpenIDConnect provider found in your account for this issuer",
        )
    claims = await service.web_identities.verify(token, found, now_s=time.time())
    tags, transitive = _claimed_tags(claims)
    source = claims.get(_SOURCE_IDENTITY, "")
    source = source if isinstance(source, str) else ""
    keys = _claimed_keys(found.name, claims)
    number = ask.accounts.named(role.account).number
    provider_arn = names.arn_of(found, number)
    keys["aws:federatedprovider"] = [provider_arn]
    more = _more(ask, name, tags, transitive, source) | keys | _of_role(role)
    values = service.values(call, ask, more)
    federated = frozenset({provider_arn, provider_arn.replace(number, "", 1)})
    asking = Who(number="-", federated=federated)
    trust = _trust(role)
    actions = ["AssumeRoleWithWebIdentity", *(["TagSession"] if tags else [])]
    for action in actions:
        if evaluate(trust, asking, f"sts:{action}", "*", values) is not Verdict.ALLOW:
            raise QueryError("AccessDenied", f"Not authorized to perform sts:{action}")
    session = _new_session(service, ask, role, name, role.duration_max_s)
    session = msgspec.structs.replace(
        session,
        tags=tags,
        transitive=tuple(transitive),
        source_identity=source,
        values={key: list(value) for key, value in keys.items()},
    )
    return _begun(service, ask, role, session) | {
        "SubjectFromWebIdentityToken": claims["sub"],
        "Provider": provider_arn,
        "Audience": audience_of(claims),
        "SourceIdentity": source or None,
    }


async def get_session_token(service: "QueryService", ask: Ask, call: "Call") -> Result:
    """Give a user, or the account itself, credentials that end."""
    principal = ask.principal
    member = principal if isinstance(principal, Member) else None
    if member is not None and member.session:
        raise QueryError("AccessDenied", "Cannot call GetSessionToken with session credentials")
    if member is not None and not member.admin:
        verdict = judge(member, "sts:GetSessionToken", ["*"], service.values(call, ask, {})).verdict
        if verdict is Verdict.DENY:  # nobody needs to be allowed it
            raise _denied(ask, "GetSessionToken", "*")
    is_account = member is None or member.kind == ACCOUNT
    duration = ask.form.number(
        "DurationSeconds", 12 * 3600, least=DURATION_MIN_S, most=TOKEN_DURATION_MAX_S
    )
    now = service.now_s()
    session = Session(
        access_key=names.new_access_key(names.TEMPORARY),
        secret=names.new_secret(),
        account=principal.name,
        id=member.id if member is not None and not is_account else "",
        parent=ask.access_key if is_account else "",
        issued_s=now,
        # As at AWS, an account's own credentials last an hour.
        expires_s=now + (min(duration, 3600) if is_account else duration),
    )
    token, _ = service.identities.tokens.make(session)
    return {"Credentials": _credentials(session, token)}


async def get_caller_identity(service: "QueryService", ask: Ask, call: "Call") -> Result:
    """Tell the sender who it is; nothing keeps anybody from that."""
    member = ask.principal if isinstance(ask.principal, Member) else None
    if member is None or member.kind == ACCOUNT:
        arn = names.arn_of(Own(account=ask.account.name), ask.number)
        return {"UserId": ask.number, "Account": ask.number, "Arn": arn}
    return {"UserId": member.user_id, "Account": ask.number, "Arn": member.arn}


async def get_access_key_info(service: "QueryService", ask: Ask, call: "Call") -> Result:
    """Tell the account of an access key."""
    key = ask.form.need("AccessKeyId")
    found = service.directory.state.keys.get(key)
    if found is not None:
        return {"Account": ask.accounts.named(found[0].account).number}
    for known, principal in await service.authenticator.list_keys():
        if known == key:
            return {"Account": ask.accounts.named(principal.name).number}
    raise QueryError("ValidationError", "The access key does not exist.")


# Who may -------------------------------------------------------------------------------------------


def _trusts(role: Role, ask: Ask, action: str, arn: str, values: RequestValues) -> bool:
    trust = _trust(role)
    if ask.principal.name == ANONYMOUS.name:
        return False
    asking = who(ask.principal, ask.account)
    if evaluate(trust, asking, action, "*", values) is not Verdict.ALLOW:
        return False
    member = ask.principal if isinstance(ask.principal, Member) else None
    if member is None:
        return True
    resources = [arn, arn.replace(f"::{ask.number}:", ":::", 1)]
    said = judge(member, action, resources, values).verdict
    if said is Verdict.DENY or member.kind == ACCOUNT or said is Verdict.ALLOW:
        return said is not Verdict.DENY
    direct = msgspec.structs.replace(asking, direct=True)
    return evaluate(trust, direct, action, "*", values) is Verdict.ALLOW


def _trust(role: Role) -> Policy:
    return read_trust(role.trust.encode())


def _role(service: "QueryService", ask: Ask, arn: str) -> Role | None:
    parts = names.read_arn(arn)
    if parts.kind != "role":
        raise QueryError("ValidationError", f"{arn[:128]} is invalid")
    account = ask.accounts.with_number(parts.number) if parts.number else ask.account
    if account is None:
        return None
    role = service.directory.state.find(account.name, Role, parts.name)
    return role if role is not None and role.path == parts.path else None


def _denied(ask: Ask, action: str, resource: str) -> QueryError:
    from warp_s3.iam.service import denied

    return denied(ask, f"sts:{action}", resource)


def _more(
    ask: Ask, name: str, tags: Mapping[str, str], transitive: Sequence[str], source: str
) -> dict[str, Sequence[str]]:
    """Return the condition keys that a request for a session gives."""
    more: dict[str, Sequence[str]] = {"sts:rolesessionname": (name,)}
    external = ask.form.get("ExternalId")
    if external:
        if not _EXTERNAL_ID.fullmatch(external):
            raise QueryError("ValidationError", "The external ID is not valid.")
        more["sts:externalid"] = (external,)
    for key, value in tags.items():
        more[f"aws:requesttag/{key.lower()}"] = (value,)
    if tags:
        more["aws:tagkeys"] = list(tags)
    if transitive:
        more["sts:transitivetagkeys"] = list(transitive)
    if source:
        more["sts:sourceidentity"] = (source,)
    return more


def _of_role(role: Role) -> dict[str, Sequence[str]]:
    made: dict[str, Sequence[str]] = {}
    for key, value in role.tags.items():
        made[f"aws:resourcetag/{key.lower()}"] = (value,)
        made[f"iam:resourcetag/{key.lower()}"] = (value,)
    return made


# What it says --------------------------------------------------------------------------------------


def _session_name(ask: Ask) -> str:
    name = ask.form.need("RoleSessionName")
    if not _SESSION_NAME.fullmatch(name):
        raise QueryError(
            "ValidationError",
            f"Value '{name[:64]}' at 'roleSessionName' failed to satisfy constraint: Member must satisfy "
            r"regular expression pattern: [\w+=,.@-]* and have 2 to 64 characters",
        )
    return name


def _new_session(
    service: "QueryService", ask: Ask, role: Role, name: str, duration_max_s: int
) -> Session:
    """Begin a session of a role, with the policies that the request narrows it by."""
    form = ask.form
    duration = form.number("DurationSeconds", 3600, least=DURATION_MIN_S, most=12 * 3600)
    if duration > duration_max_s:
        raise QueryError(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )
    document = form.get("Policy")
    if document:
        identity_policy(document, "the session", SESSION_POLICY_MAX)
    attached = [arn for (arn,) in form.structs("PolicyArns", "arn")]
    if len(attached) > SESSION_POLICIES_MAX:
        raise QueryError(
            "PackedPolicyTooLarge", f"More than {SESSION_POLICIES_MAX} session policies"
        )
    account = ask.accounts.named(role.account)
    for arn in attached:
        managed(service.directory.state, msgspec.structs.replace(ask, account=account), arn)
    now = service.now_s()
    return Session(
        access_key=names.new_access_key(names.TEMPORARY),
        secret=names.new_secret(),
        account=role.account,
        id=role.id,
        name=name,
        issued_s=now,
        expires_s=now + duration,
        policies=(document,) if document else (),
        attached=tuple(attached),
    )


def _begun(service: "QueryService", ask: Ask, role: Role, session: Session) -> dict[str, Any]:
    token, percent = service.identities.tokens.make(session)
    if percent > 100 or len(token) > TOKEN_MAX:
        raise QueryError(
            "PackedPolicyTooLarge",
            f"Packed size of session policies and tags is {percent}% of what fits",
        )
    number = ask.accounts.named(role.account).number
    return {
        "Credentials": _credentials(session, token),
        "AssumedRoleUser": {
            "AssumedRoleId": f"{role.id}:{session.name}",
            "Arn": f"arn:aws:sts::{number}:assumed-role/{role.name}/{session.name}",
        },
        "PackedPolicySize": percent,
    }


def _credentials(session: Session, token: str) -> dict[str, Any]:
    return {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": session.secret,
        "SessionToken": token,
        "Expiration": moment(session.expires_s),
    }


def _claimed_keys(provider: str, claims: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Return the condition keys that a token gives: its claims that are text, under its provider's name."""
    made: dict[str, Sequence[str]] = {}
    for name, value in claims.items():
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and texts and all(isinstance(one, str) for one in texts):
            made[f"{provider}:{name}".lower()] = texts
    audience = audience_of(claims)
    if audience != claims.get("aud"):
        said = made.get(f"{provider}:aud".lower())
        if said is not None:
            made[f"{provider}:oaud".lower()] = said
    made[f"{provider}:aud".lower()] = [audience]
    made[f"{provider}:app_id".lower()] = [audience]
    return made


def _claimed_tags(claims: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    said = claims.get(_TAGS)
    if said is None:
        return {}, []
    made: dict[str, str] = {}
    try:
        for key, value in said["principal_tags"].items():
            text = value[0] if isinstance(value, list) else value
            if not isinstance(text, str) or not 1 <= len(key) <= 128 or len(text) > 256:
                raise TypeError(key)
            made[key] = text
        transitive = [str(key) for key in said.get("transitive_tag_keys", [])]
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise QueryError("InvalidIdentityToken", "The token's tags are not valid.") from error
    if len(made) > 50:
        raise QueryError("InvalidIdentityToken", "The token has more than 50 tags.")
    return made, transitive
