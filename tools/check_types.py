"""Run mypy --strict over the sources of every package, or over the named folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", ".tox", "build", "templates"}


def main() -> int:
    """Type-check all sources in one run, so that every package is seen with the others' types."""
    sources = sys.argv[1:] or [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("**/src"))
        if not SKIPPED & set(path.parts)
    ]
    found = [str(path) for path in ROOT.glob("**/src") if not SKIPPED & set(path.parts)]
    # Each folder is an import root: without this, mypy sees an installed package under two names.
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(found)}
    command = [sys.executable, "-m", "mypy", "--strict", *sources, "tools"]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
