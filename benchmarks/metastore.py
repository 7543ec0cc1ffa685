"""Cost of metadata engines: CPU of a transaction shaped like an S3 PUT, a get, a scan of 1,000 rows, at several sizes.

    python benchmarks/metastore.py [--engine local|memory|etcd] [--rows 1000,100000,1000000] [--share 0.1]
                                   [--store disk|null] [--json FILE]

CPU is that of this process, all threads, user and system; wall time is in parentheses. `--store null` keeps bytes nowhere, so that
what remains is the engine. `--share` of the operations is enough for slow engines.
A transaction reads 3 rows, writes 3, merges 2 counters and stamps one row.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from warp_conformance.reference.filedisk import FileDisk
from warp_core.containers.journal import Journal
from warp_core.interfaces.consistency import Commit, MetaStore, Write
from warp_core.interfaces.stores import Buffer
from warp_core.metadata import Transaction, transact

VALUE = bytes(200)


class NullDisk(FileDisk):
    """Writes go nowhere and cost nothing; the index below `path` is real."""

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """Write pages only: the journal recovers what it has, which is nothing."""
        if offset == 0:
            await super().write(name, offset=offset, buffers=buffers)
        else:
            await asyncio.sleep(0)

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """Reserve nothing."""
        await super().create(name, reserve=0)


@asynccontextmanager
async def opened(engine: str, store: str, folder: Path) -> AsyncIterator[MetaStore]:
    """Open an engine on a fresh folder."""
    if engine == "memory":
        from warp_meta_memory.engine import Memory

        async with Memory() as memory:
            yield memory
        return
    if engine == "etcd":
        from warp_core.config.types import Duration
        from warp_etcd.config import Config as EtcdConfig
        from warp_etcd.engine import Etcd

        async with Etcd(EtcdConfig(timeout=Duration(60.0)), folder) as etcd:
            yield etcd
        return
    from warp_local.config import Config
    from warp_local.engine import Local

    if store == "null":
        disk: Any = NullDisk(folder)
    else:
        from warp_disk.config import Config as DiskConfig
        from warp_disk.store import Disk

        disk = Disk(DiskConfig(path=str(folder / "disk"), reserve=1 << 20), folder)
    async with disk, Journal([disk]) as journal, Local(Config(), [disk], journal) as local:
        yield local


async def put(store: MetaStore, number: int) -> None:
    """Run one transaction."""
    name = b"D/%010d" % number

    async def body(tx: Transaction) -> None:
        await tx.get(b"volume")
        await tx.get(name)
        await tx.get(b"policy")
        tx.put(name, VALUE)
        tx.put(b"R/%010d" % number, VALUE)
        tx.put(b"I/%010d" % number, b"x" * 40)
        tx.merge(b"usage", add=(1, 4096))
        tx.merge(b"directory", max=(number,))
        tx.stamp(b"F/", b"", b"changed")

    await transact(store, body)


async def fill(store: MetaStore, rows: int) -> None:
    """Write the rows that gets and scans find."""
    numbers = random.Random(1).sample(range(10 * rows), rows)
    for at in range(0, rows, 100):
        await store.commit(
            Commit(writes=[Write(b"D/%010d" % (10 * n), VALUE) for n in numbers[at : at + 100]])
        )


async def per_operation(work: Any, count: int) -> tuple[float, float]:
    """Return (CPU us, wall us) of one of `count` operations."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    return (time.process_time() - cpu) / count * 1e6, (time.perf_counter() - wall) / count * 1e6


async def puts(store: MetaStore, count: int, at_once: int, base: int) -> None:
    """Run `count` transactions, `at_once` at a time."""
    numbers = iter(random.Random(at_once).sample(range(base), count))

    async def client() -> None:
        for number in numbers:
            await put(store, 10 * number + at_once % 9 + 1)

    await asyncio.gather(*(client() for _ in range(at_once)))


async def gets(store: MetaStore, count: int, rows: int) -> None:
    """Read rows, each through a view of its own."""
    keys = [
        b"D/%010d" % (10 * n) for n in random.Random(1).sample(range(10 * rows), min(rows, count))
    ]
    for number in range(count):
        view = store.view()
        await view.get(keys[number % len(keys)])
        view.close()


async def scans(store: MetaStore, count: int, rows: int) -> None:
    """Read pages of 1,000 rows."""
    for number in range(count):
        view = store.view()
        start = b"D/%010d" % (100 * rows * number // (2 * count))
        found = await view.scan(start, b"E")
        assert len(found) > 400
        view.close()


async def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the figures of each size."""
    results = []
    for rows in [int(float(each)) for each in arguments.rows.split(",")]:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            async with opened(arguments.engine, arguments.store, Path(folder)) as store:
                await fill(store, rows)
                if hasattr(store, "checkpoint"):
                    await store.checkpoint()
                result: dict[str, Any] = {"rows": rows}
                for at_once, most in ((1, 1500), (16, 8000), (64, 16000)):
                    count = int(most * arguments.share)
                    cpu, wall = await per_operation(
                        puts(store, count, at_once, max(10 * rows, 20_000)), count
                    )
                    result[f"put {at_once}"] = {"cpu_us": cpu, "wall_us": wall}
                count = int(20000 * arguments.share)
                cpu, wall = await per_operation(gets(store, count, rows), count)
                result["get"] = {"cpu_us": cpu, "wall_us": wall}
                cpu, wall = await per_operation(scans(store, 60, rows), 60)
                result["scan"] = {"cpu_us": cpu, "wall_us": wall}
                results.append(result)
                cells = "  ".join(
                    f"{name} {cell['cpu_us']:.1f} ({cell['wall_us']:.0f})"
                    for name, cell in result.items()
                    if name != "rows"
                )
                print(f"{rows:>9} rows   CPU us (wall us): {cells}", file=sys.stderr)
    return results


def main() -> None:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--store", default="null")
    parser.add_argument("--rows", default="1000,100000")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--json", default=None)
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
