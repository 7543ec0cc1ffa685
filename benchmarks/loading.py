"""Load one volume with very many objects and tell, as it grows, what memory, listings and disk cost.

Question: does memory grow with the number of objects, or what a page of a listing costs? Objects of 100 bytes go in through the
Objects view, 64 at a time, in one process whose own memory (RssAnon) is read at every step, with the CPU of 1,000-key pages anywhere
in the volume. At the end the folder is opened by `warp serve` and every key is listed over S3.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from warp_core.interfaces.auth import SYSTEM
from warp_core.node.assembly import Node
from warp_core.views.objects import Digests

from benchmarks import servers
from benchmarks.growth.data import ATTRIBUTES, VOLUME, key, node_on, together

PAYLOAD = os.urandom(100)
DIGESTS = Digests(etag=hashlib.md5(PAYLOAD, usedforsecurity=False).hexdigest())
PAGE = 1000  # keys
PAGES = 40  # listed at each step
SPARE = 12 << 30  # bytes of the disk that are left to others
HEAD = "| objects | RssAnon MiB | page anywhere, CPU us | first page | put, CPU us | seconds | GiB on disk |"


def own_memory(process: int | str = "self") -> int:
    """Return the bytes of memory that are a process's own: heap and stacks, no file pages."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LookupError("this kernel does not report RssAnon")


def used_by(folder: Path) -> int:
    """Return the bytes of disk below `folder`."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


async def page_cost(node: Node, starts: list[bytes]) -> float:
    """Return CPU us of a page of 1,000 keys after each of `starts`, the least of all."""
    least = float("inf")
    for start in starts:
        before = time.process_time_ns()
        await node.objects.list(VOLUME, after=start, limit=PAGE)
        least = min(least, (time.process_time_ns() - before) / 1000)
    return least


async def load(folder: Path, count: int, step: int) -> int:
    """Store `count` objects, telling a line every `step`; return how many there are in the end."""
    chance, started, done = random.Random(1), time.monotonic(), 0
    print(HEAD, "| --- " * 7 + "|", sep="\n", flush=True)
    async with node_on(folder) as node:
        objects = node.objects
        await objects.create_volume(VOLUME, owner=SYSTEM)
        while done < count and shutil.disk_usage(folder).free > SPARE:
            before = time.process_time()
            names = map(key, range(done, min(done + step, count)))
            await together(
                lambda name=name: objects.put(VOLUME, name, PAYLOAD, ATTRIBUTES, DIGESTS)  # type: ignore[misc]
                for name in names
            )
            put_us = (time.process_time() - before) / step * 1e6
            done += step
            gc.collect()
            anywhere = await page_cost(
                node, [key(chance.randrange(max(1, done - PAGE))) for _ in range(PAGES)]
            )
            first = await page_cost(node, [b""] * PAGES)
            print(
                f"| {done:,} | {own_memory() / 2**20:,.0f} | {anywhere:,.0f} | {first:,.0f} | {put_us:,.0f}"
                f" | {time.monotonic() - started:,.0f} | {used_by(folder) / 2**30:.1f} |",
                flush=True,
            )
    return done


def walk(server: servers.Server) -> int:
    """List every key over S3 and return how many there are, telling what it cost the server."""
    import boto3

    s3: Any = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=servers.ACCESS_KEY,
        aws_secret_access_key=servers.SECRET_KEY,
    )
    before, started, count = processor_time(server.pid), time.monotonic(), 0
    first = own_memory(server.pid)
    highest, last = first, ""
    for number, page in enumerate(s3.get_paginator("list_objects_v2").paginate(Bucket=VOLUME)):
        keys = [found["Key"] for found in page.get("Contents", ())]
        assert not keys or (keys[0] > last and keys == sorted(keys))
        last, count = keys[-1] if keys else last, count + len(keys)
        if number % 100 == 0:
            highest = max(highest, own_memory(server.pid))
    used = processor_time(server.pid) - before
    print(
        f"warp serve, opened anew: RssAnon {first / 2**20:,.0f} MiB; {count:,} keys listed in {time.monotonic() - started:,.0f} s,"
        f" {used / max(1, count) * PAGE * 1e6:,.0f} us of its CPU a page; RssAnon at most {highest / 2**20:,.0f} MiB",
        flush=True,
    )
    return count


def processor_time(process: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> int:
    """Parse options, load, list; fail where a key is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loading", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000_000)
    parser.add_argument("--step", type=int, default=250_000)
    parser.add_argument(
        "--folder", type=Path, help="where the node keeps its data (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="warp-loading-", dir=options.folder) as made:
        folder = Path(made)
        done = asyncio.run(load(folder, options.count, options.step))
        config = f'[node]\ndata = "{folder}"\n\n[protocols.s3]\nlisten = "127.0.0.1:0"\n'
        with servers.warp(folder / "served", config=config) as server:
            return 0 if walk(server) == done else 1
