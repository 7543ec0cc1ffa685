"""Freeing space: what is dead is punched, compacted away, or deleted with its container, once nobody reads it any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from warp_core.containers import facts
from warp_core.containers.fleet import Container, Copy, Fleet
from warp_core.containers.format import (
    PAGE,
    Chunk,
    Head,
    Kind,
    Lane,
    State,
    align,
    is_container,
    lane_of,
)
from warp_core.containers.pages import Page, pack_page
from warp_core.containers.rebuild import rebuild
from warp_core.containers.reclaim import Refers
from warp_core.containers.records import heads, inventory, unexplained
from warp_core.errors import Corrupt, NoSpace, NotFound, StoreFailed, WarpError

PASSING = frozenset(
    (Kind.COMMIT, Kind.BATCH)
)  # kinds that nobody needs once the journal has let go of their segment
BLOCK = 4096  # stores free whole blocks
PUNCH_MIN = 32 * 1024  # shorter ranges leave most of their blocks behind: they wait for compaction
RETIRE_DEAD = 0.5  # dead share of what is in an open container from which it is sealed early
GLANCE = 100  # records at the front of a segment that tell what it is used for
COMPACT_DEAD = 0.5  # dead share from which a container is rewritten: a byte is copied for each byte freed, at most
COMPACT_DEAD_TIGHT = 0.2  # …when less than TIGHT of a store is free
TIGHT = 0.1


class Collector:
    """Turns facts about what is dead into free space. Each pass is bounded; a crash at any point repeats a little work."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        needed: Callable[[int], bool],
        current: Callable[[int], bool],
        find: Callable[[int], Awaitable[object]],
        forget: Callable[[int], None],
        retire: Callable[[int], Awaitable[None]],
    ) -> None:
        self._fleet = fleet
        self._needed = needed  # may the journal still want this segment?
        self._current = (
            current  # was it made by this session? Then what is not linked yet may still be
        )
        self._find = find
        self._forget = forget
        self._retire = retire  # seal an open container that nobody writes to now
        self._waiting: deque[tuple[int, tuple[int, ...]]] = (
            deque()
        )  # (moment, containers) of each reclaim
        self._blocked: dict[int, int] = {}  # container → reclaims of it that a pin may hold
        self._todo: dict[int, None] = {}
        self._payload: dict[int, int] = {}  # journal segment → bytes of payload records in it
        self.damaged: set[int] = (
            set()
        )  # containers with stretches that nothing explains: scrub has to look at them

    def start(self) -> None:
        """Take up what earlier sessions left: nobody reads any more what was dead then."""
        self._todo = dict.fromkeys(self._fleet.ledger.known.dead)
        # Segments of earlier runs may hold nothing but commits, and then nobody reclaims anything in them.
        self._unseen = {entry.id for entry in self._fleet.journals()}
        self._todo.update(dict.fromkeys(sorted(self._unseen)))

    async def reclaim(self, chunks: Sequence[Chunk]) -> None:
        """Note durably that chunks are dead; see `Containers.reclaim`."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        for chunk in chunks:
            if not self._fleet.ledger.known.is_gone(chunk.container):
                ranges.setdefault(chunk.container, []).append((chunk.offset, align(chunk.stored)))
        if not ranges:
            return
        moment = self._fleet.pins.advance()
        self._waiting.append((moment, tuple(ranges)))
        for container in ranges:
            self._blocked[container] = self._blocked.get(container, 0) + 1
        await self._fleet.ledger.add(
            facts.dead(container, some) for container, some in ranges.items()
        )

    def discard(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Note (container, offset, length) ranges that nobody ever could read."""
        for container, offset, length in ranges:
            self._fleet.ledger.note([facts.dead(container, [(offset, length)])])
            self._todo[container] = None

    async def collect(self, budget: int) -> dict[str, int]:
        """Free what may be freed, copying at most about `budget` bytes."""
        counts = {
            "deleted": 0,
            "compacted": 0,
            "punched_bytes": 0,
            "freed_bytes": 0,
            "copied_bytes": 0,
        }
        await self._fleet.ledger.flush()
        await self._fleet.bury()
        self._pass_pins()
        for container in [one for one in self._todo if not self._blocked.get(one)]:
            if counts["copied_bytes"] >= budget:
                break
            if container not in self._fleet.containers:
                await self._find(container)  # a segment that the journal began since the inventory
            entry = self._fleet.containers.get(container)
            if entry is None or not entry.live:
                if self._fleet.seen(container):
                    del self._todo[container]
                continue
            if (
                entry.open
                and self._fleet.ledger.known.dead[container].bytes >= RETIRE_DEAD * entry.filled
            ):
                await self._retire(container)
            if entry.open or entry.doubtful or self._needed(container):
                continue
            del self._todo[container]
            try:
                async with self._fleet.rewriting:
                    await self._free(entry, counts)
            except (NotFound, Corrupt):
                self.damaged.add(container)
            except (StoreFailed, NoSpace):
                self._todo[container] = None  # a later pass may find more room
        return counts

    def _pass_pins(self) -> None:
        while self._waiting and self._fleet.pins.passed(self._waiting[0][0]):
            for container in self._waiting.popleft()[1]:
                self._todo[container] = None
                self._blocked[container] -= 1
                if not self._blocked[container]:
                    del self._blocked[container]

    async def _free(self, entry: Container, counts: dict[str, int]) -> None:
        dead = self._fleet.ledger.known.dead.get(entry.id)
        await self._fleet.describe(entry)
        if not entry.size:
            return  # not sealed: its end is not known
        if dead is None:
            if lane_of(entry.id) != Lane.JOURNAL or await self._has_payload(entry):
                return
            dead = facts.DeadRanges()
        ranges = dead.ranges()
        live, found = await self._live_bytes(entry, dead)
        if live <= 0 and await self._all_explained(entry, found):
            counts["freed_bytes"] += sum(copy.allocated for copy in entry.copies)
            counts["deleted"] += 1
            await self.delete(entry)
            return
        for copy in tuple(entry.copies):
            freed = await self._punch(copy, ranges)
            counts["punched_bytes"] += freed
            counts["freed_bytes"] += freed
        residue = max((copy.allocated for copy in entry.copies), default=0) - PAGE - live
        if residue >= await self._threshold(entry) * (live + residue) and residue > PUNCH_MIN:
            await self._compact(entry, found, counts)

    async def _has_payload(self, entry: Container) -> bool:
        """Look at the first records of a segment: is it one of those that payloads go to?"""
        for copy in self._fleet.copies(entry.id):
            seen = 0
            async for head in heads(self._fleet, entry, copy):
                seen += 1
                if head.kind not in PASSING or seen == GLANCE:
                    return head.kind not in PASSING
            return False
        return True

    async def _all_explained(self, entry: Container, found: Sequence[Head] | None) -> bool:
        """Make sure that nothing in a container is anything but dead, or a commit that the journal does not need."""
        if not unexplained(self._fleet, entry, ()):
            return True
        if found is None:
            found = await inventory(self._fleet, entry)
        return not unexplained(self._fleet, entry, found) and not living(self._fleet, entry, found)

    async def _live_bytes(
        self, entry: Container, dead: facts.DeadRanges
    ) -> tuple[int, list[Head] | None]:
        """Return how many bytes of a container's records are payload that is alive, and its records if they had to be read."""
        for copy in tuple(entry.copies):
            await self._fleet.load(copy)
            if copy.map is not None:  # it holds payload only
                gone = sum(length for _, length in copy.stretches(dead.ranges()))
                return sum(copy.map.lengths) - gone, None
        if lane_of(entry.id) != Lane.JOURNAL:
            return entry.size - PAGE - dead.bytes, None
        found: list[Head] | None = None
        payload = self._payload.get(entry.id)
        if payload is None:  # a segment of the journal holds commits as well
            found = await inventory(self._fleet, entry)
            payload = sum(head.next - head.offset for head in found if head.kind not in PASSING)
            self._payload[entry.id] = payload
        return payload - dead.bytes, found

    async def _threshold(self, entry: Container) -> float:
        for copy in tuple(entry.copies):
            space = await copy.slot.store.space()
            if space.free < TIGHT * space.total:
                return COMPACT_DEAD_TIGHT
        return COMPACT_DEAD

    async def _punch(self, copy: Copy, ranges: Sequence[tuple[int, int]]) -> int:
        """Free the whole blocks of long dead ranges in place; harmless when repeated."""
        if not copy.slot.store.capabilities.punch:
            return 0
        await self._fleet.load(copy)
        before = copy.allocated
        for position, length in copy.stretches(ranges):
            begin, end = (position + BLOCK - 1) & -BLOCK, (position + length) & -BLOCK
            if end - begin >= PUNCH_MIN:
                await copy.slot.store.punch(copy.name, offset=begin, length=end - begin)
        copy.allocated = (await copy.slot.store.stat(copy.name)).allocated
        return max(0, before - copy.allocated)

    async def _compact(
        self, entry: Container, found: Sequence[Head] | None, counts: dict[str, int]
    ) -> None:
        if found is None:
            found = await inventory(self._fleet, entry)
        if unexplained(self._fleet, entry, found):
            self.damaged.add(
                entry.id
            )  # what cannot be read now may lie on a store that is missing: keep everything
            return
        keep = living(self._fleet, entry, found)
        for slot in [copy.slot for copy in entry.copies]:
            before = sum(copy.allocated for copy in entry.copies if copy.slot is slot)
            copy = await rebuild(self._fleet, entry, keep, slot, vital=True)
            counts["freed_bytes"] += max(0, before - copy.allocated)
            counts["copied_bytes"] += copy.size
        counts["compacted"] += 1

    async def delete(self, entry: Container) -> None:
        """Delete a container: first the fact, then the blobs, so that no store that was away brings it back."""
        fleet = self._fleet
        await fleet.ledger.add([facts.gone(entry.id)])
        fleet.containers.pop(entry.id, None)
        self._payload.pop(entry.id, None)
        self._todo.pop(entry.id, None)
        self._forget(entry.id)
        for copy in entry.copies:
            await fleet.delete_blob(copy)

    # After a crash --------------------------------------------------------------------------------

    async def recover(self, refers: Refers, budget: int) -> bool:
        """Ask about every record of containers whose session crashed; see `Containers.recover`."""
        left = budget
        for entry in [one for one in self._fleet.containers.values() if self.in_doubt(one)]:
            if left <= 0:
                return False
            await self._fleet.describe(entry)
            try:
                found = await inventory(self._fleet, entry)
            except Corrupt:
                self.damaged.add(entry.id)
                entry.doubtful = False
                continue
            except StoreFailed:  # its store is away: asked again by the next pass
                continue
            unsealed = not entry.size
            if unsealed:
                entry.size = max((head.next for head in found), default=PAGE)
            payloads = [head for head in found if head.kind == Kind.PAYLOAD]
            lost = [head for head in payloads if not await refers(head.owner, head.chunk)]
            ranges = [(head.offset, head.next - head.offset) for head in lost]
            here = {copy.slot.store.id for copy in entry.copies}
            if unsealed and self._fleet.standing.complete(here, entry.wanted):
                # No copy has a head there, so nobody was told that these bytes were kept: records that were cut off.
                ranges += unexplained(self._fleet, entry, found)
            new = [facts.asked(entry.id)]
            if ranges:
                new.insert(0, facts.dead(entry.id, ranges))
            await self._fleet.ledger.add(new)
            entry.doubtful = False
            self._todo[entry.id] = None
            if entry.size == PAGE:
                await self.delete(entry)
            elif unsealed and is_container(entry.id):
                await self._seal(entry)
            left -= len(found) * 256 + 64 * 1024
        return True

    def in_doubt(self, entry: Container) -> bool:
        """Say whether a container may hold records that were never linked."""
        known = self._fleet.ledger.known
        if (
            entry.open
            or self._current(entry.id)
            or known.is_asked(entry.id)
            or self._needed(entry.id)
        ):
            return False
        return entry.doubtful or lane_of(entry.id) == Lane.JOURNAL

    async def _seal(self, entry: Container) -> None:
        """Seal a container that a crash left open: cut it behind its last record."""
        page = Page(
            entry.id,
            state=State.SEALED,
            copies=entry.wanted,
            created_ns=self._fleet.now_ns(),
            size=entry.size,
        )
        for copy in tuple(entry.copies):
            with suppress(WarpError):  # the next start, or heal, does it
                await copy.slot.store.write(
                    copy.name, offset=0, buffers=[pack_page(page)], sync=True
                )
                await copy.slot.store.seal(copy.name, size=entry.size)
                copy.size = copy.allocated = entry.size


def living(fleet: Fleet, entry: Container, found: Sequence[Head]) -> list[Head]:
    """Return the records that are not dead: commits and marks of the journal are, as it has let go of the segment."""
    dead = fleet.ledger.known.dead.get(entry.id)
    ranges = dead.ranges() if dead is not None else []
    keep, index = [], 0
    for head in found:
        while index < len(ranges) and sum(ranges[index]) <= head.offset:
            index += 1
        covered = index < len(ranges) and ranges[index][0] <= head.offset
        if not covered and head.kind not in PASSING:
            keep.append(head)
    return keep
