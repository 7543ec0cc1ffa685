"""S3 against SeaweedFS in one run: CPU per request and rate, phase by phase, as ratios.

Question: how much CPU and time does a request cost, beside a peer on the same machine in the same minutes? Durable WARP is compared
with SeaweedFS's fsync option (`weed-fsync`); its un-synced rate (`weed`) stands beside it. `rclone` is `rclone serve s3` over a local
folder, which syncs nothing; `warp-opaque` is WARP without MD5. Raw results go to `--output`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import servers

SMALL = [f"{op}:4KiB:{c}" for op in ("put", "get", "head", "list", "delete") for c in (1, 16, 64)]
MEDIUM = [f"{op}:128KiB:{c}" for op in ("put", "get") for c in (1, 16, 64)]
LARGE = [f"{op}:{size}:{c}" for size in ("8MiB", "64MiB") for op in ("put", "get") for c in (1, 16)]
WARM_UP = ["put:4KiB:16", "get:4KiB:16"]  # peers grow their first volumes under it
QUICK = [
    "put:4KiB:16",
    "get:4KiB:16",
    "head:4KiB:16",
    "list:4KiB:16",
    "delete:4KiB:16",
    "put:8MiB:16",
    "get:8MiB:16",
]


def measure(
    targets: list[servers.Server], cells: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Load all targets, interleaved, after a warm-up that is not counted; return s3load's document."""
    if cells != WARM_UP:
        measure(targets, WARM_UP, argparse.Namespace(reps=1, seconds=3.0, list_keys=100))
    command = [
        sys.executable,
        str(Path(__file__).parent / "s3load.py"),
        "--cells",
        ",".join(cells),
        "--sync",
    ]
    command += [
        "--reps",
        str(options.reps),
        "--duration",
        str(options.seconds),
        "--list-keys",
        str(options.list_keys),
    ]
    for target in targets:
        keys = f"ak={servers.ACCESS_KEY};sk={servers.SECRET_KEY}"
        command += ["--target", f"{target.name}={target.url};{keys}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise RuntimeError("the load generator gave no result")
    return dict(json.loads(done.stdout))


def table(document: dict[str, Any], names: list[str]) -> str:
    """Lay the medians out: for each phase CPU us a request and requests/s, and the ratio to WARP."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for row in document["medians"]:
        cells.setdefault(f"{row['mix']} {row['size']} c{row['concurrency']}", {})[row["target"]] = (
            row
        )
    lines = [f"| phase | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for phase, by_target in cells.items():
        ours = by_target.get(names[0])
        texts = []
        for name in names:
            row = by_target.get(name)
            if row is None or not row.get("ops_per_s"):
                texts.append("-")
                continue
            text = f"{row['server_cpu_us_per_op']:,.0f} us, {row['ops_per_s']:,.0f}/s, p99 {row['p99_ms']:.1f} ms"
            if ours and name != names[0] and ours["server_cpu_us_per_op"]:
                cpu = row["server_cpu_us_per_op"] / ours["server_cpu_us_per_op"]
                rate = ours["ops_per_s"] / row["ops_per_s"]
                text += f" (cpu ×{cpu:.1f}, our rate ×{rate:.1f})"
            if row.get("errors"):
                text += f" {row['errors']} errors"
            texts.append(text)
        lines.append(f"| {phase} | {' | '.join(texts)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Parse options, start the servers, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks s3", description=__doc__)
    parser.add_argument(
        "--cells", default="quick", help="quick, small, medium, large, all, or MIX:SIZE:CONC,..."
    )
    parser.add_argument(
        "--peers",
        default="weed,weed-fsync,rclone",
        help="weed, weed-fsync, rclone, warp-opaque, or nothing",
    )
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--list-keys", type=int, default=1000)
    parser.add_argument("--output", type=Path, help="where the raw document goes")
    parser.add_argument(
        "--folder", type=Path, help="where servers keep their data (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    named = {
        "quick": QUICK,
        "small": SMALL,
        "medium": MEDIUM,
        "large": LARGE,
        "all": SMALL + MEDIUM + LARGE,
    }
    cells = named.get(options.cells) or options.cells.split(",")
    peers = [peer for peer in options.peers.split(",") if peer]
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="warp-bench-"))
        )
        targets = [stack.enter_context(servers.warp(folder / "warp"))]
        targets += [stack.enter_context(servers.peer(peer, folder / peer)) for peer in peers]
        document = measure(targets, cells, options)
        names = [target.name for target in targets]
    if options.output:
        options.output.write_text(json.dumps(document, indent=1))
    print(table(document, names))
    return 0
