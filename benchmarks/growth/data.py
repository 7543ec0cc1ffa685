"""Nodes to measure: one for each size, filled through the Objects view, kept for the next run where a folder is named."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from warp_core.config.load import load
from warp_core.interfaces.auth import SYSTEM
from warp_core.node.assembly import Node, open_node
from warp_core.node.serve import COLLECT_AFTER
from warp_core.plugins import Plugins
from warp_core.views.objects import Attributes, Digests, Objects

VOLUME = "growth"
PAYLOAD = os.urandom(1024 * 4)
DIGESTS = Digests(etag=hashlib.md5(PAYLOAD, usedforsecurity=False).hexdigest())
ATTRIBUTES = Attributes(headers={"content-type": "application/octet-stream"}, owner=SYSTEM.name)
ACCESS_KEY, SECRET_KEY = "GROWTHACCESS", "growthsecretoftwentyandmore"
AT_ONCE = 64  # requests in flight: what 64 connections would have
FILLED = "filled"  # a file that says that a folder's node has all of its objects

Verb = Callable[[], Awaitable[object]]


def key(number: int) -> bytes:
    """Return the key of an object: a thousand to a folder, so that listings cross folders."""
    return b"%04d/%07d" % (number // 1000, number)


async def together(verbs: Iterable[Verb]) -> None:
    """Run verbs, AT_ONCE in flight."""
    waiting = iter(verbs)

    async def worker() -> None:
        for verb in waiting:
            await verb()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


async def put(objects: Objects, name: bytes, payload: bytes = PAYLOAD) -> None:
    """Store one object."""
    await objects.put(VOLUME, name, payload, ATTRIBUTES, DIGESTS)


async def get(objects: Objects, name: bytes) -> None:
    """Read one object."""
    reader = await objects.open(VOLUME, name)
    if reader.read_now(0, len(PAYLOAD)) is None:
        await reader.read(0, len(PAYLOAD))
    reader.close()


@asynccontextmanager
async def node_on(folder: Path) -> AsyncIterator[Node]:
    """Open a node without services and protocols, collecting garbage as a server does."""
    plugins = Plugins()
    environ = {
        "WARP_DATA": str(folder),
        "WARP_ACCESS_KEY": ACCESS_KEY,
        "WARP_SECRET_KEY": SECRET_KEY,
    }
    settings = load(None, catalog=plugins, environ=environ, options=[])
    async with open_node(settings, plugins, serve=False) as node:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        yield node


async def filled(folder: Path, size: int) -> Path:
    """Return the folder of a node with `size` objects, made if it is not there."""
    place = folder / f"{size}"
    if not (place / FILLED).exists():
        started, used = time.monotonic(), time.process_time()
        async with node_on(place) as node:
            await node.objects.create_volume(VOLUME, owner=SYSTEM)
            names = map(key, range(size))
            await together(lambda name=name: put(node.objects, name) for name in names)  # type: ignore[misc]
        (place / FILLED).touch()
        _say(f"{size} objects", started, used)
    return place


async def beside_markers(folder: Path, live: int, markers: int) -> Path:
    """Return the folder of a node whose volume has `live` objects and `markers` delete markers between them."""
    place = folder / f"{live}-beside-{markers}"
    if not (place / FILLED).exists():
        started, used = time.monotonic(), time.process_time()
        async with node_on(place) as node:
            objects = node.objects
            await objects.create_volume(VOLUME, owner=SYSTEM)
            await objects.set_versioning(VOLUME, "on")
            await together(
                lambda name=b"%06d-live" % (n * markers // live): put(objects, name, b"")  # type: ignore[misc]
                for n in range(live)
            )
            gone = [b"%06d-gone" % n for n in range(markers)]
            await together(lambda name=name: put(objects, name, b"") for name in gone)  # type: ignore[misc]
            await together(lambda name=name: objects.delete(VOLUME, name) for name in gone)  # type: ignore[misc]
        (place / FILLED).touch()
        _say(f"{markers} markers beside {live} objects", started, used)
    return place


def _say(what: str, started: float, used: float) -> None:
    seconds, cpu = time.monotonic() - started, time.process_time() - used
    print(f"filled: {what} in {seconds:.0f} s, {cpu:.0f} s of CPU", flush=True)


def read_all(folder: Path) -> None:
    """Bring everything that a node stores into the page cache."""
    for path in _files(folder):
        with open(path, "rb", buffering=0) as file:
            while file.read(1024 * 1024 * 4):
                pass


def forget_all(folder: Path) -> None:
    """Drop everything that a node stores from the page cache; the node must be closed."""
    for path in _files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
