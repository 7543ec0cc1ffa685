"""Layers: the same interface outside and in, faults as scripted and repeatable, counts that are true."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_core.contexts import MetaContext, StoreContext
from warp_core.errors import (
    Ambiguous,
    Conflict,
    InvalidArgument,
    NoSpace,
    NotFound,
    StoreFailed,
    Unavailable,
)
from warp_core.interfaces.consistency import Commit, KeyCheck, MetaStore, Write
from warp_core.interfaces.stores import BlobStore
from warp_core.layers.faulty import FaultyMeta, FaultyStore, Rule, Script
from warp_core.layers.forward import MetaLayer, StoreLayer
from warp_core.layers.metered import MeteredMeta, MeteredStore
from warp_core.layers.slow import Pace, SlowMeta, SlowStore
from warp_core.metrics import Metrics, snapshot
from warp_core.plugins import Plugins


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    entry = Plugins().registries["stores"].get("memory")
    async with entry.build(entry.config(), StoreContext(tmp_path, Metrics())) as inner:
        yield inner


@pytest.fixture
async def meta(tmp_path: Path) -> AsyncIterator[MetaStore]:
    entry = Plugins().registries["consistency"].get("memory")
    context = MetaContext("a", tmp_path, (), None, Metrics(), time.monotonic)
    async with entry.build(entry.config(), context) as inner:
        yield inner


@pytest.mark.parametrize(("layer", "interface"), [(StoreLayer, BlobStore), (MetaLayer, MetaStore)])
def test_a_layer_forwards_every_call_of_its_interface(layer: type, interface: type) -> None:
    public = {name for name, member in vars(interface).items() if inspect.isfunction(member)}

    attributes = {name for name in interface.__annotations__ if not name.startswith("_")}

    assert public - {"__init__"} | attributes <= set(vars(layer))
    for name in public:
        assert inspect.signature(getattr(layer, name)) == inspect.signature(
            getattr(interface, name)
        )


async def test_a_plain_layer_changes_nothing(store: BlobStore) -> None:
    layer = StoreLayer(store)
    await layer.put("a/b", [b"one", b"two"])
    await layer.create("grown", reserve=4096)
    await layer.write("grown", offset=0, buffers=[b"xy"], sync=True)
    await layer.sync("grown")
    await layer.seal("grown", size=2)
    buffer = bytearray(3)

    assert await layer.read("a/b", offset=1, length=9) == b"netwo"
    assert await layer.read_into("a/b", offset=0, buffer=memoryview(buffer)) == 3
    assert bytes(buffer) == b"one"
    assert (await layer.stat("grown")).size == 2
    assert [blob.name for blob in await layer.list()] == ["a/b", "grown"]
    assert layer.capabilities is store.capabilities
    assert (await layer.space()).total > 0
    await layer.delete("a/b")
    with pytest.raises(NotFound):
        await layer.stat("a/b")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("write:torn@3", Rule("write", "torn", 3, 3)),
        ("sync:error@10-", Rule("sync", "error", 10, None)),
        ("*:delay@2-4", Rule("*", "delay", 2, 4)),
        ("read:flip%0.01 journal/*", Rule("read", "flip", 1, None, 0.01, "journal/*")),
    ],
)
def test_rules_are_written_in_one_line(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule


@pytest.mark.parametrize(
    "text", ["", "write", "write:explode", "write:torn@x", "Write:torn", "a:torn%"]
)
def test_other_lines_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="CALL:ACTION"):
        Rule.parse(text)


async def test_an_error_leaves_nothing_done(store: BlobStore) -> None:
    faulty = FaultyStore(store, Script.parse(["put:error@2", "put:full@3"]))
    await faulty.put("a", [b"1"])

    with pytest.raises(StoreFailed):
        await faulty.put("b", [b"2"])
    with pytest.raises(NoSpace):
        await faulty.put("c", [b"3"])
    await faulty.put("d", [b"4"])
    assert [blob.name for blob in await store.list()] == ["a", "d"]
    assert faulty.script.fired == [("put", "b", "error"), ("put", "c", "full")]


async def test_lost_late_torn_and_cut_writes(store: BlobStore) -> None:
    await store.create("blob", reserve=4096)
    script = Script.parse(["write:lost@1", "write:late@2", "write:torn@3", "write:cut@4"], seed=3)
    faulty = FaultyStore(store, script)

    await faulty.write("blob", offset=0, buffers=[b"lost"])
    assert await store.read("blob", offset=0, length=4) == bytes(4)
    with pytest.raises(StoreFailed):
        await faulty.write("blob", offset=0, buffers=[b"late"])
    assert await store.read("blob", offset=0, length=4) == b"late"
    for _ in range(2):
        data = b"x" * 100
        try:
            await faulty.write("blob", offset=100, buffers=[data])
        except StoreFailed:
            torn = await store.read("blob", offset=100, length=100)
            assert torn.count(b"x") < 100
    cut = await store.read("blob", offset=100, length=100)
    assert cut.count(b"x") < 100
    await faulty.write("blob", offset=100, buffers=[data])
    assert await store.read("blob", offset=100, length=100) == data


async def test_a_flipped_bit_is_exactly_one_and_never_served_from_cache(store: BlobStore) -> None:
    await store.put("a", [bytes(64)])
    faulty = FaultyStore(store, Script.parse(["read:flip"]))

    assert faulty.read_now("a", offset=0, length=64) is None
    data = await faulty.read("a", offset=0, length=64)
    assert sum(byte.bit_count() for byte in data) == 1
    faulty.script.enabled = False
    assert await faulty.read("a", offset=0, length=64) == bytes(64)


async def test_chance_comes_from_the_seed(store: BlobStore) -> None:
    async def run(seed: int) -> list[bool]:
        faulty = FaultyStore(store, Script.parse(["stat:error%0.5"], seed))
        await store.put("a", [b""])
        answers = []
        for _ in range(64):
            try:
                await faulty.stat("a")
                answers.append(True)
            except StoreFailed:
                answers.append(False)
        return answers

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)
    assert 10 < sum(await run(1)) < 54


async def test_engine_faults(meta: MetaStore) -> None:
    script = Script.parse(["commit:conflict@1", "commit:error@2", "commit:late@3", "commit:lost@4"])
    faulty = FaultyMeta(meta, script)
    put = Commit(writes=[Write(b"k", b"v")])

    with pytest.raises(Conflict):
        await faulty.commit(put)
    with pytest.raises(Unavailable):
        await faulty.commit(put)
    assert await faulty.view().get(b"k") is None
    with pytest.raises(Unavailable):
        await faulty.commit(put)
    assert await faulty.view().get(b"k") is not None
    await faulty.commit(Commit(writes=[Write(b"lost", b"v")]))
    assert await faulty.view().get(b"lost") is None
    version = await faulty.commit(Commit(checks=[KeyCheck(b"lost", 0)], writes=[Write(b"l", b"")]))
    assert [row.version for row in await faulty.view().scan(b"l", b"m")] == [version]


async def test_an_ambiguous_commit_is_done_or_not(meta: MetaStore) -> None:
    faulty = FaultyMeta(meta, Script.parse(["commit:ambiguous"], seed=1))
    for number in range(20):
        with pytest.raises(Ambiguous):
            await faulty.commit(Commit(writes=[Write(b"k%d" % number, b"")]))

    assert 0 < len(await meta.view().scan(b"k", b"l")) < 20


async def test_slow_waits_for_latency_and_bytes(store: BlobStore, meta: MetaStore) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    slow = SlowStore(store, Pace(0.01, bytes_per_s=1000), sleep=sleep)
    await slow.put("a", [bytes(500)])
    await slow.stat("a")
    await SlowMeta(meta, Pace(0.02), sleep=sleep).view().get(b"x")

    assert waits == [0.51, 0.01, 0.02]
    assert slow.read_now("a", offset=0, length=1) is None


async def test_metered_counts_calls_bytes_and_failures(store: BlobStore, meta: MetaStore) -> None:
    metrics = Metrics()
    metered = MeteredStore(store, metrics, "d0", clock=iter(range(100)).__next__)
    await metered.put("a", [bytes(10)])
    await metered.read("a", offset=0, length=4)
    metered.read_now("a", offset=0, length=4)
    with pytest.raises(NotFound):
        await metered.stat("none")
    await MeteredMeta(meta, metrics).commit(Commit(writes=[Write(b"k", b"v")]))

    numbers = snapshot(metrics)
    assert numbers['warp_store_call_seconds_count{store="d0",call="put"}'] == 1
    assert numbers['warp_store_call_seconds_sum{store="d0",call="put"}'] == 1
    assert numbers['warp_store_bytes_total{store="d0",call="put"}'] == 10
    assert numbers['warp_store_failures_total{store="d0",call="stat",error="NotFound"}'] == 1
    assert numbers['warp_meta_call_seconds_count{call="commit"}'] == 1
    found = numbers['warp_store_reads_now_total{store="d0",found="yes"}']
    assert found + numbers['warp_store_reads_now_total{store="d0",found="no"}'] == 1
