"""The store kit on a disk of another node, over mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from warp_conformance.kits.stores import BlobStoreKit, Reopen
from warp_core.config.types import Duration
from warp_core.contexts import StoreContext, TransportContext
from warp_core.errors import ConfigError, Unavailable
from warp_core.interfaces.stores import BlobStore
from warp_core.interfaces.transports import Transport
from warp_core.metrics import Metrics
from warp_core.peers import Exporter, Offer
from warp_peer import Config, Peer

pytestmark = pytest.mark.workspace  # a transport and a disk beside it


class Nodes:
    """Two nodes with certificates of one authority: "b" has a disk, "a" uses it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.address = "127.0.0.1:0"
        self.disk: BlobStore
        self._serving = AsyncExitStack()

    async def open(self) -> None:
        from warp_core.certificates import issue, make_authority

        make_authority(self.folder / "authority")
        for name in "ab":
            issue(self.folder / "authority", name, self.folder / name / "tls")
        self.transports = {name: await self.transport(name) for name in "ab"}

    async def transport(self, node: str) -> Transport:
        from warp_tcp.config import Config as TcpConfig
        from warp_tcp.transport import Tcp

        context = TransportContext(node, self.folder / node, Metrics())
        return await self.stack.enter_async_context(Tcp(TcpConfig(), context))

    async def serve(self) -> None:
        from warp_disk import Config as DiskConfig
        from warp_disk import Disk

        folder = self.folder / "disk"
        folder.mkdir(exist_ok=True)
        config = DiskConfig(path=str(folder))
        self.disk = await self._serving.enter_async_context(Disk(config, folder))
        exporter = Exporter({"d0": Offer(self.disk, frozenset({"a"}))})
        listener = await self.transports["b"].listen(self.address, exporter.serve)
        self.address = listener.address
        self._serving.push_async_callback(listener.close)

    async def stop(self) -> None:
        await self._serving.aclose()

    def context(self, node: str) -> StoreContext:
        async def transport(name: str) -> Transport:
            assert name == "tcp"
            return self.transports[node]

        return StoreContext(self.folder, Metrics(), transport)

    def peer(self, node: str = "b", export: str = "d0") -> Peer:
        config = Config(node=node, address=self.address, export=export, wait=Duration(0.1))
        return Peer(config, self.context("a"))


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        nodes = Nodes(tmp_path, stack)
        await nodes.open()
        await nodes.serve()
        yield nodes
        await nodes.stop()


class TestPeer(BlobStoreKit):
    @pytest.fixture
    async def reopen(self, nodes: Nodes) -> AsyncIterator[Reopen]:
        opened = AsyncExitStack()

        async def again() -> BlobStore:
            await opened.aclose()
            await nodes.stop()
            await nodes.serve()
            return await opened.enter_async_context(nodes.peer())

        yield again
        await opened.aclose()

    @pytest.fixture
    async def subject(self, reopen: Reopen) -> BlobStore:
        return await reopen()


async def test_a_node_that_is_another_one_is_not_trusted(nodes: Nodes) -> None:
    with pytest.raises((Unavailable, ConfigError, Exception), match="b") as caught:
        async with nodes.peer(node="c"):
            pass
    assert "c" in str(caught.value)


async def test_a_node_that_is_not_there_is_named_with_what_to_do(nodes: Nodes) -> None:
    await nodes.stop()

    with pytest.raises(Unavailable, match=r'store "d0" of node "b" at 127.0.0.1.*start that node'):
        async with nodes.peer():
            pass
