"""The journal on healthy and failing stores."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.containers import format as fmt
from warp_core.containers.journal import QUEUE_MAX, Journal
from warp_core.containers.pages import unpack_page
from warp_core.containers.segments import START, Gap, Position
from warp_core.errors import (
    Busy,
    Corrupt,
    NoSpace,
    ReadOnly,
    StoreFailed,
    TooLarge,
    Unavailable,
    WritesStopped,
)

OWNER = fmt.Owner(1, 2, 3)


def open_journal(*disks, segment_size=1 << 20, **options):
    return Journal(list(disks), segment_size=segment_size, **options)


async def contents(journal, since=START):
    return [
        bytes(entry.payload)
        async for entry in journal.replay(since)
        if not isinstance(entry, Gap) and entry.kind == fmt.Kind.COMMIT
    ]


async def test_what_was_flushed_is_replayed_in_order(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        for i in range(10):
            journal.append(fmt.Kind.COMMIT, b"record %d" % i, owner=OWNER)
        await journal.flush()

    async with open_journal(disk) as again:
        found = await contents(again)

    assert found == [b"record %d" % i for i in range(10)]


async def test_a_flush_without_records_returns_at_once(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        syncs = disk.syncs

        await journal.flush()

        assert disk.syncs == syncs


async def test_everything_queued_during_a_sync_goes_with_the_next(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        syncs = disk.syncs

        async def put(i):
            journal.append(fmt.Kind.COMMIT, b"x%d" % i)
            await journal.flush()

        first = asyncio.create_task(put(0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, *(put(i) for i in range(1, 100)))

        assert disk.syncs - syncs <= 3


async def test_flush_waits_for_the_sync_of_every_copy(sim):
    fast, slow = sim.SimDisk("fast"), sim.SimDisk("slow")
    gate = asyncio.Event()
    inner = slow.sync

    async def sync(name):
        await gate.wait()
        await inner(name)

    async with open_journal(fast, slow) as journal:
        slow.sync = sync
        journal.append(fmt.Kind.COMMIT, b"x")
        flush = asyncio.create_task(journal.flush())
        for _ in range(20):
            await asyncio.sleep(0)

        assert not flush.done()

        gate.set()
        await flush


async def test_a_cancelled_flush_does_not_disturb_another(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        journal.append(fmt.Kind.COMMIT, b"x")
        one = asyncio.create_task(journal.flush())
        two = asyncio.create_task(journal.flush())
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait([one, two])

        assert one.cancelled()
        assert two.exception() is None


async def test_what_comes_while_it_closes_is_refused_and_waits_for_nobody(sim):
    disk = sim.SimDisk()
    journal = await open_journal(disk).__aenter__()
    journal.append(fmt.Kind.COMMIT, b"before")
    late = 0
    sync = disk.sync

    async def from_another_task():
        nonlocal late
        while journal.failed is None:
            await asyncio.sleep(0)
            try:
                journal.append(fmt.Kind.COMMIT, b"late")
                await journal.flush()
            except Unavailable:
                return
            late += 1

    async def slow_sync(name):
        for _ in range(20):
            await asyncio.sleep(0)
        await sync(name)

    disk.sync = slow_sync
    other = asyncio.create_task(from_another_task())
    async with asyncio.timeout(10):
        await journal.__aexit__(None, None, None)
        await other
    disk.sync = sync

    assert not journal.has_room(1)
    with pytest.raises(Unavailable, match="closed"):
        await journal.room(1)
    async with open_journal(disk) as again:
        assert await contents(again) == [b"before", *[b"late"] * late]


async def test_segments_follow_one_another(sim):
    disk = sim.SimDisk()
    payloads = [bytes([i]) * 3000 for i in range(200)]
    async with open_journal(disk, segment_size=64 * 1024) as journal:
        places = []
        for payload in payloads:
            await journal.room(len(payload))
            places.append(journal.append(fmt.Kind.COMMIT, payload))
            await journal.flush()
        assert len({place.container for place in places}) > 5

    async with open_journal(disk, segment_size=64 * 1024) as again:
        assert await contents(again) == payloads


async def test_records_of_every_size_up_to_the_limit(sim):
    disk = sim.SimDisk()
    payloads = [b"", b"a", b"b" * 65536, b"c" * 65537, b"d" * (2 << 20)]
    async with open_journal(disk, segment_size=8 << 20) as journal:
        for payload in payloads:
            await journal.room(len(payload))
            journal.append(fmt.Kind.COMMIT, payload)
        await journal.flush()
        with pytest.raises(TooLarge):
            journal.append(fmt.Kind.COMMIT, bytes(5 << 20))

    async with open_journal(disk, segment_size=8 << 20) as again:
        assert await contents(again) == payloads


async def test_a_full_queue_refuses_and_room_waits(sim):
    disk = sim.SimDisk()
    gate = asyncio.Event()
    inner = disk.sync

    async def sync(name):
        await gate.wait()
        await inner(name)

    async with open_journal(disk, segment_size=64 << 20) as journal:
        disk.sync = sync
        payload = bytes(1 << 19)
        while journal.has_room(len(payload)):
            journal.append(fmt.Kind.COMMIT, payload)
        assert journal.queued > QUEUE_MAX
        with pytest.raises(Busy):
            journal.append(fmt.Kind.COMMIT, payload)
        waiting = asyncio.create_task(journal.room(1))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()

        gate.set()
        await waiting
        journal.append(fmt.Kind.COMMIT, b"x")


async def test_a_queued_record_can_be_read_before_it_is_written(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        chunk = journal.append(fmt.Kind.PAYLOAD, b"hello", owner=OWNER)

        record = journal.queued_record(chunk)

        assert bytes(fmt.open_small(record, chunk)) == b"hello"
        await journal.flush()
        assert journal.queued_record(chunk) is None
        data = await disk.read(
            fmt.blob_name(chunk.container), offset=chunk.offset, length=chunk.stored
        )
        assert bytes(fmt.open_small(data, chunk)) == b"hello"


async def test_replay_from_a_position_skips_what_was_before(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        journal.append(fmt.Kind.COMMIT, b"one")
        await journal.flush()
        position = journal.end
        journal.append(fmt.Kind.COMMIT, b"two")
        await journal.flush()

    async with open_journal(disk) as again:
        assert await contents(again, position) == [b"two"]


async def test_released_segments_without_payload_are_deleted(sim):
    disk = sim.SimDisk()
    async with open_journal(disk, segment_size=64 * 1024) as journal:
        first = journal.append(fmt.Kind.COMMIT, b"x").container
        for _ in range(100):
            await journal.room(3000)
            journal.append(fmt.Kind.COMMIT, bytes(3000))
            await journal.flush()
        assert journal.needed(first)

        journal.release(journal.end)
        await asyncio.sleep(0.02)

        assert not journal.needed(first)
        assert fmt.blob_name(first) not in disk.blobs
        left = [name for name in disk.blobs if name.startswith("c/")]
        assert len(left) <= 2
        # What is left still forms one journal.
        end = journal.end
        journal.append(fmt.Kind.COMMIT, b"last")
        await journal.flush()

    async with open_journal(disk, segment_size=64 * 1024) as again:
        assert await again.reaches(end)
        assert not await again.reaches(START)
        assert await contents(again, end) == [b"last"]


async def test_released_segments_with_payload_are_left_to_the_containers(sim):
    disk = sim.SimDisk()
    sealed = []
    async with open_journal(disk, segment_size=64 * 1024, on_sealed=sealed.append) as journal:
        chunk = journal.append(fmt.Kind.PAYLOAD, b"p" * 100, owner=OWNER)
        for _ in range(50):
            await journal.room(3000)
            journal.append(fmt.Kind.COMMIT, bytes(3000))
            await journal.flush()
        journal.release(journal.end)
        await asyncio.sleep(0.02)

        assert fmt.blob_name(chunk.container) in disk.blobs
        assert sealed[0].container == chunk.container
        assert sealed[0].payload == fmt.align(chunk.stored)


async def test_a_failed_copy_is_left_behind_by_a_new_generation(sim):
    good, bad = sim.SimDisk("good"), sim.SimDisk("bad")
    async with open_journal(good, bad) as journal:
        journal.append(fmt.Kind.COMMIT, b"both")
        await journal.flush()
        before = journal.generation
        bad.down = StoreFailed("EIO")
        journal.append(fmt.Kind.COMMIT, b"one only")
        await journal.flush()

        assert journal.generation > before
        assert [copy.alive for copy in journal.copies] == [True, False]
        bad.down = None
        journal.append(fmt.Kind.COMMIT, b"after")
        await journal.flush()

    async with open_journal(bad, good) as again:
        assert [copy.whole for copy in again.copies] == [False, True]
        assert await contents(again) == [b"both", b"one only", b"after"]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_segment_written_without_a_copy_says_that_there_should_be_one(sim, killed):
    good, away = sim.SimDisk("good"), sim.SimDisk("away")
    away.down = StoreFailed("EIO")
    journal = await open_journal(good, away).__aenter__()
    chunk = journal.append(fmt.Kind.PAYLOAD, b"x", owner=OWNER)
    await journal.flush()
    if killed:
        await crash(journal)
        async with open_journal(good, away):
            pass
    else:
        await journal.__aexit__(None, None, None)

    page = unpack_page(good.blobs[fmt.blob_name(chunk.container)][: fmt.PAGE])
    assert (page.state, page.copies) == (fmt.State.SEALED, 2)


async def test_a_stale_copy_is_not_gone_on_with_when_the_whole_one_fails_in_recovery(sim):
    whole, stale = sim.SimDisk("whole"), sim.SimDisk("stale")
    journal = await open_journal(whole, stale).__aenter__()
    journal.append(fmt.Kind.COMMIT, b"both")
    await journal.flush()
    stale.down = StoreFailed("EIO")
    journal.append(fmt.Kind.COMMIT, b"one only")
    await journal.flush()
    journal._writer.cancel()  # killed: the segment stays open
    stale.down = None

    def failing(what, blob):
        if what in ("write", "sync"):
            raise StoreFailed("EIO")

    whole.step = failing
    with pytest.raises(StoreFailed, match="no whole copy"):
        await open_journal(stale, whole).__aenter__()

    whole.step = lambda what, blob: None
    async with open_journal(stale, whole) as again:
        assert await contents(again) == [b"both", b"one only"]


async def test_a_stale_copy_is_not_gone_on_with_when_the_whole_one_cannot_be_read(sim):
    whole, stale = sim.SimDisk("whole"), sim.SimDisk("stale")
    noted = ["whole", "stale"]

    async def leaving(living):
        noted[:] = living

    async with open_journal(whole, stale, leaving=leaving) as journal:
        journal.append(fmt.Kind.COMMIT, b"both")
        await journal.flush()
        assert noted == ["whole", "stale"]
        stale.down = StoreFailed("EIO")
        journal.append(fmt.Kind.COMMIT, b"one only")
        await journal.flush()

        assert noted == ["whole"]
    stale.down = None
    whole.down = StoreFailed("EIO")
    with pytest.raises(StoreFailed, match="no whole copy"):
        await open_journal(stale, whole, leaving=leaving, whole=noted).__aenter__()

    whole.down = None
    async with open_journal(stale, whole, leaving=leaving, whole=noted) as again:
        assert await contents(again) == [b"both", b"one only"]
        assert noted == ["stale", "whole"]


@pytest.mark.parametrize("stale", [False, True])
async def test_an_open_segment_ends_where_a_whole_copy_that_can_be_read_says(sim, stale):
    whole, other = sim.SimDisk("whole"), sim.SimDisk("other")
    journal = await open_journal(whole, other).__aenter__()
    journal.append(fmt.Kind.COMMIT, b"both")
    await journal.flush()
    if stale:
        other.down = StoreFailed("EIO")
    journal.append(fmt.Kind.COMMIT, b"the last")
    await journal.flush()
    journal._writer.cancel()  # killed: the segment stays open
    other.down = None

    def failing(what, blob):
        if what == "read" and blob.startswith("c/"):
            raise StoreFailed("EIO")

    whole.step = failing
    if stale:
        with pytest.raises(StoreFailed, match="no whole copy"):
            await open_journal(whole, other).__aenter__()
    else:
        async with open_journal(whole, other) as again:
            assert [copy.alive for copy in again.copies] == [False, True]
            assert await contents(again) == [b"both", b"the last"]

    whole.step = lambda what, blob: None
    async with open_journal(whole, other) as again:
        assert await contents(again) == [b"both", b"the last"]


async def test_a_stale_copy_is_not_completed_from_one_that_cannot_be_read(sim):
    whole, stale = sim.SimDisk("whole"), sim.SimDisk("stale")
    async with open_journal(whole, stale) as journal:
        journal.append(fmt.Kind.COMMIT, b"both")
        await journal.flush()
        stale.down = StoreFailed("EIO")
        journal.append(fmt.Kind.COMMIT, b"one only")
        await journal.flush()
    stale.down = None
    failing = iter((False, True))  # the page can be read, what follows cannot

    def step(what, blob):
        if what == "read" and blob.startswith("c/") and next(failing, False):
            raise StoreFailed("EIO")

    whole.step = step
    async with open_journal(whole, stale) as again:
        assert [copy.alive for copy in again.copies] == [True, False]
        assert await contents(again) == [b"both", b"one only"]

    whole.step = lambda what, blob: None
    async with open_journal(whole, stale) as again:
        assert [copy.alive for copy in again.copies] == [True, True]

    whole.down = StoreFailed("EIO")
    async with open_journal(stale, whole) as alone:
        assert await contents(alone) == [b"both", b"one only"]


async def test_a_copy_gets_what_it_lacks_in_few_writes(sim):
    disk, other = sim.SimDisk("disk"), sim.SimDisk("other")
    async with open_journal(disk, segment_size=8 << 20) as journal:
        for number in range(1000):
            journal.append(fmt.Kind.COMMIT, b"%d" % number * (number % 1000))
            if not number % 10:
                await journal.flush()
        await journal.flush()
        journal.abandon(Unavailable("it ends as a crash does"))
    writes = []
    other.step = lambda what, blob: writes.append(blob) if what == "write" else None

    async with open_journal(disk, other, segment_size=8 << 20) as again:
        assert len(await contents(again)) == 1000

    assert len(writes) < 20
    async with open_journal(other, segment_size=8 << 20) as alone:
        assert await contents(alone) == [b"%d" % number * (number % 1000) for number in range(1000)]


async def test_what_was_queued_when_the_journal_failed_is_lost_and_not_damaged(sim):
    disk = sim.SimDisk("only")
    async with open_journal(disk) as journal:
        kept = journal.append(fmt.Kind.PAYLOAD, b"kept")
        await journal.flush()
        disk.down = StoreFailed("EIO")
        gone = journal.append(fmt.Kind.PAYLOAD, b"gone")
        with pytest.raises(WritesStopped):
            await journal.flush()

        assert journal.lost(kept) is None
        assert isinstance(journal.lost(gone), WritesStopped)


async def test_a_failed_sync_is_not_retried_as_if_it_were_clean(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        failing = True

        def step(what, blob):
            if what == "sync" and failing:
                raise StoreFailed("EIO")

        disk.step = step
        journal.append(fmt.Kind.COMMIT, b"x")
        with pytest.raises(ReadOnly):
            await journal.flush()
        failing = False

        with pytest.raises(ReadOnly):
            journal.append(fmt.Kind.COMMIT, b"y")
        with pytest.raises(ReadOnly):
            await journal.flush()
        with pytest.raises(ReadOnly):
            await journal.room(1)


async def test_all_copies_failed_wakes_everybody_who_waits(sim):
    one, two = sim.SimDisk("1"), sim.SimDisk("2")
    async with open_journal(one, two) as journal:
        one.down = two.down = StoreFailed("EIO")
        journal.append(fmt.Kind.COMMIT, b"x")
        flushes = [asyncio.create_task(journal.flush()) for _ in range(3)]
        await asyncio.sleep(0)
        journal.append(fmt.Kind.COMMIT, b"y")
        flushes.append(asyncio.create_task(journal.flush()))

        results = await asyncio.gather(*flushes, return_exceptions=True)

        assert all(isinstance(result, ReadOnly) for result in results)


async def test_a_full_store_refuses_payloads_and_takes_commits(sim):
    disk = sim.SimDisk(capacity=200 * 1024)
    disk.reserve = 70 * 1024
    async with open_journal(disk, segment_size=64 * 1024) as journal:
        while journal.tight is None:
            await journal.room(2000)
            journal.append(fmt.Kind.PAYLOAD, bytes(2000))
            await journal.flush()
        with pytest.raises(NoSpace):
            journal.append(fmt.Kind.PAYLOAD, bytes(2000))
        commits = 0
        try:
            for _ in range(1000):
                await journal.room(200)
                journal.append(fmt.Kind.COMMIT, bytes(200))
                await journal.flush()
                commits += 1
        except NoSpace:
            pass

        assert commits > 100
        disk.capacity *= 4
        await journal.room(200)
        journal.append(fmt.Kind.COMMIT, b"room again")
        await journal.flush()


async def test_a_lost_copy_is_made_up_for_by_the_other(sim):
    one, two = sim.SimDisk("1"), sim.SimDisk("2")
    async with open_journal(one, two) as journal:
        for i in range(5):
            journal.append(fmt.Kind.COMMIT, b"%d" % i)
            await journal.flush()
    one.blobs.clear()
    one.durable.clear()

    async with open_journal(one, two) as again:
        assert await contents(again) == [b"%d" % i for i in range(5)]


def rot(disk, blob, offset, length=1):
    for at in range(offset, offset + length):
        disk.blobs[blob][at] ^= 0x55
        disk.durable[blob][at] ^= 0x55


async def crash(journal):
    """End a journal's tasks without letting it write anything."""
    for task in [journal._writer, *journal._maker.tasks]:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_rot_in_one_copy_is_read_from_the_other_and_mended(sim):
    one, two = sim.SimDisk("1"), sim.SimDisk("2")
    journal = await open_journal(one, two).__aenter__()
    chunks = []
    for i in range(5):
        chunks.append(journal.append(fmt.Kind.COMMIT, b"payload %d" % i))
        await journal.flush()
    await crash(journal)
    blob = fmt.blob_name(chunks[2].container)
    rot(one, blob, chunks[2].offset + 80)

    async with open_journal(one, two) as again:
        assert await contents(again) == [b"payload %d" % i for i in range(5)]
        assert one.blobs[blob] == two.blobs[blob]


@pytest.mark.parametrize("first", [0, 1])
async def test_copies_that_starts_which_went_no_further_sealed_at_different_ends_become_one(
    sim, first
):
    """Each copy was recovered alone, and neither start could say that the other copy is left behind: so both are whole."""
    disks = [sim.SimDisk("short"), sim.SimDisk("long")]
    journal = await open_journal(*disks).__aenter__()
    chunk = journal.append(fmt.Kind.COMMIT, b"both")
    await journal.flush()
    disks[0].down = StoreFailed("cut off")
    journal._copies.change = asyncio.Event().wait  # nobody is told that it is left behind
    journal.append(fmt.Kind.COMMIT, b"one only")
    flush = asyncio.create_task(journal.flush())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not flush.done()
    flush.cancel()
    await crash(journal)
    disks[0].down = None

    async def refused(living):
        raise StoreFailed("no quorum")

    for disk in disks:
        with pytest.raises(StoreFailed, match="no quorum"):
            await open_journal(disk, leaving=refused).__aenter__()

    async with open_journal(*disks[first:], *disks[:first]) as again:
        assert [copy.whole for copy in again.copies] == [True, True]
        found = await contents(again)
    blob = fmt.blob_name(chunk.container)
    assert disks[0].blobs[blob][fmt.PAGE :] == disks[1].blobs[blob][fmt.PAGE :]
    for disk in disks:
        async with open_journal(disk) as alone:
            assert await contents(alone) == found


@pytest.mark.parametrize("which", [0, 2, 3])
async def test_rot_below_what_was_durable_is_no_torn_tail(sim, which):
    disk = sim.SimDisk()
    journal = await open_journal(disk).__aenter__()
    chunks = []
    for i in range(6):
        chunks.append(journal.append(fmt.Kind.COMMIT, b"payload %d" % i))
        await journal.flush()
    await crash(journal)
    rot(disk, fmt.blob_name(chunks[which].container), chunks[which].offset + 20)

    async with open_journal(disk) as again:
        found = [entry async for entry in again.replay()]

    gaps = [entry for entry in found if isinstance(entry, Gap)]
    assert [gap.start for gap in gaps] == [Position(chunks[which].container, chunks[which].offset)]
    rest = [bytes(e.payload) for e in found if not isinstance(e, Gap) and e.kind == fmt.Kind.COMMIT]
    assert rest == [b"payload %d" % i for i in range(6) if i != which]


async def test_a_missing_segment_is_noticed(sim):
    disk = sim.SimDisk()
    async with open_journal(disk, segment_size=64 * 1024) as journal:
        for _ in range(100):
            await journal.room(3000)
            journal.append(fmt.Kind.COMMIT, bytes(3000))
            await journal.flush()
    names = sorted(name for name in disk.blobs if name.startswith("c/"))
    await disk.delete(names[2])

    async with open_journal(disk, segment_size=64 * 1024) as again:
        with pytest.raises(Corrupt):
            await contents(again)


async def test_epochs_grow_even_when_the_clock_goes_back(sim):
    disk = sim.SimDisk()
    now = 1_900_000_000_000_000_000
    async with open_journal(disk, wall_ns=lambda: now) as journal:
        first = journal.append(fmt.Kind.COMMIT, b"x").container
        await journal.flush()
    async with open_journal(disk, wall_ns=lambda: now - 10**18) as journal:
        second = journal.append(fmt.Kind.COMMIT, b"x").container
        await journal.flush()

    assert second > first


async def test_nothing_is_acknowledged_before_the_generation_without_the_failed_copy(sim):
    good, bad = sim.SimDisk("good"), sim.SimDisk("bad")
    async with open_journal(good, bad) as journal:
        gate, put = asyncio.Event(), good.put

        async def slow_put(name, buffers, *, vital=False):
            await gate.wait()
            await put(name, buffers, vital=vital)

        bad.down = StoreFailed("EIO")
        good.put = slow_put
        # The copy fails in the background, in something else than the write that is acknowledged.
        making = asyncio.create_task(
            journal._copies.each(lambda store: store.create("x", reserve=1))
        )
        await asyncio.sleep(0.01)
        journal.append(fmt.Kind.COMMIT, b"x")
        flush = asyncio.create_task(journal.flush())
        await asyncio.sleep(0.01)
        assert not flush.done()
        gate.set()
        await flush
        await asyncio.gather(making, return_exceptions=True)


async def test_when_every_copy_failed_in_the_background_nothing_is_acknowledged(sim):
    disk = sim.SimDisk()
    async with open_journal(disk) as journal:
        disk.down = StoreFailed("EIO")
        with pytest.raises(ReadOnly):
            await journal._copies.each(lambda store: store.delete("c/x"))
        disk.down = None
        journal.append(fmt.Kind.COMMIT, b"x")
        with pytest.raises(ReadOnly):
            await journal.flush()
