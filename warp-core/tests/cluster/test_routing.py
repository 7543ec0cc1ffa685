"""Routed views: two nodes with a domain each and a witness, over tcp with certificates and a metadata engine that they share."""

from __future__ import annotations

import asyncio
import atexit
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
import pytest
from warp_conformance.difference import same
from warp_conformance.kits.blocks import BlocksKit
from warp_conformance.kits.files import FilesKit
from warp_conformance.kits.objects import ObjectsKit, Reopen, Usage, digests, get, noise, put
from warp_conformance.reference.consistency import Plain
from warp_conformance.reference.node import Stage
from warp_core.certificates import issue, make_authority
from warp_core.cluster import directory, rows
from warp_core.cluster.at_rest import AtRest
from warp_core.cluster.home import Holder, Homes
from warp_core.cluster.lines import Lines
from warp_core.cluster.receiving import LOOK_S, Receiver, divided
from warp_core.cluster.routed import RoutedBlocks, RoutedFiles, RoutedObjects
from warp_core.cluster.router import Router
from warp_core.cluster.rows import MemberRow, member_key, pack
from warp_core.contexts import TransportContext
from warp_core.errors import (
    AlreadyExists,
    AlreadyOwned,
    CrossesVolumes,
    InvalidArgument,
    NotFound,
    StaleHandle,
    Unavailable,
    VolumeNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.consistency import Commit, Write
from warp_core.interfaces.transports import Link, Transport
from warp_core.metrics import Metrics
from warp_core.namespace.leases import ALL
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import END, HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.node.stack import Stack
from warp_core.views.claims import Recalled
from warp_core.views.commands import Commands
from warp_core.views.objects import Attributes, Objects
from warp_tcp.config import Config
from warp_tcp.transport import Tcp

ALICE = Principal("account:alice")
ME = Owner(HERE, b"me")
MIB = 1 << 20


@cache
def certificates() -> Path:
    folder = Path(mkdtemp(prefix="warp-cluster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_authority(folder / "authority")
    for name in ("a", "b", "w", "stranger"):
        issue(folder / "authority", name, folder / name / "tls")
    return folder


class Table(Homes):
    """Who is the home of what, by a dictionary that all nodes of a test share."""

    def __init__(self, node: str, own: int, shared: Plain, holders: dict[int, str]) -> None:
        self.node = node
        self.own = own
        self.shared = shared
        self.holders = holders
        self.stacks: dict[int, Stack] = {}
        self.seen = dict(holders)
        self.nodes: dict[str, Member] = {}
        self.names: dict[str, int] = {}

    @property
    def local(self) -> Mapping[int, Stack]:
        return self.stacks

    def domains(self) -> list[int]:
        return sorted(self.holders)

    async def holder_of(self, domain: int, *, fresh: bool = False) -> Holder:
        if fresh:
            self.seen = dict(self.holders)
        if domain not in self.seen:
            raise NotFound(f"no domain has number {domain}")
        node = self.nodes.get(self.seen[domain])
        local = self.stacks.get(domain)
        address = node.address if node else ""
        return Holder(domain, self.seen[domain], address, "tcp", 1, local)

    async def domain_of(self, volume: str, *, fresh: bool = False) -> int | None:
        if fresh or volume not in self.names:
            found, _ = await directory.look_up(self.shared, volume)
            if found is None:
                self.names.pop(volume, None)
                return None
            self.names[volume] = found
        return self.names[volume]

    def forget(self, volume: str) -> None:
        self.names.pop(volume, None)

    def at_rest(self, domain: int) -> AtRest:
        home = self.nodes[self.holders[domain]]  # the rows of a stage are its own
        return AtRest(home.stage.meta)

    async def wish(self, domain: int, node: str) -> None:
        raise NotImplementedError


def stack_of(number: int, stage: Stage) -> Stack:
    return Stack(
        number,
        stage.journal,
        stage.containers,
        stage.meta,
        stage.namespace,
        NamespaceObjects(stage.namespace),
        stage.files,
        stage.blocks,
        Snapshots(stage.namespace, stage.inodes),
    )


class Echo(Commands):
    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    async def run(self, verb: str, arguments: bytes) -> bytes:
        return b"%d %s" % (self.stack.number, arguments)


class Member:
    """One node of the cluster."""

    def __init__(self, name: str, own: int, shared: Plain, holders: dict[int, str]) -> None:
        self.name = name
        self.homes = Table(name, own, shared, holders)
        self.stage = Stage()
        self.address = "127.0.0.1:0"
        self.exits = AsyncExitStack()

    async def __aenter__(self) -> Member:
        if self.homes.own >= 0:
            await self.exits.enter_async_context(self.stage)
            self.homes.stacks[self.homes.own] = stack_of(self.homes.own, self.stage)
        context = TransportContext(self.name, certificates() / self.name, Metrics())
        self.transport = await self.exits.enter_async_context(Tcp(Config(), context))
        self.receiver = await self.exits.enter_async_context(Receiver(self.homes, Echo))

        async def stores(link: Link) -> None:
            await link.send(b"a store")
            await link.close()

        async def serve(link: Link) -> None:
            await divided(link, stores, self.receiver.serve)

        listener = await self.transport.listen(self.address, serve)
        self.exits.push_async_callback(listener.close)
        self.address = listener.address
        row = MemberRow(1, self.name, self.address, "tcp", {})
        await self.homes.shared.commit(Commit(writes=[Write(member_key(self.name), pack(row))]))

        async def transport(name: str) -> Transport:
            return self.transport

        self.lines = Lines(transport, deadline_s=5.0)
        self.exits.push_async_callback(self.lines.close)
        self.router = Router(self.homes, self.lines, patience_s=0.3)
        self.objects = RoutedObjects(self.router)
        self.files = RoutedFiles(self.router)
        self.blocks = RoutedBlocks(self.router)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.exits.aclose()


class Cluster:
    """Nodes a and b, and the witness w."""

    volume = "v"

    def __init__(self) -> None:
        self.shared = Plain()
        self.holders = {0: "a", 1: "b"}
        self.members = {
            name: Member(name, own, self.shared, self.holders)
            for name, own in (("a", 0), ("b", 1), ("w", -1))
        }
        self.a, self.b, self.w = self.members.values()

    async def __aenter__(self) -> Cluster:
        await self.shared.__aenter__()
        for member in self.members.values():
            await member.__aenter__()
            member.homes.nodes = self.members
        return self

    async def __aexit__(self, *exception: object) -> None:
        for member in reversed(self.members.values()):
            await member.__aexit__(*exception)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster() as cluster:
        yield cluster


# The kits, through the router ---------------------------------------------------------------------


class Routed:
    """A stage of one node: its volumes are at home here, and asked for through the router."""

    volume = "v"

    def __init__(self) -> None:
        self.home = Stage()
        self.homes = Table("a", 0, Plain(), {0: "a"})

    async def __aenter__(self) -> Routed:
        await self.home.__aenter__()
        await self.homes.shared.__aenter__()
        await directory.adopt(self.homes.shared, 0, ["v"])
        self.begin()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.home.__aexit__(*exception)

    def begin(self) -> None:
        async def transport(name: str) -> Transport:
            raise AssertionError("nobody is elsewhere")

        self.homes.stacks[0] = stack_of(0, self.home)
        router = Router(self.homes, Lines(transport))
        self.objects = RoutedObjects(router)
        self.files = RoutedFiles(router)
        self.blocks = RoutedBlocks(router)

    async def crash(self) -> None:
        await self.home.crash()
        self.begin()


@pytest.fixture
async def routed() -> AsyncIterator[Routed]:
    async with Routed() as stage:
        yield stage


class TestRoutedObjects(ObjectsKit):
    @pytest.fixture
    def subject(self, routed: Routed) -> Objects:
        return routed.objects

    @pytest.fixture
    def usage(self, routed: Routed) -> Usage:
        async def of(volume: str) -> tuple[int, int, int, int]:
            found = await routed.home.namespace.usage(volume)
            return found[:4]

        return of

    @pytest.fixture
    def reopen(self, routed: Routed) -> Reopen:
        async def again() -> Objects:
            await routed.crash()
            return routed.objects

        return again


class TestRoutedFiles(FilesKit):
    @pytest.fixture
    def subject(self, routed: Routed) -> Any:
        return routed


class TestRoutedBlocks(BlocksKit):
    @pytest.fixture
    def subject(self, routed: Routed) -> Any:
        return routed


# Two nodes and a witness --------------------------------------------------------------------------


async def test_what_is_made_at_one_node_is_used_through_all(cluster: Cluster) -> None:
    await cluster.a.objects.create_volume("photos", owner=ALICE)
    await cluster.b.objects.create_volume("films", owner=ALICE)

    await put(cluster.b.objects, "photos", b"k", b"from b")
    await put(cluster.w.objects, "films", b"k", b"from w")

    for member in cluster.members.values():
        assert await get(member.objects, "photos", b"k") == b"from b"
        assert await get(member.objects, "films", b"k") == b"from w"
        assert [each.name for each in await member.objects.volumes()] == [
            "films",
            "photos",
            "v",
            "v",
        ]
    assert await directory.all_of(cluster.shared) == {"photos": 0, "films": 1}


async def test_a_disk_is_read_and_written_through_the_other_node(cluster: Cluster) -> None:
    await cluster.a.objects.create_volume("vms", owner=ALICE)
    await cluster.a.blocks.create("vms", b"one", size=4 * MIB)
    here = await cluster.a.blocks.open("vms", b"one", initiator="a")
    there = await cluster.b.blocks.open("vms", b"one", initiator="b")
    data = noise(3 * MIB)

    await there.write(4096, data, fua=True)

    assert same(await here.read(4096, len(data)), data)
    assert [(each.volume, each.path) for each in await cluster.b.blocks.disks()] == [
        ("vms", b"one")
    ]
    await here.close()
    await there.close()


async def test_a_name_has_one_domain(cluster: Cluster) -> None:
    await cluster.a.objects.create_volume("one", owner=ALICE)

    with pytest.raises(AlreadyOwned):
        await cluster.b.objects.create_volume("one", owner=ALICE)
    with pytest.raises(AlreadyExists):
        await cluster.w.objects.create_volume("one", owner=Principal("account:bob"))
    await cluster.b.objects.delete_volume("one")
    with pytest.raises(VolumeNotFound):
        await cluster.a.objects.volume("one")
    with pytest.raises(VolumeNotFound):
        await cluster.a.objects.delete_volume("one")
    await cluster.b.objects.create_volume("one", owner=ALICE)

    assert await directory.all_of(cluster.shared) == {"one": 1}
    assert (await cluster.a.objects.volume("one")).name == "one"


async def test_many_who_make_one_volume_make_one(cluster: Cluster) -> None:
    nodes = (cluster.a, cluster.b) * 4

    made = await asyncio.gather(
        *(node.objects.create_volume("one", owner=ALICE) for node in nodes), return_exceptions=True
    )

    assert sum(not isinstance(each, BaseException) for each in made) == 1
    assert all(isinstance(each, AlreadyExists) for each in made if isinstance(each, BaseException))
    held = [
        member.name
        for member in (cluster.a, cluster.b)
        for volume in await member.stage.namespace.volumes.all()
        if volume.row.name == "one"
    ]
    assert len(held) == 1


async def test_a_claim_that_a_crash_left_is_taken_up(cluster: Cluster) -> None:
    await directory.claim(cluster.shared, "left", 0)

    with pytest.raises(VolumeNotFound):
        await put(cluster.b.objects, "left", b"k")
    await cluster.b.objects.create_volume("left", owner=ALICE)

    await put(cluster.a.objects, "left", b"k")
    await directory.claim(cluster.shared, "other", 1)
    with pytest.raises(VolumeNotFound):
        await cluster.a.objects.delete_volume("other")
    assert await directory.all_of(cluster.shared) == {"left": 0}


async def test_a_name_that_nobody_may_have_is_not_claimed(cluster: Cluster) -> None:
    with pytest.raises(InvalidArgument):
        await cluster.a.objects.create_volume("no/name", owner=ALICE)
    with pytest.raises(Unavailable, match="keeps none"):
        await cluster.w.objects.create_volume("nowhere", owner=ALICE)

    assert await directory.all_of(cluster.shared) == {}


async def test_a_volume_made_anew_elsewhere_is_found(cluster: Cluster) -> None:
    await cluster.a.objects.create_volume("moves", owner=ALICE)
    await put(cluster.b.objects, "moves", b"k", b"old")  # b knows where it is
    await cluster.a.objects.delete(volume="moves", key=b"k")
    await cluster.a.objects.delete_volume("moves")
    await cluster.b.objects.create_volume("moves", owner=ALICE)
    await put(cluster.b.objects, "moves", b"k", b"new")

    assert await get(cluster.a.objects, "moves", b"k") == b"new"


async def test_copies_between_domains_carry_everything(cluster: Cluster) -> None:
    await cluster.a.objects.create_volume("one", owner=ALICE)
    await cluster.b.objects.create_volume("two", owner=ALICE)
    data = noise(2 * MIB + 5)
    attributes = Attributes(metadata={"a": "b"}, tags={"t": "1"})
    writer = await cluster.a.objects.writer("one", b"k", attributes)
    await writer.write(data)
    made = await writer.commit(digests(data))

    copied = await cluster.b.objects.copy("one", b"k", "two", b"c")
    upload = await cluster.b.objects.create_upload("two", b"m", Attributes())
    part = await cluster.a.objects.copy_part(
        "one", b"k", "two", b"m", upload.upload, 1, offset=MIB, length=MIB
    )
    await cluster.b.objects.complete_upload("two", b"m", upload.upload, [part], digests(b""))

    assert copied.etag == made.etag
    assert same(await get(cluster.a.objects, "two", b"c"), data)
    assert (await cluster.a.objects.head("two", b"c")).attributes == attributes
    assert same(await get(cluster.a.objects, "two", b"m"), data[MIB : 2 * MIB])
    with pytest.raises(NotFound):
        await cluster.a.objects.copy("one", b"nothing", "two", b"c")


async def test_clients_hold_what_they_hold_at_every_home(cluster: Cluster) -> None:
    files = cluster.a.files
    told: list[Recalled] = []
    client = await files.claims.add_client("mount", tell=told.append)
    other = await cluster.b.files.claims.add_client("another")
    mine = Owner(client, b"p")
    refs = []
    for member, name in ((cluster.a, "one"), (cluster.b, "two")):
        await member.objects.create_volume(name, owner=ALICE)
        root = await files.root(name)
        file, _ = await files.create(
            root, b"f", 0o644, owner=mine, access=Access.READ, deny=Access.NONE
        )
        await files.claims.lock(file.ref, mine, 0, END, exclusive=True)
        refs.append(file.ref)
        found = await cluster.b.files.claims.test_lock(
            file.ref, Owner(other, b"q"), 0, 1, exclusive=False
        )
        assert found is not None
        assert (found.start, found.end, found.exclusive) == (0, END, True)
        await file.close()
        assert await files.claims.lease(file.ref, mine, ALL) == ALL
    await files.claims.renew(client)
    with pytest.raises(CrossesVolumes):
        await files.rename(await files.root("one"), b"f", await files.root("two"), b"f")

    changing = asyncio.create_task(cluster.b.files.setattr(refs[1], _mode()))
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0.01)
    assert (told[0].volume, told[0].owner) == ("two", mine)
    await files.claims.give_back(refs[1], mine)
    await changing
    await files.claims.drop_client(client)

    for ref in refs:
        assert (
            await cluster.b.files.claims.test_lock(ref, Owner(other, b"q"), 0, 1, exclusive=True)
            is None
        )
    with pytest.raises(StaleHandle):
        await files.claims.renew(client)


def _mode() -> Any:
    from warp_core.views.files import SetInfo

    return SetInfo(mode=0o600)


async def test_a_domain_that_moves_is_followed(cluster: Cluster) -> None:
    await cluster.a.objects.create_volume("photos", owner=ALICE)
    await put(cluster.b.objects, "photos", b"k", b"1")
    stack = cluster.a.homes.stacks.pop(0)
    await asyncio.sleep(2 * LOOK_S)  # sessions end; the stack itself refuses before that

    with pytest.raises(Unavailable):
        await put(cluster.b.objects, "photos", b"k", b"2")
    cluster.holders[0] = "w"
    cluster.w.homes.stacks[0] = stack
    async with asyncio.timeout(5):
        while True:
            try:
                await put(cluster.b.objects, "photos", b"k", b"3")
                break
            except Unavailable:
                await asyncio.sleep(0.1)

    assert await get(cluster.a.objects, "photos", b"k") == b"3"
    assert await get(cluster.w.objects, "photos", b"k") == b"3"


async def test_a_home_that_is_away_is_said_to_be(cluster: Cluster) -> None:
    await cluster.b.objects.create_volume("films", owner=ALICE)
    await cluster.b.exits.aclose()

    with pytest.raises(Unavailable):
        await put(cluster.a.objects, "films", b"k")
    await cluster.a.objects.create_volume("photos", owner=ALICE)
    assert (await put(cluster.a.objects, "photos", b"k")).key == b"k"


async def test_volumes_are_listed_also_while_their_home_is_away(cluster: Cluster) -> None:
    await cluster.b.objects.create_volume("films", owner=ALICE)
    await cluster.a.objects.create_volume("photos", owner=ALICE)
    known = {each.name: each for each in await cluster.a.objects.volumes()}
    await cluster.b.exits.aclose()
    await cluster.a.objects.create_volume("songs", owner=ALICE)

    listed = await cluster.a.objects.volumes()

    listed = [each for each in listed if each.name != "v"]  # which each stage has
    assert [each.name for each in listed] == ["films", "photos", "songs"]
    assert listed[:2] == [known["films"], known["photos"]]
    others = await cluster.w.objects.volumes()  # which never listed them before
    assert [each for each in others if each.name != "v"] == listed


async def test_disks_are_listed_also_while_their_home_is_away(cluster: Cluster) -> None:
    for member, volume in ((cluster.a, "vms"), (cluster.b, "films")):
        await member.objects.create_volume(volume, owner=ALICE)
        await member.blocks.create(volume, b"root", size=MIB)
        directory_ = await member.files.root(volume)
        await member.files.mkdir(directory_, b"more", 0o755)
        await member.blocks.create(volume, b"more/data", size=2 * MIB)
    stack = cluster.b.homes.stacks[1]
    await stack.snapshots.clone("films", "again", owner="account:alice")
    known = await cluster.a.blocks.disks()
    await cluster.b.exits.aclose()

    listed = await cluster.w.blocks.disks()

    assert len(listed) == 6
    assert [msgspec.structs.replace(each, incarnation="") for each in known] == [
        msgspec.structs.replace(each, incarnation="") for each in listed
    ]


async def test_strangers_with_a_certificate_get_nothing(cluster: Cluster) -> None:
    context = TransportContext("stranger", certificates() / "stranger", Metrics())
    async with Tcp(Config(), context) as transport:

        async def get_transport(name: str) -> Transport:
            return transport

        lines = Lines(get_transport)
        home = lines.to(Holder(0, "a", cluster.a.address, "tcp", 1, None))
        with pytest.raises(Unavailable, match="no member"):
            await home.views.objects.volumes()
        elsewhere = lines.to(Holder(1, "a", cluster.a.address, "tcp", 1, None))
        with pytest.raises(Unavailable):
            await elsewhere.views.objects.volumes()
        link = await transport.dial(cluster.a.address, peer="a")
        await link.send(b"\x92\x01\x00")
        assert (await link.receive()).header == b"a store"
        await lines.close()


async def test_commands_reach_the_home(cluster: Cluster) -> None:
    views, _ = await cluster.b.router.views(0)

    assert await views.commands.run("volume.show", b"{}") == b"0 {}"


async def test_what_is_there_before_the_cluster_is_adopted(cluster: Cluster) -> None:
    names = [f"v{number}" for number in range(120)]
    await directory.claim(cluster.shared, "v7", 1)

    assert await directory.adopt(cluster.shared, 0, names) == ["v7"]

    found = await directory.all_of(cluster.shared)
    assert found == {**dict.fromkeys(names, 0), "v7": 1}
    assert all(key.startswith(rows.VOLUMES) for key in (rows.volume_key(name) for name in names))
