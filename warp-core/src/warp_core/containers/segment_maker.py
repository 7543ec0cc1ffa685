"""Makes the segments of one run of the journal ahead of their use, seals them afterwards, deletes them in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from warp_core.containers import format as fmt
from warp_core.containers import segments as seg
from warp_core.containers.generations import Copies
from warp_core.containers.pages import Page, pack_page
from warp_core.containers.segments import Segment
from warp_core.errors import NoSpace, NotFound, WarpError
from warp_core.interfaces.stores import BlobStore

TIGHT_SIZE = 4 * 1024 * 1024  # of a segment that grows into a full store's reserve
TIGHT_RETRY_S = 1.0  # how often a full store is asked again


class SegmentMaker:
    """Keeps the next segment ready: `spare`, with its size. `tight` says why none of full size could be made.

    `pressed` tells whether a small one, from the stores' reserve, is needed soon; `failed` hears when no copy is left.
    """

    def __init__(
        self,
        copies: Copies,
        *,
        size: int,
        wall_ns: Callable[[], int],
        pressed: Callable[[], bool],
        failed: Callable[[WarpError], None],
    ) -> None:
        self.epoch = 0
        self.spare: Segment | None = None
        self.tight: NoSpace | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self._copies = copies
        self._size = size
        self._wall_ns = wall_ns
        self._pressed = pressed
        self._failed = failed
        self._counter = 0
        self._making: asyncio.Task[None] | None = None
        self._tight_since_s = 0.0

    @property
    def next_id(self) -> int:
        """The id that the next segment will have, greater than all before."""
        return fmt.container_id(fmt.Lane.JOURNAL, self.epoch, self._counter)

    def take(self) -> Segment:
        """Hand over the spare; there has to be one."""
        segment, self.spare = self.spare, None
        assert segment is not None
        return segment

    # Making ---------------------------------------------------------------------------------------

    def begin(self) -> asyncio.Task[None]:
        """Begin to make the spare, unless that is under way."""
        if self._making is None:
            self._making = self.background(self._make_once())
        return self._making

    async def wait(self) -> None:
        """Wait until an attempt to make the spare is over."""
        await asyncio.wait([self.begin()])

    def try_again(self) -> None:
        """Look, now and then, whether a full store has space again."""
        if asyncio.get_running_loop().time() - self._tight_since_s > TIGHT_RETRY_S:
            self.begin()

    async def _make_once(self) -> None:
        try:
            await self.make()
        finally:
            self._making = None

    async def make(self) -> None:
        """Create the spare on every living copy; if there is no room for it, note it in `tight`.

        Raises:
            ReadOnly: No copy is left.
        """
        if self.spare is not None and self.tight is None:
            return
        try:
            spare = await self._create(self._size, recycle=True)
        except NoSpace as error:
            # Payloads are refused from now on; commits, which deletes need, may use the stores' reserve.
            self.tight = error
            self._tight_since_s = asyncio.get_running_loop().time()
            if self.spare is None and self._pressed():
                with suppress(NoSpace):
                    self.spare = await self._create(min(TIGHT_SIZE, self._size), vital=True)
            return
        small, self.spare, self.tight = self.spare, spare, None
        if small is not None:
            await self.delete(small.blob)

    async def _create(self, size: int, *, recycle: bool = False, vital: bool = False) -> Segment:
        """Create a segment on every living copy.

        Raises:
            NoSpace: A store is too full.
            ReadOnly: No copy is left.
        """
        container = self.next_id
        self._counter += 1
        blob = fmt.blob_name(container)
        page = pack_page(Page(container, copies=len(self._copies.all), created_ns=self._wall_ns()))

        async def create(store: BlobStore) -> None:
            await store.create(blob, reserve=size, recycle=recycle, vital=vital)
            await store.write(blob, offset=0, buffers=[page], sync=True)

        try:
            await self._copies.each(create, room=True)
        except NoSpace:
            await self.delete(blob)
            raise
        return Segment(container, self._copies.stores, size=size)

    # Ending ---------------------------------------------------------------------------------------

    async def seal(self, segment: Segment, end: int) -> None:
        """Seal a segment that nothing will be appended to. One that holds commits only stays as it is, to be recycled.

        Raises:
            ReadOnly: No copy is left.
        """
        await self._copies.each(
            partial(
                seg.seal,
                container=segment.container,
                size=end,
                copies=len(self._copies.all),  # those that are away now are made up for by heal
                created_ns=self._wall_ns(),
                keep=not segment.payload,
            )
        )
        segment.stores = self._copies.stores
        segment.size, segment.sealed = end, True

    async def delete(self, blob: str) -> None:
        """Delete a blob from the living copies.

        Raises:
            ReadOnly: No copy is left.
        """

        async def delete(store: BlobStore) -> None:
            with suppress(NotFound):
                await store.delete(blob)

        await self._copies.each(delete)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that the caller does not wait for."""

        async def guarded() -> None:
            try:
                await work
            except WarpError as error:
                self._failed(error)

        task = asyncio.create_task(guarded(), name="journal segments")
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def settle(self) -> None:
        """Wait for everything that goes on in the background."""
        while self.tasks:
            await asyncio.gather(*self.tasks, return_exceptions=True)
