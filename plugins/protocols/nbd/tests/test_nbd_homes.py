"""Disks whose home goes while clients use them: what is done again, and what a client is told."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import msgspec
import pytest
from warp_conformance.reference.auth import Disk as AuthDisk
from warp_conformance.reference.auth import MemoryAuth
from warp_conformance.reference.node import Stage
from warp_core.config import Address, Duration
from warp_core.contexts import ProtocolContext
from warp_core.errors import StaleHandle, Unavailable
from warp_core.metrics import Metrics
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.blocks import Blocks, Disk
from warp_nbd import homes
from warp_nbd.config import Config
from warp_nbd.server import Server

_spec = importlib.util.spec_from_file_location(
    "nbd_client", Path(__file__).with_name("nbd_client.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Client, Refused = _module.Client, _module.Refused

SIZE = 16 * 1024 * 1024
FLUSH, TRIM = 3, 4
FUA = 1


class Mortal(Disk):
    """A disk of a home that can go."""

    def __init__(self, home, disk):
        self.home, self.disk, self.life = home, disk, home.life
        self.info = msgspec.structs.replace(disk.info, incarnation=home.incarnation)

    def demand(self):
        if self.life != self.home.life:
            raise self.home.gone

    @property
    def size(self):
        return self.disk.size

    def read_now(self, offset, length):
        self.demand()
        return self.disk.read_now(offset, length)

    def write_now(self, offset, data):
        self.demand()
        return not self.home.slow and self.disk.write_now(offset, data)

    async def read_runs(self, offset, length):
        return await self.did("read_runs", offset, length)

    async def write(self, offset, data, *, fua=False):
        return await self.did("write", offset, data, fua=fua)

    async def flush(self):
        return await self.did("flush")

    async def trim(self, offset, length, *, fua=False):
        return await self.did("trim", offset, length, fua=fua)

    async def did(self, verb, *args, **named):
        await self.home.letting.wait()
        self.demand()
        return await getattr(self.disk, verb)(*args, **named)

    async def close(self):
        await self.disk.close()


class Home(Blocks):
    """The disks of a stage; `die` ends all that are open."""

    def __init__(self, blocks):
        self.blocks, self.life, self.incarnation, self.away = blocks, 0, "first", False
        self.gone = StaleHandle("gone with its home")
        self.slow = False
        self.letting = asyncio.Event()
        self.letting.set()

    def die(self, incarnation="next"):
        self.life += 1
        self.incarnation = incarnation

    async def show(self, volume, path, *, snapshot=""):
        if self.away:
            raise Unavailable("no home")
        return await self.blocks.show(volume, path, snapshot=snapshot)

    async def open(self, volume, path, **named):
        if self.away:
            raise Unavailable("no home")
        return Mortal(self, await self.blocks.open(volume, path, **named))


@pytest.fixture
async def home():
    async with Stage() as stage:
        await stage.blocks.create("v", b"a", size=SIZE)
        home = Home(stage.blocks)
        home.stage = stage
        yield home


@pytest.fixture
async def server(home, tmp_path):
    context = ProtocolContext(
        node="test",
        data=tmp_path,
        objects=NamespaceObjects(home.stage.namespace),
        files=home.stage.files,
        blocks=home,
        authenticator=MemoryAuth(AuthDisk(), ("root", "secret")),
        metrics=Metrics(),
        drain_s=1.0,
    )
    config = Config(listen=Address("127.0.0.1:0"), auth="none", home_timeout=Duration(0.5))
    async with Server(config, context) as server:
        yield server


@pytest.fixture
async def client(server):
    async with Client(server.endpoint) as client:
        yield await client.go("v/a")


@pytest.mark.parametrize("gone", [StaleHandle("gone"), Unavailable("not the home any more")])
@pytest.mark.parametrize("slow", [False, True])
async def test_a_client_that_flushed_does_not_notice_that_the_home_moves(client, home, gone, slow):
    home.gone, home.slow = gone, slow
    await client.write(0, b"flushed")
    await client.call(FLUSH)
    home.die()

    assert await client.read(0, 7) == b"flushed"
    home.die()
    await client.write(100, b"at the new home")
    await client.call(FLUSH)
    home.die()
    await client.call(TRIM, 100, 100)
    home.die("next")
    assert await client.read(0, 7) == b"flushed"


async def test_what_was_under_way_is_done_at_the_new_home(client, home):
    home.slow = True
    home.letting.clear()
    writing = asyncio.create_task(client.write(0, b"under way"))
    await asyncio.sleep(0.05)
    home.die()
    home.letting.set()
    await writing

    assert await client.read(0, 9) == b"under way"
    await client.call(FLUSH)


async def test_writes_that_may_be_lost_are_told_by_a_refused_flush(client, home):
    await client.write(0, b"not flushed")
    home.die()

    with pytest.raises(Refused):
        await client.read(0, 11)
    with pytest.raises(Refused):
        await client.write(0, b"more", flags=FUA)
    with pytest.raises(Refused):
        await client.call(FLUSH)

    # Told: as after a power cut.
    await client.read(0, 11)
    await client.write(0, b"again")
    await client.call(FLUSH)
    assert await client.read(0, 5) == b"again"


async def test_writes_of_another_connection_count(server, client, home):
    """A client with several connections may flush over any of them."""
    async with Client(server.endpoint) as other:
        await other.go("v/a")
        await other.write(0, b"not flushed")
        home.die()

        with pytest.raises(Refused):
            await client.call(FLUSH)
        with pytest.raises(Refused):
            await other.call(FLUSH)
        await client.call(FLUSH)
        await other.call(FLUSH)

    async with Client(server.endpoint) as fresh:  # was promised nothing
        await fresh.go("v/a")
        await fresh.read(0, 10)
        await fresh.call(FLUSH)


async def test_a_flush_of_another_connection_counts(server, client, home):
    async with Client(server.endpoint) as other:
        await other.go("v/a")
        await other.write(0, b"flushed there")
        await client.call(FLUSH)
        home.die()

        assert await other.read(0, 13) == b"flushed there"
        await other.call(FLUSH)


async def test_a_write_with_fua_is_durable_by_itself(client, home):
    await client.write(0, b"durable", flags=FUA)
    home.die()

    assert await client.read(0, 7) == b"durable"
    await client.call(FLUSH)


async def test_a_fua_write_that_only_the_old_home_had_is_not_acknowledged(client, home):
    """It was taken at once, and its flush finds another home."""
    await client.write(0, b"the disk can be written at once from here on")
    await client.call(FLUSH)
    home.letting.clear()
    writing = asyncio.create_task(client.write(0, b"durable?", flags=FUA))
    await asyncio.sleep(0.05)
    home.die()
    home.letting.set()

    with pytest.raises(Refused):
        await writing


async def test_a_home_that_closed_in_order_lost_nothing(client, home):
    await client.write(0, b"not flushed")
    home.die("first")

    assert await client.read(0, 11) == b"not flushed"
    await client.call(FLUSH)


async def test_without_a_home_the_connection_ends(client, home):
    home.away = True
    home.die()

    with pytest.raises(Refused):
        await client.read(0, 10)
    assert await client.ended()


async def test_without_a_home_what_was_not_flushed_is_told_first(client, home):
    await client.write(0, b"not flushed")
    home.away = True
    home.die()

    with pytest.raises(Refused):
        await client.read(0, 10)
    with pytest.raises(Refused):
        await client.call(FLUSH)
    assert await client.ended()


async def test_a_client_that_never_flushes_is_left(client, home, monkeypatch):
    monkeypatch.setattr(homes, "LOST_S", 0.2)
    await client.write(0, b"not flushed")
    home.die()

    with pytest.raises(Refused):
        await client.read(0, 10)
    assert await client.ended()


async def test_another_disk_by_the_same_name_is_not_gone_on_with(client, home):
    await client.call(FLUSH)
    home.die()
    await home.blocks.create("v", b"b", size=SIZE)
    show = home.blocks.show

    async def shown(volume, path, *, snapshot=""):
        return await show(volume, b"b", snapshot=snapshot)

    home.blocks.show = shown

    with pytest.raises(Refused):
        await client.read(0, 10)
