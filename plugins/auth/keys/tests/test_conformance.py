"""The kit for authenticators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.auth import ROOT, AuthKit, Make
from warp_conformance.reference.consistency import Plain
from warp_core.contexts import AuthContext
from warp_keys import Config
from warp_keys.keys import Keys


class TestKeys(AuthKit):
    @pytest.fixture
    async def make(self, tmp_path: Path) -> AsyncIterator[Make]:
        async with Plain() as store:
            yield lambda: Keys(Config(), AuthContext(tmp_path, store, ROOT))
