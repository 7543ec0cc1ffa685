"""A store that was away: what may be stale on it is deleted, and the journal is copied to it from a store that is whole.

Kept is a container's blob only if it is sealed and exactly as long as that of the whole store: everything in it was written and
synced on both before it was sealed. The rest may hold what was never acknowledged, or lack what was. Containers that are missing
afterwards come back by heal, which verifies every record; segments of the journal are copied as they are, since they have to be in
its order. Only sealed blobs are looked at, so a first pass may run while the whole store is being written to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from warp_core.containers.format import PAGE, Lane, State, lane_of, parse_blob_name
from warp_core.containers.pages import Page, unpack_page
from warp_core.errors import NotFound
from warp_core.interfaces.stores import BlobInfo, BlobStore

STEP = 1024 * 1024  # bytes moved at once
LIST_PAGE = 1000
AT_ONCE = (
    16  # blobs that are looked at: each takes round trips, and a store has one for every 64 MiB
)
OURS = (
    "c/",
    "ledger/",
    "journal/",
    "map",
)  # what a stack writes on a store, but for its superblock


@dataclass(slots=True)
class Resynced:
    """What was done."""

    deleted: int = 0
    copied: int = 0
    copied_bytes: int = 0


async def resync(
    source: BlobStore, target: BlobStore, *, last: bool, same: set[str] | None = None
) -> Resynced:
    """Make a target fit to be used beside a whole source.

    Args:
        source: Holds everything that was acknowledged.
        target: Was away, or was never used.
        last: Nothing is writing to the source: whatever differs goes.
        same: Names of sealed blobs that an earlier pass found alike on both, since when nobody wrote to the target; it adds to them.
            Under its name a sealed blob never changes, so they are not looked at again: while it is the last pass, nobody is served.

    Raises:
        StoreFailed: One of them does not answer; it may be repeated.
    """
    done = Resynced()
    wanted = await _blobs(source, "c/")
    present = await _blobs(target, "c/")
    alike = set() if same is None else same

    async def judge(name: str, info: BlobInfo) -> None:
        theirs = wanted.get(name)
        if theirs is not None and name in alike and theirs.size == info.size:
            return
        sealed = await _sealed_alike(source, theirs, target, info)
        if sealed:
            alike.add(name)
        elif sealed is False or last:
            await target.delete(name)
            done.deleted += 1

    await _each(present, judge)
    if last:
        for prefix in OURS[1:]:
            for name in await _blobs(target, prefix):
                await target.delete(name)
                done.deleted += 1
    kept = await _blobs(target, "c/")
    for name, info in wanted.items():
        parsed = parse_blob_name(name)
        if name in kept or parsed is None or lane_of(parsed[0]) != Lane.JOURNAL:
            continue
        with suppress(NotFound):  # it was freed meanwhile
            page = await _page(source, name)
            if page is not None and page.state == State.SEALED:
                size = await _copy(source, target, info)
                done.copied += 1
                done.copied_bytes += size
    return done


async def _each(
    blobs: Mapping[str, BlobInfo], do: Callable[[str, BlobInfo], Awaitable[None]]
) -> None:
    """Do something for each blob, AT_ONCE at a time; raises the first error."""
    left = iter(blobs.items())

    async def work() -> None:
        for name, info in left:
            await do(name, info)

    workers = [asyncio.create_task(work()) for _ in range(min(AT_ONCE, len(blobs)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _sealed_alike(
    source: BlobStore, wanted: BlobInfo | None, target: BlobStore, info: BlobInfo
) -> bool | None:
    """Say whether the target's blob is the source's, sealed; None if the source's is not sealed yet."""
    if wanted is None:
        return False
    with suppress(NotFound):
        theirs = await _page(source, wanted.name)
        if theirs is None or theirs.state != State.SEALED:
            return None
        ours = await _page(target, info.name)
        return (
            ours is not None
            and ours.state == State.SEALED
            and ours.container == theirs.container
            and ours.size == theirs.size
            and ours.rewrite == theirs.rewrite
            and info.size == wanted.size
        )
    return False


async def _page(store: BlobStore, name: str) -> Page | None:
    return unpack_page(await store.read(name, offset=0, length=PAGE))


async def _copy(source: BlobStore, target: BlobStore, info: BlobInfo) -> int:
    """Copy a sealed blob, its page last: without that the copy counts for nothing."""
    size = (await source.stat(info.name)).size
    await target.create(info.name, reserve=size)
    for offset in range(PAGE, size, STEP):
        data = await source.read(info.name, offset=offset, length=min(STEP, size - offset))
        await target.write(info.name, offset=offset, buffers=[data])
    await target.sync(info.name)
    page = await source.read(info.name, offset=0, length=PAGE)
    await target.write(info.name, offset=0, buffers=[page], sync=True)
    await target.seal(info.name, size=size)
    return size


async def _blobs(store: BlobStore, prefix: str) -> dict[str, BlobInfo]:
    found: dict[str, BlobInfo] = {}
    after = ""
    while True:
        page = await store.list(prefix, after=after, limit=LIST_PAGE)
        found.update((info.name, info) for info in page)
        if len(page) < LIST_PAGE:
            return found
        after = page[-1].name
