"""What the data plane costs above the system calls that it cannot avoid.

    python benchmarks/containers.py [FOLDER] [--gib 5]

Each line is CPU time of this process (user and system) per operation, beside a floor measured in the same run on the same files:
`pwrite` and `pread` of the same bytes, with and without a send over a local TCP connection. Files lie in FOLDER (default: the
current one) and are read from the page cache.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from warp_core.config.types import Size
from warp_core.containers import Chunk, Containers, DataPolicy, Owner, StoreSlot
from warp_core.containers.journal import Journal
from warp_disk import Config, Disk
from warp_fixed.chunker import Fixed

MIB = 1 << 20
OWNER = Owner(1, 2, 3)


def cpu_s() -> float:
    """Return CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measured(
    label: str, count: int, work: Callable[[], Awaitable[None]], *, per: str = "us"
) -> float:
    """Run some work three times, print the least CPU per operation and return it in seconds."""
    best = wall = float("inf")
    for _ in range(3):
        cpu, clock = cpu_s(), time.perf_counter()
        await work()
        best = min(best, (cpu_s() - cpu) / count)
        wall = min(wall, (time.perf_counter() - clock) / count)
    scale = 1e6 if per == "us" else 1e3
    print(f"{label:58} {best * scale:9.2f} {per} CPU {wall * scale:9.2f} {per} wall")
    return best


class Sink:
    """The far end of a TCP connection, in a process of its own, that throws away what it gets."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.pid = os.fork()
        if self.pid == 0:
            peer, _ = listener.accept()
            while peer.recv(4 * MIB, socket.MSG_TRUNC):
                pass
            os._exit(0)
        self.socket = socket.create_connection(listener.getsockname())
        listener.close()

    def close(self) -> None:
        """End the far end."""
        self.socket.close()
        os.waitpid(self.pid, 0)


async def small(containers: Containers) -> None:
    """4 KiB: append and read."""
    payload = os.urandom(4096)
    policy = DataPolicy()
    chunks = []

    async def append() -> None:
        for n in range(4000):
            chunks.append(containers.append(payload, owner=OWNER, policy=policy))
            if n % 200 == 199:
                await containers.sync()
        await containers.sync()

    await measured("append 4 KiB, a sync for 200", 4000, append)
    for chunk in chunks[:4000]:
        await containers.read(chunk)

    async def read_now() -> None:
        for chunk in chunks[:4000]:
            assert containers.read_now(chunk) is not None

    async def read() -> None:
        for chunk in chunks[:2000]:
            await containers.read(chunk)

    await measured("read_now 4 KiB, verified", 4000, read_now)
    await measured("read 4 KiB through a thread", 2000, read)


async def large(containers: Containers, folder: Path, sink: Sink) -> None:
    """8 MiB and 64 MiB: stream in, read out."""
    blocks = [
        memoryview(bytearray(os.urandom(MIB))) for _ in range(5)
    ]  # as many as a stream has: none stays in the cache
    policy = DataPolicy()
    descriptor = os.open(folder / "floor", os.O_RDWR | os.O_CREAT)

    async def write_floor() -> None:
        os.ftruncate(descriptor, 0)
        os.posix_fallocate(descriptor, 0, 64 * MIB)
        for n in range(64):
            os.pwrite(descriptor, blocks[n % 5], n * MIB)
        os.fdatasync(descriptor)

    async def write() -> list[tuple[int, Chunk]]:
        writer = containers.writer(policy, OWNER, size_hint=64 * MIB)
        left = 64 * MIB
        while left:
            free = writer.buffer()  # received into by a protocol: here it keeps what it has
            left -= len(free)
            if writer.wrote(len(free)):
                await writer.drain()
        return await writer.finish()

    async def write_once() -> None:
        await write()

    floor = await measured("floor: pwrite 64 MiB, fdatasync", 1, write_floor, per="ms")
    cost = await measured("stream 64 MiB into a container, synced", 1, write_once, per="ms")
    print(f"{'':58} {cost / floor:9.2f} x floor")

    chunk = (await write())[0][1]
    await containers.read(chunk, length=MIB)
    warm = bytearray(MIB)

    async def read_floor() -> None:
        for n in range(8):
            os.preadv(descriptor, (warm,), n * MIB)

    async def send_floor() -> None:
        for n in range(8):
            os.preadv(descriptor, (warm,), n * MIB)
            sink.socket.sendall(warm)

    async def read() -> None:
        for n in range(8):
            if containers.read_now(chunk, offset=n * MIB, length=MIB) is None:
                await containers.read(chunk, offset=n * MIB, length=MIB)

    def sending(step: int) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            for at in range(0, 8 * MIB, step):
                data = containers.read_now(chunk, offset=at, length=step)
                sink.socket.sendall(
                    data
                    if data is not None
                    else await containers.read(chunk, offset=at, length=step)
                )

        return send

    async def read_threads() -> None:
        for n in range(8):
            await containers.read(chunk, offset=n * MIB, length=MIB)

    def repeated(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def many() -> None:
            for _ in range(20):
                await work()

        return many

    floor = await measured(
        "floor: preadv 8 MiB into a warm buffer", 20, repeated(read_floor), per="ms"
    )
    cost = await measured("read_now 8 MiB, verified", 20, repeated(read), per="ms")
    print(f"{'':58} {cost / floor:9.2f} x floor")
    await measured("read 8 MiB through threads, verified", 20, repeated(read_threads), per="ms")
    floor = await measured("floor: preadv and send 8 MiB", 20, repeated(send_floor), per="ms")
    for step in (MIB, MIB // 4):
        label = f"read_now and send 8 MiB by {step // 1024} KiB, verified"
        cost = await measured(label, 20, repeated(sending(step)), per="ms")
        print(f"{'':58} {cost / floor:9.2f} x floor")
    os.close(descriptor)


def anonymous_kib() -> int:
    """Return this process' anonymous memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    return 0


async def memory(containers: Containers, gib: int) -> None:
    """Stream many gibibytes in and look at memory."""
    before = peak = anonymous_kib()
    writer = containers.writer(DataPolicy(), OWNER)
    began = time.perf_counter()
    for n in range(gib * 1024):
        free = writer.buffer()
        free[:8] = n.to_bytes(8)
        if writer.wrote(len(free)):
            await writer.drain()
        if n % 64 == 0:
            peak = max(peak, anonymous_kib())
    found = await writer.finish()
    seconds = time.perf_counter() - began
    for _, chunk in found[:: max(1, len(found) // 50)]:
        for offset in range(0, chunk.length, MIB):
            await containers.read(chunk, offset=offset, length=min(MIB, chunk.length - offset))
        peak = max(peak, anonymous_kib())
    print(
        f"{gib} GiB in one stream: {gib * 1024 / seconds:.0f} MiB/s, memory grew by at most {(peak - before) / 1024:.1f} MiB"
    )
    await containers.reclaim([chunk for _, chunk in found])


async def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument(
        "--gib", type=int, default=5, help="size of the long stream; 0 leaves it out"
    )
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    sink = Sink()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd()) as name:
        folder = Path(name)
        async with (
            Disk(Config(path="store", reserve=Size(0)), folder) as store,
            Journal([store]) as journal,
            Containers(
                [StoreSlot("s", store)], codec=lambda _: Fixed(8 * MIB), journal=journal
            ) as containers,
        ):
            await small(containers)
            await large(containers, folder, sink)
            if options.gib:
                await memory(containers, options.gib)
    sink.close()


if __name__ == "__main__":
    asyncio.run(main())
