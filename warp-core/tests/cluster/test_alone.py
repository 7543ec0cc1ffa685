"""A node alone on an engine that others could use."""

from __future__ import annotations

import pytest
from warp_core.cluster import domains, rows
from warp_core.cluster.alone import fenced
from warp_core.errors import Fenced
from warp_core.interfaces.consistency import Commit, KeyCheck, Merge, Write
from warp_core.metadata import Transaction, transact
from warp_meta_memory.engine import Memory


async def value(store, key):
    view = store.view()
    try:
        found = await view.get(key)
    finally:
        view.close()
    return found[0] if found else None


async def test_what_an_earlier_run_sent_comes_too_late():
    async with Memory() as engine:
        before = await fenced(engine, "n")
        await before.commit(Commit(writes=[Write(b"k", b"acknowledged")]))
        now = await fenced(engine, "n")

        for late in (
            Commit(writes=[Write(b"k", b"late")]),
            Commit(merges=[Merge(b"m", (1,), ())]),
            Commit(checks=[KeyCheck(b"absent", 0)], writes=[Write(b"k", None)]),
        ):
            with pytest.raises(Fenced):
                await before.commit(late)

        assert await value(now, b"k") == b"acknowledged"
        assert await value(now, b"m") is None


async def test_a_run_reads_and_writes_as_if_there_were_no_fence():
    async with Memory() as engine:
        store = await fenced(engine, "n")

        async def body(tx: Transaction) -> None:
            seen = await tx.get(b"k")
            tx.put(b"k", (seen or b"") + b"x")

        for _ in range(3):
            await transact(store, body)

        assert await value(store, b"k") == b"xxx"
        assert store.identity == engine.identity


async def test_its_row_is_nothing_to_a_cluster():
    async with Memory() as engine:
        await fenced(engine, "n")

        assert (await domains.read(engine)).domains == {}
        assert await value(engine, rows.ALONE)
