"""Nodes of a cluster in one process: a metadata engine in memory, disks in memory, links over loopback; each node can be cut off."""

import asyncio
import hashlib
from contextlib import AsyncExitStack

import pytest
from warp_conformance.reference.transports import StreamTransport
from warp_core.cluster import rows
from warp_core.cluster.keeper import Keeper
from warp_core.cluster.rows import FORMAT, MemberRow
from warp_core.cluster.stores import LocalStore, Peers, Place
from warp_core.cluster.tenure import Parts
from warp_core.config.codecs import build_codec
from warp_core.config.load import load
from warp_core.config.types import Size
from warp_core.errors import Unavailable
from warp_core.interfaces.auth import Principal
from warp_core.layers.forward import MetaLayer
from warp_core.logs import get
from warp_core.metrics import Metrics
from warp_core.node.stack import open_stack
from warp_core.peers import Exporter, Gate, Offer
from warp_core.plugins import Plugins
from warp_core.views.objects import Attributes, Digests
from warp_meta_memory.engine import Memory as MetaMemory
from warp_store_memory import Config, Memory

KEY = b"k" * 32
TTL_S = 1.6
TURN_S = 0.01
DEADLINE_S = 60.0  # of calls: for hangs only


class Engine(MetaLayer):
    """What one node reaches of the engine: nothing once it is cut off."""

    cut = False

    async def _call(self, call, run):
        if self.cut:
            raise Unavailable("no quorum")
        return await run()

    def view(self):
        if self.cut:
            raise Unavailable("no quorum")
        return super().view()


class Turns:
    """Time that passes only while the loop turns: where a busy machine does not run it for a second, nobody loses a lease by that."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    async def run(self):
        while True:
            await asyncio.sleep(TURN_S)
            self.now_s += TURN_S

    async def until(self, moment_s):
        while self.now_s < moment_s:
            await asyncio.sleep(TURN_S)


class Clock:
    """A node's clock, which can be held back: a node that is stopped sees no time pass."""

    def __init__(self, turns):
        self.turns = turns
        self.stopped_s = None

    def __call__(self):
        return self.turns() if self.stopped_s is None else self.stopped_s

    def stop(self):
        self.stopped_s = self.turns()


def disk():
    return Memory(Config(capacity=Size(1 << 30)))


class NodeUnderTest:
    """One node: its own disk, and what it exports to others."""

    def __init__(self, cluster, name, disks):
        self.cluster = cluster
        self.name = name
        self.disks = disks  # export → store; "@0" is its own
        self.engine = Engine(cluster.engine)
        self.address = "127.0.0.1:0"
        self.keeper = None
        self.clock = Clock(cluster.turns)
        self._exits = AsyncExitStack()

    async def start(self, **options):
        exits = self._exits = AsyncExitStack()
        self.engine.cut = False
        self.clock.stopped_s = None
        transport = await exits.enter_async_context(StreamTransport(self.name, KEY))
        local = {}
        for export, store in self.disks.items():
            await exits.enter_async_context(store)
            local[export] = LocalStore(export, store, Gate(), None)
        others = frozenset(self.cluster.nodes) - {self.name}
        exporter = Exporter(
            {each.export: Offer(each.store, others, each.gate) for each in local.values()}
        )
        self.exporter = exporter
        listener = await transport.listen(self.address, exporter.serve)
        self.listener = listener
        exits.push_async_callback(listener.close)
        self.address = listener.address
        self.local = local

        async def transports(name):
            return transport

        metrics = Metrics()
        parts = Parts(
            node=self.name,
            shared=self.engine,
            peers=Peers(transports, metrics, deadline_s=DEADLINE_S),
            open_stack=self._open_stack,
            codec=self.cluster.codec,
            place=lambda kept: None,
            local=dict,
            ttl_s=TTL_S,
            monotonic=self.clock,
        )
        own = []
        if "@0" in local:
            own = [local["@0"]]
            for other in self.cluster.nodes.values():
                if other is not self and f"for-{self.name}" in other.disks:
                    own.append(
                        Place(other.name, other.address, "stream", f"for-{self.name}", DEADLINE_S)
                    )
        member = MemberRow(FORMAT, self.name, self.address, "stream", {}, identity=self.name * 4)
        self.keeper = Keeper(
            parts, member, local=list(local.values()), own=own, patience_s=2.0, **options
        )
        await self.keeper.__aenter__()

    def _open_stack(self, number, journal, containers, metastore, stores):
        cluster = self.cluster
        return open_stack(
            cluster.settings,
            cluster.plugins,
            Metrics(),
            journal=journal,
            containers=containers,
            metastore=metastore,
            stores=stores,
            serve=False,
            number=number,
        )

    async def stop(self):
        """End as SIGTERM does."""
        await self.keeper.__aexit__(None, None, None)
        self.keeper = None
        await self._exits.aclose()

    async def die(self):
        """End as kill -9 does: nothing more is written anywhere, and the engine hears nothing."""
        if self.keeper is None:
            return
        self.engine.cut = True
        for tenure in list(self.keeper._tenures.values()):
            if tenure.lease is not None:
                tenure.lease.lose()
        await self.listener.close()
        await self.keeper.__aexit__(None, None, None)
        self.keeper = None
        await self._exits.aclose()


class Cluster:
    """Nodes "a" and "b"; a third may be added."""

    def __init__(self, tmp_path, engine, turns):
        file = tmp_path / "warp.toml"
        file.write_text("[node]\ndata = 'd'\n[protocols.s3]\n[policy.default]\nredundancy='none'\n")
        self.plugins = Plugins()
        self.settings = load(file, catalog=self.plugins, environ={})
        self.engine = engine
        self.turns = turns
        self.nodes = {}

    def codec(self, spec):
        return build_codec(self.settings, self.plugins.registries, spec)

    def add(self, name, *exports):
        self.nodes[name] = NodeUnderTest(self, name, {each: disk() for each in exports})
        return self.nodes[name]

    def home(self, name):
        """Return the stack of a's domain, which this node has to have."""
        return self.nodes[name].keeper.local[self.number]

    def whole(self):
        """Return where everything acknowledged in a's domain is, as the rows say."""
        row = self.engine.get_now(rows.whole_key(self.number))
        whole = rows.unpack(row[0], rows.WholeRow).stores
        return {
            node.name
            for node in self.nodes.values()
            for store in node.disks.values()
            if store.id in whole
        }

    async def until_home(self, name, within_s=60.0):
        """Wait until a node has a's domain, and return the stack."""
        await self.until(lambda: self.number in self.nodes[name].keeper.local, within_s)
        return self.home(name)

    async def until(self, condition, within_s=60.0):
        """Wait for something."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.02)

    async def put(self, stack, key, body, *, volume="one"):
        """Store an object, small or large."""
        digests = Digests(etag=hashlib.md5(body, usedforsecurity=False).hexdigest())
        if len(body) <= 1 << 20:
            return await stack.objects.put(volume, key, body, Attributes(), digests)
        writer = await stack.objects.writer(volume, key, Attributes())
        await writer.write(body)
        return await writer.commit(digests)

    async def get(self, stack, key):
        """Return an object's content."""
        reader = await stack.objects.open("one", key)
        size = reader.info.size
        try:
            return b"".join(
                [
                    bytes(await reader.read(offset, min(1 << 20, size - offset)))
                    for offset in range(0, size, 1 << 20)
                ]
            )
        finally:
            reader.close()


@pytest.fixture
async def cluster(tmp_path):
    """A cluster of "a" and "b", whose domains are 0 and 1, in any order; nothing is started."""
    get("tests").info("begin")  # the first line of a log imports for longer than a lease here
    turns = Turns()
    turning = asyncio.create_task(turns.run())
    async with MetaMemory(turns) as engine:
        made = Cluster(tmp_path, engine, turns)
        made.add("a", "@0", "for-b")
        made.add("b", "@0", "for-a")
        try:
            yield made
        finally:
            for node in made.nodes.values():
                await node.die()
            turning.cancel()
            await asyncio.gather(turning, return_exceptions=True)


@pytest.fixture
async def pair(cluster):
    """The same, started, with a volume "one" in a's domain."""
    await asyncio.gather(*(node.start() for node in reversed(cluster.nodes.values())))
    cluster.a, cluster.b = cluster.nodes["a"], cluster.nodes["b"]
    cluster.number = cluster.a.keeper.own
    await cluster.until(lambda: cluster.whole() == {"a", "b"})  # a busy node is away at first
    stack = await cluster.until_home("a")
    await stack.objects.create_volume("one", owner=Principal("somebody"))
    return cluster
