"""Persistent reservations."""

from __future__ import annotations

import pytest
from warp_core.errors import InvalidArgument, Locked
from warp_core.views.blocks import BLOCK, Disk, Reservation

from warp_conformance.kits.blocks.stage import BlocksPart, BlocksStage


class Reservations(BlocksPart, kit=True):
    """Persistent reservations."""

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
