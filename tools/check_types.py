"""Run mypy --strict over the sources of every package, or over the named folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Type-check all sources in one run, so that every package is seen with the others' types."""
    sources = sys.argv[1:] or [
        str(path.relative_to(ROOT))
        for path in sorted(ROOT.glob("**/src"))
        if not {".venv", ".tox", "build"} & set(path.parts)
    ]
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *sources, "tools"], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
