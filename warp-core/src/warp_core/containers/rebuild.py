"""Writing a copy anew: compaction, repair and healing are this one thing, with different records left out and other places.

The new blob is written beside the old one, its page last. Until the page is durable the old one counts, afterwards the new one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from warp_core.containers.fleet import Container, Copy, Fleet
from warp_core.containers.format import (
    PAGE,
    Form,
    Head,
    State,
    bad_frames,
    checksum,
    unpack_head,
)
from warp_core.containers.pages import Map, Page, pack_page, unpack_page
from warp_core.containers.policy import StoreSlot
from warp_core.containers.records import PIECE_FRAMES, read_stretch, stored, stretches
from warp_core.errors import AlreadyExists, Corrupt, WarpError
from warp_core.interfaces.stores import Buffer

BUFFERS_MAX = 1000  # of one write: the kernel takes 1024 at once


async def rebuild(
    fleet: Fleet, entry: Container, keep: Sequence[Head], slot: StoreSlot, *, vital: bool = False
) -> Copy:
    """Write the records `keep` (by offset) as the container's copy on `slot`, verify it by reading it back, and switch to it.

    Args:
        vital: It frees space: the store's reserve may be used.

    Raises:
        Corrupt: A record has no good copy; nothing changed.
        NoSpace, StoreFailed: As the store says; nothing changed.
    """
    old = next((copy for copy in entry.copies if copy.slot is slot), None)
    rewrite = (old.rewrite if old else max((copy.rewrite for copy in entry.copies), default=0)) + 1
    mapped = Map(_runs(keep))
    size = mapped.end + 8 * len(mapped.offsets)
    copy = Copy(slot, entry.id, rewrite, size, size)
    copy.map = mapped
    if slot.store.capabilities.grow:
        await _grow(fleet, entry, keep, copy, vital=vital)
    else:
        await _put(fleet, entry, keep, copy, vital=vital)
    if old is not None and old in entry.copies:
        entry.copies.remove(old)
    if fleet.standing.uses(slot.store.id):  # else it was left behind meanwhile
        entry.copies.append(copy)
    if old is not None:
        await fleet.delete_blob(old)
    return copy


async def _grow(
    fleet: Fleet, entry: Container, keep: Sequence[Head], copy: Copy, *, vital: bool
) -> None:
    store = copy.slot.store
    with suppress(AlreadyExists):  # what a cut-off attempt of this run left there
        await store.create(copy.name, reserve=copy.size, vital=vital)
    try:
        await _write(fleet, entry, keep, copy)
        await _verify(keep, copy)
        await store.seal(copy.name, size=copy.size)
    except BaseException:
        with suppress(WarpError):  # without a valid page it counts for nothing
            await store.delete(copy.name)
        raise


async def _put(
    fleet: Fleet, entry: Container, keep: Sequence[Head], copy: Copy, *, vital: bool
) -> None:
    """Put a copy whole where nothing grows: a container's worth of memory, which only one rewriting at a time takes.

    Such a store compares sums before it keeps anything, and reading it back may be slow or cost money, so only its size is looked at.
    """
    store, mapped = copy.slot.store, copy.map
    assert mapped is not None
    packed = mapped.pack()
    buffers: list[Buffer] = [pack_page(_page(fleet, entry, copy, packed))]
    buffers += [bytes(piece) async for piece in stored(fleet, entry, keep)]
    buffers.append(packed)
    # One that comes although its answer does not is written over by the next attempt, or swept when the container is gone.
    await store.put(copy.name, buffers, vital=vital)
    found = await store.stat(copy.name)
    if found.size != copy.size:
        raise Corrupt(
            f"{copy.name} on store {copy.slot.name} has {found.size} bytes, not {copy.size}"
        )


def _page(fleet: Fleet, entry: Container, copy: Copy, packed: bytes) -> Page:
    assert copy.map is not None
    return Page(
        entry.id, form=Form.COMPACTED, state=State.SEALED, copies=entry.wanted, created_ns=fleet.now_ns(),
        rewrite=copy.rewrite, size=entry.size, map_entries=len(copy.map.offsets), map_place=copy.map.end,
        map_checksum=checksum(packed),
    )  # fmt: skip


def _runs(keep: Sequence[Head]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for head in keep:
        length = head.next - head.offset
        if runs and runs[-1][0] + runs[-1][1] == head.offset:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((head.offset, length))
    return runs


async def _write(fleet: Fleet, entry: Container, keep: Sequence[Head], copy: Copy) -> None:
    store, mapped = copy.slot.store, copy.map
    assert mapped is not None
    batch: list[Buffer] = []
    size, at = 0, PAGE
    async for piece in stored(fleet, entry, keep):
        batch.append(piece)
        size += len(piece)
        if size >= PIECE_FRAMES * 64 * 1024 or len(batch) >= BUFFERS_MAX:
            await store.write(copy.name, offset=at, buffers=batch)
            batch, at, size = [], at + size, 0
    packed = mapped.pack()
    batch.append(packed)
    await store.write(copy.name, offset=at, buffers=batch, sync=True)
    page = pack_page(_page(fleet, entry, copy, packed))
    await store.write(copy.name, offset=0, buffers=[page], sync=True)


async def _verify(keep: Sequence[Head], copy: Copy) -> None:
    """Read back what was written.

    Raises:
        Corrupt: The store did not keep it.
    """
    store = copy.slot.store
    page = unpack_page(await store.read(copy.name, offset=0, length=PAGE))
    if page is None or page.rewrite != copy.rewrite:
        raise Corrupt(f"{copy.name} on store {copy.slot.name} lost its page")
    runs = list(stretches(keep, copy))
    assert sum(map(len, runs)) == len(keep), "the map was made of these records"
    for run in runs:
        if len(run) == 1:
            await _verify_one(*run[0], copy)
            continue
        for (head, _), data in zip(run, await read_stretch(copy, run), strict=True):
            if data is None:
                raise Corrupt(
                    f"{copy.name} on store {copy.slot.name} lost the record at {head.offset}"
                )


async def _verify_one(head: Head, position: int, copy: Copy) -> None:
    store = copy.slot.store
    if unpack_head(await store.read(copy.name, offset=position, length=head.size)) != head:
        raise Corrupt(f"{copy.name} on store {copy.slot.name} lost the head at {head.offset}")
    for first in range(0, len(head.ends), PIECE_FRAMES):
        begin, end = head.span(first, min(first + PIECE_FRAMES, len(head.ends)) - 1)
        data = await store.read(copy.name, offset=position + begin, length=end - begin)
        if len(data) < end - begin or bad_frames(head, first, data):
            raise Corrupt(f"{copy.name} on store {copy.slot.name} lost frames at {head.offset}")
