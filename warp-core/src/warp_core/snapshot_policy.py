"""Which snapshots of a volume are made by themselves, and which of those have had their time: data, and judgement without I/O.

A command writes a volume's policy as its document `DOCUMENT`, a service carries it out. Time is cut into periods of UTC: hours, days,
weeks from Monday on, months. The first look in a period makes one snapshot for all kinds that have none in theirs, so after a stop
of weeks there is one more and not hundreds. A kind keeps its newest ones; a snapshot goes when no kind keeps it.

```
 hourly 3, daily 2      22:00    23:00    00:00    01:00    02:00
 kinds                  h        h        h+d      h        h
 at 02:30                                 ▲ kept   ▲        ▲      22:00 and 23:00 are gone; 00:00 stays as a daily one
```
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from warp_core.errors import InvalidArgument

DOCUMENT: Final = "snapshots"
"""Name of the volume's document; its content is `pack`ed."""

FORMAT: Final = 1
HOUR_NS: Final = 3600 * 10**9
KEEP_MAX: Final = 1000  # of one kind: all four together stay below what a volume may have
PREFIX: Final = "auto-"

Kind = Literal["hourly", "daily", "weekly", "monthly"]
KINDS: Final[tuple[Kind, ...]] = ("hourly", "daily", "weekly", "monthly")
_HOURS: Final[Mapping[str, int]] = {"hourly": 1, "daily": 24, "weekly": 168, "monthly": 720}


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How many of each kind a volume keeps; 0: none are made, and those that there are go."""

    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    declared: bool = False  # by the configuration, which alone changes it
    format: int = FORMAT

    def keeps(self, kind: Kind) -> int:
        """Return how many of a kind stay."""
        found: int = getattr(self, kind)
        return found


class Taken(Protocol):
    """A snapshot, as far as a policy looks at it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def created_ns(self) -> int:
        """When it was made."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """For which kinds a policy made it; none: somebody did, and it stays."""


def check(policy: Policy) -> None:
    """Check that a policy can be kept.

    Raises:
        InvalidArgument: A number is out of range, or all are 0.
    """
    for kind in KINDS:
        if not 0 <= policy.keeps(kind) <= KEEP_MAX:
            raise InvalidArgument(f"{kind} = {policy.keeps(kind)}: allowed: 0 to {KEEP_MAX}")
    if not any(policy.keeps(kind) for kind in KINDS):
        raise InvalidArgument(f"a policy keeps something: allowed: {', '.join(KINDS)}")


def pack(policy: Policy) -> bytes:
    """Return the document's content."""
    return msgspec.json.encode(policy)


def unpack(content: bytes) -> Policy:
    """Return the policy that a document holds.

    Raises:
        msgspec.DecodeError: It is damaged.
    """
    return msgspec.json.decode(content, type=Policy)


def period(kind: Kind, at_ns: int, hour_ns: int = HOUR_NS) -> int:
    """Return the number of the period that a moment lies in; later ones have greater numbers.

    Hours that are shorter than an hour count from 1970, 24 of them are a day, and 30 such days a month.
    """
    hour = at_ns // hour_ns
    if kind == "hourly":
        return hour
    day = hour // 24
    if kind == "daily":
        return day
    if kind == "weekly":
        return (day + 3) // 7  # 1970 began on a Thursday
    if hour_ns != HOUR_NS:
        return day // 30
    then = time.gmtime(at_ns // 10**9)
    return then.tm_year * 12 + then.tm_mon


def due(
    policy: Policy, last: Mapping[str, int], now_ns: int, hour_ns: int = HOUR_NS
) -> tuple[Kind, ...]:
    """Return the kinds that want a snapshot now; `last` says when the newest of each was made.

    A clock that was set back is waited for, up to one period.
    """
    found: list[Kind] = []
    for kind in KINDS:
        if not policy.keeps(kind):
            continue
        then = last.get(kind)
        set_back = then is not None and then - now_ns > _HOURS[kind] * hour_ns
        if then is None or set_back or period(kind, now_ns, hour_ns) > period(kind, then, hour_ns):
            found.append(kind)
    return tuple(found)


def newest(snapshots: Iterable[Taken]) -> dict[str, int]:
    """Return when the newest snapshot of each kind was made; they come oldest first."""
    return {kind: each.created_ns for each in snapshots for kind in each.kinds}


def surplus(policy: Policy, snapshots: Sequence[Taken]) -> list[str]:
    """Return the names of those that no kind keeps, oldest first, of snapshots that come oldest first."""
    kept: set[str] = set()
    for kind in KINDS:
        count = policy.keeps(kind)
        of_kind = [each.name for each in snapshots if kind in each.kinds]
        kept.update(of_kind[max(0, len(of_kind) - count) :])
    return [each.name for each in snapshots if each.kinds and each.name not in kept]


def name_at(now_ns: int) -> str:
    """Return the name of a snapshot that a policy makes: UTC, so that names sort by age."""
    return PREFIX + time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_ns // 10**9))
