"""The kit of metadata engines, with checkpoints few and many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from warp_conformance.kits.consistency import Make, MetaStoreKit
from warp_conformance.reference.filedisk import FileDisk
from warp_core.containers.journal import Journal
from warp_core.interfaces.consistency import MetaStore
from warp_local.config import Config
from warp_local.engine import Local


def maker(folder: Path, copies: int, config: Config) -> Make:
    @asynccontextmanager
    async def opened() -> AsyncIterator[MetaStore]:
        async with AsyncExitStack() as stack:
            stores = [
                await stack.enter_async_context(FileDisk(folder / f"disk{number}"))
                for number in range(copies)
            ]
            journal = await stack.enter_async_context(Journal(stores, segment_size=8 << 20))
            yield await stack.enter_async_context(Local(config, stores, journal))

    return opened


class TestOneCopy(MetaStoreKit):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return maker(tmp_path, 1, Config())


class TestTwoCopiesWithManyCheckpoints(MetaStoreKit):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return maker(tmp_path, 2, Config(checkpoint_rows=10))
