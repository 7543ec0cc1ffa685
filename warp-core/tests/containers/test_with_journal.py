"""Small payloads in the journal: read back at once, kept by crashes, compacted out of segments that nobody needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from warp_conformance.reference import data_plane as rig
from warp_conformance.reference.data_plane import NONE, OWNER, TWICE, Disk, noise
from warp_conformance.reference.stores import Medium
from warp_core.containers import Chunk, Containers, DataPolicy, Kind, Owner
from warp_core.containers.format import lane_of
from warp_core.containers.journal import Journal
from warp_core.containers.segments import Entry, Position
from warp_core.errors import Corrupt, StoreFailed, Unavailable
from warp_core.interfaces.stores import BlobInfo

SEGMENT = 64 * 1024
EVERYTHING = 1 << 40


@asynccontextmanager
async def node(*media: Medium, copies: int = 1) -> AsyncIterator[tuple[Containers, Journal]]:
    stores = [Disk(medium) for medium in media]
    async with (
        Journal(stores[:copies], segment_size=SEGMENT) as journal,
        rig.make(*stores, journal=journal) as containers,
    ):
        yield containers, journal


def segments(medium: Medium) -> list[str]:
    return [name for name in rig.blobs(medium) if name.startswith("c/01")]


async def fill(
    containers: Containers, count: int, *, owner: Owner = OWNER, size: int = 3000
) -> list[Chunk]:
    chunks = []
    for n in range(count):
        await containers.room(size)
        chunks.append(containers.append(noise(size, n), owner=owner, policy=NONE))
        await containers.sync()
    return chunks


def let_go(containers: Containers, journal: Journal) -> None:
    journal.release(Position(*journal.end))
    containers.release_journal(containers.journal_end())


async def test_payloads_go_to_the_journal_when_it_has_the_copies() -> None:
    async with node(Medium(), Medium()) as (containers, _):
        once = containers.append(b"once", owner=OWNER, policy=NONE)
        twice = containers.append(b"twice", owner=OWNER, policy=TWICE)
        packed = containers.append(bytes(9000), owner=OWNER, policy=DataPolicy(filters=("zip",)))

        assert containers.in_journal(once)
        assert not containers.in_journal(twice)
        for _ in range(2):
            for chunk, data in ((once, b"once"), (twice, b"twice"), (packed, bytes(9000))):
                assert bytes(await containers.read(chunk)) == data
                assert bytes(await containers.read(chunk, offset=1, length=2)) == data[1:3]
            await containers.sync()
        assert bytes(containers.read_now(once) or b"") == b"once"

    async with node(Medium(), Medium(), copies=2) as (containers, _):
        assert containers.in_journal(containers.append(b"twice", owner=OWNER, policy=TWICE))


async def test_short_streams_are_appended() -> None:
    async with node(Medium()) as (containers, journal):
        writer = containers.writer(NONE, OWNER, size_hint=30_000)
        await writer.write(noise(30_000))
        ((offset, chunk),) = await writer.finish(journaled=True)
        assert (offset, containers.in_journal(chunk)) == (0, True)
        assert bytes(await containers.read(chunk)) == noise(30_000)
        assert journal.durable < journal.sequence
        await journal.flush()
        writer = containers.writer(NONE, OWNER)
        await writer.write(noise(20_000))
        await writer.finish()
        assert journal.durable == journal.sequence


async def test_segments_are_left_alone_until_nobody_replays_them() -> None:
    medium = Medium()
    async with node(medium) as (containers, journal):
        chunks = await fill(containers, 60)
        assert len(segments(medium)) > 2
        await containers.reclaim(chunks[::2])
        assert not any((await containers.collect(budget=EVERYTHING)).values())
        containers.release_journal(containers.journal_end())
        assert not any(
            (await containers.collect(budget=EVERYTHING)).values()
        )  # commits are not released
        journal.release(Position(*journal.end))
        assert (await containers.collect(budget=EVERYTHING))["compacted"] > 0
        for n, chunk in enumerate(chunks):
            if n % 2:
                assert bytes(await containers.read(chunk)) == noise(3000, n)


async def test_commits_are_not_carried_along() -> None:
    medium = Medium()
    async with node(medium) as (containers, journal):
        chunks = []
        for n in range(60):
            await containers.room(3000)
            chunks.append(containers.append(noise(300, n), owner=OWNER, policy=NONE))
            journal.append(Kind.COMMIT, bytes(3000))
            await containers.sync()
        let_go(containers, journal)
        await containers.reclaim(chunks[:1])  # makes the collector look at the first segment
        assert (await containers.collect(budget=EVERYTHING))["compacted"] == 1
        for n, chunk in enumerate(chunks[1:], 1):
            assert bytes(await containers.read(chunk)) == noise(300, n)
        sizes = [len(medium.blobs[name].data) for name in segments(medium)]
        assert min(sizes) < SEGMENT / 3


async def test_a_segment_without_live_payload_is_deleted() -> None:
    medium = Medium()
    async with node(medium) as (containers, journal):
        chunks = await fill(containers, 60)
        before = len(segments(medium))
        let_go(containers, journal)
        await containers.reclaim(chunks)
        counts = await containers.collect(budget=EVERYTHING)
        assert counts["deleted"] >= before - 2
        assert len(segments(medium)) <= 2  # the one being written, and the next
        with pytest.raises(Corrupt):
            await containers.read(chunks[0])
        more = await fill(containers, 30)
        assert bytes(await containers.read(more[-1])) == noise(3000, 29)

    async with node(medium) as (containers, _):
        assert bytes(await containers.read(more[-1])) == noise(3000, 29)


async def test_unlinked_payloads_of_a_crashed_session_are_found() -> None:
    medium = Medium()
    store = Disk(medium)
    journal = Journal([store], segment_size=SEGMENT)
    await journal.__aenter__()
    containers = rig.make(store, journal=journal)
    await containers.__aenter__()
    linked, unlinked = Owner(1, 1, 1), Owner(1, 2, 2)
    kept = await fill(containers, 20, owner=linked)
    lost = await fill(containers, 40, owner=unlinked)
    await rig.quiet()

    async def refers(owner: Owner, chunk: Chunk) -> bool:
        return owner == linked

    async with node(medium) as (after, log):
        let_go(after, log)
        assert not any((await after.collect(budget=EVERYTHING)).values())
        assert await after.recover(refers, budget=EVERYTHING)
        total = await after.collect(budget=EVERYTHING)
        assert total["deleted"] + total["compacted"] >= 2
        for n, chunk in enumerate(kept):
            assert bytes(await after.read(chunk)) == noise(3000, n)
        with pytest.raises(Corrupt):
            await after.read(lost[-5])
        asked = 0

        async def count(owner: Owner, chunk: Chunk) -> bool:
            nonlocal asked
            asked += lane_of(chunk.container)
            return True

        assert await after.recover(count, budget=EVERYTHING)
        assert asked == 0


async def test_what_this_session_wrote_is_never_asked_about() -> None:
    async with node(Medium()) as (containers, journal):
        chunks = await fill(containers, 60)
        let_go(containers, journal)
        await containers.reclaim(chunks[:1])
        assert await containers.recover(rig.no, budget=EVERYTHING)
        await containers.collect(budget=EVERYTHING)
        for n, chunk in enumerate(chunks[1:], 1):
            assert bytes(await containers.read(chunk)) == noise(3000, n)


async def test_compacted_segments_do_not_disturb_the_next_start() -> None:
    media = Medium(), Medium()
    data: dict[Chunk, bytes] = {}
    for generation in range(4):
        async with node(*media, copies=2) as (containers, journal):
            let_go(containers, journal)
            assert await containers.recover(rig.yes, budget=EVERYTHING)
            await containers.collect(budget=EVERYTHING)
            for chunk, payload in data.items():
                assert bytes(await containers.read(chunk)) == payload
            chunks = await fill(containers, 50)
            dead = [chunk for n, chunk in enumerate(chunks) if (n + generation) % 4]
            data |= {chunk: noise(3000, n) for n, chunk in enumerate(chunks) if chunk not in dead}
            let_go(containers, journal)
            await containers.reclaim(dead)
            await containers.collect(budget=EVERYTHING)
    async with node(*media, copies=2) as (containers, journal):
        let_go(containers, journal)
        await containers.collect(budget=EVERYTHING)
        report = await containers.scrub(deep=True)
        assert (report.lost, report.damaged_copies, report.missing_copies) == ([], 0, 0)
        for chunk, payload in data.items():
            assert bytes(await containers.read(chunk)) == payload
        await containers.reclaim(list(data))
        await containers.collect(budget=EVERYTHING)
    assert len(segments(media[0])) <= 2


async def test_segments_of_nothing_but_commits_do_not_pile_up() -> None:
    medium = Medium()
    for _ in range(6):
        async with node(medium) as (containers, journal):
            for _ in range(30):
                journal.append(Kind.COMMIT, bytes(3000))
                await journal.flush()
                await journal.room(3000)
            let_go(containers, journal)
            while any((await containers.collect(budget=EVERYTHING)).values()):
                pass

    assert len(segments(medium)) <= 3


async def test_the_segment_that_a_replay_begins_in_is_kept_even_if_it_begins_at_its_end() -> None:
    medium = Medium()
    store = Disk(medium)
    journal = Journal([store], segment_size=SEGMENT)
    await journal.__aenter__()
    containers = rig.make(store, journal=journal)
    await containers.__aenter__()
    chunks = await fill(containers, 60)
    first = [chunk for chunk in chunks if chunk.container == chunks[0].container]
    end = Position(first[-1].container, first[-1].offset + (first[-1].stored + 7 & -8))
    assert chunks[-1].container > first[-1].container
    await rig.quiet()

    async with node(medium) as (second, log):
        log.release(end)
        second.release_journal(second.journal_end())
        assert await second.recover(rig.yes, budget=EVERYTHING)
        await second.reclaim(first[1:])
        await second.collect(budget=EVERYTHING)
        assert bytes(await second.read(chunks[0])) == noise(3000, 0)

    async with Journal([Disk(medium)], segment_size=SEGMENT) as third:
        assert await third.reaches(end)
        later = [entry async for entry in third.replay(end) if isinstance(entry, Entry)]
        assert [entry.chunk for entry in later if entry.kind == Kind.PAYLOAD] == chunks[
            len(first) :
        ]


async def test_a_segment_whose_store_cannot_be_asked_is_away_and_not_damaged() -> None:
    medium = Medium()
    async with node(medium) as (containers, _):
        chunk = (await fill(containers, 40))[-1]  # in a segment that the inventory did not have
        store = containers._fleet.slots[0].store
        stat = store.stat

        async def failing(name: str) -> BlobInfo:
            raise StoreFailed("EIO")

        store.stat = failing  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="EIO"):
            await containers.read(chunk)
        store.stat = stat  # type: ignore[method-assign]
        assert bytes(await containers.read(chunk)) == noise(3000, 39)
