"""The kits: of services for the one that delivers, of event targets for webhooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from warp_conformance.kits import services, targets
from warp_core.config.types import Duration, Secret
from warp_core.interfaces.targets import TargetContext
from warp_events import Config, WebhookConfig, build_webhook
from warp_events.service import Events

SECRETS = ("a-word-that-nobody-reads", "another-secret-word", "in-the-query")


class TestEvents(services.ServiceKit):
    @pytest.fixture
    def make(self) -> services.Make:
        return lambda context: Events(Config())


class TestWebhook(targets.TargetKit):
    secrets = SECRETS

    @pytest.fixture
    def receiver(self, hook: Any) -> targets.Receiver:
        there: targets.Receiver = hook
        return there

    def _target(self, hook: Any, folder: Path, limit_s: float) -> Any:
        config = WebhookConfig(
            url=hook.url,
            authorization=Secret(f"Bearer {SECRETS[0]}"),
            secret=Secret(SECRETS[1]),
            timeout=Duration(limit_s),
        )
        return build_webhook(config, TargetContext("kit", folder))

    @pytest.fixture
    def make(self, hook: Any, tmp_path: Path) -> targets.Make:
        return lambda: self._target(hook, tmp_path, 10.0)

    @pytest.fixture
    def hasty(self, hook: Any, tmp_path: Path) -> targets.Make:
        return lambda: self._target(hook, tmp_path, 0.2)
