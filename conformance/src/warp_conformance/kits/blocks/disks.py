"""Disks: their sizes and names, snapshots and clones."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import AlreadyExists, Busy, InvalidArgument, NotFound, OutOfRange
from warp_core.views.blocks import BLOCK, Disk

from warp_conformance.difference import same
from warp_conformance.kits.blocks.stage import MIB, SIZE, BlocksPart, BlocksStage


class Disks(BlocksPart, kit=True):
    """Disks: their sizes and names, snapshots and clones."""

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
