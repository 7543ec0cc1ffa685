"""What the namespace costs: CPU of the Objects verbs at several sizes of a volume, on engines in memory and on disk.

    python benchmarks/namespace.py --engine memory --objects 1000 100000
    python benchmarks/namespace.py --engine local --objects 1000 100000 1000000 --profile put

Figures are process CPU in microseconds for one operation (median of rounds); `rows` are those that the engine was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import hashlib
import pstats
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from warp_core.containers import Containers, StoreSlot
from warp_core.interfaces.auth import SYSTEM
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests

ROUNDS = 7
BATCH = 200
WIDTH = 64  # concurrent requests
ATTRIBUTES = Attributes(headers={"content-type": "binary/octet-stream"}, owner="account:root")
DATA = random.Random(1).randbytes(4096)
DIGESTS = Digests(etag=hashlib.md5(DATA).hexdigest(), checksums={"CRC64NVME": "AAAAAAAAAAA="})


@asynccontextmanager
async def opened(engine: str, folder: Path) -> AsyncIterator[NamespaceObjects]:
    """Open a namespace on the engine `memory` or `local`."""
    from warp_fixed.chunker import Fixed

    async with AsyncExitStack() as stack:
        if engine == "memory":
            from warp_meta_memory.engine import Memory
            from warp_store_memory import Memory as MemoryStore

            store = await stack.enter_async_context(MemoryStore())
            meta: Any = await stack.enter_async_context(Memory())
            journal = None
        else:
            from warp_core.containers.journal import Journal
            from warp_disk.config import Config as DiskConfig
            from warp_disk.store import Disk
            from warp_local.config import Config
            from warp_local.engine import Local

            store = await stack.enter_async_context(Disk(DiskConfig(), folder))
            journal = await stack.enter_async_context(Journal([store]))
        containers = await stack.enter_async_context(
            Containers([StoreSlot("d", store)], codec=lambda name: Fixed(8 << 20), journal=journal)
        )
        if engine != "memory":
            meta = await stack.enter_async_context(Local(Config(), [store], journal))
        yield NamespaceObjects(Namespace(meta, containers))


async def measure(
    name: str, count: int, call: Callable[[int], Awaitable[object]], width: int, profile: str
) -> None:
    """Run rounds of `count` calls, `width` at a time, and print the CPU of one."""
    costs, walls = [], []
    profiler = cProfile.Profile() if profile == name else None
    number = 0
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        if profiler:
            profiler.enable()
        if width == 1:
            for _ in range(count):
                await call(number)
                number += 1
        else:
            for _ in range(count // width):
                await asyncio.gather(*(call(number + each) for each in range(width)))
                number += width
        if profiler:
            profiler.disable()
        done = count if width == 1 else count // width * width
        costs.append((time.process_time() - cpu) / done * 1e6)
        walls.append((time.perf_counter() - wall) / done * 1e6)
    print(
        f"  {name:<12} {statistics.median(costs):9.1f} us CPU (best {min(costs):.1f})"
        f" {statistics.median(walls):9.1f} us wall",
        flush=True,
    )
    if profiler:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(28)


async def run(arguments: argparse.Namespace) -> None:
    """Fill a volume step by step and measure at each size."""
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        async with opened(arguments.engine, folder) as objects:
            await objects.create_volume("bench", owner=SYSTEM)

            async def put(number: int) -> None:
                key = b"dir/%012d" % number
                await objects.put("bench", key, DATA, ATTRIBUTES, DIGESTS)

            filled = 0
            fresh = 10**11
            for size in arguments.objects:
                while filled < size:
                    await asyncio.gather(
                        *(put(each) for each in range(filled, min(filled + 256, size)))
                    )
                    filled = min(filled + 256, size)
                print(f"{arguments.engine}, {size} objects", flush=True)
                fresh = await rounds(objects, size, fresh, put, arguments)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def rounds(
    objects: NamespaceObjects,
    size: int,
    fresh: int,
    put: Callable[[int], Awaitable[None]],
    arguments: argparse.Namespace,
) -> int:
    """Measure every verb on a volume of `size` objects; what is put is deleted again."""
    chosen = random.Random(2)
    keys = [b"dir/%012d" % chosen.randrange(size) for _ in range(BATCH)]

    async def get(number: int) -> None:
        reader = await objects.open("bench", keys[number % BATCH])
        if reader.read_now(0, 4096) is None:
            await reader.read(0, 4096)
        reader.close()

    async def head(number: int) -> None:
        await objects.head("bench", keys[number % BATCH])

    async def list_(number: int) -> None:
        await objects.list("bench", prefix=b"dir/", after=keys[number % BATCH][:-3])

    async def put_fresh(number: int) -> None:
        await put(fresh + number)

    async def delete(number: int) -> None:
        await objects.delete("bench", b"dir/%012d" % (fresh + number))

    async def overwrite(number: int) -> None:
        await objects.put("bench", keys[number % BATCH], DATA, ATTRIBUTES, DIGESTS)

    await measure("get", BATCH * 5, get, 1, arguments.profile)
    await measure("head", BATCH * 5, head, 1, arguments.profile)
    await measure("list1000", 20, list_, 1, arguments.profile)
    await measure("put", BATCH * 3, put_fresh, WIDTH, arguments.profile)
    await measure("delete", BATCH * 3, delete, WIDTH, arguments.profile)
    await measure("overwrite", BATCH * 3, overwrite, WIDTH, arguments.profile)
    return fresh + ROUNDS * BATCH * 3


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["memory", "local"], default="memory")
    parser.add_argument("--objects", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--folder", default=None, help="where the engine on disk keeps its data")
    parser.add_argument("--profile", default="", help="an operation to profile: put, get, ...")
    arguments = parser.parse_args()
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
