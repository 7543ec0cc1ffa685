"""Three nodes that read, write and watch the same rows while members of etcd are killed and stopped at random."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from warp_core.errors import Ambiguous, Conflict, Expired, Unavailable
from warp_core.interfaces.consistency import SCAN_MAX, Commit, Row, View, Write
from warp_core.metadata import Transaction, counters, transact
from warp_etcd.config import Config
from warp_etcd.engine import Etcd

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
ACCOUNTS = 6
QUIET_S = 3.0  # at the end, so that every member is back


async def rows_of(view: View, start: bytes, end: bytes) -> list[Row]:
    rows: list[Row] = []
    while page := await view.scan(start, end):
        rows += page
        if len(page) < SCAN_MAX:
            break
        start = page[-1].key + b"\0"
    return rows


async def move(tx: Transaction, *, tag: bytes, source: int, target: int) -> None:
    """Move a coin, having looked at all; note it in a row, a counter and a feed."""
    rows = await tx.scan(b"account/", b"account0")
    assert sum(int(row.value) for row in rows) == 100 * ACCOUNTS
    held = [int(row.value) for row in rows]
    if held[source]:
        tx.put(b"account/%d" % source, b"%d" % (held[source] - 1))
        tx.put(b"account/%d" % target, b"%d" % (held[target] + 1))
    assert await tx.get(tag) is None
    tx.put(tag, b"")
    tx.merge(b"n", add=(1,))
    tx.stamp(b"feed/", b"", tag)


@pytest.mark.parametrize("seconds", [9.0, pytest.param(240.0, marks=pytest.mark.slow)])
async def test_nothing_is_lost_doubled_or_seen_out_of_order(
    new_cluster: Callable[..., Any], tmp_path: Path, seconds: float
) -> None:
    chance = random.Random(SEED)
    servers = new_cluster(3)
    endpoints = tuple(server.endpoint for server in servers)
    stop_s = time.monotonic() + seconds
    done: set[bytes] = set()
    unclear: set[bytes] = set()
    watched: list[bytes | None] = []
    faults = 0

    async def client(node: Etcd, name: int) -> None:
        number = 0
        while time.monotonic() < stop_s:
            number += 1
            tag = b"log/%d-%d" % (name, number)
            source, target = chance.sample(range(ACCOUNTS), 2)
            try:
                await transact(node, partial(move, tag=tag, source=source, target=target))
            except Ambiguous:
                unclear.add(tag)
            except (Conflict, Unavailable, Expired):
                continue
            else:
                done.add(tag)

    async def harm() -> None:
        nonlocal faults
        while time.monotonic() < stop_s - QUIET_S:
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            server = chance.choice(servers)
            faults += 1
            if chance.random() < 0.5:
                server.kill()
                await asyncio.sleep(chance.uniform(0.1, 1.0))
                server.start()
            else:
                server.signal(signal.SIGSTOP)
                await asyncio.sleep(chance.uniform(0.1, 2.0))
                server.signal(signal.SIGCONT)

    async def follow(node: Etcd) -> None:
        async for change in node.watch(b"feed/", 0):
            watched.append(change.value)  # noqa: PERF401

    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                Etcd(Config(endpoints=endpoints[at:] + endpoints[:at]), tmp_path)
            )
            for at in range(3)
        ]
        await nodes[0].commit(
            Commit(writes=[Write(b"account/%d" % number, b"100") for number in range(ACCOUNTS)])
        )
        following = asyncio.create_task(follow(nodes[1]))
        await asyncio.gather(
            harm(), *(client(node, 3 * at + i) for at, node in enumerate(nodes) for i in range(2))
        )

        for node in nodes:
            view = node.view()
            found = {row.key for row in await rows_of(view, b"log/", b"log0")}
            feed = [row.value for row in await rows_of(view, b"feed/", b"feed0")]
            total = await view.get(b"n")
            accounts = await rows_of(view, b"account/", b"account0")
            assert not done - found, f"{len(done - found)} of {len(done)} are lost"
            assert not found - done - unclear, "applied though said not to be"
            assert counters(total and total[0], 1) == (len(found),)
            assert sorted(feed) == sorted(found)
            assert sum(int(row.value) for row in accounts) == 100 * ACCOUNTS
        async with asyncio.timeout(20):
            while len(watched) < len(feed):
                await asyncio.sleep(0.02)
        following.cancel()

        assert watched == feed
        assert faults
        assert len(done) > 50
