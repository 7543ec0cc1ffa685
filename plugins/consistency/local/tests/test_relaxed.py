"""Commits that are acknowledged before they are durable: who sees them, and what a crash leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from warp_core.containers.journal import Journal
from warp_core.errors import AlreadyExists, Conflict
from warp_core.interfaces.consistency import Commit, KeyCheck, Write
from warp_core.metadata import Transaction, transact
from warp_local.config import Config
from warp_local.engine import Local

simdisk = pytest.importorskip("warp_conformance.reference.simdisk", reason="needs warp-conformance")


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    folder = tmp_path / "disk"
    folder.mkdir()
    stores = [simdisk.SimDisk("disk", path=folder)]
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal(stores, segment_size=1 << 20))
        yield await stack.enter_async_context(Local(Config(checkpoint_rows=50), stores, journal))


def write(key: bytes, value: bytes | None, *checks: KeyCheck, relaxed: bool = True) -> Commit:
    return Commit(checks, [Write(key, value)], relaxed=relaxed)


async def test_it_is_shown_by_latest_at_once_and_by_view_once_it_is_durable(local: Local) -> None:
    await local.commit(write(b"a", b"1"))

    early, latest = local.view(), local.latest()
    assert await early.get(b"a") is None
    assert (await latest.get(b"a") or ())[0] == b"1"
    assert local.unsettled
    await local.settle()
    assert not local.unsettled
    assert (local.get_now(b"a") or ())[0] == b"1"
    assert await early.get(b"a") is None
    early.close()
    latest.close()


async def test_each_view_keeps_its_moment_whatever_comes_after(local: Local) -> None:
    views = []
    for number in range(20):
        await local.commit(write(b"a", b"%d" % number, relaxed=number % 3 != 0))
        views.append((number, local.latest()))
    await local.settle()
    for number, view in views:
        assert (await view.get(b"a") or ())[0] == b"%d" % number
        view.close()


async def test_it_becomes_durable_by_itself(local: Local) -> None:
    await local.commit(write(b"a", b"1"))

    async with asyncio.timeout(30):
        while local.unsettled:
            await asyncio.sleep(0.001)
            local._advance()
    assert local.get_now(b"a") is not None


async def test_a_check_of_an_older_moment_fails_although_the_change_is_not_durable(
    local: Local,
) -> None:
    await local.commit(write(b"a", b"1"))

    with pytest.raises(Conflict):
        await local.commit(write(b"a", b"2", KeyCheck(b"a", 0), relaxed=False))


async def test_a_commit_that_waits_takes_earlier_ones_along(local: Local) -> None:
    await local.commit(write(b"a", b"1"))
    await local.commit(write(b"b", b"1", relaxed=False))

    assert not local.unsettled
    assert local.get_now(b"a") is not None


async def test_who_is_refused_is_refused_for_what_is_durable(local: Local) -> None:
    async def body(tx: Transaction) -> None:
        if await tx.get(b"a") is not None:
            raise AlreadyExists("a")
        tx.put(b"a", b"1")

    await transact(local, body, relaxed=True)
    with pytest.raises(AlreadyExists):
        await transact(local, body, relaxed=True)
    assert local.unsettled
    with pytest.raises(AlreadyExists):
        await transact(local, body)
    assert not local.unsettled


async def test_a_checkpoint_waits_for_what_is_not_durable(local: Local) -> None:
    for number in range(200):
        await local.commit(write(b"k%d" % number, b"v"))
    await local.checkpoint()

    assert not local.unsettled
    assert local.get_now(b"k199") is not None
