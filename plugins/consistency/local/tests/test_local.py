"""The embedded engine on simulated disks: what it keeps across restarts, crashes and lost copies."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest
from warp_core.containers.journal import Journal
from warp_core.errors import (
    Ambiguous,
    ConfigError,
    Conflict,
    Corrupt,
    Expired,
    NoSpace,
    ReadOnly,
    StoreFailed,
)
from warp_core.interfaces.consistency import Commit, KeyCheck, Merge, RangeCheck, Write
from warp_core.metadata import counters, transact
from warp_local.config import Config
from warp_local.engine import Local

simdisk = pytest.importorskip("warp_conformance.reference.simdisk", reason="needs warp-conformance")


def disks(tmp_path, count=1):
    made = []
    for number in range(count):
        folder = tmp_path / f"disk{number}"
        folder.mkdir(exist_ok=True)
        made.append(simdisk.SimDisk(f"disk{number}", path=folder))
    return made


@asynccontextmanager
async def engine(stores, **options):
    options.setdefault("checkpoint_rows", 50)
    async with (
        Journal(stores, segment_size=1 << 20) as journal,
        Local(Config(**options), stores, journal) as local,
    ):
        yield local


async def start(stores, **options):
    """Start an engine that `crash` will end."""
    options.setdefault("checkpoint_rows", 50)
    journal = await Journal(stores, segment_size=1 << 20).__aenter__()
    return await Local(Config(**options), stores, journal).__aenter__()


async def crash(local, *, forget=True):
    """End an engine as if the process was killed; with `forget`, as if the power was cut."""
    journal = local._journal
    tasks = [local._imager, local._checkpointer, journal._writer, *journal._maker.tasks]
    for task in tasks:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for index in local._indexes:
        index.close()
    for copy in journal.copies:
        if forget:
            copy.store.cut(lambda name, offset, data: [])


async def put(local, key, value):
    return await local.commit(Commit(writes=[Write(key, value)]))


async def rows(local, start=b"\0", end=b"\xff"):
    view = local.view()
    found = []
    while True:
        page = await view.scan(start, end)
        found += [(row.key, row.value) for row in page]
        if len(page) < 1000:
            view.close()
            return found
        start = page[-1].key + b"\0"


async def test_a_commit_survives_a_restart(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        version = await put(local, b"k", b"v")

    async with engine(stores) as local:
        view = local.view()
        assert await view.get(b"k") == (b"v", version)
        assert await put(local, b"k", b"w") > version


async def test_a_commit_survives_a_crash_before_any_checkpoint(tmp_path):
    stores = disks(tmp_path)
    local = await start(stores)
    for i in range(10):
        await put(local, b"%d" % i, b"v")
    await crash(local)

    async with engine(stores) as local:
        assert len(await rows(local)) == 10


async def test_checkpoints_move_rows_out_of_memory_and_keep_them_visible(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        for i in range(300):
            await put(local, b"%04d" % i, b"v%d" % i)
        async with asyncio.timeout(30):
            while not local.checkpoints:
                await asyncio.sleep(0.01)

        assert await rows(local) == [(b"%04d" % i, b"v%d" % i) for i in range(300)]


async def test_a_view_keeps_its_moment_across_checkpoints(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        for i in range(100):
            await put(local, b"%04d" % i, b"old")
        view = local.view()
        for i in range(200):
            await put(local, b"%04d" % (i % 100), b"new")
            if i % 2:
                await put(local, b"%04d" % (i % 100), b"newer")
        await local.commit(Commit(writes=[Write(b"%04d" % i, None) for i in range(50)]))
        await asyncio.sleep(0.05)

        assert [row.value for row in await view.scan(b"0", b"9")] == [b"old"] * 100
        assert (await view.get(b"0007"))[0] == b"old"
        view.close()
        assert len(await rows(local)) == 50


async def test_deletes_reach_the_index(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        for i in range(120):
            await put(local, b"%04d" % i, b"v")
        for i in range(0, 120, 2):
            await put(local, b"%04d" % i, None)

    async with engine(stores) as local:
        assert [key for key, _ in await rows(local)] == [b"%04d" % i for i in range(1, 120, 2)]


async def test_counters_and_request_ids_survive_checkpoints_and_restarts(tmp_path):
    stores = disks(tmp_path)
    ids = [b"%016d" % i for i in range(200)]
    async with engine(stores) as local:
        versions = [
            await local.commit(Commit(merges=[Merge(b"n", add=(1,))], request_id=request))
            for request in ids
        ]
    local = await start(stores)
    assert [await local.outcome(request) for request in ids] == versions
    again = await local.commit(Commit(merges=[Merge(b"n", add=(1,))], request_id=ids[7]))
    assert again == versions[7]
    await local.commit(Commit(merges=[Merge(b"n", add=(1,))], request_id=b"new request id.."))
    await crash(local)

    async with engine(stores) as local:
        assert await local.outcome(b"new request id..") is not None
        view = local.view()
        assert counters((await view.get(b"n"))[0], 1) == (201,)


async def test_one_of_two_indexes_is_lost_and_made_again(tmp_path):
    stores = disks(tmp_path, 2)
    async with engine(stores) as local:
        for i in range(200):
            await put(local, b"%04d" % i, b"v")
    shutil.rmtree(stores[0].path / "meta")

    async with engine(stores) as local:
        assert len(await rows(local)) == 200
        await put(local, b"more", b"v")
    shutil.rmtree(stores[1].path / "meta")
    async with engine(stores) as local:
        assert len(await rows(local)) == 201


async def test_a_store_is_lost_with_journal_and_index(tmp_path):
    stores = disks(tmp_path, 2)
    local = await start(stores)
    for i in range(200):
        await put(local, b"%04d" % i, b"v")
    await crash(local)
    shutil.rmtree(tmp_path / "disk0")
    stores = [*disks(tmp_path, 1), stores[1]]

    async with engine(stores) as local:
        assert len(await rows(local)) == 200


async def test_a_lagging_index_is_brought_up_to_date_from_the_journal(tmp_path):
    stores = disks(tmp_path, 2)
    local = await start(stores)
    for i in range(40):
        await put(local, b"%04d" % i, b"v")
    second = local._indexes[1]
    kept = second.apply
    second.apply = lambda *arguments: (_ for _ in ()).throw(StoreFailed("as if killed between"))
    await local.checkpoint()
    second.apply = kept
    assert local._indexes[0].state.version == 40
    local._journal._released = local._journal._released.__class__(0, 0)
    await crash(local)

    async with engine(stores) as local:
        assert [index.state.version for index in local._indexes] == [40, 40]
    shutil.rmtree(tmp_path / "disk0" / "meta")
    async with engine(stores) as local:
        assert len(await rows(local)) == 40


async def test_losing_every_index_is_told_and_not_papered_over(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        for i in range(60):
            await put(local, b"%04d" % i, bytes(60_000))
        await local.checkpoint()
        await local.image()
    shutil.rmtree(tmp_path / "disk0" / "meta")

    with pytest.raises(Corrupt, match="warp fsck --rebuild"):
        async with engine(stores):
            pass


async def test_a_short_journal_alone_makes_the_index_again(tmp_path):
    stores = disks(tmp_path)
    local = await start(stores, checkpoint_rows=10_000)
    for i in range(60):
        await put(local, b"%04d" % i, b"v")
    await crash(local)
    shutil.rmtree(tmp_path / "disk0" / "meta")

    async with engine(stores) as local:
        assert len(await rows(local)) == 60


async def test_a_failed_journal_stops_writes_and_leaves_reads(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        await put(local, b"k", b"v")
        stores[0].down = StoreFailed("EIO")
        with pytest.raises(Ambiguous):
            await put(local, b"k", b"w")
        with pytest.raises(ReadOnly):
            await put(local, b"k", b"x")
        view = local.view()
        assert (await view.get(b"k"))[0] == b"v"
        stores[0].down = None
        with pytest.raises(ReadOnly):
            await put(local, b"k", b"x")


async def test_what_is_not_durable_yet_is_not_visible(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        gate = asyncio.Event()
        inner = stores[0].sync

        async def sync(name):
            await gate.wait()
            await inner(name)

        stores[0].sync = sync
        commit = asyncio.create_task(put(local, b"k", b"v"))
        for _ in range(10):
            await asyncio.sleep(0)
        view = local.view()
        assert await view.get(b"k") is None
        gate.set()
        await commit
        assert await view.get(b"k") is None
        fresh = local.view()
        assert (await fresh.get(b"k"))[0] == b"v"


async def test_a_loser_retries_after_the_winner_is_durable(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:

        async def increment(tx):
            value = await tx.get(b"n")
            tx.put(b"n", b"%d" % (int(value or b"0") + 1))

        await asyncio.gather(*(transact(local, increment) for _ in range(50)))

        view = local.view()
        assert (await view.get(b"n"))[0] == b"50"


async def test_a_range_check_sees_deletes_that_went_to_the_index(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores) as local:
        await put(local, b"a", b"v")
        view = local.view()
        await put(local, b"a", None)
        await local.checkpoint()

        with pytest.raises(Conflict):
            await local.commit(
                Commit(checks=[RangeCheck(b"a", b"b", view.version)], writes=[Write(b"z", b"1")])
            )
        with pytest.raises(Conflict):
            await local.commit(
                Commit(checks=[KeyCheck(b"a", view.version)], writes=[Write(b"z", b"")])
            )


async def test_many_commits_share_one_sync(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores, checkpoint_rows=10_000) as local:
        before = stores[0].syncs
        await asyncio.gather(*(put(local, b"%d" % i, b"v") for i in range(500)))

        assert stores[0].syncs - before <= 3


async def test_memory_of_the_overlay_is_bounded(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores, checkpoint_rows=20) as local:
        most = 0

        async def work(i):
            nonlocal most
            await put(local, b"%d" % i, b"v")
            most = max(most, local._rows.logged_rows)

        for step in range(20):
            await asyncio.gather(*(work(step * 100 + i) for i in range(100)))

        assert most <= 8 * 20 + 101


async def test_without_a_journal_or_a_path_it_says_so(tmp_path):
    with pytest.raises(ConfigError, match="journal"):
        Local(Config(), [], None)
    stores = [simdisk.SimDisk()]
    async with Journal(stores) as journal:
        with pytest.raises(ConfigError, match="local path"):
            await Local(Config(), stores, journal).__aenter__()


async def test_indexes_of_different_servers_are_refused(tmp_path):
    one, two = disks(tmp_path, 2)
    async with engine([one]) as local:
        await put(local, b"k", b"one")
    async with engine([two]) as local:
        await put(local, b"k", b"two")

    with pytest.raises((ConfigError, Corrupt)):
        async with engine([one, two]):
            pass


async def test_a_full_disk_stops_new_commits_only_when_memory_is_full_and_recovers(tmp_path):
    stores = disks(tmp_path)
    async with engine(stores, checkpoint_rows=20) as local:
        index = local._indexes[0]
        apply, full = index.apply, True

        def no_space(*arguments):
            if full:
                raise NoSpace("the disk is full")
            return apply(*arguments)

        index.apply = no_space
        done = 0

        async def fill():
            nonlocal done
            for i in range(1000):
                await put(local, b"%04d" % i, b"v")
                done += 1
                await asyncio.sleep(0)

        with pytest.raises(NoSpace):
            await fill()
        assert done >= 8 * 20
        assert len(await rows(local)) == done
        full = False
        await asyncio.sleep(1.2)

        await put(local, b"more", b"v")
        assert len(await rows(local)) == done + 1

    async with engine(stores) as local:
        assert len(await rows(local)) == done + 1


async def test_an_index_that_fails_is_left_for_the_other(tmp_path):
    stores = disks(tmp_path, 2)
    async with engine(stores, checkpoint_rows=20) as local:

        def broken(*arguments):
            raise StoreFailed("EIO")

        local._indexes[0].apply = broken
        for i in range(100):
            await put(local, b"%04d" % i, b"v")
        await local.checkpoint()

        assert local._indexes[0].failed
        assert local._rows.base is local._indexes[1]
        assert len(await rows(local)) == 100

    async with engine(stores) as local:
        assert [index.state.version for index in local._indexes] == [100, 100]


async def test_views_that_are_never_closed_do_not_hold_checkpoints_for_ever(tmp_path):
    stores = disks(tmp_path)
    now = 0.0
    async with Journal(stores) as journal:
        local = Local(Config(checkpoint_rows=20), stores, journal, lambda: now)
        async with local:
            await put(local, b"a", b"v")
            leaked = local.view()
            for i in range(30):
                await put(local, b"%d" % i, b"v")
            await asyncio.sleep(0.1)
            assert local.checkpoints == 0
            now += 10
            async with asyncio.timeout(30):
                while not local.checkpoints:
                    await asyncio.sleep(0.01)

            assert local.checkpoints == 1
            with pytest.raises(Expired):
                await leaked.get(b"a")
