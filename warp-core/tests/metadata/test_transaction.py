"""Transactions: what they read, what they check, and what becomes of doubtful commits."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    Ambiguous,
    Conflict,
    InvalidArgument,
    NotFound,
    ReadOnly,
    TooLarge,
    Unavailable,
    Unsupported,
)
from warp_core.interfaces.consistency import (
    Commit,
    Merge,
    MetaCapabilities,
    MetaStore,
    Row,
    Stamp,
    View,
    Write,
)
from warp_core.metadata import (
    KEY_END,
    Transaction,
    check_limits,
    combined,
    counters,
    merged,
    prefix_end,
    successor,
    transact,
)
from warp_core.metadata.rows import Rows, RowsView


class Engine(MetaStore):
    """The smallest engine on `Rows`; `script` decides what happens to each commit."""

    capabilities = MetaCapabilities()

    def __init__(self):
        self.rows = Rows()
        self.commits = []
        self.script = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *rest):
        pass

    def view(self) -> View:
        return RowsView(self.rows)

    async def commit(self, commit: Commit) -> int:
        check_limits(commit)
        self.commits.append(commit)
        what = self.script.pop(0) if self.script else None
        if what == "lost":
            raise Ambiguous("lost on the way")
        if isinstance(what, Exception):
            raise what
        if (earlier := self.rows.applied(commit.request_id)) is not None:
            return earlier
        version = self.rows.apply(self.rows.judge(commit), commit.request_id)
        self.rows.durable = self.rows.sealed = version
        if what == "answer lost":
            raise Ambiguous("the answer was lost")
        return version

    async def outcome(self, request_id: bytes) -> int | None:
        what = self.script.pop(0) if self.script else None
        if isinstance(what, Exception):
            raise what
        return self.rows.applied(request_id)


@pytest.fixture
async def engine():
    store = Engine()
    await store.commit(Commit(writes=[Write(b"k%d" % i, b"v%d" % i) for i in range(6)]))
    store.commits.clear()
    return store


async def test_reads_see_own_writes(engine):
    tx = Transaction(engine)
    tx.put(b"k1", b"mine")
    tx.put(b"k15", b"new")
    tx.delete(b"k3")

    assert await tx.get(b"k1") == b"mine"
    assert await tx.get(b"k15") == b"new"
    assert await tx.get(b"k3") is None
    assert [row.key for row in await tx.scan(b"k", b"l")] == [
        b"k0",
        b"k1",
        b"k15",
        b"k2",
        b"k4",
        b"k5",
    ]
    assert [row.key for row in await tx.scan(b"k", b"l", limit=3, reverse=True)] == [
        b"k5",
        b"k4",
        b"k2",
    ]
    assert [row.value for row in await tx.scan(b"k1", b"k2")] == [b"mine", b"new"]


async def test_a_scan_finds_enough_rows_behind_many_own_deletes(engine):
    tx = Transaction(engine)
    for i in range(5):
        tx.delete(b"k%d" % i)

    assert [row.key for row in await tx.scan(b"k", b"l", limit=1)] == [b"k5"]
    assert await tx.scan(b"k", b"l", limit=1, reverse=True) == [Row(b"k5", b"v5", 1)]


async def test_merges_are_seen_by_gets_and_scans(engine):
    await engine.commit(Commit(merges=[Merge(b"n", add=(5,))]))
    tx = Transaction(engine)
    tx.merge(b"n", add=(2,))
    tx.merge(b"n", add=(1,))
    tx.merge(b"o", add=(1,))

    assert counters(await tx.get(b"n"), 1) == (8,)
    assert [counters(row.value, 1) for row in await tx.scan(b"n", b"p")] == [(8,), (1,)]


async def test_merge_put_and_delete_follow_one_another(engine):
    tx = Transaction(engine)
    tx.merge(b"a", add=(2,))
    tx.put(b"a", (7).to_bytes(8, "little"))
    tx.merge(b"a", add=(1,))
    tx.delete(b"b")
    tx.merge(b"b", add=(4,))
    tx.merge(b"c", add=(4,))
    tx.delete(b"c")
    await tx.commit()

    view = engine.view()
    assert counters((await view.get(b"a"))[0], 1) == (8,)
    assert counters((await view.get(b"b"))[0], 1) == (4,)
    assert await view.get(b"c") is None


async def test_a_merge_alone_checks_nothing(engine):
    one, two = Transaction(engine), Transaction(engine)
    one.merge(b"n", add=(1,))
    two.merge(b"n", add=(1,))
    await one.commit()
    await two.commit()

    assert engine.commits[0].checks == []


async def test_a_scan_checks_only_what_it_returned(engine):
    tx = Transaction(engine)
    await tx.scan(b"k", b"l", limit=2)
    tx.put(b"x", b"v")
    await engine.commit(Commit(writes=[Write(b"k15", b"behind")]))
    await tx.commit()

    tx = Transaction(engine)
    await tx.scan(b"k", b"l", limit=2, reverse=True)
    tx.put(b"x", b"v")
    await engine.commit(Commit(writes=[Write(b"k05", b"before")]))
    await tx.commit()

    tx = Transaction(engine)
    await tx.scan(b"k", b"l", limit=2)
    tx.put(b"x", b"v")
    await engine.commit(Commit(writes=[Write(b"k00", b"inside")]))
    with pytest.raises(Conflict):
        await tx.commit()


async def test_unchecked_reads_do_not_conflict(engine):
    tx = Transaction(engine)
    await tx.get(b"k1", checked=False)
    await tx.scan(b"k", b"l", checked=False)
    tx.put(b"x", b"v")
    await engine.commit(Commit(writes=[Write(b"k1", b"other")]))

    await tx.commit()

    found = await Transaction(engine).scan(b"k1", b"y", checked=False)
    assert (found[0].value, found[-1].value) == (b"other", b"v")


async def test_reading_alone_sends_no_commit(engine):
    async def body(tx):
        return await tx.get(b"k1")

    assert await transact(engine, body) == b"v1"
    assert engine.commits == []
    assert engine.rows.views == []


async def test_transact_runs_the_body_again_after_a_conflict(engine):
    runs = 0

    async def body(tx):
        nonlocal runs
        runs += 1
        value = await tx.get(b"k1")
        if runs < 3:
            await engine.commit(Commit(writes=[Write(b"k1", b"%d" % runs)]))
        tx.put(b"k1", value + b"!")
        return value

    assert await transact(engine, body) == b"2"
    assert runs == 3
    assert engine.rows.views == []


async def test_transact_gives_up_when_its_budget_is_used(engine):
    async def body(tx):
        await tx.get(b"k1")
        await engine.commit(Commit(writes=[Write(b"k1", b"always")]))
        tx.put(b"k1", b"v")

    with pytest.raises(Conflict):
        await transact(engine, body, budget_s=0.05)


async def test_a_body_that_fails_writes_nothing(engine):
    async def body(tx):
        tx.put(b"x", b"v")
        raise NotFound("nothing here")

    with pytest.raises(NotFound):
        await transact(engine, body)
    assert engine.commits == []
    assert engine.rows.views == []


async def test_a_lost_answer_is_resolved_and_not_applied_twice(engine):
    engine.script = ["answer lost", Unavailable("not yet")]

    async def body(tx):
        tx.merge(b"n", add=(1,))

    await transact(engine, body)

    assert len(engine.commits) == 1
    assert counters((await engine.view().get(b"n"))[0], 1) == (1,)


async def test_a_lost_commit_is_sent_again(engine):
    engine.script = ["lost"]

    async def body(tx):
        tx.merge(b"n", add=(1,))

    await transact(engine, body)

    assert len(engine.commits) == 2
    assert engine.commits[0].request_id != engine.commits[1].request_id
    assert counters((await engine.view().get(b"n"))[0], 1) == (1,)


@pytest.mark.parametrize("outcome", [Unsupported("no"), ReadOnly("dead")])
async def test_what_cannot_be_resolved_is_told(engine, outcome):
    engine.script = ["lost", outcome]

    async def body(tx):
        tx.put(b"x", b"v")

    with pytest.raises(Ambiguous):
        await transact(engine, body)
    assert len(engine.commits) == 1


async def test_an_engine_that_cannot_be_reached_is_asked_again(engine):
    engine.script = [Unavailable("leader election")] * 3

    async def body(tx):
        tx.put(b"x", b"v")

    await transact(engine, body)
    engine.script = [Unavailable("down")] * 1000
    with pytest.raises(Unavailable):
        await transact(engine, body, budget_s=0.02)


async def test_a_body_that_cannot_reach_something_is_not_repeated(engine):
    runs = 0

    async def body(tx):
        nonlocal runs
        runs += 1
        raise Unavailable("a store")

    with pytest.raises(Unavailable):
        await transact(engine, body)
    assert runs == 1


async def test_stamps_and_foreign_checks_are_sent(engine):
    tx = Transaction(engine)
    tx.check(b"k1", 1)
    tx.check(b"absent", 0)
    tx.stamp(b"s", b"e", b"v", descending=True)
    version = await tx.commit()

    assert tx.version == version
    assert engine.commits[0].stamps == [Stamp(b"s", b"e", b"v", True)]
    tx = Transaction(engine)
    tx.check(b"k1", 0)
    tx.put(b"x", b"v")
    with pytest.raises(Conflict):
        await tx.commit()


async def test_many_clients_on_one_row_all_succeed(engine):
    async def body(tx):
        value = int(await tx.get(b"n") or b"0")
        await asyncio.sleep(0)
        tx.put(b"n", b"%d" % (value + 1))

    await asyncio.gather(*(transact(engine, body) for _ in range(50)))

    assert (await engine.view().get(b"n"))[0] == b"50"


def test_ranges_of_keys():
    assert prefix_end(b"a") == b"b"
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"\xff\xff") == KEY_END
    assert prefix_end(b"") == KEY_END
    assert successor(b"a") == b"a\0"


def test_merges_combine_to_what_they_do_one_after_the_other():
    one = Merge(b"n", (1, 2), (5,))
    two = Merge(b"n", (-3, 2), (4,))

    assert merged(merged(None, one), two) == merged(None, combined(one, two))
    with pytest.raises(InvalidArgument):
        combined(one, Merge(b"n", (1,), (5,)))
    with pytest.raises(InvalidArgument):
        counters(b"123", 1)


def test_limits_count_keys_and_values():
    commit = Commit(
        writes=[Write(b"abc", b"12345"), Write(b"de", None)],
        merges=[Merge(b"f", add=(1, 2))],
        stamps=[Stamp(b"g", b"h", b"123")],
    )

    assert check_limits(commit) == 8 + 2 + 17 + 13
    with pytest.raises(TooLarge):
        check_limits(Commit(merges=[Merge(b"n")]))
