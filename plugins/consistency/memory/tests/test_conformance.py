"""The kit of metadata engines."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from warp_conformance.kits.consistency import Make, MetaStoreKit
from warp_core.interfaces.consistency import MetaStore
from warp_meta_memory.engine import Memory


class TestMemory(MetaStoreKit):
    @pytest.fixture
    def make(self) -> Make:
        def opened() -> AbstractAsyncContextManager[MetaStore]:
            return Memory()

        return opened
