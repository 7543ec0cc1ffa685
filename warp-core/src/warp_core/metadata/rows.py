"""Rows with versions in memory: how embedded engines judge commits, keep read views and remember
what changed.

`Rows` holds a chain of versions for each key that changed lately. Beneath it may lie a *base*, an
index on disk that holds every change up to version `floor`; a row that has no chain is looked up
there. Without a base the chains hold everything.

```
                    version  5     6     7     8     9
 chains   key a            (5) ←─────── (7)                 newest first, (version, value, older)
          key b                         (7 deleted)
 base     everything up to `floor`
```

A chain keeps only what somebody may still see: the newest version, those that an open view reads,
and those between what is durable and what is not yet. `retire` drops what reached the base.
Everything here is plain dictionary work in the thread of the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from struct import Struct
from typing import Protocol

from sortedcontainers import SortedList

from warp_core.errors import Conflict, Expired
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    VIEW_MAX_S,
    Commit,
    KeyCheck,
    RangeCheck,
    Row,
    View,
)
from warp_core.metadata.counters import merged

REQUESTS_REMEMBERED = (
    16_384  # request ids kept: a retry follows its first attempt within far fewer commits
)
SCAN_STEP_MIN = (
    16  # rows fetched from the base at least: few are shadowed, so a second fetch is rare
)

Node = tuple[int, bytes | None, "Node | None"]
Changes = list[tuple[bytes, bytes | None]]  # what one commit did: (key, new value or None)

_STAMP = Struct(">Q")
_ALL_ONES = 2**64 - 1
_new = tuple.__new__


class Base(Protocol):
    """The index below the chains."""

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version."""

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool) -> list[Row]:
        """Return up to `limit` rows of [start, end)."""


class Rows:
    """Chains of versions over an optional base.

    `latest` is the version of the newest commit applied, `durable` of the newest that views may
    show, `sealed` of the newest that can become a view of its own (what lies between `sealed` and
    `latest` becomes durable together).
    """

    def __init__(self, base: Base | None = None, *, version: int = 0) -> None:
        self.base = base
        self.latest = self.durable = self.sealed = version
        self.floor = (
            version if base else 0
        )  # deletes up to here are forgotten, and the base holds the rest
        self.views: list[int] = []  # versions of open views, ascending
        self.expired_below = 0  # views of older versions were given up
        self.log: deque[tuple[int, Changes]] = deque()  # not yet retired, ascending
        self.logged_rows = 0
        self.requests: OrderedDict[bytes, int] = OrderedDict()
        self._samples: deque[tuple[float, int]] = deque()
        self._newest: dict[bytes, Node] = {}
        self._keys: SortedList[bytes] = SortedList()

    # Reading --------------------------------------------------------------------------------------

    def open_view(self) -> int:
        """Register a view of what is durable; `close_view` ends it."""
        self.views.append(self.durable)
        return self.durable

    def close_view(self, version: int) -> None:
        """End a view that was opened at `version`."""
        views = self.views
        index = bisect_left(views, version)
        if index < len(views) and views[index] == version:
            del views[index]

    def expire_views(self, below: int) -> None:
        """Give up views of versions under `below`: their reads answer `Expired`."""
        if below > self.expired_below:
            self.expired_below = below
            del self.views[: bisect_left(self.views, below)]

    def tick(self, now_s: float) -> None:
        """Give up views that are older than VIEW_MAX_S; call it about once a second."""
        samples = self._samples
        samples.append((now_s, self.durable))
        while samples[0][0] <= now_s - VIEW_MAX_S:
            # Views of versions before a sample's were opened before it was taken.
            self.expire_views(samples.popleft()[1])

    def oldest_needed(self) -> int:
        """Return the oldest version that an open or a coming view may read."""
        return self.views[0] if self.views else self.durable

    def get(self, key: bytes, at: int) -> tuple[bytes, int] | None:
        """Return value and version of a row as of version `at`.

        Raises:
            Expired: The view was given up.
        """
        if at < self.expired_below:
            raise Expired(f"view of version {at} is too old")
        node = self._newest.get(key)
        while node is not None:
            version, value, older = node
            if version <= at:
                return None if value is None else (value, version)
            node = older
        return self.base.get(key) if self.base is not None else None

    def scan(self, start: bytes, end: bytes, at: int, limit: int, reverse: bool) -> list[Row]:
        """Return up to `limit` rows of [start, end) as of version `at`.

        Raises:
            Expired: The view was given up.
        """
        if at < self.expired_below:
            raise Expired(f"view of version {at} is too old")
        limit = min(limit, SCAN_MAX)
        if limit <= 0 or start >= end:
            return []
        if self.base is None:
            return self._recent(start, end, at, limit, reverse)[0]
        rows: list[Row] = []
        while True:
            wanted = limit - len(rows)
            step = max(wanted, SCAN_STEP_MIN)
            below = self.base.scan(start, end, step, reverse)
            exhausted = len(below) < step
            if exhausted:
                low, high = start, end
            elif reverse:
                low, high = below[-1].key, end
            else:
                low, high = start, below[-1].key + b"\0"
            recent, shadowed = self._recent(low, high, at, wanted, reverse)
            if shadowed:
                # Chains hide base rows of the same key. Past the last of `wanted` recent rows
                # chains were not read, and no row from there fits into the answer.
                below = [row for row in below if row[0] not in shadowed]
                below += recent
                below.sort(reverse=reverse)
            rows += below[:wanted]
            if exhausted or len(rows) >= limit:
                return rows
            if reverse:
                end = low
            else:
                start = high

    def _recent(
        self, start: bytes, end: bytes, at: int, limit: int, reverse: bool
    ) -> tuple[list[Row], set[bytes]]:
        """Return up to `limit` live rows of the chains, and every key met that `at` sees there,
        live or not.
        """
        rows: list[Row] = []
        seen: set[bytes] = set()
        if not self._keys:
            return rows, seen
        newest = self._newest
        collect = self.base is not None
        for key in self._keys.irange(start, end, (True, False), reverse):
            node: Node | None = newest[key]
            while node is not None and node[0] > at:
                node = node[2]
            if node is None:
                continue  # younger than the view: the base answers
            if collect:
                seen.add(key)
            value = node[1]
            if value is not None:
                rows.append(_new(Row, (key, value, node[0])))
                if len(rows) == limit:
                    break
        return rows, seen

    # Writing --------------------------------------------------------------------------------------

    def applied(self, request_id: bytes) -> int | None:
        """Return the version that a request was applied under, if it is remembered."""
        return self.requests.get(request_id)

    def judge(self, commit: Commit) -> Changes:
        """Return what a commit changes, as the next version, if every check holds now. Applies
        nothing.

        Raises:
            Conflict: A check does not hold.
            InvalidArgument: A merge does not fit its row.
        """
        newest, base = self._newest, self.base
        for check in commit.checks:
            if isinstance(check, KeyCheck):
                key, seen = check
                node = newest.get(key)
                if node is not None:
                    last = 0 if seen == 0 and node[1] is None else node[0]
                else:
                    row = base.get(key) if base is not None else None
                    last = row[1] if row is not None else 0 if seen == 0 else self.floor
                if last > seen:
                    raise Conflict(f"row {key!r} changed in version {last}, after {seen}")
            else:
                self._check_range(check)
        version = self.latest + 1
        changes: Changes = list(commit.writes)
        for merge in commit.merges:
            key = merge[0]
            node = newest.get(key)
            if node is not None:
                value = node[1]
            else:
                row = base.get(key) if base is not None else None
                value = row[0] if row is not None else None
            changes.append((key, merged(value, merge)))
        for prefix, suffix, content, descending in commit.stamps:
            stamp = _STAMP.pack(_ALL_ONES - version if descending else version)
            changes.append((prefix + stamp + suffix, content))
        return changes

    def _check_range(self, check: RangeCheck) -> None:
        start, end, seen = check
        if seen < self.floor:
            raise Conflict(
                f"range check of version {seen} is older than what is remembered ({self.floor})"
            )
        newest = self._newest
        for key in self._keys.irange(start, end, (True, False)):
            if newest[key][0] > seen:
                raise Conflict(f"range {start!r} to {end!r} changed in version {newest[key][0]}")

    def apply(
        self, changes: Changes, request_id: bytes = b"", *, version: int | None = None
    ) -> int:
        """Apply what `judge` returned, or what a log replays as `version`; return the version."""
        if version is None:
            version = self.latest + 1
        newest, sealed = self._newest, self.sealed
        for key, value in changes:
            head = newest.get(key)
            if head is None:
                self._keys.add(key)
            elif head[0] > sealed:
                head = head[2]  # replaced before anybody could see it
            elif head[2] is not None:
                head = self._without_unseen(head)
            newest[key] = (version, value, head)
        self.latest = version
        self.log.append((version, changes))
        self.logged_rows += len(changes)
        if request_id:
            self.remember(request_id, version)
        return version

    def remember(self, request_id: bytes, version: int) -> None:
        """Note the version that a request was applied under."""
        requests = self.requests
        requests[request_id] = version
        if len(requests) > REQUESTS_REMEMBERED:
            requests.popitem(last=False)

    def _without_unseen(self, head: Node) -> Node:
        """Drop the second node of a chain if no view sees it."""
        second = head[2]
        assert second is not None
        if self.durable < head[0]:
            return head
        index = bisect_left(self.views, second[0])
        if index < len(self.views) and self.views[index] < head[0]:
            return head
        return (head[0], head[1], second[2])

    # Retiring -------------------------------------------------------------------------------------

    def retire(self, upto: int, *, rows_max: int | None = None) -> None:
        """Forget chains up to version `upto`: the base holds them now, or, without a base, only
        deletes and old versions go.

        The caller has made sure that no open view is older than `upto`. With `rows_max` it stops
        after about so many rows.
        """
        log, newest, keep_live = self.log, self._newest, self.base is None
        done = 0
        while log and log[0][0] <= upto and (rows_max is None or done < rows_max):
            version, changes = log.popleft()
            done += len(changes)
            for key, _ in changes:
                head = newest.get(key)
                if head is None or head[0] < version:
                    continue
                if head[0] > version:
                    newest[key] = _cut(head, version, keep_live)
                elif keep_live and head[1] is not None:
                    newest[key] = (version, head[1], None)
                else:
                    del newest[key]
                    self._keys.remove(key)
            self.floor = max(self.floor, version)
        self.logged_rows -= done


class RowsView(View):
    """A read view of `Rows`."""

    __slots__ = ("_open", "_rows", "version")

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._open = True
        self.version = rows.open_view()

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """See `View.get`."""
        return self._rows.get(key, self.version)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """See `View.scan`."""
        return self._rows.scan(start, end, self.version, limit, reverse)

    def close(self) -> None:
        """See `View.close`."""
        if self._open:
            self._open = False
            self._rows.close_view(self.version)


def _cut(head: Node, upto: int, keep_live: bool) -> Node:
    """Return a chain without its nodes of versions up to `upto`.

    With `keep_live` the newest of those stays.
    """
    above = [head]
    older = head[2]
    while older is not None and older[0] > upto:
        above.append(older)
        older = older[2]
    chain: Node | None = (older[0], older[1], None) if keep_live and older is not None else None
    for version, value, _ in reversed(above):
        chain = (version, value, chain)
    assert chain is not None
    return chain
