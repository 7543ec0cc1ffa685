"""One request of the query protocol on its way to its operation, and what operations share."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from warp_core.interfaces.accounts import Account, Accounts
from warp_core.interfaces.auth import Principal

from warp_s3.access.policy import Malformed, Policy, read_identity, read_trust
from warp_s3.iam import names
from warp_s3.iam.directory import Draft, State
from warp_s3.iam.entities import Entity, Holder, Managed, Own, Provider, Tagged, User
from warp_s3.iam.errors import QueryError
from warp_s3.iam.managed import MANAGED
from warp_s3.iam.wire import Form, Tree

T = TypeVar("T")

PAGE: int = 100
PAGE_MAX: int = 1000
TAGS_MAX: int = 50
DESCRIPTION_MAX: int = 1000


class Ask(msgspec.Struct, frozen=True):
    """A request whose sender is known."""

    form: Form
    principal: Principal
    account: Account  # that the sender belongs to
    accounts: Accounts
    access_key: str
    seal: Callable[[bytes, str], bytes]
    itself: bool = (
        False  # the sender may change what is said of an account, named in place of a user
    )

    @property
    def number(self) -> str:
        """Number of the sender's account."""
        return self.account.number


Result = Mapping[str, Tree] | None
Run = Callable[[Draft, Ask], Result]


def moment(second: int) -> datetime:
    """Return a time as answers carry it."""
    return datetime.fromtimestamp(second, UTC)


def find(state: State, ask: Ask, kind: type[T], name: str) -> T:
    """Return an entity of the sender's account.

    Raises:
        QueryError: `NoSuchEntity`.
    """
    found = state.find(ask.account.name, kind, name)  # type: ignore[type-var]
    if found is None:
        noun = "policy" if kind is Managed else kind.__name__.lower()
        raise QueryError("NoSuchEntity", f"The {noun} with name {name[:128]} cannot be found.")
    return found


def user_or_self(state: State, ask: Ask) -> User:
    """Return the user that a request names, or else its sender.

    Raises:
        QueryError: `NoSuchEntity`; `ValidationError`, the sender is no user.
    """
    name = ask.form.get("UserName")
    if name:
        return find(state, ask, User, name)
    own = sender(state, ask)
    if own is None:
        raise QueryError(
            "ValidationError", "Must specify userName when calling with non-User credentials"
        )
    return own


def sender(state: State, ask: Ask) -> User | None:
    """Return the user who sent a request, None for an account itself and for sessions of roles."""
    from warp_s3.access.members import Member

    if isinstance(ask.principal, Member) and ask.principal.kind == "User":
        found = state.by_id.get(ask.principal.id)
        return found if isinstance(found, User) else None
    return None


def holder(state: State, ask: Ask, kind: type[Holder]) -> Holder:
    """Return what a request about policies names: a user, group or role, or an account in place of a user.

    Raises:
        QueryError: `NoSuchEntity`.
    """
    if kind is User:
        name = ask.form.need("UserName")
        known = state.find(ask.account.name, User, name)
        if known is not None:
            return known
        # Not merely because no such user is there any more: others may, who may not do this.
        other = account_called(ask, name) if ask.itself else None
        if other is not None:
            return state.find(other.name, Own, "") or Own(account=other.name)
        raise QueryError("NoSuchEntity", f"The user with name {name[:128]} cannot be found.")
    return find(state, ask, kind, ask.form.need(f"{kind.__name__}Name"))


def account_called(ask: Ask, name: str) -> Account | None:
    """Return the account of a name or canonical id, if the sender may see that it is there: its own, or all for an administrator."""
    accounts = ask.accounts
    found = accounts.with_id(name)
    if found is None and f"account:{name}" in accounts:
        found = accounts.named(f"account:{name}")
    if found is None or not (ask.principal.admin or found.name == ask.account.name):
        return None
    return found


def managed(state: State, ask: Ask, arn: str) -> Managed:
    """Return the managed policy of an ARN, its account's or one that is always there.

    Raises:
        QueryError: `NoSuchEntity`, `ValidationError`.
    """
    if arn in MANAGED:
        return MANAGED[arn]
    parts = names.read_arn(arn)
    found = state.find(ask.account.name, Managed, parts.name)
    if found is None or names.arn_of(found, ask.number) != arn:
        raise QueryError("NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")
    return found


def provider(state: State, ask: Ask) -> Provider:
    """Return the provider that a request names by its ARN.

    Raises:
        QueryError: `NoSuchEntity`, `ValidationError`.
    """
    arn = ask.form.need("OpenIDConnectProviderArn")
    parts = names.read_arn(arn)
    found = state.find(ask.account.name, Provider, parts.name)
    if found is None or parts.number not in {ask.number, ""}:
        raise QueryError("NoSuchEntity", f"OpenIDConnect Provider not found for arn {arn}")
    return found


def page(
    ask: Ask, what: str, found: Sequence[T], key: Callable[[T], str], show: Callable[[T], Tree]
) -> dict[str, Tree]:
    """Return a page of a sorted list: those behind the marker, which is the key of the last one of the page before."""
    most = ask.form.number("MaxItems", PAGE, least=1, most=PAGE_MAX)
    marker = ask.form.get("Marker")
    rest = [each for each in found if not marker or key(each) > marker]
    shown = rest[:most]
    more = len(rest) > most
    result: dict[str, Tree] = {what: [show(each) for each in shown], "IsTruncated": more}
    if more:
        result["Marker"] = key(shown[-1])
    return result


def below(ask: Ask, found: Sequence[T]) -> list[T]:
    """Return those whose path begins with the request's PathPrefix."""
    prefix = ask.form.get("PathPrefix", "/")
    return [each for each in found if each.path.startswith(prefix)]  # type: ignore[attr-defined]


def lower_name(entity: Entity) -> str:
    """Return what lists of entities are sorted by."""
    return entity.name.lower()


def tags_of(ask: Ask, name: str = "Tags") -> dict[str, str]:
    """Return a request's tags.

    Raises:
        QueryError: `InvalidInput`, `LimitExceeded`.
    """
    pairs = ask.form.structs(name, "Key", "Value")
    made: dict[str, str] = {}
    for key, value in pairs:
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise QueryError("InvalidInput", f"The tag {key[:128]} is not valid.")
        if key.lower() in {other.lower() for other in made}:
            raise QueryError(
                "InvalidInput",
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            )
        made[key] = value
    if len(made) > TAGS_MAX:
        raise QueryError("LimitExceeded", f"Cannot exceed quota for TagsPerResource: {TAGS_MAX}")
    return made


def tagged(before: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Return tags with new ones; keys differ by more than case.

    Raises:
        QueryError: `LimitExceeded`.
    """
    lower = {key.lower() for key in new}
    made = {key: value for key, value in before.items() if key.lower() not in lower} | dict(new)
    if len(made) > TAGS_MAX:
        raise QueryError("LimitExceeded", f"Cannot exceed quota for TagsPerResource: {TAGS_MAX}")
    return made


def untagged(before: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """Return tags without some."""
    lower = {key.lower() for key in keys}
    return {key: value for key, value in before.items() if key.lower() not in lower}


def tag(draft: Draft, ask: Ask, entity: Tagged) -> Result:
    """Set tags of an entity, as a request says them."""
    draft.put(msgspec.structs.replace(entity, tags=tagged(entity.tags, tags_of(ask))))
    return None


def untag(draft: Draft, ask: Ask, entity: Tagged) -> Result:
    """Take tags of an entity away, as a request names them."""
    kept = untagged(entity.tags, ask.form.texts("TagKeys"))
    draft.put(msgspec.structs.replace(entity, tags=kept))
    return None


def shown_tags(tags: Mapping[str, str]) -> list[Tree]:
    """Return tags as answers carry them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def identity_policy(document: str, what: str, most: int) -> Policy:
    """Read a document that says what an identity may do.

    Args:
        document: JSON.
        what: Whose it is, for the error.
        most: Characters without white space.

    Raises:
        QueryError: `MalformedPolicyDocument`, `LimitExceeded`.
    """
    if length(document) > most:
        raise QueryError(
            "LimitExceeded", f"Maximum policy size of {most} bytes exceeded for {what}"
        )
    try:
        return read_identity(document.encode())
    except Malformed as error:
        raise QueryError("MalformedPolicyDocument", str(error)) from error


def trust_policy(document: str, known: Callable[[str, str], bool]) -> Policy:
    """Read a document that says who may become a role.

    Raises:
        QueryError: `MalformedPolicyDocument`, `LimitExceeded`.
    """
    if length(document) > 4096:
        raise QueryError("LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 4096")
    try:
        return read_trust(document.encode(), known=known)
    except Malformed as error:
        raise QueryError("MalformedPolicyDocument", str(error)) from error


def length(document: str) -> int:
    """Return what a document counts towards quotas: its characters without white space."""
    return sum(not character.isspace() for character in document)


def text(ask: Ask, name: str, most: int = DESCRIPTION_MAX) -> str:
    """Return a text of a request.

    Raises:
        QueryError: `ValidationError`.
    """
    value = ask.form.get(name)
    if len(value) > most:
        raise QueryError("ValidationError", f"{name} has more than {most} characters")
    return value
