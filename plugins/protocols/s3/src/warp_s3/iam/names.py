"""Names, paths, ids and ARNs: how things of an account are called.

Source: "IAM identifiers" and "IAM and AWS STS quotas" in the IAM user guide.
"""

import re
import secrets
from base64 import b32encode
from typing import Final, NamedTuple

from warp_s3.iam.entities import Group, Managed, Own, Provider, Role, User
from warp_s3.iam.errors import QueryError

USER_MAX: Final = 64
GROUP_MAX: Final = 128
ROLE_MAX: Final = 64
POLICY_MAX: Final = 128

TEMPORARY: Final = "WTMP"
"""What access keys of sessions begin with."""

_NAME: Final = re.compile(r"[\w+=,.@-]+", re.ASCII)
_PATH: Final = re.compile(r"/(?:[\x21-\x7e]*/)?")
_ARN: Final = re.compile(r"arn:aws:(iam|sts)::([0-9]{12}|aws|):([a-z-]+)(/.*)?", re.DOTALL)


class Arn(NamedTuple):
    """An ARN of the services `iam` and `sts`, taken apart."""

    service: str
    number: str  # of the account; "aws" for policies that are always there
    kind: str  # "user", "role", "policy", "oidc-provider", "assumed-role", "root"
    path: str  # "/" or "/team/"
    name: str


def name(form_value: str, what: str, most: int) -> str:
    """Check a name.

    Raises:
        QueryError: `ValidationError`.
    """
    if len(form_value) > most or not _NAME.fullmatch(form_value):
        raise QueryError(
            "ValidationError",
            f"The specified value for {what} is invalid. It must contain only alphanumeric characters "
            f"and/or the following: +=,.@_- and be 1 to {most} characters long",
        )
    return form_value


def path(form_value: str, what: str = "path") -> str:
    """Check a path.

    Raises:
        QueryError: `ValidationError`.
    """
    if len(form_value) > 512 or not _PATH.fullmatch(form_value):
        raise QueryError(
            "ValidationError",
            f"The specified value for {what} is invalid. It must begin and end with / and contain only "
            "alphanumeric characters and/or / characters.",
        )
    return form_value


def new_id(prefix: str) -> str:
    """Return an id that is nobody else's: 16 random characters behind four that say what it is."""
    return prefix + b32encode(secrets.token_bytes(11)).decode()[:17]


def new_access_key(prefix: str) -> str:
    """Return an access key: 20 characters."""
    return prefix + b32encode(secrets.token_bytes(10)).decode()


def new_secret() -> str:
    """Return a secret of 40 characters."""
    return secrets.token_urlsafe(30)


def read_arn(text: str) -> Arn:
    """Take an ARN apart.

    Raises:
        QueryError: `ValidationError`.
    """
    match = _ARN.fullmatch(text)
    if match is None or len(text) > 2048:
        raise QueryError("ValidationError", f"ARN {text[:128]} is not valid.")
    inner = match[4] or ""
    if match[3] in {"oidc-provider", "assumed-role"}:
        return Arn(match[1], match[2], match[3], "/", inner[1:])
    directory, _, last = inner.rpartition("/")
    return Arn(match[1], match[2], match[3], directory + "/", last)


def arn_of(entity: User | Group | Role | Managed | Provider | Own, number: str) -> str:
    """Return the ARN of what an account with a number has."""
    if isinstance(entity, Own):
        return f"arn:aws:iam::{number}:root"
    if isinstance(entity, Provider):
        return f"arn:aws:iam::{number}:oidc-provider/{entity.name}"
    kind = {User: "user", Group: "group", Role: "role", Managed: "policy"}[type(entity)]
    return f"arn:aws:iam::{number}:{kind}{entity.path}{entity.name}"
