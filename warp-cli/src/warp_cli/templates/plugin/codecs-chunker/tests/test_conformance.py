"""The kit: what every chunker promises."""

from __future__ import annotations

import pytest
from warp_conformance.kits.codecs import ChunkerKit
from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import Chunker
from warp_skeleton.chunker import Skeleton
from warp_skeleton.config import Config


class TestSkeleton(ChunkerKit):
    @pytest.fixture
    def subject(self) -> Chunker:
        return Skeleton(Config(), CodecContext())
