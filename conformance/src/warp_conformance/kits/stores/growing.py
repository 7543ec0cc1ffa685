"""Blobs that grow, are sealed and punched."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from warp_core.errors import AlreadyExists, InvalidArgument, NotFound
from warp_core.interfaces.stores import BlobStore

from warp_conformance.difference import same
from warp_conformance.kit import refused, requires
from warp_conformance.kits.stores.stage import BAD_NAMES, BlobStorePart, names, noise


class Growing(BlobStorePart, kit=True):
    """Blobs that grow, are sealed and punched."""

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
