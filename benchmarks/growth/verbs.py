"""What is measured: verbs at places of a pattern, and what each cost."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from warp_core.node.assembly import Node
from warp_local.engine import Local

from benchmarks.growth.data import PAYLOAD, VOLUME, get, key, put, together
from benchmarks.growth.floor import Floor, Place
from benchmarks.growth.s3 import Client, ask, signed

FRESH = 10**7  # numbers of objects that a round stores and removes again: beyond any size
ROWS = "floor: two rows of a dictionary"
CONTENT = "floor: these, and content by `preadv`"
SCATTER = 7_368_787  # a prime: popular objects lie all over the volume, not side by side


@dataclass(frozen=True, slots=True)
class Cost:
    """What a verb cost: microseconds each of CPU and of time, and page faults."""

    cpu_us: float
    wall_us: float
    faults: float


@dataclass(slots=True)
class Subject:
    """A node with `size` objects."""

    node: Node
    size: int
    chance: random.Random
    clients: list[Client] = field(default_factory=list)  # over S3
    requests: list[bytes] = field(default_factory=list)
    fresh: int = FRESH
    floor: Floor | None = None
    places: list[Place] = field(default_factory=list)

    def uniform(self) -> bytes:
        """Return the key of any object."""
        return key(self.chance.randrange(self.size))

    def zipf(self) -> bytes:
        """Return a key by popularity: of n objects the r-th most popular is asked for in proportion to 1/r."""
        rank = int(self.size ** self.chance.random()) - 1
        return key(rank * SCATTER % self.size)


@dataclass(frozen=True, slots=True)
class Measure:
    """A verb: `run` does it `count` times."""

    name: str
    count: int
    run: Callable[[Subject, int], Awaitable[None]]
    gated: bool = True
    warm: int = 1  # rounds before the first, to fill the caches as a day of work does
    prepare: Callable[[Subject, int], None] | None = None
    floor: str = ""  # name of the measure that is this one's floor


async def cost(measure: Measure, subject: Subject) -> Cost:
    """Measure one round; what a client prepares is not counted."""
    if measure.prepare is not None:
        measure.prepare(subject, measure.count)
    faults = _faults()
    wall, cpu = time.perf_counter(), time.process_time()
    await measure.run(subject, measure.count)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    count = measure.count
    return Cost(cpu / count * 1e6, wall / count * 1e6, (_faults() - faults) / count)


def _faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def _reads(
    one: Callable[[Subject, bytes], Awaitable[object]], pick: Callable[[Subject], bytes]
) -> Callable[[Subject, int], Awaitable[None]]:
    async def run(subject: Subject, count: int) -> None:
        names = [pick(subject) for _ in range(count)]
        await together(lambda name=name: one(subject, name) for name in names)  # type: ignore[misc]

    return run


async def _head(subject: Subject, name: bytes) -> None:
    await subject.node.objects.head(VOLUME, name)


async def _get(subject: Subject, name: bytes) -> None:
    await get(subject.node.objects, name)


async def _ask(subject: Subject, count: int) -> None:
    await ask(subject.clients[:1], subject.requests)


def _heads(subject: Subject, count: int) -> None:
    subject.requests = [signed("HEAD", subject.uniform()) for _ in range(count)]


def _gets(subject: Subject, count: int) -> None:
    subject.requests = [signed("GET", subject.uniform()) for _ in range(count)]


def _places(subject: Subject, count: int) -> None:
    assert subject.floor is not None
    subject.places = [subject.floor.place(subject.uniform()) for _ in range(count)]


async def _floor_rows(subject: Subject, count: int) -> None:
    assert subject.floor is not None
    subject.floor.rows(subject.places)


async def _floor_content(subject: Subject, count: int) -> None:
    assert subject.floor is not None
    subject.floor.content(subject.places)


async def _page(subject: Subject, name: bytes) -> None:
    found = await subject.node.objects.list(VOLUME, after=name)
    assert len(found.entries) == 1000, len(found.entries)


async def _folder(subject: Subject, name: bytes) -> None:
    found = await subject.node.objects.list(VOLUME, prefix=name[:5], delimiter=b"/")
    assert len(found.entries) == 1000, len(found.entries)


def _nothing(_: Subject) -> bytes:
    return b""


def _early(subject: Subject) -> bytes:
    """Return a key that a whole page follows; nothing where all objects are one page."""
    return key(subject.chance.randrange(subject.size - 1000)) if subject.size > 1000 else b""


async def _settled(subject: Subject) -> None:
    """Write what is committed to the index: a commit's cost includes its share of that."""
    engine = subject.node.data.metastore
    assert isinstance(engine, Local)
    await engine.checkpoint()


async def _overwrite(subject: Subject, count: int) -> None:
    names = [subject.uniform() for _ in range(count)]
    await together(lambda name=name: put(subject.node.objects, name) for name in names)  # type: ignore[misc]
    await _settled(subject)


def _new(subject: Subject, count: int) -> Iterator[bytes]:
    """Yield keys all over the volume of objects that it does not have."""
    chance = random.Random(subject.fresh)
    for n in range(count):
        yield key(chance.randrange(subject.size)) + b"-%d" % n


async def _store(subject: Subject, count: int) -> None:
    names = list(_new(subject, count))
    await together(lambda name=name: put(subject.node.objects, name) for name in names)  # type: ignore[misc]
    await _settled(subject)


async def _remove(subject: Subject, count: int) -> None:
    names = list(_new(subject, count))
    subject.fresh += 1
    objects = subject.node.objects
    await together(lambda name=name: objects.delete(VOLUME, name) for name in names)  # type: ignore[misc]
    await _settled(subject)


def _puts(subject: Subject, count: int) -> None:
    subject.requests = [signed("PUT", name, PAYLOAD) for name in _new(subject, count)]


def _deletes(subject: Subject, count: int) -> None:
    subject.requests = [signed("DELETE", name) for name in _new(subject, count)]
    subject.fresh += 1


def _overs(subject: Subject, count: int) -> None:
    subject.requests = [signed("PUT", subject.uniform(), PAYLOAD) for _ in range(count)]


async def _ask_all(subject: Subject, count: int) -> None:
    await ask(subject.clients, subject.requests)
    await _settled(subject)


MEASURES = (
    Measure(ROWS, 2000, _floor_rows, False, prepare=_places),
    Measure(CONTENT, 2000, _floor_content, False, prepare=_places),
    Measure("HEAD, uniform", 2000, _reads(_head, Subject.uniform), floor=ROWS),
    Measure("HEAD, zipf", 2000, _reads(_head, Subject.zipf), warm=30),
    Measure("GET 4 KiB, uniform", 1000, _reads(_get, Subject.uniform), floor=CONTENT),
    Measure("GET 4 KiB, zipf", 1000, _reads(_get, Subject.zipf)),
    Measure("HEAD over S3, uniform", 500, _ask, prepare=_heads, floor=ROWS),
    Measure("GET 4 KiB over S3, uniform", 500, _ask, prepare=_gets, floor=CONTENT),
    Measure("LIST 1,000, anywhere", 20, _reads(_page, _early)),
    Measure("LIST 1,000, first page", 20, _reads(_page, _nothing)),
    Measure("LIST 1,000, a folder", 20, _reads(_folder, Subject.uniform)),
    Measure("PUT 4 KiB, new", 1000, _store),
    Measure("DELETE", 1000, _remove),  # removes what the one before stored
    Measure("PUT 4 KiB, over", 1000, _overwrite),
    Measure("PUT 4 KiB over S3, new", 1000, _ask_all, prepare=_puts),
    Measure("DELETE over S3", 1000, _ask_all, prepare=_deletes),
    Measure("PUT 4 KiB over S3, over", 1000, _ask_all, prepare=_overs),
)

LIST_ALL = Measure("LIST 1,000", 20, _reads(_page, _nothing))
COLD = (
    Measure("GET 4 KiB, nothing in the page cache", 2000, _reads(_get, Subject.uniform), False),
    Measure("HEAD, after that", 2000, _reads(_head, Subject.uniform), False),
)
