"""The kit for protocols."""

from __future__ import annotations

import msgspec
import pytest
from warp_admin.config import Config
from warp_admin.server import Server
from warp_conformance.kits.protocols import Make, ProtocolKit
from warp_core.contexts import ProtocolContext

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n"


class TestAdmin(ProtocolKit):
    exchange = (ALIVE[:20], ALIVE[20:], b'{"alive":true}')

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Make:
        config = Config()
        return lambda listen: Server(msgspec.structs.replace(config, listen=listen), context)
