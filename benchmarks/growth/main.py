"""Fill, measure in turns, print the tables, judge."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.growth.data import VOLUME, beside_markers, filled, forget_all, node_on, read_all
from benchmarks.growth.floor import Floor
from benchmarks.growth.s3 import clients_of
from benchmarks.growth.verbs import COLD, LIST_ALL, MEASURES, Cost, Measure, Subject, cost

GATE = 1.5  # of CPU, the largest to the smallest
LIVE = 1000  # objects beside the markers: a page


async def rounds(
    measures: Sequence[Measure], subjects: Sequence[Subject], count: int
) -> dict[str, list[list[Cost]]]:
    """Return what each verb cost each subject in each round; subjects take turns, and begin in turns."""
    told: dict[str, list[list[Cost]]] = {
        measure.name: [[] for _ in subjects] for measure in measures
    }
    for measure in measures:
        for subject in subjects:
            for _ in range(measure.warm):
                await cost(measure, subject)
    for number in range(count):
        for measure in measures:
            for turn in range(len(subjects)):
                at = (turn + number) % len(subjects)
                told[measure.name][at].append(await cost(measure, subjects[at]))
    return told


def table(
    title: Sequence[str], measures: Sequence[Measure], told: dict[str, list[list[Cost]]]
) -> list[str]:
    """Print what was measured; return the verbs that missed the gate.

    The least of all rounds is what counts: other work only ever adds. The median of the rounds' ratios stands beside it. `floor` is
    the ratio that the verb would have if it grew by no more than its floor did.
    """
    missed = []
    print(
        f"\n| CPU us a verb, least of the rounds | {' | '.join(title)} | ratio | median | floor | faults |"
    )
    print("| --- " * (len(title) + 5) + "|")
    for measure in measures:
        columns = told[measure.name]
        least = [min(each.cpu_us for each in column) for column in columns]
        ratio = least[-1] / least[0]
        middle = statistics.median(
            last.cpu_us / first.cpu_us for first, last in zip(columns[0], columns[-1], strict=True)
        )
        faults = statistics.median(each.faults for each in columns[-1])
        shown = " | ".join(f"{figure:,.1f}" for figure in least)
        spared = "-"
        if measure.floor:
            floor = [min(each.cpu_us for each in column) for column in told[measure.floor]]
            spared = f"{1 + (floor[-1] - floor[0]) / least[0]:.2f}"
        print(
            f"| {measure.name} | {shown} | {ratio:.2f} | {middle:.2f} | {spared} | {faults:.2f} |"
        )
        if measure.gated and ratio > GATE:
            missed.append(f"{measure.name} {ratio:.2f}")
    return missed


async def grow(
    folder: Path, sizes: list[int], count: int, measures: Sequence[Measure]
) -> list[str]:
    """Measure nodes of several sizes."""
    places = [await filled(folder, size) for size in sizes]
    for place in places:
        read_all(place)
    async with AsyncExitStack() as stack:
        subjects = []
        for place, size in zip(places, sizes, strict=True):
            node = await stack.enter_async_context(node_on(place))
            clients = await stack.enter_async_context(clients_of(node))
            subject = Subject(node, size, random.Random(size), clients)
            await subject.node.namespace.volumes.get(VOLUME)
            subject.floor = Floor(node, place, size)
            stack.callback(subject.floor.close)
            subjects.append(subject)
        told = await rounds(measures, subjects, count)
    missed = table([f"{size:,}" for size in sizes], measures, told)
    await cold(places[-1], sizes[-1])
    return missed


async def cold(place: Path, size: int) -> None:
    """Tell what reads cost when nothing is in memory: the disk's part, which no index can spare."""
    forget_all(place)
    print(f"\n{size:,} objects, restarted, any of them:")
    async with node_on(place) as node:
        subject = Subject(node, size, random.Random(1))
        for measure in COLD:
            figure = await cost(measure, subject)
            print(
                f"- {measure.name}: {figure.cpu_us:,.0f} us CPU, {figure.wall_us:,.0f} us of time"
            )


async def beside(folder: Path, markers: int, count: int) -> list[str]:
    """Measure LIST without and with delete markers beside its objects."""
    places = [await beside_markers(folder, LIVE, number) for number in (LIVE, markers)]
    async with AsyncExitStack() as stack:
        subjects = [
            Subject(await stack.enter_async_context(node_on(place)), LIVE, random.Random(1))
            for place in places
        ]
        told = await rounds([LIST_ALL], subjects, count)
    return table([f"beside {LIVE:,} markers", f"beside {markers:,}"], [LIST_ALL], told)


async def measure(folder: Path, sizes: list[int], markers: int, count: int, only: str) -> list[str]:
    """Fill and measure; return what missed the gate."""
    started = time.monotonic()
    chosen = [
        each
        for each in MEASURES
        if not each.gated or any(part in each.name for part in only.split(","))
    ]
    missed = await grow(folder, sizes, count, chosen)
    if not only:
        missed += await beside(folder, markers, 3 * count)
    print(f"\n{time.monotonic() - started:.0f} s in all; gate {GATE}: {missed or 'met'}")
    return missed


def main(arguments: list[str]) -> int:
    """Parse options and measure."""
    import benchmarks.growth

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks growth", description=benchmarks.growth.__doc__
    )
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--markers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--only",
        default="",
        help="parts of the names of what is measured, with commas; DELETE removes what PUT, new stored",
    )
    parser.add_argument(
        "--folder", type=Path, help="where the data lies and is kept (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="warp-growth-") as scratch:
        folder = options.folder or Path(scratch)
        return bool(
            asyncio.run(measure(folder, sizes, options.markers, options.rounds, options.only))
        )
