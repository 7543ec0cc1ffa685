"""What was acknowledged is there after the engine's process was killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from contextlib import AsyncExitStack

from warp_core.interfaces.consistency import (
    Commit,
    Merge,
    MetaStore,
    Stamp,
    Write,
)
from warp_core.metadata import counters

from warp_conformance.kit import requires
from warp_conformance.kits.consistency.stage import Make, MetaStoreStage, fill, get, keys_of, put


class Durability(MetaStoreStage, kit=True):
    """What was acknowledged is there after the engine's process was killed."""

    # Durability -----------------------------------------------------------------------------------

    @requires(durable=True)
    async def test_a_restart_keeps_everything(
        self, subject: MetaStore, stack: AsyncExitStack, make: Make
    ) -> None:
        request = os.urandom(16)
        await fill(subject, [b"%04d" % i for i in range(700)])
        await put(subject, b"0007", None)
        await subject.commit(
            Commit(merges=[Merge(b"n", add=(4,))], stamps=[Stamp(b"s", b"", b"v")])
        )
        last = await subject.commit(Commit(writes=[Write(b"z", b"v")], request_id=request))
        before = await keys_of(subject.view())
        await stack.aclose()

        async with make() as again:
            assert await keys_of(again.view()) == before
            assert await again.view().get(b"z") == (b"v", last)
            assert counters(await get(again, b"n"), 1) == (4,)
            assert (
                await again.commit(Commit(writes=[Write(b"z", b"w")], request_id=request)) == last
            )
            assert await put(again, b"k", b"v") > last

    @requires(durable=True)
    async def test_a_second_restart_keeps_everything(
        self, subject: MetaStore, stack: AsyncExitStack, make: Make
    ) -> None:
        versions = [await put(subject, b"0", b"v")]
        await stack.aclose()
        for number in range(1, 5):
            async with make() as again:
                versions.append(await put(again, b"%d" % number, b"v"))

        async with make() as again:
            assert await keys_of(again.view()) == [b"%d" % number for number in range(5)]
        assert versions == sorted(set(versions))

    @requires(durable=True, lease=True)
    async def test_tokens_grow_across_restarts(
        self, subject: MetaStore, stack: AsyncExitStack, make: Make
    ) -> None:
        lease = await subject.lease("home", "a", 0.01)
        await stack.aclose()
        await asyncio.sleep(0.02)

        async with make() as again:
            assert (await again.lease("home", "b", 30.0)).token > lease.token

    @requires(durable=True)
    async def test_what_was_acknowledged_survives_a_kill(
        self, subject: MetaStore, stack: AsyncExitStack, make: Make
    ) -> None:
        await put(subject, b"before", b"v")
        await stack.aclose()
        for attempt, delay_s in enumerate((0.15, 0.3)):
            acked = await asyncio.to_thread(_killed_while_writing, make, attempt, delay_s)
            assert acked, "the child did not get to write anything"

            async with make() as again:
                found = set(await keys_of(again.view()))
                assert b"before" in found
                missing = [key for key in acked if key not in found]
                assert not missing, f"{len(missing)} of {len(acked)} acknowledged rows are lost"
                # A commit is whole: the pair row is there for each.
                assert all(b"pair " + key in found for key in found if key.startswith(b"k"))
                total = counters(await get(again, b"n"), 1)[0]
                assert total == sum(key.startswith(b"k") for key in found)


def _killed_while_writing(make: Make, attempt: int, delay_s: float) -> list[bytes]:
    """Fork a child that commits without end, kill it, and return what it had heard to be committed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover: it is killed
        try:
            os.close(reading)
            asyncio.run(_write_without_end(make, attempt, writing))
        finally:
            os._exit(1)
    os.close(writing)
    heard = b""
    try:
        heard = os.read(reading, 1 << 20)  # the first commit is there: now let some time pass
        time.sleep(delay_s)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    while more := os.read(reading, 1 << 20):
        heard += more
    os.close(reading)
    return heard.split(b"\n")[:-1]


async def _write_without_end(make: Make, attempt: int, pipe: int) -> None:
    """Commit from several tasks; tell each through the pipe when it returned."""
    numbers = itertools.count()

    async def client(store: MetaStore) -> None:
        for number in numbers:
            key = b"k%d-%d" % (attempt, number)
            await store.commit(
                Commit(
                    writes=[Write(key, b"v"), Write(b"pair " + key, b"v")],
                    merges=[Merge(b"n", add=(1,))],
                )
            )
            os.write(pipe, key + b"\n")

    async with make() as store:
        await asyncio.gather(*(client(store) for _ in range(8)))
