"""The kit for blob stores, in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from warp_core.contexts import StoreContext
from warp_core.interfaces.stores import BlobStore
from warp_core.metrics import Metrics
from warp_core.registry import Entry

from warp_conformance.kit import Kit, sample_of
from warp_conformance.kits.stores.durability import Durability
from warp_conformance.kits.stores.growing import Growing
from warp_conformance.kits.stores.sequences import Sequences
from warp_conformance.kits.stores.stage import Reopen, noise
from warp_conformance.kits.stores.whole import Whole

__all__ = ["BlobStoreKit", "Reopen", "adopt", "noise"]


def adopt(entry: Entry[BlobStore]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit, on the sample configuration in a folder of its own."""

    @pytest.fixture
    async def reopen(self: Kit, tmp_path: Path) -> AsyncIterator[Reopen]:
        stack = AsyncExitStack()

        async def again() -> BlobStore:
            await stack.aclose()
            store = entry.build(sample_of(entry, tmp_path), StoreContext(tmp_path, Metrics()))
            return await stack.enter_async_context(store)

        yield again
        await stack.aclose()

    @pytest.fixture
    async def subject(self: Kit, reopen: Reopen) -> BlobStore:
        return await reopen()

    yield BlobStoreKit, {"subject": subject, "reopen": reopen}


class BlobStoreKit(Whole, Growing, Durability, Sequences, kit=True):
    """What every store keeps. Besides `subject` it wants `reopen`: end the store, as a crash would if it can, and open it again."""
