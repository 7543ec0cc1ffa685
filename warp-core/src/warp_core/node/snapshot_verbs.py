"""What a node can be asked about snapshots of volumes."""

from __future__ import annotations

import msgspec

from warp_core import snapshot_policy
from warp_core.errors import InvalidArgument, NotFound
from warp_core.namespace.changed_ranges import side_of
from warp_core.namespace.differences import Difference, Differences
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.soles import NOTHING
from warp_core.namespace.tree import Volume
from warp_core.namespace.volumes import SNAPSHOT_MARK
from warp_core.node.assembly import Node
from warp_core.node.control import Nothing, Progress, Role, Verb
from warp_core.node.disk_verbs import files_of, ranges_page
from warp_core.node.volume_verbs import Named, utc
from warp_core.snapshot_policy import KINDS, Policy
from warp_core.views.files import FileInfo


class Hold(msgspec.Struct, frozen=True):
    """A snapshot that is to stay, or not any more; `word` says for whom."""

    name: str
    snapshot: str
    word: str = "operator"


class NewPolicy(msgspec.Struct, frozen=True):
    """How many snapshots of each kind a volume keeps; None leaves a number as it is."""

    name: str
    hourly: int | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None


class Diff(msgspec.Struct, frozen=True):
    """Two moments of a volume; `newer` empty is now. `after` is a cursor that an answer gave."""

    name: str
    older: str
    newer: str = ""
    after: str = ""
    limit: int = 1000


class RangesOf(msgspec.Struct, frozen=True):
    """A file of a volume at two moments; `newer` empty is now."""

    name: str
    older: str
    path: str
    newer: str = ""
    offset: int = 0
    limit: int = 1000


async def snapshot_diff(node: Node, arguments: Diff, progress: Progress) -> object:
    """Tell what differs between two snapshots, or a snapshot and now: one page."""
    files = files_of(node)
    try:
        after = bytes.fromhex(arguments.after)
    except ValueError as error:
        raise InvalidArgument(f"after = {arguments.after!r}: allowed: what `next` told") from error
    if not arguments.newer and not after:
        volume = await node.namespace.volumes.get(arguments.name)
        await files.inodes.settle_all(volume.number)
    differences = Differences(node.namespace, arguments.name, arguments.older, arguments.newer)
    found, cursor = await differences.page(after, arguments.limit)
    return {"differences": [_difference(each) for each in found], "next": cursor.hex()}


def _difference(each: Difference) -> dict[str, object]:
    return {
        "what": each.what,
        "path": each.path.decode(errors="backslashreplace"),
        "to": each.to.decode(errors="backslashreplace"),
        "kind": each.kind,
        "inode": each.inode,
        "size": each.size,
        "content": each.content,
        "attributes": each.attributes,
    }


async def snapshot_ranges(node: Node, arguments: RangesOf, progress: Progress) -> object:
    """Tell which ranges of a file differ between two moments: one page."""
    files = files_of(node)
    path = arguments.path.encode().strip(b"/")
    older, newer = [
        await side_of(files, (await _at(files, arguments.name, snapshot, path)).ref)
        for snapshot in (arguments.older, arguments.newer)
    ]
    return await ranges_page(files, older, newer, arguments.offset, arguments.limit)


async def _at(files: NamespaceFiles, volume: str, snapshot: str, path: bytes) -> FileInfo:
    if not snapshot:
        return await files.walk(volume, path)
    try:
        return await files.walk(volume, b".snapshots/" + snapshot.encode() + b"/" + path)
    except NotFound as error:
        where = f"{volume}@{snapshot}"
        raise NotFound(f"no {path.decode(errors='replace')!r} in {where}") from error


async def snapshot_list(node: Node, arguments: Named, progress: Progress) -> object:
    """Describe the snapshots of a volume, oldest first, with what each shows and what only it holds."""
    now_ns = node.namespace.clock_ns()
    alone = await node.snapshots.space(arguments.name)
    found = []
    for each in await node.snapshots.all(arguments.name):
        shown = await node.namespace.usage(f"{arguments.name}{SNAPSHOT_MARK}{each.name}")
        unique = alone.get(each.name, NOTHING)
        found.append(
            {
                "name": each.name,
                "created": utc(each.created_ns),
                "age_s": max(0, now_ns - each.created_ns) // 10**9,
                "kinds": each.kinds,
                "holds": each.holds,
                "clones": len(each.clones),
                "objects": shown.objects,
                "bytes": shown.bytes + shown.version_bytes,
                "unique_bytes": unique.length,
                "unique_stored": unique.stored,
            }
        )
    return found


async def snapshot_hold(node: Node, arguments: Hold, progress: Progress) -> object:
    """Have a snapshot stay: nothing removes it until it is released."""
    await node.snapshots.hold(arguments.name, arguments.snapshot, arguments.word)
    return await _held(node.snapshots, arguments)


async def snapshot_release(node: Node, arguments: Hold, progress: Progress) -> object:
    """Take a hold back."""
    await node.snapshots.release(arguments.name, arguments.snapshot, arguments.word)
    return await _held(node.snapshots, arguments)


async def _held(snapshots: Snapshots, arguments: Hold) -> object:
    for each in await snapshots.all(arguments.name):
        if each.name == arguments.snapshot:
            return {"volume": arguments.name, "snapshot": each.name, "holds": each.holds}
    raise NotFound(f"volume {arguments.name!r} has no snapshot {arguments.snapshot!r} any more")


# Policies -----------------------------------------------------------------------------------------


async def policy_set(node: Node, arguments: NewPolicy, progress: Progress) -> object:
    """Give a volume a policy, or change its numbers."""
    volumes = node.namespace.volumes
    old = await _policy(node, await volumes.get(arguments.name)) or Policy()
    if old.declared:
        raise InvalidArgument(
            f"the policy of {arguments.name} is declared in the configuration: change it there"
        )
    said = {kind: value for kind in KINDS if (value := getattr(arguments, kind)) is not None}
    made = msgspec.structs.replace(old, **said)
    snapshot_policy.check(made)
    await volumes.writable(arguments.name)
    content = snapshot_policy.pack(made)
    await volumes.set_document(arguments.name, snapshot_policy.DOCUMENT, content)
    return await policy_show(node, Named(arguments.name), progress)


async def policy_show(node: Node, arguments: Named, progress: Progress) -> object:
    """Tell a volume's policy."""
    volume = await node.namespace.volumes.get(arguments.name)
    found = await _policy(node, volume)
    if found is None:
        raise NotFound(
            f"volume {arguments.name!r} has no snapshot policy:"
            f" `warp snapshot policy set {arguments.name} --daily 7` gives it one"
        )
    return _described(node, arguments.name, found)


async def policy_list(node: Node, arguments: Nothing, progress: Progress) -> object:
    """Tell the policies of all volumes that have one."""
    return [
        _described(node, volume.row.name, found)
        for volume in await node.namespace.volumes.all()
        if (found := await _policy(node, volume)) is not None
    ]


async def policy_remove(node: Node, arguments: Named, progress: Progress) -> object:
    """Take a volume's policy away; the snapshots that it made stay, until somebody removes them."""
    volume = await node.namespace.volumes.get(arguments.name)
    found = await _policy(node, volume)
    if found is None:
        raise NotFound(f"volume {arguments.name!r} has no snapshot policy")
    if found.declared and _serviced(node):
        raise InvalidArgument(
            f"the policy of {arguments.name} is declared in the configuration: remove it there"
        )
    await node.namespace.volumes.set_document(arguments.name, snapshot_policy.DOCUMENT, None)
    return {"removed": arguments.name}


async def _policy(node: Node, volume: Volume) -> Policy | None:
    documents = await node.namespace.volumes.documents(volume)
    content = documents.get(snapshot_policy.DOCUMENT)
    return snapshot_policy.unpack(content) if content is not None else None


def _serviced(node: Node) -> bool:
    """Say whether this node carries policies out."""
    return any(part.name == "snapshots" for part in node.data.settings.services)


def _described(node: Node, volume: str, policy: Policy) -> dict[str, object]:
    return {
        "volume": volume,
        **{kind: policy.keeps(kind) for kind in KINDS},
        "declared": policy.declared,
        "carried_out": _serviced(node),
    }


SNAPSHOT_TABLE: tuple[tuple[str, Verb[Node]], ...] = (
    ("snapshot.list", Verb(Named, snapshot_list)),
    ("snapshot.diff", Verb(Diff, snapshot_diff, reads=True)),
    ("snapshot.ranges", Verb(RangesOf, snapshot_ranges, reads=True)),
    ("snapshot.hold", Verb(Hold, snapshot_hold, role=Role.OPERATOR)),
    ("snapshot.release", Verb(Hold, snapshot_release, role=Role.OPERATOR)),
    ("snapshot.policy.set", Verb(NewPolicy, policy_set, role=Role.OPERATOR)),
    ("snapshot.policy.show", Verb(Named, policy_show)),
    ("snapshot.policy.list", Verb(Nothing, policy_list)),
    ("snapshot.policy.remove", Verb(Named, policy_remove, role=Role.OPERATOR)),
)
