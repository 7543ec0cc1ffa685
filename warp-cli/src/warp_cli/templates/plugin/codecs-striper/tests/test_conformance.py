"""The kit: what every striper promises."""

from __future__ import annotations

import pytest
from warp_conformance.kits.codecs import StriperKit
from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import Striper
from warp_skeleton.config import Config
from warp_skeleton.striper import Skeleton


class TestSkeleton(StriperKit):
    @pytest.fixture
    def subject(self) -> Striper:
        return Skeleton(Config(), CodecContext())
