from __future__ import annotations

import pytest
from warp_conformance.kits.services import Make, ServiceKit
from warp_replication import Config, Replicator


class TestReplication(ServiceKit):
    @pytest.fixture
    def make(self) -> Make:
        return lambda context: Replicator(Config())
