"""What a read costs does not grow with what was stored or deleted, in rows and pages; `python -m benchmarks growth` measures."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from warp_core.containers.journal import Journal
from warp_core.interfaces.consistency import Commit, Write
from warp_core.kept import KEPT_EVERY
from warp_local.config import Config
from warp_local.engine import Local
from warp_local.index import CACHE_ROWS

simdisk = pytest.importorskip("warp_conformance.reference.simdisk", reason="needs warp-conformance")

LIVE = 100
GONE = 10_000


@asynccontextmanager
async def engine(tmp_path):
    disk = simdisk.SimDisk("disk", path=tmp_path)
    async with (
        Journal([disk], segment_size=8 << 20) as journal,
        Local(Config(checkpoint_rows=1_000_000, checkpoint_after=3600), [disk], journal) as local,
    ):
        yield local


async def write(local, keys, value):
    for at in range(0, len(keys), 100):
        await local.commit(Commit(writes=[Write(key, value) for key in keys[at : at + 100]]))


def live():
    return [b"rows%06d-live" % (number * GONE // LIVE) for number in range(LIVE)]


def gone():
    return [b"rows%06d-gone" % number for number in range(GONE)]


def listed(local):
    """Return the keys of a page, how many rows of the index it read, and how many recent ones it walked."""
    index, rows = local._rows.base, local._rows
    read = 0
    columns = index.columns

    def counted(start, end, limit):
        nonlocal read
        found = columns(start, end, limit)
        read += len(found[0])
        return found

    index.columns = counted
    found = rows.columns(b"rows", b"rowt", rows.durable, 1000)[0]
    del index.columns
    return found, read, len(list(rows._active.live(b"rows", b"rowt")))


def pages(local):
    """Return how many pages hold the rows."""
    index = local._rows.base
    with index._env.begin(db=index._rows) as txn:
        return txn.stat(index._rows)["leaf_pages"]


async def test_a_page_beside_deleted_rows_reads_what_it_reads_without(tmp_path):
    async with engine(tmp_path) as local:
        await write(local, live(), b"v" * 100)
        await local.checkpoint()
        without, pages_without = listed(local), pages(local)
        await write(local, gone(), b"v" * 100)
        await local.checkpoint()
        await write(local, gone(), None)
        assert listed(local)[0] == live()
        assert local._rows.crowded  # so a checkpoint follows within half a second
        await local.checkpoint()

        assert without == (live(), LIVE, 0)
        assert listed(local) == without
        assert (
            pages(local) <= 4 * pages_without
        )  # LMDB joins pages that are less than a quarter full

        await write(local, gone(), b"v" * 100)
        await write(local, gone(), None)
        assert listed(local)[0] == live()
        assert listed(local) == without  # what came and went since the checkpoint as well


async def test_a_checkpoint_follows_soon_when_pages_meet_many_deleted_rows(tmp_path):
    async with engine(tmp_path) as local:
        await write(local, gone(), b"v")
        await local.checkpoint()
        await write(local, gone(), None)
        done = asyncio.Event()
        checkpoint = local.checkpoint

        async def told():
            await checkpoint()
            done.set()

        local.checkpoint = told
        listed(local)
        async with asyncio.timeout(20):
            await done.wait()

        assert listed(local) == ([], 0, 0)


async def test_few_rows_that_are_asked_for_once_are_kept_and_what_is_kept_outlives_a_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("warp_local.index.CACHE_ROWS", 600)
    async with engine(tmp_path) as local:
        names = gone()
        await write(local, names, b"old")
        await local.checkpoint()
        index, at = local._rows.base, local._rows.durable
        for key in names[:2000]:
            assert local._rows.get(key, at)[0] == b"old"
        assert len(index._cache) <= 1400 // KEPT_EVERY
        for _ in range(10 * KEPT_EVERY):
            for key in [*names[:100], b"rows-none"]:
                local._rows.get(key, at)
        assert {*names[:100], b"rows-none"} <= index._cache.keys()

        await write(local, [*names[:50], b"rows-none"], b"new")
        await write(local, names[50:60], None)
        await local.checkpoint()
        at = local._rows.durable
        assert names[70] in index._cache
        assert [local._rows.get(key, at)[0] for key in names[:50]] == [b"new"] * 50
        assert [local._rows.get(key, at) for key in names[50:60]] == [None] * 10
        assert local._rows.get(b"rows-none", at)[0] == b"new"
        assert local._rows.get(names[70], at)[0] == b"old"


async def test_the_cache_has_a_limit(tmp_path):
    async with engine(tmp_path) as local:
        index = local._rows.base
        for number in range(2 * CACHE_ROWS):
            for _ in range(KEPT_EVERY):
                index.get(b"rows%06d" % number)
            assert len(index._cache) <= CACHE_ROWS
