"""The kit: what every filter promises."""

from __future__ import annotations

import pytest
from warp_conformance.kits.codecs import FilterKit
from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import Filter
from warp_skeleton.config import Config
from warp_skeleton.filter import Skeleton


class TestSkeleton(FilterKit):
    @pytest.fixture
    def subject(self) -> Filter:
        return Skeleton(Config(), CodecContext())
