"""Keeping images of the index: when one is due, writing it beside the working node, letting go of the one before.

What an image costs is bounded by what was logged since the one before, and so is the log that is kept for it: the next one is due when
the journal has grown by `LOG` times the last image's size, or by `image_after`, whichever is more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from warp_core.containers.journal import Journal
from warp_core.containers.segments import START, Position
from warp_core.errors import NotFound, WarpError
from warp_core.interfaces.stores import BlobStore

from warp_local import image
from warp_local.image import End
from warp_local.index import Index

PACE = 1.0  # seconds of rest for each second of work on an image
LOG = 4  # bytes of log for each byte of the last image: with 1, images cost a third of what small PUTs do


class Images:
    """The images in the stores of the journal's copies. All calls come from the loop's thread."""

    def __init__(self, stores: Sequence[BlobStore], journal: Journal, after: int) -> None:
        """Take where images are kept, and the bytes of the journal after which the next is due."""
        self._stores = stores
        self._journal = journal
        self._after = after
        self._newest: dict[str, End] = {}  # store → its newest complete image
        self._logged = 0  # bytes that earlier runs logged since the oldest of these
        self._torn = False  # a full disk made an earlier run let go of the log behind the image
        self._counted_from = 0  # of `Journal.bytes_written`
        self.written = 0  # in this run
        self.bytes_written = 0  # to each store
        self.problem = ""  # why the last one could not be written

    async def find(self) -> None:
        """Look what there is."""
        for store in self._stores:
            try:
                found = await image.ends(store)
            except WarpError:
                continue  # a store that cannot be read is the journal's affair
            if found:
                self._newest[store.id] = found[0]
        self._torn = self.any and not await self._journal.reaches(self.position)
        self._logged = await self._journal.logged_since(self.position)
        self._counted_from = self._journal.bytes_written

    def _living(self) -> list[BlobStore]:
        dead = {copy.store.id for copy in self._journal.copies if not copy.alive}
        return [store for store in self._stores if store.id not in dead]

    @property
    def any(self) -> bool:
        """Whether there is an image at all."""
        return bool(self._newest)

    @property
    def position(self) -> Position:
        """Where the journal has to begin so that every living copy's image can be brought up to date; START without images.

        A copy without an image holds nothing back: it gets one next.
        """
        living = [self._newest[store.id] for store in self._living() if store.id in self._newest]
        return min((end.position for end in living), default=START)

    @property
    def logged(self) -> int:
        """Bytes in the journal since the last image."""
        return self._logged + self._journal.bytes_written - self._counted_from

    def due(self, *, begins: bool) -> bool:
        """Tell whether an image should be written now. `begins`: the journal still has its very beginning."""
        living = self._living()
        without = sum(store.id not in self._newest for store in living)
        if without == len(living):
            return not begins or self.logged >= self._after
        if without or self._torn:
            return True
        last = max(self._newest[store.id].size for store in living)
        return self.logged >= max(self._after, LOG * last)

    async def write(self, index: Index, *, stopped: Callable[[], bool]) -> bool:
        """Write an image of the index as it is now to every living copy; false if it was stopped, or already there.

        Raises:
            NoSpace, StoreFailed: A store did not take it; the image before stays.
        """
        dump = index.dump()
        try:
            state = dump.state
            stores = [
                store
                for store in self._living()
                if store.id not in self._newest or self._newest[store.id].version < state.version
            ]
            if not stores or not state.version:
                return False
            counted_from = self._journal.bytes_written
            behind = await self._journal.logged_since(state.position)
            for store in stores:
                await _clean(store, self._newest.get(store.id))
            number = rows = size = 0
            while True:
                began_s = time.monotonic()
                steps, count = await _finished(dump.part)
                if not steps:
                    break
                blob = image.pack_part(state.version, state.lineage, number, steps)
                await _put(stores, image.part_name(state.version, number), blob)
                number, rows, size = number + 1, rows + count, size + len(blob)
                if stopped():
                    return False
                await asyncio.sleep((time.monotonic() - began_s) * PACE)  # requests go first
                if stopped():
                    return False
            end = End(
                image.IMAGE_VERSION,
                state.lineage,
                state.version,
                state.container,
                state.offset,
                number,
                rows,
                size,
                dump.requests,
            )
        finally:
            dump.close()
        await _put(stores, image.end_name(end.version), image.pack_end(end))
        for store in stores:
            self._newest[store.id] = end
        self._logged, self._counted_from, self._torn = behind, counted_from, False
        self.written += 1
        self.bytes_written += size
        self.problem = ""
        for store in stores:
            await _clean(store, end)
        return True


async def _finished(work: Callable[[], tuple[list[bytes], int]]) -> tuple[list[bytes], int]:
    """Run something in a thread, and do not leave before it has ended: what it reads is closed then."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


async def _put(stores: Sequence[BlobStore], name: str, blob: bytes) -> None:
    results = await asyncio.gather(
        *(store.put(name, [blob]) for store in stores), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _clean(store: BlobStore, keep: End | None) -> None:
    """Delete what belongs to other images than the one to keep: first their ends, so that no image lacks parts."""
    names = [
        name
        for name in await image.blobs(store)
        if keep is None or image.version_of(name) != keep.version
    ]
    for name in sorted(names, key=lambda name: not name.endswith("/end")):
        try:
            await store.delete(name)
        except NotFound:
            continue
