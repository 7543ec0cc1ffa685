"""Content of disks: read, written, trimmed, compared, and what is left of it after a crash."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import strategies as st
from warp_core.errors import InvalidArgument, OutOfRange, PreconditionFailed, ReadOnly, StaleHandle
from warp_core.views.blocks import BLOCK, COMPARE_MAX, Disk

from warp_conformance.difference import same
from warp_conformance.kit import given
from warp_conformance.kits.blocks.stage import KIB, MIB, SIZE, BlocksPart, BlocksStage


class Content(BlocksPart, kit=True):
    """Content of disks: read, written, trimmed, compared, and what is left of it after a crash."""

    # Reading and writing --------------------------------------------------------------------------

    async def test_a_new_disk_is_zeros_and_takes_no_space(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        assert same(await self.all(disk), bytes(SIZE))
        assert (await subject.blocks.show(subject.volume, b"disks/a")).allocated == 0
        assert disk.size == SIZE

    @given(st.integers(0, 2**32))
    async def test_a_disk_holds_what_was_written(self, disk: Disk, seed: int) -> None:
        rand = random.Random(seed)
        area = MIB + 128 * KIB  # crosses a border of what may be one row
        model = bytearray(await disk.read(0, area))
        for _ in range(12):
            offset = rand.randrange(0, area, BLOCK)
            length = min(rand.choice([BLOCK, 4096, 128 * KIB, MIB]), area - offset)
            verb = rand.choice(["write", "write", "trim", "zero", "keep"])
            if verb == "write":
                data = rand.randbytes(length)
                await disk.write(offset, data, fua=rand.random() < 0.1)
                model[offset : offset + length] = data
                continue
            model[offset : offset + length] = bytes(length)
            if verb == "trim":
                await disk.trim(offset, length)
            else:
                await disk.zero(offset, length, may_trim=verb == "zero")

        assert same(await disk.read(0, area), bytes(model))
        at = rand.randrange(0, area - BLOCK)
        assert bytes(await disk.read(at, BLOCK)) == bytes(model[at : at + BLOCK])

    async def test_connections_see_each_others_writes(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        other = await self.open(subject, initiator="two")

        await disk.write(4096, b"x" * 4096)

        assert same(await other.read(0, 12288), bytes(4096) + b"x" * 4096 + bytes(4096))
        await other.close()

    async def test_the_callers_buffer_may_be_reused(self, disk: Disk) -> None:
        buffer = bytearray(b"x" * 4096)

        await disk.write(0, buffer)
        buffer[:] = bytes(4096)

        assert same(await disk.read(0, 4096), b"x" * 4096)

    async def test_large_requests_are_whole(self, disk: Disk) -> None:
        data = random.Random(1).randbytes(5 * MIB)

        await disk.write(MIB + BLOCK, data)

        assert same(await disk.read(MIB + BLOCK, len(data)), data)

    @pytest.mark.parametrize(
        ("offset", "length"), [(SIZE, BLOCK), (SIZE - BLOCK, 2 * BLOCK), (-BLOCK, BLOCK)]
    )
    async def test_ranges_past_the_end_are_refused(
        self, disk: Disk, offset: int, length: int
    ) -> None:
        for attempt in (
            disk.read(offset, length),
            disk.write(offset, bytes(length)),
            disk.trim(offset, length),
            disk.zero(offset, length),
            disk.status(offset, length),
            disk.compare_and_write(offset, bytes(length), bytes(length)),
        ):
            with pytest.raises(OutOfRange):
                await attempt

        assert same(await self.all(disk), bytes(SIZE))

    async def test_a_disk_opened_read_only_refuses_changes(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        reader = await subject.blocks.open(
            subject.volume, b"disks/a", initiator="two", read_only=True
        )

        for attempt in (
            reader.write(0, bytes(BLOCK)),
            reader.trim(0, BLOCK),
            reader.zero(0, BLOCK, may_trim=False),
            reader.compare_and_write(0, bytes(BLOCK), b"x" * BLOCK),
        ):
            with pytest.raises(ReadOnly):
                await attempt
        assert bytes(await reader.read(0, BLOCK)) == bytes(BLOCK)
        await reader.close()
        with pytest.raises(StaleHandle):
            await reader.read(0, BLOCK)

    # Durability -----------------------------------------------------------------------------------

    async def test_flush_covers_all_connections(self, subject: BlocksStage, disk: Disk) -> None:
        other = await self.open(subject, initiator="two")
        await other.write(0, b"x" * 4096)
        await other.trim(2048, BLOCK)
        await disk.flush()

        await subject.crash()

        again = await self.open(subject)
        assert same(await again.read(0, 4096), b"x" * 2048 + bytes(BLOCK) + b"x" * 1536)

    @pytest.mark.parametrize("verb", ["write", "trim", "zero", "keep", "compare"])
    async def test_fua_is_durable_at_once(
        self, subject: BlocksStage, disk: Disk, verb: str
    ) -> None:
        await disk.write(0, b"x" * 4096, fua=True)
        middle = slice(BLOCK, 2 * BLOCK)
        expected = bytearray(b"x" * 4096)
        expected[middle] = b"y" * BLOCK if verb in ("write", "compare") else bytes(BLOCK)

        if verb == "write":
            await disk.write(BLOCK, b"y" * BLOCK, fua=True)
        elif verb == "compare":
            await disk.compare_and_write(BLOCK, b"x" * BLOCK, b"y" * BLOCK, fua=True)
        elif verb == "trim":
            await disk.trim(BLOCK, BLOCK, fua=True)
        else:
            await disk.zero(BLOCK, BLOCK, fua=True, may_trim=verb == "zero")
        await subject.crash()

        assert same(await (await self.open(subject)).read(0, 4096), bytes(expected))

    async def test_a_crash_never_mixes_writes_of_one_block(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        await disk.write(0, b"0" * 4096, fua=True)
        for digit in b"123":
            await disk.write(0, bytes([digit]) * 4096)

        await subject.crash()

        found = bytes(await (await self.open(subject)).read(0, 4096))
        for at in range(0, 4096, BLOCK):
            assert len(set(found[at : at + BLOCK])) == 1
        assert set(found) <= set(b"0123")

    # Space ----------------------------------------------------------------------------------------

    async def test_status_tells_data_from_holes(self, disk: Disk) -> None:
        await disk.write(MIB, b"x" * MIB)
        await disk.flush()
        await disk.trim(MIB + 256 * KIB, 256 * KIB)

        runs = await disk.status(0, SIZE)

        assert runs[0].offset == 0
        assert all(one.offset + one.length == two.offset for one, two in itertools.pairwise(runs))
        assert runs[-1].offset + runs[-1].length == SIZE
        data = [(run.offset, run.length) for run in runs if not run.hole]
        assert data == [(MIB, 256 * KIB), (MIB + 512 * KIB, 512 * KIB)]
        inside = await disk.status(MIB + 300 * KIB, 4096)
        assert [tuple(run) for run in inside] == [(MIB + 300 * KIB, 4096, True)]
        assert len(await disk.status(0, SIZE, limit=2)) == 2

    async def test_trim_gives_space_back_and_zero_may_keep_it(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        async def allocated() -> int:
            await disk.flush()
            await disk.close()
            return (await subject.blocks.show(subject.volume, b"disks/a")).allocated

        await disk.write(0, b"x" * (2 * MIB))
        await disk.trim(0, MIB)
        await disk.zero(MIB, MIB, may_trim=False)
        runs = await disk.status(0, 3 * MIB)

        assert [tuple(run) for run in runs] == [
            (0, MIB, True),
            (MIB, MIB, False),
            (2 * MIB, MIB, True),
        ]
        assert same(await disk.read(0, 2 * MIB), bytes(2 * MIB))
        assert await allocated() == MIB

    # Compare and write ----------------------------------------------------------------------------

    async def test_compare_and_write_writes_what_it_should(self, disk: Disk) -> None:
        await disk.compare_and_write(BLOCK, bytes(BLOCK), b"x" * BLOCK)

        with pytest.raises(PreconditionFailed) as refused:
            await disk.compare_and_write(BLOCK, b"x" * 100 + b"y" * (BLOCK - 100), b"z" * BLOCK)

        assert refused.value.condition == "100"
        assert bytes(await disk.read(BLOCK, BLOCK)) == b"x" * BLOCK
        with pytest.raises(InvalidArgument):
            await disk.compare_and_write(0, bytes(BLOCK), bytes(2 * BLOCK))
        too_long = bytes(COMPARE_MAX + BLOCK)
        with pytest.raises(InvalidArgument):
            await disk.compare_and_write(0, too_long, too_long)

    async def test_compare_and_write_counts_to_the_end(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        disks = [await self.open(subject, initiator=f"i{n}") for n in range(4)]

        async def count(mine: Disk) -> None:
            done = 0
            while done < 10:
                old = bytes(await mine.read(0, BLOCK))
                new = (int.from_bytes(old, "big") + 1).to_bytes(BLOCK, "big")
                await asyncio.sleep(0)
                try:
                    await mine.compare_and_write(0, old, new)
                except PreconditionFailed:
                    continue
                done += 1

        await asyncio.gather(*(count(each) for each in disks))

        assert int.from_bytes(bytes(await disk.read(0, BLOCK)), "big") == 40
