"""An open container: it is written on all its stores at once, and keeps its copies when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warp_core.containers.fleet import Container, Copy, Fleet
from warp_core.containers.format import PAGE, State, align
from warp_core.containers.pages import Page, pack_page
from warp_core.containers.policy import StoreSlot
from warp_core.errors import NoSpace, StoreFailed, Unavailable, WarpError
from warp_core.interfaces.stores import Buffer

COPY_STEP = 1024 * 1024  # bytes moved at once when a lost copy is made anew


class OpenContainer:
    """A container that grows. `tail` is where its next record will begin; one task places records, many may write them."""

    def __init__(self, fleet: Fleet, wanted: int, place: int = 0) -> None:
        self.id = fleet.new_id(place)
        self.wanted = wanted
        self.kept = (wanted, place)
        self.tail = PAGE
        self.created = False
        self.entry: Container = fleet.entry(self.id)
        self.entry.open = True
        self.entry.wanted = wanted
        self._fleet = fleet
        self._created_ns = fleet.now_ns()
        self._failed: dict[str, WarpError] = {}  # store id → what happened to the copy there

    @property
    def enough(self) -> int:
        """Copies with which what is written here may be acknowledged now."""
        return self._fleet.standing.enough(self.wanted)

    @property
    def room(self) -> int:
        """Bytes until the container is full."""
        return self._fleet.reserve - self.tail

    def place(self, size: int) -> int:
        """Claim `size` bytes at the tail and return where they begin."""
        offset = self.tail
        self.tail = align(offset + size)
        self.entry.filled = self.tail - PAGE
        return offset

    async def create(self) -> None:
        """Make the blobs, on `wanted` stores.

        Raises:
            Unavailable: Fewer stores are here.
            NoSpace: They are here, but full.
        """
        fleet = self._fleet
        fleet.check_policy(*self.kept)
        candidates = await fleet.candidates(self.id, fleet.reserve)
        while len(self.entry.copies) < self.enough and candidates:
            missing = self.enough - len(self.entry.copies)
            batch, candidates = candidates[:missing], candidates[missing:]
            await asyncio.gather(*(self._add_copy(slot) for slot in batch))
        if len(self.entry.copies) < self.enough and not await self._do_with_fewer():
            made = len(self.entry.copies)
            await self.drop()
            raise self._shortage(made)
        self.created = True

    async def write(self, offset: int, buffers: Sequence[Buffer], *, sync: bool = False) -> None:
        """Write on every copy; a copy that fails is left behind, and made anew by the next `sync`.

        Raises:
            StoreFailed, NoSpace: No copy is left.
        """
        copies = self.entry.copies
        if len(copies) == 1:
            copy = copies[0]
            try:
                await copy.slot.store.write(copy.name, offset=offset, buffers=buffers, sync=sync)
            except WarpError as error:
                self._lose(copy, error)
                raise
            return
        if not copies:
            raise self._gone()
        await asyncio.gather(
            *(self._write(copy, offset, buffers, sync=sync) for copy in tuple(copies))
        )
        if not self.entry.copies:
            raise self._gone()

    async def sync(self) -> None:
        """Make everything that was written durable on as many copies as are wanted. No write may be on its way.

        Raises:
            StoreFailed, NoSpace, Unavailable: It is not, and nothing of what was written since the last sync may be acknowledged.
        """
        await asyncio.gather(*(self._sync(copy) for copy in tuple(self.entry.copies)))
        while len(self.entry.copies) < self.enough:
            try:
                await self._replace()
            except WarpError:
                if not await self._do_with_fewer():
                    raise

    async def seal(self) -> None:
        """Sync, and end growth: cut the blobs and mark the pages. Harmless when repeated.

        Raises:
            StoreFailed, NoSpace, Unavailable: As `sync`.
        """
        if not self.entry.open:
            return
        page = pack_page(self._page(State.SEALED))
        if self.created:
            await self.write(0, [page])
            await self.sync()
            await asyncio.gather(*(self._seal(copy) for copy in tuple(self.entry.copies)))
        self.entry.size = self.tail
        self.entry.open = False

    async def drop(self) -> None:
        """Delete every copy: nothing in it was ever used."""
        copies, self.entry.copies = self.entry.copies, []
        await asyncio.gather(
            *(self._fleet.delete_blob(copy) for copy in copies), return_exceptions=True
        )  # what is not even deleted later is an empty container after the next start
        self.entry.open = False
        self._fleet.containers.pop(self.id, None)

    async def _do_with_fewer(self) -> bool:
        """Say whether the copies that there are suffice from now on; raises as `Standing.leave`."""
        slots = [copy.slot for copy in self.entry.copies]
        if not slots or not self._fleet.only_failing(slots):
            return False
        await self._fleet.standing.leave([slot.store.id for slot in slots])
        return len(self.entry.copies) >= self.enough

    def _page(self, state: State) -> Page:
        size = self.tail if state == State.SEALED else 0
        return Page(
            self.id, state=state, copies=self.wanted, created_ns=self._created_ns, size=size
        )

    def _lose(self, copy: Copy, error: WarpError) -> None:
        if copy in self.entry.copies:
            self.entry.copies.remove(copy)
        self._failed[copy.slot.store.id] = error
        if not isinstance(error, NoSpace):
            self._fleet.suspect(copy.slot)

    def _gone(self) -> WarpError:
        error = next(iter(self._failed.values()), None)
        kind = type(error) if isinstance(error, NoSpace) else StoreFailed
        return kind(f"container {self.id:016x} has no copy left that takes writes: {error}")

    def _shortage(self, made: int) -> WarpError:
        errors = [error for error in self._failed.values() if not isinstance(error, NoSpace)]
        text = f"{self.wanted} copies are wanted, {made} found a store; {self._fleet.describe_stores()}"
        if errors:
            return Unavailable(f"{text}; {errors[0]}")
        failing = [slot.name for slot in self._fleet.slots if not self._fleet.healthy(slot)]
        if failing:
            return Unavailable(f"{text}; failing: {', '.join(failing)}")
        return NoSpace(text)

    async def _add_copy(self, slot: StoreSlot) -> None:
        copy = Copy(slot, self.id, 0, self._fleet.reserve, self._fleet.reserve)
        try:
            await slot.store.create(copy.name, reserve=self._fleet.reserve)
            await slot.store.write(copy.name, offset=0, buffers=[pack_page(self._page(State.OPEN))])
        except WarpError as error:
            self._lose(copy, error)
        else:
            self.entry.copies.append(copy)

    async def _write(
        self, copy: Copy, offset: int, buffers: Sequence[Buffer], *, sync: bool
    ) -> None:
        try:
            await copy.slot.store.write(copy.name, offset=offset, buffers=buffers, sync=sync)
        except WarpError as error:
            self._lose(copy, error)

    async def _sync(self, copy: Copy) -> None:
        try:
            await copy.slot.store.sync(copy.name)
        except WarpError as error:
            self._lose(copy, error)

    async def _seal(self, copy: Copy) -> None:
        try:
            await copy.slot.store.seal(copy.name, size=self.tail)
        except WarpError:
            copy.bad = True  # complete and synced, but not cut: heal writes it anew
        else:
            copy.size = copy.allocated = self.tail

    async def _replace(self) -> None:
        """Make a new copy of everything that was written, from one that is left, and sync it."""
        if not self.entry.copies:
            raise self._gone()
        fleet = self._fleet
        source = self.entry.copies[0]
        busy = [copy.slot for copy in self.entry.copies]
        for slot in await fleet.candidates(self.id, fleet.reserve, without=busy):
            if slot.store.id in self._failed:
                continue
            await self._add_copy(slot)
            copy = next((one for one in self.entry.copies if one.slot is slot), None)
            if copy is None:
                continue
            try:
                for offset in range(0, self.tail, COPY_STEP):
                    step = min(COPY_STEP, self.tail - offset)
                    data = await source.slot.store.read(source.name, offset=offset, length=step)
                    await slot.store.write(copy.name, offset=offset, buffers=[data])
                await slot.store.sync(copy.name)
            except WarpError as error:
                self._lose(copy, error)
                continue
            return
        raise self._shortage(len(self.entry.copies))
