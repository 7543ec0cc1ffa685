"""The kit for transports, in parts: messages arrive whole, in order and from whom they claim, whatever hostile peers do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from warp_core.contexts import TransportContext
from warp_core.interfaces.transports import Transport
from warp_core.metrics import Metrics
from warp_core.registry import Entry

from warp_conformance.kit import Kit, sample_of
from warp_conformance.kits.transports.endings import Endings
from warp_conformance.kits.transports.messages import Messages
from warp_conformance.kits.transports.stage import NODE
from warp_conformance.kits.transports.strangers import Strangers

__all__ = ["NODE", "TransportKit", "adopt"]


def adopt(entry: Entry[Transport]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit; `Entry.sample` has to configure the node `sample`, each time as the only node of a cluster of its own."""

    @asynccontextmanager
    async def node(folder: Path) -> AsyncIterator[Transport]:
        os.mkdir(folder)
        context = TransportContext(node=NODE, data=folder, metrics=Metrics())
        async with entry.build(sample_of(entry, folder), context) as transport:
            yield transport

    @pytest.fixture
    async def subject(self: Kit, tmp_path: Path) -> AsyncIterator[Transport]:
        async with node(tmp_path / "node") as transport:
            yield transport

    @pytest.fixture
    async def stranger(self: Kit, tmp_path: Path) -> AsyncIterator[Transport]:
        async with node(tmp_path / "stranger") as transport:
            yield transport

    yield TransportKit, {"subject": subject, "stranger": stranger}


class TransportKit(Messages, Endings, Strangers, kit=True):
    """Give `subject`, a transport of the node `node`, and, where it claims `authenticated`, `stranger`: one of another cluster.

    `anywhere` is an address to listen at where the transport chooses the port. Raw bytes are sent to addresses of the form HOST:PORT;
    transports with others are not tried with garbage.
    """
