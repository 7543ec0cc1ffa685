"""The kit for protocols."""

from __future__ import annotations

import msgspec
import pytest
from warp_conformance.kits.protocols import Make, ProtocolKit
from warp_core.contexts import ProtocolContext
from warp_s3.config import Config
from warp_s3.server import Server


class TestS3(ProtocolKit):
    exchange = (b"GET / HTTP/1.1\r\nHost: loc", b"alhost\r\n\r\n", b"<Code>AccessDenied</Code>")

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Make:
        return lambda listen: Server(msgspec.structs.replace(Config(), listen=listen), context)
