"""Reads as runs of data and hole, and what is done without waiting: as by `read` and `write`, or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import strategies as st
from warp_core.errors import Locked, OutOfRange, PreconditionFailed, ReadOnly, StaleHandle
from warp_core.views.blocks import BLOCK, Disk, Reservation, Run

from warp_conformance.difference import same
from warp_conformance.kit import given
from warp_conformance.kits.blocks.stage import KIB, MIB, SIZE, BlocksPart, BlocksStage


def joined(runs: Sequence[Run], offset: int) -> bytes:
    """Return what runs read from `offset` show; they have to be back to back, and their bytes as many as they say."""
    found = bytearray()
    for at, length, data in runs:
        assert at == offset + len(found)
        assert length > 0
        assert data is None or len(data) == length
        found += bytes(length) if data is None else data
    return bytes(found)


def refused(errors: type[Exception], attempt: Callable[[], object]) -> None:
    """Prove that something is refused, or left to who waits."""
    try:
        done = attempt()
    except errors:
        return
    assert not done


class AtOnce(BlocksPart, kit=True):
    """Reads as runs of data and hole, and what is done without waiting: as by `read` and `write`, or not at all."""

    async def test_runs_are_back_to_back_and_tell_what_a_read_tells(self, disk: Disk) -> None:
        await disk.write(64 * KIB, b"x" * MIB)
        await disk.trim(128 * KIB, 4096)
        await disk.write(2 * MIB + BLOCK, b"y" * BLOCK)

        for offset, length in (
            (0, 3 * MIB),
            (64 * KIB, MIB),
            (128 * KIB - BLOCK, 8192),
            (128 * KIB, 4096),
            (SIZE - BLOCK, BLOCK),
        ):
            runs = await disk.read_runs(offset, length)
            assert same(joined(runs, offset), bytes(await disk.read(offset, length)))
        assert list(await disk.read_runs(0, 0)) == []

    @given(st.integers(0, 2**32))
    async def test_what_is_done_at_once_is_what_waiting_does(self, disk: Disk, seed: int) -> None:
        rand = random.Random(seed)
        area = MIB + 128 * KIB  # crosses a border of what may be one row
        model = bytearray(await disk.read(0, area))
        for _ in range(16):
            offset = rand.randrange(0, area, BLOCK)
            length = min(rand.choice([BLOCK, 4096, 128 * KIB]), area - offset)
            verb = rand.choice(["write", "write", "read", "read", "trim", "flush"])
            if verb == "write":
                data = rand.randbytes(length)
                if not disk.write_now(offset, data):
                    await disk.write(offset, data)
                model[offset : offset + length] = data
            elif verb == "read":
                runs = disk.read_now(offset, length)
                if runs is not None:
                    assert same(joined(runs, offset), bytes(model[offset : offset + length]))
            elif verb == "trim":
                await disk.trim(offset, length)
                model[offset : offset + length] = bytes(length)
            else:
                await disk.flush()

        assert same(bytes(await disk.read(0, area)), bytes(model))
        assert same(joined(await disk.read_runs(0, area), 0), bytes(model))

    async def test_what_was_written_at_once_is_written(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        other = await self.open(subject, initiator="two")
        await disk.write(0, b"x" * 4096)
        buffer = bytearray(b"y" * 4096)

        if not disk.write_now(0, buffer):
            await disk.write(0, buffer)
        buffer[:] = bytes(4096)  # it belongs to the caller again

        assert same(bytes(await other.read(0, 4096)), b"y" * 4096)
        await other.flush()
        await subject.crash()
        again = await self.open(subject)
        assert same(bytes(await again.read(0, 4096)), b"y" * 4096)

    @pytest.mark.parametrize(
        ("offset", "length"), [(SIZE, BLOCK), (SIZE - BLOCK, 2 * BLOCK), (-BLOCK, BLOCK)]
    )
    async def test_ranges_past_the_end_are_refused_at_once(
        self, disk: Disk, offset: int, length: int
    ) -> None:
        await disk.write(0, bytes(BLOCK))  # a disk in use may do at once what it did not before
        with pytest.raises(OutOfRange):
            await disk.read_runs(offset, length)
        refused(OutOfRange, lambda: disk.read_now(offset, length))
        refused(OutOfRange, lambda: disk.write_now(offset, b"x" * length))

        assert same(await self.all(disk), bytes(SIZE))

    async def test_who_may_not_write_may_not_at_once(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        reader = await subject.blocks.open(
            subject.volume, b"disks/a", initiator="two", read_only=True
        )

        refused(ReadOnly, lambda: reader.write_now(0, b"x" * BLOCK))
        await reader.close()
        refused(StaleHandle, lambda: reader.read_now(0, BLOCK))
        refused(StaleHandle, lambda: reader.write_now(0, b"x" * BLOCK))

        assert bytes(await disk.read(0, BLOCK)) == bytes(BLOCK)

    async def test_a_reservation_keeps_out_at_once(self, subject: BlocksStage, disk: Disk) -> None:
        other = await self.open(subject, initiator="two")
        await other.write(0, b"y" * BLOCK)
        await disk.register(1)
        await disk.reserve(1, Reservation.EXCLUSIVE)

        refused(Locked, lambda: other.read_now(0, BLOCK))
        refused(Locked, lambda: other.write_now(0, b"x" * BLOCK))
        with pytest.raises(Locked):
            await other.read_runs(0, BLOCK)

        assert bytes(await disk.read(0, BLOCK)) == b"y" * BLOCK
        await other.close()

    async def test_nothing_written_at_once_is_lost_to_a_compare_and_write(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        other = await self.open(subject, initiator="two")

        async def compare_and_write() -> bool:
            try:
                await disk.compare_and_write(0, b"1" * BLOCK, b"2" * BLOCK)
            except PreconditionFailed:
                return False
            return True

        for steps in range(12):  # how far it has come
            await disk.write(0, b"1" * BLOCK)
            task = asyncio.create_task(compare_and_write())
            for _ in range(steps):
                await asyncio.sleep(0)
            written = other.write_now(0, b"3" * BLOCK)
            swapped = await task
            found = bytes(await disk.read(0, BLOCK))
            assert found == (b"3" if written else b"2") * BLOCK
            assert swapped or written
        await other.close()
