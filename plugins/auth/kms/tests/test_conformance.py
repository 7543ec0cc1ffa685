"""The kit of key services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.keys import KeyServiceKit, Make
from warp_conformance.reference.consistency import Plain
from warp_core.contexts import AuthContext
from warp_kms.config import Config
from warp_kms.service import LocalKeys


class TestLocalKeys(KeyServiceKit):
    @pytest.fixture
    async def make(self, tmp_path: Path) -> AsyncIterator[Make]:
        async with Plain() as store:
            yield lambda: LocalKeys(Config(), AuthContext(tmp_path, store, ("R", "s")))
