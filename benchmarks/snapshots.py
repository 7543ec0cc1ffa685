"""How long a snapshot and a clone of a large disk take, and for how long they hold its writes up.

Question: does it depend on what the disk holds, and on what is written meanwhile? A disk of 100 GiB is filled in part over NBD;
then snapshots and clones are made of it in turn, while nobody writes, and beside writers. The time is the request's on
the control socket; the wait of the writers is the longest that fio saw in a run with snapshots, beside one without.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from warp_cli.asking import ask

from benchmarks import nbd

SIZE = "100G"
LOADS = (("nobody writes", 0), ("1,000 writes/s", 1_000), ("as fast as it goes", -1))


def fio(uri: str, *words: str) -> list[str]:
    """Return the command that loads the disk."""
    return ["fio", "--name=load", "--ioengine=nbd", f"--uri={uri}", "--output-format=json", *words]


def writer(uri: str, rate: int, seconds: float) -> subprocess.Popen[str]:
    """Start random writes of 4 KiB, at most `rate` a second."""
    words = ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--time_based", f"--runtime={seconds:.0f}"]  # fmt: skip
    if rate > 0:
        words.append(f"--rate_iops={rate}")
    return subprocess.Popen(
        fio(uri, *words, f"--size={SIZE}", "--norandommap", "--randrepeat=0"),
        stdout=subprocess.PIPE,
        text=True,
    )


def told(load: subprocess.Popen[str]) -> tuple[float, float]:
    """Wait for a writer; returns its writes a second and its longest wait in ms."""
    output, _ = load.communicate()
    if load.returncode:
        raise RuntimeError(f"fio failed: {output}")
    write = json.loads(output[output.index("{") :])["jobs"][0]["write"]
    return float(write["iops"]), write["clat_ns"]["max"] / 1e6


def made(config: Path, verb: str, name: str) -> float:
    """Make one snapshot or clone of the disk; returns the ms it took."""
    start = time.perf_counter()
    words = {"snapshot": name} if verb == "disk.snapshot" else {"target": name, "snapshot": ""}
    ask(config, None, verb, volume="v", path="disk", **words)
    return (time.perf_counter() - start) * 1e3


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks snapshots", description=__doc__)
    parser.add_argument("--count", type=int, default=15, help="snapshots, and clones, of each load")
    parser.add_argument("--gib", type=int, default=2, help="what is written to the disk before")
    options = parser.parse_args(arguments)
    if shutil.which("fio") is None:
        print("fio is not installed: apt-get install fio", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="snapshots-"))
    try:
        with nbd.warp(folder / "warp", size=SIZE) as peer:
            fill = ["--rw=write", "--bs=1m", "--iodepth=4", f"--size={options.gib}G"]
            subprocess.run(fio(peer.uri, *fill), check=True, stdout=subprocess.DEVNULL)
            print(f"{'load':20} {'verb':14} {'median ms':>10} {'max ms':>8}")
            for load, rate in LOADS:
                seconds = options.count
                if rate:
                    without = told(writer(peer.uri, rate, seconds))
                    running = writer(peer.uri, rate, seconds + 4)
                    time.sleep(2)
                for verb in ("disk.snapshot", "disk.clone"):
                    times = []
                    for turn in range(options.count):
                        times.append(made(folder / "warp/warp.toml", verb, f"{verb[5:]}-{rate}-{turn}"))  # fmt: skip
                        time.sleep(0.5 if rate else 0.05)
                    print(f"{load:20} {verb:14} {statistics.median(times):10.1f} {max(times):8.1f}", flush=True)  # fmt: skip
                if rate:
                    beside = told(running)
                    for what, (reached, wait) in (("", without), (", snapshots beside", beside)):
                        print(f"{load + what:40} {reached:6.0f} writes/s, the longest waited {wait:.0f} ms", flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0
