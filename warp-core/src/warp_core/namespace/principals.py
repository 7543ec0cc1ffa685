"""One identity for all protocols: who a Principal is where numbers are needed, and the other way round.

Names say what they are: `unix:1000`, `unix-group:100`, `sid:S-1-5-…`, `account:NAME`. A principal with a `unix:` name or alias has
that number; any other gets one from the upper half of the range, made of its name, so that it is the same on every node and never
that of a real user. Unmapped numbers are kept as they are: uid 4711 is `unix:4711`, whether or not anybody knows it.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

from warp_core.interfaces.auth import ANONYMOUS, Principal
from warp_core.views.files import Caller

NOBODY: Final = 65534
MADE_FROM: Final = 1 << 31  # made numbers begin here; Linux has uids up to 2^32 - 2
_MADE_SPAN: Final = (1 << 31) - 2


def caller_of(principal: Principal, *, gid: int | None = None) -> Caller:
    """Return the numbers that a principal acts with; `gid` is its primary group where the protocol says one."""
    if principal.name == ANONYMOUS.name:
        return Caller(uid=NOBODY, gid=NOBODY, name=principal.name)
    uid = uid_of(principal)
    groups = frozenset(number_of(group, "unix-group:") for group in principal.groups)
    primary = gid if gid is not None else min(groups, default=uid)
    superuser = principal.admin or uid == 0
    return Caller(uid=uid, gid=primary, groups=groups, name=principal.name, superuser=superuser)


def uid_of(principal: Principal) -> int:
    """Return a principal's user number."""
    for name in (principal.name, *sorted(principal.aliases)):
        number = _after(name, "unix:")
        if number is not None:
            return number
    return made(principal.name)


def uid_of_name(name: str) -> int:
    """Return the user number of a principal of which only the name is known."""
    return number_of(name, "unix:")


def number_of(name: str, prefix: str) -> int:
    """Return the number in a name such as `unix-group:100`, or one made of it."""
    number = _after(name, prefix)
    return made(name) if number is None else number


def name_of(uid: int) -> str:
    """Return the principal name of an unmapped user number."""
    return f"unix:{uid}"


def made(name: str) -> int:
    """Return the number of a name that has none."""
    return MADE_FROM + xxh3_64_intdigest(name.encode()) % _MADE_SPAN


def _after(name: str, prefix: str) -> int | None:
    rest = name.removeprefix(prefix)
    if rest == name or not rest.isascii() or not rest.isdecimal():
        return None
    number = int(rest)
    return number if number < (1 << 32) - 1 else None
