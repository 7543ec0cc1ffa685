"""What a node can be asked, through its control socket or by a command that opened its data."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from warp_core import __version__
from warp_core.config.codecs import build_codec
from warp_core.config.types import Codec, Redundancy
from warp_core.containers.format import CONTAINER_SIZE
from warp_core.containers.scrub import LOST_MAX
from warp_core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    Unsupported,
    VolumeNotFound,
    WarpError,
)
from warp_core.metadata import Transaction
from warp_core.metrics import render, snapshot
from warp_core.namespace.check import Check, CheckReport
from warp_core.namespace.recount import correct, miscounted
from warp_core.namespace.rows import VolumeRow
from warp_core.namespace.salvage import SalvageReport, salvage
from warp_core.namespace.tree import Volume
from warp_core.node.account_verbs import TABLE as ACCOUNT_TABLE
from warp_core.node.assembly import Node
from warp_core.node.control import Progress, Verb
from warp_core.node.data import data_policy
from warp_core.node.kms_verbs import KMS_TABLE
from warp_core.plugins import State
from warp_core.views.blocks import DiskInfo


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Anything(msgspec.Struct, frozen=True):
    """Whatever arguments."""


class Named(msgspec.Struct, frozen=True):
    """One volume."""

    name: str


class NewVolume(msgspec.Struct, frozen=True):
    """A volume to be, and what it wants other than the default."""

    name: str
    owner: str = ""
    settings: dict[str, str] = {}


class Settings(msgspec.Struct, frozen=True):
    """Settings of a volume to change; an empty value goes back to the default."""

    name: str
    settings: dict[str, str]


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of a volume."""

    name: str
    snapshot: str


class Rollback(msgspec.Struct, frozen=True):
    """A snapshot that a volume goes back to; `force` although files are open."""

    name: str
    snapshot: str
    force: bool = False


class Prune(msgspec.Struct, frozen=True):
    """Which snapshots of a volume have had their time."""

    name: str
    older_than_s: float | None = None
    keep: int = 0
    matching: str = "*"
    dry_run: bool = False


class CloneVolume(msgspec.Struct, frozen=True):
    """A volume to be, that begins as another is, or as a snapshot of it was."""

    name: str
    target: str
    snapshot: str = ""
    owner: str = ""


class DiskPath(msgspec.Struct, frozen=True):
    """A disk of a volume, or with `snapshot` one of its snapshots."""

    volume: str
    path: str
    snapshot: str = ""


class SizedDisk(msgspec.Struct, frozen=True):
    """A disk and a size in bytes; None makes a disk of a file that exists."""

    volume: str
    path: str
    size: int | None = None


class CloneDisk(msgspec.Struct, frozen=True):
    """A disk to be, in the same volume."""

    volume: str
    path: str
    target: str
    snapshot: str = ""


class OneVolume(msgspec.Struct, frozen=True):
    """One volume, or all of them."""

    volume: str = ""


class NewKey(msgspec.Struct, frozen=True):
    """An access key to be."""

    account: str
    access_key: str = ""
    secret: str = ""


class Key(msgspec.Struct, frozen=True):
    """One access key."""

    access_key: str


NEARLY_FULL = (
    CONTAINER_SIZE  # free bytes: where one more container does not fit, larger writes begin to fail
)

# The node -----------------------------------------------------------------------------------------


async def status(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Describe the node: is it well, what does it serve, what is on which store."""
    data, settings = node.data, node.data.settings
    problems: list[str] = []
    stores = []
    for part, slot in data.stores:
        row: dict[str, object] = {
            "store": slot.store.id,
            "kind": part.name,
            "place": slot.name,
            "durable": slot.store.capabilities.durable,
        }
        try:
            space = await slot.store.space()
            row |= {"total": space.total, "free": space.free, "reserve": space.reserve}
            if space.free < NEARLY_FULL:
                left = f"{space.free >> 20} MiB left" if space.free else "full"
                problems.append(f"store {slot.name}: {left}: add a store, or delete something")
        except WarpError as error:
            row["error"] = str(error)
            problems.append(f"store {slot.name} cannot be read: {error}")
        stores.append(row)
    stack = node.own_now()
    copies = stack.journal.copies if stack is not None else []
    if stack is not None and stack.journal.failed is not None:
        problems.append(f"the node has stopped writing: {stack.journal.failed}")
    lost = [copy for copy in copies if not copy.alive]
    problems += [f"a copy of the metadata is lost: {copy.id}" for copy in lost]
    cluster = await _cluster(node, problems)
    failed = [each for each in data.plugins.status() if each.state is State.FAILED]
    problems += [f"plugin {each.found.entry} failed: {each.reason}" for each in failed]
    return {
        "healthy": not problems,
        "problems": problems,
        "node": settings.name,
        "id": data.directory.node,
        "release": __version__,
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - node.started_s, 1),
        "data": str(settings.data),
        "config": str(settings.file or ""),
        "endpoints": node.endpoints,
        "stores": stores,
        "metadata": {
            "engine": settings.engine.name,
            "copies": len(copies),
            "alive": len(copies) - len(lost),
        },
        "services": [part.name for part in settings.services],
        "volumes": len(await stack.namespace.volumes.all()) if stack is not None else 0,
        **cluster,
    }


async def _cluster(node: Node, problems: list[str]) -> dict[str, object]:
    """Describe nodes, homes and copies, where there are several nodes; note what is wrong with them."""
    if node.members is None:
        return {}
    from warp_core.node.members import describe

    try:
        found = await describe(node)
    except WarpError as error:
        problems.append(f"the cluster cannot be asked: {error}")
        return {"cluster": None}
    problems += found["problems"]
    return {"cluster": found}


async def alone(node: Node, arguments: Anything, progress: Progress) -> object:
    """Refuse what only a node of a cluster does."""
    raise Unsupported(
        "this node is alone: begin a cluster with `warp node found`, or join one with `warp node join`"
    )


async def metrics(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Return every number by name."""
    return snapshot(node.data.metrics)


async def metrics_text(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Return the text that Prometheus scrapes."""
    return render(node.data.metrics)


# Volumes ------------------------------------------------------------------------------------------


async def volume_list(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Describe every volume."""
    return [await _volume(node, volume) for volume in await node.namespace.volumes.all()]


async def volume_show(node: Node, arguments: Named, progress: Progress) -> object:
    """Describe one volume, with the policy in effect."""
    volume = await node.namespace.volumes.get(arguments.name)
    shown = await _volume(node, volume)
    policy = node.namespace.policy_of(volume)
    shown["policy"] = {
        key: {
            "value": _text(getattr(policy, key)),
            "origin": "volume" if key in volume.row.policy else "policy.default",
        }
        for key in POLICY
    }
    shown["snapshots"] = [
        {"name": each.name, "created": _time(each.created_ns), "clones": len(each.clones)}
        for each in await node.snapshots.all(arguments.name)
    ]
    return shown


async def volume_create(node: Node, arguments: NewVolume, progress: Progress) -> object:
    """Make a volume."""
    policy, versioning = _judged(node, arguments.settings)
    owner = arguments.owner or "account:root"
    volumes = node.namespace.volumes
    await volumes.create(arguments.name, owner=owner, policy=policy)
    if versioning:
        await node.objects.set_versioning(arguments.name, versioning)
    return await _volume(node, await volumes.get(arguments.name))


async def volume_delete(node: Node, arguments: Named, progress: Progress) -> object:
    """Remove an empty volume."""
    await node.objects.delete_volume(arguments.name)
    return {"deleted": arguments.name}


async def volume_set(node: Node, arguments: Settings, progress: Progress) -> object:
    """Change settings of a volume; what is there already stays as it was written."""
    policy, versioning = _judged(node, arguments.settings)
    dropped = {key for key, value in arguments.settings.items() if not value}

    async def change(row: VolumeRow, tx: Transaction) -> VolumeRow:
        kept = {key: value for key, value in row.policy.items() if key not in dropped}
        return msgspec.structs.replace(row, policy={**kept, **policy})

    if policy or dropped & set(POLICY):
        await node.namespace.volumes.update(arguments.name, change)
    if versioning:
        await node.objects.set_versioning(arguments.name, versioning)
    return await volume_show(node, Named(arguments.name), progress)


async def volume_snapshot(node: Node, arguments: Snapshot, progress: Progress) -> object:
    """Keep a volume as it is now, under a name."""
    made = await node.snapshots.create(arguments.name, arguments.snapshot)
    return {"volume": arguments.name, "snapshot": made.name, "created": _time(made.created_ns)}


async def snapshot_delete(node: Node, arguments: Snapshot, progress: Progress) -> object:
    """Drop a snapshot of a volume, and free what only it held."""
    await node.snapshots.delete(arguments.name, arguments.snapshot)
    passes = 0
    while not await node.snapshots.clean(arguments.name):
        passes += 1
        progress({"passes": passes})
    return {"deleted": f"{arguments.name}@{arguments.snapshot}"}


async def volume_rollback(node: Node, arguments: Rollback, progress: Progress) -> object:
    """Make a volume as one of its snapshots has it. Later snapshots stay."""
    changed = await node.snapshots.rollback(
        arguments.name,
        arguments.snapshot,
        force=arguments.force,
        progress=lambda rows: progress({"rows": rows}),
    )
    return {"volume": arguments.name, "snapshot": arguments.snapshot, "rows_changed": changed}


async def volume_prune(node: Node, arguments: Prune, progress: Progress) -> object:
    """Delete snapshots of a volume that are old, or more than are to be kept."""
    gone = await node.snapshots.prune(
        arguments.name,
        older_than_s=arguments.older_than_s,
        keep=arguments.keep,
        matching=arguments.matching,
        dry_run=arguments.dry_run,
    )
    passes = 0
    while not arguments.dry_run and not await node.snapshots.clean(arguments.name):
        passes += 1
        progress({"passes": passes})
    return {"volume": arguments.name, "deleted": gone, "dry_run": arguments.dry_run}


async def volume_clone(node: Node, arguments: CloneVolume, progress: Progress) -> object:
    """Make a volume of another's content, without copying it."""
    source = await node.namespace.volumes.get(arguments.name)
    owner = arguments.owner or source.row.owner
    made = await node.snapshots.clone(
        arguments.name, arguments.target, snapshot=arguments.snapshot, owner=owner
    )
    return await _volume(node, made)


POLICY = ("redundancy", "chunker", "filters", "verify")


def _judged(node: Node, settings: Mapping[str, str]) -> tuple[dict[str, str], Any]:
    """Return the policy and the versioning that settings ask for.

    Raises:
        InvalidArgument: A key or value that cannot be; the message says what is allowed.
    """
    policy: dict[str, str] = {}
    versioning = ""
    for key, value in settings.items():
        if key == "policy":
            named = node.data.settings.policies.get(value)
            if named is None:
                known = ", ".join(node.data.settings.policies)
                raise InvalidArgument(f'policy = "{value}": allowed: {known}, as configured')
            policy |= {each: _text(getattr(data_policy(named), each)) for each in POLICY}
        elif key == "versioning":
            if value not in ("on", "off", "suspended"):
                raise InvalidArgument(f'versioning = "{value}": allowed: on, suspended, off')
            versioning = value
        elif key not in POLICY:
            allowed = ", ".join(("policy", "versioning", *POLICY))
            raise InvalidArgument(f'no setting "{key}": allowed: {allowed}')
        elif value:
            _judge(node, key, value)
            policy[key] = value
    return policy, versioning


def _judge(node: Node, key: str, value: str) -> None:
    try:
        if key == "redundancy":
            wanted = Redundancy.parse(value)
            stores = len(node.data.stores)
            if wanted.striped:
                raise InvalidArgument(f"redundancy = {value}: no erasure codec is installed")
            if wanted.stores > stores:
                raise InvalidArgument(
                    f"redundancy = {value}: takes {wanted.stores} stores, this node has {stores}"
                )
        elif key == "verify":
            if value not in ("always", "scrub"):
                raise InvalidArgument(f'verify = "{value}": allowed: always, scrub')
        else:
            shape = "chunker" if key == "chunker" else "filter"
            for spec in value.split(","):
                codec = build_codec(
                    node.data.settings, node.data.plugins.registries, Codec.parse(spec)
                )
                if codec.shape != shape:
                    raise InvalidArgument(f"{key} = {value}: {spec} is a {codec.shape}")
    except ValueError:
        allowed = Redundancy.ALLOWED if key == "redundancy" else Codec.ALLOWED
        raise InvalidArgument(f'{key} = "{value}": allowed: {allowed}') from None
    except NotFound as error:
        raise InvalidArgument(f"{key} = {value}: {error}") from None


async def _volume(node: Node, volume: Volume) -> dict[str, object]:
    row = volume.row
    try:
        usage = (await node.namespace.usage(row.name))._asdict()
    except VolumeNotFound:  # deleted meanwhile
        usage = {}
    return {
        "name": row.name,
        "created": _time(row.created_ns),
        "owner": row.owner,
        "versioning": row.versioning,
        "read_only": row.read_only,
        "settings": row.policy,
        **usage,
    }


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns / 1e9))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# Disks --------------------------------------------------------------------------------------------


async def disk_create(node: Node, arguments: SizedDisk, progress: Progress) -> object:
    """Make a sparse disk, or a disk of a file that exists."""
    path, name = arguments.path.encode(), f"{arguments.volume}/{arguments.path}"
    try:
        return _disk(node, await node.blocks.create(arguments.volume, path, size=arguments.size))
    except VolumeNotFound:
        raise
    except NotFound as error:
        if arguments.size is not None:
            raise
        raise NotFound(f"no file {name}: give a size to make a new disk") from error
    except AlreadyExists as error:
        raise AlreadyExists(f"{name} exists: without a size it becomes a disk") from error


async def disk_list(node: Node, arguments: OneVolume, progress: Progress) -> object:
    """Describe the disks of a volume, or of all."""
    names = [arguments.volume] if arguments.volume else []
    names = names or [volume.row.name for volume in await node.namespace.volumes.all()]
    return [_disk(node, disk) for name in names for disk in await node.blocks.disks(name)]


async def disk_show(node: Node, arguments: DiskPath, progress: Progress) -> object:
    """Describe a disk and its snapshots."""
    path = arguments.path.encode()
    shown = _disk(node, await _existing(node, arguments.volume, arguments.path))
    shown["snapshots"] = await node.blocks.snapshots(arguments.volume, path)
    return shown


async def disk_resize(node: Node, arguments: SizedDisk, progress: Progress) -> object:
    """Change a disk's size; who has it open is told."""
    if arguments.size is None:
        raise InvalidArgument("resize: a size is needed")
    await _existing(node, arguments.volume, arguments.path)
    path = arguments.path.encode()
    return _disk(node, await node.blocks.resize(arguments.volume, path, arguments.size))


async def disk_snapshot(node: Node, arguments: DiskPath, progress: Progress) -> object:
    """Keep what a disk holds now."""
    await _existing(node, arguments.volume, arguments.path)
    await node.blocks.snapshot(arguments.volume, arguments.path.encode(), arguments.snapshot)
    return {"disk": f"{arguments.volume}/{arguments.path}", "snapshot": arguments.snapshot}


async def disk_clone(node: Node, arguments: CloneDisk, progress: Progress) -> object:
    """Make a disk of another's content, without copying it."""
    await _existing(node, arguments.volume, arguments.path)
    try:
        made = await node.blocks.clone(
            arguments.volume,
            arguments.path.encode(),
            arguments.target.encode(),
            snapshot=arguments.snapshot,
        )
    except AlreadyExists as error:
        raise AlreadyExists(f"{arguments.volume}/{arguments.target} exists") from error
    return _disk(node, made)


async def disk_delete(node: Node, arguments: DiskPath, progress: Progress) -> object:
    """Remove a disk with its snapshots, or one of its snapshots."""
    path, snapshot = arguments.path.encode(), arguments.snapshot
    name = f"{arguments.volume}/{arguments.path}"
    await _existing(node, arguments.volume, arguments.path)
    if snapshot:
        await node.blocks.delete_snapshot(arguments.volume, path, snapshot)
        return {"deleted": f"{name}@{snapshot}"}
    await node.blocks.delete(arguments.volume, path)
    return {"deleted": name}


async def _existing(node: Node, volume: str, path: str) -> DiskInfo:
    """Return a disk; what is not there is told by the name that was asked for."""
    try:
        return await node.blocks.show(volume, path.encode())
    except VolumeNotFound:
        raise
    except NotFound as error:
        raise NotFound(f"no disk {volume}/{path}: `warp disk list {volume}` shows them") from error


def _disk(node: Node, disk: DiskInfo) -> dict[str, object]:
    ways = [protocol.attach(disk.volume, disk.path) for protocol in node.protocols.values()]
    return {
        "disk": f"{disk.volume}/{disk.path.decode(errors='surrogateescape')}",
        "size": disk.size,
        "allocated": disk.allocated,
        "read_only": disk.read_only,
        "serial": disk.serial,
        "attach": [way for way in ways if way],
    }


# Access keys --------------------------------------------------------------------------------------


async def key_create(node: Node, arguments: NewKey, progress: Progress) -> object:
    """Make an access key; its secret is told this once."""
    made = await node.authenticator.create_key(
        arguments.account, access_key=arguments.access_key, secret=arguments.secret
    )
    return {
        "access_key": made.access_key,
        "secret_key": made.secret,
        "account": made.principal.name,
    }


async def key_list(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell every access key and whose it is."""
    return [
        {
            "access_key": key,
            "account": principal.name,
            "admin": principal.admin,
            "root": key == node.root_access_key,
        }
        for key, principal in await node.authenticator.list_keys()
    ]


async def key_revoke(node: Node, arguments: Key, progress: Progress) -> object:
    """Make an access key useless."""
    await node.authenticator.revoke_key(arguments.access_key)
    return {"revoked": arguments.access_key}


# Keeping -----------------------------------------------------------------------------------------

SLICE = 64 * 1024 * 1024  # bytes between two progress reports of a scrub
HEAL_SLICE = 64 * 1024 * 1024


class Scrub(msgspec.Struct, frozen=True):
    """How to look: `deep` reads every byte; `rate` is bytes a second, 0 for as fast as it goes."""

    deep: bool = False
    rate: int = 0


async def scrub(node: Node, arguments: Scrub, progress: Progress) -> dict[str, object]:
    """Look for what is missing or damaged in every container that nobody writes to."""
    totals = {"containers": 0, "records": 0, "bytes": 0, "damaged_copies": 0, "missing_copies": 0}
    lost: list[str] = []
    lost_count = cursor = 0
    while True:
        report = await node.containers.scrub(
            deep=arguments.deep, after=cursor, budget=SLICE, rate=arguments.rate or None
        )
        for name in totals:
            totals[name] += getattr(report, name)
        lost_count += report.lost_count
        lost = (lost + report.lost)[:LOST_MAX]
        progress(totals)
        if report.finished:
            return {**totals, "lost": lost, "lost_count": lost_count, "deep": arguments.deep}
        cursor = report.cursor


async def heal(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Write missing and damaged copies anew, until nothing more can be done."""
    totals = {"written_copies": 0, "written_bytes": 0, "removed_copies": 0}
    while True:
        report = await node.containers.heal(budget=HEAL_SLICE)
        for name in totals:
            totals[name] += getattr(report, name)
        progress({**totals, "waiting": report.waiting})
        if not report.waiting or not (report.written_copies or report.removed_copies):
            return {**totals, "waiting": report.waiting, "problems": report.problems}


class Fsck(msgspec.Struct, frozen=True):
    """How to check: `deep` reads every byte; `salvage` first names content that has lost its rows; `repair` corrects counters."""

    deep: bool = False
    salvage: bool = False
    repair: bool = False


async def fsck(node: Node, arguments: Fsck, progress: Progress) -> object:
    """Check rows, names, content and counters of every volume, then every container."""

    def tell(report: CheckReport) -> None:
        progress({"rows": report.rows, "chunks": report.chunks, "problems": report.problem_count})

    named = SalvageReport()
    if arguments.salvage:
        named = await salvage(node.namespace, node.containers.records())
    corrected = await _corrected(node) if arguments.repair else 0
    checked = await Check(node.namespace, deep=arguments.deep, progress=tell).run()
    scrubbed = await scrub(node, Scrub(deep=arguments.deep), progress)
    return {
        "counters_corrected": corrected,
        "volumes": checked.volumes,
        "rows": checked.rows,
        "names": checked.names,
        "chunks": checked.chunks,
        "bytes": checked.bytes,
        "problem_count": checked.problem_count,
        "problems": checked.problems,
        "containers": scrubbed,
        "salvaged": named.revisions,
        "salvaged_bytes": named.bytes,
        "salvage_unreadable": named.unreadable,
    }


async def _corrected(node: Node) -> int:
    """Correct the counters of volumes that differ from what their rows say; return how many did."""
    corrected = 0
    for volume in await node.namespace.volumes.all():
        name = volume.row.name
        try:
            off = await miscounted(node.namespace, name)
            if off is not None and any(off):
                await correct(node.namespace, name, off)
                corrected += 1
        except VolumeNotFound:
            continue  # deleted meanwhile
    return corrected


Run = Callable[[Node, Any, Progress], Awaitable[object]]

_TABLE: tuple[tuple[str, type[msgspec.Struct], Run], ...] = (
    ("status", Nothing, status),
    ("metrics", Nothing, metrics),
    ("metrics.text", Nothing, metrics_text),
    ("volume.list", Nothing, volume_list),
    ("volume.show", Named, volume_show),
    ("volume.create", NewVolume, volume_create),
    ("volume.delete", Named, volume_delete),
    ("volume.set", Settings, volume_set),
    ("volume.snapshot", Snapshot, volume_snapshot),
    ("volume.rollback", Rollback, volume_rollback),
    ("volume.prune", Prune, volume_prune),
    ("volume.clone", CloneVolume, volume_clone),
    ("snapshot.delete", Snapshot, snapshot_delete),
    ("disk.create", SizedDisk, disk_create),
    ("disk.list", OneVolume, disk_list),
    ("disk.show", DiskPath, disk_show),
    ("disk.resize", SizedDisk, disk_resize),
    ("disk.snapshot", DiskPath, disk_snapshot),
    ("disk.clone", CloneDisk, disk_clone),
    ("disk.delete", DiskPath, disk_delete),
    ("node.token", Anything, alone),
    ("node.list", Anything, alone),
    ("node.take", Anything, alone),
    *ACCOUNT_TABLE,
    *KMS_TABLE,
    ("key.create", NewKey, key_create),
    ("key.list", Nothing, key_list),
    ("key.revoke", Key, key_revoke),
    ("scrub", Scrub, scrub),
    ("heal", Nothing, heal),
    ("fsck", Fsck, fsck),
)

VERBS: Mapping[str, Verb[Node]] = {name: Verb(arguments, run) for name, arguments, run in _TABLE}
