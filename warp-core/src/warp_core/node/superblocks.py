"""Which store is whose: a small blob on each says which node uses it.

Placement knows stores by their own identity, not by path, so that disks may change places. A store
that was here before and now is empty is refused, because it is most likely a disk that is not
mounted, and writing below its mount point would fill another disk and scatter the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from warp_core.config import Part
from warp_core.containers import StoreSlot
from warp_core.errors import AlreadyRunning, Corrupt, NewerFormat, NotFound, StoreFailed
from warp_core.interfaces.stores import BlobStore
from warp_core.logs import get
from warp_core.node.data_directory import DataDirectory, Known

FORMAT = 1
NAME = "node/superblock"
_SIZE_MAX = 4096

log = get("warp_core.node")


class Superblock(msgspec.Struct, frozen=True):
    """Content of the blob, as JSON."""

    format: int
    node: str  # 32 hex digits


async def identify(
    directory: DataDirectory,
    stores: Sequence[tuple[Part, BlobStore]],
    *,
    replace: bool = False,
) -> list[StoreSlot]:
    """Return the open stores as placement wants them; new ones become this node's.

    Args:
        directory: The node's data directory.
        stores: What is configured, and the entered store of each.
        replace: Take an empty store where a known one was, because the old disk is gone for good.

    Raises:
        StoreFailed: A store that was here is empty now, or belongs to another node.
        AlreadyRunning: Two tables lead to the same store.
        NewerFormat, Corrupt: The superblock cannot be used.
    """
    blank: list[tuple[Part, BlobStore]] = []
    here: dict[str, str] = {}
    for part, store in stores:
        if store.id in here:
            raise AlreadyRunning(
                f"{part.key} ({place(part)}) is the same store as {here[store.id]}: remove one"
            )
        here[store.id] = f"{part.key} ({place(part)})"
        try:
            block = await _read(part, store)
        except StoreFailed as error:
            # Whose it is was seen before, and a store that keeps whole blobs may be away for a while.
            if not error.retryable or store.id not in directory.marker.stores:
                raise
            log.warning("store is away", store=store.id, place=place(part), error=str(error))
            continue
        if block is None:
            blank.append((part, store))
        elif block.node != directory.node:
            raise StoreFailed(
                f"{part.key} ({place(part)}) belongs to another node ({block.node[:8]}): check its path,"
                " or give it an empty folder"
            )
    missing = {name: each for name, each in directory.marker.stores.items() if name not in here}
    for part, store in blank:
        lost = next((name for name, each in missing.items() if each.place == place(part)), None)
        if lost is not None and not replace:
            raise StoreFailed(
                f"{part.key} ({place(part)}) is empty, but held the store {lost} of this node: mount its"
                " disk, or start once with --replace-stores if it is gone for good"
            )
        if lost is not None:
            directory.forget(lost)
            del missing[lost]
        await store.put(NAME, [msgspec.json.encode(Superblock(FORMAT, directory.node))])
    for name, each in missing.items():
        log.warning("store is not configured any more", store=name, place=each.place)
    directory.remember(
        {
            store.id: Known(part.name, place(part))
            for part, store in stores
            if store.capabilities.durable
        }
    )
    return [StoreSlot(place(part), store) for part, store in stores]


def place(part: Part) -> str:
    """Return where a store is, as configured, for people: its path, or what its configuration calls its `place`."""
    fields = msgspec.structs.asdict(part.config)
    return str(fields.get("path", "") or getattr(part.config, "place", "") or part.name)


async def _read(part: Part, store: BlobStore) -> Superblock | None:
    try:
        data = await store.read(NAME, offset=0, length=_SIZE_MAX)
    except NotFound:
        return None
    try:
        block = msgspec.json.decode(data, type=Superblock)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(
            f"{part.key} ({place(part)}): its superblock is damaged ({error}): the disk fails; replace it"
        ) from None
    if block.format > FORMAT:
        raise NewerFormat(
            f"{part.key} ({place(part)}) was written by a newer release (format {block.format}, this one"
            f" reads up to {FORMAT}): upgrade warp"
        )
    return block
