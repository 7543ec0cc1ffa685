"""Choose a benchmark: `python -m benchmarks s3 --help`."""

from __future__ import annotations

import sys

from benchmarks import (
    events,
    fuse,
    growth,
    loading,
    nbd,
    s3,
    sftp,
    snapshot_costs,
    snapshots,
    startup,
)

BENCHMARKS = {
    "events": events.main,
    "fuse": fuse.main,
    "growth": growth.main,
    "loading": loading.main,
    "nbd": nbd.main,
    "s3": s3.main,
    "sftp": sftp.main,
    "snapshot-costs": snapshot_costs.main,
    "snapshots": snapshots.main,
    "startup": startup.main,
}


def main() -> int:
    """Run the named benchmark with the rest of the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print(f"usage: python -m benchmarks {{{','.join(BENCHMARKS)}}} [options]", file=sys.stderr)
        return 2
    return BENCHMARKS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
