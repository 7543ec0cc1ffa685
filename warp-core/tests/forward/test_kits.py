"""The views' kits on views that another node serves, over tcp with certificates: forwarding is complete."""

from __future__ import annotations

from typing import Any

import pytest
from warp_conformance.kits.blocks import BlocksKit
from warp_conformance.kits.files import FilesKit
from warp_conformance.kits.objects import ObjectsKit, Reopen, Usage
from warp_core.views.objects import Objects


class TestForwardedObjects(ObjectsKit):
    @pytest.fixture
    def subject(self, forwarded: Any) -> Objects:
        return forwarded.objects

    @pytest.fixture
    def usage(self, forwarded: Any) -> Usage:
        async def of(volume: str) -> tuple[int, int, int, int]:
            found = await forwarded.home.namespace.usage(volume)
            return found[:4]

        return of

    @pytest.fixture
    def reopen(self, forwarded: Any) -> Reopen:
        async def again() -> Objects:
            await forwarded.crash()
            return forwarded.objects

        return again


class TestForwardedFiles(FilesKit):
    @pytest.fixture
    def subject(self, forwarded: Any) -> Any:
        return forwarded


class TestForwardedBlocks(BlocksKit):
    @pytest.fixture
    def subject(self, forwarded: Any) -> Any:
        return forwarded
