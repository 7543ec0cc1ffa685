"""A node, put together: data → namespace → who is who → services → protocols; closed in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from warp_core.audit.log import AuditLog
from warp_core.config import Settings
from warp_core.containers import Containers
from warp_core.containers.journal import Journal
from warp_core.contexts import AuthContext, ProtocolContext
from warp_core.errors import ConfigError, Unavailable
from warp_core.interfaces.accounts import DeclaredAccount
from warp_core.interfaces.audit import NO_AUDIT, Audit
from warp_core.interfaces.auth import Authenticator
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.keys import KeyService
from warp_core.interfaces.protocols import Protocol
from warp_core.interfaces.queries import Queries
from warp_core.interfaces.targets import Targets
from warp_core.logs import get
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.snapshots import Snapshots
from warp_core.node.administration import Administration
from warp_core.node.control import ControlServer, Verb
from warp_core.node.data import Ground, open_data
from warp_core.node.data_directory import AUDIT, CONTROL
from warp_core.node.key_service import key_service
from warp_core.node.root_key import root_key
from warp_core.node.stack import Stack, open_stack
from warp_core.node.tokens import Tokens
from warp_core.plugins import Plugins
from warp_core.views import Blocks, Files, Objects

if TYPE_CHECKING:
    from warp_core.cluster.keeper import Keeper
    from warp_core.node.members import Members
    from warp_core.node.mounting import Mounts

log = get("warp_core.node")


@dataclass(slots=True)
class Node:
    """Everything of a node that others ask for."""

    data: Ground
    own: Callable[[], Stack]  # of its own volumes; Unavailable if another node is their home
    objects: Objects
    files: Files
    blocks: Blocks
    authenticator: Authenticator
    root_access_key: str
    homes: Keeper | None = None  # in a cluster
    members: Members | None = None  # likewise
    keys: KeyService | None = None  # None: none is installed
    audit: Audit = NO_AUDIT  # where changes are put on record
    targets: Targets = field(default_factory=dict)  # where events go, while it serves
    endpoints: dict[str, str] = field(default_factory=dict)  # protocol → URL, while it serves
    protocols: dict[str, Protocol] = field(default_factory=dict)
    mounts: Mounts | None = (
        None  # of clients elsewhere, while it serves; None: the configuration has no [mounts]
    )
    started_s: float = field(default_factory=time.monotonic)

    def own_now(self) -> Stack | None:
        """Return the stack of its own volumes; None if another node is their home, or it keeps none."""
        try:
            return self.own()
        except Unavailable:
            return None

    def stopped(self) -> str:
        """Return why the node does not write any more, "" if it does."""
        stack = self.own_now()
        failed = stack.journal.failed if stack is not None else None
        return str(failed) if failed is not None else ""

    @property
    def journal(self) -> Journal:
        """Of its own volumes, as all below."""
        return self.own().journal

    @property
    def containers(self) -> Containers:
        """Where content is."""
        return self.own().containers

    @property
    def namespace(self) -> Namespace:
        """What the views are views of."""
        return self.own().namespace

    @property
    def snapshots(self) -> Snapshots:
        """Snapshots and clones."""
        return self.own().snapshots


@asynccontextmanager
async def open_node(
    settings: Settings, plugins: Plugins, *, serve: bool = True, replace_stores: bool = False
) -> AsyncIterator[Node]:
    """Open a node; with `serve`, also its services, protocols and control socket.

    Raises:
        WarpError: It cannot start; the message says what to do.
    """
    async with AsyncExitStack() as exits:
        if settings.cluster is not None:
            node = await exits.enter_async_context(_clustered(settings, plugins, serve=serve))
        else:
            node = await exits.enter_async_context(
                _alone(settings, plugins, serve=serve, replace_stores=replace_stores)
            )
        if node.data.peers:
            node.endpoints["peers"] = node.data.peers
        node.audit = await exits.enter_async_context(_audit(node))
        if serve:
            verbs = _verbs if node.members is None else _verbs_of_members
            await exits.enter_async_context(_mounts(node))
            await exits.enter_async_context(_protocols(node, verbs))
            if node.homes is not None:
                await node.homes.describe(node.endpoints)
            control = ControlServer(settings.data / CONTROL, verbs, node, node.audit)
            await exits.enter_async_context(control)
        yield node


@asynccontextmanager
async def _alone(
    settings: Settings, plugins: Plugins, *, serve: bool, replace_stores: bool
) -> AsyncIterator[Node]:
    async with AsyncExitStack() as exits:
        data = await exits.enter_async_context(
            open_data(settings, plugins, replace_stores=replace_stores, serve=serve)
        )
        keys = await exits.enter_async_context(key_service(settings, plugins, data.metastore))
        targets = await exits.enter_async_context(_targets(settings, plugins, data, serve=serve))
        stack = await exits.enter_async_context(
            open_stack(
                settings,
                plugins,
                data.metrics,
                journal=data.journal,
                containers=data.containers,
                metastore=data.metastore,
                stores=[slot.store for part, slot in data.stores if part in settings.common_stores],
                serve=serve,
                keys=keys,
                targets=targets,
            )
        )
        root = root_key(settings.data, settings.root)
        authenticator = await exits.enter_async_context(
            _authenticator(settings, plugins, data.metastore, root)
        )
        yield Node(
            data,
            lambda: stack,
            stack.objects,
            stack.files,
            stack.blocks,
            authenticator,
            root[0],
            keys=keys,
            targets=targets,
        )


@asynccontextmanager
async def _targets(
    settings: Settings, plugins: Plugins, data: Ground, *, serve: bool
) -> AsyncIterator[Targets]:
    """Open where events go, if there is anywhere."""
    if not (serve and settings.targets):
        yield {}
        return
    from warp_core.node.targets import open_targets

    async with open_targets(settings, plugins, data.metrics) as targets:
        yield targets


@asynccontextmanager
async def _clustered(settings: Settings, plugins: Plugins, *, serve: bool) -> AsyncIterator[Node]:
    # What a node alone does without.
    from warp_core.cluster.joining import Admission
    from warp_core.node.clustered import VerbCommands, open_clustered
    from warp_core.node.members import Members, admitting, host_of, identity_of, recorded

    root = root_key(settings.data, settings.root)
    async with open_clustered(settings, plugins, serve=serve) as clustered:
        auth = _authenticator(settings, plugins, clustered.ground.metastore, root)
        async with auth as authenticator:
            node = Node(
                clustered.ground,
                clustered.own,
                clustered.objects,
                clustered.files,
                clustered.blocks,
                authenticator,
                root[0],
                clustered.homes,
                keys=clustered.keys,
                targets=clustered.targets,
            )

            def of_stack(stack: Stack) -> Node:
                return replace(
                    node,
                    own=lambda: stack,
                    objects=stack.objects,
                    files=stack.files,
                    blocks=stack.blocks,
                )

            clustered.commanded(lambda stack: VerbCommands(_verbs, of_stack(stack), node.audit))
            admit = admitting(
                settings,
                plugins,
                clustered.homes.shared,
                clustered.ground.peers,
                root,
                clustered.pair,
            )
            admission = Admission(
                host_of(settings.peers.listen),
                identity_of(settings),
                recorded(admit, lambda: node.audit),
                monotonic=time.monotonic,
            )
            async with admission:
                node.members = Members(clustered.router, clustered.lines, admission, of_stack)
                yield node


@asynccontextmanager
async def _authenticator(
    settings: Settings, plugins: Plugins, metastore: MetaStore, root: tuple[str, str]
) -> AsyncIterator[Authenticator]:
    entry = plugins.registries["auth"].get(settings.auth.name)
    context = AuthContext(settings.data, metastore, root, declared(settings))
    authenticator = entry.build(settings.auth.config, context)
    if not isinstance(authenticator, Authenticator):
        raise ConfigError(f'"{settings.auth.name}" is no authenticator: [kms] takes it')
    if settings.accounts and not authenticator.capabilities.manages_accounts:
        raise ConfigError(
            f'[[account]] tables need an authenticator that manages accounts; "{settings.auth.name}" does not'
        )
    async with authenticator:
        yield authenticator


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


def _verbs_of_members() -> Mapping[str, Verb[Node]]:
    from warp_core.node.members import routed

    return routed(_verbs())


def _audit(node: Node) -> AuditLog:
    settings, data = node.data.settings, node.data
    return AuditLog(
        settings.data / AUDIT,
        data.metastore,
        node=settings.name,
        identity=data.directory.node,
        required=settings.audit.mode == "required",
        file_size=settings.audit.file_size,
        files_max=settings.audit.files_max,
        metrics=data.metrics,
    )


@asynccontextmanager
async def _mounts(node: Node) -> AsyncIterator[None]:
    """Let clients on other machines mount volumes, if the configuration says where."""
    if not node.data.settings.mounts.listen:
        yield
        return
    from warp_core.node.mounting import Mounts

    data = node.data
    async with Mounts(data.settings, data.plugins, data.metrics, node.files) as mounts:
        node.mounts = mounts
        node.endpoints["mounts"] = f"warp://{mounts.address}"
        yield


@asynccontextmanager
async def _protocols(
    node: Node, verbs: Callable[[], Mapping[str, Verb[Node]]]
) -> AsyncIterator[Mapping[str, str]]:
    """Open every endpoint, or none; at the end all drain at the same time."""
    async with (
        _queries(node.data.settings, node.data.plugins) as queries,
        _protocols_with(node, verbs, queries) as endpoints,
    ):
        yield endpoints


@asynccontextmanager
async def _queries(settings: Settings, plugins: Plugins) -> AsyncIterator[Queries | None]:
    """Open the service that answers queries, if one is installed: every node that serves has its own."""
    for part in settings.services:
        entry = plugins.registries["services"].get(part.name)
        if entry.answers_queries:
            queries: Queries = entry.build(part.config, None)
            async with queries:
                yield queries
            return
    yield None


@asynccontextmanager
async def _protocols_with(
    node: Node, verbs: Callable[[], Mapping[str, Verb[Node]]], queries: Queries | None
) -> AsyncIterator[Mapping[str, str]]:
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
        queries=queries,
        targets=node.targets,
        audit=node.audit,
        administration=Administration(
            node, verbs, node.audit, Tokens(node.data.metastore), stopped=node.stopped
        ),
    )
    opened: list[Protocol] = []
    try:
        for part in settings.protocols:
            entry = plugins.registries["protocols"].get(part.name)
            protocol = entry.build(part.config, context)
            await protocol.__aenter__()
            opened.append(protocol)
            if protocol.endpoint:  # mounts without any mount have none
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
