"""The kit for services: short passes that come to an end, harm nothing that clients see, and may be stopped anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warp_core.errors import WarpError
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.metrics import Metrics
from warp_core.namespace.objects import NamespaceObjects
from warp_core.registry import Entry
from warp_core.views.objects import Attributes, Digests, ObjectInfo

from warp_conformance.difference import same
from warp_conformance.kit import Kit, sample_of
from warp_conformance.kits import targets
from warp_conformance.reference.node import Stage

PASSES_MAX = 300  # until a service over a small namespace has nothing left to do
PASS_MAX_S = 5.0  # of one pass, on a busy machine
BLOCKED_MAX_S = 0.15  # of the loop's own thread without letting others in
OWNER = Principal("account:kit", admin=True)

Make = Callable[[ServiceContext], Service]
Seen = dict[tuple[str, bytes, str], tuple[ObjectInfo, bytes]]


def adopt(entry: Entry[Service]) -> Iterator[tuple[type[Kit], dict[str, Any]]]:
    """Yield the kit; for what is no service but takes events, that of event targets."""
    if entry.takes_events:
        yield from targets.adopt(entry)
        return

    @pytest.fixture
    def make(self: Kit, tmp_path: Path) -> Make:
        return lambda context: entry.build(sample_of(entry, tmp_path), context)

    yield ServiceKit, {"make": make}


class ServiceKit(Kit, kit=True):
    """Give `make`: a function that builds the service for a context, configured so that no rule changes what clients see.

    The namespace is a small one in memory: objects of many sizes, overwritten, deleted and versioned.
    """

    @pytest.fixture
    def make(self) -> Make:
        """Return how to build the service."""
        raise NotImplementedError("an adoption of ServiceKit gives a fixture `make`")

    @pytest.fixture
    async def stage(self) -> AsyncIterator[Stage]:
        """Yield a node in memory."""
        async with Stage() as stage:
            yield stage

    @pytest.fixture
    def subject(self, make: Make, stage: Stage) -> Service:
        """Build the service."""
        return make(context_of(stage))

    # Passes ---------------------------------------------------------------------------------------

    async def test_an_empty_namespace_leaves_nothing_to_do(
        self, subject: Service, stage: Stage
    ) -> None:
        await to_idle(subject, stage)

    async def test_work_comes_to_an_end(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        await to_idle(subject, stage)

    async def test_idle_lasts_while_nothing_happens(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        await to_idle(subject, stage)
        for _ in range(3):
            report = await subject.work(context_of(stage))

            assert report.idle

    async def test_work_may_come_again(self, subject: Service, stage: Stage) -> None:
        for batch in range(3):
            await fill(stage, batch)
            await to_idle(subject, stage)

    async def test_reports_are_counters_by_name(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        for report in await to_idle(subject, stage):
            assert isinstance(report, Report)
            assert isinstance(report.idle, bool)
            for name, count in report.counts.items():
                assert name.isidentifier(), f"{name!r} names no metric"
                assert type(count) is int
                assert count >= 0

    async def test_the_interval_is_a_time(self, subject: Service) -> None:
        assert 0 < subject.interval_s < math.inf

    async def test_a_pass_lets_others_in(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        longest, done = 0.0, False

        async def watch() -> None:
            nonlocal longest
            while not done:
                before = time.thread_time()
                started = time.monotonic()
                await asyncio.sleep(0)
                # A sleeping thread uses no processor, a waiting one may be kept waiting by others.
                longest = max(
                    longest, min(time.monotonic() - started, 2 * (time.thread_time() - before))
                )
                longest = max(longest, time.monotonic() - started - 1.0)

        watching = asyncio.create_task(watch())
        await to_idle(subject, stage)
        done = True
        await watching

        assert longest < BLOCKED_MAX_S, f"the loop stood still for {longest:.3f} s"

    # Harm -----------------------------------------------------------------------------------------

    async def test_what_clients_see_stays_as_it_is(self, subject: Service, stage: Stage) -> None:
        before = await fill(stage)
        await to_idle(subject, stage)

        assert same(await seen(stage), before)

    async def test_clients_go_on_while_it_works(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        objects = NamespaceObjects(stage.namespace)
        latest: dict[bytes, bytes] = {}

        async def write() -> None:
            for number in range(40):
                key, content = b"busy%d" % (number % 3), noise(3000 + number, number)
                await put(objects, key, content)
                latest[key] = content
                assert same(await get(objects, key), content)
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        for _ in range(PASSES_MAX):
            with contextlib.suppress(WarpError):  # a conflict: the node tries again
                await subject.work(context_of(stage))
            await asyncio.sleep(0)
            if writing.done():
                break
        await writing
        await to_idle(subject, stage)

        assert same({key: await get(objects, key) for key in latest}, latest)

    async def test_an_open_object_stays_readable(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        objects = NamespaceObjects(stage.namespace)
        content = noise(300_000, 77)
        await put(objects, b"open", content)
        reader = await objects.open(stage.volume, b"open")
        await objects.delete(stage.volume, b"open")
        await drop_all(stage)
        await to_idle(subject, stage)
        parts = [bytes(await reader.read(at, 65_536)) for at in range(0, len(content), 65_536)]
        reader.close()

        assert same(b"".join(parts), content)

    # Stops ----------------------------------------------------------------------------------------

    async def test_a_pass_may_be_cancelled_anywhere(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        await drop_some(stage)
        before = await seen(stage)
        for steps in [0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 22, 30, 45, 70, 120]:
            await cancelled_after(subject, stage, steps)

            assert same(await seen(stage), before)
        await to_idle(subject, stage)

        assert same(await seen(stage), before)

    async def test_a_cancelled_pass_ends_at_once(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        for steps in (1, 3, 10):
            started = time.monotonic()
            await cancelled_after(subject, stage, steps)

            assert time.monotonic() - started < PASS_MAX_S / 2

    @pytest.mark.parametrize("steps", [1, 5, 20, 60])
    async def test_a_power_cut_harms_nothing(self, make: Make, stage: Stage, steps: int) -> None:
        await fill(stage)
        await drop_some(stage)
        before = await seen(stage)
        await cancelled_after(make(context_of(stage)), stage, steps)
        await stage.crash()

        assert same(await seen(stage), before)
        await to_idle(make(context_of(stage)), stage)
        assert same(await seen(stage), before)

    async def test_a_new_one_goes_on_where_the_last_one_was(self, make: Make, stage: Stage) -> None:
        before = await fill(stage)
        for _ in range(3):
            await make(context_of(stage)).work(context_of(stage))
        await to_idle(make(context_of(stage)), stage)

        assert same(await seen(stage), before)

    async def test_nothing_is_left_behind(self, subject: Service, stage: Stage) -> None:
        await fill(stage)
        await to_idle(subject, stage)
        tasks, files = len(asyncio.all_tasks()), descriptors()
        for _ in range(5):
            await subject.work(context_of(stage))
            await cancelled_after(subject, stage, 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                # Nothing tells when the last of them is gone.
                while len(asyncio.all_tasks()) > tasks or descriptors() > files:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

        assert len(asyncio.all_tasks()) <= tasks, "tasks were left behind"
        assert descriptors() <= files, "descriptors were left behind"


def context_of(stage: Stage) -> ServiceContext:
    """Return what a service works on."""
    return ServiceContext(stage.namespace, stage.containers, Metrics())


async def to_idle(service: Service, stage: Stage) -> list[Report]:
    """Work until nothing is left to do; return the reports."""
    reports = []
    for _ in range(PASSES_MAX):
        started = time.monotonic()
        reports.append(await service.work(context_of(stage)))
        assert time.monotonic() - started < PASS_MAX_S, "a pass took too long"
        if reports[-1].idle:
            return reports
        await asyncio.sleep(0)
    raise AssertionError(f"not idle after {PASSES_MAX} passes: {reports[-1].counts}")


async def cancelled_after(service: Service, stage: Stage, steps: int) -> None:
    """Begin a pass and cancel it after some steps of the loop."""
    task = asyncio.create_task(service.work(context_of(stage)))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(PASS_MAX_S):
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def fill(stage: Stage, batch: int = 0) -> Seen:
    """Store, overwrite, delete and version; return what clients see then."""
    objects = NamespaceObjects(stage.namespace)
    for number in range(12):
        size = (0, 10, 900, 5_000, 70_000, 200_000)[number % 6]
        key = b"batch%d/%d" % (batch, number)
        await put(objects, key, noise(size, number))
        if number % 3 == 0:
            await put(objects, key, noise(size + 1, number + 50))
        if number % 4 == 1:
            await objects.delete(stage.volume, key)
    name = f"versioned{batch}"
    await objects.create_volume(name, owner=OWNER)
    await objects.set_versioning(name, "on")
    for number in range(6):
        await put(objects, b"key%d" % (number % 2), noise(3_000, number), volume=name)
    await objects.delete(name, b"key0")
    return await seen(stage)


async def drop_some(stage: Stage) -> None:
    """Delete every other object of the plain volume, so that there is garbage."""
    objects = NamespaceObjects(stage.namespace)
    for info in list((await objects.list(stage.volume)).entries)[::2]:
        await objects.delete(stage.volume, info.key)


async def drop_all(stage: Stage) -> None:
    """Delete everything in the plain volume."""
    objects = NamespaceObjects(stage.namespace)
    for info in (await objects.list(stage.volume)).entries:
        await objects.delete(stage.volume, info.key)


async def seen(stage: Stage) -> Seen:
    """Return all versions of all objects with their content."""
    objects = NamespaceObjects(stage.namespace)
    found: Seen = {}
    for volume in await objects.volumes():
        for listed in (await objects.list_versions(volume.name)).entries:
            if listed.marker:
                found[volume.name, listed.key, listed.version] = (listed, b"")
                continue
            version = listed.version
            info = await objects.head(volume.name, listed.key, version=version)
            content = await get(objects, listed.key, volume=volume.name, version=version)
            found[volume.name, listed.key, version] = (info, content)
    return found


async def put(
    objects: NamespaceObjects, key: bytes, content: bytes, *, volume: str = Stage.volume
) -> None:
    """Store an object, small or large."""
    digests = Digests(etag=f"{len(content)}-{sum(content[:100])}")
    if len(content) <= 64 * 1024:
        await objects.put(volume, key, content, Attributes(), digests)
        return
    writer = await objects.writer(volume, key, Attributes(), size=len(content))
    await writer.write(content)
    await writer.commit(digests)


async def get(
    objects: NamespaceObjects, key: bytes, *, volume: str = Stage.volume, version: str = ""
) -> bytes:
    """Read an object."""
    reader = await objects.open(volume, key, version=version)
    try:
        size = reader.info.size
        return b"".join([bytes(await reader.read(at, 1 << 20)) for at in range(0, size, 1 << 20)])
    finally:
        reader.close()


def noise(length: int, seed: int) -> bytes:
    """Return bytes without a pattern."""
    return random.Random(seed).randbytes(length)


def descriptors() -> int:
    """Return how many files this process has open; 0 where the system does not tell."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
