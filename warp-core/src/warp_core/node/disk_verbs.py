"""What a node can be asked about disks."""

from __future__ import annotations

import msgspec

from warp_core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    Unsupported,
    VolumeNotFound,
)
from warp_core.namespace.changed_ranges import Ranges, Side, side_of
from warp_core.namespace.files import NamespaceFiles
from warp_core.node.assembly import Node
from warp_core.node.control import Progress, Role, Verb
from warp_core.views.blocks import DiskInfo


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


async def disk_create(node: Node, arguments: SizedDisk, progress: Progress) -> object:
    """Make a sparse disk, or a disk of a file that exists."""
    path, name = arguments.path.encode(), f"{arguments.volume}/{arguments.path}"
    try:
        return disk_row(node, await node.blocks.create(arguments.volume, path, size=arguments.size))
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
    return [disk_row(node, disk) for name in names for disk in await node.blocks.disks(name)]


class DiskDiff(msgspec.Struct, frozen=True):
    """A disk at two moments: a snapshot of it, and a newer one, or now where that is empty."""

    volume: str
    path: str
    older: str
    newer: str = ""
    offset: int = 0
    limit: int = 1000


async def disk_diff(node: Node, arguments: DiskDiff, progress: Progress) -> object:
    """Tell which ranges of a disk differ between two moments: one page."""
    files = files_of(node)
    await _existing(node, arguments.volume, arguments.path)
    path = arguments.path.encode()
    older, newer = [
        await side_of(
            files, (await node.blocks.show(arguments.volume, path, snapshot=snapshot)).ref
        )
        for snapshot in (arguments.older, arguments.newer)
    ]
    return await ranges_page(files, older, newer, arguments.offset, arguments.limit)


def files_of(node: Node) -> NamespaceFiles:
    """Return the files of a node's own volumes.

    Raises:
        Unsupported: It has none.
    """
    stack = node.own_now()
    files = node.files if stack is None else stack.files
    if not isinstance(files, NamespaceFiles):
        raise Unsupported("this node is no home of volumes")
    return files


async def ranges_page(
    files: NamespaceFiles, older: Side, newer: Side, offset: int, limit: int
) -> dict[str, object]:
    """Return one page of ranges that differ, as verbs answer."""
    found, following = await Ranges(files.inodes, older, newer).page(max(0, offset), limit)
    return {
        "size": newer.size,
        "ranges": [each._asdict() for each in found],
        "next": following if following < newer.size else None,
    }


async def disk_show(node: Node, arguments: DiskPath, progress: Progress) -> object:
    """Describe a disk and its snapshots."""
    path = arguments.path.encode()
    shown = disk_row(node, await _existing(node, arguments.volume, arguments.path))
    shown["snapshots"] = await node.blocks.snapshots(arguments.volume, path)
    return shown


async def disk_resize(node: Node, arguments: SizedDisk, progress: Progress) -> object:
    """Change a disk's size; who has it open is told."""
    if arguments.size is None:
        raise InvalidArgument("resize: a size is needed")
    await _existing(node, arguments.volume, arguments.path)
    path = arguments.path.encode()
    return disk_row(node, await node.blocks.resize(arguments.volume, path, arguments.size))


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
    return disk_row(node, made)


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


def disk_row(node: Node, disk: DiskInfo) -> dict[str, object]:
    """Describe a disk, and how it is attached through this node."""
    ways = [protocol.attach(disk.volume, disk.path) for protocol in node.protocols.values()]
    return {
        "disk": f"{disk.volume}/{disk.path.decode(errors='surrogateescape')}",
        "size": disk.size,
        "allocated": disk.allocated,
        "read_only": disk.read_only,
        "serial": disk.serial,
        "attach": [way for way in ways if way],
    }


DISK_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("disk.create", Verb(SizedDisk, disk_create, role=Role.OPERATOR)),
    ("disk.list", Verb(OneVolume, disk_list)),
    ("disk.show", Verb(DiskPath, disk_show)),
    ("disk.diff", Verb(DiskDiff, disk_diff, reads=True)),
    ("disk.resize", Verb(SizedDisk, disk_resize, role=Role.OPERATOR)),
    ("disk.snapshot", Verb(DiskPath, disk_snapshot, role=Role.OPERATOR)),
    ("disk.clone", Verb(CloneDisk, disk_clone, role=Role.OPERATOR)),
    ("disk.delete", Verb(DiskPath, disk_delete, role=Role.OPERATOR)),
)
