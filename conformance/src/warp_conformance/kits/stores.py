"""The kit for blob stores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from warp_core.contexts import StoreContext
from warp_core.errors import AlreadyExists, InvalidArgument, NoSpace, NotFound, WarpError
from warp_core.interfaces.stores import BLOB_NAME_MAX, BlobStore
from warp_core.metrics import Metrics
from warp_core.registry import Entry

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given, refused, requires, sample_of

Reopen = Callable[[], Awaitable[BlobStore]]

SMALL_STORE = 64 * 1024 * 1024  # bytes in all: only stores up to here are filled to the brim
KIB = 1024

BAD_NAMES = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    "A",
    "ä",
    "a b",
    "a\0",
    ".",
    "..",
    "a/../b",
    "./a",
    "a" * (BLOB_NAME_MAX + 1),
)
NAMES = ("a", "a-b", "a.b", "a/b", "a/b.c", "a/b/c", "a/c", "a0", "b", "b/a", "ba")  # sorted


def adopt(entry: Entry[BlobStore]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit, on the sample configuration in a folder of its own."""

    @pytest.fixture
    async def reopen(self: Kit, tmp_path: Path) -> AsyncIterator[Reopen]:
        stack = AsyncExitStack()

        async def again() -> BlobStore:
            await stack.aclose()
            store = entry.build(sample_of(entry, tmp_path), StoreContext(tmp_path, Metrics()))
            return await stack.enter_async_context(store)

        yield again
        await stack.aclose()

    @pytest.fixture
    async def subject(self: Kit, reopen: Reopen) -> BlobStore:
        return await reopen()

    yield BlobStoreKit, {"subject": subject, "reopen": reopen}


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes without a pattern."""
    return random.Random(seed).randbytes(length)


async def names(store: BlobStore, prefix: str = "") -> list[str]:
    """Return all names, in pages of three."""
    found: list[str] = []
    while page := await store.list(prefix, after=found[-1] if found else "", limit=3):
        assert len(page) <= 3
        found += [info.name for info in page]
        assert len(found) < 1000
    return found


class BlobStoreKit(Kit, kit=True):
    """What every store keeps. Besides `subject` it wants `reopen`: end the store, as a crash would if it can, and open it again."""

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

    # Growing blobs --------------------------------------------------------------------------------

    @requires(grow=True)
    async def test_a_new_blob_has_its_size_and_reads_zeros(self, subject: BlobStore) -> None:
        await subject.create("g", reserve=20_000)

        assert (await subject.stat("g")).size == 20_000
        assert same(await subject.read("g", offset=0, length=99_999), bytes(20_000))
        with pytest.raises(AlreadyExists):
            await subject.create("g", reserve=20_000)
        with pytest.raises(AlreadyExists):
            await subject.create("g", reserve=20_000, recycle=True)

    @requires(grow=True)
    async def test_creating_spares_what_has_the_name(self, subject: BlobStore) -> None:
        await subject.put("a", [b"precious"])
        for recycle in (False, True):
            with pytest.raises(AlreadyExists):
                await subject.create("a", reserve=1000, recycle=recycle)

        assert await subject.read("a", offset=0, length=99) == b"precious"

    @requires(grow=True)
    async def test_writes_land_where_they_were_sent(self, subject: BlobStore) -> None:
        model = bytearray(30_000)
        await subject.create("g", reserve=30_000)
        for offset, parts in (
            (0, [b"begin"]),
            (9_999, [b"a" * 5_000, b"", b"b" * 77]),
            (10_001, [b"over"]),
            (29_990, [b"0123456789"]),
        ):
            await subject.write("g", offset=offset, buffers=parts)
            model[offset : offset + sum(map(len, parts))] = b"".join(parts)
            assert same(await subject.read("g", offset=0, length=30_000), model)
            assert subject.read_now("g", offset=9_999, length=10) in (None, model[9_999:10_009])

        assert (await subject.stat("g")).size == 30_000

    @requires(grow=True)
    async def test_many_buffers_are_written_in_order(self, subject: BlobStore) -> None:
        parts = [noise(n % 40, n) for n in range(3_000)]
        await subject.create("g", reserve=100_000)
        await subject.write("g", offset=123, buffers=parts, sync=True)
        whole = b"".join(parts)

        assert same(await subject.read("g", offset=123, length=len(whole)), whole)
        assert await subject.read("g", offset=123 + len(whole), length=10) == bytes(10)

    @requires(grow=True)
    async def test_a_blob_grows_beyond_what_was_reserved(self, subject: BlobStore) -> None:
        await subject.create("g", reserve=100)
        await subject.write("g", offset=150, buffers=[b"x" * 50])

        assert await subject.read("g", offset=0, length=999) == bytes(150) + b"x" * 50
        assert (await subject.stat("g")).size == 200

    @requires(grow=True)
    async def test_writes_at_once_do_not_mix(self, subject: BlobStore) -> None:
        await subject.create("g", reserve=640_000)
        await subject.create("h", reserve=640_000)
        order = list(range(64))
        random.Random(1).shuffle(order)
        await asyncio.gather(
            *(
                subject.write(name, offset=n * 10_000, buffers=[noise(10_000, n + ord(name))])
                for n in order
                for name in "gh"
            )
        )

        for name in "gh":
            expected = b"".join(noise(10_000, n + ord(name)) for n in range(64))
            assert same(await subject.read(name, offset=0, length=640_000), expected)

    @requires(grow=True)
    async def test_buffers_belong_to_the_caller_again_after_a_write(
        self, subject: BlobStore
    ) -> None:
        buffer = bytearray(b"a" * 100_000)
        await subject.create("g", reserve=200_000)
        await subject.write("g", offset=0, buffers=[memoryview(buffer)])
        buffer[:] = b"b" * 100_000

        assert same(await subject.read("g", offset=0, length=100_000), b"a" * 100_000)

    @requires(grow=True)
    async def test_buffers_belong_to_the_caller_again_after_a_cancelled_write(
        self, subject: BlobStore
    ) -> None:
        await subject.create("g", reserve=1 << 20)
        for attempt in range(5):
            buffer = bytearray(b"a" * (1 << 20))
            task = asyncio.create_task(subject.write("g", offset=0, buffers=[memoryview(buffer)]))
            for _ in range(attempt):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            buffer[:] = b"b" * (1 << 20)
            await asyncio.sleep(0.002)

            assert b"b" not in await subject.read("g", offset=0, length=1 << 20)

    @requires(grow=True)
    async def test_a_sealed_blob_is_cut_and_takes_no_more_writes(self, subject: BlobStore) -> None:
        await subject.create("g", reserve=10_000)
        await subject.write("g", offset=0, buffers=[b"x" * 5_000])
        await subject.seal("g", size=4_000)
        await subject.seal("g", size=4_000)

        assert (await subject.stat("g")).size == 4_000
        assert same(await subject.read("g", offset=0, length=9_999), b"x" * 4_000)
        with pytest.raises(InvalidArgument):
            await subject.write("g", offset=0, buffers=[b"y"])
        assert same(await subject.read("g", offset=0, length=9_999), b"x" * 4_000)
        assert [(info.name, info.size) for info in await subject.list()] == [("g", 4_000)]

    @requires(grow=True)
    async def test_a_blob_that_was_put_takes_no_writes(self, subject: BlobStore) -> None:
        await subject.put("a", [b"whole"])
        with pytest.raises(InvalidArgument):
            await subject.write("a", offset=0, buffers=[b"W"])

        assert await subject.read("a", offset=0, length=9) == b"whole"

    @requires(grow=True)
    async def test_blobs_that_do_not_exist_do_not_grow(self, subject: BlobStore) -> None:
        for call in (
            subject.write("no", offset=0, buffers=[b"x"]),
            subject.write("no", offset=0, buffers=[b"x"], sync=True),
            subject.sync("no"),
            subject.seal("no", size=0),
        ):
            with pytest.raises(NotFound):
                await call

        assert await subject.list() == []

    @requires(grow=True)
    @pytest.mark.parametrize("name", BAD_NAMES)
    async def test_what_is_no_name_is_not_created(self, subject: BlobStore, name: str) -> None:
        with pytest.raises(InvalidArgument):
            await subject.create(name, reserve=10)

        assert await subject.list() == []

    @requires(grow=True)
    async def test_old_bytes_show_only_in_recycled_blobs(self, subject: BlobStore) -> None:
        for round_number in range(3):
            name = f"r{round_number}"
            await subject.create(name, reserve=65_536, recycle=True)
            assert (await subject.stat(name)).size == 65_536
            await subject.write(name, offset=0, buffers=[b"s" * 65_536], sync=True)
            assert same(await subject.read(name, offset=0, length=65_536), b"s" * 65_536)
            await subject.delete(name)
        await subject.create("clean", reserve=65_536)

        assert same(await subject.read("clean", offset=0, length=65_536), bytes(65_536))
        assert await names(subject) == ["clean"]

    @requires(grow=False)
    async def test_growing_is_refused(self, subject: BlobStore) -> None:
        await subject.put("a", [b"x"])
        with refused():
            await subject.create("g", reserve=10)
        with refused():
            await subject.write("a", offset=0, buffers=[b"y"])
        with refused():
            await subject.sync("a")
        with refused():
            await subject.seal("a", size=0)

    @requires(punch=True)
    async def test_a_punched_range_reads_zeros_and_nothing_else_changes(
        self, subject: BlobStore
    ) -> None:
        data = bytearray(noise(100_000).replace(b"\0", b"\1"))
        await subject.put("a", [data])
        await subject.punch("a", offset=8_192, length=40_000)
        data[8_192:48_192] = bytes(40_000)

        assert same(await subject.read("a", offset=0, length=200_000), data)
        assert (await subject.stat("a")).size == 100_000
        await subject.punch("a", offset=90_000, length=50_000)
        data[90_000:] = bytes(10_000)
        assert same(await subject.read("a", offset=0, length=200_000), data)

    @requires(punch=False)
    async def test_punching_is_refused(self, subject: BlobStore) -> None:
        await subject.put("a", [b"x" * 10_000])
        with refused():
            await subject.punch("a", offset=0, length=4_096)

    # Space ----------------------------------------------------------------------------------------

    async def test_space_adds_up(self, subject: BlobStore) -> None:
        space = await subject.space()

        assert space.free >= 0
        assert space.reserve >= 0
        assert space.free + space.reserve <= space.total

    @requires(grow=True)
    async def test_what_does_not_fit_is_refused_and_leaves_nothing(
        self, subject: BlobStore
    ) -> None:
        await subject.put("a", [b"kept"])
        space = await subject.space()
        for recycle in (False, True):
            with pytest.raises(NoSpace):
                await subject.create("g", reserve=space.total + (1 << 20), recycle=recycle)

        assert await names(subject) == ["a"]
        assert await subject.read("a", offset=0, length=9) == b"kept"
        await subject.put("b", [b"fits"])
        assert await subject.read("b", offset=0, length=9) == b"fits"

    @requires(grow=True)
    async def test_the_reserve_is_for_vital_writes_only(self, subject: BlobStore) -> None:
        space = await subject.space()
        if space.total > SMALL_STORE:
            pytest.skip(f"a store of {space.total} bytes is not filled")
        await subject.put("a", [b"x" * 1_000])
        await subject.create("most", reserve=(await subject.space()).free)

        with pytest.raises(NoSpace):
            await subject.put("b", [b"y" * 5_000])
        with pytest.raises(NoSpace):
            await subject.create("c", reserve=5_000)
        with pytest.raises(NoSpace):
            await subject.write(
                "most", offset=(await subject.stat("most")).size, buffers=[b"z" * 5_000]
            )
        await subject.put("vital", [b"v" * 5_000], vital=True)
        await subject.create("vital-too", reserve=5_000, vital=True)
        await subject.write("most", offset=0, buffers=[b"w"], sync=True)
        assert await subject.read("a", offset=0, length=1_000) == b"x" * 1_000
        await subject.delete("most")
        await subject.put("b", [b"y" * 5_000])

    # Durability -----------------------------------------------------------------------------------

    @requires(durable=True)
    async def test_what_was_put_and_deleted_stays_so(
        self, subject: BlobStore, reopen: Reopen
    ) -> None:
        for name in NAMES:
            await subject.put(name, [b"old " + name.encode()])
        await subject.put("a", [b"new"])
        await subject.delete("a/b")
        identity = subject.id
        after = await reopen()

        assert await names(after) == [name for name in NAMES if name != "a/b"]
        assert await after.read("a", offset=0, length=99) == b"new"
        assert await after.read("ba", offset=0, length=99) == b"old ba"
        assert after.id == identity

    @requires(durable=True, grow=True)
    async def test_what_was_synced_stays(self, subject: BlobStore, reopen: Reopen) -> None:
        await subject.create("g", reserve=50_000)
        await subject.create("h", reserve=50_000)
        await subject.create("empty", reserve=3_000)
        await subject.write("g", offset=100, buffers=[b"one"])
        await subject.write("g", offset=40_000, buffers=[b"two"])
        await subject.sync("g")
        await subject.write("h", offset=7, buffers=[b"three"], sync=True)
        await subject.write("h", offset=60_000, buffers=[b"grown"], sync=True)
        after = await reopen()

        assert await after.read("g", offset=100, length=3) == b"one"
        assert await after.read("g", offset=40_000, length=3) == b"two"
        assert await after.read("h", offset=7, length=5) == b"three"
        assert await after.read("h", offset=60_000, length=9) == b"grown"
        assert same(await after.read("empty", offset=0, length=9_999), bytes(3_000))

    @requires(durable=True, grow=True)
    async def test_what_was_sealed_stays_sealed(self, subject: BlobStore, reopen: Reopen) -> None:
        await subject.create("g", reserve=50_000)
        await subject.write("g", offset=0, buffers=[b"x" * 20_000], sync=True)
        await subject.seal("g", size=20_000)
        after = await reopen()

        assert same(await after.read("g", offset=0, length=99_999), b"x" * 20_000)
        with pytest.raises(InvalidArgument):
            await after.write("g", offset=0, buffers=[b"y"])

    @requires(durable=True, grow=True)
    async def test_a_growing_blob_goes_on_growing(self, subject: BlobStore, reopen: Reopen) -> None:
        await subject.create("g", reserve=50_000)
        await subject.write("g", offset=0, buffers=[b"x"], sync=True)
        after = await reopen()
        await after.write("g", offset=1, buffers=[b"y"], sync=True)

        assert await (await reopen()).read("g", offset=0, length=3) == b"xy\0"

    @requires(durable=True, grow=True)
    async def test_deleted_growing_blobs_stay_deleted(
        self, subject: BlobStore, reopen: Reopen
    ) -> None:
        for recycle in (False, True):
            await subject.create(f"g-{recycle}".lower(), reserve=10_000, recycle=recycle)
            await subject.delete(f"g-{recycle}".lower())

        assert await (await reopen()).list() == []

    @requires(local_path=True)
    async def test_there_is_a_folder_beside_the_blobs(
        self, subject: BlobStore, reopen: Reopen
    ) -> None:
        assert subject.path is not None
        (subject.path / "meta").mkdir()
        (subject.path / "meta" / "index").write_bytes(b"an engine's own")
        await subject.put("meta/index", [b"a blob"])
        after = await reopen()

        assert await names(after) == ["meta/index"]
        assert after.path is not None
        assert (after.path / "meta" / "index").read_bytes() == b"an engine's own"

    # Everything together --------------------------------------------------------------------------

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "delete", "read", "create", "write", "seal", "list"]),
                st.sampled_from(NAMES),
                st.integers(0, 9_000),
                st.integers(0, 9_000),
            ),
            max_size=40,
        )
    )
    async def test_any_sequence_of_calls_ends_as_in_a_dictionary(
        self, subject: BlobStore, steps: list[tuple[str, str, int, int]]
    ) -> None:
        grow = subject.capabilities.grow
        for info in await subject.list():  # of an example that failed
            await subject.delete(info.name)
        model: dict[str, bytearray] = {}
        growing: set[str] = set()
        for number, (verb, name, first, second) in enumerate(steps):
            expected: type[WarpError] | None = NotFound if name not in model else None
            try:
                if verb == "put":
                    expected = None
                    data = noise(first, number)
                    await subject.put(name, [data[: first // 2], data[first // 2 :]])
                    model[name] = bytearray(data)
                    growing.discard(name)
                elif verb == "delete":
                    await subject.delete(name)
                    del model[name]
                    growing.discard(name)
                elif verb == "read":
                    got = await subject.read(name, offset=first, length=second)
                    assert got == model[name][first : first + second]
                    now = subject.read_now(name, offset=first, length=second)
                    assert now in (None, got)
                elif verb == "list":
                    expected = None
                    found = [(info.name, info.size) for info in await subject.list(name, after="a")]
                    assert found == sorted(
                        (n, len(d)) for n, d in model.items() if n.startswith(name) and n > "a"
                    )
                elif grow and verb == "create":
                    expected = AlreadyExists if name in model else None
                    await subject.create(name, reserve=first)
                    model[name] = bytearray(first)
                    growing.add(name)
                elif grow and verb == "write":
                    expected = expected or (None if name in growing else InvalidArgument)
                    data = noise(second, number)
                    await subject.write(name, offset=first, buffers=[data])
                    blob = model[name]
                    if first > len(blob) and data:
                        blob.extend(bytes(first - len(blob)))
                    blob[first : first + len(data)] = data
                elif grow and verb == "seal" and name in growing:
                    size = min(first, len(model[name]))
                    await subject.seal(name, size=size)
                    del model[name][size:]
                    growing.discard(name)
                else:
                    continue
            except WarpError as error:
                raised: type = type(error)
            else:
                raised = type(None)
            assert issubclass(raised, expected or type(None)), f"{verb} {name}"
        for name, blob in model.items():
            assert same(await subject.read(name, offset=0, length=1 << 20), blob)
        assert await names(subject) == sorted(model)
        for name in model:
            await subject.delete(name)
