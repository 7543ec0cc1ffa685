"""The filter kit."""

from __future__ import annotations

import pytest
from warp_conformance.kits.codecs import FilterKit
from warp_core.interfaces.codecs import Filter
from warp_zstd.filter import Zstd


class TestFast(FilterKit):
    @pytest.fixture
    def subject(self) -> Filter:
        return Zstd(1)


class TestSmall(FilterKit):
    @pytest.fixture
    def subject(self) -> Filter:
        return Zstd(19)
