"""The plugin as the registry sees it."""

import subprocess
import sys
from pathlib import Path

import warp_s3
from warp_core.interfaces.protocols import Protocol
from warp_core.registry import Registry


def test_s3_is_offered_with_options_that_work_on_any_machine(tmp_path: Path) -> None:
    registry: Registry[Protocol] = Registry("protocols")
    registry.offering_as("warp-s3")

    warp_s3.warp_register_protocols(registry)
    entry = registry.get("s3")

    assert entry.config is warp_s3.Config
    assert entry.config().listen == "127.0.0.1:9000"
    assert entry.sample(tmp_path).listen.port == 0  # type: ignore[attr-defined]


def test_listing_plugins_loads_no_server() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, warp_s3; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert "warp_s3" in loaded
    assert not {"asyncio", "ssl", "awscrt", "xxhash", "defusedxml", "warp_s3.server"} & set(loaded)
