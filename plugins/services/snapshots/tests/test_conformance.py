"""The kit for services."""

from __future__ import annotations

import pytest
from warp_conformance.kits.services import Make, ServiceKit
from warp_snapshots import Config, SnapshotPolicies


class TestSnapshots(ServiceKit):
    @pytest.fixture
    def make(self) -> Make:
        return lambda context: SnapshotPolicies(Config())
