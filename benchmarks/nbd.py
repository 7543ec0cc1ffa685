"""Disks over NBD beside qemu-nbd and nbdkit, all driven by fio in one run.

Question: what does a request cost the server, and how many are there a second? CPU is the server's (user and system, from
/proc); machines are shared, so it is the ratio within one run that counts. Servers take turns, round after round, and the
middle round is shown.

What they promise differs: WARP keeps what it answered in a log that it writes and syncs every MiB, qemu-nbd and nbdkit leave
it to the page cache until a flush. Nobody flushes here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import servers

SIZE = "1G"
WORK = (  # fio's pattern, block size, queue depth
    ("randwrite", "4k", 16),
    ("randread", "4k", 16),
    ("randwrite", "4k", 1),
    ("randread", "4k", 1),
    ("randwrite", "4k", 64),
    ("randread", "4k", 64),
    ("write", "1m", 4),
    ("read", "1m", 4),
)
SHORT = 2  # of them, for a quick look


class Peer(NamedTuple):
    """A server that runs."""

    name: str
    pid: int
    uri: str


class Figure(NamedTuple):
    """What one run of fio told of one server."""

    rate: float  # requests a second
    cpu_us: float  # of the server, a request
    system_us: float  # of it in the kernel
    p99_us: float


@contextlib.contextmanager
def warp(folder: Path, *, size: str = SIZE) -> Iterator[Peer]:
    """Serve a new disk of WARP on its Unix socket."""
    config = f'[node]\ndata = "{folder}/data"\n\n[protocols.nbd]\nlisten = "unix:nbd.sock"\n'
    folder.mkdir(parents=True)
    path = folder / "warp.toml"
    path.write_text(config)
    command = [sys.executable, "-m", "warp_cli"]
    with servers.process([*command, "serve", "--config", str(path)], folder / "log") as server:
        assert server.stdout
        ready = json.loads(server.stdout.readline() or "{}")
        if "endpoints" not in ready:
            raise RuntimeError(f"warp serve ended: {(folder / 'log').read_text()[-2000:]}")
        tell = ["--config", str(path)]
        for words in (["volume", "create", "v"], ["disk", "create", "v/disk", "--size", size]):
            subprocess.run([*command, *words, *tell], check=True, stdout=subprocess.DEVNULL)
        yield Peer("warp", server.pid, f"nbd+unix:///v/disk?socket={folder}/data/nbd.sock")


@contextlib.contextmanager
def other(folder: Path, name: str, command: list[str]) -> Iterator[Peer]:
    """Run another server on `folder`/s, which its command names."""
    with servers.process(command, folder / f"{name}.log") as server:
        path = folder / "s"
        until = time.monotonic() + 10
        while not path.exists():
            if time.monotonic() > until:
                raise RuntimeError(f"{' '.join(command)} does not listen")
            time.sleep(0.05)
        yield Peer(name, server.pid, f"nbd+unix:///?socket={path}")


@contextlib.contextmanager
def peers(folder: Path, wanted: list[str]) -> Iterator[list[Peer]]:
    """Run all servers that are wanted and installed."""
    with contextlib.ExitStack() as stack:
        running = []
        for name in wanted:
            place = folder / name
            if name == "warp":
                running.append(stack.enter_context(warp(place)))
                continue
            place.mkdir()
            raw, plug = str(place / "raw"), str(place / "s")
            with open(raw, "wb") as file:
                file.truncate(1 << 30)
            commands = {
                "qemu-nbd": ["qemu-nbd", "-t", "-f", "raw", "-e", "8", "-k", plug, raw],
                "qemu-nbd-direct": ["qemu-nbd", "-t", "-f", "raw", "--cache=none", "-e", "8", "-k", plug, raw],
                "nbdkit-memory": ["nbdkit", "-f", "-U", plug, "memory", SIZE],
                "nbdkit-file": ["nbdkit", "-f", "-U", plug, "file", raw],
            }  # fmt: skip
            command = commands[name]
            if shutil.which(command[0]) is None:
                print(f"{name}: {command[0]} is not installed", file=sys.stderr)
                continue
            running.append(stack.enter_context(other(place, name, command)))
        yield running


def used(pid: int) -> tuple[float, float]:
    """Return the seconds of CPU that a process has used, and those of them in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, int(fields[12]) / ticks


def measure(peer: Peer, pattern: str, block: str, depth: int, seconds: int) -> Figure:
    """Load one server with fio."""
    before = used(peer.pid)
    done = subprocess.run(
        [
            "fio", "--name=load", "--ioengine=nbd", f"--uri={peer.uri}", f"--rw={pattern}", f"--bs={block}",
            f"--iodepth={depth}", f"--size={SIZE}", "--time_based", f"--runtime={seconds}", "--norandommap",
            "--output-format=json",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    after = used(peer.pid)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    told = job["write" if "write" in pattern else "read"]
    count = told["total_ios"]
    return Figure(
        told["iops"],
        (after[0] - before[0]) / count * 1e6,
        (after[1] - before[1]) / count * 1e6,
        told["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1e3,
    )


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks nbd", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="4 KiB random at depth 16 only")
    parser.add_argument("--json", type=Path, help="where raw figures go")
    parser.add_argument(
        "--servers",
        nargs="+",
        default=["warp", "qemu-nbd", "qemu-nbd-direct", "nbdkit-memory", "nbdkit-file"],
    )
    options = parser.parse_args(arguments)
    if shutil.which("fio") is None:
        print("fio is not installed: apt-get install fio", file=sys.stderr)
        return 1
    raw: list[dict[str, object]] = []
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    try:
        with peers(folder, options.servers) as running:
            print(
                f"{'load':22} {'server':16} {'rate/s':>9} {'CPU us':>8} {'system':>8} {'p99 us':>8}"
            )
            for pattern, block, depth in WORK[: SHORT if options.short else None]:
                found: dict[str, list[Figure]] = {peer.name: [] for peer in running}
                for _ in range(options.rounds):
                    for peer in running:
                        figure = measure(peer, pattern, block, depth, options.seconds)
                        found[peer.name].append(figure)
                        raw.append({"load": [pattern, block, depth], "server": peer.name, **figure._asdict()})  # fmt: skip
                for name, figures in found.items():
                    middle = Figure(
                        *(statistics.median(each) for each in zip(*figures, strict=True))
                    )
                    print(
                        f"{f'{pattern} {block} x {depth}':22} {name:16} {middle.rate:9.0f} {middle.cpu_us:8.1f} "
                        f"{middle.system_us:8.1f} {middle.p99_us:8.0f}",
                        flush=True,
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1))
    return 0
