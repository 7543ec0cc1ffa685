"""The kit: how every protocol opens, survives its clients, and leaves."""

from __future__ import annotations

import msgspec
import pytest
from warp_conformance.kits.protocols import Make, ProtocolKit
from warp_core.contexts import ProtocolContext
from warp_skeleton.config import Config
from warp_skeleton.server import Skeleton


class TestSkeleton(ProtocolKit):
    # A request in two halves, and a part of its answer: by it the kit proves that clients are served until the end.
    exchange = (b"replace this by the bytes ", b"of a real request\r\n", b"\r\n")

    @pytest.fixture
    def make(self, context: ProtocolContext) -> Make:
        return lambda listen: Skeleton(msgspec.structs.replace(Config(), listen=listen), context)
