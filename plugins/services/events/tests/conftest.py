"""Servers for the tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "warp_events_tests_hook", Path(__file__).with_name("hook.py")
)
assert _spec is not None
assert _spec.loader is not None
_hook = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_hook)


@pytest.fixture
def hook_of() -> type[Any]:
    """The class of servers that webhooks post to."""
    found: type[Any] = _hook.Hook
    return found


@pytest.fixture
async def hook(hook_of: type[Any]) -> AsyncIterator[Any]:
    """A server that webhooks post to."""
    made = hook_of()
    await made.start()
    yield made
    await made.stop()
