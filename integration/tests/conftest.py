"""A running server for tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from warp_integration.requirements import require_server
from warp_integration.server import WarpServer, config_text


@pytest.fixture(scope="session")
def warp_serve() -> None:
    """Skip what needs the command where it is not installed."""
    require_server()


@pytest.fixture(scope="module")
def server(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarpServer]:
    """`warp serve` with one store and S3 on a free port, for all tests of a module: each uses buckets of its own."""
    tmp_path = tmp_path_factory.mktemp("server")
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as running:
        yield running
        assert running.running, running.log_tail()
