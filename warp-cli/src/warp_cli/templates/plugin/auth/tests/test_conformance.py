"""The kit: what every authenticator promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.auth import ROOT, AuthKit, Make
from warp_conformance.reference.consistency import Plain
from warp_core.contexts import AuthContext
from warp_skeleton.authenticator import Skeleton
from warp_skeleton.config import Config


class TestSkeleton(AuthKit):
    @pytest.fixture
    async def make(self, tmp_path: Path) -> AsyncIterator[Make]:
        async with Plain() as store:
            yield lambda: Skeleton(Config(), AuthContext(tmp_path, store, ROOT))
