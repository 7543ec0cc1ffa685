"""Commits that wait, judged in their order against what is known and put into one batch: pure, without waiting.

A batch is one etcd transaction, so it has one moment for readers; its commits have versions of their own, in order. Later commits are
judged as if the earlier ones were there already. Counters that several of them merge are written once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from warp_core.errors import Conflict, WarpError
from warp_core.interfaces.consistency import Commit, KeyCheck
from warp_core.metadata.counters import merged

from warp_etcd.layout import Noted
from warp_etcd.past import Past, Verdict


@dataclass(slots=True, eq=False)
class Pending:
    """A commit that waits. `request_id` is its own, or one made up to recognize it by."""

    commit: Commit
    request_id: bytes
    size: int  # bytes of keys and values
    asked: int  # calls of etcd that had begun when it came
    deadline_s: float
    done: asyncio.Future[int]
    sent: bool = False  # whether it may have been applied


@dataclass(slots=True)
class Room:
    """What fits into one batch."""

    operations: int
    size: int


@dataclass(slots=True)
class Plan:
    """What to do with the commits that wait."""

    rows: dict[bytes, tuple[int, bytes | None]] = field(
        default_factory=dict
    )  # key → version, value
    counters: dict[bytes, bytes] = field(default_factory=dict)  # those of `rows` that are merges
    commits: list[Noted] = field(default_factory=list)
    members: list[tuple[Pending, int]] = field(
        default_factory=list
    )  # with the version that each gets
    known: list[tuple[Pending, int]] = field(default_factory=list)  # applied before
    refused: list[tuple[Pending, WarpError]] = field(default_factory=list)
    doubted: list[tuple[Pending, WarpError]] = field(
        default_factory=list
    )  # refused unless others changed something
    wanted: dict[bytes, bool] = field(default_factory=dict)  # rows to read first → for a merge
    size: int = 0

    @property
    def last(self) -> int:
        """The newest version of the batch."""
        return self.commits[-1].version


def plan(past: Past, waiting: Sequence[Pending], room: Room) -> Plan:
    """Judge commits in order, as many as fit into a batch; rows are given by their keys in WARP."""
    made = Plan()
    ids: dict[bytes, int] = {}
    for pending in waiting:
        if pending.done.done():
            continue
        applied = past.requests.get(pending.request_id)
        if applied is not None:
            made.known.append((pending, applied))
        elif pending.request_id in ids:
            made.members.append((pending, ids[pending.request_id]))
        elif not _fits(made, pending, room):
            break
        elif (version := _add(made, past, pending)) is not None:
            ids[pending.request_id] = version
    return made


def _fits(made: Plan, pending: Pending, room: Room) -> bool:
    if not made.commits:
        return True  # core's limits are below etcd's
    commit = pending.commit
    rows = len(commit.writes) + len(commit.merges) + len(commit.stamps)
    if len(made.rows) + rows > room.operations or made.size + pending.size > room.size:
        return False
    # A row that is set twice would show only once to those who watch.
    return not any(write.key in made.rows for write in commit.writes) and not any(
        merge.key in made.rows and merge.key not in made.counters for merge in commit.merges
    )


def _add(made: Plan, past: Past, pending: Pending) -> int | None:
    """Add a commit to the batch and return its version, or None if it is refused or a row has to be read first."""
    commit = pending.commit
    verdict, why = _judge(made, past, commit)
    if verdict is Verdict.FAILS:
        made.refused.append((pending, Conflict(why)))
    elif verdict is Verdict.STALE:
        made.doubted.append((pending, Conflict(why)))
    values = _merge(made, past, pending)
    if verdict is not Verdict.HOLDS or values is None:
        return None
    version = past.version + len(made.commits) + 1
    for key, value in commit.writes:
        made.rows[key] = (version, value)
    for key, value in values.items():
        made.rows[key] = (version, value)
    made.counters.update(values)
    written = [write.key for write in commit.writes if write.value is not None] + list(values)
    for prefix, suffix, value, descending in commit.stamps:
        number = 2**64 - 1 - version if descending else version
        key = prefix + number.to_bytes(8, "big") + suffix
        made.rows[key] = (version, value)
        written.append(key)
    deleted = tuple(write.key for write in commit.writes if write.value is None)
    made.commits.append(Noted(version, pending.request_id, tuple(written), deleted))
    made.members.append((pending, version))
    made.size += pending.size
    return version


def _merge(made: Plan, past: Past, pending: Pending) -> dict[bytes, bytes] | None:
    """Return the counters that a commit merges as they will be, or None if that is refused or something has to be read first."""
    values = {}
    for merge in pending.commit.merges:
        ours = merge.key in made.counters
        try:
            value = made.counters[merge.key] if ours else past.counter(merge.key)
        except KeyError:
            made.wanted[merge.key] = True
            return None
        try:
            values[merge.key] = merged(value, merge)
        except WarpError as error:
            if not ours:
                made.doubted.append((pending, error))
            return None
    return values


def _judge(made: Plan, past: Past, commit: Commit) -> tuple[Verdict, str]:
    """Judge all checks; the worst of the verdicts decides, and is told why."""
    worst, why = Verdict.HOLDS, ""
    for check in commit.checks:
        if isinstance(check, KeyCheck):
            row = made.rows.get(check.key)
            if row is None:
                verdict = past.judge(check)
            else:
                holds = check.version == 0 and row[1] is None
                verdict = Verdict.HOLDS if holds else Verdict.LATER
            if verdict is Verdict.UNKNOWN:
                made.wanted.setdefault(check.key, False)
        elif any(check.start <= key < check.end for key in made.rows):
            verdict = Verdict.LATER
        else:
            verdict = past.judge(check)
        if _weight(verdict) > _weight(worst):
            worst = verdict
            why = _reason(check)
    return worst, why


def _weight(verdict: Verdict) -> int:
    return _WEIGHTS[verdict]


_WEIGHTS = {
    Verdict.HOLDS: 0,
    Verdict.UNKNOWN: 1,
    Verdict.STALE: 2,
    Verdict.LATER: 3,
    Verdict.FAILS: 4,
}


def _reason(check: object) -> str:
    if isinstance(check, KeyCheck):
        if check.version == 0:
            return f"row {check.key!r} exists"
        return f"row {check.key!r} changed since version {check.version}"
    return f"{check} does not hold"
