"""Rules of a volume about what goes, moves or is given up when it is old enough: data, and judgement without I/O.

A protocol writes them as the volume's document `DOCUMENT`, a service carries them out. All times are nanoseconds since 1970 unless
the name says otherwise; a day is a number of them, so that tests need not wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

DOCUMENT: Final = "lifecycle"
"""Name of the volume's document; its content is `pack`ed."""

FORMAT: Final = 1
DAY_NS: Final = 24 * 3600 * 10**9
MOVED_MIN: Final = 128 * 1024
"""Bytes of an object that moves to another class, where nobody says otherwise: below it costs more than it saves."""


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """To another storage class after so many days, or at a moment; noncurrent versions: but for the `keep` newest."""

    storage_class: str
    days: int = 0
    at_s: int | None = None
    keep: int = 0


class Rule(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What happens to objects that a filter names. Days of 0 mean that nothing is said."""

    id: str
    enabled: bool = True
    prefix: str = ""
    tags: dict[str, str] = {}
    larger_than: int | None = None
    smaller_than: int | None = None
    days: int = 0
    at_s: int | None = None
    lone_markers: bool | None = None  # delete markers that hide nothing any more go
    noncurrent_days: int = 0
    noncurrent_keep: int = 0  # the newest noncurrent versions that stay
    upload_days: int = 0
    moves: tuple[Move, ...] = ()
    noncurrent_moves: tuple[Move, ...] = ()
    written: str = ""  # how the protocol's document said the filter, for who reads it again


class Lifecycle(msgspec.Struct, frozen=True, omit_defaults=True):
    """All rules of a volume. `small` are classes that objects below MOVED_MIN move to as well."""

    rules: tuple[Rule, ...]
    small: tuple[str, ...] = ()
    format: int = FORMAT


class Due(NamedTuple):
    """When a rule has its way with an object."""

    at_ns: int
    rule: Rule


_decoder = msgspec.json.Decoder(Lifecycle)


def pack(lifecycle: Lifecycle) -> bytes:
    """Write rules as a document."""
    return msgspec.json.encode(lifecycle)


def unpack(document: bytes) -> Lifecycle:
    """Read what `pack` wrote.

    Raises:
        msgspec.DecodeError: It is damaged, or of a later format.
    """
    found = _decoder.decode(document)
    if found.format != FORMAT:
        raise msgspec.ValidationError(f"rules of format {found.format}, this reads {FORMAT}")
    return found


def applies(rule: Rule, key: str, size: int) -> bool:
    """Say whether a rule's filter names an object, its tags aside."""
    if not rule.enabled or not key.startswith(rule.prefix):
        return False
    if rule.larger_than is not None and size <= rule.larger_than:
        return False
    return rule.smaller_than is None or size < rule.smaller_than


def tagged(rule: Rule, tags: Mapping[str, str]) -> bool:
    """Say whether an object has the tags that a rule's filter names."""
    return all(tags.get(name) == value for name, value in rule.tags.items())


def after(since_ns: int, days: int, day_ns: int = DAY_NS) -> int:
    """Return when so many days are over: true days end at midnight (UTC), short ones of a test to the nanosecond."""
    end_ns = since_ns + days * day_ns
    if day_ns != DAY_NS:
        return end_ns
    return -(-end_ns // DAY_NS) * DAY_NS


def expires(rule: Rule, modified_ns: int, day_ns: int = DAY_NS) -> int | None:
    """Return when a rule expires the current version of an object, None if it does not."""
    if rule.days:
        return after(modified_ns, rule.days, day_ns)
    return rule.at_s * 10**9 if rule.at_s is not None else None


def first_expiry(
    lifecycle: Lifecycle, key: str, size: int, modified_ns: int, tags: Mapping[str, str]
) -> Due | None:
    """Return the rule that will expire a current version first."""
    found: Due | None = None
    for rule in lifecycle.rules:
        if applies(rule, key, size) and tagged(rule, tags):
            at_ns = expires(rule, modified_ns)
            if at_ns is not None and (found is None or at_ns < found.at_ns):
                found = Due(at_ns, rule)
    return found


def drops_marker(rule: Rule, modified_ns: int, now_ns: int, day_ns: int = DAY_NS) -> bool:
    """Say whether a rule removes a delete marker that is the only version of its key."""
    if rule.lone_markers:
        return True
    at_ns = expires(rule, modified_ns, day_ns)
    return at_ns is not None and at_ns <= now_ns


def drops_noncurrent(
    rule: Rule, since_ns: int, newer: int, now_ns: int, day_ns: int = DAY_NS
) -> bool:
    """Say whether a rule removes a version that is noncurrent since a moment, `newer` noncurrent ones being newer."""
    if not rule.noncurrent_days or newer < rule.noncurrent_keep:
        return False
    return after(since_ns, rule.noncurrent_days, day_ns) <= now_ns


def due_class(
    moves: Iterable[Move], since_ns: int, now_ns: int, *, newer: int = 0, day_ns: int = DAY_NS
) -> str:
    """Return the class that an object should be in by now, as the last of the moves that are due says; empty: none is."""
    found, latest_ns = "", -1
    for move in moves:
        at_ns = move.at_s * 10**9 if move.at_s is not None else after(since_ns, move.days, day_ns)
        if latest_ns < at_ns <= now_ns and newer >= move.keep:
            found, latest_ns = move.storage_class, at_ns
    return found


def may_move(lifecycle: Lifecycle, rule: Rule, storage_class: str, size: int) -> bool:
    """Say whether an object is large enough to move."""
    said = rule.larger_than is not None or rule.smaller_than is not None
    return said or size >= MOVED_MIN or storage_class in lifecycle.small
