"""Members of an account: users, and sessions of users, roles and of the account itself, with what their policies allow.

A member acts for its account: what it makes is the account's, and who owns something is the account. What it may do is for the
account's policies of identities to say; the account itself may do everything with what is its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from warp_core.interfaces.auth import Principal

from warp_s3.access.policy import Policy, Values, Verdict, Who, evaluate

USER: Final = "User"
ROLE: Final = "AssumedRole"
ACCOUNT: Final = "Account"

_WHOEVER: Final = Who(number="-")  # policies of identities name no principals


@dataclass(frozen=True, slots=True)
class Member(Principal):
    """Who sent a request, where it is not simply an account. `name` is the account's.

    Attributes:
        kind: `USER`, `ROLE` (a session of a role), or `ACCOUNT` (the account itself, where an administrator said what it may do).
        id: Of the user or role, never used again.
        arn: What it is called in errors and answers.
        arns: What policies may call it.
        alone: Those of `arns` that are not limited when a bucket's policy names them.
        policies: What it is allowed and denied.
        limits: Each of these has to allow as well: a boundary, a session's policies.
        values: Condition keys in lower case; an empty value stands for a key that is absent.
        tags: Of its session, those that go on to sessions begun from this one.
        session: Whether it has temporary credentials.
        source_identity: What its session says of who began the first of them.
    """

    kind: str = USER
    id: str = ""
    user_id: str = ""
    arn: str = ""
    arns: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    policies: tuple[Policy, ...] = field(default=(), repr=False, compare=False)
    limits: tuple[tuple[Policy, ...], ...] = field(default=(), repr=False, compare=False)
    values: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )
    tags: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )
    session: bool = False
    source_identity: str = ""

    def plain(self) -> Principal:
        """Return the account that it acts for, for everything below the protocol."""
        return Principal(self.name, display=self.display, aliases=self.aliases, groups=self.groups)

    @property
    def conditioned_by_tags(self) -> bool:
        """Some policy looks at the tags of an object that is there."""
        return any(each.conditioned_by_tags for each in self._all())

    def _all(self) -> Iterable[Policy]:
        yield from self.policies
        for limit in self.limits:
            yield from limit


class Judgement(NamedTuple):
    """What a member's policies say."""

    verdict: Verdict  # deny, allow within all limits, or nothing
    within: bool  # every limit allows it


def judge(member: Member, action: str, resources: Sequence[str], values: Values) -> Judgement:
    """Judge an action by a member's policies; a resource may be called by several names."""
    allowed = _says(member.policies, action, resources, values)
    if allowed is Verdict.DENY:
        return Judgement(Verdict.DENY, within=False)
    within = True
    for limit in member.limits:
        said = _says(limit, action, resources, values)
        if said is Verdict.DENY:
            return Judgement(Verdict.DENY, within=False)
        within = within and said is Verdict.ALLOW
    return Judgement(allowed if within else Verdict.NOTHING, within)


def _says(
    policies: Sequence[Policy], action: str, resources: Sequence[str], values: Values
) -> Verdict:
    verdict = Verdict.NOTHING
    for policy in policies:
        for resource in resources:
            said = evaluate(policy, _WHOEVER, action, resource, values)
            if said is Verdict.DENY:
                return said
            if said is Verdict.ALLOW:
                verdict = said
    return verdict


def plain(principal: Principal) -> Principal:
    """Return whom the namespace knows a principal as."""
    return principal.plain() if isinstance(principal, Member) else principal
