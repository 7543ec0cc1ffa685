"""Salvage: content whose rows are lost gets a name again, as far as the records tell.

A record says which volume, inode and revision it belongs to, when it was written, and of a file written in place also where; it
knows no names and no attributes. So what comes back is content: each revision that no row needs becomes the object
`lost+found/REVISION` of its volume, a volume whose row is lost comes back as `recovered-NUMBER`.

- Objects written whole, parts of uploads and manifests: complete, in order.
- Files written in place: what their own revision wrote; ranges that an older revision showed through come back with that one.
- Content of at most 1 KiB that lay in its row is gone, and so are names, versions, tags, modes, snapshots and permissions.
- What was deleted and not yet collected comes back as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import msgspec

from warp_core.containers.format import Chunk, Head, Owner
from warp_core.errors import Corrupt, NewerFormat, Sealed, VolumeNotFound
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.changes import Change as NamespaceChange
from warp_core.namespace.content import listed_of, load_manifest, placed
from warp_core.namespace.extents import (
    CHANGE_HEAD,
    HOLE,
    WRITE,
    Change,
    Piece,
    Pieces,
    unpack_change,
)
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.ids import BLOCK, FIRST
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import (
    FILE,
    FORMAT,
    NULL_VERSION,
    Event,
    Extent,
    Manifest,
    Name,
    Revision,
    VolumeRow,
    encode,
)
from warp_core.namespace.volumes import DELETED

FOLDER: Final = b"lost+found/"
OWNER: Final = "system"
PAYLOAD_MAX: Final = 1024 * 1024  # bytes of a record that a write in place makes


@dataclass(slots=True)
class SalvageReport:
    """What a salvage found."""

    records: int = 0
    revisions: int = 0  # that no row needed, and that have a name now
    bytes: int = 0
    volumes: int = 0  # that had lost their row
    unreadable: int = 0  # revisions with a record that cannot be read: left alone


async def salvage(namespace: Namespace, heads: AsyncIterator[Head]) -> SalvageReport:
    """Name what no row needs.

    Args:
        heads: Payload records that were not noted as dead (`Containers.records`); none that is still on its way to its rows.
    """
    report = SalvageReport()
    found: dict[Owner, list[tuple[int, Chunk]]] = {}
    async for head in heads:
        report.records += 1
        if head.owner.volume and head.owner.revision:
            found.setdefault(head.owner, []).append((head.sequence, head.chunk))
    await _reserve(namespace, found)
    garbage = Garbage(namespace)
    for owner, records in sorted(found.items()):
        chunks = [chunk for _, chunk in sorted(records, key=lambda record: record[0])]
        if await _needed(namespace, garbage, owner, chunks):
            continue
        try:
            extents, size = await _content(namespace, chunks)
        except (Corrupt, NewerFormat, Sealed):
            report.unreadable += 1
            continue
        name, made = await _volume(namespace, owner.volume)
        report.volumes += made
        await _link(namespace, name, owner, extents, size)
        report.revisions += 1
        report.bytes += size
    return report


async def _reserve(namespace: Namespace, found: dict[Owner, list[tuple[int, Chunk]]]) -> None:
    """Let no number be handed out again that a record carries."""
    numbers = [max(owner.inode, owner.revision) for owner in found]
    highest = max(numbers, default=0) + 1
    volumes = max((owner.volume for owner in found), default=0)

    async def body(tx: Transaction) -> None:
        value = await tx.get(keys.IDS)
        now = int.from_bytes(value, "big") if value else FIRST
        if highest > now:
            tx.put(keys.IDS, (highest + BLOCK).to_bytes(8, "big"))
        last = await tx.get(keys.NUMBERS)
        if volumes > (int.from_bytes(last, "big") if last else 0):
            tx.put(keys.NUMBERS, volumes.to_bytes(4, "big"))

    await transact(namespace.store, body)


async def _needed(
    namespace: Namespace, garbage: Garbage, owner: Owner, chunks: list[Chunk]
) -> bool:
    """Say whether any row still leads to any of a revision's records, or has its number."""
    view = namespace.store.view()
    try:
        row = await view.get(keys.prefix(owner.volume) + keys.revision_key(owner.revision))
    finally:
        view.close()
    if row is not None:
        return True
    return any([await garbage.refers(owner, chunk) for chunk in chunks])


async def _content(namespace: Namespace, chunks: list[Chunk]) -> tuple[list[Extent], int]:
    """Return extents and size of what a revision's records hold, oldest first.

    Raises:
        Corrupt: A record has no good copy left.
        NewerFormat: A later release wrote it.
    """
    containers = namespace.containers
    pieces = Pieces()
    end = 0  # of what was written one after the other
    size = 0
    for chunk in chunks:
        head = bytes(await containers.read(chunk, length=min(chunk.length, CHANGE_HEAD)))
        change = _change(head, chunk.length)
        if change is not None:
            if change.what == WRITE:
                pieces.lay(Piece(change.offset, change.length, chunk, CHANGE_HEAD))
                size = max(size, change.offset + change.length)
            elif change.what == HOLE:
                pieces.cut(change.offset, change.offset + change.length)
            else:
                pieces.cut(change.offset, max(size, change.offset) + 1)
                size = change.offset
            continue
        manifest = await _manifest(namespace, chunk, head)
        if manifest is None:
            pieces.lay(Piece(end, chunk.length, chunk))
            end += chunk.length
            size = max(size, end)
            continue
        pieces = Pieces()
        for extent in manifest.extents:
            pieces.lay(Piece(extent.offset, extent.length, extent.chunk, extent.skip))
        size = end = max((each.offset + each.length for each in manifest.extents), default=0)
    extents = [
        Extent(piece.offset, piece.length, piece.chunk, piece.skip)
        for piece in pieces
        if isinstance(piece.chunk, Chunk)
    ]
    return extents, size


def _change(head: bytes, length: int) -> Change | None:
    """Return what a record did to a file, None if it is no such record: its numbers would have to agree by chance."""
    if not CHANGE_HEAD <= length <= PAYLOAD_MAX or len(head) < CHANGE_HEAD:
        return None
    try:
        return unpack_change(head.ljust(length, b"\0"))
    except (Corrupt, NewerFormat):
        return None


async def _manifest(namespace: Namespace, chunk: Chunk, head: bytes) -> Manifest | None:
    """Return the manifest that a chunk holds, None if it is content."""
    if len(head) < 2 or head[0] not in (0x92, 0x93) or head[1] != FORMAT:  # an array that begins so
        return None
    try:
        return await load_manifest(namespace.containers, chunk)
    except Corrupt:
        return None


async def _volume(namespace: Namespace, number: int) -> tuple[str, bool]:
    """Return the name of the volume with a number, and whether it had to be made."""
    try:
        found = await namespace.volumes.numbered(number)
    except VolumeNotFound:
        pass
    else:
        if not found.row.name.startswith(DELETED):
            return found.row.name, False
    name = f"recovered-{number}"

    async def body(tx: Transaction) -> None:
        row = VolumeRow(FORMAT, number, name, namespace.clock_ns(), OWNER)
        tx.put(keys.volume_number_key(number), name.encode())
        tx.put(keys.volume_name_key(name), encode(row))
        tx.delete(keys.volume_name_key(f"{DELETED}{number}"))

    await transact(namespace.store, body)
    await namespace.volumes.reload(name)
    return name, True


async def _link(
    namespace: Namespace, volume: str, owner: Owner, extents: list[Extent], size: int
) -> None:
    target = await namespace.volumes.get(volume)
    kept, manifest, _ = await placed(
        namespace.containers, namespace.policy_of(target), owner, extents
    )
    etag = f"{owner.revision:032x}-0"  # opaque: nobody knows the one that it had
    key = FOLDER + f"{owner.revision:016x}".encode()

    async def body(change: NamespaceChange) -> None:
        path = await change.find(key)
        if not path.complete:
            await change.make_way(path)
        revision = Revision(change.epoch, size, etag, change.now_ns, kept, manifest, owner=OWNER)
        revision = msgspec.structs.replace(revision, listed=listed_of(manifest, extents))
        await change.put_revision(owner.revision, revision)
        await change.put_name(
            path,
            Name(
                change.epoch,
                FILE,
                owner.revision,
                owner.revision,
                0,
                NULL_VERSION,
                size,
                etag,
                change.now_ns,
                OWNER,
            ),
        )
        change.tell(Event("put", change.now_ns, key, inode=owner.revision, size=size, etag=etag))

    await namespace.change(volume, body)
