"""What this node knows of the store's log, so that checks are judged in memory.

etcd compares rows, but its range compare does not see deletes, and nothing in etcd can put a commit's version into a key.
Therefore commits form one log: a batch is applied only if the head is as this node knows it, so that everything that was
changed before is known too. A batch that loses gets the entries that it missed in the same answer, and is judged anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

from warp_core.interfaces.consistency import KeyCheck, RangeCheck

from warp_etcd.layout import Entry, Noted

SEEN_MAX = 32_768  # versions of rows read lately: a transaction checks what it read moments ago
COUNTERS_MAX = (
    8_192  # counters that merges of this node change: a few for each volume and directory in use
)


class Verdict(Enum):
    """What is known of a check."""

    HOLDS = "holds"
    FAILS = "fails"  # and always will
    STALE = "stale"  # fails by what is known; another node may have changed it since
    UNKNOWN = "unknown"  # the row has to be read
    LATER = "later"  # it depends on a commit that is not applied yet


class Past:
    """The log from `since` to `version`, and versions and values of rows known as of `version`.

    `guard` is the revision at which etcd's head was written, 0 before the first commit ever.
    """

    def __init__(self) -> None:
        self.version = 0
        self.guard = 0
        self.since = 0
        self.entries: deque[tuple[float, int, tuple[Noted, ...]]] = (
            deque()
        )  # learned at, version before, commits
        self.requests: dict[bytes, int] = {}
        self._changed: dict[bytes, tuple[int, bool]] = {}  # version, whether the row is there
        self._seen: dict[bytes, int] = {}  # 0: absent
        self._counters: dict[bytes, bytes | None] = {}

    def begin(self, version: int, guard: int) -> None:
        """Forget everything: only the head is known, of whatever happened before nothing."""
        self.version, self.guard, self.since = version, guard, version
        self.entries.clear()
        for known in (self.requests, self._changed, self._seen, self._counters):
            known.clear()

    def begin_before(self, since: int) -> None:
        """Say that the log is known from an earlier version on: its entries follow."""
        self.since = self.version = since

    def learn(self, entry: Entry, guard: int, now: float) -> bool:
        """Note a batch of another, or an own one whose answer was lost; return False if there is a hole before it."""
        last = entry.commits[-1].version
        if last <= self.version:
            return True
        if entry.before != self.version:
            return False
        self._note(entry.commits, guard, now)
        return True

    def applied(
        self, commits: tuple[Noted, ...], guard: int, now: float, counters: dict[bytes, bytes]
    ) -> None:
        """Note a batch of this node, and what its merges made of counters."""
        self._note(commits, guard, now)
        for key, value in counters.items():
            self._keep_counter(key, value)

    def _note(self, commits: tuple[Noted, ...], guard: int, now: float) -> None:
        self.entries.append((now, self.version, commits))
        for version, request_id, written, deleted in map(_fields, commits):
            self.requests[request_id] = version
            for keys, there in ((written, True), (deleted, False)):
                for key in keys:
                    self._changed[key] = (version, there)
                    self._seen.pop(key, None)
                    self._counters.pop(key, None)
        self.version = commits[-1].version
        self.guard = guard

    def cut(self, before_s: float, entries_max: int, least: int) -> int:
        """Return the version up to which the log may be dropped, 0 if that is less than `least` entries.

        What was learned before a time is not needed any more, and what is beyond a count is too much.
        """
        found = last = 0
        over = len(self.entries) - entries_max
        for learned_s, _, commits in self.entries:
            if learned_s >= before_s and found >= over:
                break
            found += 1
            last = commits[-1].version
        return last if found >= least else 0

    def forget(self, cut: int) -> None:
        """Drop entries up to a version."""
        while self.entries and self.entries[0][2][-1].version <= cut:
            _, _, commits = self.entries.popleft()
            for version, request_id, written, deleted in map(_fields, commits):
                if self.requests.get(request_id) == version:
                    del self.requests[request_id]
                for key in (*written, *deleted):
                    changed, there = self._changed.get(key, (0, False))
                    if changed == version:
                        del self._changed[key]
                        self._remember(key, version if there else 0)
            self.since = commits[-1].version

    # What was read ---------------------------------------------------------------------------------

    def saw(self, key: bytes, version: int, moment: int) -> None:
        """Note a row's version (0: absent) that a view of `moment` showed."""
        if self.since <= moment <= self.version and key not in self._changed:
            self._remember(key, version)

    def saw_counter(self, key: bytes, value: bytes | None, moment: int) -> None:
        """Note a counter's value at a moment."""
        if self.since <= moment and self._changed.get(key, (0, False))[0] <= moment:
            self._keep_counter(key, value)

    def _keep_counter(self, key: bytes, value: bytes | None) -> None:
        if len(self._counters) >= COUNTERS_MAX:
            _halve(self._counters)
        self._counters[key] = value

    def counter(self, key: bytes) -> bytes | None:
        """Return a counter's value, None if the row is absent.

        Raises:
            KeyError: It is not known.
        """
        changed = self._changed.get(key)
        if changed is not None and not changed[1]:
            return None
        if key not in self._counters and self._seen.get(key) == 0:
            return None
        return self._counters[key]

    def _remember(self, key: bytes, version: int) -> None:
        if len(self._seen) >= SEEN_MAX:
            _halve(self._seen)
        self._seen[key] = version

    # Checks ----------------------------------------------------------------------------------------

    def judge(self, check: KeyCheck | RangeCheck) -> Verdict:
        """Say whether a check holds as of `version`."""
        if isinstance(check, KeyCheck):
            return self._judge_key(check.key, check.version)
        start, end, since = check
        if since >= self.version:
            return Verdict.HOLDS
        if since < self.since:
            return Verdict.FAILS  # nobody can tell any more: the view is older than VIEW_MAX_S
        if any(start <= key < end for key in self._keys_after(since)):
            return Verdict.FAILS
        return Verdict.HOLDS

    def _judge_key(self, key: bytes, version: int) -> Verdict:
        changed = self._changed.get(key)
        if changed is not None:
            last, there = changed
            if version == 0:
                return Verdict.STALE if there else Verdict.HOLDS
            return Verdict.HOLDS if last <= version else Verdict.FAILS
        if version and version >= self.since:
            return Verdict.HOLDS
        seen = self._seen.get(key)
        if seen is None:
            return Verdict.UNKNOWN
        return judged(seen, version)

    def _keys_after(self, version: int) -> Iterator[bytes]:
        for _, before, commits in reversed(self.entries):
            for noted in commits:
                if noted.version > version:
                    yield from noted.written
                    yield from noted.deleted
            if before <= version:
                return


def judged(found: int, version: int) -> Verdict:
    """Judge a check of a row whose version (0: absent) is known, but not what happened to it before."""
    if version == found:
        return Verdict.HOLDS
    if 0 < version < found:
        return Verdict.FAILS
    return Verdict.STALE


def _fields(noted: Noted) -> tuple[int, bytes, tuple[bytes, ...], tuple[bytes, ...]]:
    return noted.version, noted.request_id, noted.written, noted.deleted


def _halve(known: dict[bytes, int] | dict[bytes, bytes | None]) -> None:
    """Drop the older half."""
    for key in list(known)[: len(known) // 2]:
        del known[key]
