"""What a snapshot of a volume of many objects costs, and what changes and reads cost after it.

Question: is a snapshot O(1), is the first change of something at most twice as dear after it, and everything else as before? One
node, through the Objects view, without HTTP. The figure is CPU time of the process per verb, syncs in; two volumes of the same
objects, one with snapshots and one without, take turns and begin in turns, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from warp_core.interfaces.auth import SYSTEM
from warp_core.node.assembly import Node

from benchmarks.growth.data import ATTRIBUTES, DIGESTS, Verb, key, node_on, together

PLAIN, KEPT = "plain", "kept"
PAYLOAD = b"x" * 256  # lies in its row: what is measured is metadata


async def cpu_us(verbs: Iterable[Verb], count: int) -> float:
    """Return the CPU of a verb."""
    used = time.process_time()
    await together(verbs)
    return (time.process_time() - used) / count * 1e6


async def measured(node: Node, objects: int, count: int, rounds: int) -> None:
    """Fill both volumes, then measure and print."""
    view = node.objects

    def put(volume: str, name: bytes) -> Verb:
        return lambda: view.put(volume, name, PAYLOAD, ATTRIBUTES, DIGESTS)

    def head(volume: str, name: bytes) -> Verb:
        return lambda: view.head(volume, name)

    def listed(volume: str, name: bytes) -> Verb:
        return lambda: view.list(volume, after=name, limit=1000)

    for volume in (PLAIN, KEPT):
        await view.create_volume(volume, owner=SYSTEM)
        await together(put(volume, key(number)) for number in range(objects))
    times, used = [], time.process_time()
    for turn in range(5):
        start = time.perf_counter()
        await node.snapshots.create(KEPT, f"s{turn}")
        times.append((time.perf_counter() - start) * 1e3)
    cpu = (time.process_time() - used) / 5 * 1e3
    print(
        f"{objects:,} objects: a snapshot takes {statistics.median(times):.1f} ms"
        f" (at most {max(times):.1f}), {cpu:.2f} ms of CPU"
    )
    told: dict[str, list[tuple[float, float]]] = {}
    fresh = objects

    async def both(what: str, make: Callable[[str, bytes], Verb], names: list[bytes]) -> None:
        turns = told.setdefault(what, [])
        found = {}
        for volume in (PLAIN, KEPT) if len(turns) % 2 else (KEPT, PLAIN):
            found[volume] = await cpu_us((make(volume, name) for name in names), len(names))
        turns.append((found[PLAIN], found[KEPT]))

    for turn in range(rounds):
        await node.snapshots.create(KEPT, f"r{turn}")
        names = [key((turn * count + number) % objects) for number in range(count)]
        await both("first overwrite", put, names)
        await both("later overwrite", put, names)
        await both("head", head, names)
        await both("list 1,000", listed, names[:20])
        await both("new object", put, [key(fresh + number) for number in range(count)])
        fresh += count
    print(f"{'verb':16} {'without':>10} {'with':>10}   ratio")
    for what, pairs in told.items():
        one, other = (min(each[side] for each in pairs) for side in (0, 1))
        print(f"{what:16} {one:8.1f} us {other:8.1f} us   {other / one:.2f}")
    start, used = time.perf_counter(), time.process_time()
    found = await node.snapshots.space(KEPT)
    wall, used = time.perf_counter() - start, time.process_time() - used
    print(f"what {len(found)} snapshots hold: {wall * 1e3:.1f} ms, {used * 1e3:.2f} ms of CPU")


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks snapshot-costs", description=__doc__)  # fmt: skip
    parser.add_argument("--objects", type=int, default=500_000, help="in each of two volumes")
    parser.add_argument("--count", type=int, default=2_000, help="verbs of a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="snapshot-costs-"))

    async def run() -> None:
        async with node_on(folder) as node:
            await measured(node, options.objects, options.count, options.rounds)

    try:
        asyncio.run(run())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0
