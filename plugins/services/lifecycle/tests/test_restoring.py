"""The service brings back what was asked for, tries again what it could not, and drops copies when their days are over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from warp_conformance.reference.node import Stage
from warp_core.containers import ChunkWriter, DataPolicy
from warp_core.errors import Archived, NoSpace
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.lifecycle import DAY_NS
from warp_core.metrics import Metrics
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests
from warp_lifecycle import Config, LifecycleRules

T0 = 1_800_000_000 * 10**9 // DAY_NS * DAY_NS  # a midnight
NOON = DAY_NS // 2
DATA = b"x" * 300_000
V = "ice"
ICE = Attributes(storage_class="GLACIER")


class Rig:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.now_ns = T0 + NOON
        namespace = self.namespace = stage.namespace
        namespace.clock_ns = lambda: self.now_ns
        namespace.archives = frozenset(["GLACIER"])
        namespace.classes = {"GLACIER": DataPolicy(verify="scrub")}
        self.objects = NamespaceObjects(namespace)
        self.restart()

    def restart(self) -> None:
        self.service = LifecycleRules(Config(), self.namespace)

    async def put(self, key: bytes, volume: str = V) -> None:
        writer = await self.objects.writer(volume, key, ICE)
        await writer.write(DATA)
        await writer.commit(Digests(etag="e"))

    async def work(self) -> dict[str, int]:
        context = ServiceContext(self.namespace, self.stage.containers, Metrics())
        total: dict[str, int] = {}
        for _ in range(100):
            report = await self.service.work(context)
            for name, count in report.counts.items():
                total[name] = total.get(name, 0) + count
            if report.idle:
                return total
        raise AssertionError("never idle")

    async def readable(self, key: bytes) -> bool:
        try:
            (await self.objects.open(V, key)).close()
        except Archived:
            return False
        return True


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Stage() as stage:
        made = Rig(stage)
        await made.objects.create_volume(V, owner=Principal("account:alice"))
        yield made


async def test_what_was_asked_for_is_readable_until_a_midnight(rig: Rig) -> None:
    keys = [b"%d" % n for n in range(20)]
    for key in keys:
        await rig.put(key)
        await rig.objects.restore(V, key, 2)
    assert await rig.work() == {"restored": 20}
    info = await rig.objects.head(V, b"7")
    assert info.restore is not None
    assert info.restore.until_ns == T0 + 3 * DAY_NS
    rig.now_ns = T0 + 3 * DAY_NS - 1
    rig.restart()
    assert await rig.work() == {}
    assert all([await rig.readable(key) for key in keys])
    rig.now_ns += 2

    assert await rig.work() == {"dropped": 20}
    assert not any([await rig.readable(key) for key in keys])
    assert await audit(rig.namespace, V) == []


async def test_what_finds_no_room_stays_asked_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.put(b"k")
    await rig.objects.restore(V, b"k", 1)

    async def full(writer: ChunkWriter, *_: Any) -> None:
        raise NoSpace("full")

    with monkeypatch.context() as patched:
        patched.setattr(ChunkWriter, "write", full)
        assert await rig.work() == {"not_restored": 1}
    info = await rig.objects.head(V, b"k")
    assert info.restore is not None
    assert info.restore.ongoing

    assert await rig.work() == {"restored": 1}
    assert await rig.readable(b"k")


async def test_one_volume_that_cannot_does_not_keep_another_from_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.objects.create_volume("a", owner=Principal("account:alice"))
    await rig.put(b"lost", "a")
    await rig.put(b"k")
    for volume, key in (("a", b"lost"), (V, b"k")):
        await rig.objects.restore(volume, key, 1)
    await rig.objects.delete("a", b"lost")

    assert await rig.work() == {"restored": 1}


def test_nobody_restores_where_there_are_no_archives() -> None:
    class Plain:
        archives: frozenset[str] = frozenset()
        restores_day_ns = 0

    LifecycleRules(Config(), Plain())  # type: ignore[arg-type]
    assert Plain.restores_day_ns == 0
