"""What policies name is made when it is due and goes when it has had its time, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
import pytest
from warp_conformance.reference.node import Stage
from warp_core import snapshot_policy
from warp_core.config import Duration
from warp_core.errors import Busy, InvalidArgument
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.metrics import Metrics
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.snapshots import Snapshots
from warp_core.snapshot_policy import HOUR_NS, Policy
from warp_core.views.objects import Attributes, Digests
from warp_snapshots import Config, Declared, SnapshotPolicies

T0 = 1_800_000_000 * 10**9 // (24 * HOUR_NS) * 24 * HOUR_NS  # a midnight
V = "kept"


@dataclass
class Rig:
    stage: Stage
    now_ns: int = T0
    config: Config = field(default_factory=Config)
    service: SnapshotPolicies = field(init=False)

    def __post_init__(self) -> None:
        self.stage.namespace.clock_ns = lambda: self.now_ns
        self.objects = NamespaceObjects(self.stage.namespace)
        self.snapshots = Snapshots(self.stage.namespace, self.stage.inodes)
        self.restart()

    def restart(self, **settings: object) -> None:
        self.config = msgspec.structs.replace(self.config, **settings)
        self.service = SnapshotPolicies(self.config)

    async def policy(self, **counts: int) -> None:
        content = snapshot_policy.pack(Policy(**counts))  # type: ignore[arg-type]
        await self.stage.namespace.volumes.set_document(V, snapshot_policy.DOCUMENT, content)

    async def put(self, key: str, data: bytes) -> None:
        await self.objects.put(V, key.encode(), data, Attributes(), Digests(etag="e"))

    async def work(self, *, hours: float = 0) -> dict[str, int]:
        """Let hours go by, and work until idle."""
        self.now_ns += int(hours * HOUR_NS)
        context = ServiceContext(self.stage.namespace, self.stage.containers, Metrics())
        total: dict[str, int] = {}
        for _ in range(200):
            report = await self.service.work(context)
            for name, count in report.counts.items():
                total[name] = total.get(name, 0) + count
            if report.idle:
                return total
        raise AssertionError("never idle")

    async def names(self) -> list[str]:
        return [each.name for each in await self.snapshots.all(V)]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Stage() as stage:
        made = Rig(stage)
        await made.objects.create_volume(V, owner=Principal("account:alice"))
        yield made


async def test_a_volume_without_a_policy_is_left_alone(rig: Rig) -> None:
    assert await rig.work() == {}
    assert await rig.names() == []


async def test_each_hour_has_one_and_the_oldest_goes(rig: Rig) -> None:
    await rig.policy(hourly=3)
    assert await rig.work() == {"made": 1}
    assert await rig.work(hours=0.9) == {}
    for _ in range(2):
        assert await rig.work(hours=1) == {"made": 1}

    assert await rig.work(hours=1) == {"made": 1, "pruned": 1}
    names = await rig.names()
    assert len(names) == 3
    assert names == sorted(names)
    assert all(name.startswith("auto-") for name in names)


async def test_a_stop_of_days_is_made_up_for_once(rig: Rig) -> None:
    await rig.policy(hourly=24, daily=7)
    await rig.work()
    rig.restart()

    assert await rig.work(hours=24 * 20) == {"made": 1}
    assert len(await rig.names()) == 2
    assert (await rig.snapshots.all(V))[-1].kinds == ("hourly", "daily")


async def test_a_restart_goes_on_also_where_the_note_of_the_last_one_is_missing(rig: Rig) -> None:
    await rig.policy(hourly=5)
    await rig.snapshots.create(V, "auto-1", kinds=("hourly",))  # and then it crashed
    rig.restart()

    assert await rig.work(hours=0.5) == {}
    rig.restart()
    assert await rig.work(hours=1) == {"made": 1}
    rig.restart()
    assert await rig.work() == {}


async def test_what_was_removed_by_hand_is_not_made_again_in_its_hour(rig: Rig) -> None:
    await rig.policy(hourly=5)
    await rig.work()
    [name] = await rig.names()

    await rig.snapshots.delete(V, name)
    rig.restart()

    assert await rig.work(hours=0.5) == {}
    assert await rig.work(hours=0.6) == {"made": 1}


async def test_manual_held_and_cloned_ones_stay(rig: Rig) -> None:
    await rig.policy(hourly=1)
    await rig.snapshots.create(V, "auto-mine")
    await rig.work()
    held = (await rig.names())[-1]
    await rig.snapshots.hold(V, held, "backup")
    await rig.work(hours=1)
    cloned = (await rig.names())[-1]
    await rig.snapshots.clone(V, "clone", snapshot=cloned, owner="me")
    await rig.work(hours=1)

    assert await rig.work(hours=1) == {"made": 1, "pruned": 1}
    assert (await rig.names())[:3] == ["auto-mine", held, cloned]
    with pytest.raises(Busy, match="held as backup"):
        await rig.snapshots.delete(V, held)
    await rig.snapshots.release(V, held, "backup")
    assert await rig.work() == {"pruned": 1}
    assert held not in await rig.names()


async def test_pruning_frees_what_only_the_pruned_one_held(rig: Rig) -> None:
    await rig.policy(hourly=1)
    for number in range(60):
        await rig.put(f"k{number}", b"old" * 1000)
    await rig.work()
    for number in range(60):
        await rig.put(f"k{number}", b"new" * 1000)
    before = await rig.stage.namespace.usage(V)

    assert await rig.work(hours=1) == {"made": 1, "pruned": 1}
    after = await rig.stage.namespace.usage(V)
    assert before.snapshot_bytes == 180_000
    assert after.snapshot_bytes == 0
    assert await audit(rig.stage.namespace, V) == []


async def test_declared_policies_are_taken_on_and_given_up_with_the_file(rig: Rig) -> None:
    await rig.policy(daily=3)
    rig.restart(volume=(Declared(name=V, hourly=2), Declared(name="not there", daily=1)))
    volumes = rig.stage.namespace.volumes

    assert await rig.work() == {"made": 1}
    documents = await volumes.documents(await volumes.get(V))
    assert snapshot_policy.unpack(documents[snapshot_policy.DOCUMENT]) == Policy(
        hourly=2, declared=True
    )
    rig.restart(volume=())
    assert await rig.work(hours=1) == {}
    assert snapshot_policy.DOCUMENT not in await volumes.documents(await volumes.get(V))
    assert len(await rig.names()) == 1


async def test_a_damaged_policy_harms_no_other_volume(rig: Rig) -> None:
    await rig.policy(hourly=1)
    other = "other"
    await rig.objects.create_volume(other, owner=Principal("account:alice"))
    await rig.stage.namespace.volumes.set_document(other, snapshot_policy.DOCUMENT, b"{")

    assert await rig.work() == {"made": 1}


async def test_short_hours_are_for_tests(rig: Rig) -> None:
    rig.restart(hour=Duration(2.0))
    await rig.policy(hourly=2, daily=1)
    for _ in range(26):
        rig.now_ns += 2 * 10**9
        await rig.work()

    assert rig.service.interval_s < 1
    kinds = [each.kinds for each in await rig.snapshots.all(V)]
    assert kinds == [("hourly", "daily"), ("hourly",), ("hourly",)]


def test_declarations_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="keeps something"):
        Declared(name="v")
    with pytest.raises(InvalidArgument, match="twice"):
        Config(volume=(Declared(name="v", daily=1), Declared(name="v", hourly=1)))
