"""The kit: what every metadata engine promises."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from warp_conformance.kits.consistency import Make, MetaStoreKit
from warp_core.contexts import MetaContext
from warp_core.interfaces.consistency import MetaStore
from warp_core.metrics import Metrics
from warp_skeleton.config import Config
from warp_skeleton.engine import Skeleton


class TestSkeleton(MetaStoreKit):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        def opened() -> AbstractAsyncContextManager[MetaStore]:
            context = MetaContext("a", tmp_path, (), None, Metrics(), time.monotonic)
            return Skeleton(Config(), context)

        return opened
