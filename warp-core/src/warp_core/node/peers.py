"""Other nodes: the transports that lead to them, and the stores that they may use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from warp_core.config import Settings
from warp_core.contexts import StoreContext, TransportContext
from warp_core.errors import ConfigError, NotFound, PluginError, StoreFailed
from warp_core.interfaces.transports import Transport
from warp_core.layers.metered import MeteredStore
from warp_core.logs import get
from warp_core.metrics import Metrics
from warp_core.plugins import Plugins

log = get("warp_core.node")


class Transports:
    """The node's transports by name, each opened when it is first asked for and closed with the node."""

    def __init__(self, settings: Settings, plugins: Plugins, metrics: Metrics) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._plugins = plugins
        self._metrics = metrics
        self._open: dict[str, Transport] = {}
        self._stack = AsyncExitStack()
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Transports:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def get(self, name: str) -> Transport:
        """Return a transport, open.

        Raises:
            ConfigError: It is not installed, or its files cannot be used.
        """
        async with self._turn:
            if name not in self._open:
                self._open[name] = await self._stack.enter_async_context(self._built(name))
            return self._open[name]

    def _built(self, name: str) -> Transport:
        part = next((each for each in self._settings.transports if each.name == name), None)
        try:
            entry = self._plugins.registries["transports"].get(name)
        except (NotFound, PluginError) as error:
            raise ConfigError(str(error)) from error
        context = TransportContext(self._settings.name, self._settings.data, self._metrics)
        transport: Transport = entry.build(part.config if part else entry.config(), context)
        return transport


@asynccontextmanager
async def exported(
    settings: Settings, plugins: Plugins, transports: Transports, metrics: Metrics
) -> AsyncIterator[str]:
    """Let peers use what `[[export]]` names, and yield where they find it; "" if nothing is exported.

    Raises:
        ConfigError, AlreadyRunning, StoreFailed: A store or the address cannot be used.
    """
    if not settings.exports:
        yield ""
        return
    from warp_core.peers import Exporter, Offer

    async with AsyncExitStack() as stack:
        offers = {}
        for export in settings.exports:
            entry = plugins.registries["stores"].get(export.part.name)
            bare = entry.build(
                export.part.config, StoreContext(settings.data, metrics, transports.get)
            )
            try:
                store = await stack.enter_async_context(
                    MeteredStore(bare, metrics, f"export {export.name}")
                )
            except OSError as error:
                raise StoreFailed(
                    f"{export.part.key} cannot be opened ({error}): mend it, or name another"
                ) from error
            offers[export.name] = Offer(store, frozenset(export.to))
        transport = await transports.get(settings.peers.transport)
        listener = await transport.listen(settings.peers.listen, Exporter(offers).serve)
        stack.push_async_callback(listener.close)
        log.info("exporting", address=listener.address, stores=sorted(offers))
        yield listener.address
