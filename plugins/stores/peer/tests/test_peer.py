"""The plugin by itself: a peer over the transport that the conformance package has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from warp_conformance.reference.simdisk import SimDisk
from warp_conformance.reference.transports import StreamTransport
from warp_core.config.types import Duration
from warp_core.contexts import StoreContext
from warp_core.errors import PermissionDenied, Unavailable, Unsupported
from warp_core.interfaces.transports import Transport
from warp_core.metrics import Metrics
from warp_core.peers import Exporter, Offer
from warp_peer import Config, Peer, sample

KEY = b"k" * 32


def context(folder: Path) -> StoreContext:
    async def transport(name: str) -> Transport:
        assert name == "tcp"
        return StreamTransport("a", KEY)

    return StoreContext(folder, Metrics(), transport)


def config(address: str, export: str = "d0") -> Config:
    return Config(node="b", address=address, export=export, wait=Duration(0.1))


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with SimDisk("disk") as disk:
        exporter = Exporter({"d0": Offer(disk, frozenset({"a"}))})
        listener = await StreamTransport("b", KEY).listen("127.0.0.1:0", exporter.serve)
        yield listener.address
        await listener.close()


async def test_the_configuration_leads_to_the_store(address: str, tmp_path: Path) -> None:
    async with Peer(config(address), context(tmp_path)) as store:
        await store.put("a", [b"on another node"])

        assert store.id == "disk"
        assert await store.read("a", offset=3, length=7) == b"another"


async def test_a_store_that_is_not_offered_is_refused_at_once(address: str, tmp_path: Path) -> None:
    with pytest.raises(PermissionDenied, match='no store "d1" for node "a"'):
        async with Peer(config(address, "d1"), context(tmp_path)):
            pass


async def test_a_node_that_is_away_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r'store "d0" of node "b" at .* start that node'):
        async with Peer(config("127.0.0.1:1"), context(tmp_path)):
            pass


async def test_without_a_node_there_is_no_way_to_a_peer(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no node is here"):
        async with Peer(config("127.0.0.1:1"), StoreContext(tmp_path, Metrics())):
            pass


def test_it_has_a_place_and_no_sample(tmp_path: Path) -> None:
    assert config("h:1").place == "b/d0"
    with pytest.raises(Unsupported, match="needs a node that exports one"):
        sample(tmp_path)
