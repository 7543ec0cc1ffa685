"""The kit: what every store promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from warp_conformance.kits.stores import BlobStoreKit, Reopen
from warp_core.contexts import StoreContext
from warp_core.interfaces.stores import BlobStore
from warp_core.metrics import Metrics
from warp_skeleton.config import Config
from warp_skeleton.store import Skeleton


class TestSkeleton(BlobStoreKit):
    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        async with AsyncExitStack() as stack:

            async def again() -> BlobStore:
                await stack.aclose()
                store = Skeleton(Config(), StoreContext(tmp_path, Metrics()))
                return await stack.enter_async_context(store)

            yield again

    @pytest.fixture
    async def subject(self, reopen: Reopen) -> BlobStore:
        return await reopen()
