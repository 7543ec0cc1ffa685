"""What a ledger says, as values: facts that are only ever added (`docs/formats/container.md`, "Ledger")."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import msgspec

from warp_core.containers.format import container_id, epoch_of, lane_of
from warp_core.containers.pages import pack_ranges, unpack_ranges

DEAD, GONE, ASKED, EPOCH, CLEAN = 1, 2, 3, 4, 5

Fact = list[object]
_FACTS = msgspec.msgpack.Decoder(list[list[int | bytes]])


def dead(container: int, ranges: Iterable[tuple[int, int]]) -> Fact:
    """Ranges (offset, length) of a container that nothing refers to."""
    return [DEAD, container, pack_ranges(list(ranges))]


def gone(container: int) -> Fact:
    """A container that does not exist any more."""
    return [GONE, container, container]


def asked(container: int) -> Fact:
    """Every record of the container was linked or is listed as dead."""
    return [ASKED, container]


def epoch(number: int) -> Fact:
    """The epoch was given out."""
    return [EPOCH, number]


def clean(number: int) -> Fact:
    """The session of this epoch ended with nothing open."""
    return [CLEAN, number]


class DeadRanges:
    """The dead ranges of one container: 8 bytes each, merged when they have doubled."""

    __slots__ = ("_merged", "_packed", "bytes")

    def __init__(self) -> None:
        self._packed = array("Q")  # offset / 8 << 32 | length / 8
        self._merged = 0  # that many from the front are sorted, disjoint and apart
        self.bytes = (
            0  # of dead ranges; counts a range twice until the next merge if it was noted twice
        )

    def add(self, offset: int, length: int) -> None:
        """Note a range."""
        self._packed.append((offset >> 3) << 32 | (length + 7) >> 3)
        self.bytes += length + 7 & -8
        if len(self._packed) > 2 * self._merged + 64:
            self.merge()

    def merge(self) -> None:
        """Sort, and join what overlaps or touches."""
        merged = array("Q")
        begin = end = -1
        for packed in sorted(self._packed):
            start, length = packed >> 32, packed & 0xFFFFFFFF
            if start <= end:
                end = max(end, start + length)
                continue
            if end > begin:
                merged.append(begin << 32 | end - begin)
            begin, end = start, start + length
        if end > begin:
            merged.append(begin << 32 | end - begin)
        self._packed = merged
        self._merged = len(merged)
        self.bytes = sum(packed & 0xFFFFFFFF for packed in merged) << 3

    def ranges(self) -> list[tuple[int, int]]:
        """Return (offset, length), ascending and apart."""
        self.merge()
        return [(packed >> 32 << 3, (packed & 0xFFFFFFFF) << 3) for packed in self._packed]

    def __len__(self) -> int:
        return len(self._packed)


class Knowledge:
    """The sum of all facts."""

    def __init__(self) -> None:
        self.dead: dict[int, DeadRanges] = {}
        self.asked: set[int] = set()
        self.epoch = 0
        self.clean: set[int] = set()
        self._gone: dict[int, set[int]] = {}  # lane and epoch → counters

    def learn(self, payload: bytes | memoryview) -> None:
        """Add the facts of one ledger record."""
        for fact in _FACTS.decode(payload):
            self.add(fact)

    def add(self, fact: Iterable[object]) -> None:
        """Add one fact; unknown ones come from later releases that promised to mean nothing to this one."""
        match list(fact):
            case [1, int(container), bytes(packed)]:
                ranges = self.dead.setdefault(container, DeadRanges())
                for offset, length in unpack_ranges(packed):
                    ranges.add(offset, length)
            case [2, int(first), int(last)]:
                self._gone.setdefault(first >> 24, set()).update(
                    range(first & 0xFFFFFF, (last & 0xFFFFFF) + 1)
                )
                for container in range(first, last + 1):
                    self.forget(container)
            case [3, int(container)]:
                self.asked.add(container)
            case [4, int(number)]:
                self.epoch = max(self.epoch, number)
            case [5, int(number)]:
                self.clean.add(number)
            case _:
                pass

    def is_gone(self, container: int) -> bool:
        """Say whether the container was deleted."""
        return container & 0xFFFFFF in self._gone.get(container >> 24, ())

    def is_asked(self, container: int) -> bool:
        """Say whether no record of the container is in doubt."""
        return container in self.asked or epoch_of(container) in self.clean

    def forget(self, container: int) -> None:
        """Drop the details of a container that is gone."""
        self.dead.pop(container, None)
        self.asked.discard(container)

    def facts(self) -> Iterator[Fact]:
        """Yield facts that say the same as all that was learned."""
        yield epoch(self.epoch)
        for number in sorted(self.clean):
            yield clean(number)
        for prefix, counters in sorted(self._gone.items()):
            for first, last in _stretches(sorted(counters)):
                lane, number = lane_of(prefix << 24), epoch_of(prefix << 24)
                yield [GONE, container_id(lane, number, first), container_id(lane, number, last)]
        for container in sorted(self.asked):
            yield asked(container)
        for container, ranges in sorted(self.dead.items()):
            yield dead(container, ranges.ranges())


def _stretches(numbers: list[int]) -> Iterator[tuple[int, int]]:
    first = last = -2
    for number in numbers:
        if number != last + 1:
            if last >= 0:
                yield first, last
            first = number
        last = number
    if last >= 0:
        yield first, last
