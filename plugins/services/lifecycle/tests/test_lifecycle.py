"""What rules name goes when it is old enough, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from warp_conformance.reference.node import Stage
from warp_core import lifecycle
from warp_core.config import Duration
from warp_core.containers import ChunkWriter, DataPolicy
from warp_core.errors import NoSpace
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.lifecycle import DAY_NS, Lifecycle, Move, Rule
from warp_core.metrics import Metrics
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests
from warp_lifecycle import Config, LifecycleRules
from warp_lifecycle import sweep as sweeps

ALICE = Principal("account:alice")
T0 = 1_800_000_000 * 10**9 // DAY_NS * DAY_NS  # a midnight
V = "life"


@dataclass
class Rig:
    stage: Stage
    now_ns: int = T0
    config: Config = field(default_factory=Config)
    service: LifecycleRules = field(init=False)

    def __post_init__(self) -> None:
        self.stage.namespace.clock_ns = lambda: self.now_ns
        self.objects = NamespaceObjects(self.stage.namespace)
        self.restart()

    def restart(self) -> None:
        self.service = LifecycleRules(self.config)

    async def rules(self, *rules: Rule, small: tuple[str, ...] = ()) -> None:
        document = lifecycle.pack(Lifecycle(rules, small))
        await self.objects.set_document(V, lifecycle.DOCUMENT, document)

    async def put(self, key: str, data: bytes = b"x", **said: object) -> str:
        attributes = Attributes(**said)  # type: ignore[arg-type]
        made = await self.objects.put(V, key.encode(), data, attributes, Digests(etag="e"))
        return made.version

    async def sweep(self, *, days: float = 0) -> dict[str, int]:
        """Let days go by, and work until idle."""
        self.now_ns += int(days * DAY_NS)
        context = ServiceContext(self.stage.namespace, self.stage.containers, Metrics())
        total: dict[str, int] = {}
        for _ in range(200):
            report = await self.service.work(context)
            for name, count in report.counts.items():
                total[name] = total.get(name, 0) + count
            if report.idle:
                return total
        raise AssertionError("never idle")

    async def keys(self) -> list[str]:
        return [entry.key.decode() for entry in (await self.objects.list(V)).entries]

    async def versions(self) -> list[tuple[str, str]]:
        found = (await self.objects.list_versions(V)).entries
        return [(each.key.decode(), "marker" if each.marker else each.version) for each in found]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Stage() as stage:
        made = Rig(stage)
        await made.objects.create_volume(V, owner=ALICE)
        yield made


async def test_objects_expire_at_midnight_after_their_days(rig: Rig) -> None:
    await rig.rules(Rule(id="r", prefix="a/", days=1), Rule(id="off", enabled=False, days=1))
    rig.now_ns += 3600 * 10**9
    await rig.put("a/k")
    await rig.put("b/k")
    assert await rig.sweep(days=1.5) == {}
    assert await rig.sweep(days=0.5) == {"expired": 1}
    assert await rig.keys() == ["b/k"]


async def test_a_date_expires_all_from_then_on(rig: Rig) -> None:
    await rig.rules(Rule(id="r", at_s=(T0 + 2 * DAY_NS) // 10**9))
    await rig.put("k")
    assert await rig.sweep(days=1) == {}
    assert await rig.sweep(days=1) == {"expired": 1}
    await rig.put("late")
    assert await rig.sweep(days=1) == {"expired": 1}


async def test_filters_name_what_expires(rig: Rig) -> None:
    await rig.rules(
        Rule(id="t", prefix="t/", tags={"a": "1", "b": "2"}, days=1),
        Rule(id="s", prefix="s/", larger_than=2, smaller_than=5, days=1),
    )
    await rig.put("t/both", tags={"a": "1", "b": "2", "c": "3"})
    await rig.put("t/one", tags={"a": "1"})
    await rig.put("t/none")
    for size in (2, 3, 4, 5):
        await rig.put(f"s/{size}", b"x" * size)
    assert await rig.sweep(days=1) == {"expired": 3}
    assert await rig.keys() == ["s/2", "s/5", "t/none", "t/one"]


async def test_in_a_versioned_volume_a_marker_comes_first_and_goes_when_alone(rig: Rig) -> None:
    await rig.objects.set_versioning(V, "on")
    await rig.rules(Rule(id="r", days=1), Rule(id="n", noncurrent_days=2))
    version = await rig.put("k")
    assert await rig.sweep(days=1) == {"expired": 1}
    assert await rig.versions() == [("k", "marker"), ("k", version)]
    assert await rig.sweep(days=1) == {}
    assert await rig.sweep(days=1) == {"noncurrent": 1}
    assert await rig.sweep(days=1) == {"markers": 1}
    assert await rig.versions() == []


async def test_lone_markers_go_where_a_rule_says_so(rig: Rig) -> None:
    await rig.objects.set_versioning(V, "on")
    await rig.put("hides")
    await rig.objects.delete(V, b"hides")
    await rig.objects.delete(V, b"alone")
    await rig.objects.delete(V, b"other")
    await rig.rules(Rule(id="r", prefix="alone", lone_markers=True))
    assert await rig.sweep() == {"markers": 1}
    await rig.rules(Rule(id="r", lone_markers=True))
    assert await rig.sweep(days=1) == {"markers": 1}
    assert (await rig.versions())[0] == ("hides", "marker")


async def test_the_newest_noncurrent_versions_stay(rig: Rig) -> None:
    await rig.objects.set_versioning(V, "on")
    await rig.rules(Rule(id="r", noncurrent_days=1, noncurrent_keep=2))
    made = [await rig.put("k") for _ in range(6)]
    assert await rig.sweep(days=1) == {"noncurrent": 3}
    assert await rig.versions() == [("k", made[5]), ("k", made[4]), ("k", made[3])]


async def test_noncurrent_days_count_from_the_successor(rig: Rig) -> None:
    await rig.objects.set_versioning(V, "on")
    await rig.rules(Rule(id="r", noncurrent_days=3))
    await rig.put("k")
    rig.now_ns += 10 * DAY_NS
    current = await rig.put("k")
    assert await rig.sweep(days=2) == {}
    assert await rig.sweep(days=1) == {"noncurrent": 1}
    assert await rig.versions() == [("k", current)]


async def test_uploads_that_nobody_finished_are_given_up(rig: Rig) -> None:
    await rig.rules(Rule(id="r", prefix="a", upload_days=2))
    for key in (b"a1", b"a2", b"b"):
        await rig.objects.create_upload(V, key, Attributes())
    assert await rig.sweep(days=1) == {}
    assert await rig.sweep(days=1) == {"uploads": 2}
    uploads, _, _ = await rig.objects.list_uploads(V)
    assert [each.key for each in uploads] == [b"b"]


async def test_what_is_locked_stays(rig: Rig) -> None:
    await rig.objects.create_volume("l", owner=ALICE, locked=True)
    document = lifecycle.pack(Lifecycle((Rule(id="r", days=1, noncurrent_days=1),)))
    await rig.objects.set_document("l", lifecycle.DOCUMENT, document)
    said = Attributes(legal_hold=True)
    made = await rig.objects.put("l", b"k", b"x", said, Digests(etag="e"))
    assert await rig.sweep(days=1) == {"expired": 1}
    assert await rig.sweep(days=1) == {"retained": 1}
    assert (await rig.objects.head("l", b"k", version=made.version)).size == 1


async def test_classes_change_as_days_go_by(rig: Rig) -> None:
    moves = (Move("STANDARD_IA", 30), Move("GLACIER", 60))
    await rig.rules(Rule(id="r", moves=moves), small=("GLACIER",))
    await rig.put("small")
    writer = await rig.objects.writer(V, b"large", Attributes(), size=200_000)
    await writer.write(b"x" * 200_000)
    await writer.commit(Digests(etag="e"))

    assert await rig.sweep(days=29) == {}
    assert await rig.sweep(days=1) == {"moved": 1}
    listed = {each.key: each.storage_class for each in (await rig.objects.list(V)).entries}
    assert listed == {b"small": "STANDARD", b"large": "STANDARD_IA"}
    assert await rig.sweep(days=30) == {"moved": 2}
    info = await rig.objects.head(V, b"large")
    assert (info.storage_class, info.attributes.storage_class) == ("GLACIER", "GLACIER")
    assert await rig.sweep(days=1) == {}


async def test_a_class_with_a_policy_moves_the_bytes_or_leaves_them_and_tells(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = rig.stage.namespace
    namespace.classes = {"STANDARD_IA": DataPolicy(verify="scrub")}
    await rig.rules(Rule(id="r", moves=(Move("STANDARD_IA", 1),)))
    for key in (b"one", b"two"):
        writer = await rig.objects.writer(V, key, Attributes(), size=200_000)
        await writer.write(key * 60_000 + bytes(20_000))
        await writer.commit(Digests(etag="e"))
    finish = ChunkWriter.finish
    failed: list[bool] = []

    async def full(self: ChunkWriter, **how: bool) -> Any:
        if not failed:
            failed.append(True)
            raise NoSpace("full")
        return await finish(self, **how)

    monkeypatch.setattr(ChunkWriter, "finish", full)
    assert await rig.sweep(days=1) == {"moved": 1, "not_moved": 1}
    rig.now_ns += 1
    assert await rig.sweep(days=1) == {"moved": 1}

    for key in (b"one", b"two"):
        reader = await rig.objects.open(V, key)
        assert reader.info.storage_class == "STANDARD_IA"
        assert bytes(await reader.read(0, 1 << 20)) == key * 60_000 + bytes(20_000)
        reader.close()
    assert await audit(namespace, V) == []


async def test_noncurrent_versions_change_class_too(rig: Rig) -> None:
    await rig.objects.set_versioning(V, "on")
    rule = Rule(id="r", larger_than=0, noncurrent_moves=(Move("GLACIER", 1, keep=1),))
    await rig.rules(rule)
    made = [await rig.put("k") for _ in range(4)]
    assert await rig.sweep(days=1) == {"moved": 2}
    classes = [(await rig.objects.head(V, b"k", version=each)).storage_class for each in made]
    assert classes == ["GLACIER", "GLACIER", "STANDARD", "STANDARD"]


async def test_a_sweep_of_many_pages_goes_on_after_a_restart(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "PAGE", 7)
    await rig.objects.set_versioning(V, "on")
    await rig.rules(Rule(id="r", prefix="k", noncurrent_days=1, noncurrent_keep=1))
    for n in range(20):
        for _ in range(n % 9 + 1):
            await rig.put(f"k{n:02}")
    await rig.put("other")
    rig.now_ns += DAY_NS
    context = ServiceContext(rig.stage.namespace, rig.stage.containers, Metrics())
    removed = passes = 0
    while True:
        report = await rig.service.work(context)
        removed += report.counts.get("noncurrent", 0)
        passes += 1
        rig.restart()
        if report.idle:
            break

    assert passes > 10
    assert removed == sum(max(0, n % 9 - 1) for n in range(20))
    found = await rig.versions()
    for n in range(20):
        assert sum(key == f"k{n:02}" for key, _ in found) == min(2, n % 9 + 1)


async def test_sweeps_begin_in_their_interval(rig: Rig) -> None:
    await rig.rules(Rule(id="r", at_s=0))
    await rig.put("k")
    assert await rig.sweep() == {"expired": 1}
    await rig.put("k")
    assert await rig.sweep() == {}
    rig.restart()
    assert await rig.sweep() == {}
    rig.now_ns += 3600 * 10**9
    assert await rig.sweep() == {"expired": 1}


async def test_a_short_day_is_short_everywhere(rig: Rig) -> None:
    rig.config = Config(day=Duration(10))
    rig.restart()
    await rig.rules(Rule(id="r", days=2))
    rig.now_ns += 5 * 10**9
    await rig.put("k")
    rig.now_ns += 19 * 10**9
    assert await rig.sweep() == {}
    rig.now_ns += 2 * 10**9
    assert await rig.sweep() == {"expired": 1}


async def test_rules_that_cannot_be_read_do_nothing(rig: Rig) -> None:
    await rig.objects.set_document(V, lifecycle.DOCUMENT, b"{")
    await rig.put("k")
    assert await rig.sweep(days=1000) == {}
    assert await rig.keys() == ["k"]
