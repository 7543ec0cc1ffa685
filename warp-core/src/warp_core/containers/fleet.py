"""The fleet: the stores of a node, which container has which copies where, and what the ledger knows of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from warp_core.containers.format import (
    CONTAINER_SIZE,
    PAGE,
    PLACES_MAX,
    Form,
    Lane,
    State,
    blob_name,
    checksum,
    container_id,
    epoch_of,
    is_container,
    lane_at,
    lane_of,
    parse_blob_name,
    place_of,
)
from warp_core.containers.ledger import Ledger
from warp_core.containers.pages import Map, Page, unpack_page
from warp_core.containers.placement import ClusterMap, Member, pack_map, unpack_map
from warp_core.containers.policy import Place, StoreSlot
from warp_core.containers.reclaim import Pins
from warp_core.containers.standing import ALONE, Standing
from warp_core.errors import (
    Corrupt,
    NoSpace,
    NotFound,
    StoreFailed,
    TooLarge,
    Unavailable,
    WarpError,
)

TABLES = 64  # a container has that part of its payload more, for heads and tables: eight chunks of 8 MiB fit into one of 64
MAP_BLOB = "map"
LOOK_S = 1.0  # between looks whether a store is back that was away at the start
PROBATION_S = 30.0  # a store that answered with an I/O error gets no new containers for this long
LIST_PAGE = 1000
DOOMED_MAX = 100_000  # blobs remembered to be deleted later; sweeping finds the others
SWEEP_S = 60.0  # between two pages of names that are looked through for what nobody deleted: a bucket's lists cost money


class Copy:
    """One blob of a container. `map` is set once the page was read, for the compacted form."""

    __slots__ = ("allocated", "bad", "container", "map", "name", "rewrite", "size", "slot")

    def __init__(
        self, slot: StoreSlot, container: int, rewrite: int, size: int, allocated: int
    ) -> None:
        self.slot = slot
        self.container = container
        self.name = blob_name(container, rewrite)
        self.rewrite = rewrite
        self.size = size
        self.allocated = allocated
        self.map: Map | None = None
        self.bad = False  # something in it was found damaged or missing: heal writes it anew

    def position(self, offset: int) -> int | None:
        """Return where a container offset lies in the blob; the map must be known."""
        if not self.rewrite:
            return offset
        return self.map.position(offset) if self.map is not None else None

    def stretches(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield (position, length) of what the blob has of some ranges (offset, length) of the container; ascending and apart."""
        if self.map is None:
            yield from ranges
            return
        runs = list(self.map.runs())
        at = 0
        for offset, length in ranges:
            while at < len(runs) and runs[at][0] + runs[at][1] <= offset:
                at += 1
            next_run = at
            while next_run < len(runs) and runs[next_run][0] < offset + length:
                begin, size, position = runs[next_run]
                next_run += 1
                first = max(begin, offset)
                yield position + first - begin, min(begin + size, offset + length) - first


class Container:
    """What the node knows of one container. `size` is the offset behind its last record, 0 while that is not known."""

    __slots__ = ("copies", "doubtful", "filled", "id", "open", "size", "wanted")

    def __init__(self, container: int, wanted: int) -> None:
        self.id = container
        self.wanted = wanted  # copies; 0: not known before a page was read
        self.copies: list[Copy] = []
        self.size = 0
        self.open = False  # somebody appends to it
        self.doubtful = (
            False  # made by a session that crashed: its records may never have been linked
        )
        self.filled = 0  # bytes of records while it is open

    @property
    def live(self) -> bool:
        """Whether any store that is here has it."""
        return bool(self.copies)


class Fleet:
    """Stores and catalogue. Everything here is for the parts of the data plane."""

    def __init__(
        self,
        slots: Sequence[StoreSlot],
        *,
        now_ns: Callable[[], int],
        monotonic: Callable[[], float],
        container_size: int = CONTAINER_SIZE,
        standing: Standing = ALONE,
        places: Sequence[Place] = (),
    ) -> None:
        self.slots = tuple(slots)
        self.standing = standing
        self.places = tuple(places)
        apart = {slot.store.id for place in places for slot in place.slots}
        # The stores of everything that is not said to lie elsewhere.
        self.common = tuple(slot for slot in slots if slot.store.id not in apart)
        self._numbers: dict[str, int] = {}
        self._places: dict[int, Place] = {}
        self.ledger = Ledger(self.common, now_ns=now_ns, uses=standing.uses)
        self.pins = Pins()
        self.containers: dict[int, Container] = {}
        self.map = ClusterMap()
        self.rewriting = asyncio.Lock()  # held by whoever writes a copy anew or deletes a container
        self.now_ns = now_ns
        self.container_size = container_size
        self.reserve = PAGE + container_size + container_size // TABLES & -PAGE
        self.monotonic = monotonic
        self._by_id: dict[str, StoreSlot] = {}
        self._suspect: dict[str, float] = {}  # store id → until when it gets nothing new
        self.unseen: list[StoreSlot] = []  # that were away at the start, and not looked through yet
        self._looked_s = 0.0
        # What stores did not delete when they were asked, by store and name.
        self._doomed: dict[tuple[str, str], Copy] = {}
        self._swept: dict[str, str] = {}  # store id → the name that its sweep has come to
        self._swept_s = monotonic()
        self._counter = itertools.count(1)
        self._last_sequence = 0

    # Opening --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read map, ledger and inventory; finish what a crash interrupted.

        Raises:
            Unavailable: There is no store.
            NewerFormat: A store was written by a later release.
        """
        if not self.slots:
            raise Unavailable("no store is here: add a [[store]] to the configuration")
        self._by_id = {slot.store.id: slot for slot in self.slots}
        self.standing.on_leave(self._forget_stores)
        if len(self._by_id) < len(self.slots):
            raise Unavailable("two of the configured stores are the same one")
        await self._open_map()
        found = []
        for slot in self.slots:
            if not self.standing.uses(slot.store.id):
                continue
            try:
                found.append((slot, await self._take_inventory(slot)))
            except StoreFailed as error:
                if slot in self.common or not error.retryable:
                    raise
                self.unseen.append(slot)
        await self.ledger.open(
            max((epoch_of(one) for _, copies in found for one in copies), default=0)
        )
        for slot, copies in found:
            await self._admit(slot, copies)

    async def look_again(self) -> None:
        """Look through stores that were away at the start, if they are back; not more often than each LOOK_S."""
        now_s = self.monotonic()
        if not self.unseen or now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for slot in tuple(self.unseen):
            try:
                found = await self._take_inventory(slot)
            except StoreFailed:
                continue
            if slot in self.unseen:  # no other call was faster
                self.unseen.remove(slot)
                await self._admit(slot, found)

    def seen(self, container: int) -> bool:
        """Say whether every store that may have a container was looked through."""
        return not self.unseen or all(slot not in self.unseen for slot in self.where(container))

    async def _open_map(self) -> None:
        used = [slot for slot in self.slots if self.standing.uses(slot.store.id)]
        found = await asyncio.gather(*(self._read_map(slot) for slot in used))
        newest = max(
            (one for one in found if one is not None), key=lambda m: m.version, default=ClusterMap()
        )
        here = [Member(slot.store.id, slot.name, slot.domain) for slot in self.slots]
        self.map = newest.joined(here, [place.name for place in self.places])
        if len(self.map.places) > PLACES_MAX:
            raise TooLarge(f"{len(self.map.places)} classes had stores of their own > {PLACES_MAX}")
        self._numbers = {name: number for number, name in enumerate(self.map.places, 1)}
        self._places = {self._numbers[place.name]: place for place in self.places}
        stale = [slot for slot, one in zip(used, found, strict=True) if one != self.map]
        for slot in stale:
            with suppress(NoSpace, StoreFailed):  # the others have it
                await slot.store.put(MAP_BLOB, [pack_map(self.map)], vital=True)

    async def _read_map(self, slot: StoreSlot) -> ClusterMap | None:
        try:
            return unpack_map(await slot.store.read(MAP_BLOB, offset=0, length=1024 * 1024))
        except (NotFound, StoreFailed):
            return None

    async def _take_inventory(self, slot: StoreSlot) -> dict[int, list[Copy]]:
        after = "c/"
        found: dict[int, list[Copy]] = {}
        while True:
            page = await slot.store.list("c/", after=after, limit=LIST_PAGE)
            for info in page:
                name = parse_blob_name(info.name)
                if name is not None:
                    copy = Copy(slot, name[0], name[1], info.size, info.allocated)
                    found.setdefault(name[0], []).append(copy)
            if len(page) < LIST_PAGE:
                break
            after = page[-1].name
        return found

    async def _admit(self, slot: StoreSlot, found: dict[int, list[Copy]]) -> None:
        """Take up the inventory of one store; one of a place that went away meanwhile is looked through again."""
        decided = [await self._admit_copies(container, some) for container, some in found.items()]
        if not all(decided) and slot not in self.common and slot not in self.unseen:
            self.unseen.append(slot)

    async def _admit_copies(self, container: int, copies: list[Copy]) -> bool:
        """Keep the newest finished blob of one store; delete what a crash left behind.

        A blob whose page cannot be read is neither: it is left alone. Return whether there is no use in looking again.
        """
        known = self.containers.get(container)
        if known is not None and any(one.slot is copies[0].slot for one in known.copies):
            return True  # it was taken up before the store went away
        if self.ledger.known.is_gone(container):
            for copy in copies:
                await self.delete_blob(copy)
            return True
        copies.sort(key=lambda copy: copy.rewrite, reverse=True)
        kept: Copy | None = None
        decided = True
        for copy in copies:
            page = None
            if (
                len(copies) > 1 or copy.size < PAGE or copy.size % PAGE == 0
            ):  # what was reserved is whole pages
                try:
                    page = unpack_page(await copy.slot.store.read(copy.name, offset=0, length=PAGE))
                except StoreFailed as error:
                    if kept is None and (len(copies) > 1 or copy.size < PAGE):
                        decided = decided and not error.retryable
                        continue
                except NotFound:
                    pass
            unfinished = (
                page is None and (len(copies) > 1 or copy.size < PAGE)
            ) or kept is not None
            if unfinished:
                await self.delete_blob(copy)
                continue
            kept = copy
            entry = self.entry(container)
            entry.copies.append(copy)
            if page is not None:
                entry.wanted = page.copies
                entry.size = max(entry.size, page.size)
            if is_container(container) and not self.ledger.known.is_asked(container):
                entry.doubtful = epoch_of(container) != self.ledger.epoch
        return decided

    async def _page(self, copy: Copy) -> Page | None:
        try:
            return unpack_page(await copy.slot.store.read(copy.name, offset=0, length=PAGE))
        except (NotFound, StoreFailed):
            return None

    def _forget_stores(self, stores: frozenset[str]) -> None:
        """Count on nothing that stores have which were left behind: they get nothing more, so what they have is stale by and by."""
        self.unseen = [slot for slot in self.unseen if slot.store.id not in stores]
        for entry in self.containers.values():
            if any(copy.slot.store.id in stores for copy in entry.copies):
                entry.copies[:] = [
                    copy for copy in entry.copies if copy.slot.store.id not in stores
                ]

    # Deleting -------------------------------------------------------------------------------------

    async def delete_blob(self, copy: Copy) -> bool:
        """Delete a blob that counts for nothing any more; one that its store cannot delete now is tried again by `bury`.

        Return whether it is gone.
        """
        try:
            await copy.slot.store.delete(copy.name)
        except NotFound:
            pass
        except StoreFailed:
            self.doom(copy)
            return False
        return True

    def doom(self, copy: Copy) -> None:
        """Have a blob deleted by the next `bury`, unless its name is in use again by then."""
        if len(self._doomed) < DOOMED_MAX:
            self._doomed[copy.slot.store.id, copy.name] = copy

    async def bury(self) -> None:
        """Try again to delete what could not be deleted; a store that fails once more is left alone until the next call."""
        away: set[str] = set()
        for store, name in tuple(self._doomed):
            if store in away:
                continue
            async with self.rewriting:  # who writes a copy anew may give a name again
                copy = self._doomed.pop((store, name), None)
                if copy is None or self._counts(copy):
                    continue
                if not await self.delete_blob(copy):
                    away.add(store)

    def _counts(self, copy: Copy) -> bool:
        """Say whether a blob of this name is a copy that is in use."""
        entry = self.containers.get(copy.container)
        return entry is not None and any(
            one.slot is copy.slot and one.rewrite == copy.rewrite for one in entry.copies
        )

    async def sweep(self) -> int:
        """Look through the next page of each store's names, not more often than each SWEEP_S; return how many blobs went.

        A write that was under way when its node died can come to a bucket after the next start has taken its inventory, and no copy in
        the catalogue leads to it. What goes here was superseded for good: its container was deleted, or the same store has a later
        copy in use. Both stay true, and what is being written is neither, so no age has to protect it.
        """
        now_s = self.monotonic()
        if now_s - self._swept_s < SWEEP_S:
            return 0
        self._swept_s = now_s
        removed = 0
        for slot in self.slots:
            if slot in self.unseen or not self.standing.uses(slot.store.id):
                continue
            after = self._swept.get(slot.store.id, "c/")
            try:
                page = await slot.store.list("c/", after=after, limit=LIST_PAGE)
            except StoreFailed:
                continue
            self._swept[slot.store.id] = page[-1].name if len(page) == LIST_PAGE else "c/"
            for info in page:
                name = parse_blob_name(info.name)
                if name is not None and self._superseded(slot, *name):
                    removed += await self.delete_blob(Copy(slot, *name, info.size, info.allocated))
        return removed

    def _superseded(self, slot: StoreSlot, container: int, rewrite: int) -> bool:
        entry = self.containers.get(container)
        if entry is None:
            return self.ledger.known.is_gone(container)
        return any(copy.slot is slot and copy.rewrite > rewrite for copy in entry.copies)

    # Ids and sequence -----------------------------------------------------------------------------

    def new_id(self, place: int = 0) -> int:
        """Return a container id that was never used, of a place by its number."""
        return container_id(lane_at(place), self.ledger.epoch, next(self._counter))

    def sequence(self) -> int:
        """Return a stamp for a record, greater than all before it."""
        self._last_sequence = max(self._last_sequence + 1, self.now_ns())
        return self._last_sequence

    # Catalogue ------------------------------------------------------------------------------------

    def entry(self, container: int) -> Container:
        """Return the entry of a container, made if it is new."""
        entry = self.containers.get(container)
        if entry is None:
            entry = self.containers[container] = Container(container, 0)
        return entry

    def copies(self, container: int) -> list[Copy]:
        """Return the copies that are here: good ones first, in the map's order."""
        entry = self.containers.get(container)
        if entry is None:
            return []
        if len(entry.copies) > 1:
            order = self.map.order(container)
            # What another node has is read when nothing nearer is good.
            entry.copies.sort(
                key=lambda copy: (
                    copy.bad,
                    not copy.slot.store.capabilities.immediate,
                    order.index(copy.slot.store.id),
                )
            )
        return entry.copies

    async def load(self, copy: Copy) -> Copy:
        """Read page and map of a compacted copy, once.

        Raises:
            Corrupt: They are damaged.
            NotFound, StoreFailed: As the store says.
        """
        if not copy.rewrite or copy.map is not None:
            return copy
        store = copy.slot.store
        page = unpack_page(await store.read(copy.name, offset=0, length=PAGE))
        if page is None or page.form != Form.COMPACTED:
            raise Corrupt(f"{copy.name} on store {copy.slot.name} has no valid page")
        packed = await store.read(copy.name, offset=page.map_place, length=8 * page.map_entries)
        if checksum(packed) != page.map_checksum or len(packed) != 8 * page.map_entries:
            raise Corrupt(f"{copy.name} on store {copy.slot.name} has a damaged map")
        entry = self.containers.get(page.container)
        if entry is not None:
            entry.size = max(entry.size, page.size)
            entry.wanted = entry.wanted or page.copies
        copy.map = Map.unpack(packed)
        return copy

    async def describe(self, entry: Container) -> None:
        """Learn how many copies a container wants and how long it is, from the page of any copy."""
        for copy in tuple(entry.copies):
            if entry.wanted and entry.size:
                return
            page = await self._page(copy)
            if page is not None:
                entry.wanted = entry.wanted or page.copies
                entry.size = max(entry.size, page.size if page.state == State.SEALED else 0)

    def journals(self) -> Iterator[Container]:
        """Yield the containers that are segments of the journal."""
        return (entry for entry in self.containers.values() if lane_of(entry.id) == Lane.JOURNAL)

    # Choosing stores ------------------------------------------------------------------------------

    def suspect(self, slot: StoreSlot) -> None:
        """Give a store that failed nothing new for a while."""
        self._suspect[slot.store.id] = self.monotonic() + PROBATION_S

    def healthy(self, slot: StoreSlot) -> bool:
        """Say whether a store may get new containers."""
        return self._suspect.get(slot.store.id, 0.0) <= self.monotonic()

    def only_failing(self, used: Iterable[StoreSlot]) -> bool:
        """Say whether every store but these has failed lately: then there is no use in waiting for space."""
        names = {slot.store.id for slot in used}
        return not any(
            self.healthy(slot) and self.standing.uses(slot.store.id)
            for slot in self.slots
            if slot.store.id not in names
        )

    def number_of(self, place: str) -> int:
        """Return the number of a place.

        Raises:
            Unavailable: It is not configured here.
        """
        number = self._numbers.get(place, 0)
        if number not in self._places:
            raise Unavailable(f"the storage class {place} has no stores here")
        return number

    def place(self, container: int) -> Place | None:
        """Return the place that a container belongs to; None if that is the common stores, or a place that is no more."""
        return self._places.get(place_of(container))

    def place_by(self, number: int) -> Place:
        """Return a place that is configured."""
        return self._places[number]

    def targets(self, container: int) -> tuple[StoreSlot, ...]:
        """Return the stores on which a container lies once it is sealed."""
        place = self.place(container)
        return self.common if place is None else place.slots

    def where(self, container: int) -> tuple[StoreSlot, ...]:
        """Return the stores that may have a container which no inventory has shown."""
        if not self.places:
            return self.slots
        if not place_of(container):
            return tuple(slot for slot in self.slots if slot.store.capabilities.grow)
        place = self.place(container)
        return self.slots if place is None else (*self.common, *place.slots)

    def check_policy(self, copies: int, place: int = 0) -> None:
        """Refuse a policy that the stores which are here cannot keep, of a place by its number.

        Raises:
            Unavailable: The message names who is here and who is missing.
        """
        slots = self.common
        if place and self._places[place].grows:
            slots = self._places[place].slots
        if copies > len(slots):
            raise Unavailable(f"{copies} copies need {copies} stores; {self.describe_stores()}")

    def describe_stores(self) -> str:
        """Say which stores are here, and which of the map are missing."""
        here = ", ".join(slot.name for slot in self.slots)
        missing = [member.name for member in self.map.members if member.id not in self._by_id]
        text = f"{len(self.slots)} here ({here})"
        return text + (f", missing: {', '.join(missing)}" if missing else "")

    async def candidates(
        self,
        container: int,
        size: int,
        *,
        without: Iterable[StoreSlot] = (),
        vital: bool = False,
        sealed: bool = False,
    ) -> list[StoreSlot]:
        """Return the stores that can take a copy of `size` bytes, best first; those where it lies in the end if it is `sealed`."""
        excluded = {slot.store.id for slot in without}
        if self.places:
            place = self.place(container)
            allowed = self.common if place is None or not (sealed or place.grows) else place.slots
            ids = {slot.store.id for slot in allowed}
            excluded |= {slot.store.id for slot in self.slots if slot.store.id not in ids}
        chosen: list[StoreSlot] = []
        suspects: list[StoreSlot] = []
        for store_id in self.map.order(container):
            slot = self._by_id.get(store_id)
            if slot is None or store_id in excluded or not self.standing.uses(store_id):
                continue
            try:
                space = await slot.store.space()
            except WarpError:
                self.suspect(slot)
                continue
            if space.free + (space.reserve if vital else 0) >= size:
                (chosen if self.healthy(slot) else suspects).append(slot)
        return chosen + suspects
