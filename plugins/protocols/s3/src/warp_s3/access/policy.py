"""Policies of buckets and of identities: read, checked and evaluated. Pure: a request is known here by its values only.

A policy is a list of statements. An explicit Deny that fits decides; otherwise one Allow is enough; otherwise the policy says nothing.

Source: "Bucket policies for Amazon S3" and the IAM JSON policy reference.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import msgspec

from warp_s3.access.conditions import Operator, holds, like, operator_named

POLICY_MAX: Final = 20 * 1024
"""Bytes of a policy; S3's own figure."""

STATEMENTS_MAX: Final = 256
"""Statements of a policy: more than fit POLICY_MAX in practice."""

Values = Callable[[str], Sequence[str] | None]
"""The request's values of a condition key in lower case, None where it is absent."""

_VERSIONS: Final = frozenset({"2012-10-17", "2008-10-17"})
_FIELDS: Final = frozenset({"Version", "Id", "Statement"})
_STATEMENT_FIELDS: Final = frozenset(
    {
        *("Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction"),
        *("Resource", "NotResource", "Condition"),
    }
)
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_ACTION: Final = re.compile(r"(\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+)\Z")
_PRINCIPAL_ARN: Final = re.compile(
    r"arn:aws:(iam|sts)::([0-9]{12}|[A-Za-z0-9_-]*):"
    r"(root|user/[\w+=,.@/-]+|role/[\w+=,.@/-]+|assumed-role/[\w+=,.@/-]+)\Z"
)
_LITERALS: Final = {"*": "*", "?": "?", "$": "$"}


class Malformed(ValueError):
    """A document that is no policy; the message says why."""


class Verdict(Enum):
    """What a policy says to a request."""

    DENY = "deny"
    ALLOW = "allow"
    NOTHING = "nothing"


class Who(msgspec.Struct, frozen=True):
    """Who asks, by all the names that a policy may use. Anonymous requests have none."""

    canonical_id: str = ""
    number: str = ""
    arns: frozenset[str] = frozenset()  # arn:aws:iam::NUMBER:user/NAME and the like
    direct: bool = False  # what is allowed to its whole account is not yet allowed to it
    federated: frozenset[str] = frozenset()  # ARNs of the provider that says who it is

    @property
    def anonymous(self) -> bool:
        """Nobody signed the request."""
        return not self.number


class Principals(msgspec.Struct, frozen=True):
    """Whom a statement is about."""

    everybody: bool = False
    accounts: frozenset[str] = frozenset()  # numbers: everybody of that account
    arns: frozenset[str] = frozenset()
    canonical_ids: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()  # services and federations, which nobody is here

    def fits(self, who: Who, *, direct: bool = False) -> bool:
        """Say whether `who` is one of them; `direct`: by itself, not as one of its account."""
        if self.everybody:
            return True
        if who.anonymous:
            return False
        if not self.arns.isdisjoint(who.arns) or not self.others.isdisjoint(who.federated):
            return True
        return not direct and (
            who.number in self.accounts or who.canonical_id in self.canonical_ids
        )


class Condition(msgspec.Struct, frozen=True):
    """One operator and key with the values it lists."""

    operator: Operator
    key: str  # in lower case
    wanted: tuple[str, ...]

    def holds(self, values: Values) -> bool:
        """Judge it."""
        wanted: Sequence[str] = self.wanted
        if self.operator.expands:
            wanted = [one for text in wanted if (one := expand(text, values)) is not None]
        return holds(self.operator, wanted, values(self.key))


class Statement(msgspec.Struct, frozen=True):
    """One statement; empty tuples stand for what it does not say."""

    allows: bool
    principals: Principals
    not_principals: bool
    actions: tuple[str, ...]  # patterns in lower case
    not_actions: bool
    resources: tuple[str, ...]  # patterns: "arn:aws:s3:::BUCKET" or with "/KEY"
    not_resources: bool
    conditions: tuple[Condition, ...]

    def fits(self, who: Who, action: str, resource: str, values: Values) -> bool:
        """Say whether it is about a request."""
        return (
            any(like(pattern, action) for pattern in self.actions) != self.not_actions
            and self.principals.fits(who, direct=self.allows and who.direct) != self.not_principals
            and self._names(resource, values) != self.not_resources
            and all(condition.holds(values) for condition in self.conditions)
        )

    def _names(self, resource: str, values: Values) -> bool:
        for pattern in self.resources:
            text = expand(pattern, values, escape=True) if "${" in pattern else pattern
            if text is not None and like(text, resource):
                return True
        return False


class Policy(msgspec.Struct, frozen=True):
    """A policy that was read and checked."""

    statements: tuple[Statement, ...]

    @property
    def conditioned_by_tags(self) -> bool:
        """Some condition or resource looks at the tags of an object that is there."""
        return any(
            condition.key.startswith("s3:existingobjecttag/")
            for statement in self.statements
            for condition in statement.conditions
        )


def evaluate(policy: Policy, who: Who, action: str, resource: str, values: Values) -> Verdict:
    """Judge a request: explicit Deny first."""
    action = action.lower()
    verdict = Verdict.NOTHING
    for statement in policy.statements:
        if statement.allows and verdict is Verdict.ALLOW:
            continue
        if statement.fits(who, action, resource, values):
            if not statement.allows:
                return Verdict.DENY
            verdict = Verdict.ALLOW
    return verdict


def expand(text: str, values: Values, *, escape: bool = False) -> str | None:
    """Replace policy variables such as `${aws:username}`; None where one has no value and no default.

    With `escape` the wildcards in what is put in are no wildcards: a name with a star must not reach further.
    """
    if "${" not in text:
        return text
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        inner = match[1]
        if inner in _LITERALS:
            return inner
        name, comma, default = inner.partition(",")
        found = values(name.strip().lower())
        if found:
            # A value with wildcards cannot be told from a pattern: it reaches nothing.
            if escape and any(character in found[0] for character in "*?"):
                missing = True
            return found[0]
        if comma:
            return default.strip().strip("'")
        missing = True
        return ""

    replaced = _VARIABLE.sub(value, text)
    return None if missing else replaced


# Public -------------------------------------------------------------------------------------------

# Conditions that make an Allow for everybody not public, where they list fixed values (S3 user guide, 'The meaning of "public"').
_NARROWING: Final = frozenset(
    {
        *("aws:sourceip", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner"),
        *("aws:sourceaccount", "aws:userid", "aws:principalorgid", "aws:principalorgpaths"),
        *(
            "aws:principalaccount",
            "aws:principalarn",
            "s3:x-amz-server-side-encryption-aws-kms-key-id",
        ),
        *("s3:dataaccesspointarn", "s3:dataaccesspointaccount"),
    }
)
_EXACT: Final = frozenset(
    {"StringEquals", "StringLike", "StringEqualsIgnoreCase", "ArnEquals", "ArnLike", "IpAddress"}
)


def is_public(policy: Policy) -> bool:
    """Say whether a policy lets in somebody whom it does not name."""
    return any(_is_public(statement) for statement in policy.statements)


def _is_public(statement: Statement) -> bool:
    if not statement.allows:
        return False
    if not statement.principals.everybody and not statement.not_principals:
        return False
    return not any(_narrows(condition) for condition in statement.conditions)


def _narrows(condition: Condition) -> bool:
    if condition.key not in _NARROWING or condition.operator.name not in _EXACT:
        return False
    if condition.operator.if_exists or condition.operator.quantifier == "ForAllValues":
        return False
    if condition.key == "aws:sourceip":
        return all(not _wide(one) for one in condition.wanted)
    return all("*" not in one and "?" not in one and "${" not in one for one in condition.wanted)


def _wide(network: str) -> bool:
    _, slash, length = network.partition("/")
    # AWS calls ranges wider than /8 (IPv6: /32) public.
    return bool(slash) and length.isdigit() and int(length) < (32 if ":" in network else 8)


# Reading ------------------------------------------------------------------------------------------


class Grammar(msgspec.Struct, frozen=True):
    """What the statements of one kind of policy say and what they must not."""

    action: Callable[[str], str]  # each of these: from text to pattern, or Malformed
    resource: Callable[[str], str] | None  # None: statements name no resources
    known: (
        Callable[[str, str], bool] | None
    )  # whether a principal exists; None: statements name no principals


def read(
    document: bytes, bucket: str, *, known: Callable[[str, str], bool] = lambda kind, name: True
) -> Policy:
    """Read a bucket's policy.

    Args:
        document: JSON.
        bucket: Whose policy it is: resources of others are refused.
        known: Says whether a principal exists, by kind ("account", "arn", "canonical") and name.

    Raises:
        Malformed: It is none; wording as S3's.
    """
    return _read(document, Grammar(_action, lambda text: _resource(text, bucket), known))


def read_identity(document: bytes) -> Policy:
    """Read a policy of an identity, or of a session: whom it is about is whoever has it.

    Raises:
        Malformed
    """
    return _read(document, Grammar(_any_action, _any_resource, None))


def read_trust(
    document: bytes, *, known: Callable[[str, str], bool] = lambda kind, name: True
) -> Policy:
    """Read a policy that says who may become what it belongs to: that is its only resource.

    Raises:
        Malformed
    """
    return _read(document, Grammar(_any_action, None, known))


def _read(document: bytes, grammar: Grammar) -> Policy:
    try:
        made = json.loads(document, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("Policies must be valid JSON and the first byte must be '{'") from error
    if not isinstance(made, dict):
        raise Malformed("Policies must be valid JSON and the first byte must be '{'")
    for name in made:
        if name not in _FIELDS:
            raise Malformed(f"Unknown field {name}")
    if str(made.get("Version", "2008-10-17")) not in _VERSIONS:
        raise Malformed("The policy must contain a valid version string")
    if "Id" in made and not isinstance(made["Id"], str):
        raise Malformed("Policy Id must be text")
    statements = made.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise Malformed("Missing required field Statement")
    if len(statements) > STATEMENTS_MAX:
        raise Malformed(f"More than {STATEMENTS_MAX} statements")
    sids = [one["Sid"] for one in statements if isinstance(one, dict) and one.get("Sid")]
    if len(sids) != len({str(one) for one in sids}):
        raise Malformed("Statement IDs (SID) in a single policy must be unique.")
    return Policy(tuple([_statement(one, grammar) for one in statements]))


def _statement(made: object, grammar: Grammar) -> Statement:
    if not isinstance(made, dict):
        raise Malformed("Statement must be an object")
    for name in made:
        if name not in _STATEMENT_FIELDS:
            raise Malformed(f"Unknown field {name}")
    effect = made.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise Malformed(
            "Missing required field Effect" if effect is None else f"Invalid effect: {effect}"
        )
    if "Sid" in made and not isinstance(made["Sid"], str):
        raise Malformed("Sid must be text")
    principals, not_principals = Principals(everybody=True), False
    if grammar.known is not None:
        said, not_principals = _one_of(made, "Principal", "NotPrincipal")
        if not_principals and effect == "Allow":
            raise Malformed("Allow with NotPrincipal is not allowed.")
        principals = _principals(said, grammar.known)
    elif "Principal" in made or "NotPrincipal" in made:
        raise Malformed("Policy document should not specify a principal.")
    actions, not_actions = _one_of(made, "Action", "NotAction")
    resources: tuple[str, ...] = ("*",)
    not_resources = False
    if grammar.resource is not None:
        named, not_resources = _one_of(made, "Resource", "NotResource")
        resources = tuple([grammar.resource(one) for one in _texts(named, "resource")])
    elif "Resource" in made or "NotResource" in made:
        raise Malformed("Has prohibited field Resource")
    return Statement(
        effect == "Allow",
        principals,
        not_principals,
        tuple([grammar.action(one) for one in _texts(actions, "action")]),
        not_actions,
        resources,
        not_resources,
        _conditions(made.get("Condition", {})),
    )


def _one_of(made: Mapping[str, Any], plain: str, negated: str) -> tuple[Any, bool]:
    if (plain in made) == (negated in made):
        raise Malformed(
            f"Missing required field {plain}"
            if plain not in made
            else f"Policy statement must contain either {plain} or {negated}, not both."
        )
    return made.get(plain, made.get(negated)), negated in made


def _texts(value: object, what: str) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise Malformed(f"Policy has invalid {what}")
    return found


def _action(text: str) -> str:
    if not _ACTION.match(text) or (text != "*" and not like(text.partition(":")[0].lower(), "s3")):
        raise Malformed("Policy has invalid action")
    return text.lower()


def _any_action(text: str) -> str:
    if not _ACTION.match(text):
        raise Malformed(
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
        )
    return text.lower()


def _any_resource(text: str) -> str:
    if text != "*" and not (text.startswith("arn:") and text.count(":") >= 5):
        raise Malformed(f'Resource {text} must be in ARN format or "*".')
    return text


def _resource(text: str, bucket: str) -> str:
    prefix = "arn:aws:s3:::"
    if text == "*":
        return text
    if not text.startswith(prefix):
        raise Malformed("Policy has invalid resource")
    # What comes before the first slash has to be able to name this bucket.
    if not like(text[len(prefix) :].partition("/")[0], bucket):
        raise Malformed("Policy has invalid resource")
    return text


def _principals(value: object, known: Callable[[str, str], bool]) -> Principals:
    if value == "*":
        return Principals(everybody=True)
    if not isinstance(value, dict) or not value:
        raise Malformed("Invalid principal in policy")
    everybody = False
    accounts: set[str] = set()
    arns: set[str] = set()
    canonical_ids: set[str] = set()
    others: set[str] = set()
    for kind, names in value.items():
        for name in _texts(names, "principal"):
            if kind == "AWS" and name == "*":
                everybody = True
            elif kind == "AWS":
                place, number, arn = _aws_principal(name)
                if not known(place, number or arn):
                    raise Malformed("Invalid principal in policy")
                (accounts.add(number) if place == "account" else arns.add(arn))
            elif kind == "CanonicalUser":
                if not known("canonical", name):
                    raise Malformed("Invalid principal in policy")
                canonical_ids.add(name)
            elif kind in {"Service", "Federated"}:
                others.add(name)
            else:
                raise Malformed("Invalid principal in policy")
    return Principals(
        everybody,
        frozenset(accounts),
        frozenset(arns),
        frozenset(canonical_ids),
        frozenset(others),
    )


def _aws_principal(name: str) -> tuple[str, str, str]:
    """Read an AWS principal: ("account", number, "") or ("arn", "", arn)."""
    if re.fullmatch(r"[0-9]{12}", name):
        return "account", name, ""
    match = _PRINCIPAL_ARN.match(name)
    if match is None:
        raise Malformed("Invalid principal in policy")
    if match[3] == "root":
        return "account", match[2], ""
    return "arn", "", name


def _conditions(made: object) -> tuple[Condition, ...]:
    if not isinstance(made, dict):
        raise Malformed("Conditions must be an object")
    found: list[Condition] = []
    for name, keys in made.items():
        operator = operator_named(name)
        if operator is None:
            raise Malformed(f"Invalid Condition type : {name}")
        if not isinstance(keys, dict) or not keys:
            raise Malformed(f"Invalid condition of {name}")
        for key, value in keys.items():
            if not _is_condition_key(key):
                raise Malformed("Policy has an invalid condition key")
            values = value if isinstance(value, list) else [value]
            texts = tuple([_value(one, operator) for one in values])
            found.append(Condition(operator, key.lower(), texts))
    return tuple(found)


def _value(value: object, operator: Operator) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str | int | float):
        text = str(value)
    else:
        raise Malformed("Policy has an invalid condition value")
    try:
        if "${" not in text:
            operator.check(text)
    except (ValueError, OverflowError, OSError) as error:
        raise Malformed(f"Invalid value of {operator.name}: {text}") from error
    return text


def _is_condition_key(key: str) -> bool:
    # Providers of identities have keys of their own: "accounts.example.com:aud".
    return bool(re.fullmatch(r"[A-Za-z0-9./_-]+:[^\s]{1,512}", key))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise Malformed("Duplicate keys in a policy")
    return made
