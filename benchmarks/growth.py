"""Growth: what a lookup, a listing and a commit cost with 10^3, 10^5 and 10^6 objects in one volume.

Question: does the cost of an operation depend on how much is stored? A node is opened in this process, its volume is filled in
steps through the Objects view, and at each step, after a restart, the same verbs run at random places. The figure is CPU time of
the process per verb (HTTP left out, checkpoints and syncs in); the promise is that the last column stays at 1.5 or below.
Afterwards LIST is measured beside 10^5 delete markers.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from warp_core.config.load import load
from warp_core.interfaces.auth import SYSTEM
from warp_core.node.assembly import open_node
from warp_core.plugins import Plugins
from warp_core.views.objects import Attributes, Digests, Objects

PAYLOAD = os.urandom(1024 * 4)
DIGESTS = Digests(etag=hashlib.md5(PAYLOAD, usedforsecurity=False).hexdigest())
ATTRIBUTES = Attributes(headers={"content-type": "application/octet-stream"}, owner=SYSTEM.name)
AT_ONCE = 64  # requests in flight: what 64 connections would have
ROUNDS = 5  # each figure is the median of so many


def key(number: int) -> bytes:
    """Return the key of an object: a thousand to a folder, so that listings cross folders."""
    return b"%04d/%07d" % (number // 1000, number)


async def together(verbs: list[Callable[[], Awaitable[object]]]) -> None:
    """Run verbs, AT_ONCE in flight."""
    waiting = iter(verbs)

    async def worker() -> None:
        for verb in waiting:
            await verb()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def cost(make: Callable[[int], Callable[[], Awaitable[object]]], count: int) -> float:
    """Return CPU microseconds a verb, the median of ROUNDS rounds of `count`."""
    figures = []
    for round_number in range(ROUNDS):
        verbs = [make(round_number * count + n) for n in range(count)]
        start = time.process_time()
        await together(verbs)
        figures.append((time.process_time() - start) / count * 1e6)
    return statistics.median(figures)


async def fill(objects: Objects, volume: str, first: int, last: int) -> None:
    """Store objects first to last."""
    for begin in range(first, last, 10_000):
        end = min(begin + 10_000, last)
        await together([lambda n=n: put(objects, volume, key(n)) for n in range(begin, end)])  # type: ignore[misc]


async def put(objects: Objects, volume: str, name: bytes) -> None:
    """Store one object."""
    await objects.put(volume, name, PAYLOAD, ATTRIBUTES, DIGESTS)


async def get(objects: Objects, volume: str, name: bytes) -> None:
    """Read one object."""
    reader = await objects.open(volume, name)
    if reader.read_now(0, len(PAYLOAD)) is None:
        await reader.read(0, len(PAYLOAD))
    reader.close()


async def step(objects: Objects, volume: str, size: int, chance: random.Random) -> dict[str, float]:
    """Measure every verb at one size; what it adds is a fraction of it."""
    somewhere = lambda: key(chance.randrange(size))  # noqa: E731
    early = lambda: key(chance.randrange(size - 1000)) if size > 1000 else b""  # noqa: E731
    fresh = iter(range(10**7 + size, 10**8))
    return {
        "lookup (HEAD)": await cost(lambda n: lambda: objects.head(volume, somewhere()), 1000),
        "GET 4 KiB": await cost(lambda n: lambda: get(objects, volume, somewhere()), 1000),
        "LIST 1000": await cost(lambda n: lambda: objects.list(volume, after=early()), 20),
        "LIST 1000, delimiter": await cost(
            lambda n: lambda: objects.list(volume, prefix=somewhere()[:5], delimiter=b"/"), 20
        ),
        "PUT 4 KiB, new": await cost(lambda n: lambda: put(objects, volume, key(next(fresh))), 500),
        "PUT 4 KiB, over": await cost(lambda n: lambda: put(objects, volume, somewhere()), 500),
    }


@asynccontextmanager
async def node_on(folder: Path) -> AsyncIterator[Objects]:
    """Open a node without services and protocols. A fresh one reads from its index, not from what it wrote a moment ago."""
    plugins = Plugins()
    settings = load(None, catalog=plugins, environ={"WARP_DATA": str(folder)}, options=[])
    async with open_node(settings, plugins, serve=False) as node:
        yield node.objects


async def beside_markers(folder: Path, markers: int) -> tuple[float, float]:
    """Return what LIST of 1,000 keys costs before and after `markers` delete markers lie between them."""
    volume = "growth-markers"
    async with node_on(folder) as objects:
        await objects.create_volume(volume, owner=SYSTEM)
        await objects.set_versioning(volume, "on")
        live = [b"%06d-live" % (n * markers // 1000) for n in range(1000)]
        await together([lambda name=name: put(objects, volume, name) for name in live])  # type: ignore[misc]
    async with node_on(folder) as objects:
        before = await cost(lambda n: lambda: objects.list(volume), 20)
        names = [b"%06d-gone" % n for n in range(markers)]
        await together([lambda name=name: put(objects, volume, name) for name in names])  # type: ignore[misc]
        await together([lambda name=name: objects.delete(volume, name) for name in names])  # type: ignore[misc]
    async with node_on(folder) as objects:
        return before, await cost(lambda n: lambda: objects.list(volume), 20)


async def measure(folder: Path, sizes: list[int], markers: int) -> None:
    """Fill and measure, print the table."""
    columns = []
    volume, filled = "growth", 0
    async with node_on(folder) as objects:
        await objects.create_volume(volume, owner=SYSTEM)
    for size in sizes:
        started = time.monotonic()
        async with node_on(folder) as objects:
            await fill(objects, volume, filled, size)
        print(f"{size} objects after {time.monotonic() - started:.0f} s more", flush=True)
        filled = size
        async with node_on(folder) as objects:
            columns.append(await step(objects, volume, size, random.Random(size)))
    print(f"| CPU us a verb | {' | '.join(map(str, sizes))} | last / first |")
    print("| --- " * (len(sizes) + 2) + "|")
    for verb in columns[0]:
        figures = [column[verb] for column in columns]
        shown = " | ".join(f"{figure:,.0f}" for figure in figures)
        print(f"| {verb} | {shown} | {figures[-1] / figures[0]:.2f} |")
    before, after = await beside_markers(folder, markers)
    print(
        f"LIST 1,000 keys beside {markers} markers: {after:,.0f} us, before {before:,.0f} us, ratio {after / before:.2f}"
    )


def main(arguments: list[str]) -> int:
    """Parse options and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    parser.add_argument("--sizes", default="1000,100000,1000000")
    parser.add_argument("--markers", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, help="where the data lies (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    sizes = [int(size) for size in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="warp-growth-") as scratch:
        asyncio.run(measure(options.folder or Path(scratch), sizes, options.markers))
    return 0
