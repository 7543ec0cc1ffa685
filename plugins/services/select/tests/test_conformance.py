"""The kit for services: one that works on request leaves the namespace alone."""

from __future__ import annotations

import pytest
from warp_conformance.kits.services import Make, ServiceKit
from warp_select import Config
from warp_select.engine import Engine


class TestSelect(ServiceKit):
    @pytest.fixture
    def make(self) -> Make:
        return lambda context: Engine(Config())
