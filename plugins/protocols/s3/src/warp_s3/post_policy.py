"""Policies of forms: what somebody signed that others may post. Pure.

Source: "Creating a POST policy" in the Amazon S3 API reference.
"""

import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from warp_s3.errors import S3Error

CONDITIONS_MAX: Final = 256
"""Conditions of a policy: more than fit a form's fields."""

SIZE_MAX: Final = 2**63
"""Bound of what content-length-range may say."""

# Fields that a policy need not mention.
_FREE: Final = frozenset({"policy", "signature", "awsaccesskeyid", "x-amz-signature", "file"})
# Nor these: a checksum gives nobody more, it only refuses a file that was damaged on its way.
_FREE_PREFIXES: Final = ("x-ignore-", "x-amz-checksum-")

# A dollar and a vertical tab are written as JSON does not know them.
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"$": "$", "v": "\\u000b"}


def check(document: str, fields: Mapping[str, str], bucket: str, *, now: float) -> tuple[int, int]:
    """Check a form's fields against a policy.

    Args:
        document: The policy as the form carries it, base64.
        fields: The form's, names in lower case; `${filename}` is replaced in its key.
        bucket: Where it was posted to.
        now: Seconds since the epoch.

    Returns:
        The smallest and the largest size that the file may have.

    Raises:
        S3Error: `InvalidPolicyDocument` for what is none, `AccessDenied` for what does not fit.
    """
    policy = _decoded(document)
    if _time(policy.get("expiration")) <= now:
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    conditions = policy.get("conditions")
    if not isinstance(conditions, list) or not conditions:
        raise _invalid("Invalid Policy: Policy missing conditions.")
    if len(conditions) > CONDITIONS_MAX:
        raise _invalid(f"Invalid Policy: more than {CONDITIONS_MAX} conditions.")
    values = {**fields, "bucket": bucket}
    named: set[str] = set()
    low, high = 0, SIZE_MAX
    for condition in conditions:
        if isinstance(condition, list) and _operator(condition) == "content-length-range":
            low, high = _range(condition)
            continue
        for operator, name, wanted in _simple(condition):
            named.add(name)
            if not _fits(operator, wanted, values.get(name), name):
                shown = json.dumps([operator, f"${name}", wanted])
                raise S3Error(
                    "AccessDenied", f"Invalid according to Policy: Policy Condition failed: {shown}"
                )
    for name in fields:
        if name not in named and name not in _FREE and not name.startswith(_FREE_PREFIXES):
            raise S3Error(
                "AccessDenied", f"Invalid according to Policy: Extra input fields: {name}"
            )
    return low, high


def _decoded(document: str) -> dict[str, Any]:
    try:
        text = b64decode("".join(document.split()), validate=True).decode("utf-8")
        policy = json.loads(_ESCAPE.sub(_unescape, text))
    except (Base64Error, ValueError, RecursionError) as error:
        raise _invalid("Invalid Policy: Invalid JSON.") from error
    if not isinstance(policy, dict):
        raise _invalid("Invalid Policy: Invalid JSON.")
    for name in policy:
        if name not in {"expiration", "conditions"}:
            raise _invalid(f"Invalid Policy: Unexpected: '{name}'.")
    return policy


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])


def _time(text: object) -> float:
    if not isinstance(text, str):
        raise _invalid("Invalid Policy: Policy missing expiration.")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or "T" not in text:
            raise ValueError(text)
        return moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise _invalid(f"Invalid Policy: Invalid 'expiration' value: '{text}'.") from error


def _operator(condition: list[Any]) -> str:
    return condition[0].lower() if condition and isinstance(condition[0], str) else ""


def _range(condition: list[Any]) -> tuple[int, int]:
    try:
        _, low, high = [condition[0], *(int(one) for one in condition[1:])]
    except (ValueError, TypeError, OverflowError) as error:
        raise _invalid("Invalid Policy: Invalid content-length-range.") from error
    if not 0 <= low <= high <= SIZE_MAX:
        raise _invalid("Invalid Policy: Invalid content-length-range.")
    return low, high


def _simple(condition: object) -> list[tuple[str, str, str]]:
    """Read a condition as (operator, name, value), several where it is an object of several keys."""
    if isinstance(condition, dict) and condition:
        found = [("eq", name, value) for name, value in condition.items()]
    elif isinstance(condition, list) and len(condition) == 3:
        operator, name, value = _operator(condition), condition[1], condition[2]
        if operator not in {"eq", "starts-with"} or not isinstance(name, str) or name[:1] != "$":
            raise _invalid("Invalid Policy: Invalid condition.")
        found = [(operator, name[1:], value)]
    else:
        raise _invalid("Invalid Policy: Invalid condition.")
    if not all(isinstance(value, str) for _, _, value in found):
        raise _invalid("Invalid Policy: Invalid Simple-Condition: value must be a string.")
    return [(operator, name.lower(), value) for operator, name, value in found]


def _fits(operator: str, wanted: str, value: str | None, name: str) -> bool:
    if value is None:
        return operator == "starts-with" and not wanted  # any value will do, and none as well
    if operator == "eq":
        return value == wanted
    if name == "content-type":  # a list of types has to fit as a whole
        return all(one.strip().startswith(wanted) for one in value.split(","))
    return value.startswith(wanted)


def _invalid(message: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", message)
