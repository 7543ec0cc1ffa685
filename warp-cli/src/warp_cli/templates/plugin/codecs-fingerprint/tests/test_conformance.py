"""The kit: what every fingerprint promises."""

from __future__ import annotations

import pytest
from warp_conformance.kits.codecs import FingerprintKit
from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import Fingerprint
from warp_skeleton.config import Config
from warp_skeleton.fingerprint import Skeleton


class TestSkeleton(FingerprintKit):
    @pytest.fixture
    def subject(self) -> Fingerprint:
        return Skeleton(Config(), CodecContext())
