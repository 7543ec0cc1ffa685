"""What the parts of the kit for MetaStores share: rows, ways to look at them, and the fixtures that an adoption gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    WRITES_MAX,
    Commit,
    MetaStore,
    View,
    Write,
)
from warp_core.metadata import KEY_END

from warp_conformance.kit import Kit

Make = Callable[[], AbstractAsyncContextManager[MetaStore]]

TTL_S = 0.25  # of short leases: long against a scheduling hiccup, short against a test's time limit
INT64_MAX = 2**63 - 1


async def put(store: MetaStore, key: bytes, value: bytes | None) -> int:
    """Set or delete one row."""
    return await store.commit(Commit(writes=[Write(key, value)]))


async def fill(store: MetaStore, keys: list[bytes]) -> int:
    """Set many rows, each to its own key."""
    version = 0
    for at in range(0, len(keys), WRITES_MAX):
        version = await store.commit(
            Commit(writes=[Write(key, key) for key in keys[at : at + WRITES_MAX]])
        )
    return version


async def get(store: MetaStore, key: bytes) -> bytes | None:
    """Read one row as of now."""
    view = store.view()
    try:
        row = await view.get(key)
        return None if row is None else row[0]
    finally:
        view.close()


async def keys_of(view: View, start: bytes = b"\0", end: bytes = KEY_END) -> list[bytes]:
    """Return all keys of a range, page by page."""
    keys: list[bytes] = []
    while True:
        page = await view.scan(start, end)
        keys += [row.key for row in page]
        if len(page) < SCAN_MAX:
            return keys
        start = page[-1].key + b"\0"


class MetaStoreStage(Kit):
    """What every part of the kit stands on: an engine, and what opens it on the same data each time."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        """Return what opens the engine, on the same data each time."""
        raise NotImplementedError(
            f"{type(self).__name__} adopts MetaStoreKit: give it a fixture `make`"
        )

    @pytest.fixture
    async def stack(self, tmp_path: Path) -> AsyncIterator[AsyncExitStack]:
        """Yield what the subject is entered into: close it to close the subject, while its folder is still there."""
        async with AsyncExitStack() as stack:
            yield stack

    @pytest.fixture
    async def subject(self, stack: AsyncExitStack, make: Make) -> MetaStore:
        """Open the engine."""
        return await stack.enter_async_context(make())
