"""The kit: passes come to an end, harm nothing that clients see, and may be stopped anywhere."""

from __future__ import annotations

import pytest
from warp_conformance.kits.services import Make, ServiceKit
from warp_skeleton.config import Config
from warp_skeleton.service import Skeleton


class TestSkeleton(ServiceKit):
    # Configured so that it changes nothing that clients see: rules of a service that deletes or moves have tests of their own.
    @pytest.fixture
    def make(self) -> Make:
        return lambda context: Skeleton(Config(), context)
