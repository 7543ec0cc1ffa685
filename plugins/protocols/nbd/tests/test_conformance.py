"""The kit for protocols."""

from __future__ import annotations

import msgspec
import pytest
from warp_conformance.kits.protocols import Make, ProtocolKit
from warp_core.contexts import ProtocolContext
from warp_nbd import wire
from warp_nbd.config import Config
from warp_nbd.server import Server
from warp_nbd.wire import Option, Reply

LIST = (3).to_bytes(4, "big") + wire.pack_option(Option.LIST)


class TestNbd(ProtocolKit):
    exchange = (LIST[:13], LIST[13:], wire.pack_option_reply(Option.LIST, Reply.ACK))

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Make:
        allowed = Config(auth="none")
        return lambda listen: Server(msgspec.structs.replace(allowed, listen=listen), context)
