"""A namespace over engines in memory."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from warp_core.containers import Containers, StoreSlot
from warp_core.interfaces.auth import Principal
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory import Memory as MemoryStore

ALICE = Principal(name="alice")


def codec(name: str) -> Fixed:
    assert name.startswith("fixed:")
    return Fixed(8 * 1024 * 1024)


@pytest.fixture
async def namespace() -> AsyncIterator[Namespace]:
    clock = itertools.count(1_700_000_000_000_000_000, 1_000_000)
    async with (
        MemoryMeta() as meta,
        MemoryStore() as store,
        Containers([StoreSlot("m", store)], codec=codec) as containers,
    ):
        yield Namespace(meta, containers, clock_ns=lambda: next(clock))


@pytest.fixture
async def objects(namespace: Namespace) -> NamespaceObjects:
    made = NamespaceObjects(namespace)
    await made.create_volume("v", owner=ALICE)
    return made
