"""Which store is which: a small blob on each store says whose it is.

Placement knows stores by identity, not by path, so that disks may change places. A store that was
here before and now is empty is refused, because it is most likely a disk that is not mounted, and
writing below its mount point would fill another disk and scatter the data.
"""

from __future__ import annotations

import secrets
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
    store: str  # 16 hex digits


async def identify(
    directory: DataDirectory,
    stores: Sequence[tuple[Part, BlobStore]],
    *,
    replace: bool = False,
) -> list[StoreSlot]:
    """Return the open stores by identity; new ones are given one.

    Args:
        directory: The node's data directory.
        stores: What is configured, and the entered store of each.
        replace: Take an empty store where a known one was, because the old disk is gone for good.

    Raises:
        StoreFailed: A store that was here is empty now, or belongs to another node.
        AlreadyRunning: Two tables lead to the same store.
        NewerFormat, Corrupt: The superblock cannot be used.
    """
    slots: list[StoreSlot] = []
    blank: list[tuple[Part, BlobStore]] = []
    places: dict[str, str] = {}
    for part, store in stores:
        block = await _read(part, store)
        if block is None:
            blank.append((part, store))
            continue
        if block.node != directory.node:
            raise StoreFailed(
                f"{part.key} ({place(part)}) belongs to another node ({block.node[:8]}): check its path,"
                " or give it an empty folder"
            )
        if block.store in places:
            raise AlreadyRunning(
                f"{part.key} ({place(part)}) is the same store as {places[block.store]}: remove one"
            )
        places[block.store] = f"{part.key} ({place(part)})"
        slots.append(StoreSlot(block.store, store))
    missing = {name: each for name, each in directory.marker.stores.items() if name not in places}
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
        identity = secrets.token_hex(8)
        block = Superblock(FORMAT, directory.node, identity)
        await store.put(NAME, [msgspec.json.encode(block)])
        slots.append(StoreSlot(identity, store))
        places[identity] = f"{part.key} ({place(part)})"
    for name, each in missing.items():
        log.warning("store is not configured any more", store=name, place=each.place)
    by_store = {id(store): part for part, store in stores}
    directory.remember(
        {
            slot.name: Known(by_store[id(slot.store)].name, place(by_store[id(slot.store)]))
            for slot in slots
            if slot.store.capabilities.durable
        }
    )
    return slots


def place(part: Part) -> str:
    """Return where a store is, as configured, for people."""
    fields = msgspec.structs.asdict(part.config)
    return str(fields.get("path", "") or part.name)


async def _read(part: Part, store: BlobStore) -> Superblock | None:
    try:
        data = await store.read(NAME, offset=0, length=_SIZE_MAX)
    except NotFound:
        return None
    try:
        block = msgspec.json.decode(data, type=Superblock)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(
            f"{part.key} ({place(part)}): its superblock is damaged ({error}): run `warp fsck --rebuild`"
        ) from None
    if block.format > FORMAT:
        raise NewerFormat(
            f"{part.key} ({place(part)}) was written by a newer release (format {block.format}, this one"
            f" reads up to {FORMAT}): upgrade warp"
        )
    return block
