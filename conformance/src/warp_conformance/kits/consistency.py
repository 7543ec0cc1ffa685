"""The kit for metadata engines: atomic, isolated, ordered, and durable where that is claimed."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from warp_core.containers.journal import Journal
from warp_core.contexts import MetaContext
from warp_core.errors import (
    Conflict,
    Expired,
    Fenced,
    InvalidArgument,
    Locked,
    PluginError,
    TooLarge,
    Unsupported,
)
from warp_core.interfaces.consistency import (
    COMMIT_MAX,
    KEY_MAX,
    SCAN_MAX,
    VALUE_MAX,
    WRITES_MAX,
    Change,
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    RangeCheck,
    Row,
    Stamp,
    View,
    Write,
)
from warp_core.metadata import KEY_END, Transaction, counters, transact
from warp_core.metrics import Metrics
from warp_core.registry import Entry

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given, refused, requires
from warp_conformance.reference.consistency import Plain
from warp_conformance.reference.filedisk import FileDisk

Make = Callable[[], AbstractAsyncContextManager[MetaStore]]

TTL_S = 0.25  # of short leases: long against a scheduling hiccup, short against a test's time limit
INT64_MAX = 2**63 - 1


def adopt(entry: Entry[MetaStore]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit, on two file stores below a folder and a journal on them."""

    @pytest.fixture
    def make(self: Kit, tmp_path: Path) -> Make:
        @asynccontextmanager
        async def opened() -> AsyncIterator[MetaStore]:
            async with AsyncExitStack() as stack:
                stores = [
                    await stack.enter_async_context(FileDisk(tmp_path / name)) for name in "ab"
                ]
                journal = await stack.enter_async_context(Journal(stores, segment_size=1 << 22))
                context = MetaContext(
                    node="kit",
                    data=tmp_path,
                    stores=stores,
                    journal=journal,
                    metrics=Metrics(),
                    monotonic=time.monotonic,
                )
                try:
                    store = entry.build(entry.sampled(tmp_path), context)
                    entered = await stack.enter_async_context(store)
                except PluginError as error:  # a program that it runs is not installed
                    pytest.skip(str(error))
                yield entered

        return opened

    yield MetaStoreKit, {"make": make}


async def put(store: MetaStore, key: bytes, value: bytes | None) -> int:
    """Set or delete one row."""
    return await store.commit(Commit(writes=[Write(key, value)]))


async def fill(store: MetaStore, keys: list[bytes]) -> int:
    """Set many rows, each to its own key."""
    version = 0
    for at in range(0, len(keys), WRITES_MAX):
        version = await store.commit(
            Commit(writes=[Write(key, key) for key in keys[at : at + WRITES_MAX]])
        )
    return version


async def get(store: MetaStore, key: bytes) -> bytes | None:
    """Read one row as of now."""
    view = store.view()
    try:
        row = await view.get(key)
        return None if row is None else row[0]
    finally:
        view.close()


async def keys_of(view: View, start: bytes = b"\0", end: bytes = KEY_END) -> list[bytes]:
    """Return all keys of a range, page by page."""
    keys: list[bytes] = []
    while True:
        page = await view.scan(start, end)
        keys += [row.key for row in page]
        if len(page) < SCAN_MAX:
            return keys
        start = page[-1].key + b"\0"


class MetaStoreKit(Kit, kit=True):
    """What every MetaStore promises.

    An adoption gives `subject`, or `make`, which returns a context that opens the engine on the same data each time. An engine
    that claims `durable` has to give `make`.
    """

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        """Return what opens the engine, on the same data each time."""
        raise NotImplementedError(
            f"{type(self).__name__} adopts MetaStoreKit: give it a fixture `make`"
        )

    @pytest.fixture
    async def stack(self, tmp_path: Path) -> AsyncIterator[AsyncExitStack]:
        """Yield what the subject is entered into: close it to close the subject, while its folder is still there."""
        async with AsyncExitStack() as stack:
            yield stack

    @pytest.fixture
    async def subject(self, stack: AsyncExitStack, make: Make) -> MetaStore:
        """Open the engine."""
        return await stack.enter_async_context(make())

    # Rows -----------------------------------------------------------------------------------------

    async def test_a_row_is_read_back_with_the_version_of_its_commit(
        self, subject: MetaStore
    ) -> None:
        version = await put(subject, b"k", b"value")

        view = subject.view()
        assert await view.get(b"k") == (b"value", version)
        assert await view.scan(b"a", b"z") == [Row(b"k", b"value", version)]

    async def test_an_absent_row_is_none(self, subject: MetaStore) -> None:
        await put(subject, b"k", b"v")

        assert await get(subject, b"j") is None
        assert await get(subject, b"k\0") is None
        assert await get(subject, b"") is None

    async def test_an_empty_value_is_a_row(self, subject: MetaStore) -> None:
        await put(subject, b"k", b"")

        assert await get(subject, b"k") == b""

    async def test_keys_and_values_are_any_bytes(self, subject: MetaStore) -> None:
        everything = bytes(range(256))
        keys = [bytes([byte]) for byte in everything] + [b"\0\0", b"\xff\xff", everything]
        await subject.commit(Commit(writes=[Write(key, everything + key) for key in keys[:100]]))
        await subject.commit(Commit(writes=[Write(key, everything + key) for key in keys[100:200]]))
        await subject.commit(Commit(writes=[Write(key, everything + key) for key in keys[200:]]))

        for key in keys:
            assert await get(subject, key) == everything + key
        assert await keys_of(subject.view()) == sorted(keys)

    async def test_a_later_write_replaces(self, subject: MetaStore) -> None:
        first = await put(subject, b"k", b"one")
        second = await put(subject, b"k", b"two")

        assert second > first
        assert await subject.view().get(b"k") == (b"two", second)

    async def test_a_delete_removes(self, subject: MetaStore) -> None:
        await put(subject, b"k", b"v")
        await put(subject, b"k", None)

        assert await get(subject, b"k") is None
        assert await subject.view().scan(b"a", b"z") == []
        await put(subject, b"k", b"again")
        assert await get(subject, b"k") == b"again"

    async def test_deleting_an_absent_row_is_harmless(self, subject: MetaStore) -> None:
        await put(subject, b"k", None)

        assert await get(subject, b"k") is None

    async def test_versions_grow_with_every_commit(self, subject: MetaStore) -> None:
        versions = [await put(subject, b"%d" % (i % 3), b"v") for i in range(20)]
        versions.append(await subject.commit(Commit()))
        versions.append(await put(subject, b"x", b"v"))

        assert versions == sorted(set(versions))
        assert versions[0] > 0

    # Atomicity ------------------------------------------------------------------------------------

    async def test_a_commit_is_applied_whole(self, subject: MetaStore) -> None:
        await put(subject, b"gone", b"v")
        version = await subject.commit(
            Commit(
                writes=[Write(b"a", b"1"), Write(b"b", b"2"), Write(b"gone", None)],
                merges=[Merge(b"c", add=(3,))],
                stamps=[Stamp(b"s", b"", b"4")],
            )
        )

        rows = await subject.view().scan(b"\0", b"\xff")
        assert [(row.value, row.version) for row in rows] == [
            (b"1", version),
            (b"2", version),
            ((3).to_bytes(8, "little"), version),
            (b"4", version),
        ]

    async def test_a_refused_commit_leaves_no_trace(self, subject: MetaStore) -> None:
        await put(subject, b"there", b"v")
        await subject.commit(Commit(merges=[Merge(b"count", add=(1,))]))
        before = await subject.view().scan(b"\0", b"\xff")
        everything = {
            "writes": [Write(b"new", b"v"), Write(b"there", None)],
            "merges": [Merge(b"count", add=(5,))],
            "stamps": [Stamp(b"s", b"", b"v")],
        }

        for check in (KeyCheck(b"there", 0), RangeCheck(b"t", b"u", 0)):
            with pytest.raises(Conflict):
                await subject.commit(
                    Commit(checks=[KeyCheck(b"absent", 0), check], **everything)  # type: ignore[arg-type]
                )
        assert await subject.view().scan(b"\0", b"\xff") == before

    async def test_readers_see_all_of_a_commit_or_nothing(self, subject: MetaStore) -> None:
        keys = [b"%02d" % i for i in range(20)]
        stop = False

        async def write() -> None:
            for number in range(40):
                await subject.commit(Commit(writes=[Write(key, b"%d" % number) for key in keys]))
                await asyncio.sleep(0)
            nonlocal stop
            stop = True

        async def read() -> int:
            looks = 0
            while not stop:
                view = subject.view()
                values = {row.value for row in await view.scan(b"0", b"9")}
                assert len(values) <= 1
                for key in (keys[0], keys[-1]):
                    row = await view.get(key)
                    assert row is None or {row[0]} == values
                view.close()
                looks += 1
                await asyncio.sleep(0)
            return looks

        results = await asyncio.gather(write(), read(), read())
        assert results[1]

    # Views ----------------------------------------------------------------------------------------

    async def test_a_view_shows_every_commit_that_returned_before(self, subject: MetaStore) -> None:
        async def client(name: int) -> None:
            for number in range(10):
                version = await put(subject, b"%d" % name, b"%d" % number)
                view = subject.view()
                assert await view.get(b"%d" % name) == (b"%d" % number, version)
                assert view.version >= version
                view.close()

        await asyncio.gather(*(client(name) for name in range(10)))

    async def test_a_view_does_not_change(self, subject: MetaStore) -> None:
        await fill(subject, [b"a", b"b", b"c"])
        await subject.commit(Commit(merges=[Merge(b"n", add=(1,))]))
        view = subject.view()
        before = await view.scan(b"\0", b"\xff")
        await subject.commit(
            Commit(
                writes=[Write(b"a", b"changed"), Write(b"b", None), Write(b"d", b"new")],
                merges=[Merge(b"n", add=(1,))],
                stamps=[Stamp(b"s", b"", b"v")],
            )
        )
        for _ in range(5):
            await subject.commit(
                Commit(writes=[Write(b"a", b"more")], merges=[Merge(b"n", add=(1,))])
            )

        assert await view.scan(b"\0", b"\xff") == before
        assert await view.get(b"a") == (b"a", before[0].version)
        assert await view.get(b"d") is None
        view.close()

    async def test_views_of_many_moments_live_side_by_side(self, subject: MetaStore) -> None:
        views = [subject.view()]
        for number in range(20):
            await put(subject, b"k", b"%d" % number if number % 4 else None)
            views.append(subject.view())
        for closed in views[5:15:3]:
            closed.close()

        for number, view in enumerate(views[1:]):
            if view in views[5:15:3]:
                continue
            row = await view.get(b"k")
            assert (row and row[0]) == (b"%d" % number if number % 4 else None)
        assert [await view.scan(b"a", b"z") for view in views[:1]] == [[]]
        for view in views:
            view.close()
            view.close()

    # Scans ----------------------------------------------------------------------------------------

    async def test_a_scan_is_in_order_of_unsigned_bytes(self, subject: MetaStore) -> None:
        keys = [
            b"a",
            b"a\0",
            b"a\0\xff",
            b"a/",
            b"a0",
            b"ab",
            b"\x7f",
            b"\x80",
            b"\xff",
            b"\xff\xff",
        ]
        shuffled = random.Random(1).sample(keys, len(keys))
        await fill(subject, shuffled)

        assert await keys_of(subject.view()) == sorted(keys)

    async def test_a_scan_begins_with_its_start_and_ends_before_its_end(
        self, subject: MetaStore
    ) -> None:
        await fill(subject, [b"a", b"b", b"c", b"d"])
        view = subject.view()

        assert [row.key for row in await view.scan(b"b", b"d")] == [b"b", b"c"]
        assert [row.key for row in await view.scan(b"b", b"d", reverse=True)] == [b"c", b"b"]
        assert [row.key for row in await view.scan(b"aa", b"cc")] == [b"b", b"c"]
        assert [row.key for row in await view.scan(b"aa", b"cc", reverse=True)] == [b"c", b"b"]
        assert [row.key for row in await view.scan(b"d", KEY_END, reverse=True)] == [b"d"]
        assert await view.scan(b"c", b"c") == []
        assert await view.scan(b"d", b"a") == []
        assert await view.scan(b"d", b"a", reverse=True) == []

    async def test_a_limit_takes_the_first_rows_of_the_direction(self, subject: MetaStore) -> None:
        await fill(subject, [b"%d" % i for i in range(9)])
        view = subject.view()

        assert [row.key for row in await view.scan(b"2", b"8", limit=3)] == [b"2", b"3", b"4"]
        assert [row.key for row in await view.scan(b"2", b"8", limit=3, reverse=True)] == [
            b"7",
            b"6",
            b"5",
        ]

    async def test_pages_cover_a_long_range_in_both_directions(self, subject: MetaStore) -> None:
        keys = [b"%05d" % i for i in range(2 * SCAN_MAX + 10)]
        await fill(subject, keys)
        view = subject.view()

        assert len(await view.scan(b"0", b"9", limit=5 * SCAN_MAX)) == SCAN_MAX
        assert same(await keys_of(view), keys)
        backwards: list[bytes] = []
        end = b"9"
        while page := await view.scan(b"0", end, limit=777, reverse=True):
            backwards += [row.key for row in page]
            end = page[-1].key
        assert same(backwards, keys[::-1])

    async def test_scans_pass_over_rows_that_were_deleted(self, subject: MetaStore) -> None:
        keys = [b"%03d" % i for i in range(200)]
        await fill(subject, keys)
        dead = [key for i, key in enumerate(keys) if i % 5 < 4]
        for at in range(0, len(dead), WRITES_MAX):
            await subject.commit(
                Commit(writes=[Write(key, None) for key in dead[at : at + WRITES_MAX]])
            )
        view = subject.view()

        assert [row.key for row in await view.scan(b"0", b"9", limit=10)] == keys[4:50:5]
        assert [row.key for row in await view.scan(b"0", b"9", limit=10, reverse=True)] == (
            keys[199:149:-5]
        )
        assert await keys_of(view) == keys[4::5]

    # Checks of rows -------------------------------------------------------------------------------

    async def test_a_check_holds_while_its_row_is_as_it_was(self, subject: MetaStore) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"other", b"v")

        await subject.commit(Commit(checks=[KeyCheck(b"k", version)], writes=[Write(b"x", b"1")]))
        await subject.commit(Commit(checks=[KeyCheck(b"no", 0)], writes=[Write(b"x", b"2")]))
        assert await get(subject, b"x") == b"2"

    async def test_a_check_fails_when_its_row_was_written(self, subject: MetaStore) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"k", b"v")

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", version)]))

    async def test_a_check_fails_when_its_row_was_deleted(self, subject: MetaStore) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"k", None)

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", version)]))

    async def test_a_check_fails_when_its_row_was_deleted_and_made_again(
        self, subject: MetaStore
    ) -> None:
        version = await put(subject, b"k", b"v")
        await put(subject, b"k", None)
        await put(subject, b"k", b"v")

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", version)]))

    async def test_a_check_for_absence_fails_when_the_row_exists(self, subject: MetaStore) -> None:
        await put(subject, b"k", b"")
        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"k", 0)]))

        await put(subject, b"k", None)
        await subject.commit(Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"made")]))
        assert await get(subject, b"k") == b"made"

    async def test_of_many_that_create_a_row_one_succeeds(self, subject: MetaStore) -> None:
        async def create(number: int) -> bool:
            try:
                await subject.commit(
                    Commit(checks=[KeyCheck(b"k", 0)], writes=[Write(b"k", b"%d" % number)])
                )
            except Conflict:
                return False
            return True

        won = await asyncio.gather(*(create(number) for number in range(20)))

        assert won.count(True) == 1
        assert await get(subject, b"k") == b"%d" % won.index(True)

    async def test_a_merge_changes_its_row_for_checks(self, subject: MetaStore) -> None:
        version = await subject.commit(Commit(merges=[Merge(b"n", add=(1,))]))
        await subject.commit(Commit(merges=[Merge(b"n", add=(0,))]))

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[KeyCheck(b"n", version)]))

    # Checks of ranges -----------------------------------------------------------------------------

    @pytest.mark.parametrize("what", ["added", "changed", "deleted", "merged", "stamped"])
    async def test_a_range_check_fails_when_a_row_inside_was(
        self, subject: MetaStore, what: str
    ) -> None:
        await fill(subject, [b"b1", b"b2", b"b3"])
        view = subject.view()
        changes = {
            "added": Commit(writes=[Write(b"b15", b"v")]),
            "changed": Commit(writes=[Write(b"b2", b"v")]),
            "deleted": Commit(writes=[Write(b"b2", None)]),
            "merged": Commit(merges=[Merge(b"b4", add=(1,))]),
            "stamped": Commit(stamps=[Stamp(b"b5", b"", b"v")]),
        }
        await subject.commit(changes[what])

        with pytest.raises(Conflict):
            await subject.commit(
                Commit(checks=[RangeCheck(b"b", b"c", view.version)], writes=[Write(b"x", b"v")])
            )
        view.close()

    async def test_a_range_check_holds_when_only_rows_outside_changed(
        self, subject: MetaStore
    ) -> None:
        await fill(subject, [b"a", b"b1", b"b2", b"c", b"d"])
        view = subject.view()
        await subject.commit(
            Commit(
                writes=[Write(b"a", b"v"), Write(b"c", b"v"), Write(b"d", None), Write(b"az", b"v")]
            )
        )

        await subject.commit(
            Commit(checks=[RangeCheck(b"b", b"c", view.version)], writes=[Write(b"x", b"v")])
        )
        view.close()

    async def test_a_range_check_covers_its_start_and_not_its_end(self, subject: MetaStore) -> None:
        view = subject.view()
        await put(subject, b"c", b"v")
        await subject.commit(Commit(checks=[RangeCheck(b"b", b"c", view.version)]))
        await put(subject, b"b", b"v")
        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[RangeCheck(b"b", b"c", view.version)]))
        view.close()

    async def test_a_row_that_came_and_went_is_a_change_of_its_range(
        self, subject: MetaStore
    ) -> None:
        view = subject.view()
        await put(subject, b"k", b"v")
        await put(subject, b"k", None)

        with pytest.raises(Conflict):
            await subject.commit(Commit(checks=[RangeCheck(b"a", b"z", view.version)]))
        view.close()

    # Isolation ------------------------------------------------------------------------------------

    async def test_write_skew_is_refused(self, subject: MetaStore) -> None:
        await fill(subject, [b"alice on call", b"bob on call"])
        one, two = Transaction(subject), Transaction(subject)
        for tx in (one, two):
            assert await tx.get(b"alice on call")
            assert await tx.get(b"bob on call")
        one.delete(b"alice on call")
        two.delete(b"bob on call")
        await one.commit()

        with pytest.raises(Conflict):
            await two.commit()
        one.close()
        two.close()

    async def test_a_phantom_is_refused(self, subject: MetaStore) -> None:
        async def reserve(tx: Transaction, name: bytes) -> None:
            if not await tx.scan(b"room/", b"room0"):
                tx.put(b"room/" + name, b"")

        one, two = Transaction(subject), Transaction(subject)
        await reserve(one, b"a")
        await reserve(two, b"b")
        await one.commit()

        with pytest.raises(Conflict):
            await two.commit()
        one.close()
        two.close()

    async def test_a_lost_delete_is_no_phantom(self, subject: MetaStore) -> None:
        """One removes a directory's only entry, another had listed it: the second must not act on what it saw."""
        await fill(subject, [b"dir/only"])
        reader = Transaction(subject)
        assert len(await reader.scan(b"dir/", b"dir0")) == 1
        await put(subject, b"dir/only", None)
        reader.put(b"summary", b"1 entry")

        with pytest.raises(Conflict):
            await reader.commit()
        reader.close()

    async def test_no_update_is_lost(self, subject: MetaStore) -> None:
        async def increment(tx: Transaction) -> None:
            value = await tx.get(b"n")
            await asyncio.sleep(0)
            tx.put(b"n", b"%d" % (int(value or b"0") + 1))

        await asyncio.gather(*(transact(subject, increment) for _ in range(30)))

        assert await get(subject, b"n") == b"30"

    async def test_money_is_neither_made_nor_lost(self, subject: MetaStore) -> None:
        accounts = [b"account/%d" % i for i in range(5)]
        await subject.commit(Commit(writes=[Write(key, b"100") for key in accounts]))
        chance = random.Random(7)

        async def move(tx: Transaction) -> None:
            source, target = chance.sample(accounts, 2)
            have = int(await tx.get(source) or b"0")
            if not have:
                return
            await asyncio.sleep(0)
            tx.put(source, b"%d" % (have - 1))
            tx.put(target, b"%d" % (int(await tx.get(target) or b"0") + 1))

        async def audit() -> None:
            for _ in range(20):
                view = subject.view()
                rows = await view.scan(b"account/", b"account0")
                view.close()
                assert sum(int(row.value) for row in rows) == 500
                await asyncio.sleep(0)

        await asyncio.gather(audit(), *(transact(subject, move) for _ in range(60)))
        await audit()

    # Merges ---------------------------------------------------------------------------------------

    async def test_merges_add_and_keep_the_greatest(self, subject: MetaStore) -> None:
        for add, greatest in (((1, -5), (10,)), ((2, 7), (4,)), ((0, -100), (11,))):
            await subject.commit(Commit(merges=[Merge(b"n", add=add, max=greatest)]))

        assert counters(await get(subject, b"n"), 3) == (3, -98, 11)

    async def test_a_merge_of_an_absent_row_starts_from_nothing(self, subject: MetaStore) -> None:
        await subject.commit(Commit(merges=[Merge(b"n", add=(-3,), max=(-(2**63),))]))
        await subject.commit(Commit(merges=[Merge(b"m", max=(-7,))]))

        assert counters(await get(subject, b"n"), 2) == (-3, -(2**63))
        assert counters(await get(subject, b"m"), 1) == (-7,)

    async def test_a_merge_after_a_delete_starts_from_nothing(self, subject: MetaStore) -> None:
        await subject.commit(Commit(merges=[Merge(b"n", add=(5,))]))
        await put(subject, b"n", None)
        await subject.commit(Commit(merges=[Merge(b"n", add=(2,))]))

        assert counters(await get(subject, b"n"), 1) == (2,)

    async def test_concurrent_merges_never_conflict_and_all_count(self, subject: MetaStore) -> None:
        async def add(number: int) -> None:
            await subject.commit(
                Commit(
                    writes=[Write(b"own/%d" % number, b"v")],
                    merges=[Merge(b"n", add=(1, number), max=(number,))],
                )
            )

        await asyncio.gather(*(add(number) for number in range(100)))

        assert counters(await get(subject, b"n"), 3) == (100, sum(range(100)), 99)

    async def test_a_merge_that_does_not_fit_its_row_is_refused(self, subject: MetaStore) -> None:
        await subject.commit(Commit(merges=[Merge(b"n", add=(1, 2))]))
        await put(subject, b"text", b"hello")
        await subject.commit(Commit(merges=[Merge(b"most", add=(INT64_MAX,))]))
        for merge in (
            Merge(b"n", add=(1,)),
            Merge(b"n", add=(1, 1, 1)),
            Merge(b"text", add=(1,)),
            Merge(b"most", add=(1,)),
        ):
            with pytest.raises(InvalidArgument):
                await subject.commit(Commit(writes=[Write(b"trace", b"v")], merges=[merge]))

        assert await get(subject, b"trace") is None
        assert counters(await get(subject, b"n"), 2) == (1, 2)
        assert counters(await get(subject, b"most"), 1) == (INT64_MAX,)

    # Stamps ---------------------------------------------------------------------------------------

    async def test_a_stamp_carries_the_version_of_its_commit(self, subject: MetaStore) -> None:
        await put(subject, b"x", b"v")
        version = await subject.commit(
            Commit(
                stamps=[
                    Stamp(b"up/", b"/end", b"1"),
                    Stamp(b"down/", b"", b"2", descending=True),
                ]
            )
        )

        assert await get(subject, b"up/" + version.to_bytes(8, "big") + b"/end") == b"1"
        assert await get(subject, b"down/" + (2**64 - 1 - version).to_bytes(8, "big")) == b"2"

    async def test_stamps_sort_by_version_also_under_concurrency(self, subject: MetaStore) -> None:
        async def log(number: int) -> int:
            return await subject.commit(
                Commit(
                    stamps=[
                        Stamp(b"up/", b"", b"%d" % number),
                        Stamp(b"down/", b"", b"%d" % number, descending=True),
                    ]
                )
            )

        versions = await asyncio.gather(*(log(number) for number in range(30)))
        order = [b"%d" % i for _, i in sorted(zip(versions, itertools.count(), strict=False))]

        view = subject.view()
        assert [row.value for row in await view.scan(b"up/", b"up0")] == order
        assert [row.value for row in await view.scan(b"down/", b"down0")] == order[::-1]
        assert len(set(versions)) == 30

    # Request ids ----------------------------------------------------------------------------------

    async def test_a_request_id_is_applied_once(self, subject: MetaStore) -> None:
        request = os.urandom(16)
        commit = Commit(merges=[Merge(b"n", add=(1,))], request_id=request)
        version = await subject.commit(commit)
        await put(subject, b"between", b"v")

        assert await subject.commit(commit) == version
        assert counters(await get(subject, b"n"), 1) == (1,)

    async def test_a_request_id_sent_twice_at_once_is_applied_once(
        self, subject: MetaStore
    ) -> None:
        commit = Commit(
            checks=[KeyCheck(b"k", 0)],
            writes=[Write(b"k", b"v")],
            merges=[Merge(b"n", add=(1,))],
            request_id=os.urandom(16),
        )
        versions = await asyncio.gather(*(subject.commit(commit) for _ in range(5)))

        assert len(set(versions)) == 1
        assert counters(await get(subject, b"n"), 1) == (1,)

    async def test_commits_without_a_request_id_are_all_applied(self, subject: MetaStore) -> None:
        commit = Commit(merges=[Merge(b"n", add=(1,))])
        for _ in range(3):
            await subject.commit(commit)

        assert counters(await get(subject, b"n"), 1) == (3,)

    async def test_a_refused_request_may_be_sent_again(self, subject: MetaStore) -> None:
        await put(subject, b"k", b"v")
        commit = Commit(
            checks=[KeyCheck(b"k", 0)], writes=[Write(b"x", b"v")], request_id=os.urandom(16)
        )
        with pytest.raises(Conflict):
            await subject.commit(commit)
        await put(subject, b"k", None)

        await subject.commit(commit)
        assert await get(subject, b"x") == b"v"

    async def test_the_outcome_of_a_request_is_told(self, subject: MetaStore) -> None:
        request = os.urandom(16)
        try:
            assert await subject.outcome(os.urandom(16)) is None
        except Unsupported:
            pytest.skip("this engine never leaves a commit ambiguous")
        version = await subject.commit(Commit(writes=[Write(b"k", b"v")], request_id=request))

        assert await subject.outcome(request) == version

    # Limits ---------------------------------------------------------------------------------------

    async def test_what_is_within_the_limits_is_taken(self, subject: MetaStore) -> None:
        key = b"\xff" * KEY_MAX
        await put(subject, key, bytes(VALUE_MAX))
        await subject.commit(Commit(writes=[Write(b"%d" % i, b"v") for i in range(WRITES_MAX)]))
        await subject.commit(Commit(stamps=[Stamp(b"s" * (KEY_MAX - 10), b"ab", b"v")]))
        count = COMMIT_MAX // (VALUE_MAX + 10)
        await subject.commit(
            Commit(writes=[Write(b"big%d" % i, bytes(VALUE_MAX)) for i in range(count)])
        )

        assert same(await get(subject, key), bytes(VALUE_MAX))
        assert [row.key for row in await subject.view().scan(key, KEY_END)] == [key]
        assert same(await get(subject, b"big%d" % (count - 1)), bytes(VALUE_MAX))

    @pytest.mark.parametrize(
        "commit",
        [
            pytest.param(Commit(writes=[Write(b"k" * (KEY_MAX + 1), b"v")]), id="key"),
            pytest.param(Commit(merges=[Merge(b"k" * (KEY_MAX + 1), add=(1,))]), id="merged key"),
            pytest.param(Commit(stamps=[Stamp(b"k" * KEY_MAX, b"", b"v")]), id="stamped key"),
            pytest.param(Commit(writes=[Write(b"k", bytes(VALUE_MAX + 1))]), id="value"),
            pytest.param(
                Commit(stamps=[Stamp(b"k", b"", bytes(VALUE_MAX + 1))]), id="stamped value"
            ),
            pytest.param(
                Commit(writes=[Write(b"%d" % i, b"v") for i in range(WRITES_MAX + 1)]), id="writes"
            ),
            pytest.param(
                Commit(
                    writes=[Write(b"w%d" % i, b"v") for i in range(WRITES_MAX - 1)],
                    merges=[Merge(b"m", add=(1,))],
                    stamps=[Stamp(b"s", b"", b"v")],
                ),
                id="rows of all sorts",
            ),
            pytest.param(
                Commit(
                    writes=[
                        Write(b"%d" % i, bytes(VALUE_MAX)) for i in range(COMMIT_MAX // VALUE_MAX)
                    ]
                ),
                id="commit",
            ),
        ],
    )
    async def test_what_is_beyond_a_limit_is_refused_whole(
        self, subject: MetaStore, commit: Commit
    ) -> None:
        with pytest.raises(TooLarge):
            await subject.commit(commit)

        assert await subject.view().scan(b"\0", KEY_END) == []

    async def test_what_makes_no_sense_is_refused(self, subject: MetaStore) -> None:
        for commit in (
            Commit(writes=[Write(b"", b"v")]),
            Commit(writes=[Write(b"k", b"1"), Write(b"k", b"2")]),
            Commit(writes=[Write(b"k", None)], merges=[Merge(b"k", add=(1,))]),
            Commit(writes=[Write(b"k", b"v")], request_id=b"short"),
        ):
            with pytest.raises(InvalidArgument):
                await subject.commit(commit)

        assert await subject.view().scan(b"\0", KEY_END) == []

    # Answers without waiting ----------------------------------------------------------------------

    @requires(immediate=False)
    async def test_an_answer_without_waiting_is_refused(self, subject: MetaStore) -> None:
        with refused():
            subject.get_now(b"k")

    @requires(immediate=True)
    async def test_an_answer_without_waiting_is_what_a_view_shows(self, subject: MetaStore) -> None:
        assert subject.get_now(b"k") is None
        first_version = await put(subject, b"k", b"1")
        assert subject.get_now(b"k") == (b"1", first_version)
        view = subject.view()
        second_version = await put(subject, b"k", b"2")
        assert subject.get_now(b"k") == (b"2", second_version)
        assert await view.get(b"k") == view.get_now(b"k") == (b"1", first_version)
        view.close()
        await put(subject, b"k", None)
        assert subject.get_now(b"k") is None

    @requires(immediate=True)
    async def test_an_answer_without_waiting_never_shows_what_is_not_committed_yet(
        self, subject: MetaStore
    ) -> None:
        await put(subject, b"k", b"0")
        for number in range(1, 20):
            writing = asyncio.create_task(put(subject, b"k", b"%d" % number))
            while not writing.done():
                view = subject.view()
                assert subject.get_now(b"k") == await view.get(b"k")
                view.close()
                await asyncio.sleep(0)
            assert subject.get_now(b"k") == (b"%d" % number, await writing)

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

    # Leases ---------------------------------------------------------------------------------------

    @requires(lease=False)
    async def test_leases_are_refused(self, subject: MetaStore) -> None:
        with refused():
            await subject.lease("name", "holder", 1.0)

    @requires(lease=True)
    async def test_a_lease_has_one_holder(self, subject: MetaStore) -> None:
        lease = await subject.lease("home", "a", 30.0)
        with pytest.raises(Locked):
            await subject.lease("home", "b", 30.0)
        other = await subject.lease("another home", "b", 30.0)

        assert (lease.name, lease.holder) == ("home", "a")
        assert (other.name, other.holder) == ("another home", "b")

    @requires(lease=True)
    async def test_of_many_that_ask_for_a_lease_one_gets_it(self, subject: MetaStore) -> None:
        async def ask(holder: str) -> bool:
            try:
                await subject.lease("home", holder, 30.0)
            except Locked:
                return False
            return True

        got = await asyncio.gather(*(ask(f"holder {number}") for number in range(10)))
        assert got.count(True) == 1

    @requires(lease=True)
    async def test_a_lease_ends_unless_renewed_and_tokens_grow(self, subject: MetaStore) -> None:
        old = await subject.lease("home", "a", TTL_S)
        await asyncio.sleep(TTL_S * 0.6)
        await subject.renew(old)
        await asyncio.sleep(TTL_S * 0.6)
        with pytest.raises(Locked):
            await subject.lease("home", "b", TTL_S)
        await asyncio.sleep(TTL_S)
        new = await subject.lease("home", "b", 30.0)

        assert new.token > old.token
        with pytest.raises(Fenced):
            await subject.renew(old)

    @requires(lease=True)
    async def test_a_lease_that_ended_cannot_be_renewed(self, subject: MetaStore) -> None:
        lease = await subject.lease("home", "a", TTL_S)
        await asyncio.sleep(TTL_S * 1.2)

        with pytest.raises(Fenced):
            await subject.renew(lease)

    @requires(lease=True)
    async def test_a_released_lease_is_free(self, subject: MetaStore) -> None:
        lease = await subject.lease("home", "a", 30.0)
        await subject.release(lease)
        await subject.release(lease)
        with pytest.raises(Fenced):
            await subject.renew(lease)
        new = await subject.lease("home", "b", 30.0)

        assert new.token > lease.token
        await subject.release(lease)
        with pytest.raises(Locked):
            await subject.lease("home", "c", 30.0)

    @requires(lease=True)
    async def test_granting_again_to_the_holder_fences_its_old_token(
        self, subject: MetaStore
    ) -> None:
        old = await subject.lease("home", "a", 30.0)
        new = await subject.lease("home", "a", 30.0)

        assert new.token > old.token
        with pytest.raises(Fenced):
            await subject.renew(old)
        await subject.renew(new)

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

    # Against a model ------------------------------------------------------------------------------

    @given(data=st.data())
    async def test_any_sequence_agrees_with_a_plain_model(
        self, subject: MetaStore, data: st.DataObject
    ) -> None:
        run = _Comparison(subject, data)
        try:
            for _ in range(data.draw(st.integers(1, 30))):
                await run.step()
            await run.compare_everything()
        finally:
            run.close()


async def first(changes: AsyncIterator[Change], count: int) -> list[Change]:
    """Return the first changes of a watch."""
    found: list[Change] = []
    async for change in changes:
        found.append(change)
        if len(found) == count:
            break
    return found


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


KEYS = st.sampled_from([b"a", b"a\0", b"aa", b"b", b"b/c", b"c", b"ca", b"d", b"\xff"])
COUNTERS = st.sampled_from([b"n/1", b"n/2"])
VALUES = st.binary(max_size=4)
BOUNDS = st.sampled_from(
    [b"\0", b"a", b"aa", b"b", b"b0", b"c", b"d", b"e", b"n", b"o", b"\xff", b"\xff\xff"]
)


class _Comparison:
    """One random sequence on the subject and on the plain model, below a prefix of its own."""

    _prefixes = itertools.count()

    def __init__(self, subject: MetaStore, data: st.DataObject) -> None:
        self.subject = subject
        self.model = Plain()
        self.data = data
        self.prefix = b"run%06d/" % next(self._prefixes)
        self.views: list[tuple[View, View]] = []
        self.versions = {0: 0}  # of the model → of the subject
        self.look()

    def close(self) -> None:
        for ours, theirs in self.views:
            ours.close()
            theirs.close()

    def look(self) -> None:
        """Open a view on both."""
        self.views.append((self.subject.view(), self.model.view()))
        if len(self.views) > 4:
            ours, theirs = self.views.pop(self.data.draw(st.integers(0, 2)))
            ours.close()
            theirs.close()

    async def step(self) -> None:
        await getattr(self, self.data.draw(st.sampled_from(["change", "change", "read", "scan"])))()

    async def change(self) -> None:
        draw = self.data.draw
        ours, theirs = draw(st.sampled_from(self.views))
        keys = draw(st.lists(KEYS, unique=True, max_size=3))
        plain: list[KeyCheck | RangeCheck] = []
        real: list[KeyCheck | RangeCheck] = []
        for key in draw(st.lists(st.one_of(KEYS, COUNTERS), max_size=2, unique=True)):
            row = await theirs.get(key)
            seen = row[1] if row else 0
            plain.append(KeyCheck(key, seen))
            real.append(KeyCheck(self.prefix + key, self.versions[seen]))
        for start, end in draw(st.lists(st.tuples(BOUNDS, BOUNDS), max_size=1)):
            plain.append(RangeCheck(start, end, theirs.version))
            real.append(RangeCheck(self.prefix + start, self.prefix + end, ours.version))
        values = [draw(st.one_of(st.none(), VALUES)) for _ in keys]
        merges = [
            Merge(key, add=(draw(st.integers(-5, 5)),), max=(draw(st.integers(-5, 5)),))
            for key in draw(st.lists(COUNTERS, max_size=1))
        ]
        stamps = [Stamp(b"s/", b"x", b"v")] if draw(st.booleans()) else []
        agreed = await _both(
            self.subject.commit(
                Commit(
                    real,
                    [
                        Write(self.prefix + key, value)
                        for key, value in zip(keys, values, strict=True)
                    ],
                    [merge._replace(key=self.prefix + merge.key) for merge in merges],
                    [stamp._replace(prefix=self.prefix + stamp.prefix) for stamp in stamps],
                )
            ),
            self.model.commit(
                Commit(
                    plain,
                    [Write(key, value) for key, value in zip(keys, values, strict=True)],
                    merges,
                    stamps,
                )
            ),
        )
        if agreed is not None:
            self.versions[agreed[1]] = agreed[0]
            self.look()

    async def read(self) -> None:
        ours, theirs = self.data.draw(st.sampled_from(self.views))
        key = self.data.draw(st.one_of(KEYS, COUNTERS))
        row = await theirs.get(key)
        expected = None if row is None else (row[0], self.versions[row[1]])
        assert await ours.get(self.prefix + key) == expected

    async def scan(self) -> None:
        draw = self.data.draw
        ours, theirs = draw(st.sampled_from(self.views))
        start, end = draw(BOUNDS), draw(BOUNDS)
        limit = draw(st.sampled_from([1, 2, 3, SCAN_MAX]))
        reverse = draw(st.booleans())
        await self.compare(ours, theirs, start, end, limit=limit, reverse=reverse)

    async def compare(self, ours: View, theirs: View, start: bytes, end: bytes, **how: Any) -> None:
        rows = await ours.scan(self.prefix + start, self.prefix + end, **how)
        expected = await theirs.scan(start, end, **how)
        found = [(self._shorn(row.key), row.value, row.version) for row in rows]
        assert found == [
            (self._translated(row), row.value, self.versions[row.version]) for row in expected
        ]

    async def compare_everything(self) -> None:
        self.look()
        for ours, theirs in self.views:
            await self.compare(ours, theirs, b"\0", b"\xff\xff", limit=SCAN_MAX, reverse=False)

    def _shorn(self, key: bytes) -> bytes:
        return key[len(self.prefix) :]

    def _translated(self, row: Row) -> bytes:
        """Return the key that the subject has for a row of the model: stamps carry versions."""
        if not row.key.startswith(b"s/"):
            return row.key
        return b"s/" + self.versions[row.version].to_bytes(8, "big") + b"x"


async def _both(ours: Awaitable[int], theirs: Awaitable[int]) -> tuple[int, int] | None:
    """Await two commits; both succeed or both conflict."""
    try:
        expected = await theirs
    except Conflict:
        with pytest.raises(Conflict):
            await ours
        return None
    return await ours, expected
