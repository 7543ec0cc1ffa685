"""What a node can be asked, through its control socket or by a command that opened its data."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import msgspec

from warp_core import __version__
from warp_core.containers.format import CONTAINER_SIZE
from warp_core.errors import Unsupported, WarpError
from warp_core.metrics import render, snapshot
from warp_core.node.account_verbs import TABLE as ACCOUNT_TABLE
from warp_core.node.admin_verbs import ADMIN_TABLE
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Verb
from warp_core.node.disk_verbs import DISK_TABLE
from warp_core.node.event_verbs import EVENTS_TABLE
from warp_core.node.kms_verbs import KMS_TABLE
from warp_core.node.mount_verbs import MOUNT_TABLE
from warp_core.node.quota_verbs import QUOTA_TABLE
from warp_core.node.snapshot_verbs import SNAPSHOT_TABLE
from warp_core.node.upkeep_verbs import UPKEEP_TABLE
from warp_core.node.volume_verbs import VOLUME_TABLE
from warp_core.plugins import State


class Anything(msgspec.Struct, frozen=True):
    """Whatever arguments."""


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


_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("status", Verb(Nothing, status)),
    ("metrics", Verb(Nothing, metrics)),
    ("metrics.text", Verb(Nothing, metrics_text)),
    *VOLUME_TABLE,
    *SNAPSHOT_TABLE,
    *DISK_TABLE,
    ("node.token", Verb(Anything, alone)),
    ("node.list", Verb(Anything, alone)),
    ("node.take", Verb(Anything, alone)),
    *ACCOUNT_TABLE,
    *KMS_TABLE,
    *EVENTS_TABLE,
    *QUOTA_TABLE,
    *MOUNT_TABLE,
    ("key.create", Verb(NewKey, key_create)),
    ("key.list", Verb(Nothing, key_list)),
    ("key.revoke", Verb(Key, key_revoke)),
    *UPKEEP_TABLE,
    *ADMIN_TABLE,
)

VERBS: Mapping[str, Verb[Node]] = dict(_TABLE)
