"""Run every kit against every installed plugin, as a stranger would: `pytest --pyargs warp_conformance --warp-plugin NAME`.

python tools/check_conformance.py             all plugins, and the kits' own mutants
python tools/check_conformance.py warp-zstd   one
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
AT_ONCE = 2  # plugins: each has a process of its own, and much of it is starting and waiting


def plugins() -> list[str]:
    """Return the distribution names of all plugins of the workspace."""
    names = []
    for path in sorted(ROOT.glob("plugins/*/*/pyproject.toml")):
        with path.open("rb") as file:
            names.append(str(tomllib.load(file)["project"]["name"]))
    return names


def check(name: str) -> subprocess.CompletedProcess[str]:
    """Run the kits against one plugin."""
    options = ("-q", "--pyargs", "warp_conformance", "--warp-plugin", name)
    command = [sys.executable, "-m", "pytest", *options]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> int:
    """Check the named plugins, or all; print the totals."""
    wanted = sys.argv[1:] or plugins()
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    broken = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for name, done in zip(wanted, pool.map(check, wanted), strict=True):
            print(f"-- {name}", done.stdout, sep="\n", end="", flush=True)
            closing = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
            for count, what in COUNTS.findall(closing):
                totals["failed" if what.startswith("error") else what] += int(count)
            if done.returncode:
                broken.append(name)
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    if broken:
        print(f"not conformant: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
