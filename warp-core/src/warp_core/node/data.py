"""The data of a node, opened in order: stores, journal, containers, metadata engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from warp_core.config import Part, Policy, Settings
from warp_core.config.codecs import build_codec
from warp_core.containers import Containers, DataPolicy, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.containers.policy import Place
from warp_core.containers.segments import Position
from warp_core.contexts import MetaContext, StoreContext
from warp_core.errors import StoreFailed, Unavailable
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.stores import BlobStore
from warp_core.layers.metered import MeteredStore
from warp_core.metrics import Metrics
from warp_core.node.data_directory import DataDirectory
from warp_core.node.peers import Transports, exported
from warp_core.node.superblocks import identify, place
from warp_core.plugins import Plugins

# An engine with a log of its own puts no commits into the journal, so for its sake no segment has to be kept.
NO_COMMITS = Position(2**64 - 1, 0)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a node stands on, open."""

    settings: Settings
    plugins: Plugins
    metrics: Metrics
    directory: DataDirectory
    stores: Sequence[tuple[Part, StoreSlot]]
    metastore: MetaStore
    peers: str  # where other nodes find what is exported, or ""


@dataclass(frozen=True, slots=True)
class Data(Ground):
    """What a node alone keeps, open."""

    journal: Journal
    containers: Containers


@dataclass(frozen=True, slots=True)
class Below:
    """What lies below the metadata engine, open; the engine is built, and not entered."""

    metrics: Metrics
    directory: DataDirectory
    stores: Sequence[tuple[Part, StoreSlot]]
    journal: Journal
    engine: MetaStore
    peers: str = ""  # where other nodes find what is exported


@asynccontextmanager
async def open_below(
    settings: Settings, plugins: Plugins, *, replace_stores: bool = False, serve: bool = False
) -> AsyncIterator[Below]:
    """Open directory, stores and journal, and close them in reverse: for repair, and as the first step of a start.

    With `serve`, other nodes may use what is exported to them from the first moment on: they may be waiting for that before they
    let this one have theirs.

    Raises:
        AlreadyRunning: Another process has the data.
        StoreFailed, NewerFormat, Corrupt, Unavailable: It cannot be used; the message says what to do.
    """
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(DataDirectory(settings.data))
        directory.check_engine(settings.engine.name)
        transports = await stack.enter_async_context(Transports(settings, plugins, metrics))
        place_for_peers = ""
        if serve:
            place_for_peers = await stack.enter_async_context(
                exported(settings, plugins, transports, metrics)
            )
        opened: list[tuple[Part, BlobStore]] = []
        for index, part in enumerate(settings.stores):
            entry = plugins.registries["stores"].get(part.name)
            bare = entry.build(part.config, StoreContext(settings.data, metrics, transports.get))
            try:
                store = await stack.enter_async_context(MeteredStore(bare, metrics, str(index)))
            except OSError as error:
                raise StoreFailed(
                    f"{part.key} ({place(part)}) cannot be opened ({error}): mend it, or name another"
                ) from error
            opened.append((part, store))
        slots = await identify(directory, opened, replace=replace_stores)
        common = [
            slot
            for (part, _), slot in zip(opened, slots, strict=True)
            if part in settings.common_stores
        ]
        copies = metadata_stores(directory, slots, settings.metadata_copies, common)
        durable = [slot.store.id for slot in copies if slot.store.capabilities.durable]
        directory.keep_metadata_on(durable)

        async def leaving(living: Sequence[str]) -> None:
            directory.keep_whole([store for store in durable if store in living])

        journal = await stack.enter_async_context(
            Journal(
                [slot.store for slot in copies],
                leaving=leaving,
                whole=() if replace_stores else directory.marker.whole,
            )
        )
        engine = plugins.registries["consistency"].get(settings.engine.name)
        context = MetaContext(
            node=directory.node,
            data=settings.data,
            stores=[slot.store for slot in copies],
            journal=journal,
            metrics=metrics,
            monotonic=time.monotonic,
        )
        yield Below(
            metrics,
            directory,
            [(part, slot) for (part, _), slot in zip(opened, slots, strict=True)],
            journal,
            engine.build(settings.engine.config, context),
            place_for_peers,
        )


@asynccontextmanager
async def open_data(
    settings: Settings, plugins: Plugins, *, replace_stores: bool = False, serve: bool = False
) -> AsyncIterator[Data]:
    """Open everything below the namespace, and close it in reverse; raises as `open_below`."""
    async with AsyncExitStack() as stack:
        below = await stack.enter_async_context(
            open_below(settings, plugins, replace_stores=replace_stores, serve=serve)
        )
        containers = await stack.enter_async_context(
            Containers(
                [slot for _, slot in below.stores],
                codec=lambda spec: build_codec(settings, plugins.registries, spec),
                journal=below.journal,
                places=places(settings, below.stores),
            )
        )
        metastore = await stack.enter_async_context(below.engine)
        below.directory.keep_metadata_in(settings.engine.name, metastore.identity)
        if metastore.capabilities.shared:
            from warp_core.cluster.alone import fenced  # most nodes have an engine of their own

            metastore = await fenced(metastore, below.directory.node)
        if not metastore.capabilities.journaled:
            below.journal.release(NO_COMMITS)
        yield Data(
            settings,
            plugins,
            below.metrics,
            below.directory,
            below.stores,
            metastore,
            below.peers,
            below.journal,
            containers,
        )


def places(settings: Settings, stores: Sequence[tuple[Part, StoreSlot]]) -> list[Place]:
    """Return the stores that storage classes have for themselves."""
    labelled = {part.label: slot for part, slot in stores if part.label}
    return [
        Place(name, tuple(labelled[label] for label in each.stores), each.copies)
        for name, each in settings.storage_classes.items()
        if each.stores
    ]


def metadata_stores(
    directory: DataDirectory,
    slots: Sequence[StoreSlot],
    copies: int,
    common: Sequence[StoreSlot] | None = None,
) -> list[StoreSlot]:
    """Choose the stores that keep the metadata: those that did before, then others of the `common` ones.

    Raises:
        Unavailable: None of those that kept it is here.
    """
    before = directory.marker.metadata
    kept = [slot for name in before for slot in slots if slot.store.id == name]
    if before and not kept:
        places = [directory.marker.stores[name].place for name in before]
        raise Unavailable(
            f"none of the stores that keep the metadata is here ({', '.join(places)}): mount their disks,"
            " or add them to the configuration again"
        )
    others = [slot for slot in (slots if common is None else common) if slot not in kept]
    # What does not survive a power cut is no home for metadata while something better is there.
    others.sort(key=lambda slot: not slot.store.capabilities.durable)
    return [*kept, *others][: max(copies, 1)]


def data_policy(policy: Policy, place: str = "") -> DataPolicy:
    """Return a policy in the words of the data plane, of contents that lie at a place if one is said."""
    return DataPolicy(
        redundancy=str(policy.redundancy),
        chunker=str(policy.chunker),
        filters=tuple(map(str, policy.filters)),
        verify=policy.verify,
        place=place,
    )
