"""Storage classes with stores of their own: what is put there comes there, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import pytest
from warp_conformance.reference.data_plane import Clock, Medium, PowerCut, codec
from warp_conformance.reference.data_plane import Disk as Growing
from warp_core.containers import Chunk, Containers, DataPolicy, Owner, StoreSlot
from warp_core.containers.fleet import SWEEP_S
from warp_core.containers.format import blob_name, parse_blob_name, place_of
from warp_core.containers.policy import Place
from warp_core.errors import NotFound, StoreFailed, Unavailable
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
)
from warp_core.layers.faulty import FaultyStore, Rule, Script

SIZE = 4 << 20
OWNER = Owner(1, 2, 2)
HERE = DataPolicy(chunker="fixed:65536")
THERE = DataPolicy(chunker="fixed:65536", place="COLD")


class Away(StoreFailed):
    retryable = True


class Bucket(BlobStore):
    """Keeps whole blobs, as an object store does, for as long as the test lasts."""

    capabilities = StoreCapabilities(durable=True)

    def __init__(self, name: str = "bucket") -> None:
        self.id = name
        self.blobs: dict[str, bytes] = {}
        self.away = False
        self.puts = 0
        self.cut_reads = 0  # so many reads of containers fail

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def _look(self) -> None:
        if self.away:
            raise Away("the bucket is away")

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        self._look()
        self.puts += name.startswith("c/")
        self.blobs[name] = b"".join(buffers)

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        self._look()
        if self.cut_reads and name.startswith("c/"):
            self.cut_reads -= 1
            raise Away("the connection was cut")
        if name not in self.blobs:
            raise NotFound(name)
        return self.blobs[name][offset : offset + length]

    async def delete(self, name: str) -> None:
        self._look()
        if self.blobs.pop(name, None) is None:
            raise NotFound(name)

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        self._look()
        names = sorted(name for name in self.blobs if name.startswith(prefix) and name > after)
        return [BlobInfo(name, *[len(self.blobs[name])] * 2) for name in names[:limit]]

    async def stat(self, name: str) -> BlobInfo:
        self._look()
        if name not in self.blobs:
            raise NotFound(name)
        return BlobInfo(name, *[len(self.blobs[name])] * 2)

    async def space(self) -> Space:
        return Space(1 << 40, 1 << 40, 0)

    @property
    def containers(self) -> list[str]:
        return sorted(name for name in self.blobs if name.startswith("c/"))


class Stage:
    """Two disks and a bucket, opened any number of times."""

    def __init__(self) -> None:
        self.media = [Medium(), Medium()]
        self.bucket = Bucket()
        self.clock = Clock()
        self.dies_on = ""  # a call that ends everything when it comes to a container
        self.script = Script.parse([])  # what goes wrong on the way to the bucket

    def step(self, call: str, name: str) -> None:
        if call == self.dies_on and name.startswith("c/"):
            raise PowerCut

    def fail(self, rule: str) -> None:
        """Have calls of the bucket fail from now on."""
        self.script.rules = [Rule.parse(rule)]

    @asynccontextmanager
    async def node(self, *, placed: bool = True, crash: bool = False) -> AsyncIterator[Containers]:
        disks = [
            StoreSlot(f"d{n}", Growing(medium, self.step)) for n, medium in enumerate(self.media)
        ]
        there = StoreSlot("bucket", FaultyStore(self.bucket, self.script))
        containers = Containers(
            [*disks, there],
            codec=codec,
            monotonic=self.clock.monotonic,
            container_size=SIZE,
            places=[Place("COLD", (there,))] if placed else [Place("OTHER", (there,))],
        )
        for slot in disks:
            await slot.store.__aenter__()
        await containers.__aenter__()
        try:
            yield containers
        finally:
            if not crash:
                await containers.__aexit__(None, None, None)


async def stream(containers: Containers, data: bytes, policy: DataPolicy) -> list[Chunk]:
    writer = containers.writer(policy, OWNER, size_hint=len(data))
    await writer.write(data)
    return [chunk for _, chunk in await writer.finish()]


async def content(containers: Containers, chunks: Sequence[Chunk]) -> bytes:
    return b"".join([bytes(await containers.read(chunk)) for chunk in chunks])


async def blobs(stage: Stage) -> list[str]:
    found = []
    for medium in stage.media:
        async with Growing(medium) as disk:
            found += [info.name for info in await disk.list("c/")]
    return found


DATA = bytes(range(256)) * 2000


async def test_what_has_a_place_comes_there_whole_once_nothing_more_comes() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30)
        assert not stage.bucket.containers, "more may come"
        stage.clock.now = 11.0

        report = await containers.heal(budget=1 << 30)

        assert len(stage.bucket.containers) == 1
        assert (report.written_copies, report.removed_copies) == (1, 1)
        assert await content(containers, chunks) == DATA
        assert all(place_of(chunk.container) == 1 for chunk in chunks)
        assert not await blobs(stage)


async def test_small_payloads_with_a_place_do_not_stay_with_the_others() -> None:
    stage = Stage()
    async with stage.node() as containers:
        there = containers.append(b"cold" * 100, owner=OWNER, policy=THERE)
        here = containers.append(b"warm" * 100, owner=OWNER, policy=HERE)
        await containers.sync()
        stage.clock.now = 11.0
        await containers.heal(budget=1 << 30)

        assert bytes(await containers.read(there)) == b"cold" * 100
        assert bytes(await containers.read(here)) == b"warm" * 100
        assert len(stage.bucket.containers) == 1
        assert len(await blobs(stage)) == 1


async def test_nothing_else_comes_to_a_place() -> None:
    stage = Stage()
    async with stage.node() as containers:
        for _ in range(8):
            await stream(containers, DATA, HERE)
        stage.clock.now = 11.0
        await containers.heal(budget=1 << 30)

    assert not stage.bucket.containers
    assert all(not name.startswith("ledger/") for name in stage.bucket.blobs)


async def test_two_copies_need_two_common_stores_and_the_place_is_none() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(
            containers, DATA, DataPolicy(redundancy="replica:2", chunker="fixed:65536")
        )
        assert await content(containers, chunks) == DATA
        with pytest.raises(Unavailable):
            await stream(containers, DATA, DataPolicy("replica:3", chunker="fixed:65536"))


async def test_a_crash_before_the_move_leaves_what_was_written() -> None:
    stage = Stage()
    async with stage.node(crash=True) as containers:
        chunks = await stream(containers, DATA, THERE)
    async with stage.node() as containers:

        async def refers(owner: Owner, chunk: Chunk) -> bool:
            return chunk in chunks

        await containers.recover(refers, budget=1 << 30)
        await containers.heal(budget=1 << 30, settle_s=0.0)

        assert await content(containers, chunks) == DATA
        assert len(stage.bucket.containers) == 1
        assert not await blobs(stage)


async def test_a_crash_between_copy_and_removal_leaves_one_copy_in_the_end() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
    stage.dies_on = "delete"
    with pytest.raises(PowerCut):
        async with stage.node(crash=True) as containers:
            await containers.heal(budget=1 << 30)
    stage.dies_on = ""
    assert await blobs(stage)
    assert stage.bucket.containers
    async with stage.node() as containers:
        await containers.heal(budget=1 << 30)

        assert await content(containers, chunks) == DATA
        assert len(stage.bucket.containers) == 1
        assert stage.bucket.puts == 1
        assert not await blobs(stage)


async def test_a_bucket_that_is_away_is_waited_for_and_loses_nothing() -> None:
    stage = Stage()
    async with stage.node() as containers:
        first = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        stage.bucket.away = True
        second = await stream(containers, DATA, THERE)
        report = await containers.heal(budget=1 << 30, settle_s=-1.0)
        assert report.waiting == 1
        with pytest.raises(Unavailable):
            await content(containers, first)
        assert await content(containers, second) == DATA
        stage.bucket.away = False
        stage.clock.now = 100.0

        report = await containers.heal(budget=1 << 30, settle_s=-1.0)

        assert (report.waiting, len(stage.bucket.containers)) == (0, 2)
        assert await content(containers, first + second) == DATA * 2


async def test_space_at_a_place_comes_back_also_when_the_bucket_was_away() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        stage.bucket.away = True
        await containers.reclaim(chunks)
        await containers.collect(budget=1 << 30)
        assert stage.bucket.containers
        stage.bucket.away = False
        await containers.collect(budget=1 << 30)

        assert not stage.bucket.containers


async def test_compaction_at_a_place_puts_a_shorter_blob() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        [before] = [len(stage.bucket.blobs[name]) for name in stage.bucket.containers]
        await containers.reclaim(chunks[:-1])

        counts = await containers.collect(budget=1 << 30)

        [after] = [len(stage.bucket.blobs[name]) for name in stage.bucket.containers]
        assert counts["compacted"] == 1
        assert after < before / 4
        assert await content(containers, chunks[-1:]) == DATA[-(len(DATA) % 65536) :]


async def test_a_class_that_has_no_stores_any_more_is_brought_home() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
    async with stage.node(placed=False) as containers:
        await containers.heal(budget=1 << 30)

        assert await content(containers, chunks) == DATA
        assert not stage.bucket.containers
        with pytest.raises(Unavailable, match="COLD has no stores"):
            await stream(containers, DATA, THERE)


async def test_places_keep_their_number() -> None:
    stage = Stage()
    async with stage.node() as containers:
        [cold, *_] = await stream(containers, DATA, THERE)
    async with stage.node(placed=False) as containers:
        [other, *_] = await stream(
            containers, DATA, DataPolicy(chunker="fixed:65536", place="OTHER")
        )
    async with stage.node() as containers:
        [again, *_] = await stream(containers, DATA, THERE)

    numbers = [place_of(chunk.container) for chunk in (cold, other, again)]
    assert numbers == [1, 2, 1]


async def test_a_bucket_that_was_away_at_the_start_is_looked_through_when_it_is_back() -> None:
    stage = Stage()
    async with stage.node() as containers:
        first = await stream(containers, DATA, THERE)
        dead = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        await containers.reclaim(dead)
    second = []
    stage.bucket.away = True
    stage.clock.now = 100.0
    async with stage.node() as containers:
        second = await stream(containers, DATA, THERE)
        await containers.collect(budget=1 << 30)
        with pytest.raises(Unavailable, match="away since the start"):
            await content(containers, first)
        report = await containers.heal(budget=1 << 30, settle_s=-1.0)
        assert (report.waiting, stage.bucket.puts) == (1, 1)
        stage.bucket.away = False
        stage.clock.now = 200.0

        assert await content(containers, first) == DATA
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        await containers.collect(budget=1 << 30)
        assert await content(containers, first + second) == DATA * 2
        assert len(stage.bucket.containers) == 2
        assert stage.bucket.puts == 3, "one was compacted, one came"


async def test_a_superseded_blob_that_could_not_be_deleted_goes_with_the_next_pass() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        stage.fail("delete:error@1 c/*")
        await containers.reclaim(chunks[:-1])
        assert (await containers.collect(budget=1 << 30))["compacted"] == 1
        assert len(stage.bucket.containers) == 2

        await containers.collect(budget=1 << 30)

        assert len(stage.bucket.containers) == 1
        assert await content(containers, chunks[-1:]) == DATA[-(len(DATA) % 65536) :]


async def test_a_put_that_came_although_its_answer_did_not_goes_when_its_container_does() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        stage.fail("put:late c/*")
        await containers.reclaim(chunks[:-1])
        assert (await containers.collect(budget=1 << 30))["compacted"] == 0
        stage.script.enabled = False
        assert len(stage.bucket.containers) == 2
        await containers.reclaim(chunks[-1:])
        await containers.collect(budget=1 << 30)
        stage.clock.now += SWEEP_S

        await containers.heal(budget=1 << 30)

        assert not stage.bucket.containers


async def test_what_was_to_be_deleted_later_stays_when_its_name_is_in_use_again() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        [copy] = containers._fleet.copies(chunks[0].container)
        containers._fleet.doom(copy)

        await containers.collect(budget=1 << 30)

        assert await content(containers, chunks) == DATA


async def test_what_a_bucket_got_after_the_inventory_is_swept_once_it_is_superseded() -> None:
    stage = Stage()
    async with stage.node() as containers:
        dead = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        [of_dead] = [
            name
            for name in stage.bucket.containers
            if parse_blob_name(name) == (dead[0].container, 1)
        ]
        await containers.reclaim(dead)
        await containers.collect(budget=1 << 30)
        [kept] = stage.bucket.containers
        # Writes of a node that was killed, which lay in a proxy for a while.
        unknown = blob_name(chunks[0].container + 1)
        later = blob_name(chunks[0].container, 2)
        for name in (of_dead, blob_name(chunks[0].container), unknown, later):
            stage.bucket.blobs[name] = b"late" * 2000
        stage.clock.now += SWEEP_S

        report = await containers.heal(budget=1 << 30)

        assert report.removed_copies == 2
        assert stage.bucket.containers == sorted([kept, unknown, later])
        assert await content(containers, chunks) == DATA


async def test_blobs_whose_pages_cannot_be_read_at_the_start_are_not_taken_for_unfinished() -> None:
    stage = Stage()
    async with stage.node() as containers:
        chunks = await stream(containers, DATA, THERE)
        await containers.heal(budget=1 << 30, settle_s=-1.0)
        stage.fail("delete:error c/*")
        await containers.reclaim(chunks[:-1])
        await containers.collect(budget=1 << 30)
        assert len(stage.bucket.containers) == 2
    stage.script = Script.parse([])
    stage.bucket.cut_reads = 2
    async with stage.node() as containers:
        assert (stage.bucket.cut_reads, len(stage.bucket.containers)) == (0, 2)
        stage.clock.now += 100.0

        await containers.heal(budget=1 << 30)

        assert len(stage.bucket.containers) == 1
        assert await content(containers, chunks[-1:]) == DATA[-(len(DATA) % 65536) :]
