"""The kit: what every transport promises."""

from __future__ import annotations

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
    def subject(self, tmp_path: Path) -> Transport:
        return Skeleton(Config(), TransportContext("a", tmp_path, Metrics()))
