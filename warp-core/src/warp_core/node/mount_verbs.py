"""What a node can be asked about mounts: its own, and those of clients on other machines."""

from __future__ import annotations

from pathlib import Path

import msgspec

from warp_core.cluster.joining import TOKEN_S
from warp_core.errors import ConfigError, InvalidArgument, Unsupported
from warp_core.interfaces.protocols import Mounter
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Verb
from warp_core.node.mounting import Mounts


class ToMount(msgspec.Struct, frozen=True):
    """A mount to be."""

    volume: str
    directory: str
    read_only: bool = False
    keep: bool = False


class OneDirectory(msgspec.Struct, frozen=True):
    """Where something is mounted."""

    directory: str


class MountToken(msgspec.Struct, frozen=True):
    """What a client shall be able to mount."""

    volume: str
    read_only: bool = False
    ttl_s: float = TOKEN_S


class OneClient(msgspec.Struct, frozen=True):
    """A client by its name."""

    client: str


def _mounter(node: Node) -> Mounter:
    found = next((each for each in node.protocols.values() if isinstance(each, Mounter)), None)
    if found is None:
        raise Unsupported(
            "this node mounts nothing: install warp-fuse, and have [protocols.fuse] in the configuration"
        )
    return found


def _mounts(node: Node) -> Mounts:
    if node.mounts is None:
        raise ConfigError(
            "this node lets no other machine mount its volumes: say where in the configuration, such as\n"
            '[mounts]\nlisten = "10.0.0.1:7410"'
        )
    return node.mounts


async def mount(node: Node, arguments: ToMount, progress: Progress) -> object:
    """Make a directory of the node's machine of a volume."""
    place = Path(arguments.directory)
    if not place.is_absolute():
        raise InvalidArgument(f"{place} is no absolute path")
    await _mounter(node).mount(
        arguments.volume, place, read_only=arguments.read_only, keep=arguments.keep
    )
    return {"directory": str(place), "volume": arguments.volume, "kept": arguments.keep}


async def unmount(node: Node, arguments: OneDirectory, progress: Progress) -> object:
    """Take a mount away."""
    await _mounter(node).unmount(Path(arguments.directory))
    return {"unmounted": arguments.directory}


async def mounted(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell what is mounted where."""
    return [
        {
            "directory": str(each.directory),
            "volume": each.volume,
            "read_only": each.read_only,
            "origin": each.origin,
        }
        for each in _mounter(node).mounted()
    ]


async def token(node: Node, arguments: MountToken, progress: Progress) -> object:
    """Make a token that lets one client on another machine mount a volume."""
    made = await _mounts(node).token(
        arguments.volume, read_only=arguments.read_only, ttl_s=arguments.ttl_s
    )
    return {"token": made, "address": _mounts(node).address, "volume": arguments.volume}


async def clients(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell which clients may mount what."""
    return [
        {"client": client, **msgspec.to_builtins(granted)}
        for client, granted in _mounts(node).clients()
    ]


async def revoke(node: Node, arguments: OneClient, progress: Progress) -> object:
    """Let a client mount nothing any more."""
    await _mounts(node).revoke(arguments.client)
    return {"revoked": arguments.client}


MOUNT_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("mount.add", Verb(ToMount, mount)),
    ("mount.remove", Verb(OneDirectory, unmount)),
    ("mount.list", Verb(Nothing, mounted)),
    ("mount.token", Verb(MountToken, token)),
    ("mount.clients", Verb(Nothing, clients, reads=True)),
    ("mount.revoke", Verb(OneClient, revoke)),
)
