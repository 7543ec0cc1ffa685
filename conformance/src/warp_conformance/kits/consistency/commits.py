"""Merges, stamps, request ids, and the limits of a commit."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest
from warp_core.errors import (
    Conflict,
    InvalidArgument,
    TooLarge,
    Unsupported,
)
from warp_core.interfaces.consistency import (
    COMMIT_MAX,
    KEY_MAX,
    VALUE_MAX,
    WRITES_MAX,
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    Stamp,
    Write,
)
from warp_core.metadata import KEY_END, counters

from warp_conformance.difference import same
from warp_conformance.kits.consistency.stage import INT64_MAX, MetaStoreStage, get, put


class Commits(MetaStoreStage, kit=True):
    """Merges, stamps, request ids, and the limits of a commit."""

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
