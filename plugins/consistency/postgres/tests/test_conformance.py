"""The kit of metadata engines, on a real server."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from warp_conformance.kits.consistency import Make, MetaStoreKit
from warp_core.interfaces.consistency import MetaStore
from warp_postgres.config import Config
from warp_postgres.engine import Postgres


class TestPostgres(MetaStoreKit):
    @pytest.fixture
    def make(self, config: Config, tmp_path: Path) -> Make:
        def opened() -> AbstractAsyncContextManager[MetaStore]:
            return Postgres(config, folder=tmp_path)

        return opened
