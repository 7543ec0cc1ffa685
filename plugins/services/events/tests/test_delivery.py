"""What rules name arrives, at least once and in order for each key, whatever stops in between."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from warp_conformance.reference.node import Stage
from warp_core import notifications
from warp_core.config.types import Duration
from warp_core.errors import Unavailable
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import ServiceContext
from warp_core.interfaces.targets import Message, Target, TargetCapabilities, TargetHealth
from warp_core.metrics import Metrics
from warp_core.namespace import feed
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.upkeep import Upkeep
from warp_core.namespace.volumes import DELETED
from warp_core.notifications import Notifications, Rule
from warp_core.views.objects import Attributes, Digests
from warp_core.views.origin import Origin
from warp_events import Config
from warp_events.service import Events

V = "photos"
ALICE = Principal("account:alice")
FAST = Config(interval=Duration(0.01), retry=Duration(0.005), retry_max=Duration(0.02))
HOW = Origin("account:bob", "10.0.0.1", "R1")


class Sink(Target):
    """Keeps records; takes none while it is `away`, and none of the keys in `refused`."""

    kind = "sink"
    health = TargetHealth()

    def __init__(self, name: str = "t", *, at_once: int = 4, batch_max: int = 1) -> None:
        self.name = name
        self.capabilities = TargetCapabilities(at_once=at_once, batch_max=batch_max)
        self.away = False
        self.refused: set[str] = set()
        self.attempts = 0
        self.messages: list[Message] = []
        self.records: list[dict[str, Any]] = []
        self.busy: defaultdict[str, int] = defaultdict(int)
        self.side_by_side = 0
        self.collided = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, message: Message) -> None:
        self.attempts += 1
        self.busy[message.key] += 1
        self.collided = self.collided or self.busy[message.key] > 1
        self.side_by_side = max(self.side_by_side, sum(self.busy.values()))
        try:
            await asyncio.sleep(0)
            if self.away or message.key in self.refused:
                raise Unavailable("away")
        finally:
            self.busy[message.key] -= 1
        self.messages.append(message)
        self.records += json.loads(message.body)["Records"]

    def told(self) -> list[str]:
        return [each["s3"]["object"]["key"] for each in self.records]

    def names(self) -> list[str]:
        return [each["eventName"] for each in self.records]


def rule(target: str = "t", *events: str, **more: Any) -> Rule:
    named = events or ("s3:ObjectCreated:*", "s3:ObjectRemoved:*")
    more.setdefault("id", f"to {target}")
    return Rule(arn=f"arn:aws:sqs:::{target}", target=target, shape="queue", events=named, **more)


@dataclass
class Rig:
    stage: Stage
    sinks: dict[str, Sink] = field(default_factory=lambda: {"t": Sink()})
    metrics: Metrics = field(default_factory=Metrics)
    config: Config = FAST
    service: Events | None = None
    written: int = 1000

    def __post_init__(self) -> None:
        self.objects = NamespaceObjects(self.stage.namespace)

    async def start(self) -> None:
        self.service = Events(self.config)
        await self.service.__aenter__()
        await self.look()

    async def stop(self) -> None:
        service, self.service = self.service, None
        if service is not None:
            await service.__aexit__(None, None, None)

    async def look(self) -> dict[str, int]:
        assert self.service is not None
        context = ServiceContext(
            self.stage.namespace, self.stage.containers, self.metrics, self.sinks
        )
        return (await self.service.work(context)).counts

    async def say(self, *rules: Rule, since_ns: int | None = None) -> None:
        """Replace the rules, as S3 does: with a date for each target, here a number that grows."""
        self.written += 1
        since = self.written if since_ns is None else since_ns
        dated = tuple(
            Rule(**{**_fields(each), "since_ns": each.since_ns or since}) for each in rules
        )
        document = notifications.pack(Notifications(dated, self.written, V)) if rules else None
        await self.objects.set_document(V, notifications.DOCUMENT, document)

    async def put(self, key: str, data: bytes = b"x", origin: Origin | None = HOW) -> None:
        await self.objects.put(
            V,
            key.encode(),
            data,
            Attributes(owner="account:alice"),
            Digests(etag="e"),
            origin=origin,
        )

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not reached():
                await asyncio.sleep(0.002)


async def deleted(rig: Rig) -> list[str]:
    volumes = await rig.stage.namespace.volumes.all(deleted=True)
    return [each.row.name for each in volumes if each.row.name.startswith(DELETED)]


def _fields(each: Rule) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__struct_fields__}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Stage() as stage:
        made = Rig(stage)
        await made.objects.create_volume(V, owner=ALICE)
        yield made
        await made.stop()


@pytest.fixture
def sink(rig: Rig) -> Sink:
    return rig.sinks["t"]


async def test_every_change_has_its_name(rig: Rig, sink: Sink) -> None:
    everything = (
        *("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:ObjectTagging:*", "s3:ObjectAcl:Put"),
        *("s3:LifecycleExpiration:*", "s3:LifecycleTransition"),
    )
    await rig.say(rule("t", *everything))
    await rig.start()
    objects = rig.objects
    await rig.put("a", b"12")
    await rig.put("b", origin=Origin(via="post"))
    await objects.copy(V, b"a", V, b"c", origin=HOW)
    await objects.set_tags(V, b"c", {"k": "v"})
    await objects.set_tags(V, b"c", {})
    await objects.set_acl(V, b"c", b"{}")
    await objects.delete(V, b"c")
    await objects.delete(V, b"b", origin=Origin(via="lifecycle"))
    await objects.set_versioning(V, "on")
    gone = await objects.delete(V, b"a")
    await objects.delete(V, b"a", version=gone.version)
    names = [
        *("ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:Copy", "ObjectTagging:Put"),
        *("ObjectTagging:Delete", "ObjectAcl:Put", "ObjectRemoved:Delete"),
        *("LifecycleExpiration:Delete", "ObjectRemoved:DeleteMarkerCreated"),
        "ObjectRemoved:Delete",
    ]
    await rig.until(lambda: len(sink.records) >= len(names))

    in_order = sorted(sink.records, key=lambda each: each["s3"]["object"]["sequencer"])
    assert [each["eventName"] for each in in_order] == names
    first = in_order[0]
    assert first["eventVersion"] == "2.1"
    assert first["eventSource"] == "aws:s3"
    assert first["userIdentity"] == {"principalId": "account:bob"}
    assert first["requestParameters"] == {"sourceIPAddress": "10.0.0.1"}
    assert first["responseElements"]["x-amz-request-id"] == "R1"
    assert first["s3"]["configurationId"] == "to t"
    assert first["s3"]["bucket"] == {
        "name": V,
        "ownerIdentity": {"principalId": "account:alice"},
        "arn": f"arn:aws:s3:::{V}",
    }
    assert first["s3"]["object"].items() >= {"key": "a", "size": 2, "eTag": "e"}.items()
    assert [each["eventVersion"] for each in in_order if "Tagging" in each["eventName"]] == [
        "2.3"
    ] * 2
    assert in_order[-2]["s3"]["object"]["versionId"] == gone.version
    assert "size" not in in_order[-1]["s3"]["object"]


async def test_filters_choose_by_the_whole_key(rig: Rig, sink: Sink) -> None:
    await rig.say(
        rule("t", "s3:ObjectCreated:Put", prefix="in/", suffix=".jpg", id="jpg"),
        rule("t", "s3:ObjectRemoved:*", id="gone"),
    )
    await rig.start()
    for key in ("in/a.jpg", "in/a.png", "out/a.jpg", "in/ü b.jpg"):
        await rig.put(key)
    await rig.objects.delete(V, b"in/a.png")
    await rig.until(lambda: len(sink.records) >= 3)

    told = {(each["s3"]["configurationId"], each["s3"]["object"]["key"]) for each in sink.records}
    assert told == {("jpg", "in/a.jpg"), ("jpg", "in/%C3%BC+b.jpg"), ("gone", "in/a.png")}


async def test_what_was_before_the_rules_is_not_told(rig: Rig, sink: Sink) -> None:
    await rig.put("before")
    await rig.say(rule())
    await rig.put("after")
    await rig.start()
    await rig.until(lambda: bool(sink.records))
    await rig.put("last")
    await rig.until(lambda: "last" in sink.told())

    assert sink.told() == ["after", "last"]


async def test_rules_that_are_replaced_before_they_were_seen_lose_nothing(
    rig: Rig, sink: Sink
) -> None:
    now_ns = rig.stage.namespace.clock_ns()
    rig.sinks["u"] = Sink("u")
    rig.written = now_ns
    await rig.say(rule(since_ns=now_ns))
    await rig.put("between")
    rig.written = rig.stage.namespace.clock_ns()
    await rig.say(rule(since_ns=now_ns), rule("u", "s3:ObjectTagging:*"))
    await rig.put("after")
    await rig.start()
    await rig.until(lambda: "after" in sink.told())

    assert sorted(sink.told()) == ["after", "between"]


async def test_messages_about_one_key_go_one_after_another(rig: Rig, sink: Sink) -> None:
    await rig.say(rule())
    for number in range(120):
        await rig.put(f"k{number % 7}", b"x" * number)
    await rig.start()
    await rig.until(lambda: len(sink.records) >= 120)

    assert not sink.collided
    assert sink.side_by_side > 1
    for key in range(7):
        told = [each for each in sink.records if each["s3"]["object"]["key"] == f"k{key}"]
        sequence = [each["s3"]["object"]["sequencer"] for each in told]
        assert sequence == sorted(sequence)
        assert [each["s3"]["object"]["size"] for each in told] == list(range(key, 120, 7))


async def test_nothing_is_lost_or_sent_again_where_it_stops_in_between(
    rig: Rig, sink: Sink
) -> None:
    await rig.say(rule())
    for number in range(30):
        await rig.put(f"a{number}")
    await rig.start()
    await rig.until(lambda: len(sink.records) >= 30)
    await rig.put("kept")
    await rig.until(lambda: len(sink.records) >= 31)
    for _ in range(50):  # the cursor behind it is kept
        await asyncio.sleep(0.002)
    await rig.stop()
    for number in range(30):
        await rig.put(f"b{number}")
    await rig.start()
    await rig.until(lambda: len(sink.records) >= 61)

    assert len(set(sink.told())) == len(sink.records) == 61
    assert len({each.id for each in sink.messages}) == 61


async def test_what_is_stopped_in_the_middle_comes_again_with_its_id(rig: Rig, sink: Sink) -> None:
    await rig.say(rule())
    for number in range(40):
        await rig.put(f"k{number}")
    await rig.start()
    await rig.until(lambda: len(sink.records) >= 5)
    await rig.stop()
    await rig.start()
    await rig.until(lambda: len(set(sink.told())) >= 40)

    ids = {each.key: each.id for each in sink.messages}
    assert all(each.id == ids[each.key] for each in sink.messages)


async def test_a_target_that_is_away_gets_everything_later(rig: Rig, sink: Sink) -> None:
    sink.away = True
    await rig.say(rule())
    await rig.start()
    for number in range(300):
        await rig.put(f"k{number % 10}", b"x" * number)
    await rig.until(lambda: sink.attempts > 30)
    assert sink.records == []
    sink.away = False
    await rig.until(lambda: len(sink.records) >= 300)

    sizes: dict[str, list[int]] = defaultdict(list)
    for each in sink.records:
        sizes[each["s3"]["object"]["key"]].append(each["s3"]["object"]["size"])
    assert {key: list(range(int(key[1:]), 300, 10)) for key in sizes} == sizes


async def test_one_key_that_is_refused_holds_up_no_other_of_its_page_twice(
    rig: Rig, sink: Sink
) -> None:
    sink.refused = {"k3"}
    await rig.say(rule())
    for number in range(20):
        await rig.put(f"k{number}")
    await rig.start()
    await rig.until(lambda: sink.attempts > 40)
    before = list(sink.told())
    sink.refused = set()
    await rig.until(lambda: len(set(sink.told())) == 20)

    assert "k3" not in before
    assert len(sink.told()) == 20, "what was taken is not sent again while the service runs"


async def test_one_target_does_not_wait_for_another(rig: Rig, sink: Sink) -> None:
    other = rig.sinks["u"] = Sink("u")
    sink.away = True
    await rig.say(rule("t", "s3:ObjectCreated:*"), rule("u", "s3:ObjectRemoved:*"))
    await rig.start()
    await rig.put("a")
    await rig.objects.delete(V, b"a")
    await rig.until(lambda: bool(other.records))

    assert sink.records == []


async def test_events_share_messages_as_far_as_the_target_likes(rig: Rig) -> None:
    sink = rig.sinks["t"] = Sink(at_once=1, batch_max=10)
    await rig.say(rule())
    for number in range(25):
        await rig.put(f"k{number}")
    await rig.start()
    await rig.until(lambda: len(sink.records) >= 25)

    assert [each.count for each in sink.messages] == [10, 10, 5]
    assert sink.told() == [f"k{number}" for number in range(25)]


async def test_a_target_that_fell_behind_the_feed_goes_on_and_it_is_counted(
    rig: Rig, sink: Sink
) -> None:
    sink.away = True
    await rig.say(rule())
    await rig.start()
    for number in range(100):
        await rig.put(f"k{number}")
    await rig.until(lambda: sink.attempts > 5)
    last = (await feed.read(rig.stage.namespace, V, feed.START)).events[-1]
    while await feed.trim(rig.stage.namespace, V, before_ns=last.time_ns):
        pass
    await rig.put("later")
    sink.away = False
    await rig.until(lambda: "later" in sink.told())

    assert "k0" not in sink.told()
    gaps = rig.metrics.counters("warp_events_gaps_total", "", labels=("target",))
    assert gaps.labels("t").value == 1


async def test_a_filter_that_changes_counts_from_the_next_page_on(rig: Rig, sink: Sink) -> None:
    await rig.say(rule(since_ns=7))
    await rig.start()
    await rig.put("a")
    await rig.until(lambda: sink.told() == ["a"])
    await rig.say(rule(prefix="in/", since_ns=7))
    await rig.look()
    await rig.put("b")
    await rig.put("in/c")
    await rig.until(lambda: "in/c" in sink.told())

    assert sink.told() == ["a", "in/c"]


async def test_a_target_that_is_named_again_begins_anew(rig: Rig, sink: Sink) -> None:
    await rig.say(rule())
    await rig.start()
    await rig.put("a")
    await rig.until(lambda: sink.told() == ["a"])
    await rig.say()
    assert (await rig.look())["pumps_ended"] == 1
    await rig.put("unheard")
    await rig.say(rule())
    assert (await rig.look())["pumps_begun"] == 1
    await rig.put("b")
    await rig.until(lambda: "b" in sink.told())

    assert sink.told() == ["a", "b"]


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_volume_that_goes_tells_its_last_events_first(
    rig: Rig, sink: Sink, restarted: bool
) -> None:
    namespace = rig.stage.namespace
    sink.away = True
    await rig.say(rule())
    await rig.start()
    await rig.put("a")
    await rig.objects.delete(V, b"a")
    await rig.objects.delete_volume(V)
    await rig.objects.create_volume(V, owner=ALICE)  # of the same name, and another one
    await rig.put("of another volume")
    if restarted:
        await rig.stop()
        await rig.start()
    for _ in range(3):
        await rig.look()
        await Upkeep(namespace).work()
    assert len(await deleted(rig)) == 1
    sink.away = False
    await rig.until(lambda: len(sink.records) >= 2)
    async with asyncio.timeout(20):
        while await deleted(rig):
            await rig.look()
            await Upkeep(namespace).work()
            await asyncio.sleep(0.002)  # pumps go on: in memory nothing else waits for anything

    assert sink.names() == ["ObjectCreated:Put", "ObjectRemoved:Delete"]
    assert {each["s3"]["bucket"]["name"] for each in sink.records} == {V}
    assert set(sink.told()) == {"a"}


async def test_a_deleted_volume_whose_target_never_comes_back_goes_in_time(
    rig: Rig, sink: Sink
) -> None:
    namespace = rig.stage.namespace
    sink.away = True
    await rig.say(rule())
    await rig.start()
    await rig.put("a")
    await rig.objects.delete(V, b"a")
    await rig.objects.delete_volume(V)
    async with asyncio.timeout(20):
        while await deleted(rig):
            await Upkeep(namespace, feed_keep_s=-1).work()
            await asyncio.sleep(0.002)
    await rig.look()

    assert sink.records == []


async def test_rules_that_cannot_be_read_harm_nobody(rig: Rig, sink: Sink) -> None:
    await rig.objects.create_volume("broken", owner=ALICE)
    await rig.objects.set_document("broken", notifications.DOCUMENT, b"{")
    await rig.say(rule(), rule("unknown", "s3:ObjectTagging:*"))
    await rig.start()
    await rig.put("a")
    await rig.until(lambda: sink.told() == ["a"])


async def test_an_idle_volume_writes_nothing(rig: Rig, sink: Sink) -> None:
    await rig.say(rule())
    await rig.start()
    await rig.put("a")
    await rig.until(lambda: sink.told() == ["a"])
    for _ in range(30):
        await asyncio.sleep(0.002)
    view = rig.stage.namespace.store.view()
    before = view.version
    view.close()
    for _ in range(50):
        await asyncio.sleep(0.002)
    await rig.look()
    view = rig.stage.namespace.store.view()
    after = view.version
    view.close()

    assert after == before
