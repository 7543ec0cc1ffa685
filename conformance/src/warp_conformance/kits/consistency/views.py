"""Views of one moment, and their scans."""

from __future__ import annotations

import asyncio
import random

from warp_core.interfaces.consistency import (
    SCAN_MAX,
    WRITES_MAX,
    Commit,
    Merge,
    MetaStore,
    Stamp,
    Write,
)
from warp_core.metadata import KEY_END

from warp_conformance.difference import same
from warp_conformance.kit import refused, requires
from warp_conformance.kits.consistency.stage import MetaStoreStage, fill, keys_of, put


class Views(MetaStoreStage, kit=True):
    """Views of one moment, and their scans."""

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
