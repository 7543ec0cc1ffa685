"""What starting costs: CPU of `warp --help` and of `warp serve` to ready, as multiples of `python -c pass`.

Floors and targets are design section 10: at most 6 and 25. Each figure is the least of several runs, because other work on the
machine can only add to it. Bytecode caches are made first, as an installation does.
"""

from __future__ import annotations

import argparse
import compileall
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HELP_MAX = 6.0
SERVE_MAX = 25.0
WARP = [sys.executable, "-m", "warp_cli"]


class Cost(NamedTuple):
    """Least CPU and least time until ready, in seconds."""

    cpu_s: float
    wall_s: float


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, and fail where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args(arguments).runs
    root = Path(__file__).resolve().parent.parent
    for folder in ("warp-core/src", "warp-cli/src", "plugins"):
        compileall.compile_dir(root / folder, quiet=2)
    floor = command([sys.executable, "-c", "pass"], runs)
    shown = command([*WARP, "--help"], runs)
    with tempfile.TemporaryDirectory() as folder:
        fresh = serving(Path(folder), runs, fresh=True)
        again = serving(Path(folder), runs, fresh=False)
    missed = False
    print(f"{'':<28}{'CPU ms':>8}{'wall ms':>9}{'times':>7}{'target':>8}")
    for name, cost, target in (
        ("python -c pass", floor, None),
        ("warp --help", shown, HELP_MAX),
        ("warp serve, new data", fresh, SERVE_MAX),
        ("warp serve, old data", again, SERVE_MAX),
    ):
        times = cost.cpu_s / floor.cpu_s
        missed |= target is not None and times > target
        line = f"{name:<28}{cost.cpu_s * 1e3:>8.1f}{cost.wall_s * 1e3:>9.1f}{times:>7.1f}"
        print(line + (f"{target:>8.0f}" if target else ""))
    return int(missed)


def command(words: Sequence[str], runs: int) -> Cost:
    """Run a command to its end."""
    costs = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, env=environment(), check=True)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        costs.append(Cost(cpu, wall))
    return Cost(min(cost.cpu_s for cost in costs), min(cost.wall_s for cost in costs))


def serving(folder: Path, runs: int, *, fresh: bool) -> Cost:
    """Start the default server on a free port until it says that it is ready."""
    costs = []
    for run in range(runs):
        data = folder / (f"fresh{run}" if fresh else "kept")
        words = [*WARP, "serve", "--data", str(data)]
        for protocol in ("s3", "sftp"):
            words += ["--set", f"protocols.{protocol}.listen=127.0.0.1:0"]
        started = time.perf_counter()
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            wall = time.perf_counter() - started
            costs.append(Cost(_cpu_s(process.pid), wall))
            process.send_signal(signal.SIGTERM)
    if not fresh:
        costs = costs[1:]  # the first run made the data
    return Cost(min(cost.cpu_s for cost in costs), min(cost.wall_s for cost in costs))


def environment() -> dict[str, str]:
    """Return an environment in which caches are used and no configuration is set."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("WARP_") and key != "PYTHONDONTWRITEBYTECODE"
    }


def _cpu_s(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
