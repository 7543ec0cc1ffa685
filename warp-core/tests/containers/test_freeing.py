"""Space comes back once and for all, and never from under anybody who reads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_conformance.reference import data_plane as rig
from warp_conformance.reference.data_plane import (
    NONE,
    OWNER,
    SIZE,
    TWICE,
    Disk,
    PowerCut,
    content,
    noise,
    stream,
)
from warp_conformance.reference.stores import Medium
from warp_core.containers import Chunk, Containers, DataPolicy, Owner
from warp_core.containers.facts import DeadRanges, Knowledge, asked, clean, dead, epoch, gone
from warp_core.errors import Corrupt, Unavailable

SMALL_CHUNKS = DataPolicy(chunker="fixed:10000")
EVERYTHING = 1 << 40


async def all_of_it(containers: Containers) -> dict[str, int]:
    """Collect until nothing is left to do."""
    total: dict[str, int] = {}
    for _ in range(20):
        counts = await containers.collect(budget=EVERYTHING)
        if not any(counts.values()):
            return total
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    raise AssertionError("collecting does not come to an end")


async def seal_all(containers: Containers) -> None:
    """Seal what is open and go on: the next payloads begin other containers."""
    for shared in containers._shared.values():
        await shared.close()
    await containers._leases.close()


async def test_a_dead_container_is_deleted_on_every_store() -> None:
    media = Medium(), Medium()
    async with rig.node(*media) as containers:
        chunks = await stream(containers, noise(200_000), TWICE)
        await seal_all(containers)
        await containers.reclaim(chunks)
        assert (await all_of_it(containers))["deleted"] == 1
        assert rig.blobs(media[0]) == rig.blobs(media[1]) == []
        with pytest.raises(Corrupt):
            await containers.read(chunks[0])


async def test_pinned_space_is_not_freed_and_what_dies_after_the_pin_waits_for_it() -> None:
    async with rig.node(Medium()) as containers:
        chunks = await stream(containers, noise(200_000))
        await seal_all(containers)
        pin = containers.pin()
        await containers.reclaim(chunks)
        late = containers.pin()
        assert await all_of_it(containers) == {}
        assert await content(containers, chunks) == noise(200_000)
        late.release()
        assert await all_of_it(containers) == {}
        pin.release()
        pin.release()
        assert (await all_of_it(containers))["deleted"] == 1


async def test_a_pin_taken_after_the_reclaim_holds_nothing_back() -> None:
    async with rig.node(Medium()) as containers:
        chunks = await stream(containers, noise(200_000))
        await seal_all(containers)
        await containers.reclaim(chunks)
        pin = containers.pin()

        assert (await all_of_it(containers))["deleted"] == 1
        pin.release()


async def test_an_open_container_that_is_mostly_dead_is_sealed_and_freed() -> None:
    medium = Medium()
    async with rig.node(medium) as containers:
        streams = [await stream(containers, noise(300_000, n)) for n in range(6)]
        small = [containers.append(noise(5_000, n), owner=OWNER, policy=NONE) for n in range(10)]
        await containers.sync()
        pin = containers.pin()
        await containers.reclaim([chunk for chunks in streams[1:] for chunk in chunks] + small[1:])
        assert "deleted" not in await all_of_it(containers)
        pin.release()
        await all_of_it(containers)
        left = sum(len(medium.blobs[name].data) for name in rig.blobs(medium))
        assert left < 2 * SIZE
        assert await content(containers, streams[0]) == noise(300_000, 0)
        assert bytes(await containers.read(small[0])) == noise(5_000, 0)
        again = await stream(containers, noise(300_000, 9))
        assert await content(containers, again) == noise(300_000, 9)


async def test_containers_that_are_nearly_full_do_not_stay_open() -> None:
    async with rig.node(Medium()) as containers:
        for n in range(12):
            await stream(containers, noise(256_000, n), DataPolicy(chunker="fixed:256000"))
            writer = containers.writer(NONE, OWNER, size_hint=1_200_000)
            await writer.write(noise(1_200_000, n))
            await writer.finish()
        still_open = [entry for entry in rig.entries(containers).values() if entry.open]

        assert len(still_open) <= 4


async def test_compaction_keeps_every_chunk_readable_under_its_old_name() -> None:
    media = Medium(), Medium()
    policy = DataPolicy(redundancy="replica:2", chunker="fixed:10000")
    async with rig.node(*media) as containers:
        chunks = await stream(containers, noise(240_000), policy)
        await seal_all(containers)
        before = len(media[0].blobs[rig.blobs(media[0])[0]].data)
        alive = chunks[::3]
        await containers.reclaim([chunk for chunk in chunks if chunk not in alive])
        total = await all_of_it(containers)
        assert total["compacted"] == 1
        for n, chunk in enumerate(alive):
            assert (
                bytes(await containers.read(chunk)) == noise(240_000)[n * 30_000 :][: chunk.length]
            )
            now = containers.read_now(chunk)
            assert now is not None
            assert bytes(now) == noise(240_000)[n * 30_000 :][: chunk.length]
    for medium in media:
        (name,) = rig.blobs(medium)
        assert name.endswith(".00000001")
        assert len(medium.blobs[name].data) < before / 2

    async with rig.node(*media) as containers:
        for n, chunk in enumerate(alive):
            assert (
                bytes(await containers.read(chunk)) == noise(240_000)[n * 30_000 :][: chunk.length]
            )
        assert (await containers.scrub(deep=True)).damaged_copies == 0
        await containers.reclaim(alive[:-1])
        assert (await all_of_it(containers))["compacted"] == 1
        assert (
            bytes(await containers.read(alive[-1])) == noise(240_000)[210_000:][: alive[-1].length]
        )
        await containers.reclaim(alive[-1:])
        assert (await all_of_it(containers))["deleted"] == 1
    assert rig.blobs(media[0]) == rig.blobs(media[1]) == []


async def test_compaction_takes_what_one_copy_has_damaged_from_the_other() -> None:
    media = Medium(), Medium()
    policy = DataPolicy(redundancy="replica:2", chunker="fixed:10000")
    async with rig.node(*media) as containers:
        chunks = await stream(containers, noise(240_000), policy)
        await seal_all(containers)
        for medium, victim in zip(media, (chunks[6], chunks[12]), strict=True):
            (name,) = rig.blobs(medium)
            rig.flip(medium, name, victim.offset + victim.stored - 5)
        alive = chunks[::3]
        await containers.reclaim([chunk for chunk in chunks if chunk not in alive])
        assert (await all_of_it(containers))["compacted"] == 1
    for medium in media:
        async with rig.node(medium) as containers:
            for n, chunk in enumerate(alive):
                found = bytes(await containers.read(chunk))
                assert found == noise(240_000)[n * 30_000 :][: chunk.length]


async def test_compaction_reads_many_small_records_at_once() -> None:
    disk = Disk(Medium())
    reads = 0
    read = disk.read

    async def counted(name: str, *, offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        return await read(name, offset=offset, length=length)

    disk.read = counted  # type: ignore[method-assign]
    async with rig.node(disk) as containers:
        chunks = await stream(containers, noise(240_000), DataPolicy(chunker="fixed:1000"))
        await seal_all(containers)
        alive = chunks[::3]
        await containers.reclaim([chunk for chunk in chunks if chunk not in alive])
        before = reads
        assert (await all_of_it(containers))["compacted"] == 1
        assert len(alive) == 80
        assert reads - before < 20
        for n, chunk in enumerate(alive):
            assert bytes(await containers.read(chunk)) == noise(240_000)[n * 3_000 :][:1_000]


async def test_reads_during_compaction_never_fail() -> None:
    async with rig.node(Medium()) as containers:
        chunks = await stream(containers, noise(240_000), SMALL_CHUNKS)
        await seal_all(containers)
        alive = chunks[::4]
        done = asyncio.Event()

        async def read() -> int:
            count = 0
            while not done.is_set():
                for n, chunk in enumerate(alive):
                    assert (
                        bytes(await containers.read(chunk)) == noise(240_000)[n * 40_000 :][:10_000]
                    )
                    count += 1
            return count

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await asyncio.sleep(0)
        await containers.reclaim([chunk for chunk in chunks if chunk not in alive])
        assert (await all_of_it(containers))["compacted"] == 1
        done.set()
        assert min(await asyncio.gather(*readers)) > 0


async def test_work_is_bounded_by_its_budget() -> None:
    async with rig.node(Medium()) as containers:
        dead_ones: list[Chunk] = []
        for n in range(5):
            chunks = await stream(containers, noise(240_000, n), SMALL_CHUNKS)
            await seal_all(containers)
            dead_ones += [chunk for i, chunk in enumerate(chunks) if i % 3]
        await containers.reclaim(dead_ones)
        passes = 0
        while any((counts := await containers.collect(budget=1)).values()):
            assert counts["compacted"] == 1
            passes += 1
        assert passes == 5


async def test_write_amplification_is_bounded() -> None:
    async with rig.node(Medium()) as containers:
        source = random.Random(5)
        live: list[Chunk] = []
        written = copied = 0
        for n in range(40):
            chunks = await stream(containers, noise(100_000, n), SMALL_CHUNKS)
            written += 100_000
            live += chunks
            source.shuffle(live)
            victims, live = live[60:], live[:60]
            await containers.reclaim(victims)
            copied += (await all_of_it(containers)).get("copied_bytes", 0)
        for chunk in live:
            await containers.read(chunk)

        assert copied <= written


async def test_an_aborted_stream_leaves_nothing() -> None:
    media = Medium(), Medium()
    async with rig.node(*media) as containers:
        for size in (10, 90_000, 300_000, 1_500_000):
            writer = containers.writer(TWICE, OWNER)
            await writer.write(noise(size))
            await writer.abort()
            await writer.abort()
        await seal_all(containers)
        await all_of_it(containers)
        assert containers._pool.taken == 0
    assert rig.blobs(media[0]) == rig.blobs(media[1]) == []


async def test_discarded_payloads_are_freed() -> None:
    medium = Medium()
    async with rig.node(medium) as containers:
        chunk = containers.append(b"x" * 5000, owner=OWNER, policy=NONE)
        await containers.sync()
        containers.discard([chunk])
        await seal_all(containers)
        await all_of_it(containers)
    assert rig.blobs(medium) == []


async def test_a_store_that_was_away_does_not_bring_deleted_containers_back() -> None:
    media = Medium(), Medium(), Medium()
    async with rig.node(*media) as containers:
        chunks = await stream(
            containers, noise(200_000), DataPolicy(redundancy="replica:3", chunker="fixed:100000")
        )
    async with rig.node(media[0], media[1]) as containers:
        await containers.reclaim(chunks)
        assert (await all_of_it(containers))["deleted"] == 1
    assert rig.blobs(media[2]) != []

    async with rig.node(*media):
        pass
    assert rig.blobs(media[2]) == []


async def test_an_old_ledger_frees_nothing_that_is_alive() -> None:
    media = Medium(), Medium()
    async with rig.node(*media) as containers:
        a = await stream(containers, noise(200_000, 1), TWICE)
    async with rig.node(media[0]) as containers:
        await containers.reclaim(a[:1])
    async with rig.node(media[1]) as containers:  # its ledger knows nothing of that
        b = await stream(containers, noise(200_000, 2))
        assert await content(containers, a) == noise(200_000, 1)
    async with rig.node(*media) as containers:
        assert await content(containers, b) == noise(200_000, 2)
        assert bytes(await containers.read(a[1])) == noise(200_000, 1)[100_000:]
        await containers.reclaim(a[1:])
        assert (await all_of_it(containers))["deleted"] == 1


# Sessions that crashed ----------------------------------------------------------------------------


async def test_what_was_never_linked_is_found_after_a_crash() -> None:
    media = Medium(), Medium()
    linked, unlinked = Owner(1, 1, 1), Owner(1, 2, 2)
    async with rig.crashing(*media) as containers:
        kept = await stream(containers, noise(300_000, 1), TWICE, owner=linked)
        lost = await stream(containers, noise(300_000, 2), TWICE, owner=unlinked)
        small = containers.append(b"kept", owner=linked, policy=NONE)
        containers.append(b"lost", owner=unlinked, policy=NONE)
        await containers.sync()
        half = containers.writer(TWICE, unlinked, size_hint=None)
        await half.write(noise(1_100_000, 3))

    async with rig.node(*media) as containers:
        assert await all_of_it(containers) == {}  # nothing is freed before the namespace was asked
        asked_about: list[Owner] = []

        async def refers(owner: Owner, chunk: Chunk) -> bool:
            asked_about.append(owner)
            return owner == linked

        rounds = 0
        while not await containers.recover(refers, budget=1):
            rounds += 1
        assert rounds > 0
        assert set(asked_about) == {linked, unlinked}
        await all_of_it(containers)
        assert await content(containers, kept) == noise(300_000, 1)
        assert bytes(await containers.read(small)) == b"kept"
        for chunk in lost:
            if chunk.container not in {one.container for one in kept}:
                with pytest.raises(Corrupt):
                    await containers.read(chunk)
        await containers.reclaim([*kept, small])
        await all_of_it(containers)
    assert rig.blobs(media[0]) == rig.blobs(media[1]) == []

    async with rig.node(*media) as containers:
        asked_about.clear()
        assert await containers.recover(refers, budget=EVERYTHING)
        assert asked_about == []


async def test_after_a_clean_end_nobody_is_asked() -> None:
    medium = Medium()
    async with rig.node(medium) as containers:
        chunks = await stream(containers, noise(300_000))
    async with rig.node(medium) as containers:
        assert await containers.recover(rig.no, budget=EVERYTHING)
        await all_of_it(containers)

        assert await content(containers, chunks) == noise(300_000)


async def test_a_rotten_head_after_a_crash_is_not_freed_while_a_store_is_missing() -> None:
    media = Medium(), Medium()
    async with rig.crashing(*media) as containers:
        chunks = await stream(containers, noise(200_000), TWICE)
    for medium in media[:1]:
        rig.flip(medium, rig.blobs(medium)[0], chunks[0].offset)

    async with rig.node(media[0]) as containers:
        await containers.recover(rig.yes, budget=EVERYTHING)
        await all_of_it(containers)
        with pytest.raises((Unavailable, Corrupt)):
            await containers.read(chunks[0])
    async with rig.node(*media) as containers:
        await containers.recover(rig.yes, budget=EVERYTHING)
        await all_of_it(containers)
        assert await content(containers, chunks) == noise(200_000)


def cutter(after: int) -> Callable[[str, str], None]:
    """Return a step function that cuts the power at its call number `after`."""
    left = [after]

    def step(call: str, name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    return step


async def life(disks: list[Disk], log: dict[str, list[Chunk]]) -> None:
    """Write, reclaim, compact, delete; `log` says what was acknowledged."""
    containers = rig.make(*disks)
    await containers.__aenter__()
    policy = DataPolicy(redundancy="replica:2", chunker="fixed:20000")
    for n in range(4):
        log[f"stream{n}"] = await stream(
            containers, noise(200_000, n), policy, owner=Owner(1, n, 1)
        )
    small = [
        containers.append(noise(3_000, 50 + n), owner=Owner(1, 50 + n, 1), policy=TWICE)
        for n in range(10)
    ]
    await containers.sync()
    log["small"] = small
    await seal_all(containers)
    log["dropped"] = [*log["stream1"], *log["stream2"][1::2], *log["stream2"][::4]]
    await containers.reclaim(log["dropped"])
    log["reclaimed"] = []
    for _ in range(4):
        await containers.collect(budget=EVERYTHING)
    log["second drop"] = log["stream3"][2:]
    await containers.reclaim(log["second drop"])
    await containers.collect(budget=EVERYTHING)
    await containers.collect(budget=EVERYTHING)


async def test_a_power_cut_at_any_step_loses_no_data_and_no_space() -> None:
    steps = 0
    total = [0]

    def count(call: str, name: str) -> None:
        total[0] += 1

    await life([Disk(Medium(), count), Disk(Medium(), count)], {})
    for steps in range(0, total[0], 1 if total[0] < 150 else total[0] // 150 + 1):
        media = Medium(), Medium()
        cut = cutter(steps)
        log: dict[str, list[Chunk]] = {}
        with pytest.raises(PowerCut):
            await life([Disk(medium, cut) for medium in media], log)
        await rig.quiet()
        await check_after_cut(media, log, steps)


async def check_after_cut(
    media: tuple[Medium, Medium], log: dict[str, list[Chunk]], steps: int
) -> None:
    dropped = set(log.get("dropped", ())) | set(log.get("second drop", ()))
    alive = [
        (name, n, chunk)
        for name, chunks in log.items()
        if name.startswith("stream") or name == "small"
        for n, chunk in enumerate(chunks)
        if chunk not in dropped
    ]
    linked = {chunk for _, _, chunk in alive}

    async def refers(owner: Owner, chunk: Chunk) -> bool:
        return chunk in linked

    async with rig.node(*media) as containers:
        for _ in range(2):
            for name, n, chunk in alive:
                data = (
                    noise(3_000, 50 + n)
                    if name == "small"
                    else noise(200_000, int(name[6:]))[n * 20_000 :][:20_000]
                )
                assert bytes(await containers.read(chunk)) == data, (steps, name, n)
            await containers.reclaim(
                sorted(dropped, key=lambda c: (c.container, c.offset))
            )  # the rows are still there
            assert await containers.recover(refers, budget=EVERYTHING)
            await all_of_it(containers)
        report = await containers.scrub(deep=True)
        assert report.lost == [], steps
        await containers.heal(budget=EVERYTHING)
        await containers.reclaim(list(linked))
        await all_of_it(containers)
    for medium in media:
        assert rig.blobs(medium) == [], steps
        assert len([name for name in medium.blobs if name.startswith("ledger/")]) == 1


# Facts --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), max_size=200))
def test_dead_ranges_are_the_union_of_what_was_noted(noted: list[tuple[int, int]]) -> None:
    ranges = DeadRanges()
    model: set[int] = set()
    for offset, length in noted:
        ranges.add(offset * 8, length * 8)
        model |= set(range(offset, offset + length))

    found = ranges.ranges()
    covered = [
        unit for offset, length in found for unit in range(offset // 8, (offset + length) // 8)
    ]
    assert covered == sorted(model)
    assert ranges.bytes == 8 * len(model)
    assert all(a + n < b for (a, n), (b, _) in pairwise(found))


@given(
    st.lists(
        st.one_of(
            st.builds(
                dead,
                st.integers(1, 5),
                st.lists(
                    st.tuples(
                        st.integers(0, 99).map(lambda n: n * 8),
                        st.integers(1, 9).map(lambda n: n * 8),
                    ),
                    max_size=4,
                ),
            ),
            st.builds(gone, st.integers(1, 9)),
            st.builds(asked, st.integers(1, 9)),
            st.builds(epoch, st.integers(0, 9)),
            st.builds(clean, st.integers(0, 9)),
        ),
        max_size=30,
    ),
    st.randoms(),
)
def test_knowledge_does_not_depend_on_order_or_repetition(
    new: list[list[object]], source: random.Random
) -> None:
    def what(known: Knowledge) -> object:
        return (
            known.epoch,
            known.clean,
            {n for n in range(1, 10) if known.is_gone(n)},
            {n for n in known.asked if not known.is_gone(n)},
            {n: r.ranges() for n, r in known.dead.items() if r.ranges() and not known.is_gone(n)},
        )

    first, second, third = Knowledge(), Knowledge(), Knowledge()
    for fact in new:
        first.add(fact)
    shuffled = [*new, *new]
    source.shuffle(shuffled)
    for fact in shuffled:
        second.add(fact)
    for fact in first.facts():
        third.add(fact)

    assert what(first) == what(second) == what(third)


async def test_the_ledger_is_written_anew_when_it_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("warp_core.containers.ledger.GROWTH_MAX", 2_000)
    media = Medium(), Medium()
    async with rig.node(*media) as containers:
        for n in range(200):
            await containers.reclaim([Chunk(77, 4096 + 80 * n, 80, 4)])
        known = containers._fleet.ledger.known.dead[77].ranges()
        assert known == [(4096, 80 * 200)]
    for medium in media:
        names = [name for name in medium.blobs if name.startswith("ledger/")]
        assert len(names) == 1
    async with rig.node(media[1]) as containers:
        assert containers._fleet.ledger.known.dead[77].ranges() == known


@pytest.mark.parametrize("size", [SIZE])
async def test_every_size_of_container_ends_with_its_last_record(size: int) -> None:
    medium = Medium()
    async with rig.node(medium, container_size=size) as containers:
        chunks = await stream(containers, noise(700_000))
    for name in rig.blobs(medium):
        last = max((c for c in chunks if name == f"c/{c.container:016x}"), key=lambda c: c.offset)
        assert len(medium.blobs[name].data) == (last.offset + last.stored + 7) // 8 * 8
