"""Condition operators of policies: each compares a request's values of one key with those that a statement lists.

A condition block holds if all of its operators hold for all of their keys; the values that a statement lists for one key are
alternatives, except for negated operators, where none may match (IAM User Guide, "Conditions with multiple context keys or values").
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Final, NamedTuple

Compare = Callable[[str, str], bool]
"""Whether a request's value fits one that a statement lists."""

VALUE_MAX: Final = 8192
"""Characters of a value that patterns are tried on; longer ones fit none."""


class Operator(NamedTuple):
    """A condition operator: its comparison, what its values must be, and how values and absence count."""

    name: str
    compare: Compare
    check: Callable[[str], object]  # raises ValueError for what cannot be a value
    negated: bool = False
    if_exists: bool = False
    quantifier: str = ""  # "ForAnyValue", "ForAllValues"
    expands: bool = False  # policy variables in its values


def operator_named(text: str) -> Operator | None:
    """Return an operator by its name in a policy, such as `ForAnyValue:StringLikeIfExists`, or None."""
    quantifier, colon, name = text.partition(":")
    if not colon:
        quantifier, name = "", text
    elif quantifier not in {"ForAnyValue", "ForAllValues"}:
        return None
    if_exists = name.endswith("IfExists") and name != "Null"
    found = _OPERATORS.get(name.removesuffix("IfExists") if if_exists else name)
    if found is None or (found.name == "Null" and quantifier):
        return None
    return found._replace(if_exists=if_exists, quantifier=quantifier)


def holds(operator: Operator, wanted: Sequence[str], values: Sequence[str] | None) -> bool:
    """Judge one key of a condition.

    Args:
        operator: What compares.
        wanted: The statement's values, variables replaced.
        values: The request's, None if the key is absent.
    """
    if operator.name == "Null":
        return any((values is None) == (one.lower() == "true") for one in wanted)
    if values is None:
        # A negated operator holds for a key that is not there, a plain one does not.
        return operator.if_exists or operator.negated or operator.quantifier == "ForAllValues"
    fits = operator.compare
    if operator.quantifier == "ForAllValues":
        judged = (_fits_one(fits, wanted, value) != operator.negated for value in values)
        return all(judged)
    if operator.quantifier == "ForAnyValue" or not operator.negated:
        return any(_fits_one(fits, wanted, value) != operator.negated for value in values)
    return not any(_fits_one(fits, wanted, value) for value in values)


def like(pattern: str, text: str) -> bool:
    """Match `*` (anything, also nothing) and `?` (one character) in time that grows with the product of both lengths."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == text
    if len(text) > VALUE_MAX:
        return False
    at = here = 0
    star, after = -1, 0
    while at < len(text):
        if here < len(pattern) and pattern[here] == "*":
            star, after = here, at
            here += 1
        elif here < len(pattern) and pattern[here] in ("?", text[at]):
            here += 1
            at += 1
        elif star >= 0:
            here = star + 1
            after += 1
            at = after
        else:
            return False
    return not pattern[here:].strip("*")


def arn_like(pattern: str, text: str) -> bool:
    """Match ARNs part by part: a wildcard does not reach beyond a colon, but in the last of the six parts."""
    wanted, given = pattern.split(":", 5), text.split(":", 5)
    return len(wanted) == len(given) and all(map(like, wanted, given))


def _fits_one(fits: Compare, wanted: Sequence[str], value: str) -> bool:
    for one in wanted:
        try:
            if fits(one, value):
                return True
        except ValueError:
            continue  # a request's value that is no number, date or address fits nothing
    return False


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?", text):
        raise ValueError(f'"{text}" is no number')
    return float(text)


@lru_cache(maxsize=1024)
def _date(text: str) -> datetime:
    if re.fullmatch(r"[0-9]{1,11}", text):
        return datetime.fromtimestamp(int(text), UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _bool(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(f'"{text}" is neither true nor false')
    return text.lower() == "true"


@lru_cache(maxsize=1024)
def _network(text: str) -> object:
    return ip_network(text, strict=False)


def _in_network(wanted: str, value: str) -> bool:
    address = ip_address(value.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in ip_network(wanted, strict=False)


def _binary(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except Base64Error as error:
        raise ValueError(str(error)) from error


def _arn(text: str) -> None:
    if text != "*" and text.count(":") < 5:
        raise ValueError(f'"{text}" is no ARN')


def _text(text: str) -> None:
    pass


def _twins() -> dict[str, Operator]:
    """Build the operators: most have a negated twin."""
    found: list[Operator] = []

    def add(name: str, negated: str, compare: Compare, check: Callable[[str], object]) -> None:
        expands = check in (_text, _arn)
        found.append(Operator(name, compare, check, expands=expands))
        if negated:
            found.append(Operator(negated, compare, check, negated=True, expands=expands))

    add("StringEquals", "StringNotEquals", lambda want, value: want == value, _text)
    add(
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        lambda want, value: want.lower() == value.lower(),
        _text,
    )
    add("StringLike", "StringNotLike", like, _text)
    # ArnEquals and ArnLike are the same (IAM reference, "Amazon Resource Name condition operators").
    add("ArnEquals", "ArnNotEquals", arn_like, _arn)
    add("ArnLike", "ArnNotLike", arn_like, _arn)
    for kind, read in (("Numeric", _number), ("Date", _date)):
        _add_ordered(add, kind, read)
    add("Bool", "", lambda want, value: _bool(want) == _bool(value), _bool)
    add("IpAddress", "NotIpAddress", _in_network, _network)
    add("BinaryEquals", "", lambda want, value: _binary(want) == _binary(value), _binary)
    add("Null", "", lambda want, value: False, _bool)
    return {each.name: each for each in found}


def _add_ordered(
    add: Callable[[str, str, Compare, Callable[[str], object]], None],
    kind: str,
    read: Callable[[str], "float | datetime"],
) -> None:
    add(f"{kind}Equals", f"{kind}NotEquals", lambda want, value: read(value) == read(want), read)
    add(f"{kind}LessThan", "", lambda want, value: read(value) < read(want), read)  # type: ignore[operator]
    add(f"{kind}LessThanEquals", "", lambda want, value: read(value) <= read(want), read)  # type: ignore[operator]
    add(f"{kind}GreaterThan", "", lambda want, value: read(value) > read(want), read)  # type: ignore[operator]
    add(f"{kind}GreaterThanEquals", "", lambda want, value: read(value) >= read(want), read)  # type: ignore[operator]


_OPERATORS: Final[Mapping[str, Operator]] = MappingProxyType(_twins())
