"""Objects: whole, in pieces, overwritten, removed, and only under conditions."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    InvalidArgument,
    NameTooLong,
    NotFound,
    PreconditionFailed,
    TooLarge,
    VersionNotFound,
)
from warp_core.views.objects import (
    KEY_MAX,
    SMALL_MAX,
    Attributes,
    Condition,
    Digests,
    Objects,
)

from warp_conformance.difference import same
from warp_conformance.kits.objects.stage import (
    KEYS_IN_ORDER,
    PLAIN,
    RICH,
    ObjectsStage,
    Usage,
    digests,
    get,
    keys,
    noise,
    put,
    rolled,
)


class Content(ObjectsStage, kit=True):
    """Objects: whole, in pieces, overwritten, removed, and only under conditions."""

    # Objects --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 4096, SMALL_MAX])
    async def test_a_small_object_reads_back(
        self, subject: Objects, volume: str, size: int
    ) -> None:
        data = noise(size)
        made = await put(subject, volume, b"a/k", data)

        assert same(await get(subject, volume, b"a/k"), data)
        head = await subject.head(volume, b"a/k")
        assert (made.key, made.size, made.etag) == (b"a/k", size, digests(data).etag)
        assert (head.key, head.size, head.etag, head.version) == (
            b"a/k",
            size,
            digests(data).etag,
            "null",
        )
        assert head.modified_ns == made.modified_ns > 0

    async def test_a_payload_may_be_any_buffer_and_is_free_after_the_call(
        self, subject: Objects, volume: str
    ) -> None:
        buffer = bytearray(noise(5000))
        await subject.put(volume, b"k", memoryview(buffer)[100:], PLAIN, digests(b""))
        buffer[:] = bytes(5000)

        assert same(await get(subject, volume, b"k"), noise(5000)[100:])

    async def test_put_refuses_what_is_not_small(self, subject: Objects, volume: str) -> None:
        with pytest.raises(TooLarge):
            await put(subject, volume, b"k", bytes(SMALL_MAX + 1))
        assert await keys(subject, volume) == []

    @pytest.mark.parametrize("size", [0, 1, 70_000, 3 * 1024 * 1024 + 17])
    async def test_a_streamed_object_reads_back(
        self, subject: Objects, volume: str, size: int
    ) -> None:
        data = noise(size)
        writer = await subject.writer(volume, b"k", PLAIN)
        sent = 0
        while sent < size:
            buffer = writer.buffer()
            count = min(len(buffer), size - sent, 50_000)
            assert count
            buffer[:count] = data[sent : sent + count]
            sent += count
            if writer.wrote(count):
                await writer.drain()
        with pytest.raises(NotFound):
            await subject.head(volume, b"k")
        made = await writer.commit(digests(data))

        assert (made.size, made.etag) == (size, digests(data).etag)
        assert same(await get(subject, volume, b"k"), data)

    async def test_ranges_are_exact(self, subject: Objects, volume: str) -> None:
        data = noise(2 * 1024 * 1024 + 77)
        writer = await subject.writer(volume, b"k", PLAIN, size=len(data))
        await writer.write(data)
        await writer.commit(digests(data))
        reader = await subject.open(volume, b"k")

        for offset, length in (
            (0, 1),
            (1, 65_536),
            (65_535, 2),
            (1 << 20, 1 << 20),
            (len(data) - 1, 100),
            (len(data), 5),
            (12_345, 0),
        ):
            assert same(await reader.read(offset, length), data[offset : offset + length])
        reader.close()
        reader.close()

    async def test_an_aborted_stream_leaves_nothing(self, subject: Objects, volume: str) -> None:
        writer = await subject.writer(volume, b"k", PLAIN)
        await writer.write(noise(100_000))
        await writer.abort()
        await writer.abort()

        assert await keys(subject, volume) == []

    async def test_attributes_and_digests_are_kept(self, subject: Objects, volume: str) -> None:
        said = Digests(
            etag="e" * 32, checksums={"CRC64NVME": "AAAAAAAAAAA="}, checksum_type="FULL_OBJECT"
        )
        await subject.put(volume, b"k", b"data", RICH, said)

        head = await subject.head(volume, b"k")
        assert head.attributes == RICH
        assert (head.etag, head.checksums, head.checksum_type) == (
            said.etag,
            said.checksums,
            said.checksum_type,
        )
        assert (head.storage_class, head.owner) == (RICH.storage_class, RICH.owner)
        (entry,) = (await subject.list(volume)).entries
        assert (entry.etag, entry.size, entry.owner) == (said.etag, 4, RICH.owner)
        assert (entry.storage_class, entry.checksum_algorithms) == ("STANDARD_IA", ("CRC64NVME",))
        assert entry.modified_ns == head.modified_ns

    async def test_too_many_attributes_are_refused(self, subject: Objects, volume: str) -> None:
        fits = Attributes(metadata={"a": "x" * 8000})
        await put(subject, volume, b"k", b"", fits)
        assert (await subject.head(volume, b"k")).attributes == fits

    async def test_overwriting_replaces_everything(
        self, subject: Objects, volume: str, usage: Usage
    ) -> None:
        await put(subject, volume, b"k", noise(9000), RICH)
        await put(subject, volume, b"k", noise(2000, 1))

        assert same(await get(subject, volume, b"k"), noise(2000, 1))
        assert (await subject.head(volume, b"k")).attributes == PLAIN
        assert await usage(volume) == (1, 2000, 0, 0)

    async def test_what_is_answered_without_waiting_is_what_waiting_gives(
        self, subject: Objects, volume: str
    ) -> None:
        async def agree() -> None:
            for key in (b"k", b"d/e/k"):
                for _ in range(2):
                    info = subject.head_now(volume, key)
                    assert info is None or info == await subject.head(volume, key)
                    reader = subject.open_now(volume, key)
                    if reader is None:
                        continue
                    try:
                        assert reader.info == await subject.head(volume, key)
                        data = reader.read_now(0, reader.info.size)
                        if data is None:
                            data = await reader.read(0, reader.info.size)
                        assert same(bytes(data), await get(subject, volume, key))
                    finally:
                        reader.close()

        await agree()
        for key in (b"k", b"d/e/k"):
            await put(subject, volume, key, noise(9000), RICH)
        await agree()
        await subject.set_tags(volume, b"k", {"a": "1"})
        await agree()
        for key in (b"k", b"d/e/k"):
            await put(subject, volume, key, noise(100, 1))
        await agree()
        await subject.set_versioning(volume, "on")
        await put(subject, volume, b"k", noise(2000, 2))
        await agree()
        await subject.delete(volume, b"k")
        await subject.delete(volume, b"d/e/k")
        await agree()
        assert subject.head_now(volume, b"k") is None
        await put(subject, volume, b"k", noise(3000, 3))
        await agree()

    async def test_a_reader_keeps_what_it_opened(self, subject: Objects, volume: str) -> None:
        data = noise(300_000)
        writer = await subject.writer(volume, b"k", PLAIN)
        await writer.write(data)
        await writer.commit(digests(data))
        reader = await subject.open(volume, b"k")
        await put(subject, volume, b"k", b"other")
        await subject.delete(volume, b"k")

        assert same(await reader.read(0, len(data)), data)
        reader.close()

    async def test_keys_have_their_limits(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"k" * KEY_MAX, b"long")
        assert await get(subject, volume, b"k" * KEY_MAX) == b"long"
        for key, error in ((b"k" * (KEY_MAX + 1), NameTooLong), (b"", InvalidArgument)):
            with pytest.raises(error):
                await put(subject, volume, key)
            with pytest.raises(error):
                await subject.writer(volume, key, PLAIN)
            with pytest.raises(error):
                await subject.create_upload(volume, key, PLAIN)

    async def test_any_bytes_are_a_key(self, subject: Objects, volume: str) -> None:
        for key in KEYS_IN_ORDER:
            await put(subject, volume, key, key)

        for key in KEYS_IN_ORDER:
            assert await get(subject, volume, key) == key
        for key in KEYS_IN_ORDER[::2]:
            assert (await subject.delete(volume, key)).found
        assert await keys(subject, volume) == KEYS_IN_ORDER[1::2]

    async def test_a_key_of_many_levels(self, subject: Objects, volume: str) -> None:
        deep = b"/".join([b"d"] * 500)
        await put(subject, volume, deep, b"deep")
        await put(subject, volume, b"/" * 1000, b"slashes")
        assert await keys(subject, volume) == [b"/" * 1000, deep]
        assert await get(subject, volume, deep) == b"deep"
        await subject.delete(volume, deep)
        await subject.delete(volume, b"/" * 1000)

        assert await rolled(subject, volume, b"/") == ([], [])
        await subject.delete_volume(volume)

    async def test_what_is_not_there_is_not_found(self, subject: Objects, volume: str) -> None:
        await put(subject, volume, b"a/b")
        for key in (b"a", b"a/", b"a/b/", b"a/bc", b"a/b/c", b"b"):
            with pytest.raises(NotFound):
                await subject.head(volume, key)
            with pytest.raises(NotFound):
                await subject.open(volume, key)
        with pytest.raises(VersionNotFound):
            await subject.head(volume, b"a/b", version="0" * 32)
        with pytest.raises(VersionNotFound):
            await subject.open(volume, b"a/b", version="no-version")

    async def test_delete_says_whether_something_was_there(
        self, subject: Objects, volume: str
    ) -> None:
        await put(subject, volume, b"k")
        first = await subject.delete(volume, b"k")
        second = await subject.delete(volume, b"k")

        assert (first.found, first.marker, first.version) == (True, False, "")
        assert not second.found
        with pytest.raises(NotFound):
            await subject.head(volume, b"k")

    async def test_keys_deleted_together_are_each_told_of(
        self, subject: Objects, volume: str
    ) -> None:
        for key in (b"a", b"d/a", b"d/b", b"kept"):
            await put(subject, volume, key)
        gone = await subject.delete_together(volume, [b"a", b"d/a", b"none", b"d/b", b"a"])

        assert [each.found for each in gone] == [True, True, False, True, False]
        assert await keys(subject, volume) == [b"kept"]

    async def test_tags_are_replaced_alone(self, subject: Objects, volume: str) -> None:
        before = await put(subject, volume, b"k", noise(5000), RICH)
        assert await subject.set_tags(volume, b"k", {"new": "tag"}) == "null"

        head = await subject.head(volume, b"k")
        assert head.attributes.tags == {"new": "tag"}
        assert head.attributes.metadata == RICH.metadata
        assert head.modified_ns == before.modified_ns
        assert same(await get(subject, volume, b"k"), noise(5000))
        with pytest.raises(NotFound):
            await subject.set_tags(volume, b"other", {})

    # Conditions -----------------------------------------------------------------------------------

    async def test_absent_means_no_current_object(self, subject: Objects, volume: str) -> None:
        absent = Condition(absent=True)
        await put(subject, volume, b"k", b"1", condition=absent)
        with pytest.raises(PreconditionFailed):
            await put(subject, volume, b"k", b"2", condition=absent)
        assert await get(subject, volume, b"k") == b"1"
        await subject.set_versioning(volume, "on")
        await subject.delete(volume, b"k")
        await put(subject, volume, b"k", b"3", condition=absent)

        assert await get(subject, volume, b"k") == b"3"

    async def test_an_etag_is_compared_with_the_current_object(
        self, subject: Objects, volume: str
    ) -> None:
        made = await put(subject, volume, b"k", b"1")
        with pytest.raises(PreconditionFailed):
            await put(subject, volume, b"k", b"2", condition=Condition(etag="0" * 32))
        await put(subject, volume, b"k", b"3", condition=Condition(etag=made.etag))
        await put(subject, volume, b"k", b"4", condition=Condition(etag="*"))
        with pytest.raises(NotFound):
            await put(subject, volume, b"other", b"5", condition=Condition(etag=made.etag))

        assert await get(subject, volume, b"k") == b"4"
        assert await keys(subject, volume) == [b"k"]

    async def test_a_stream_is_judged_when_it_commits(self, subject: Objects, volume: str) -> None:
        writer = await subject.writer(volume, b"k", PLAIN, condition=Condition(absent=True))
        await writer.write(b"late")
        await put(subject, volume, b"k", b"first")
        with pytest.raises(PreconditionFailed):
            await writer.commit(digests(b"late"))

        assert await get(subject, volume, b"k") == b"first"

    async def test_a_delete_may_have_conditions(self, subject: Objects, volume: str) -> None:
        made = await put(subject, volume, b"k", b"12345")
        for wrong in (
            Condition(etag="0" * 32),
            Condition(size=4),
            Condition(modified_s=made.modified_ns // 10**9 - 1),
        ):
            with pytest.raises(PreconditionFailed):
                await subject.delete(volume, b"k", condition=wrong)
        assert await keys(subject, volume) == [b"k"]
        right = Condition(etag=made.etag, size=5, modified_s=made.modified_ns // 10**9)

        assert (await subject.delete(volume, b"k", condition=right)).found

    async def test_of_many_that_demand_absence_one_succeeds(
        self, subject: Objects, volume: str
    ) -> None:
        async def attempt(number: int) -> bytes | None:
            data = b"%d" % number * 2000
            try:
                await put(subject, volume, b"d/k", data, condition=Condition(absent=True))
            except PreconditionFailed:
                return None
            return data

        won = [each for each in await asyncio.gather(*map(attempt, range(24))) if each]

        assert len(won) == 1
        assert same(await get(subject, volume, b"d/k"), won[0])

    async def test_a_counter_by_compare_and_swap_loses_nothing(
        self, subject: Objects, volume: str
    ) -> None:
        await put(subject, volume, b"n", b"0")

        async def client() -> None:
            for _ in range(6):
                while True:
                    reader = await subject.open(volume, b"n")
                    now = int(bytes(await reader.read(0, 10)))
                    etag = reader.info.etag
                    reader.close()
                    try:
                        await put(
                            subject, volume, b"n", b"%d" % (now + 1), condition=Condition(etag=etag)
                        )
                    except PreconditionFailed:
                        continue
                    break

        await asyncio.gather(*(client() for _ in range(5)))

        assert await get(subject, volume, b"n") == b"30"
