"""Scrub looks for what is missing or damaged, heal makes it whole again, from whichever copy is good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from warp_core.containers.collector import living
from warp_core.containers.fleet import Container, Copy, Fleet
from warp_core.containers.format import Head
from warp_core.containers.policy import COPIES_MAX
from warp_core.containers.rebuild import rebuild
from warp_core.containers.records import heads, inventory, pieces, unexplained
from warp_core.errors import Corrupt, NoSpace, NotFound, StoreFailed, Unavailable, WarpError

LOST_MAX = 1000  # lost ranges that a report names; it counts all


@dataclass(slots=True)
class ScrubReport:
    """What a scrub found so far. `cursor` is where it goes on; 0 when it is through."""

    cursor: int = 0
    containers: int = 0
    records: int = 0
    bytes: int = 0
    damaged_copies: int = 0  # copies with something missing or wrong: heal will write them anew
    missing_copies: int = 0
    lost: list[str] = field(default_factory=list)  # ranges that no copy has, with their owners
    lost_count: int = 0

    @property
    def finished(self) -> bool:
        """Whether every container was looked at."""
        return self.cursor == 0


@dataclass(slots=True)
class HealReport:
    """What a pass of healing did."""

    written_copies: int = 0
    written_bytes: int = 0
    removed_copies: int = 0
    waiting: int = 0  # containers that still lack copies
    problems: list[str] = field(default_factory=list)


class Scrubber:
    """Both of them, over one fleet."""

    def __init__(
        self, fleet: Fleet, *, needed: Callable[[int], bool], monotonic: Callable[[], float]
    ) -> None:
        self._fleet = fleet
        self._needed = needed
        self._monotonic = monotonic

    def _subjects(self) -> list[Container]:
        """Containers that nobody writes to, by id."""
        chosen = [
            entry
            for entry in self._fleet.containers.values()
            if not entry.open and not entry.doubtful and not self._needed(entry.id)
        ]
        return sorted(chosen, key=lambda entry: entry.id)

    # Scrub ----------------------------------------------------------------------------------------

    async def scrub(
        self, *, deep: bool, after: int = 0, budget: int | None = None, rate: float | None = None
    ) -> ScrubReport:
        """Look at containers with an id above `after`.

        Args:
            deep: Read every byte of every copy, instead of pages and sizes only.
            budget: Stop after about so many bytes; the report's cursor says where.
            rate: Bytes a second, at most.
        """
        report = ScrubReport(cursor=after)
        began = self._monotonic()
        for entry in self._subjects():
            if entry.id <= after:
                continue
            if budget is not None and report.bytes >= budget:
                return report
            await self._look(entry, report)
            if deep:
                await self._read_everything(entry, report)
            report.containers += 1
            report.cursor = entry.id
            if rate:
                behind = report.bytes / rate - (self._monotonic() - began)
                await asyncio.sleep(max(0.0, behind))
        report.cursor = 0
        return report

    async def _look(self, entry: Container, report: ScrubReport) -> None:
        await self._fleet.describe(entry)
        for copy in tuple(entry.copies):
            try:
                info = await copy.slot.store.stat(copy.name)
                await self._fleet.load(copy)
                if info.size < (copy.size if copy.map is not None else entry.size):
                    raise Corrupt("the copy is cut short")
            except (Corrupt, NotFound):
                copy.bad = True
            except StoreFailed:
                self._fleet.suspect(copy.slot)
            report.damaged_copies += copy.bad
        place = self._fleet.place(entry.id)
        wanted = entry.wanted if place is None else place.copies
        report.missing_copies += max(0, wanted - len(entry.copies))

    async def _read_everything(self, entry: Container, report: ScrubReport) -> None:
        try:
            keep = living(self._fleet, entry, await inventory(self._fleet, entry))
        except Corrupt as error:
            self._lose(report, str(error))
            return
        except StoreFailed:
            for copy in entry.copies:
                self._fleet.suspect(copy.slot)
            return
        before = {copy.slot.name for copy in entry.copies if copy.bad}
        for copy in tuple(entry.copies):
            await self._read_copy(entry, copy, keep, report)
        if any(copy.bad for copy in entry.copies):
            # Only now is it worth asking whether some copy is good: record by record.
            for head in keep:
                try:
                    async for _ in pieces(self._fleet, entry, head):
                        pass
                except Corrupt as error:
                    self._lose(report, str(error))
            for offset, length in unexplained(
                self._fleet, entry, await inventory(self._fleet, entry)
            ):
                self._lose(
                    report,
                    f"container {entry.id:016x} offset {offset}: {length} bytes without a record",
                )
        report.damaged_copies += sum(
            copy.bad for copy in entry.copies if copy.slot.name not in before
        )

    async def _read_copy(
        self, entry: Container, copy: Copy, keep: list[Head], report: ScrubReport
    ) -> None:
        try:
            mine = {head.offset: head async for head in heads(self._fleet, entry, copy)}
        except (Corrupt, NotFound):
            copy.bad = True
            return
        except StoreFailed:
            self._fleet.suspect(copy.slot)
            return
        for head in keep:
            if mine.get(head.offset) != head:
                copy.bad = True
                continue
            try:
                async for piece in pieces(self._fleet, entry, head, sources=(copy,)):
                    report.bytes += len(piece)
            except Corrupt:
                copy.bad = True
            report.records += 1
        if copy.map is None and unexplained(self._fleet, entry, mine.values()):
            copy.bad = True

    def _lose(self, report: ScrubReport, text: str) -> None:
        report.lost_count += 1
        if len(report.lost) < LOST_MAX:
            report.lost.append(text)

    # Heal -----------------------------------------------------------------------------------------

    async def heal(self, *, budget: int, only: Container | None = None) -> HealReport:
        """Write missing and damaged copies anew, those with the fewest good copies first, about `budget` bytes of them.

        With `only`, look at that container alone.
        """
        report = HealReport()
        await self._fleet.look_again()
        if only is None:
            report.removed_copies += await self._fleet.sweep()
        patients: list[tuple[int, int]] = []
        for entry in self._subjects():
            if only is not None and entry is not only:
                continue
            placed = self._fleet.place(entry.id) is not None
            if not self._fleet.seen(entry.id):  # it may lie there already
                report.waiting += placed
                continue
            if not placed:  # a place says how many copies it wants
                await self._fleet.describe(entry)
            good = sum(not copy.bad for copy in entry.copies)
            if (
                self._settled(entry) < self._wanted(entry)
                or any(copy.bad for copy in entry.copies)
                or self._strays(entry)
            ):
                # What only has to go to its place waits for what is in danger.
                patients.append((good + COPIES_MAX if placed else good, entry.id))
        patients.sort()
        for done, (_, container) in enumerate(patients):
            if report.written_bytes >= budget:
                report.waiting += len(patients) - done
                break
            patient = self._fleet.containers.get(container)
            if patient is not None:
                try:
                    async with self._fleet.rewriting:
                        await self._heal(patient, report)
                except WarpError as error:
                    report.waiting += 1
                    report.problems.append(f"container {container:016x}: {error}")
        return report

    def _wanted(self, entry: Container) -> int:
        """Return how many copies a container should have now."""
        place = self._fleet.place(entry.id)
        if place is not None:
            return place.copies
        standing = self._fleet.standing
        return standing.enough(standing.copies(max(entry.wanted, 1)))

    def _settled(self, entry: Container) -> int:
        """Return how many copies lie where they belong."""
        strays = self._strays(entry)
        return len(entry.copies) - len(strays)

    def _strays(self, entry: Container) -> list[Copy]:
        """Return the copies that lie where a container is only until it is sealed, or was before its class got other stores."""
        if not self._fleet.places:
            return []
        targets = {slot.store.id for slot in self._fleet.targets(entry.id)}
        return [copy for copy in entry.copies if copy.slot.store.id not in targets]

    async def _heal(self, entry: Container, report: HealReport) -> None:
        fleet = self._fleet
        await fleet.describe(entry)
        found = await inventory(fleet, entry)
        if unexplained(fleet, entry, found):
            raise Corrupt("parts of it are on no copy that is here")
        keep = living(fleet, entry, found)
        if not keep and self._strays(entry):
            return  # nothing in it is needed: the collector deletes it
        strays = self._strays(entry)
        for copy in [copy for copy in entry.copies if copy.bad and copy not in strays]:
            made = await rebuild(fleet, entry, keep, copy.slot)
            report.written_copies += 1
            report.written_bytes += made.size
        while self._settled(entry) < self._wanted(entry):
            size = 4096 + sum(head.next - head.offset + 8 for head in keep)
            busy = [copy.slot for copy in entry.copies if copy not in strays]
            slots = await fleet.candidates(entry.id, size, without=busy, sealed=True)
            place = fleet.place(entry.id)
            if place is not None and not any(map(fleet.healthy, slots)):
                raise Unavailable(f"no store of the class {place.name} takes it now")
            if not slots:
                if len(fleet.slots) < entry.wanted:
                    raise Unavailable(
                        f"{entry.wanted} copies are wanted; {fleet.describe_stores()}"
                    )
                raise NoSpace(f"no other store has {size} bytes free")
            try:
                made = await rebuild(fleet, entry, keep, slots[0])
            except StoreFailed:
                fleet.suspect(slots[0])
                raise
            report.written_copies += 1
            report.written_bytes += made.size
        for copy in strays:
            # Who reads it now and no longer finds it looks again, at those that took its place.
            entry.copies.remove(copy)
            report.removed_copies += 1
            await fleet.delete_blob(copy)
