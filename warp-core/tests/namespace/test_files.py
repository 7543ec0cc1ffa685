"""The views Files and Blocks over engines in memory, by their kits."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.blocks import BlocksKit
from warp_conformance.kits.files import FilesKit

_spec = importlib.util.spec_from_file_location(
    "files_stage", Path(__file__).with_name("files_stage.py")
)
assert _spec is not None
assert _spec.loader is not None
stage = importlib.util.module_from_spec(_spec)
sys.modules["files_stage"] = stage
_spec.loader.exec_module(stage)


class TestNamespaceFiles(FilesKit):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[object]:
        async with stage.Stage() as subject:
            yield subject


class TestNamespaceBlocks(BlocksKit):
    @pytest.fixture
    async def subject(self) -> AsyncIterator[object]:
        async with stage.Stage() as subject:
            yield subject
