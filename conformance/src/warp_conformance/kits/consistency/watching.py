"""Watches: every change, in order, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from warp_core.errors import (
    Conflict,
    Expired,
)
from warp_core.interfaces.consistency import (
    Change,
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    Stamp,
    Write,
)

from warp_conformance.kit import refused, requires
from warp_conformance.kits.consistency.stage import MetaStoreStage, put


class Watching(MetaStoreStage, kit=True):
    """Watches: every change, in order, once."""

    # Watching -------------------------------------------------------------------------------------

    @requires(watch=False)
    async def test_watching_is_refused(self, subject: MetaStore) -> None:
        with refused():
            async for _ in subject.watch(b"", 0):
                pass

    @requires(watch=True)
    async def test_a_watch_shows_changes_in_order_each_once(self, subject: MetaStore) -> None:
        since = await put(subject, b"p/before", b"v")
        expected = []
        for number in range(10):
            key = b"p/%d" % (number % 3)
            value = b"%d" % number if number % 4 else None
            expected.append(Change(key, value, await put(subject, key, value)))
            await put(subject, b"elsewhere", b"v")

        assert await first(subject.watch(b"p/", since), 10) == expected

    @requires(watch=True)
    async def test_a_watch_goes_on_with_what_comes_later(self, subject: MetaStore) -> None:
        since = await put(subject, b"k", b"v")
        watching = asyncio.create_task(first(subject.watch(b"p/", since), 30))
        for number in range(30):
            await put(subject, b"p/%02d" % number, b"v")
            if number % 7 == 0:
                await asyncio.sleep(0.001)
            await put(subject, b"q", b"v")

        changes = await watching
        assert [change.key for change in changes] == [b"p/%02d" % number for number in range(30)]

    @requires(watch=True)
    async def test_a_watch_resumes_where_it_left_off(self, subject: MetaStore) -> None:
        since = (await put(subject, b"k", b"v")) - 1
        for number in range(20):
            await put(subject, b"p/%02d" % number, b"v")
        seen: list[bytes] = []
        while len(seen) < 20:
            changes = await first(subject.watch(b"p/", since), 4)
            seen += [change.key for change in changes]
            since = changes[-1].version

        assert seen == [b"p/%02d" % number for number in range(20)]

    @requires(watch=True)
    async def test_a_watch_shows_merges_and_stamps(self, subject: MetaStore) -> None:
        since = await put(subject, b"k", b"v")
        version = await subject.commit(
            Commit(merges=[Merge(b"p/n", add=(7,))], stamps=[Stamp(b"p/s/", b"", b"v")])
        )

        changes = await first(subject.watch(b"p/", since), 2)
        assert sorted(changes) == [
            Change(b"p/n", (7).to_bytes(8, "little"), version),
            Change(b"p/s/" + version.to_bytes(8, "big"), b"v", version),
        ]

    @requires(watch=True)
    async def test_a_watch_has_no_holes_or_says_that_it_would(self, subject: MetaStore) -> None:
        await put(subject, b"p/0", b"v")
        for number in range(1, 200):
            await put(subject, b"p/%d" % number, b"v")
        try:
            changes = await first(subject.watch(b"p/", 0), 200)
        except Expired:
            return
        assert [change.key for change in changes] == [b"p/%d" % number for number in range(200)]

    @requires(watch=True)
    async def test_a_watch_never_shows_a_refused_commit(self, subject: MetaStore) -> None:
        since = await put(subject, b"k", b"v")
        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"p/bad", b"v")]))
        await put(subject, b"p/good", b"v")

        assert (await first(subject.watch(b"p/", since), 1))[0].key == b"p/good"


async def first(changes: AsyncIterator[Change], count: int) -> list[Change]:
    """Return the first changes of a watch."""
    found: list[Change] = []
    async for change in changes:
        found.append(change)
        if len(found) == count:
            break
    return found
