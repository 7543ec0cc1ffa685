"""Copies come back, a bounded amount at a time, and what cannot be healed is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from warp_conformance.difference import same
from warp_conformance.reference import data_plane as rig
from warp_conformance.reference.consistency import Plain
from warp_conformance.reference.stores import Medium
from warp_core.config.types import Size
from warp_core.containers import Containers, DataPolicy
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.logs import Logger
from warp_core.metrics import Metrics
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests
from warp_heal import Config, Healing

MIB = 1 << 20
POLICY = DataPolicy(redundancy="replica:2", chunker="fixed:1000000")


class Node:
    def __init__(self, containers: Containers, meta: Plain, **options: Size) -> None:
        self.containers = containers
        self.namespace = Namespace(meta, containers, policy=POLICY)
        self.objects = NamespaceObjects(self.namespace)
        self.service = Healing(Config(**options))

    async def put(self, key: bytes, data: bytes) -> None:
        writer = await self.objects.writer("v", key, Attributes(), size=len(data))
        await writer.write(data)
        await writer.commit(Digests(etag="e"))

    async def get(self, key: bytes) -> bytes:
        reader = await self.objects.open("v", key)
        data = bytes(await reader.read(0, reader.info.size))
        reader.close()
        return data

    async def work(self) -> dict[str, int]:
        report = await self.service.work(ServiceContext(self.namespace, self.containers, Metrics()))
        return {**report.counts, "idle": report.idle}

    async def passes(self) -> int:
        for number in range(1, 100):
            if (await self.work())["idle"]:
                return number
        raise AssertionError("never idle")


@pytest.fixture
async def meta() -> AsyncIterator[Plain]:
    async with Plain() as engine:
        yield engine


def contents(medium: Medium) -> dict[str, bytes]:
    return {name: bytes(blob.data) for name, blob in medium.blobs.items() if name.startswith("c/")}


async def test_what_an_emptied_disk_held_comes_back_in_several_passes(meta: Plain) -> None:
    kept, emptied = Medium(), Medium()
    objects = {b"k%d" % number: rig.noise(900_000, number) for number in range(6)}
    async with rig.node(kept, emptied) as containers:
        one = Node(containers, meta)
        await one.objects.create_volume("v", owner=Principal("account:a"))
        for key, data in objects.items():
            await one.put(key, data)
    for name in contents(emptied):
        del emptied.blobs[name]

    async with rig.node(kept, emptied) as containers:
        one = Node(containers, meta, budget=Size(MIB))
        assert await one.passes() > 2
        assert len(contents(emptied)) == len(contents(kept))
    for name in contents(kept):
        del kept.blobs[name]

    async with rig.node(kept, emptied) as containers:
        one = Node(containers, meta)
        for key, data in objects.items():
            assert same(await one.get(key), data)


async def test_without_a_second_disk_it_waits_says_so_once_and_goes_on_when_there_is_one(
    meta: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Logger, "warning", lambda log, event, **fields: said.append(event))
    kept, gone, new = Medium(), Medium(), Medium()
    async with rig.node(kept, gone) as containers:
        one = Node(containers, meta)
        await one.objects.create_volume("v", owner=Principal("account:a"))
        await one.put(b"k", rig.noise(900_000, 1))

    async with rig.node(kept) as containers:
        one = Node(containers, meta)
        for _ in range(3):
            assert (await one.work())["idle"]
        assert said == ["copies are missing"]
        assert same(await one.get(b"k"), rig.noise(900_000, 1))

    async with rig.node(kept, new) as containers:
        one = Node(containers, meta)
        await one.passes()
        assert len(contents(new)) == len(contents(kept))
