"""A node, put together: data → namespace → who is who → services → protocols; closed in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from warp_core.config import Settings
from warp_core.contexts import AuthContext, ProtocolContext
from warp_core.errors import ConfigError
from warp_core.interfaces.accounts import DeclaredAccount
from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.protocols import Protocol
from warp_core.logs import get
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.snapshots import Snapshots
from warp_core.node.control import ControlServer, Verb
from warp_core.node.data import Data, open_data
from warp_core.node.data_directory import CONTROL
from warp_core.node.root_key import root_key
from warp_core.node.stack import open_stack
from warp_core.plugins import Plugins
from warp_core.views import Blocks, Files, Objects

log = get("warp_core.node")


@dataclass(slots=True)
class Node:
    """Everything of a node that others ask for."""

    data: Data
    namespace: Namespace
    objects: Objects
    files: Files
    blocks: Blocks
    snapshots: Snapshots
    authenticator: Authenticator
    root_access_key: str
    endpoints: dict[str, str] = field(default_factory=dict)  # protocol → URL, while it serves
    protocols: dict[str, Protocol] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)


@asynccontextmanager
async def open_node(
    settings: Settings, plugins: Plugins, *, serve: bool = True, replace_stores: bool = False
) -> AsyncIterator[Node]:
    """Open a node; with `serve`, also its services, protocols and control socket.

    Raises:
        WarpError: It cannot start; the message says what to do.
    """
    async with AsyncExitStack() as exits:
        data = await exits.enter_async_context(
            open_data(settings, plugins, replace_stores=replace_stores, serve=serve)
        )
        stack = await exits.enter_async_context(
            open_stack(
                settings,
                plugins,
                data.metrics,
                journal=data.journal,
                containers=data.containers,
                metastore=data.metastore,
                stores=[slot.store for _, slot in data.stores],
                serve=serve,
            )
        )
        root = root_key(settings.data, settings.root)
        entry = plugins.registries["auth"].get(settings.auth.name)
        context = AuthContext(settings.data, data.metastore, root, declared(settings))
        authenticator = entry.build(settings.auth.config, context)
        if settings.accounts and not authenticator.capabilities.manages_accounts:
            raise ConfigError(
                f'[[account]] tables need an authenticator that manages accounts; "{settings.auth.name}" does not'
            )
        await exits.enter_async_context(authenticator)
        node = Node(
            data,
            stack.namespace,
            stack.objects,
            stack.files,
            stack.blocks,
            stack.snapshots,
            authenticator,
            root[0],
        )
        if data.peers:
            node.endpoints["peers"] = data.peers
        if serve:
            await exits.enter_async_context(_protocols(node))
            control = ControlServer(settings.data / CONTROL, _verbs, node)
            await exits.enter_async_context(control)
        yield node


def declared(settings: Settings) -> tuple[DeclaredAccount, ...]:
    """Return the accounts that the configuration describes."""
    return tuple(
        DeclaredAccount(
            each.account(), tuple((key.access_key, str(key.secret)) for key in each.keys)
        )
        for each in settings.accounts
    )


def _verbs() -> Mapping[str, Verb[Node]]:
    from warp_core.node.verbs import VERBS

    return VERBS


@asynccontextmanager
async def _protocols(node: Node) -> AsyncIterator[Mapping[str, str]]:
    """Open every endpoint, or none; at the end all drain at the same time."""
    settings, plugins = node.data.settings, node.data.plugins
    context = ProtocolContext(
        node=settings.name,
        data=settings.data,
        objects=node.objects,
        files=node.files,
        blocks=node.blocks,
        authenticator=node.authenticator,
        metrics=node.data.metrics,
        drain_s=float(settings.node.drain),
    )
    opened: list[Protocol] = []
    try:
        for part in settings.protocols:
            entry = plugins.registries["protocols"].get(part.name)
            protocol = entry.build(part.config, context)
            await protocol.__aenter__()
            opened.append(protocol)
            node.endpoints[part.name] = protocol.endpoint
            node.protocols[part.name] = protocol
        yield node.endpoints
    finally:
        ended = await asyncio.gather(
            *(protocol.__aexit__(None, None, None) for protocol in opened), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, Exception):
                log.exception("protocol failed to close", error)
