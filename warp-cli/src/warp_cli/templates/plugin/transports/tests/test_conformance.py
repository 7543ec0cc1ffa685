"""The kit: what every transport promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.transports import TransportKit
from warp_core.contexts import TransportContext
from warp_core.interfaces.transports import Transport
from warp_core.metrics import Metrics
from warp_skeleton.config import Config
from warp_skeleton.transport import Skeleton


class TestSkeleton(TransportKit):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Transport]:
        async with Skeleton(Config(), TransportContext("node", tmp_path, Metrics())) as subject:
            yield subject
