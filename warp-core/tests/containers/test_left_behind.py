"""A store that was left behind, or whose copy is damaged: whoever looks for a record finds it on another one."""

import asyncio
from contextlib import suppress

import pytest
from warp_core.config.types import Size
from warp_core.containers import Containers, DataPolicy, Owner, StoreSlot
from warp_core.containers.format import blob_name
from warp_core.containers.journal import Journal
from warp_core.containers.standing import Standing
from warp_core.errors import NotFound
from warp_store_memory import Config, Memory

OWNER = Owner(1, 2, 3)


class Left(Standing):
    """Stores of which some are left behind."""

    def __init__(self):
        self.left = set()
        self.told = []
        self.whole = set()

    def copies(self, wanted):
        return 2

    def enough(self, copies):
        return copies - len(self.left)

    def uses(self, store):
        return store not in self.left

    def complete(self, stores, wanted):
        return not self.whole.isdisjoint(stores)

    def on_leave(self, forget):
        self.told.append(forget)

    def leave_behind(self, store):
        self.left.add(store)
        for told in self.told:
            told(frozenset({store}))


class Slow(Memory):
    """A store whose answer about a blob can be held back; it never answers without waiting."""

    def __init__(self):
        super().__init__(Config(capacity=Size(1 << 30)))
        self.asked = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    def read_now(self, name, *, offset, length):
        return None

    async def stat(self, name):
        self.asked.set()
        await self.free.wait()
        return await super().stat(name)


def slots(*stores):
    return [StoreSlot(f"s{number}", store, str(number)) for number, store in enumerate(stores)]


@pytest.mark.parametrize("left_behind", [True, False])
async def test_a_record_that_one_store_lacks_is_never_taken_for_lost_while_another_is_asked(
    left_behind,
):
    async with Slow() as stale, Slow() as good:
        standing = Left()
        if left_behind:
            standing.left.add(stale.id)
        async with (
            Journal([good, stale][: 2 - left_behind], segment_size=64 << 10) as journal,
            Containers(
                slots(stale, good), codec=lambda spec: None, journal=journal, standing=standing
            ) as containers,
        ):
            first = journal.end.container
            while journal.end.container == first:  # it lies in a segment that was made since
                await containers.room(9000)
                chunk = containers.append(b"x" * 9000, owner=OWNER, policy=DataPolicy())
                await containers.sync()
            # As one that was left behind has it, or one that lost it: the segment is there, the record is not.
            name = blob_name(chunk.container)
            with suppress(NotFound):
                await stale.delete(name)
            await stale.create(name, reserve=64 << 10)
            good.asked.clear()
            good.free.clear()
            one = asyncio.create_task(containers.read(chunk))
            await good.asked.wait()
            other = asyncio.create_task(containers.read(chunk))
            await asyncio.sleep(0.05)  # with what it knows by now it would say that nothing is left
            good.free.set()

            assert bytes(await one) == bytes(await other) == b"x" * 9000


async def test_nothing_is_written_to_a_store_that_was_left_behind():
    async with Slow() as one, Slow() as other:
        standing = Left()
        async with Containers(
            slots(one, other), codec=lambda spec: None, standing=standing
        ) as containers:
            policy = DataPolicy(chunker="")
            kept = containers.append(b"x" * 200_000, owner=OWNER, policy=policy)
            gone = containers.append(b"y" * 900_000, owner=OWNER, policy=policy)
            await containers.sync()
            standing.leave_behind(one.id)
            before = {info.name: info for info in await one.list("c/", limit=10)}
            await containers.reclaim([gone])
            later = containers.append(b"z" * 100, owner=OWNER, policy=policy)
            await containers.sync()
            for _ in range(3):
                await containers.collect(budget=1 << 30)
                await containers.heal(budget=1 << 30)

            assert {info.name: info for info in await one.list("c/", limit=10)} == before
            assert bytes(await containers.read(kept)) == b"x" * 200_000
            assert bytes(await containers.read(later)) == b"z" * 100
            assert containers.lacking(one.id) > 0
            assert containers.lacking(other.id) == 0


async def test_a_container_that_a_crash_cut_while_one_store_was_away_is_copied_to_it_again():
    async with Slow() as one, Slow() as other:
        standing = Left()
        standing.left = {other.id}
        standing.whole = {one.id}
        crashed = Containers(slots(one, other), codec=lambda spec: None, standing=standing)
        await crashed.__aenter__()
        chunks = [
            crashed.append(text * 10_000, owner=OWNER, policy=DataPolicy())
            for text in (b"a", b"b", b"c")
        ]
        await crashed.sync()
        # The second was on its way when the power went; only what is behind it arrived.
        name = blob_name(chunks[1].container)
        await one.write(name, offset=chunks[1].offset, buffers=[bytes(chunks[1].stored)])

        standing.left = set()
        async with Containers(
            slots(one, other), codec=lambda spec: None, standing=standing
        ) as containers:

            async def refers(owner, chunk):
                return chunk in (chunks[0], chunks[2])

            assert await containers.recover(refers, budget=1 << 30)
            report = await containers.heal(budget=1 << 30)

            assert report.problems == []
            assert containers.lacking(other.id) == 0
            for chunk, text in ((chunks[0], b"a"), (chunks[2], b"c")):
                assert bytes(await containers.read(chunk)) == text * 10_000
        await crashed.__aexit__(None, None, None)
