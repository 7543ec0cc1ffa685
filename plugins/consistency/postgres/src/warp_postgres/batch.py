"""Judging many commits against what the server answered, and what applying them writes: pure, without a server.

```
 commits ──► questions() ──► the server's answer ──► judge() ──► outcomes, one for each commit
                                                            └──► columns for the one statement that applies them
```

Commits of one batch are judged in order, each as if those before it were applied. A row that several of them change gets a version
from each: all but the last go into `past`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from struct import Struct

from warp_core.errors import Conflict, WarpError
from warp_core.interfaces.consistency import Commit, KeyCheck
from warp_core.metadata.counters import merged

VERSION_MAX = 2**63 - 1  # of a bigint
_STAMP = Struct(">Q")
_ALL_ONES = 2**64 - 1

Outcome = int | WarpError


@dataclass(slots=True)
class Questions:
    """What has to be known to judge a batch: the arguments of the statement `judge`."""

    checked: list[bytes] = field(default_factory=list)
    merged: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    starts: list[bytes] = field(default_factory=list)
    ends: list[bytes] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def arguments(
        self,
    ) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes], list[bytes], list[int]]:
        """Return the arguments in the statement's order."""
        return self.checked, self.merged, self.requests, self.starts, self.ends, self.seen


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, all of one moment."""

    head: int
    versions: dict[bytes, int]  # of the checked rows that exist
    values: dict[bytes, tuple[int, bytes]]  # of the merged rows that exist
    requests: dict[bytes, int]
    changed: frozenset[int]  # which of the ranges changed since they were seen, counted from 0


@dataclass(slots=True)
class Plan:
    """What became of each commit, and the columns that apply those that succeeded."""

    head: int
    outcomes: list[Outcome] = field(default_factory=list)
    version: int = 0  # of the newest commit
    changed: list[bytes] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # versions that replace what is in `rows` now
    between: tuple[list[int], list[bytes], list[int | None], list[bytes | None]] = field(
        default_factory=lambda: ([], [], [], [])
    )
    put: tuple[list[bytes], list[int], list[bytes]] = field(default_factory=lambda: ([], [], []))
    gone: list[bytes] = field(default_factory=list)
    made: tuple[list[int], list[bytes]] = field(default_factory=lambda: ([], []))

    def arguments(self) -> tuple[object, ...]:
        """Return the arguments of the statement `apply`."""
        return (
            self.head, self.version, self.changed, self.first, *self.between, *self.put, self.gone, *self.made,
        )  # fmt: skip


def questions(commits: Iterable[Commit]) -> Questions:
    """Collect what has to be known to judge commits."""
    asked = Questions()
    checked: dict[bytes, None] = {}
    merging: dict[bytes, None] = {}
    for commit in commits:
        for check in commit.checks:
            if isinstance(check, KeyCheck):
                checked[check.key] = None
            else:
                asked.starts.append(check.start)
                asked.ends.append(check.end)
                asked.seen.append(min(check.version, VERSION_MAX))
        for merge in commit.merges:
            merging[merge.key] = None
        asked.requests.append(commit.request_id)
    asked.checked = list(checked)
    asked.merged = list(merging)
    return asked


def answer(rows: Sequence[tuple[int, bytes, int, bytes]]) -> Answer:
    """Sort what the statement `judge` returned."""
    head = 0
    versions: dict[bytes, int] = {}
    values: dict[bytes, tuple[int, bytes]] = {}
    requests: dict[bytes, int] = {}
    changed: set[int] = set()
    for kind, key, version, value in rows:
        if kind == 0:
            head = version
        elif kind == 1:
            versions[key] = version
        elif kind == 2:
            values[key] = (version, value)
        elif kind == 3:
            requests[key] = version
        else:
            changed.add(version - 1)
    return Answer(head, versions, values, requests, frozenset(changed))


def judge(commits: Sequence[Commit], known: Answer) -> Plan:
    """Judge commits, each with a request id, in order."""
    plan = Plan(known.head, version=known.head)
    chains: dict[bytes, list[tuple[int, bytes | None]]] = {}
    here: dict[bytes, int] = {}  # requests of this batch
    ranges = 0
    for commit in commits:
        first_range = ranges
        ranges += sum(not isinstance(check, KeyCheck) for check in commit.checks)
        request = commit.request_id
        earlier = known.requests.get(request) or here.get(request)
        if earlier:
            plan.outcomes.append(earlier)
            continue
        version = plan.version + 1
        try:
            _check(commit, known, chains, first_range)
            changes = _changes(commit, known, chains, version)
        except WarpError as error:
            plan.outcomes.append(error)
            continue
        for key, value in changes:
            chains.setdefault(key, []).append((version, value))
        plan.version = here[request] = version
        plan.outcomes.append(version)
        plan.made[0].append(version)
        plan.made[1].append(request)
    _fill(plan, chains)
    return plan


def _check(
    commit: Commit, known: Answer, chains: dict[bytes, list[tuple[int, bytes | None]]], ranges: int
) -> None:
    for check in commit.checks:
        if isinstance(check, KeyCheck):
            key, seen = check
            chain = chains.get(key)
            if chain is not None:
                last = chain[-1][0] if chain[-1][1] is not None else 0
            else:
                last = known.versions.get(key, 0)
            # A row that was seen and is absent was deleted since.
            if last > seen or (seen and not last):
                raise Conflict(f"row {key!r} changed in version {last}, after {seen}")
        else:
            changed = ranges in known.changed
            ranges += 1
            start, end, _ = check
            if changed or any(start <= key < end for key in chains):
                raise Conflict(f"range {start!r} to {end!r} changed after version {check.version}")


def _changes(
    commit: Commit,
    known: Answer,
    chains: dict[bytes, list[tuple[int, bytes | None]]],
    version: int,
) -> list[tuple[bytes, bytes | None]]:
    changes: list[tuple[bytes, bytes | None]] = list(commit.writes)
    for merge in commit.merges:
        chain = chains.get(merge.key)
        if chain is not None:
            value = chain[-1][1]
        else:
            row = known.values.get(merge.key)
            value = row[1] if row else None
        changes.append((merge.key, merged(value, merge)))
    for prefix, suffix, content, descending in commit.stamps:
        stamp = _STAMP.pack(_ALL_ONES - version if descending else version)
        changes.append((prefix + stamp + suffix, content))
    return changes


def _fill(plan: Plan, chains: dict[bytes, list[tuple[int, bytes | None]]]) -> None:
    """Turn chains into columns. They are sorted by key, so that index pages are visited in order."""
    versions, keys, was_versions, was_values = plan.between
    for key in sorted(chains):
        chain = chains[key]
        plan.changed.append(key)
        plan.first.append(chain[0][0])
        for (was_version, was_value), (version, _) in itertools.pairwise(chain):
            versions.append(version)
            keys.append(key)
            was_versions.append(None if was_value is None else was_version)
            was_values.append(was_value)
        last, value = chain[-1]
        if value is None:
            plan.gone.append(key)
        else:
            plan.put[0].append(key)
            plan.put[1].append(last)
            plan.put[2].append(value)
