"""WARP plugin: a store that another node exports, used like a disk of this one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

import msgspec
from warp_core.contexts import StoreContext
from warp_core.errors import Unavailable, Unsupported
from warp_core.hooks import hookimpl
from warp_core.interfaces.stores import BlobStore
from warp_core.interfaces.transports import Link
from warp_core.peers import PeerStore
from warp_core.registry import Entry, Registry

from warp_peer.config import Config

__all__ = ["Config", "Peer", "warp_register_stores"]

RETRY_S = 0.5  # between attempts to reach a peer at the start


class Peer(PeerStore):
    """A store of another node, found through the configuration."""

    def __init__(self, config: Config, context: StoreContext) -> None:
        """Keep where it is; nothing is opened yet."""
        self._config = config
        self._context = context
        super().__init__(
            self._reach,
            export=config.export,
            peer=config.node,
            deadline_s=float(config.deadline),
        )

    async def _reach(self) -> Link:
        transport = await self._context.transport(self._config.transport)
        return await transport.dial(self._config.address, peer=self._config.node)

    async def __aenter__(self) -> Self:
        """Wait until the peer is there, as `wait` says.

        Raises:
            Unavailable: It did not come.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + float(self._config.wait)
        while True:
            try:
                return await super().__aenter__()
            except Unavailable as error:
                if loop.time() + RETRY_S > until:
                    raise Unavailable(
                        f'store "{self._config.export}" of node "{self._config.node}" at {self._config.address}'
                        f" cannot be reached: {error}; start that node, or remove the [[store]]"
                    ) from error
            await asyncio.sleep(RETRY_S)


def sample(folder: Path) -> msgspec.Struct:
    """Tell that a store of another node cannot be made up.

    Raises:
        Unsupported: Always.
    """
    raise Unsupported("a peer store needs a node that exports one; see the plugin's own tests")


@hookimpl
def warp_register_stores(registry: Registry[BlobStore]) -> None:
    """Offer `peer`."""
    registry.add(
        Entry(
            "peer",
            build=Peer,
            config=Config,
            summary="a store that another node exports",
            sample=sample,
        )
    )
