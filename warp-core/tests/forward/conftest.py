"""Two nodes with certificates: "b" is the home of everything, "a" uses its views over the tcp transport."""

from __future__ import annotations

import asyncio
import atexit
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from warp_conformance.reference.node import Stage
from warp_core.certificates import issue, make_authority
from warp_core.contexts import TransportContext
from warp_core.errors import PermissionDenied
from warp_core.forward import Forwarder, Line, RemoteBlocks, RemoteFiles, RemoteObjects, Views
from warp_core.interfaces.transports import Link
from warp_core.metrics import Metrics
from warp_core.namespace.objects import NamespaceObjects
from warp_tcp.config import Config
from warp_tcp.transport import Tcp


@cache
def certificates() -> Path:
    """Make an authority and two nodes of it, once for all tests: keys take their time."""
    folder = Path(mkdtemp(prefix="warp-forward-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_authority(folder / "authority")
    for name in "ab":
        issue(folder / "authority", name, folder / name / "tls")
    return folder


class Nodes:
    """The two nodes; `views` may be exchanged, and is what new sessions get."""

    def __init__(self, views: Callable[[], Views], *, deadline_s: float = 20.0) -> None:
        self.views = views
        self.silent_s = 10.0
        self.deadline_s = deadline_s
        self.dialled: list[Link] = []
        self.served: list[Link] = []
        self.address = "127.0.0.1:0"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Nodes:
        folder = certificates()
        self.transports = {
            name: await self._stack.enter_async_context(
                Tcp(Config(), TransportContext(name, folder / name, Metrics()))
            )
            for name in "ab"
        }
        await self.serve()
        self.line = Line(self.dial, peer="b", target="t", deadline_s=self.deadline_s)
        self.objects = RemoteObjects(self.line)
        self.files = RemoteFiles(self.line)
        self.blocks = RemoteBlocks(self.line)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.line.close()
        await self.listener.close()
        await self.forwarder.end()
        await self._stack.aclose()

    async def serve(self) -> None:
        async def admit(peer: str, target: str) -> Views:
            if target != "t":
                raise PermissionDenied(f"{target} is not here")
            return self.views()

        self.forwarder = Forwarder(admit, silent_s=self.silent_s)

        async def serve(link: Link) -> None:
            self.served.append(link)
            await self.forwarder.serve(link)

        self.listener = await self.transports["b"].listen(self.address, serve)
        self.address = self.listener.address

    async def dial(self) -> Link:
        link = await self.transports["a"].dial(self.address, peer="b")
        self.dialled.append(link)
        return link

    async def lose(self) -> None:
        """End the links, as a node that dies does."""
        for link in self.dialled:
            await link.close()
        self.dialled.clear()
        await asyncio.sleep(0)


class Forwarded:
    """A stage for the kits: its views are those of a home at another node."""

    volume = "v"

    def __init__(self) -> None:
        self.home = Stage()
        self.nodes = Nodes(self._views)

    def _views(self) -> Views:
        return Views(NamespaceObjects(self.home.namespace), self.home.files, self.home.blocks)

    async def __aenter__(self) -> Forwarded:
        await self.home.__aenter__()
        await self.nodes.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.nodes.__aexit__(*exception)
        await self.home.__aexit__(*exception)

    @property
    def objects(self) -> RemoteObjects:
        return self.nodes.objects

    @property
    def files(self) -> RemoteFiles:
        return self.nodes.files

    @property
    def blocks(self) -> RemoteBlocks:
        return self.nodes.blocks

    async def crash(self) -> None:
        """Cut the home's power, and start it again."""
        await self.nodes.lose()
        await self.nodes.forwarder.end()
        await self.home.crash()


@pytest.fixture
async def forwarded() -> AsyncIterator[Forwarded]:
    """Yield a home with an empty volume, used from another node."""
    async with Forwarded() as stage:
        yield stage
