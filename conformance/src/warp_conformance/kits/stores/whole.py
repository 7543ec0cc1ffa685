"""Blobs that are put whole: reads, names, lists, deleting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from warp_core.errors import InvalidArgument, NotFound
from warp_core.interfaces.stores import BLOB_NAME_MAX, BlobStore

from warp_conformance.difference import same
from warp_conformance.kit import requires
from warp_conformance.kits.stores.stage import BAD_NAMES, KIB, NAMES, BlobStorePart, names, noise


class Whole(BlobStorePart, kit=True):
    """Blobs that are put whole: reads, names, lists, deleting."""

    # Whole blobs ----------------------------------------------------------------------------------

    async def test_a_blob_reads_back_as_it_was_put(self, subject: BlobStore) -> None:
        data = noise(10_000)
        await subject.put("a", [data])

        assert same(await subject.read("a", offset=0, length=len(data)), data)
        assert (await subject.stat("a"))[:2] == ("a", len(data))

    async def test_ranges_are_exact_and_end_with_the_blob(self, subject: BlobStore) -> None:
        data = noise(9_000)
        await subject.put("a", [data])

        for offset, length in (
            (0, 1),
            (1, 1),
            (17, 4096),
            (4096, 4096),
            (8_999, 1),
            (8_000, 9_000),
            (9_000, 5),
            (99_999, 5),
            (5, 0),
        ):
            assert same(
                await subject.read("a", offset=offset, length=length),
                data[offset : offset + length],
            )

    async def test_buffers_are_joined_in_order(self, subject: BlobStore) -> None:
        parts = [noise(n % 50, n) for n in range(2_500)]
        buffers = [(bytes, bytearray, memoryview)[n % 3](part) for n, part in enumerate(parts)]
        await subject.put("a", buffers)

        assert same(await subject.read("a", offset=0, length=1 << 20), b"".join(parts))

    async def test_an_empty_blob_exists(self, subject: BlobStore) -> None:
        await subject.put("none", [])
        await subject.put("void", [b"", b""])

        assert await subject.read("none", offset=0, length=10) == b""
        assert [info.size for info in await subject.list()] == [0, 0]

    async def test_a_large_blob_reads_back(self, subject: BlobStore) -> None:
        data = noise(3 * KIB * KIB + 17)
        await subject.put("large", [data[:1_000_000], data[1_000_000:]])

        assert same(await subject.read("large", offset=0, length=len(data)), data)
        assert same(
            await subject.read("large", offset=2_000_001, length=70_000), data[2_000_001:2_070_001]
        )

    async def test_putting_again_replaces_everything(self, subject: BlobStore) -> None:
        await subject.put("a", [b"a long first version"])
        assert await subject.read("a", offset=0, length=6) == b"a long"
        subject.read_now("a", offset=0, length=100)
        await subject.put("a", [b"short"])

        assert await subject.read("a", offset=0, length=100) == b"short"
        assert subject.read_now("a", offset=0, length=100) in (None, b"short")
        assert (await subject.stat("a")).size == 5
        assert await names(subject) == ["a"]

    async def test_a_reader_sees_the_old_blob_or_the_new_one(self, subject: BlobStore) -> None:
        versions = [bytes([n]) * 300_000 for n in range(6)]
        await subject.put("a", [versions[0]])
        seen: set[bytes] = set()

        async def read() -> None:
            while len(seen) < 40 and not done.is_set():
                seen.add(await subject.read("a", offset=0, length=1 << 20))
                now = subject.read_now("a", offset=0, length=1 << 20)
                if now is not None:
                    seen.add(now)

        done = asyncio.Event()
        readers = [asyncio.create_task(read()) for _ in range(3)]
        for version in versions[1:]:
            await subject.put("a", [version[:100_000], version[100_000:]])
        done.set()
        await asyncio.gather(*readers)

        assert seen <= set(versions)

    async def test_buffers_belong_to_the_caller_again_after_a_put(self, subject: BlobStore) -> None:
        buffer = bytearray(b"before" * 1000)
        await subject.put("a", [memoryview(buffer)])
        buffer[:] = b"after!" * 1000

        assert same(await subject.read("a", offset=0, length=6000), b"before" * 1000)

    async def test_what_is_read_belongs_to_the_reader(self, subject: BlobStore) -> None:
        await subject.put("a", [b"1" * 5000])
        await subject.put("b", [b"2" * 5000])
        first = await subject.read("a", offset=0, length=5000)
        now = subject.read_now("a", offset=0, length=5000)
        await subject.read("b", offset=0, length=5000)
        subject.read_now("b", offset=0, length=5000)

        assert same(first, b"1" * 5000)
        assert now in (None, b"1" * 5000)

    # Names ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_what_is_no_name_is_refused(self, subject: BlobStore, name: str) -> None:
        with pytest.raises(InvalidArgument):
            await subject.put(name, [b"x"])

        assert await subject.list() == []

    async def test_the_longest_name_is_kept(self, subject: BlobStore) -> None:
        longest = "folder/" + "n" * (BLOB_NAME_MAX - 7)
        await subject.put(longest, [b"x"])

        assert await names(subject) == [longest]
        assert await subject.read(longest, offset=0, length=9) == b"x"

    async def test_a_blob_stands_beside_a_folder_of_the_same_name(self, subject: BlobStore) -> None:
        for name in NAMES:
            await subject.put(name, [name.encode()])

        assert [await subject.read(name, offset=0, length=99) for name in NAMES] == [
            name.encode() for name in NAMES
        ]
        assert await names(subject) == list(NAMES)

    async def test_blobs_that_do_not_exist_are_not_found(self, subject: BlobStore) -> None:
        await subject.put("there", [b"x"])
        for name in ("here", "there/not", "there.not", "ther"):
            with pytest.raises(NotFound):
                await subject.read(name, offset=0, length=1)
            with pytest.raises(NotFound):
                await subject.read_into(name, offset=0, buffer=memoryview(bytearray(4)))
            with pytest.raises(NotFound):
                await subject.stat(name)
            with pytest.raises(NotFound):
                await subject.delete(name)
            assert subject.read_now(name, offset=0, length=1) is None
            assert subject.read_into_now(name, offset=0, buffer=memoryview(bytearray(4))) is None

    async def test_the_store_has_an_identity(self, subject: BlobStore) -> None:
        assert subject.id != ""

    # Lists ----------------------------------------------------------------------------------------

    async def test_lists_are_sorted_and_paged(self, subject: BlobStore) -> None:
        for name in sorted(NAMES, key=lambda n: n[::-1]):
            await subject.put(name, [b"x" * len(name)])

        assert [(info.name, info.size) for info in await subject.list()] == [
            (name, len(name)) for name in NAMES
        ]
        for limit in (1, 2, 5):
            page = await subject.list(limit=limit)
            assert [info.name for info in page] == list(NAMES[:limit])
        for prefix in ("a", "a/", "a/b", "b", "ba", "c", "a/b/c/"):
            assert await names(subject, prefix) == [
                name for name in NAMES if name.startswith(prefix)
            ]
        for after in ("", "a", "a-", "a/", "a/a", "a/b", "a/b/", "a/bb", "a0", "az", "zz"):
            expected = [name for name in NAMES if name > after]
            assert [info.name for info in await subject.list(after=after)] == expected
            expected = [name for name in expected if name.startswith("a/")]
            assert [info.name for info in await subject.list("a/", after=after)] == expected

    async def test_an_empty_store_lists_nothing(self, subject: BlobStore) -> None:
        assert await subject.list() == []
        assert await subject.list("c/") == []

    # Deleting -------------------------------------------------------------------------------------

    async def test_a_deleted_blob_is_gone_and_the_others_stay(self, subject: BlobStore) -> None:
        for name in NAMES:
            await subject.put(name, [name.encode()])
        await subject.read("a/b", offset=0, length=1)
        await subject.delete("a/b")

        with pytest.raises(NotFound):
            await subject.read("a/b", offset=0, length=1)
        with pytest.raises(NotFound):
            await subject.delete("a/b")
        assert subject.read_now("a/b", offset=0, length=1) is None
        assert await names(subject) == [name for name in NAMES if name != "a/b"]
        assert await subject.read("a/b/c", offset=0, length=9) == b"a/b/c"

    async def test_a_deleted_name_can_be_used_again(self, subject: BlobStore) -> None:
        await subject.put("a", [b"old and long"])
        await subject.delete("a")
        await subject.put("a", [b"new"])

        assert await subject.read("a", offset=0, length=99) == b"new"

    # Reads without waiting ------------------------------------------------------------------------

    async def test_reads_into_a_buffer_fill_what_there_is(self, subject: BlobStore) -> None:
        data = noise(6_000)
        await subject.put("a", [data])
        for read in (subject.read_into, self.now(subject)):
            buffer = bytearray(b"-" * 5_000)
            count = await read("a", offset=2_000, buffer=memoryview(buffer)[:4_500])

            assert count in (None, 4_000)
            if count:
                assert same(buffer, data[2_000:] + b"-" * 1_000)

    @staticmethod
    def now(subject: BlobStore) -> Callable[..., Awaitable[int | None]]:
        """Return `read_into_now` in the shape of `read_into`."""

        async def read(name: str, *, offset: int, buffer: memoryview) -> int | None:
            return subject.read_into_now(name, offset=offset, buffer=buffer)

        return read

    async def test_a_read_without_waiting_is_exact_or_none(self, subject: BlobStore) -> None:
        data = noise(200_000)
        await subject.put("a", [data])
        await subject.read("a", offset=0, length=200_000)

        for offset, length in (
            (0, 10),
            (0, 4096),
            (4095, 70_000),
            (100_000, 200_000),
            (199_999, 5),
            (200_000, 5),
        ):
            now = subject.read_now("a", offset=offset, length=length)
            assert now in (None, data[offset : offset + length])

    @requires(immediate=True)
    async def test_what_was_just_read_is_there_without_waiting(self, subject: BlobStore) -> None:
        data = noise(8_192)
        await subject.put("a", [data])
        await subject.read("a", offset=0, length=8_192)

        assert same(subject.read_now("a", offset=100, length=4_096), data[100:4_196])
