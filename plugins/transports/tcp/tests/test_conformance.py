"""The transport kit, with mutual TLS and without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.kits.transports import NODE, TransportKit
from warp_core.contexts import TransportContext
from warp_core.interfaces.transports import Transport
from warp_core.metrics import Metrics
from warp_tcp import sample
from warp_tcp.config import Config
from warp_tcp.transport import Tcp


class TestTls(TransportKit):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Transport]:
        folder = tmp_path / "node"
        async with Tcp(sample(folder), TransportContext(NODE, folder, Metrics())) as transport:
            yield transport

    @pytest.fixture
    async def stranger(self, tmp_path: Path) -> AsyncIterator[Transport]:
        folder = tmp_path / "stranger"
        async with Tcp(sample(folder), TransportContext(NODE, folder, Metrics())) as transport:
            yield transport


class TestPlaintext(TransportKit):
    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[Transport]:
        async with Tcp(
            Config(plaintext=True), TransportContext(NODE, tmp_path, Metrics())
        ) as transport:
            yield transport
