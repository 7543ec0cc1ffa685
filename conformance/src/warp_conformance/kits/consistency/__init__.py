"""The kit for MetaStores, in parts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from warp_core.containers.journal import Journal
from warp_core.contexts import MetaContext
from warp_core.errors import PluginError
from warp_core.interfaces.consistency import MetaStore
from warp_core.metrics import Metrics
from warp_core.registry import Entry

from warp_conformance.kit import Kit
from warp_conformance.kits.consistency.checks import Checks
from warp_conformance.kits.consistency.commits import Commits
from warp_conformance.kits.consistency.comparison import Comparison
from warp_conformance.kits.consistency.durability import Durability
from warp_conformance.kits.consistency.leases import Leases
from warp_conformance.kits.consistency.rows import Rows
from warp_conformance.kits.consistency.stage import Make
from warp_conformance.kits.consistency.views import Views
from warp_conformance.kits.consistency.watching import Watching
from warp_conformance.reference.filedisk import FileDisk

__all__ = ["Make", "MetaStoreKit", "adopt"]


def adopt(entry: Entry[MetaStore]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit, on two file stores below a folder and a journal on them."""

    @pytest.fixture
    def make(self: Kit, tmp_path: Path) -> Make:
        @asynccontextmanager
        async def opened() -> AsyncIterator[MetaStore]:
            async with AsyncExitStack() as stack:
                stores = [
                    await stack.enter_async_context(FileDisk(tmp_path / name)) for name in "ab"
                ]
                journal = await stack.enter_async_context(Journal(stores, segment_size=1 << 22))
                context = MetaContext(
                    node="kit",
                    data=tmp_path,
                    stores=stores,
                    journal=journal,
                    metrics=Metrics(),
                    monotonic=time.monotonic,
                )
                try:
                    store = entry.build(entry.sampled(tmp_path), context)
                    entered = await stack.enter_async_context(store)
                except PluginError as error:  # a program that it runs is not installed
                    pytest.skip(str(error))
                yield entered

        return opened

    yield MetaStoreKit, {"make": make}


class MetaStoreKit(
    Rows, Views, Checks, Commits, Watching, Leases, Durability, Comparison, kit=True
):
    """What every MetaStore promises.

    An adoption gives `subject`, or `make`, which returns a context that opens the engine on the same data each time. An engine
    that claims `durable` has to give `make`.
    """
