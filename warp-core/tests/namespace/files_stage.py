"""A node's namespace over engines in memory, that can lose what was not durable."""

from __future__ import annotations

import asyncio

from warp_core.containers import Containers, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.namespace.apart import Inodes
from warp_core.namespace.blocks import NamespaceBlocks
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.opens import Opens
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory.store import Memory as MemoryBlobs


def codec(name):
    assert name.startswith("fixed:")
    return Fixed(8 * 1024 * 1024)


class Stage:
    """`files` and what is below it. `crash` begins anew with what was durable."""

    volume = "v"

    def __init__(self):
        self.meta = MemoryMeta()
        self.blobs = MemoryBlobs()

    async def __aenter__(self):
        await self.meta.__aenter__()
        await self.blobs.__aenter__()
        await self._begin()
        await self.namespace.volumes.create(self.volume, owner="me")
        return self

    async def __aexit__(self, *_):
        await self.files.settle_collections()
        await self.containers.__aexit__(None, None, None)
        await self.journal.__aexit__(None, None, None)
        await self.blobs.__aexit__(None, None, None)
        await self.meta.__aexit__(None, None, None)

    async def _open(self):
        self.journal = Journal([self.blobs], segment_size=8 * 1024 * 1024)
        await self.journal.__aenter__()
        self.containers = Containers(
            [StoreSlot("m", self.blobs)], codec=codec, journal=self.journal
        )
        await self.containers.__aenter__()

    async def _begin(self):
        await self._open()
        self.opens = Opens(asyncio.get_running_loop().time, recall_s=0.05)
        self.namespace = Namespace(self.meta, self.containers, opens=self.opens)
        log = FileLog(self.journal, self.containers, [self.blobs])
        self.inodes = Inodes(self.namespace, log)
        self.files = NamespaceFiles(self.namespace, self.inodes)
        self.blocks = NamespaceBlocks(self.files)
        await self.inodes.recover()

    async def crash(self):
        """Lose what was not flushed."""
        for live in self.inodes._contents.values():
            live.dropped = True  # handles of the old world write nothing into the new one
        self.journal._writer.cancel()
        await asyncio.gather(self.journal._writer, return_exceptions=True)
        await self._begin()
