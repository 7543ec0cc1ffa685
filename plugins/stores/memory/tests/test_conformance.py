"""The store kit."""

from __future__ import annotations

import pytest
from warp_conformance.kits.stores import BlobStoreKit, Reopen
from warp_core.config.types import Size
from warp_core.interfaces.stores import BlobStore
from warp_store_memory import Config, Memory


class TestMemory(BlobStoreKit):
    @pytest.fixture
    def subject(self) -> BlobStore:
        return Memory(Config(capacity=Size(16 << 20)))

    @pytest.fixture
    def reopen(self, subject: BlobStore) -> Reopen:
        async def again() -> BlobStore:
            return subject

        return again
