"""What a node can be asked about volumes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from warp_core.config.codecs import build_codec
from warp_core.config.types import Codec, Redundancy
from warp_core.errors import InvalidArgument, NotFound, VolumeNotFound
from warp_core.metadata import Transaction
from warp_core.namespace.rows import VolumeRow
from warp_core.namespace.tree import Volume
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Role, Verb
from warp_core.node.data import data_policy


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
        {"name": each.name, "created": utc(each.created_ns), "clones": len(each.clones)}
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
    return {"volume": arguments.name, "snapshot": made.name, "created": utc(made.created_ns)}


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
            stores = len(node.data.settings.common_stores)
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
    try:
        usage = (await node.namespace.usage(volume.row.name))._asdict()
    except VolumeNotFound:  # deleted meanwhile
        usage = {}
    return {**volume_row(volume), **usage}


def volume_row(volume: Volume) -> dict[str, object]:
    """Describe a volume, but for what it holds."""
    row = volume.row
    return {
        "name": row.name,
        "created": utc(row.created_ns),
        "owner": row.owner,
        "versioning": row.versioning,
        "read_only": row.read_only,
        "settings": row.policy,
    }


def utc(ns: int) -> str:
    """Return a time as answers give it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns / 1e9))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


VOLUME_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("volume.list", Verb(Nothing, volume_list)),
    ("volume.show", Verb(Named, volume_show)),
    ("volume.create", Verb(NewVolume, volume_create, role=Role.OPERATOR)),
    ("volume.delete", Verb(Named, volume_delete, role=Role.OPERATOR)),
    ("volume.set", Verb(Settings, volume_set, role=Role.OPERATOR)),
    ("volume.snapshot", Verb(Snapshot, volume_snapshot, role=Role.OPERATOR)),
    ("volume.rollback", Verb(Rollback, volume_rollback, role=Role.OPERATOR, long=True)),
    ("volume.prune", Verb(Prune, volume_prune, role=Role.OPERATOR, long=True)),
    ("volume.clone", Verb(CloneVolume, volume_clone, role=Role.OPERATOR)),
    ("snapshot.delete", Verb(Snapshot, snapshot_delete, role=Role.OPERATOR, long=True)),
)
