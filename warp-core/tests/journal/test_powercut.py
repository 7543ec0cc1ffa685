"""Power cuts at every step of the journal: nothing acknowledged is lost, nothing appears out of order."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warp_core.containers import format as fmt
from warp_core.containers.journal import Journal
from warp_core.containers.segments import Gap
from warp_core.errors import WarpError

SEGMENT = 16 * 1024


@dataclass
class Run:
    """What a workload did until the power went."""

    appended: list[bytes] = field(default_factory=list)
    acked: int = 0
    steps: int = 0


async def work(sim, disks, workload, cut_at):
    """Run a workload of (sizes to append, then flush) until step `cut_at` of the stores."""
    run = Run()
    dark = asyncio.Event()

    def step(what, blob):
        run.steps += 1
        if cut_at is not None and run.steps >= cut_at:
            dark.set()
            raise sim.PowerCut

    for disk in disks:
        disk.step = step
    journal = Journal(disks, segment_size=SEGMENT)

    async def client():
        await journal.__aenter__()
        number = 0
        for sizes in workload:
            for size in sizes:
                payload = b"%06d" % number + bytes(size)
                number += 1
                await journal.room(len(payload))
                run.appended.append(payload)
                journal.append(fmt.Kind.COMMIT, payload)
            await journal.flush()
            run.acked = len(run.appended)
        await journal.__aexit__(None, None, None)

    task = asyncio.create_task(client())
    watcher = asyncio.create_task(dark.wait())
    await asyncio.wait([task, watcher], return_when=asyncio.FIRST_COMPLETED)
    for each in (task, watcher, journal._writer, *journal._maker.tasks):
        if each is not None:
            each.cancel()
            await asyncio.gather(each, return_exceptions=True)
    if cut_at is None and task.done() and not task.cancelled():
        task.result()
    return run


async def found(disks):
    async with Journal(disks, segment_size=SEGMENT) as journal:
        entries = [entry async for entry in journal.replay()]
    assert not [entry for entry in entries if isinstance(entry, Gap)]
    return [bytes(entry.payload) for entry in entries if entry.kind == fmt.Kind.COMMIT]


def check(run, got):
    assert len(got) >= run.acked
    assert got == run.appended[: len(got)]


PATTERNS = {
    "nothing": lambda i, n: False,
    "everything": lambda i, n: True,
    "first sector": lambda i, n: i == 0,
    "all but the first": lambda i, n: i > 0,
    "all but the last": lambda i, n: i < n - 1,
    "every other": lambda i, n: i % 2 == 0,
}
WORKLOAD = [[10], [600, 40], [], [2000], [5, 5, 5, 1500], [3000, 3000], [9000], [7], [7000, 700]]


def keeper(sim, pattern):
    def keep(name, offset, data):
        count = sim.sectors(data)
        return [PATTERNS[pattern](index, count) for index in range(count)]

    return keep


async def test_one_copy_cut_at_every_step_and_torn_in_every_way(sim):
    disk = sim.SimDisk()
    steps = (await work(sim, [disk], WORKLOAD, None)).steps
    assert steps > 30
    for cut_at, pattern in itertools.product(range(1, steps + 1), PATTERNS):
        disk = sim.SimDisk()
        run = await work(sim, [disk], WORKLOAD, cut_at)
        disk.cut(keeper(sim, pattern))
        got = await found([disk])
        check(run, got)
        assert await found([disk]) == got, "a second start finds the same"


async def test_two_copies_torn_differently_and_either_one_lost(sim):
    disks = [sim.SimDisk("1"), sim.SimDisk("2")]
    steps = (await work(sim, disks, WORKLOAD, None)).steps
    patterns = list(itertools.product(("nothing", "everything", "every other"), repeat=2))
    for index, cut_at in enumerate(range(1, steps + 1)):
        for pattern in (patterns[index % 9], patterns[(index + 4) % 9]):
            for lost in (None, 0, 1):
                disks = [sim.SimDisk("1"), sim.SimDisk("2")]
                run = await work(sim, disks, WORKLOAD, cut_at)
                for disk, each in zip(disks, pattern, strict=True):
                    disk.cut(keeper(sim, each))
                if lost is not None:
                    disks[lost] = sim.SimDisk("new")
                got = await found(disks)
                check(run, got)
                if lost is not None:
                    continue
                # Whichever copy is lost next, the same is found.
                assert await found([disks[index % 2]]) == got


async def test_a_cut_during_recovery_loses_nothing(sim):
    for first in range(12, 40, 3):
        for second in range(1, 16):
            disks = [sim.SimDisk("1"), sim.SimDisk("2")]
            run = await work(sim, disks, WORKLOAD, first)
            for disk in disks:
                disk.cut(keeper(sim, "every other"))
            await work(sim, disks, [], second)
            for disk in disks:
                disk.cut(keeper(sim, "first sector"))
            check(run, await found(disks))


sizes = st.lists(st.integers(0, 6000), max_size=5)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), workload=st.lists(sizes, min_size=1, max_size=8), copies=st.integers(1, 3))
async def test_any_workload_any_cut_any_tear(sim, data, workload, copies):
    disks = [sim.SimDisk(str(i)) for i in range(copies)]
    steps = (await work(sim, disks, workload, None)).steps
    disks = [sim.SimDisk(str(i)) for i in range(copies)]
    run = await work(sim, disks, workload, data.draw(st.integers(1, steps)))

    def keep(name, offset, written):
        count = sim.sectors(written)
        bits = data.draw(st.integers(0, 2 ** min(count, 12) - 1))
        return [bool(bits >> index % 12 & 1) for index in range(count)]

    for disk in disks:
        disk.cut(keep)
    lost = data.draw(st.integers(-1, copies - 1)) if copies > 1 else -1
    if lost >= 0:
        disks[lost] = sim.SimDisk("new")
    got = await found(disks)
    check(run, got)
    assert await found(disks) == got


@pytest.mark.parametrize("what", ["create", "write", "sync", "put", "delete"])
async def test_one_failing_copy_at_every_step_costs_nothing_acknowledged(sim, what):
    from warp_core.errors import StoreFailed

    for fail_at in range(1, 30):
        disks = [sim.SimDisk("1"), sim.SimDisk("2")]
        count = 0

        def step(kind, blob, disk=disks[1], fail_at=fail_at):
            nonlocal count
            if kind == what:
                count += 1
                if count == fail_at:
                    disk.down = StoreFailed("EIO")
                    raise disk.down

        disks[1].step = step
        journal = Journal(disks, segment_size=SEGMENT)
        acked = []
        async with journal:
            for number in range(40):
                payload = b"%06d" % number + bytes(number * 40)
                await journal.room(len(payload))
                journal.append(fmt.Kind.COMMIT, payload)
                await journal.flush()
                acked.append(payload)
        assert await found([disks[0]]) == acked
        disks[1].down = None
        disks[1].step = lambda what, blob: None
        assert await found(disks) == acked
        if count < fail_at:
            break


async def test_planted_bug_acknowledging_before_the_sync_is_caught(sim, monkeypatch):
    """The control: a journal that does not sync must fail the checks above."""
    caught = 0
    for cut_at in range(10, 40):
        disk = sim.SimDisk()
        write = disk.write

        async def unsynced(name, *, offset, buffers, sync=False, write=write):
            await write(name, offset=offset, buffers=buffers, sync=sync and offset == 0)

        disk.write = unsynced
        run = await work(sim, [disk], WORKLOAD, cut_at)
        disk.cut(keeper(sim, "nothing"))
        try:
            check(run, await found([disk]))
        except (AssertionError, WarpError):
            caught += 1
    assert caught > 10


@pytest.mark.parametrize("what", ["write", "sync", "create", "put", "read", "delete"])
async def test_a_copy_that_fails_while_the_other_recovers_is_left_behind(sim, what):
    from warp_core.errors import StoreFailed

    for fail_at in range(1, 8):
        disks = [sim.SimDisk("1"), sim.SimDisk("2")]
        run = await work(sim, disks, WORKLOAD, 40)
        for disk in disks:
            disk.cut(keeper(sim, "every other"))
        count = 0

        def step(kind, blob, disk=disks[1], fail_at=fail_at):
            nonlocal count
            if kind == what:
                count += 1
                if count == fail_at:
                    disk.down = StoreFailed("EIO")
                    raise disk.down

        disks[1].step = step
        got = await found(disks)
        check(run, got)
        assert await found([disks[0]]) == got
