"""Files and Blocks over this engine, by their kits: a crash is a power cut that loses everything that was not synced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.blocks import BlocksKit
from warp_conformance.kits.files import FilesKit
from warp_conformance.reference.node import Stage, codec
from warp_conformance.reference.simdisk import SimDisk
from warp_core.containers import Containers, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.opens import Opens
from warp_local.config import Config
from warp_local.engine import Local


class LocalStage(Stage):
    """The reference stage with its rows in this engine, on a simulated disk."""

    def __init__(self, folder: Path) -> None:
        self.disk = SimDisk("disk", path=folder)

    async def __aenter__(self) -> LocalStage:
        await self._begin()
        await self.namespace.volumes.create(self.volume, owner="kit")
        return self

    async def __aexit__(self, *rest: object) -> None:
        await self.files.settle_collections()
        await self.containers.__aexit__(None, None, None)
        await self.local.__aexit__(None, None, None)
        await self.journal.__aexit__(None, None, None)

    async def _begin(self) -> None:
        self.journal = await Journal([self.disk], segment_size=8 << 20).__aenter__()
        self.local = await Local(Config(checkpoint_rows=30), [self.disk], self.journal).__aenter__()
        self.containers = await Containers(
            [StoreSlot("only", self.disk)], codec=codec, journal=self.journal
        ).__aenter__()
        self.opens = Opens(asyncio.get_running_loop().time, recall_s=0.05)
        self.namespace = Namespace(self.local, self.containers, opens=self.opens)
        log = FileLog(self.journal, self.containers, [self.disk])
        self.inodes = self.inode_table(self.namespace, log)
        self.files = self.files_view(self.namespace, self.inodes)
        self.blocks = self.blocks_view(self.files)
        await self.inodes.recover()

    async def crash(self) -> None:
        """Cut the power."""
        self.inodes.abandon()
        journal, local = self.journal, self.local
        tasks = [local._checkpointer, journal._writer, *journal._maker.tasks]
        for task in [task for task in tasks if task is not None]:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for index in local._indexes:
            index.close()
        self.disk.cut(lambda name, offset, data: [])
        await self._begin()


class TestFiles(FilesKit):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[LocalStage]:
        async with LocalStage(tmp_path) as stage:
            yield stage


class TestBlocks(BlocksKit):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[LocalStage]:
        async with LocalStage(tmp_path) as stage:
            yield stage
