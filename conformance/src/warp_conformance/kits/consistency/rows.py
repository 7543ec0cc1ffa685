"""Rows, and commits that change several of them at once or not at all."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    Conflict,
)
from warp_core.interfaces.consistency import (
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    RangeCheck,
    Row,
    Stamp,
    Write,
)

from warp_conformance.kits.consistency.stage import MetaStoreStage, get, keys_of, put


class Rows(MetaStoreStage, kit=True):
    """Rows, and commits that change several of them at once or not at all."""

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
