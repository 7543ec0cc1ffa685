"""Recycled files: one blob each, whatever happens at the same time or halfway."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from warp_core.config.types import Size
from warp_core.errors import AlreadyExists
from warp_disk import Config, Disk

SIZE = 8192


def store(tmp_path: Path) -> Disk:
    return Disk(Config(path="disk", reserve=Size(0), threads=8, spares=8), tmp_path)


async def test_one_spare_is_never_two_blobs(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        for turn in range(20):
            await disk.create(f"old{turn}", reserve=SIZE, recycle=True)
            await disk.delete(f"old{turn}")
            names = [f"new{turn}-{n}" for n in range(8)]
            await asyncio.gather(*(disk.create(n, reserve=SIZE, recycle=True) for n in names))
            inodes = {os.stat(path).st_ino for path in (tmp_path / "disk/blobs").rglob("new*")}

            assert len(inodes) == 8 * (turn + 1)


async def test_a_spare_that_a_crash_left_with_two_names_stays_with_its_blob(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        await disk.create("blob", reserve=SIZE, recycle=True)
        await disk.write("blob", offset=0, buffers=[b"x"], sync=True)
    (file,) = (tmp_path / "disk/blobs").rglob("blob*")
    os.link(file, tmp_path / "disk/spare/0-0")

    async with store(tmp_path) as disk:
        await disk.create("other", reserve=SIZE, recycle=True)
        await disk.write("other", offset=0, buffers=[b"y"], sync=True)

        assert await disk.read("blob", offset=0, length=1) == b"x"


async def test_a_taken_name_leaves_nothing_behind(tmp_path: Path) -> None:
    async with store(tmp_path) as disk:
        await disk.create("blob", reserve=SIZE, recycle=True)
        await disk.create("old", reserve=SIZE, recycle=True)
        await disk.delete("old")
        for _ in range(2):
            with pytest.raises(AlreadyExists):
                await disk.create("blob", reserve=SIZE, recycle=True)

        assert list((tmp_path / "disk/incoming").iterdir()) == []
