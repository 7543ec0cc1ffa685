"""The views Files and Blocks over engines in memory, by their kits."""

from __future__ import annotations

from collections.abc import AsyncIterator

import files_stage as stage
import pytest
from warp_conformance.kits.blocks import BlocksKit
from warp_conformance.kits.files import FilesKit


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
