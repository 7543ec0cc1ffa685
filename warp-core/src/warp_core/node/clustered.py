"""A node of a cluster: engine → its stores behind gates → links of other nodes → its domains → views of all domains."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import msgspec

from warp_core.cluster import copies
from warp_core.cluster import directory as names
from warp_core.cluster.domains import Map
from warp_core.cluster.home import Homes
from warp_core.cluster.joining import Partner
from warp_core.cluster.keeper import Keeper
from warp_core.cluster.lines import Lines
from warp_core.cluster.receiving import Receiver, divided
from warp_core.cluster.routed import RoutedBlocks, RoutedFiles, RoutedObjects
from warp_core.cluster.router import Router
from warp_core.cluster.rows import FORMAT, MemberRow
from warp_core.cluster.stores import LocalStore, Peers, Place
from warp_core.cluster.tenure import OpenStack, Parts
from warp_core.cluster.written import add_room, drop_left
from warp_core.config import Part, Settings
from warp_core.config.codecs import build_codec
from warp_core.containers import Containers, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.contexts import MetaContext, StoreContext
from warp_core.errors import ConfigError, StoreFailed, Unavailable, Unsupported
from warp_core.interfaces.audit import Audit, Caller
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.keys import KeyService
from warp_core.interfaces.stores import BlobStore
from warp_core.interfaces.targets import Targets
from warp_core.interfaces.transports import Link
from warp_core.layers.metered import MeteredStore
from warp_core.logs import get
from warp_core.metrics import Metrics
from warp_core.node.control import Verb, perform
from warp_core.node.data import Ground
from warp_core.node.data_directory import DataDirectory
from warp_core.node.key_service import key_service
from warp_core.node.peers import Transports
from warp_core.node.stack import Stack, open_stack
from warp_core.node.superblocks import place
from warp_core.node.targets import open_targets
from warp_core.peers import Exporter, Gate, Offer, PeerPlace
from warp_core.plugins import Plugins
from warp_core.views import Blocks, Files, Objects
from warp_core.views.commands import Commands

# Who asked there is in that node's own audit log.
ANOTHER_NODE = Caller("node", "cluster")
OWN = "@"  # begins the names of exports that are the node's own stores

log = get("warp_core.cluster")


@dataclass(slots=True)
class Clustered:
    """A node of a cluster, open: what it stands on, and the views of all volumes."""

    ground: Ground
    homes: Keeper
    keys: KeyService | None
    targets: Targets
    router: Router
    lines: Lines
    objects: Objects
    files: Files
    blocks: Blocks
    open_store: Open
    exporter: Exporter = field(default_factory=lambda: Exporter({}))
    slots: list[tuple[Part, StoreSlot]] = field(default_factory=list)  # those of `ground.stores`
    _left: frozenset[str] = frozenset()  # nodes whose tables were looked for
    _commands: list[Callable[[Stack], Commands]] = field(default_factory=list)

    async def pair(self, partner: Partner, *, room: bool, uses: bool) -> None:
        """Keep copies for a node that joined, and let it keep ours, as the file says from now on.

        Args:
            partner: The node; `wants` names the room that it gets here, `export` that of ours there.
            room: Its room here is new.
            uses: So is its part in keeping ours.

        Raises:
            StoreFailed: The room cannot be made.
        """
        settings = self.ground.settings
        if room:
            self.homes.add(local=[await self._room(partner.wants, partner.node)])
        if uses:
            deadline_s = float(settings.cluster.lease) if settings.cluster else 4.0
            for name, offer in list(self.exporter.offers.items()):
                if name.startswith(OWN):  # which the partner may become the home of
                    self.exporter.offer(name, replace(offer, to=offer.to | {partner.node}))
            self.homes.add(
                own=[
                    Place(
                        partner.node,
                        partner.address,
                        partner.transport,
                        partner.export,
                        deadline_s,
                    )
                ]
            )

    async def make_room(self, export: str, home: str) -> LocalStore:
        """Make room for a copy of a domain, which its home asks for; from then on the node's file says so.

        Raises:
            StoreFailed: It cannot be made.
            ConfigError: The file cannot be changed.
        """
        file = self.ground.settings.file
        if file is None:
            raise ConfigError(
                "this node runs without a configuration file, which has to name rooms"
            )
        add_room(file, export=export, to=home)
        return await self._room(export, home)

    async def _room(self, export: str, user: str) -> LocalStore:
        """Open a folder in the data folder as a store, and let another node use it."""
        entry = self.ground.plugins.registries["stores"].get("disk")
        part = Part("stores", "disk", entry.config(path=export), f"export {export}")
        made = await self.open_store(part, export)
        self.slots.append((part, StoreSlot(place(part), made.store)))
        self.exporter.offer(export, Offer(made.store, frozenset({user}), made.gate))
        return made

    def let_in(self, known: Map) -> None:
        """Let those nodes use a store that may become the home of what is in it, and nobody who left."""
        node = self.ground.settings.name
        for name, offer in list(self.exporter.offers.items()):
            to = (offer.to | copies.users(known, node, name)) - known.left
            if to != offer.to:
                self.exporter.offer(name, replace(offer, to=to))

    def forget_left(self, known: Map) -> None:
        """Delete the tables about nodes that left from the node's file; they are not used any more."""
        left, settings = known.left - self._left, self.ground.settings
        if not left or settings.file is None:
            return
        self._left |= left
        used = {kept.export for domain in known.domains.values() for kept in domain.row.stores}
        try:
            deleted = drop_left(settings.file, known.left, used=used)
        except ConfigError as error:
            log.warning("tables of a node that left stay", reason=str(error))
        else:
            if deleted:
                log.info("tables of a node that left are deleted", tables=deleted)

    def own(self) -> Stack:
        """Return the stack of this node's own volumes.

        Raises:
            Unavailable: Another node is their home.
        """
        return own_stack(self.homes)

    def commanded(self, commands: Callable[[Stack], Commands]) -> None:
        """Say how commands that other nodes pass on are done."""
        self._commands[:] = [commands]

    def commands(self, stack: Stack) -> Commands:
        """Return what does the commands of a stack."""
        return self._commands[0](stack) if self._commands else Commands()


def own_stack(homes: Homes) -> Stack:
    """Return the stack of a node's own volumes.

    Raises:
        Unavailable: Another node is their home.
    """
    stack = homes.local.get(homes.own)
    if stack is None:
        raise Unavailable(
            f'the volumes of node "{homes.node}" have their home elsewhere now: ask there, or see `warp node list`'
        )
    return stack


@asynccontextmanager
async def open_clustered(
    settings: Settings, plugins: Plugins, *, serve: bool
) -> AsyncIterator[Clustered]:
    """Open a node of a cluster, and close it in reverse.

    Raises:
        Unsupported: Without `serve`; or the engine cannot be shared, or has no leases.
        WarpError: It cannot start; the message says what to do.
    """
    if not serve:
        raise Unsupported(
            "a node of a cluster is asked while it runs: start it with `warp serve` first"
        )
    cluster = settings.cluster
    assert cluster is not None, "the configuration says so"
    metrics = Metrics()
    async with AsyncExitStack() as exits:
        directory = exits.enter_context(DataDirectory(settings.data))
        directory.check_engine(settings.engine.name)
        before = bool(directory.marker.metadata)
        transports = await exits.enter_async_context(Transports(settings, plugins, metrics))
        open_store = _opening(exits, settings, plugins, metrics, transports)
        local, own = await _stores(settings, open_store)
        engine = await _engine(exits, settings, plugins, metrics, directory)
        keys = await exits.enter_async_context(key_service(settings, plugins, engine))
        targets = await exits.enter_async_context(open_targets(settings, plugins, metrics))
        ttl_s = float(cluster.lease)
        parts = Parts(
            node=settings.name,
            shared=engine,
            peers=Peers(transports.get, metrics, deadline_s=ttl_s),
            open_stack=_opener(settings, plugins, metrics, engine, keys, targets),
            codec=lambda spec: build_codec(settings, plugins.registries, spec),
            place=lambda kept: None,
            local=dict,
            ttl_s=ttl_s,
            monotonic=time.monotonic,
        )
        member = MemberRow(
            FORMAT, settings.name, "", settings.peers.transport, {}, identity=directory.node
        )
        keeper = Keeper(
            parts,
            member,
            local=local,
            own=own,
            failback=cluster.failback,
            patience_s=float(cluster.wait),
            before=before,
        )
        lines = Lines(transports.get)
        exits.push_async_callback(lines.close)
        keeper.on_change.append(lines.follow)
        router = Router(keeper, lines)
        slots = [
            (each.part, StoreSlot(place(each.part), each.store))
            for each in local
            if each.part is not None
        ]
        clustered = Clustered(
            Ground(settings, plugins, metrics, directory, slots, engine, ""),
            keeper,
            keys,
            targets,
            router,
            lines,
            RoutedObjects(router),
            RoutedFiles(router),
            RoutedBlocks(router),
            open_store,
        )
        keeper.on_change += (clustered.forget_left, clustered.let_in)
        keeper.make_room = clustered.make_room
        await keeper.fence()
        receiver = await exits.enter_async_context(Receiver(keeper, clustered.commands))
        clustered.slots = slots
        clustered.exporter = exporter = Exporter(_offers(settings, local, own))
        clustered.let_in(keeper.map)

        async def linked(link: Link) -> None:
            await divided(link, exporter.serve, receiver.serve)

        transport = await transports.get(settings.peers.transport)
        listener = await transport.listen(settings.peers.listen, linked)
        exits.push_async_callback(listener.close)
        keeper.reachable(listener.address)
        clustered.ground = Ground(
            settings, plugins, metrics, directory, slots, engine, listener.address
        )
        await exits.enter_async_context(keeper)
        yield clustered


async def _engine(
    exits: AsyncExitStack,
    settings: Settings,
    plugins: Plugins,
    metrics: Metrics,
    directory: DataDirectory,
) -> MetaStore:
    """Open the metadata engine that the nodes share.

    Raises:
        Unsupported: It cannot be shared, or has no leases.
    """
    entry = plugins.registries["consistency"].get(settings.engine.name)
    context = MetaContext(
        node=directory.node,
        data=settings.data,
        stores=[],
        journal=None,
        metrics=metrics,
        monotonic=time.monotonic,
    )
    engine: MetaStore = entry.build(settings.engine.config, context)
    if not (engine.capabilities.lease and engine.capabilities.shared):
        raise Unsupported(
            f'[cluster] needs a metadata engine that nodes share and that grants leases; "{settings.engine.name}" as it is'
            ' configured is none: say engine = "etcd" and `listen` or `endpoints` in [metadata]'
        )
    await exits.enter_async_context(engine)
    directory.keep_metadata_in(settings.engine.name, engine.identity)
    return engine


Open = Callable[[Part, str], Awaitable[LocalStore]]


def _opening(
    exits: AsyncExitStack,
    settings: Settings,
    plugins: Plugins,
    metrics: Metrics,
    transports: Transports,
) -> Open:
    """Return what opens a store that lies here, under the name that others have for it, for as long as the node runs."""

    async def opened(part: Part, export: str) -> LocalStore:
        entry = plugins.registries["stores"].get(part.name)
        bare = entry.build(part.config, StoreContext(settings.data, metrics, transports.get))
        try:
            store = await exits.enter_async_context(MeteredStore(bare, metrics, export))
        except OSError as error:
            raise StoreFailed(
                f"{part.key} ({place(part)}) cannot be opened ({error}): mend it, or name another"
            ) from error
        return LocalStore(export, store, Gate(), part)

    return opened


async def _stores(
    settings: Settings, open_: Open
) -> tuple[list[LocalStore], list[LocalStore | Place]]:
    """Open every store that lies here; return them, and those of the own domain in order."""
    local: list[LocalStore] = []
    own: list[LocalStore | Place] = []

    async def opened(part: Part, export: str) -> LocalStore:
        local.append(await open_(part, export))
        return local[-1]

    for index, part in enumerate(settings.stores):
        config = part.config
        if isinstance(config, PeerPlace):
            own.append(
                Place(
                    config.node,
                    config.address,
                    config.transport,
                    config.export,
                    float(config.deadline),
                )
            )
        else:
            own.append(await opened(part, f"@{index}"))
    for export in settings.exports:
        if isinstance(export.part.config, PeerPlace):
            raise ConfigError(
                f"{export.part.key}: a store of another node cannot be exported again"
            )
        await opened(export.part, export.name)
    return local, own


def _offers(
    settings: Settings, local: Sequence[LocalStore], own: Sequence[LocalStore | Place]
) -> dict[str, Offer]:
    """Return what other nodes may use: exports as configured, and the own stores by those that may become their home."""
    partners = frozenset(each.node for each in own if isinstance(each, Place))
    to = {export.name: frozenset(export.to) for export in settings.exports}
    return {
        each.export: Offer(each.store, to.get(each.export, partners), each.gate) for each in local
    }


def _opener(
    settings: Settings,
    plugins: Plugins,
    metrics: Metrics,
    shared: MetaStore,
    keys: KeyService | None,
    targets: Targets,
) -> OpenStack:
    @asynccontextmanager
    async def opened(
        number: int,
        journal: Journal,
        containers: Containers,
        metastore: MetaStore,
        stores: Sequence[BlobStore],
    ) -> AsyncIterator[Stack]:
        async with open_stack(
            settings,
            plugins,
            metrics,
            journal=journal,
            containers=containers,
            metastore=metastore,
            stores=stores,
            number=number,
            keys=keys,
            targets=targets,
        ) as stack:
            volumes = await stack.namespace.volumes.all()
            taken = await names.adopt(shared, number, [volume.row.name for volume in volumes])
            if taken:
                log.warning("names that another domain has", domain=number, volumes=taken)
            yield stack

    return opened


N = TypeVar("N")


class VerbCommands(Commands, Generic[N]):
    """Commands done here, by the table of the control socket."""

    def __init__(self, verbs: Callable[[], Mapping[str, Verb[N]]], node: N, audit: Audit) -> None:
        """Take the table, what its verbs are done with, and where they are put on record."""
        self._verbs = verbs
        self._node = node
        self._audit = audit

    async def run(self, verb: str, arguments: bytes) -> bytes:
        """As `Commands.run`."""
        given = msgspec.json.decode(arguments or b"{}", type=dict[str, object])
        result = await perform(
            self._verbs(),
            self._node,
            verb,
            given,
            lambda progress: None,
            audit=self._audit,
            caller=ANOTHER_NODE,
        )
        return msgspec.json.encode(result, enc_hook=repr)
