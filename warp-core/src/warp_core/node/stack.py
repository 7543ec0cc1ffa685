"""A stack: what a node puts on top of one set of stores, from the journal up to the views. In a cluster there is one per domain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from warp_core.config import Settings
from warp_core.containers import Containers
from warp_core.containers.journal import Journal
from warp_core.errors import WarpError
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.keys import KeyService
from warp_core.interfaces.services import ServiceContext
from warp_core.interfaces.stores import BlobStore
from warp_core.interfaces.targets import Targets
from warp_core.logs import get
from warp_core.metrics import Metrics
from warp_core.namespace.apart import Inodes
from warp_core.namespace.blocks import NamespaceBlocks
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import Opens
from warp_core.namespace.sealing import Sealer
from warp_core.namespace.snapshots import Snapshots
from warp_core.node.data import data_policy
from warp_core.node.services import running
from warp_core.plugins import Plugins
from warp_core.views import Blocks, Files, Objects

CHECKPOINT_S = (
    10.0  # how often rows catch up with files written in place: a restart replays the rest
)

log = get("warp_core.node")


@dataclass(frozen=True, slots=True)
class Stack:
    """One, open. In a cluster the views refuse every verb from the moment on at which another node may be the home (`Unavailable`)."""

    number: int  # of its domain; 0 where there is no cluster
    journal: Journal
    containers: Containers
    metastore: MetaStore  # in a cluster: the domain's part of it, guarded
    namespace: Namespace
    objects: Objects
    files: Files
    blocks: Blocks
    snapshots: Snapshots


@asynccontextmanager
async def open_stack(
    settings: Settings,
    plugins: Plugins,
    metrics: Metrics,
    *,
    journal: Journal,
    containers: Containers,
    metastore: MetaStore,
    stores: Sequence[BlobStore],
    serve: bool = True,
    number: int = 0,
    keys: KeyService | None = None,
    targets: Targets | None = None,
) -> AsyncIterator[Stack]:
    """Open what lies above data and metadata, all of it entered; with `serve`, also the services.

    Args:
        stores: Those whose space is that of the volumes.
        keys: Who wraps the data keys of sealed contents.
        targets: Where events may go.
    """
    async with AsyncExitStack() as exits:
        opens = Opens(asyncio.get_running_loop().time)
        policy = data_policy(settings.policies["default"])
        sealer = Sealer(
            containers.keyring,
            keys,
            cipher=settings.kms.cipher,
            remember_s=float(settings.kms.remember),
        )
        namespace = Namespace(
            metastore,
            containers,
            opens=opens,
            policy=policy,
            sealer=sealer,
            quotas={
                f"account:{each.name}": each.quota.limits()
                for each in settings.accounts
                if each.quota is not None
            },
            classes={
                name: data_policy(settings.policies[each.policy], name if each.stores else "")
                for name, each in settings.storage_classes.items()
                if each.policy
            },
            placed=[name for name, each in settings.storage_classes.items() if each.stores],
            archives=[name for name, each in settings.storage_classes.items() if each.archive],
        )
        namespace.quotas.metered(metrics)
        exits.push_async_callback(namespace.quotas.told)
        inodes = Inodes(namespace, FileLog(journal, containers, stores))
        files = NamespaceFiles(namespace, inodes)
        await inodes.recover()
        await exits.enter_async_context(_checkpoints(inodes, files))
        stack = Stack(
            number,
            journal,
            containers,
            metastore,
            namespace,
            NamespaceObjects(namespace),
            files,
            NamespaceBlocks(files),
            Snapshots(namespace, inodes),
        )
        if serve:
            await exits.enter_async_context(_resumed(stack))
            await exits.enter_async_context(
                _services(settings, plugins, metrics, stack, targets or {})
            )
        yield stack


@asynccontextmanager
async def _checkpoints(inodes: Inodes, files: NamespaceFiles) -> AsyncIterator[None]:
    """Bring rows up to date now and then, and at the end."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            try:
                # Also without files that changed: what was put over S3 would have to be looked through by a restart.
                await inodes.checkpoint()
            except WarpError as error:
                log.warning("checkpoint of files failed", error=str(error))

    task = asyncio.create_task(repeat(), name="file checkpoints")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await files.settle_collections()
            await inodes.checkpoint()
        except WarpError as error:
            log.warning("files are brought up to date at the next start", error=str(error))


@asynccontextmanager
async def _resumed(stack: Stack) -> AsyncIterator[None]:
    """Go on with what an earlier run began: volumes that roll back, snapshots that were deleted and not cleaned."""

    async def clean() -> None:
        try:
            for name in await stack.snapshots.resume():
                log.info("rolled back, as begun before the restart", volume=name)
        except WarpError as error:
            log.error("a rollback is not finished: the volume stays read only", error=str(error))
        for volume in await stack.namespace.volumes.all():
            try:
                done = False
                while not done:
                    done = await stack.snapshots.clean(volume.row.name)
                    await asyncio.sleep(0)  # requests go first
            except WarpError as error:
                log.warning("snapshots wait", volume=volume.row.name, error=str(error))

    task = asyncio.create_task(clean(), name="deleted snapshots")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _services(
    settings: Settings, plugins: Plugins, metrics: Metrics, stack: Stack, targets: Targets
) -> AsyncIterator[None]:
    context = ServiceContext(stack.namespace, stack.containers, metrics, targets)
    services = [
        (part.name, plugins.registries["services"].get(part.name).build(part.config, context))
        for part in settings.services
        if not plugins.registries["services"].get(part.name).answers_queries
    ]
    async with running(services, context):
        yield
