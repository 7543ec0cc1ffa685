"""What a durable commit of six rows costs in LMDB alone, in SQLite, and in the engine `local`, by commits that share a sync.

    python benchmarks/metadata_logs.py [--folder DIR] [--seconds 1] [--rounds 5]

Every commit sets three rows of 200, 200 and 40 bytes with fresh keys, two counters and one feed row. For LMDB and SQLite, one
transaction carries `batch` commits. For `local`, `batch` clients commit at once through `transact`, which also reads three rows. CPU
is of the process, all threads. The floor is one write of the same bytes to a zero-filled file and one fdatasync. Rounds are
interleaved; the table shows medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lmdb
from metastore import opened, put

ROWS = 100_000  # there before
VALUE = bytes(200)


def commit_rows(number: int) -> list[tuple[bytes, bytes]]:
    """Return the rows of one commit."""
    return [
        (b"D/%010d" % number, VALUE),
        (b"R/%010d" % number, VALUE),
        (b"I/%010d" % number, VALUE[:40]),
        (b"usage", b"%016d" % number),
        (b"directory", b"%08d" % number),
        (b"F/%010d" % number, b"changed"),
    ]


def lmdb_batches(folder: Path) -> Callable[[list[int]], None]:
    """Return what commits a batch in LMDB, both of its syncs on."""
    environment = lmdb.open(str(folder / "lmdb"), map_size=1 << 34, sync=True, metasync=True)
    with environment.begin(write=True) as txn:
        for number in range(ROWS):
            txn.put(b"D/%010d" % (number * 7919 % 10**9), VALUE)

    def run(numbers: list[int]) -> None:
        with environment.begin(write=True) as txn:
            for number in numbers:
                for key, value in commit_rows(number):
                    txn.put(key, value)

    return run


def sqlite_batches(folder: Path) -> Callable[[list[int]], None]:
    """Return what commits a batch in SQLite with a write-ahead log, synced."""
    base = sqlite3.connect(folder / "sqlite", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
    statement = "INSERT OR REPLACE INTO rows VALUES (?, ?)"
    base.execute("BEGIN")
    base.executemany(
        statement, ((b"D/%010d" % (number * 7919 % 10**9), VALUE) for number in range(ROWS))
    )
    base.execute("COMMIT")

    def run(numbers: list[int]) -> None:
        base.execute("BEGIN")
        for number in numbers:
            base.executemany(statement, commit_rows(number))
        base.execute("COMMIT")

    return run


def floor_batches(folder: Path) -> Callable[[list[int]], None]:
    """Return what writes the bytes of a batch and syncs."""
    descriptor = os.open(folder / "floor", os.O_RDWR | os.O_CREAT)
    size = 64 << 20
    os.pwrite(descriptor, bytes(size), 0)
    os.fsync(descriptor)
    place = 0

    def run(numbers: list[int]) -> None:
        nonlocal place
        data = bytes(680 * len(numbers))
        place = place if place + len(data) < size else 0
        os.pwrite(descriptor, data, place)
        place += len(data)
        os.fdatasync(descriptor)

    return run


def timed(
    run: Callable[[list[int]], None], batch: int, seconds: float
) -> tuple[float, float, float]:
    """Return commits a second, CPU us a commit, and the median ms of a batch."""
    source = random.Random(batch)
    taken = []
    cpu, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        numbers = [source.randrange(10**9) for _ in range(batch)]
        start = time.perf_counter()
        run(numbers)
        taken.append(time.perf_counter() - start)
    wall = time.perf_counter() - begin
    count = len(taken) * batch
    return count / wall, (time.process_time() - cpu) / count * 1e6, statistics.median(taken) * 1e3


async def timed_local(folder: Path, batch: int, seconds: float) -> tuple[float, float, float]:
    """Return the same of the engine `local`."""
    source = random.Random(batch)
    taken: list[float] = []
    async with opened("local", "disk", folder) as store:
        for number in range(200):
            await put(store, number)
        cpu, begin = time.process_time(), time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - begin < seconds:
                start = time.perf_counter()
                await put(store, source.randrange(10**9))
                taken.append(time.perf_counter() - start)

        await asyncio.gather(*(client() for _ in range(batch)))
        wall = time.perf_counter() - begin
        used = time.process_time() - cpu
    return len(taken) / wall, used / len(taken) * 1e6, statistics.median(taken) * 1e3


def main() -> None:
    """Measure all, interleaved, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    figures: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        others = {
            "floor": floor_batches(folder),
            "lmdb, synced": lmdb_batches(folder),
            "sqlite, WAL, FULL": sqlite_batches(folder),
        }
        for turn in range(arguments.rounds):
            for batch in (1, 16, 64):
                for engine, run in others.items():
                    cell = figures.setdefault((batch, engine), [])
                    cell.append(timed(run, batch, arguments.seconds))
                target = folder / f"local{batch}-{turn}"
                target.mkdir()
                cell = figures.setdefault((batch, "local"), [])
                cell.append(asyncio.run(timed_local(target, batch, arguments.seconds)))
    print(
        "| engine | batch | commits/s | CPU us/commit | p50 ms |\n| --- | --- | --- | --- | --- |"
    )
    for (batch, engine), cell in figures.items():
        rate, cpu, p50 = (statistics.median(column) for column in zip(*cell, strict=True))
        print(f"| {engine} | {batch} | {rate:,.0f} | {cpu:.0f} | {p50:.2f} |")


if __name__ == "__main__":
    main()
