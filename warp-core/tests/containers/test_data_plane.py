"""What goes in comes out, or an error says which range of what is lost."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warp_conformance.reference import data_plane as rig
from warp_conformance.reference.data_plane import (
    NONE,
    OWNER,
    SIZE,
    TWICE,
    Disk,
    content,
    noise,
    stream,
)
from warp_conformance.reference.stores import Medium
from warp_core.containers import Chunk, DataPolicy
from warp_core.containers.format import PAGE
from warp_core.errors import (
    Busy,
    Corrupt,
    InvalidArgument,
    NoSpace,
    NotFound,
    OutOfRange,
    StoreFailed,
    TooLarge,
    Unavailable,
    Unsupported,
)
from warp_core.layers.faulty import FaultyStore, Script

POLICIES = [
    NONE,
    TWICE,
    DataPolicy(chunker="fixed:100000", filters=("zip",)),
    DataPolicy(chunker="fixed:100000", filters=("zip", "bind")),
    DataPolicy(chunker="marks", redundancy="replica:2"),
    DataPolicy(chunker="marks", filters=("bind",)),
    DataPolicy(chunker="fixed:65536"),
]


# In and out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
async def test_small_payloads_read_back_before_and_after_they_are_synced(
    policy: DataPolicy,
) -> None:
    async with rig.node(Medium(), Medium()) as containers:
        for size in (1, 100, 4096, 65536, 65537, 300_000):
            data = noise(size, size)[: size // 2] + bytes(size - size // 2)
            chunk = containers.append(data, owner=OWNER, policy=policy)
            assert chunk.length == size
            for _ in range(2):
                now = containers.read_now(chunk)
                assert now is None or bytes(now) == data
                assert bytes(await containers.read(chunk)) == data
                assert (
                    bytes(await containers.read(chunk, offset=size // 3, length=size // 2))
                    == data[size // 3 :][: size // 2]
                )
                await containers.sync()
            buffer = bytearray(size)
            await containers.read_into(chunk, offset=0, buffer=memoryview(buffer))
            assert buffer == data
            assert size > 1 or bytes(containers.read_now(chunk) or b"") == data


@given(
    size=st.one_of(
        st.integers(0, 3_000),
        st.integers(0, 2_500_000),
        st.sampled_from([65536, 100_000, 1 << 20, 2 << 20]),
    ),
    splits=st.lists(st.integers(1, 900_000), max_size=6),
    hint=st.one_of(st.none(), st.integers(0, 3_000_000)),
    policy=st.sampled_from(POLICIES),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_streams_of_any_size_read_back(
    size: int, splits: list[int], hint: int | None, policy: DataPolicy
) -> None:
    data = (noise(1000, size) + bytes(500)) * (size // 1500 + 1)
    data = data[:size]
    async with rig.node(Medium(), Medium()) as containers:
        writer = containers.writer(policy, OWNER, size_hint=hint)
        at = 0
        for length in [*splits, size]:
            await writer.write(data[at : at + length])
            at += length
        found = await writer.finish()

        assert writer.size == size
        assert await content(containers, [chunk for _, chunk in found]) == data
        offsets = [offset for offset, _ in found]
        assert offsets == [0, *offsets[1:]][: len(offsets)]
        assert all(a + chunk.length == b for (a, chunk), (b, _) in pairwise(found))
        assert containers._pool.taken == 0
        for _, chunk in found[:3]:
            middle = chunk.length // 2
            part = data[found[0][0] :][: chunk.length] if chunk is found[0][1] else None
            if part is not None:
                assert (
                    bytes(await containers.read(chunk, offset=middle, length=chunk.length - middle))
                    == part[middle:]
                )


async def test_buffers_are_received_into_without_a_copy() -> None:
    data = noise(2_700_000)
    async with rig.node(Medium()) as containers:
        writer = containers.writer(NONE, OWNER, size_hint=None)
        at = 0
        while at < len(data):
            free = writer.buffer()
            assert len(free) > 0
            count = min(len(free), len(data) - at, 333_333)
            free[:count] = data[at : at + count]
            at += count
            if writer.wrote(count):
                await writer.drain()
        chunks = [chunk for _, chunk in await writer.finish()]

        assert await content(containers, chunks) == data


async def test_reads_into_a_buffer_are_verified_whatever_their_range() -> None:
    media = Medium(), Medium()
    data = noise(400_000)
    policy = DataPolicy(redundancy="replica:2", chunker="fixed:400000")
    async with rig.node(*media) as containers:
        (chunk,) = await stream(containers, data, policy)
    first = rig.entries(containers)[chunk.container].copies[0].slot.name
    rig.flip(media[int(first[1])], rig.blobs(media[0])[0], chunk.offset + 150_000)
    async with rig.node(*media) as containers:
        for offset, length in (
            (0, 65536),
            (65536, 131072),
            (131072, 400_000 - 131072),
            (5, 100),
            (0, 400_000),
            (399_999, 1),
            (65536, 10),
        ):
            buffer = bytearray(length)
            await containers.read_into(chunk, offset=offset, buffer=memoryview(buffer))
            assert buffer == data[offset : offset + length]
        with pytest.raises(OutOfRange):
            await containers.read_into(chunk, offset=65536, buffer=memoryview(bytearray(400_000)))


async def test_streams_at_once_do_not_mix() -> None:
    async with rig.node(Medium(), Medium()) as containers:
        payloads = [noise(700_000 + n, n) for n in range(12)]
        chunks = await asyncio.gather(*(stream(containers, data, TWICE) for data in payloads))

        assert [await content(containers, each) for each in chunks] == payloads
        assert containers._pool.taken == 0


async def test_ranges_outside_a_chunk_are_refused() -> None:
    async with rig.node(Medium()) as containers:
        chunk = containers.append(b"x" * 100, owner=OWNER, policy=NONE)
        await containers.sync()
        for offset, length in ((0, 101), (100, 1), (-1, 5), (5, -1)):
            with pytest.raises(OutOfRange):
                await containers.read(chunk, offset=offset, length=length)

        assert bytes(await containers.read(chunk, offset=100, length=0)) == b""


async def test_policies_that_cannot_be_kept_are_refused_by_name() -> None:
    async with rig.node(Medium(), Medium()) as containers:
        three = DataPolicy(redundancy="replica:3", chunker="fixed:100000")
        with pytest.raises(Unavailable, match=r"3 copies need 3 stores; 2 here \(s0, s1\)"):
            containers.append(b"x", owner=OWNER, policy=three)
        with pytest.raises(Unavailable, match="3 copies"):
            containers.writer(three, OWNER)
        with pytest.raises(Unsupported):
            containers.writer(DataPolicy(redundancy="rs:4+2"), OWNER)
        for redundancy in ("replica:0", "replica:9", "replica", "twice"):
            with pytest.raises(InvalidArgument):
                containers.append(b"x", owner=OWNER, policy=DataPolicy(redundancy=redundancy))
        with pytest.raises(NotFound):
            containers.writer(DataPolicy(chunker="none-such"), OWNER)
        with pytest.raises(InvalidArgument):
            containers.writer(DataPolicy(chunker="zip"), OWNER)
        with pytest.raises(InvalidArgument, match="compress before encrypt"):
            containers.writer(DataPolicy(chunker="fixed:100", filters=("bind", "zip")), OWNER)
        with pytest.raises(TooLarge):
            containers.append(bytes((1 << 20) + 1), owner=OWNER, policy=NONE)


async def test_what_is_queued_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warp_core.containers.shared.QUEUED_MAX", 100_000)
    async with rig.node(Medium()) as containers:
        for _ in range(10):
            containers.append(bytes(10_000), owner=OWNER, policy=NONE)
        with pytest.raises(Busy):
            containers.append(bytes(10_000), owner=OWNER, policy=NONE)
        await containers.room(10_000)

        containers.append(bytes(10_000), owner=OWNER, policy=NONE)


# Durability ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES[:4], ids=repr)
async def test_what_was_synced_outlives_a_power_cut(policy: DataPolicy) -> None:
    media = Medium(), Medium()
    async with rig.crashing(*media) as containers:
        small = [
            containers.append(noise(n * 500 + 1, n), owner=OWNER, policy=policy) for n in range(20)
        ]
        await containers.sync()
        large = await stream(containers, noise(900_000), policy)
        unsynced = containers.append(b"gone" * 100, owner=OWNER, policy=policy)

    async with rig.node(*media) as containers:
        for n, chunk in enumerate(small):
            assert bytes(await containers.read(chunk)) == noise(n * 500 + 1, n)
        assert await content(containers, large) == noise(900_000)
        with pytest.raises((Corrupt, Unavailable)):
            await containers.read(unsynced)


async def test_no_id_is_used_twice() -> None:
    medium = Medium()
    seen: set[int] = set()
    for _ in range(4):
        async with rig.crashing(medium, now_ns=lambda: 1_800_000_000_000_000_000) as containers:
            chunks = await stream(containers, noise(600_000))
            ids = {chunk.container for chunk in chunks}
            assert not ids & seen
            seen |= ids


async def test_a_store_that_fails_under_a_stream_is_replaced() -> None:
    media = Medium(), Medium(), Medium()
    script = Script.parse(["write:error@4-", "create:error@4-"])
    stores = [FaultyStore(Disk(media[0]), script), Disk(media[1]), Disk(media[2])]
    data = noise(1_500_000)
    async with rig.crashing(*stores) as containers:
        chunks = await stream(containers, data, TWICE)
        assert script.fired

    for lost in range(3):
        async with rig.node(*[m for n, m in enumerate(media) if n != lost]) as containers:
            if lost == 0:
                assert await content(containers, chunks) == data
            else:
                assert all(len(containers._fleet.copies(chunk.container)) >= 1 for chunk in chunks)
                assert await content(containers, chunks) == data


@pytest.mark.parametrize(
    "fault",
    [
        "write:error@5",
        "sync:error@2",
        "write:full@5",
        "write:torn@4",
        "sync:error@1-",
        "create:error@2",
    ],
)
async def test_nothing_is_acknowledged_that_has_too_few_copies(fault: str) -> None:
    script = Script.parse([fault])
    media = Medium(), Medium()
    data = noise(1_200_000)
    async with rig.crashing(FaultyStore(Disk(media[0]), script), Disk(media[1])) as containers:
        try:
            chunks = await stream(containers, data, TWICE)
        except (StoreFailed, NoSpace, Unavailable):
            return
    for lost in range(2):
        async with rig.node(media[1 - lost]) as containers:
            assert await content(containers, chunks) == data


async def test_a_failed_sync_is_told_to_everybody_who_waits_and_the_next_payload_goes_elsewhere() -> (
    None
):
    script = Script.parse(["write:error c/*"])
    script.enabled = False
    async with rig.crashing(FaultyStore(Disk(Medium()), script)) as containers:
        good = containers.append(b"good", owner=OWNER, policy=NONE)
        await containers.sync()
        script.enabled = True
        lost = containers.append(b"lost", owner=OWNER, policy=NONE)
        with pytest.raises(StoreFailed):
            await containers.sync()
        script.enabled = False
        after = containers.append(b"after", owner=OWNER, policy=NONE)
        await containers.sync()

        assert bytes(await containers.read(good)) == b"good"
        assert bytes(await containers.read(after)) == b"after"
        assert after.container != lost.container
        with pytest.raises((Corrupt, Unavailable)):
            await containers.read(lost)


async def test_two_who_share_a_failed_sync_are_both_told() -> None:
    script = Script.parse(["write:error c/*"])
    script.enabled = False
    async with rig.crashing(FaultyStore(Disk(Medium()), script)) as containers:
        containers.append(b"good", owner=OWNER, policy=NONE)
        await containers.sync()
        script.enabled = True

        async def keep(payload: bytes) -> None:
            containers.append(payload, owner=OWNER, policy=NONE)
            await containers.sync()

        told = await asyncio.gather(*map(keep, (b"1", b"2", b"3")), return_exceptions=True)

        assert [type(one) for one in told] == [StoreFailed] * 3


async def test_the_small_end_of_a_stream_is_not_taken_for_kept_after_anothers_failed_sync() -> None:
    script = Script.parse(["write:error c/*"])
    script.enabled = False
    async with rig.crashing(FaultyStore(Disk(Medium()), script)) as containers:
        writer = containers.writer(NONE, OWNER, size_hint=None)
        await writer.write(b"small")
        tail = containers.append(b"of the stream", owner=OWNER, policy=NONE)
        script.enabled = True
        with pytest.raises(StoreFailed):
            await containers.sync()
        script.enabled = False

        with pytest.raises(StoreFailed):
            await containers._sync_small([tail], journaled=False)


async def test_a_full_store_is_told_as_such_by_a_sync() -> None:
    script = Script.parse(["create:full c/*", "write:full c/*"])
    async with rig.crashing(FaultyStore(Disk(Medium()), script)) as containers:
        containers.append(b"lost", owner=OWNER, policy=NONE)

        with pytest.raises(NoSpace):
            await containers.sync()


async def test_a_full_store_refuses_writes_and_goes_on_reading_and_freeing() -> None:
    class Small(Disk):
        capacity = 12 * 1024 * 1024

    store = Small(Medium())
    async with rig.node(store) as containers:
        kept: list[list[Chunk]] = []
        while True:
            writer = containers.writer(NONE, OWNER, size_hint=300_000)
            try:
                await writer.write(noise(300_000, len(kept)))
                kept.append([chunk for _, chunk in await writer.finish()])
            except NoSpace:
                await writer.abort()
                break
        assert len(kept) > 3
        for n, chunks in enumerate(kept):
            assert await content(containers, chunks) == noise(300_000, n)
        await containers.reclaim([chunk for chunks in kept[1:] for chunk in chunks])
        for _ in range(3):
            await containers.collect(budget=1 << 30)

        assert await content(containers, kept[0]) == noise(300_000, 0)
        again = await stream(containers, noise(300_000, 99))
        assert await content(containers, again) == noise(300_000, 99)


# Damage -------------------------------------------------------------------------------------------


def damage(medium: Medium, chunk: Chunk, at: int) -> None:
    """Flip a bit of a record."""
    names = [name for name in rig.blobs(medium) if name.startswith(f"c/{chunk.container:016x}")]
    assert len(names) == 1
    rig.flip(medium, names[0], chunk.offset + at)


@given(at=st.integers(0, 200_075), large=st.booleans())
@settings(max_examples=50, deadline=None)
async def test_a_flipped_bit_is_read_around_and_healed(at: int, large: bool) -> None:
    media = Medium(), Medium()
    policy = DataPolicy(redundancy="replica:2", chunker="fixed:200000")
    data = noise(200_000 if large else 3_000)
    async with rig.node(*media) as containers:
        chunks = await stream(containers, data, policy)
    damage(media[0], chunks[0], at % chunks[0].stored)

    async with rig.node(*media) as containers:
        for _ in range(2):
            now = containers.read_now(chunks[0], length=min(len(data), 100_000))
            assert now is None or bytes(now) == data[:100_000]
            assert await content(containers, chunks) == data
        report = await containers.scrub(deep=True)
        assert report.damaged_copies >= 1 or at % chunks[0].stored >= chunks[0].stored - 7
        assert report.lost == []
        healed = await containers.heal(budget=1 << 30)
        assert healed.problems == []
        clean = await containers.scrub(deep=True)
        assert (clean.damaged_copies, clean.missing_copies, clean.lost_count) == (0, 0, 0)
    async with rig.node(media[0]) as containers:
        assert await content(containers, chunks) == data


@given(at=st.integers(0, 200_075))
@settings(max_examples=40, deadline=None)
async def test_damage_without_another_copy_is_an_error_that_names_it_and_never_data(
    at: int,
) -> None:
    medium = Medium()
    data = noise(200_000)
    async with rig.node(medium) as containers:
        (chunk,) = await stream(containers, data, DataPolicy(chunker="fixed:200000"))
    damage(medium, chunk, at % chunk.stored)

    async with rig.node(medium) as containers:
        good = 0
        for offset in range(0, 200_000, 50_000):
            try:
                part = bytes(await containers.read(chunk, offset=offset, length=50_000))
            except Corrupt as error:
                text = str(error)
            else:
                text = f"{chunk.container:016x} bytes {offset} to {offset + 49_999}"
                assert part == data[offset : offset + 50_000]
                good += 1
            assert f"{chunk.container:016x}" in text
            assert f"bytes {offset} to {offset + 49_999}" in text
        assert good >= 2 or at < 200
        report = await containers.scrub(deep=True)
        assert report.lost_count >= 1 or good == 4
        assert await containers.collect(budget=1 << 30) is not None


async def test_damage_that_a_read_found_is_repaired_without_being_asked() -> None:
    media = Medium(), Medium()
    async with rig.node(*media) as containers:
        chunks = await stream(containers, noise(200_000), TWICE)
    for medium in media[:1]:
        damage(medium, chunks[0], 5_000)
    async with rig.node(*media) as containers:
        assert (await containers.repair(budget=1 << 30)).written_copies == 0
        order = [copy.slot.name for copy in containers._fleet.copies(chunks[0].container)]
        assert await content(containers, chunks) == noise(200_000)
        repaired = await containers.repair(budget=1 << 30)
        assert repaired.written_copies == (order[0] == "s0")
        assert repaired.problems == []
        report = await containers.scrub(deep=True)
        assert report.damaged_copies == (order[0] != "s0")


async def test_a_gap_that_no_store_explains_is_never_compacted_away() -> None:
    medium = Medium()
    async with rig.node(medium) as containers:
        chunks = await stream(containers, noise(200_000), DataPolicy(chunker="fixed:20000"))
    damage(medium, chunks[3], 0)  # its head

    async with rig.node(medium) as containers:
        await containers.reclaim([chunk for n, chunk in enumerate(chunks) if n not in (2, 3)])
        counts = await containers.collect(budget=1 << 30)

        assert counts["compacted"] == counts["deleted"] == 0
        assert bytes(await containers.read(chunks[2])) == noise(200_000)[40_000:60_000]
        assert chunks[3].container in containers._collector.damaged


# Missing stores -----------------------------------------------------------------------------------


PIECES = 32  # each on a store chosen at random: all on one happens once in 2**31 runs


async def test_reads_go_on_without_a_store_and_writes_say_what_is_missing() -> None:
    media = Medium(), Medium()
    data = noise(500_000)
    async with rig.node(*media) as containers:
        twice = await stream(containers, data, TWICE)
        once = [await stream(containers, data[:300_000], NONE) for _ in range(PIECES)]

    async with rig.node(media[1]) as containers:
        assert await content(containers, twice) == data
        assert containers.missing_stores() == ["s0"] or containers.missing_stores() == ["s1"]
        with pytest.raises(Unavailable, match="missing"):
            await stream(containers, data, TWICE)
        readable = 0
        for chunks in once:
            try:
                assert await content(containers, chunks) == data[:300_000]
                readable += 1
            except Unavailable as error:
                text = str(error)
        assert 0 < readable < PIECES
        assert "missing" in text
        new = await stream(containers, data, NONE)
        assert (await containers.heal(budget=1 << 30)).waiting > 0

    async with rig.node(*media) as containers:
        assert await content(containers, new) == data
        assert containers.missing_stores() == []


async def test_healing_restores_copies_on_the_stores_that_are_left_fewest_first() -> None:
    media = Medium(), Medium(), Medium(), Medium()
    three = DataPolicy(redundancy="replica:3", chunker="fixed:100000")
    async with rig.node(*media[:3]) as containers:
        a = await stream(containers, noise(400_000, 1), three)
        b = await stream(containers, noise(400_000, 2), three)
    victim = f"c/{b[0].container:016x}"
    del media[1].blobs[victim]

    async with rig.node(media[1], media[2], media[3]) as containers:
        assert (await containers.scrub(deep=False)).missing_copies > 0
        first = await containers.heal(budget=1)
        assert first.written_copies == 2
        assert len(rig.entries(containers)[b[0].container].copies) == 3
        while (await containers.heal(budget=1)).written_copies:
            pass
        assert (await containers.scrub(deep=True)).missing_copies == 0

    for lost in (1, 2, 3):
        left = [media[n] for n in (1, 2, 3) if n != lost]
        async with rig.node(*left) as containers:
            assert await content(containers, a) == noise(400_000, 1)
            assert await content(containers, b) == noise(400_000, 2)


async def test_copies_lie_in_different_failure_domains() -> None:
    domains = ["shelf1", "shelf1", "shelf1", "shelf2"]
    async with rig.node(*[Medium() for _ in range(4)], domains=domains) as containers:
        for n in range(20):
            (chunk, *_) = await stream(containers, noise(300_000, n), TWICE)
            names = {copy.slot.domain for copy in containers._fleet.copies(chunk.container)}
            assert names == {"shelf1", "shelf2"}


async def test_the_same_store_twice_is_refused() -> None:
    medium = Medium()
    with pytest.raises(Unavailable, match="same"):
        async with rig.node(Disk(medium), Disk(medium)):
            pass
    with pytest.raises(Unavailable, match="no store"):
        async with rig.node():
            pass


# Scrub --------------------------------------------------------------------------------------------


async def test_a_scrub_ends_and_can_be_resumed_anywhere() -> None:
    medium = Medium()
    async with rig.node(medium) as containers:
        for n in range(6):
            await stream(containers, noise(SIZE, n))
        whole = await containers.scrub(deep=True)
        assert whole.finished
        cursor, seen, rounds = 0, 0, 0
        while True:
            part = await containers.scrub(deep=True, after=cursor, budget=1)
            seen += part.containers
            rounds += 1
            if part.finished:
                break
            assert part.cursor > cursor
            cursor = part.cursor

    assert seen == whole.containers > 3
    assert rounds > 3
    assert whole.bytes > 4 * SIZE


async def test_a_light_scrub_notices_cut_and_missing_copies() -> None:
    media = Medium(), Medium()
    async with rig.node(*media) as containers:
        for n in range(3):
            await stream(containers, noise(SIZE, n), TWICE)
    names = rig.blobs(media[0])
    del media[0].blobs[names[0]]
    del media[1].blobs[names[1]].data[PAGE + 50 :]

    async with rig.node(*media) as containers:
        report = await containers.scrub(deep=False)
        assert (report.missing_copies, report.damaged_copies) == (1, 1)
        assert (await containers.heal(budget=1 << 30)).written_copies == 2
        assert (await containers.scrub(deep=True)).damaged_copies == 0
