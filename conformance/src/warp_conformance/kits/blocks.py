"""The kit for the Blocks view."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import ClassVar, Protocol

import pytest
from hypothesis import strategies as st
from warp_core.errors import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    Locked,
    NotFound,
    OutOfRange,
    PreconditionFailed,
    ReadOnly,
    StaleHandle,
)
from warp_core.views.blocks import BLOCK, COMPARE_MAX, Blocks, Disk, Reservation

from warp_conformance.difference import same
from warp_conformance.kit import Kit, given

KIB, MIB = 1024, 1024 * 1024
SIZE = 8 * MIB


class BlocksStage(Protocol):
    """The subject: a view with an empty volume, that can lose what was not durable."""

    blocks: Blocks
    volume: str

    async def crash(self) -> None:
        """Begin anew with what was durable; `blocks` is another one then. Open disks are gone."""


class BlocksKit(Kit, kit=True):
    """Tests of a Blocks view. `subject` is a BlocksStage."""

    time_limit_s: ClassVar[float] = 30.0

    @pytest.fixture
    async def disk(self, subject: BlocksStage) -> AsyncIterator[Disk]:
        """Yield a new disk, open."""
        await subject.blocks.create(subject.volume, b"disks/a", size=SIZE)
        disk = await self.open(subject)
        yield disk
        await disk.close()

    async def open(
        self, subject: BlocksStage, path: bytes = b"disks/a", initiator: str = "one"
    ) -> Disk:
        """Open a disk for an initiator."""
        return await subject.blocks.open(subject.volume, path, initiator=initiator)

    async def all(self, disk: Disk) -> bytes:
        """Return a disk's whole content."""
        return b"".join(
            [
                bytes(await disk.read(at, min(MIB, disk.size - at)))
                for at in range(0, disk.size, MIB)
            ]
        )

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

    # Sizes ----------------------------------------------------------------------------------------

    async def test_resizing_tells_connections(self, subject: BlocksStage, disk: Disk) -> None:
        await disk.write(0, b"x" * 4096)
        await disk.write(SIZE - BLOCK, b"y" * BLOCK)
        told: list[int] = []

        async def listen() -> None:
            async for size in disk.resizes():
                told.append(size)  # noqa: PERF401 - looked at while more may come

        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await subject.blocks.resize(subject.volume, b"disks/a", SIZE // 2)
        with pytest.raises(OutOfRange):
            await disk.read(SIZE // 2, BLOCK)
        await subject.blocks.resize(subject.volume, b"disks/a", SIZE)

        assert disk.size == SIZE
        assert bytes(await disk.read(SIZE - BLOCK, BLOCK)) == bytes(BLOCK)
        assert same(await disk.read(0, 4096), b"x" * 4096)
        await disk.close()
        await listener
        assert told == [SIZE // 2, SIZE]

    @pytest.mark.parametrize("size", [0, -BLOCK, BLOCK + 1])
    async def test_odd_sizes_are_refused(self, subject: BlocksStage, disk: Disk, size: int) -> None:
        with pytest.raises(InvalidArgument):
            await subject.blocks.create(subject.volume, b"b", size=size)
        with pytest.raises(InvalidArgument):
            await subject.blocks.resize(subject.volume, b"disks/a", size)

        assert disk.size == SIZE

    # Reservations ---------------------------------------------------------------------------------

    async def test_an_exclusive_reservation_keeps_others_out(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        other = await self.open(subject, initiator="two")
        await disk.register(1)
        await disk.reserve(1, Reservation.EXCLUSIVE)

        with pytest.raises(Locked):
            await other.write(0, b"x" * BLOCK)
        with pytest.raises(Locked):
            await other.read(0, BLOCK)
        with pytest.raises(Locked):
            await other.trim(0, BLOCK)
        await other.register(2)
        with pytest.raises(Locked):
            await other.compare_and_write(0, bytes(BLOCK), b"x" * BLOCK)
        with pytest.raises(Locked):
            await other.reserve(2, Reservation.EXCLUSIVE)
        await disk.write(0, b"y" * BLOCK)
        await disk.release(1, Reservation.EXCLUSIVE)
        await other.write(0, b"x" * BLOCK)

        await other.close()

    async def test_write_exclusive_lets_others_read(self, subject: BlocksStage, disk: Disk) -> None:
        other = await self.open(subject, initiator="two")
        await disk.register(1)
        await disk.reserve(1, Reservation.WRITE_EXCLUSIVE)

        assert bytes(await other.read(0, BLOCK)) == bytes(BLOCK)
        with pytest.raises(Locked):
            await other.write(0, b"x" * BLOCK)
        await other.close()

    async def test_registrants_share_a_registrants_reservation(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        other = await self.open(subject, initiator="two")
        third = await self.open(subject, initiator="three")
        await disk.register(1)
        await other.register(2)
        await disk.reserve(1, Reservation.WRITE_EXCLUSIVE_REGISTRANTS)

        await other.write(0, b"x" * BLOCK)
        with pytest.raises(Locked):
            await third.write(0, b"x" * BLOCK)
        info = await third.reservations()
        assert info.keys == (("one", 1), ("two", 2))
        assert (info.kind, info.holder) == (Reservation.WRITE_EXCLUSIVE_REGISTRANTS, "one")
        await other.close()
        await third.close()

    async def test_only_the_right_key_does_anything(self, disk: Disk) -> None:
        with pytest.raises(Locked):
            await disk.reserve(5, Reservation.EXCLUSIVE)
        await disk.register(5)
        with pytest.raises(Locked):
            await disk.reserve(6, Reservation.EXCLUSIVE)
        with pytest.raises(Locked):
            await disk.register(7, old=6)
        await disk.register(7, old=5)
        await disk.reserve(7, Reservation.EXCLUSIVE)
        with pytest.raises(InvalidArgument):
            await disk.release(7, Reservation.WRITE_EXCLUSIVE)

        assert (await disk.reservations()).kind == Reservation.EXCLUSIVE

    async def test_preemption_takes_the_reservation_and_the_registration(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        other = await self.open(subject, initiator="two")
        await disk.register(1)
        await disk.reserve(1, Reservation.EXCLUSIVE)
        await other.register(2)
        before = (await other.reservations()).generation

        with pytest.raises(Locked):
            await other.preempt(2, 99, Reservation.EXCLUSIVE)
        await other.preempt(2, 1, Reservation.WRITE_EXCLUSIVE)

        info = await disk.reservations()
        assert info.keys == (("two", 2),)
        assert (info.kind, info.holder) == (Reservation.WRITE_EXCLUSIVE, "two")
        assert info.generation == before + 1
        with pytest.raises(Locked):
            await disk.write(0, b"x" * BLOCK)
        await other.clear(2)
        assert (await disk.reservations()).keys == ()
        await disk.write(0, b"x" * BLOCK)
        await other.close()

    async def test_a_reservation_ends_with_its_holders_registration(self, disk: Disk) -> None:
        await disk.register(1)
        await disk.reserve(1, Reservation.EXCLUSIVE)

        await disk.register(0)

        info = await disk.reservations()
        assert (info.kind, info.keys) == (Reservation.NONE, ())

    async def test_reservations_survive_a_restart(self, subject: BlocksStage, disk: Disk) -> None:
        await disk.register(1)
        await disk.reserve(1, Reservation.EXCLUSIVE)

        await subject.crash()

        other = await self.open(subject, initiator="two")
        with pytest.raises(Locked):
            await other.write(0, b"x" * BLOCK)
        again = await self.open(subject)
        await again.write(0, b"x" * BLOCK)

    # Names ----------------------------------------------------------------------------------------

    async def test_disks_are_listed_with_what_they_are(self, subject: BlocksStage) -> None:
        made = await subject.blocks.create(subject.volume, b"b", size=MIB)
        await subject.blocks.create(subject.volume, b"a/b/c", size=2 * MIB)

        found = await subject.blocks.disks(subject.volume)

        assert [(disk.path, disk.size) for disk in found] == [(b"a/b/c", 2 * MIB), (b"b", MIB)]
        assert len({disk.serial for disk in found}) == 2
        await subject.crash()
        assert (await subject.blocks.show(subject.volume, b"b")).serial == made.serial

    async def test_creating_respects_what_is_there(self, subject: BlocksStage) -> None:
        await subject.blocks.create(subject.volume, b"b", size=MIB)

        with pytest.raises(AlreadyExists):
            await subject.blocks.create(subject.volume, b"b", size=MIB)
        with pytest.raises(NotFound):
            await subject.blocks.create(subject.volume, b"nothing", size=None)
        with pytest.raises(NotFound):
            await self.open(subject, b"nothing")

    async def test_an_open_disk_is_not_deleted(self, subject: BlocksStage, disk: Disk) -> None:
        with pytest.raises(Busy):
            await subject.blocks.delete(subject.volume, b"disks/a")
        await disk.close()
        await subject.blocks.delete(subject.volume, b"disks/a")

        assert await subject.blocks.disks(subject.volume) == []
        with pytest.raises(NotFound):
            await self.open(subject)

    # Snapshots and clones -------------------------------------------------------------------------

    async def test_clones_and_snapshots_diverge(self, subject: BlocksStage, disk: Disk) -> None:
        blocks, volume = subject.blocks, subject.volume
        await disk.write(0, b"1" * MIB)
        await blocks.snapshot(volume, b"disks/a", "s")
        await disk.write(0, b"2" * 4096)
        await blocks.clone(volume, b"disks/a", b"now")
        await blocks.clone(volume, b"disks/a", b"then", snapshot="s")
        await disk.write(4096, b"3" * 4096)
        now = await self.open(subject, b"now")
        then = await self.open(subject, b"then")
        await then.write(8192, b"4" * 4096)

        assert same(await disk.read(0, 16384), b"2" * 4096 + b"3" * 4096 + b"1" * 8192)
        assert same(await now.read(0, 16384), b"2" * 4096 + b"1" * 12288)
        assert same(await then.read(0, 16384), b"1" * 8192 + b"4" * 4096 + b"1" * 4096)
        assert now.size == then.size == SIZE
        serials = {each.serial for each in await blocks.disks(volume)}
        assert len(serials) == 3
        await now.close()
        await then.close()

    async def test_snapshots_of_a_disk_are_named_and_deleted(
        self, subject: BlocksStage, disk: Disk
    ) -> None:
        blocks, volume = subject.blocks, subject.volume
        await disk.write(0, b"1" * MIB)
        await blocks.snapshot(volume, b"disks/a", "first")
        await blocks.snapshot(volume, b"disks/a", "second")

        with pytest.raises(AlreadyExists):
            await blocks.snapshot(volume, b"disks/a", "first")
        assert await blocks.snapshots(volume, b"disks/a") == ["first", "second"]
        await blocks.delete_snapshot(volume, b"disks/a", "first")
        with pytest.raises(NotFound):
            await blocks.clone(volume, b"disks/a", b"x", snapshot="first")
        assert await blocks.snapshots(volume, b"disks/a") == ["second"]
        assert same(await disk.read(0, MIB), b"1" * MIB)
        await disk.close()
        await blocks.delete(volume, b"disks/a")
        assert await blocks.disks(volume) == []
