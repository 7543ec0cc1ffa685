"""Several nodes on one cluster: what one is told, all know."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from warp_core.cluster.alone import fenced
from warp_core.errors import Conflict, Expired, Fenced, Locked, Unsupported
from warp_core.interfaces.consistency import (
    COMMIT_MAX,
    KEY_MAX,
    WRITES_MAX,
    Change,
    Commit,
    KeyCheck,
    Merge,
    RangeCheck,
    Stamp,
    Write,
)
from warp_core.metadata import Transaction, counters, transact
from warp_etcd import cluster, committer
from warp_etcd.client import COMPACT, RANGE, TXN
from warp_etcd.config import Config
from warp_etcd.engine import Etcd
from warp_etcd.wire import etcd_pb2 as pb

Open = Callable[..., Any]


@pytest.fixture
async def another(one_member: Any, prefix: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Open nodes on the same rows."""
    async with AsyncExitStack() as stack:

        async def opened(
            *, monotonic: Callable[[], float] = time.monotonic, **options: Any
        ) -> Etcd:
            endpoints = tuple(server.endpoint for server in one_member)
            config = Config(endpoints=endpoints, prefix=prefix, **options)
            store = Etcd(config, tmp_path, monotonic=monotonic)
            return await stack.enter_async_context(store)

        yield opened


async def value(store: Etcd, key: bytes) -> bytes | None:
    view = store.view()
    row = await view.get(key)
    view.close()
    return row and row[0]


async def first(store: Etcd, prefix: bytes, since: int, count: int) -> list[Change]:
    found = []
    async for change in store.watch(prefix, since):
        found.append(change)
        if len(found) == count:
            break
    return found


async def test_what_one_node_committed_another_reads_at_once(another: Open) -> None:
    one, two = await another(), await another()
    for number in range(20):
        version = await one.commit(Commit(writes=[Write(b"k", b"%d" % number)]))
        view = two.view()

        assert await view.get(b"k") == (b"%d" % number, version)
        assert view.version == version


async def test_serializable_reads_show_what_this_node_committed(another: Open) -> None:
    store = await another(reads="serializable")
    for number in range(20):
        version = await store.commit(Commit(writes=[Write(b"k", b"%d" % number)]))

        assert await store.view().get(b"k") == (b"%d" % number, version)
    assert store.capabilities.promise == "serializable"


async def test_nodes_that_commit_at_once_lose_nothing(another: Open) -> None:
    nodes = [await another() for _ in range(3)]

    async def client(node: Etcd, name: int) -> list[int]:
        return [
            await node.commit(
                Commit(
                    writes=[Write(b"k%d/%d" % (name, number), b"v")],
                    merges=[Merge(b"n", add=(1, name))],
                    stamps=[Stamp(b"log/", b"%d/%d" % (name, number), b"v")],
                )
            )
            for number in range(15)
        ]

    found = await asyncio.gather(
        *(client(node, 3 * name + at) for name in range(4) for at, node in enumerate(nodes))
    )
    versions = [version for each in found for version in each]
    assert len(set(versions)) == 180
    assert all(each == sorted(each) for each in found)
    for node in nodes:
        assert counters(await value(node, b"n"), 2) == (180, 15 * sum(range(12)))
        rows = await node.view().scan(b"log/", b"log0")
        assert [int.from_bytes(row.key[4:12], "big") for row in rows] == sorted(versions)
        assert [row.version for row in rows] == sorted(versions)


async def test_updates_of_several_nodes_are_serializable(another: Open) -> None:
    nodes = [await another() for _ in range(2)]

    async def increment(tx: Transaction) -> None:
        old = int(await tx.get(b"n") or b"0")
        rows = await tx.scan(b"done/", b"done0")
        assert len(rows) == old  # a phantom would show here
        tx.put(b"n", b"%d" % (old + 1))
        tx.put(b"done/%04d" % old, b"")

    await asyncio.gather(*(transact(nodes[i % 2], increment) for i in range(24)))

    assert await value(nodes[0], b"n") == b"24"


async def test_a_row_that_another_node_deleted_may_be_created(another: Open) -> None:
    one, two = await another(), await another()
    await one.commit(Commit(writes=[Write(b"k", b"v")]))
    assert await value(two, b"k") == b"v"
    await one.commit(Commit(writes=[Write(b"k", None)]))
    await two.commit(Commit(writes=[Write(b"other", b"v")]))
    await two.commit(Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"again")]))
    with pytest.raises(Conflict):
        await one.commit(Commit(checks=[KeyCheck(b"k", 0)]))

    assert await value(one, b"k") == b"again"


async def test_a_row_that_another_node_deleted_is_a_change_of_its_range(another: Open) -> None:
    one, two = await another(), await another()
    await one.commit(Commit(writes=[Write(b"d/1", b"v"), Write(b"d/2", b"v")]))
    view = two.view()
    assert len(await view.scan(b"d/", b"d0")) == 2
    await one.commit(Commit(writes=[Write(b"d/1", None)]))

    with pytest.raises(Conflict):
        await two.commit(Commit(checks=[RangeCheck(b"d/", b"d0", view.version)]))
    fresh = two.view()
    await fresh.scan(b"d/", b"d0")
    await two.commit(Commit(checks=[RangeCheck(b"d/", b"d0", fresh.version)]))


async def test_a_request_that_one_node_applied_is_known_to_the_others(another: Open) -> None:
    one, two = await another(), await another()
    request = os.urandom(16)
    commit = Commit(merges=[Merge(b"n", add=(1,))], request_id=request)
    version = await one.commit(commit)

    assert await two.outcome(request) == version
    assert await two.commit(commit) == version
    assert await (await another()).commit(commit) == version
    assert await two.outcome(os.urandom(16)) is None
    assert counters(await value(two, b"n"), 1) == (1,)


async def test_a_node_that_was_away_while_the_log_was_cut_goes_on(
    another: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "LOG_KEPT_S", 0.0)
    monkeypatch.setattr(committer, "LOG_CUT_MIN", 5)
    one, two = await another(), await another()
    await two.commit(Commit(merges=[Merge(b"n", add=(1,))]))
    old = two.view()
    await old.get(b"n")
    version = old.version
    for _ in range(30):
        await one.commit(Commit(merges=[Merge(b"n", add=(1,))]))

    with pytest.raises(Conflict):
        await two.commit(Commit(checks=[RangeCheck(b"a", b"z", version)]))
    await two.commit(Commit(merges=[Merge(b"n", add=(1,))]))
    assert counters(await value(one, b"n"), 1) == (32,)
    with pytest.raises(Expired):
        await first(two, b"", version, 1)


# Watching -------------------------------------------------------------------------------------------


async def test_a_watch_shows_what_other_nodes_commit(another: Open) -> None:
    one, two = await another(), await another()
    since = await one.commit(Commit())
    watching = asyncio.create_task(first(two, b"k", since, 3))
    versions = [
        await one.commit(Commit(writes=[Write(b"k%d" % number, b"v")])) for number in range(3)
    ]

    assert await watching == [
        Change(b"k%d" % number, b"v", version) for number, version in enumerate(versions)
    ]


async def test_a_watch_goes_on_after_etcd_was_compacted(another: Open) -> None:
    store = await another()
    since = await store.commit(Commit())
    changes = store.watch(b"k", since)
    seen = []
    for number in range(20):
        await store.commit(Commit(writes=[Write(b"k%02d" % number, b"v")]))
        seen.append((await anext(changes)).key)
        if number % 5 == 2:
            await compact(store)

    assert seen == [b"k%02d" % number for number in range(20)]


async def test_a_watch_from_before_a_compaction_has_no_hole_or_says_so(another: Open) -> None:
    store = await another()
    since = await store.commit(Commit())
    for number in range(5):
        await store.commit(Commit(writes=[Write(b"k%d" % number, b"v")]))
    await compact(store)
    last = await store.commit(Commit(writes=[Write(b"k5", b"v")]))

    with pytest.raises(Expired):
        await first(store, b"k", since, 6)
    assert await first(store, b"k", last - 1, 1) == [Change(b"k5", b"v", last)]


async def compact(store: Etcd) -> None:
    """Compact etcd up to now."""
    revision, _, _ = await store._reader.moment()
    await store._client.call(COMPACT, pb.CompactionRequest(revision=revision, physical=True))


async def test_a_view_from_before_a_compaction_is_expired(another: Open) -> None:
    store = await another()
    await store.commit(Commit(writes=[Write(b"k", b"v")]))
    view = store.view()
    assert await view.get(b"k")
    await store.commit(Commit(writes=[Write(b"k", b"w")]))
    await compact(store)

    with pytest.raises(Expired):
        await view.get(b"k")


# Leases ---------------------------------------------------------------------------------------------


async def test_a_lease_of_another_node_is_respected_and_then_taken(another: Open) -> None:
    one, two = await another(), await another()
    lease = await one.lease("home", "one", 1.0)
    with pytest.raises(Locked):
        await two.lease("home", "two", 1.0)
    await one.renew(lease)
    began = asyncio.get_running_loop().time()
    while True:
        try:
            taken = await two.lease("home", "two", 5.0)
            break
        except Locked:
            await asyncio.sleep(0.1)

    assert asyncio.get_running_loop().time() - began >= 0.9
    assert taken.token > lease.token
    with pytest.raises(Fenced):
        await one.renew(lease)


async def test_a_lease_that_nobody_renewed_for_its_time_is_over_before_etcd_says_so(
    another: Open,
) -> None:
    ahead_s = 0.0
    one, two = await another(), await another(monotonic=lambda: time.monotonic() + ahead_s)
    lease = await one.lease("home", "one", 600.0)
    with pytest.raises(Locked):
        await two.lease("home", "two", 600.0)
    ahead_s += 590.0  # it is watched since a moment after it was granted, not for its time
    with pytest.raises(Locked):
        await two.lease("home", "two", 600.0)
    await one.renew(lease)
    ahead_s += 590.0
    with pytest.raises(Locked):  # seen anew
        await two.lease("home", "two", 600.0)
    ahead_s += 606.5

    taken = await two.lease("home", "two", 600.0)

    assert taken.token > lease.token
    with pytest.raises(Fenced):
        await one.renew(lease)
    assert await two.renew(taken) == taken


async def test_a_lease_of_a_release_that_did_not_rewrite_its_row_ends_with_etcds(
    another: Open,
) -> None:
    ahead_s = 0.0
    one, two = await another(), await another(monotonic=lambda: time.monotonic() + ahead_s)
    await one.lease("home", "one", 600.0)
    key = one._layout.lease("home")
    found = await one._client.call(RANGE, pb.RangeRequest(key=key))
    former = msgspec.msgpack.encode([1, "one", 600.0])
    put = pb.PutRequest(key=key, value=former, lease=found.kvs[0].lease)
    await one._client.call(TXN, pb.TxnRequest(success=[pb.RequestOp(request_put=put)]))

    with pytest.raises(Locked):
        await two.lease("home", "two", 600.0)
    ahead_s += 10_000.0
    with pytest.raises(Locked):
        await two.lease("home", "two", 600.0)


async def test_a_holder_that_asks_through_another_node_fences_itself(another: Open) -> None:
    one, two = await another(), await another()
    old = await one.lease("home", "a", 30.0)
    new = await two.lease("home", "a", 30.0)

    assert new.token > old.token
    with pytest.raises(Fenced):
        await one.renew(old)
    await two.renew(new)


async def test_a_node_alone_is_fenced_against_what_its_earlier_run_sent(another: Open) -> None:
    killed, again = await another(), await another()
    before = await fenced(killed, "n")
    await before.commit(Commit(writes=[Write(b"k", b"acknowledged")]))
    now = await fenced(again, "n")

    with pytest.raises(Fenced):
        await before.commit(Commit(writes=[Write(b"k", b"late")]))

    assert await value(again, b"k") == b"acknowledged"
    await now.commit(Commit(writes=[Write(b"k", b"newer")]))
    assert await value(again, b"k") == b"newer"


async def test_leases_are_given_back_when_a_node_stops(
    another: Open, one_member: Any, prefix: str, tmp_path: Path
) -> None:
    config = Config(endpoints=(one_member[0].endpoint,), prefix=prefix)
    async with Etcd(config, tmp_path) as leaving:
        lease = await leaving.lease("home", "a", 600.0)

    assert (await (await another()).lease("home", "b", 1.0)).token > lease.token


# Limits ---------------------------------------------------------------------------------------------


async def test_the_largest_commit_is_taken_with_the_limits_of_a_cluster_as_it_comes(
    another: Open,
) -> None:
    store = await another()
    size = (COMMIT_MAX - WRITES_MAX * KEY_MAX) // WRITES_MAX
    rows = [Write(b"%0480d" % number, bytes(size)) for number in range(WRITES_MAX)]
    await store.commit(Commit(writes=rows))

    assert len(await store.view().scan(b"0", b"1")) == WRITES_MAX


async def test_a_batch_fills_what_a_transaction_of_the_cluster_holds(another: Open) -> None:
    store = await another()
    versions = await asyncio.gather(
        *(
            store.commit(Commit(writes=[Write(b"%d/%d" % (i, j), b"v") for j in range(7)]))
            for i in range(100)
        )
    )

    assert len(set(versions)) == 100
    assert len(await store.view().scan(b"0", b":")) == 700


async def test_a_cluster_with_limits_too_low_is_refused_with_the_flag_to_set(
    new_cluster: Callable[..., Any], tmp_path: Path
) -> None:
    for flag in ("--max-txn-ops=64", "--max-request-bytes=1000000"):
        (server,) = new_cluster(1, "--unsafe-no-fsync", flag)
        with pytest.raises(Unsupported, match=flag.partition("=")[0]):
            async with Etcd(Config(endpoints=(server.endpoint,)), tmp_path):
                pass


@pytest.mark.parametrize("version", ["3.4.21", "3.5.0", "3.5.5", "3.3.27", "?"])
def test_releases_that_lose_data_are_refused(version: str) -> None:
    with pytest.raises(Unsupported):
        cluster.refuse_release(version)


@pytest.mark.parametrize("version", ["3.4.22", "3.4.23", "3.5.6", "3.6.0"])
def test_sound_releases_are_taken(version: str) -> None:
    try:
        cluster.refuse_release(version)
    except Unsupported as refused:
        pytest.fail(str(refused))


async def test_the_tail_of_a_long_range_is_found(another: Open) -> None:
    store = await another()
    keys = [b"log/" + number.to_bytes(8, "big") for number in range(1000, 2500)]
    for at in range(0, len(keys), WRITES_MAX):
        await store.commit(Commit(writes=[Write(key, b"v") for key in keys[at : at + WRITES_MAX]]))
    view = store.view()

    for limit in (1, 3, 200):
        rows = await view.scan(b"log/", b"log0", limit=limit, reverse=True)
        assert [row.key for row in rows] == keys[: -limit - 1 : -1]
    rows = await view.scan(b"log/", keys[700], limit=2, reverse=True)
    assert [row.key for row in rows] == [keys[699], keys[698]]
