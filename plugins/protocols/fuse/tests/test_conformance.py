"""The kit for protocols without an address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warp_conformance.kits.protocols import Build, LocalProtocolKit
from warp_core.contexts import ProtocolContext
from warp_fuse.config import Config
from warp_fuse.server import Server


class TestFuseWithoutMounts(LocalProtocolKit):
    @pytest.fixture
    def make(self, context: ProtocolContext) -> Build:
        return lambda: Server(Config(), context)


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK), reason="needs root and /dev/fuse"
)
class TestFuse(LocalProtocolKit):
    @pytest.fixture
    def make(self, context: ProtocolContext, tmp_path: Path) -> Build:
        config = Config(mounts={str(tmp_path / "a b"): "v", str(tmp_path / "deep/er"): "new"})
        return lambda: Server(config, context)
