"""The chunker kit."""

from __future__ import annotations

import pytest
from warp_conformance.kits.codecs import ChunkerKit
from warp_core.interfaces.codecs import Chunker
from warp_fixed.chunker import Fixed


class TestFixed(ChunkerKit):
    @pytest.fixture(params=[4096, 5000])
    def subject(self, request: pytest.FixtureRequest) -> Chunker:
        return Fixed(request.param)
