"""Chains of versions: what they keep, and that they let go of the rest."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.errors import Conflict, Expired
from warp_core.interfaces.consistency import VIEW_MAX_S, Commit, KeyCheck, RangeCheck, Row, Write
from warp_core.metadata.history import HISTORY_ROWS_MAX, History
from warp_core.metadata.rows import CROWDED, REQUESTS_REMEMBERED, Rows


class Base:
    """An index below the chains, in a dictionary."""

    def __init__(self):
        self.rows = {}

    def get(self, key):
        return self.rows.get(key)

    def scan(self, start, end, limit, reverse):
        keys = sorted((key for key in self.rows if start <= key < end), reverse=reverse)
        return [Row(key, *self.rows[key]) for key in keys[:limit]]

    def columns(self, start, end, limit):
        rows = self.scan(start, end, limit, False)
        return [row.key for row in rows], [row.value for row in rows]

    def take(self, rows):
        """Begin a checkpoint, or end it when no view holds it back."""
        if not rows.frozen_at:
            rows.freeze()
        elif rows.can_thaw:
            for key, version, value in rows.frozen():
                if value is None:
                    self.rows.pop(key, None)
                else:
                    self.rows[key] = (value, version)
            rows.thaw()


def put(rows, key, value, *, durable=True):
    version = rows.apply(((key, value),))
    if durable:
        rows.durable = rows.sealed = version
    return version


def chain(rows, key):
    node, found = rows._active.newest.get(key), []
    while node is not None:
        found.append(node[0])
        node = node[2]
    return found


def test_a_chain_keeps_what_views_see_and_no_more():
    rows = Rows()
    for number in range(10):
        put(rows, b"k", b"%d" % number)
    assert len(chain(rows, b"k")) <= 2
    view = rows.open_view()
    for number in range(10):
        put(rows, b"k", b"%d" % number)

    assert len(chain(rows, b"k")) <= 3
    assert rows.get(b"k", view) == (b"9", view)


def test_a_hot_row_within_one_batch_has_one_version():
    rows = Rows()
    put(rows, b"n", b"durable")
    for number in range(100):
        put(rows, b"n", b"%d" % number, durable=False)

    assert len(chain(rows, b"n")) == 2
    assert rows.get(b"n", rows.durable) == (b"durable", 1)


def test_retired_deletes_are_forgotten_and_live_rows_kept_without_a_base():
    rows = Rows()
    put(rows, b"a", b"v")
    put(rows, b"b", b"v")
    put(rows, b"b", None)
    last = put(rows, b"c", b"v")
    rows.retire(last)

    assert rows.scan(b"\0", b"\xff", last, 10, False) == [Row(b"a", b"v", 1), Row(b"c", b"v", 4)]
    assert b"b" not in rows._active.newest
    with pytest.raises(Conflict):
        rows.judge(Commit(checks=[KeyCheck(b"b", 2)]))
    with pytest.raises(Conflict):
        rows.judge(Commit(checks=[RangeCheck(b"a", b"c", 2)]))
    rows.judge(Commit(checks=[KeyCheck(b"b", 0), KeyCheck(b"a", 1), RangeCheck(b"a", b"z", last)]))


def test_views_that_are_too_old_are_given_up():
    rows = Rows()
    put(rows, b"k", b"old")
    view = rows.open_view()
    put(rows, b"k", b"new")
    rows.tick(0.0)
    fresh = rows.open_view()
    rows.tick(VIEW_MAX_S / 2)
    assert rows.get(b"k", view) == (b"old", 1)
    rows.tick(VIEW_MAX_S + 0.1)

    with pytest.raises(Expired):
        rows.get(b"k", view)
    with pytest.raises(Expired):
        rows.scan(b"a", b"z", view, 10, False)
    assert rows.get(b"k", fresh) == (b"new", 2)
    rows.close_view(view)
    assert rows.views == [fresh]


def test_requests_are_forgotten_after_many_more():
    rows = Rows()
    for number in range(REQUESTS_REMEMBERED + 10):
        rows.apply((), b"%016d" % number)

    assert rows.applied(b"%016d" % 9) is None
    assert rows.applied(b"%016d" % 10) == 11


async def test_a_watcher_that_falls_behind_is_told():
    rows = Rows()
    history = History(rows)

    def add():
        changes = ((b"k", b"v"),) * 1000
        version = rows.apply(changes)
        rows.durable = version
        history.append(version, changes, 1000)

    add()
    watch = history.watch(b"", 0)
    assert (await anext(watch)).version == 1
    for _ in range(HISTORY_ROWS_MAX // 1000 + 2):
        add()
    for _ in range(999):
        await anext(watch)  # the rest of what it was given before
    with pytest.raises(Expired):
        await anext(watch)
    with pytest.raises(Expired):
        await anext(history.watch(b"", 0))


KEYS = st.sampled_from([b"a", b"aa", b"ab", b"b", b"c", b"d", b"e", b"f"])
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.one_of(st.none(), st.binary(max_size=2))),
    st.tuples(st.just("flush"), st.none(), st.none()),
    st.tuples(st.just("open"), st.none(), st.none()),
    st.tuples(st.just("close"), st.integers(0, 5), st.none()),
    st.tuples(st.just("checkpoint"), st.none(), st.none()),
    st.tuples(st.just("check"), KEYS, KEYS),
    st.tuples(st.just("seen"), st.integers(0, 9), KEYS),
)


@mock.patch("warp_core.metadata.layer.LEAD", 1)
@mock.patch("warp_core.metadata.rows.LEAD", 1)  # so that ranges within a family are among them
@settings(deadline=None, max_examples=400)
@given(steps=st.lists(STEPS, max_size=60), based=st.booleans())
def test_any_sequence_agrees_with_keeping_everything(steps, based):
    base = Base() if based else None
    rows = Rows(base)
    everything = []  # (version, key, value)
    views = []
    moments = []  # views that were opened, and what they showed

    def expected(at):
        found = {}
        for version, key, value in everything:
            if version <= at:
                found[key] = (value, version)
        return sorted((key, *row) for key, row in found.items() if row[0] is not None)

    for what, one, two in steps:
        if what == "put":
            everything.append((put(rows, one, two, durable=False), one, two))
        elif what == "flush":
            rows.durable = rows.sealed = rows.latest
        elif what == "open":
            views.append(rows.open_view())
            moments.append((views[-1], {key: version for key, _, version in expected(views[-1])}))
        elif what == "close" and views:
            rows.close_view(views.pop(one % len(views)))
        elif what == "checkpoint":
            if base is not None:
                base.take(rows)
            else:
                rows.retire(min(rows.durable, rows.oldest_needed()))
        elif what == "check" and views:
            at = views[0]
            changed = any(v > at and one <= k < two for v, k, _ in everything)
            try:
                rows.judge(Commit(checks=[RangeCheck(one, two, at)]))
            except Conflict:
                assert changed
            else:
                assert not changed
        elif what == "seen" and moments:
            at, shown = moments[one % len(moments)]
            changed = any(v > at and k == two for v, k, _ in everything)
            check = KeyCheck(two, shown.get(two, 0))
            for commit in (Commit([check]), Commit([check], seen=1, view=at)):
                try:
                    rows.judge(commit)
                except Conflict:
                    assert changed or at < rows.floor
                else:
                    # What came and went, or went, before what is remembered begins, is as it was seen: absent.
                    assert not changed or rows.get(two, rows.latest) is None
        for at in {*views, rows.durable}:
            want = expected(at)
            assert [tuple(r) for r in rows.scan(b"\0", b"\xff", at, 1000, False)] == want
            assert [tuple(r) for r in rows.scan(b"\0", b"\xff", at, 2, True)] == want[::-1][:2]
            assert [tuple(r) for r in rows.scan(b"b", b"e", at, 2, False)] == [
                row for row in want if b"b" <= row[0] < b"e"
            ][:2]
            for start, end in ((b"a", b"b"), (b"aa", b"ac"), (b"d", b"d\0"), (b"f", b"g")):
                found = rows.scan(start, end, at, 1000, False)
                assert [tuple(r) for r in found] == [row for row in want if start <= row[0] < end]
            for limit in (1, 2, 1000):
                columns = [row[:2] for row in want if b"b" <= row[0] < b"f"][:limit]
                with mock.patch("warp_core.metadata.rows.SCAN_STEP_MIN", 1):
                    found = rows.columns(b"b", b"f", at, limit)
                assert list(zip(*found, strict=True)) == columns
            for key in (b"a", b"d"):
                assert rows.get(key, at) == next((row[1:] for row in want if row[0] == key), None)


def test_judging_is_against_what_is_applied_and_not_only_what_is_durable():
    rows = Rows()
    version = put(rows, b"k", b"v", durable=False)

    with pytest.raises(Conflict):
        rows.judge(Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"w")]))
    rows.judge(Commit(checks=[KeyCheck(b"k", version)], writes=[Write(b"k", b"w")]))


def test_what_a_view_showed_is_not_read_again_unless_the_view_is_older_than_what_is_remembered():
    base = Base()
    rows = Rows(base)
    first = put(rows, b"k", b"v")
    rows.freeze()
    base.take(rows)
    asked = []
    base.get = lambda key: asked.append(key) or base.rows.get(key)
    fresh = Commit([KeyCheck(b"k", first), KeyCheck(b"l", 0)], seen=2, view=rows.durable)
    stale = Commit([KeyCheck(b"k", first)], seen=1, view=0)

    rows.judge(fresh)
    assert asked == []
    rows.judge(stale)
    assert asked == [b"k"]
    put(rows, b"l", b"v")
    with pytest.raises(Conflict):
        rows.judge(fresh)


def test_a_family_that_the_base_has_no_row_of_is_looked_at_once_until_the_next_checkpoint():
    base = Base()
    rows = Rows(base)
    put(rows, b"volumeD1", b"one")
    base.take(rows)
    base.take(rows)
    asked = []
    scan = base.scan
    base.scan = lambda start, *more: asked.append(start) or scan(start, *more)

    def found():
        return [row.key for row in rows.scan(b"volumX1", b"volumX9", rows.durable, 3, False)]

    assert [found(), found(), found()] == [[], [], []]
    assert len(asked) == 2  # the range, and then its whole family
    put(rows, b"volumX5", b"five")
    assert found() == [b"volumX5"]
    base.take(rows)
    assert found() == [b"volumX5"]  # from the frozen layer
    base.take(rows)
    assert found() == [b"volumX5"]  # from the base
    assert rows.scan(b"volumX6", b"volumX9", rows.durable, 3, True) == []
    assert found() == [b"volumX5"]  # one empty range does not make a family bare


class CountedBase(Base):
    """Counts the rows that it gave out."""

    given = 0

    def scan(self, start, end, limit, reverse):
        found = super().scan(start, end, limit, reverse)
        self.given += len(found)
        return found


def pages(rows):
    """Return the keys of a page by both ways to read one."""
    at = rows.durable
    columns = rows.columns(b"k", b"l", at, 1000)[0]
    assert [row.key for row in rows.scan(b"k", b"l", at, 1000, False)] == columns
    return columns


def test_what_came_and_went_between_checkpoints_is_not_walked_again():
    base = CountedBase()
    rows = Rows(base)
    live = [b"k%04d-live" % number for number in range(0, 1000, 100)]
    for key in live:
        put(rows, key, b"v")
    base.take(rows)
    base.take(rows)
    for number in range(1000):
        put(rows, b"k%04d" % number, b"v")
    assert len(pages(rows)) == 1000
    for number in range(1000):
        put(rows, b"k%04d" % number, None)
    assert pages(rows) == live
    base.given = 0

    assert pages(rows) == live
    assert base.given == 2 * len(live)
    assert list(rows._active.live(b"k", b"l")) == []
    assert not rows.crowded
    with pytest.raises(Conflict):  # a delete is a change of the range nevertheless
        rows.judge(Commit(checks=[RangeCheck(b"k0500", b"k0501", rows.latest - 600)]))
    put(rows, b"k0500", b"again")
    assert b"k0500" in pages(rows)


def test_a_value_that_an_open_view_sees_is_walked_until_it_is_closed():
    rows = Rows(Base())
    put(rows, b"k1", b"v")
    view = rows.open_view()
    put(rows, b"k1", None)

    assert pages(rows) == []
    assert [row.key for row in rows.scan(b"k", b"l", view, 10, False)] == [b"k1"]
    assert rows.columns(b"k", b"l", view, 10)[0] == [b"k1"]
    rows.close_view(view)
    assert pages(rows) == []
    assert list(rows._active.live(b"k", b"l")) == []


def test_a_scan_that_meets_many_deleted_rows_of_the_base_asks_for_a_checkpoint():
    base = CountedBase()
    rows = Rows(base)
    for number in range(CROWDED + 50):
        put(rows, b"k%04d" % number, b"v")
    base.take(rows)
    base.take(rows)
    assert len(pages(rows)) == CROWDED + 50
    assert not rows.crowded
    for number in range(CROWDED + 40):
        put(rows, b"k%04d" % number, None)

    assert len(pages(rows)) == 10
    assert rows.crowded
    base.take(rows)
    base.take(rows)
    base.given = 0
    assert len(pages(rows)) == 10
    assert base.given == 20
    assert not rows.crowded
