"""The kit for event targets, against a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from warp_conformance.kits.targets import Make, Receiver, TargetKit
from warp_core.config.types import Duration
from warp_core.interfaces.targets import TargetContext
from warp_nats import Config, build

# A server takes a while to start, and to look at all clients once it goes on.
pytestmark = pytest.mark.timeout(120)


class TestNats(TargetKit):
    @pytest.fixture
    def receiver(self, broker: Any) -> Receiver:
        there: Receiver = broker
        return there

    def _target(self, broker: Any, tmp_path: Path, limit_s: float) -> Any:
        config = Config(
            servers=(f"nats://127.0.0.1:{broker.port}",),
            subject="kit.{bucket}",
            timeout=Duration(limit_s),
        )
        return build(config, TargetContext("kit", tmp_path))

    @pytest.fixture
    def make(self, broker: Any, tmp_path: Path) -> Make:
        return lambda: self._target(broker, tmp_path, 10.0)

    @pytest.fixture
    def hasty(self, broker: Any, tmp_path: Path) -> Make:
        return lambda: self._target(broker, tmp_path, 0.3)
