"""The store kit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from warp_conformance.kits.stores import BlobStoreKit, Reopen
from warp_core.config.types import Size
from warp_core.interfaces.stores import BlobStore
from warp_disk import Config, Disk


class TestDisk(BlobStoreKit):
    config = Config(reserve=Size(0))

    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        stack = AsyncExitStack()

        async def again() -> BlobStore:
            await stack.aclose()
            return await stack.enter_async_context(Disk(self.config, tmp_path))

        yield again
        await stack.aclose()

    @pytest.fixture
    async def subject(self, reopen: Reopen) -> BlobStore:
        return await reopen()


class TestDiskWithFewDescriptors(TestDisk):
    config = Config(reserve=Size(0), descriptors=8, threads=1, spares=0)
