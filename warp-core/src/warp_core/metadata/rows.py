"""Rows with versions in memory: how embedded engines judge commits, keep read views and remember what changed.

`Rows` holds a chain of versions for each key that changed lately. Beneath it may lie a *base*, an index on disk that holds every
change up to version `floor`; a row that has no chain is looked up there. Without a base the chains hold everything.

```
                    version  5     6     7     8     9
 active   key a                        (7) ◀───── (9)       newest first: (version, value, older)
 ──────── freeze ───────────────── 6 ──
 frozen   key a       (4) ◀ (5)                             a checkpoint on its way to the base
          key b             (6 deleted)
 base     everything up to `floor`
```

A chain keeps only what somebody may still see: the newest version, those that an open view reads, and those between what is durable
and what is not yet. `freeze` begins a checkpoint: changes go into a new layer from then on. When the base holds all of the frozen
layer, and no view is older, `thaw` drops it whole. Everything here is plain dictionary work in the thread of the event loop.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Container, KeysView
from itertools import compress, islice
from struct import Struct
from typing import Protocol

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
from warp_core.metadata.layer import LEAD, Layer, Node

REQUESTS_REMEMBERED = (
    16_384  # request ids kept: a retry follows its first attempt within far fewer commits
)
SCAN_STEP_MIN = (
    16  # rows fetched from the base at least: few are shadowed, so a second fetch is rare
)

# What one commit did: (key, new value or None). Plain tuples all the way down: Python's collector stops looking at those, and
# there are many of them.
Changes = tuple[tuple[bytes, bytes | None], ...]

CROWDED = 512  # rows of the base that one scan met in vain, deleted since: it costs half as much again as a page of 1,000 rows
BARE_MAX = 4096  # leads of which is remembered whether the base has rows: families in use, about 100 bytes each

_STAMP = Struct(">Q")
_ALL_ONES = 2**64 - 1
_new = tuple.__new__


class Base(Protocol):
    """The index below the chains."""

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version."""

    def scan(self, start: bytes, end: bytes, limit: int, reverse: bool) -> list[Row]:
        """Return up to `limit` rows of [start, end)."""

    def columns(self, start: bytes, end: bytes, limit: int) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of up to `limit` rows of [start, end), ascending."""


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
        self.log: deque[tuple[int, Changes]] = deque()  # without a base: not yet retired, ascending
        self.logged_rows = 0  # changes that are not in the base, or not retired
        self.requests: OrderedDict[bytes, int] = OrderedDict()
        self._samples: deque[tuple[float, int]] = deque()
        self._active = Layer()
        self.frozen_at = 0  # the newest version in the frozen layer; 0 while there is none
        self._frozen = Layer()
        self._frozen_rows = 0
        self.crowded = False  # a scan met many rows of the base that are deleted: a checkpoint would remove them
        # Whether the base has no row at all of a lead, of those that were asked for; true until `thaw`: what comes into the base
        # before it is in the frozen layer as well.
        self._bare: dict[bytes, bool] = {}

    # Reading --------------------------------------------------------------------------------------

    def open_view(self) -> int:
        """Register a view of what is durable; `close_view` ends it."""
        views, durable = self.views, self.durable
        if views and views[-1] > durable:
            insort(views, durable)
        else:
            views.append(durable)
        return durable

    def open_latest(self) -> int:
        """Register a view of everything that was applied; `close_view` ends it."""
        self.views.append(self.latest)
        self.sealed = self.latest  # from now on somebody sees it
        return self.latest

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
        return min(self.views[0], self.durable) if self.views else self.durable

    def get(self, key: bytes, at: int) -> tuple[bytes, int] | None:
        """Return value and version of a row as of version `at`.

        Raises:
            Expired: The view was given up.
        """
        if at < self.expired_below:
            raise Expired(f"view of version {at} is too old")
        node = self._active.newest.get(key)
        while node is not None:
            version, value, older = node
            if version <= at:
                return None if value is None else (value, version)
            node = older
        if self.base is None:
            return None
        node = self._frozen.newest.get(key)
        while node is not None:
            version, value, older = node
            if version <= at:
                return None if value is None else (value, version)
            node = older
        return self.base.get(key)

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
            return self._recent(start, end, at, limit, reverse)
        rows: list[Row] = []
        step = SCAN_STEP_MIN
        met = 0
        while True:
            wanted = limit - len(rows)
            step = max(wanted, step)
            below = self._of_base(start, end, step, reverse)
            exhausted = len(below) < step
            met += len(below)
            if exhausted:
                low, high = start, end
            elif reverse:
                low, high = below[-1].key, end
            else:
                low, high = start, below[-1].key + b"\0"
            if self._layers(low, high):
                # Chains hide base rows of the same key. Past the last of `wanted` recent rows
                # chains were not read, and no row from there fits into the answer.
                recent = self._recent(low, high, at, wanted, reverse)
                if below:
                    below = [row for row in below if self._visible(row[0], at) is None]
                if recent:
                    below += recent
                    below.sort(reverse=reverse)
            rows += below[:wanted]
            if exhausted or len(rows) >= limit:
                self.crowded |= met > CROWDED + max(step, len(rows))
                return rows
            step = min(2 * step, SCAN_MAX)  # many are hidden: deleted, and in the base still
            if reverse:
                end = low
            else:
                start = high

    def _of_base(self, start: bytes, end: bytes, limit: int, reverse: bool) -> list[Row]:
        """Return up to `limit` rows of the base; most volumes have families without any, such as holders of revisions."""
        assert self.base is not None
        lead = start[:LEAD]
        alike = _alike(lead, end)
        bare = self._bare.get(lead) if alike else False
        if bare:
            return []
        rows = self.base.scan(start, end, limit, reverse)
        if not rows and bare is None:
            if len(self._bare) >= BARE_MAX:
                self._bare.clear()
            behind = _behind(lead)
            self._bare[lead] = bool(behind) and not self.base.scan(lead, behind, 1, False)
        return rows

    def columns(
        self, start: bytes, end: bytes, at: int, limit: int
    ) -> tuple[list[bytes], list[bytes]]:
        """Return keys and values of up to `limit` rows of [start, end) as of version `at`.

        It reads the base and both layers a page at a time, up to where the shortest page ends, and lays them over one another.

        Raises:
            Expired: The view was given up.
        """
        if at < self.expired_below:
            raise Expired(f"view of version {at} is too old")
        limit = min(limit, SCAN_MAX)
        found: list[bytes] = []
        values: list[bytes] = []
        step = SCAN_STEP_MIN
        met = 0
        while len(found) < limit and start < end:
            wanted = max(limit - len(found), step)
            step = min(
                2 * step, SCAN_MAX
            )  # few are hidden, or many: deleted, and in the base still
            below: tuple[list[bytes], list[bytes]] = ([], [])
            high = end
            if self.base is not None:
                below = self.base.columns(start, end, wanted)
                if len(below[0]) == wanted:
                    high = below[0][-1] + b"\0"
            layers: list[tuple[Layer, list[bytes]]] = []
            for layer in self._layers(start, end):
                page = list(islice(layer.live(start, high), wanted))
                layers.append((layer, page))
                if len(page) == wanted:
                    high = page[-1] + b"\0"
                layer.bury(page, self.oldest_needed())
            if layers:
                met += bisect_left(below[0], high)
                below = _laid_over(below, layers, high, at)
            found += below[0]
            values += below[1]
            start = high
        self.crowded |= met > CROWDED + len(found)
        return found[:limit], values[:limit]

    def _recent(self, start: bytes, end: bytes, at: int, limit: int, reverse: bool) -> list[Row]:
        """Return up to `limit` rows that the layers have values of, as of version `at`.

        Each layer is read up to its `limit`-th such row: what lies behind that is no part of an answer of `limit` rows.
        """
        found: dict[bytes, Row] = {}
        for layer in self._layers(start, end):
            count = 0
            gone: list[bytes] = []  # or they are younger than the view
            for key in layer.live(start, end, reverse=reverse):
                node = self._visible(key, at)
                if node is not None and node[1] is not None:
                    found[key] = _new(Row, (key, node[1], node[0]))
                    count += 1
                    if count == limit:
                        break
                else:
                    gone.append(key)
            if gone:
                layer.bury(gone, self.oldest_needed())
        rows = sorted(found.values(), reverse=reverse)
        return rows[:limit]

    def _visible(self, key: bytes, at: int) -> Node | None:
        """Return what version `at` sees of a key in the layers; None where the base answers."""
        node = self._active.newest.get(key)
        while node is not None and node[0] > at:
            node = node[2]
        if node is None:
            node = self._frozen.newest.get(key)
            while node is not None and node[0] > at:
                node = node[2]
        return node

    def _layers(self, start: bytes, end: bytes) -> list[Layer]:
        """Return the layers that may have keys in [start, end), the older first.

        Most small ranges have none that changed lately; where all keys of the range share their lead that costs a look into a set.
        """
        lead = start[:LEAD]
        alike = _alike(lead, end)
        return [
            layer
            for layer in (self._frozen, self._active)
            if layer.newest and (not alike or layer.may_have(lead))
        ]

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
        newest, frozen, base = self._active.newest, self._frozen.newest, self.base
        # What changed after `floor` has a chain. A row without one is as every view since then showed it.
        known = commit.seen if commit.view >= self.floor else 0
        for number, check in enumerate(commit.checks):
            if isinstance(check, KeyCheck):
                key, seen = check
                node = newest.get(key) or frozen.get(key)
                if node is not None:
                    last = 0 if seen == 0 and node[1] is None else node[0]
                elif number < known:
                    continue
                else:
                    row = base.get(key) if base is not None else None
                    last = row[1] if row is not None else 0 if seen == 0 else self.floor
                if last > seen:
                    raise Conflict(f"row {key!r} changed in version {last}, after {seen}")
            else:
                self._check_range(check)
        version = self.latest + 1
        changes = [(key, value) for key, value in commit.writes]
        for merge in commit.merges:
            key = merge[0]
            node = newest.get(key) or frozen.get(key)
            if node is not None:
                value = node[1]
            else:
                row = base.get(key) if base is not None else None
                value = row[0] if row is not None else None
            changes.append((key, merged(value, merge)))
        for prefix, suffix, content, descending in commit.stamps:
            stamp = _STAMP.pack(_ALL_ONES - version if descending else version)
            changes.append((prefix + stamp + suffix, content))
        return tuple(changes)

    def _check_range(self, check: RangeCheck) -> None:
        start, end, seen = check
        if seen < self.floor:
            raise Conflict(
                f"range check of version {seen} is older than what is remembered ({self.floor})"
            )
        for layer in self._layers(start, end):
            newest = layer.newest
            for key in layer.changed(start, end):
                if newest[key][0] > seen:
                    raise Conflict(
                        f"range {start!r} to {end!r} changed in version {newest[key][0]}"
                    )

    def apply(
        self, changes: Changes, request_id: bytes = b"", *, version: int | None = None
    ) -> int:
        """Apply what `judge` returned, or what a log replays as `version`; return the version."""
        if version is None:
            version = self.latest + 1
        active, sealed = self._active, self.sealed
        newest = active.newest
        for key, value in changes:
            head = newest.get(key)
            if head is None:
                active.added(key)
            else:
                if head[1] is None and value is not None:
                    active.revived(key)
                if head[0] > sealed:
                    head = head[2]  # replaced before anybody could see it
                elif head[2] is not None:
                    head = self._without_unseen(head)
            newest[key] = (version, value, head)
        self.latest = active.latest = version
        if self.base is None:
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
        """Drop what no view sees from below the head of a chain."""
        views, durable = self.views, self.durable
        kept = [head]
        above = head[0]
        node = head[2]
        while node is not None:
            version = node[0]
            needed = version <= durable < above  # by views to come
            if not needed and views:
                index = bisect_left(views, version)
                needed = index < len(views) and views[index] < above
            if needed or version > durable:
                kept.append(node)
                above = version
            node = node[2]
        chain: Node | None = None
        for node in reversed(kept):
            chain = (node[0], node[1], chain)
        assert chain is not None
        return chain

    # Forgetting -----------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Begin a checkpoint of everything up to now; the frozen layer is only read until `thaw`."""
        assert self.base is not None
        assert not self.frozen_at
        self.frozen_at = self.latest
        self._frozen, self._active = self._active, Layer()
        self._frozen_rows = self.logged_rows

    def frozen(self) -> list[tuple[bytes, int, bytes | None]]:
        """Return (key, version, value or None) of every row in the frozen layer, sorted. For any thread."""
        return sorted((key, node[0], node[1]) for key, node in self._frozen.newest.items())

    def frozen_keys(self) -> KeysView[bytes]:
        """Return the keys of the rows in the frozen layer."""
        return self._frozen.newest.keys()

    @property
    def can_thaw(self) -> bool:
        """Whether no open or coming view is older than the frozen layer's end."""
        return min(self.durable, self.oldest_needed()) >= self.frozen_at

    def thaw(self) -> None:
        """Drop the frozen layer: the base, which reads may see from now on, holds all of it."""
        assert self.can_thaw
        self.floor = self.frozen_at
        self.frozen_at = 0
        self._frozen = Layer()
        self._bare.clear()
        self.crowded = False
        self.logged_rows -= self._frozen_rows
        self._frozen_rows = 0

    def retire(self, upto: int, *, rows_max: int | None = None) -> None:
        """Without a base: forget deletes and old values up to version `upto`, which no open view is older than.

        With `rows_max` it stops after about so many rows.
        """
        log, newest = self.log, self._active.newest
        done = 0
        while log and log[0][0] <= upto and (rows_max is None or done < rows_max):
            version, changes = log.popleft()
            done += len(changes)
            for key, _ in changes:
                head = newest.get(key)
                if head is None or head[0] < version:
                    continue
                if head[0] > version:
                    newest[key] = _cut(head, version)
                elif head[1] is not None:
                    newest[key] = (version, head[1], None)
                else:
                    self._active.forget(key)
            self.floor = version
        self.logged_rows -= done


class RowsView(View):
    """A read view of `Rows`."""

    __slots__ = ("_open", "_rows", "version")

    def __init__(self, rows: Rows, *, latest: bool = False) -> None:
        self._rows = rows
        self._open = True
        self.version = rows.open_latest() if latest else rows.open_view()

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """See `View.get`."""
        return self._rows.get(key, self.version)

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        """See `View.get_now`."""
        return self._rows.get(key, self.version)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """See `View.scan`."""
        return self._rows.scan(start, end, self.version, limit, reverse)

    async def columns(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX
    ) -> tuple[list[bytes], list[bytes]]:
        """See `View.columns`."""
        return self._rows.columns(start, end, self.version, limit)

    def close(self) -> None:
        """See `View.close`."""
        if self._open:
            self._open = False
            self._rows.close_view(self.version)


def _alike(lead: bytes, end: bytes) -> bool:
    """Say whether all keys from one that begins with `lead` up to `end` do."""
    return len(lead) == LEAD and (end.startswith(lead) or end == _behind(lead))


def _behind(lead: bytes) -> bytes:
    """Return the first key behind all that begin with `lead`, where only its last byte differs; else nothing."""
    return lead[:-1] + bytes([lead[-1] + 1]) if lead[-1] < 0xFF else b""


def _laid_over(
    below: tuple[list[bytes], list[bytes]],
    layers: list[tuple[Layer, list[bytes]]],
    high: bytes,
    at: int,
) -> tuple[list[bytes], list[bytes]]:
    """Lay what version `at` sees of layers, the oldest first, over rows of the base: of all keys below `high`.

    A page has the keys of its layer that may have a value; what is only deleted there is found by its being in the layer at all.
    """
    cut = bisect_left(below[0], high)
    keys, values = below[0][:cut], below[1][:cut]
    live: dict[bytes, bytes] = {}
    for layer, page in layers:
        newest: Container[bytes] = layer.newest
        if page and page[-1] >= high:
            page = page[: bisect_left(page, high)]
        if layer.latest <= at:
            said = [(key, layer.newest[key][1]) for key in page]
        else:
            newest, said = _said(layer.newest, {*page, *keys, *live}, at)
        kept = [key not in newest for key in keys]
        if not all(kept):
            keys, values = list(compress(keys, kept)), list(compress(values, kept))
        if live:
            live = {key: value for key, value in live.items() if key not in newest}
        live.update([(key, value) for key, value in said if value is not None])
    if not live:
        return keys, values
    live.update(zip(keys, values, strict=True))
    keys = sorted(live)
    return keys, [live[key] for key in keys]


def _said(
    newest: dict[bytes, Node], keys: set[bytes], at: int
) -> tuple[Container[bytes], list[tuple[bytes, bytes | None]]]:
    """Return which of the keys a layer has something to say of at version `at`, and what."""
    said: dict[bytes, bytes | None] = {}
    for key in newest.keys() & keys:
        node: Node | None = newest[key]
        while node is not None and node[0] > at:
            node = node[2]
        if node is not None:
            said[key] = node[1]
    return said, list(said.items())


def _cut(head: Node, upto: int) -> Node:
    """Return a chain without its nodes of versions up to `upto`, but for the newest of those."""
    above = [head]
    older = head[2]
    if older is None:
        return head
    while older is not None and older[0] > upto:
        above.append(older)
        older = older[2]
    chain: Node | None = (older[0], older[1], None) if older is not None else None
    for version, value, _ in reversed(above):
        chain = (version, value, chain)
    assert chain is not None
    return chain
