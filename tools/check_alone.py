"""Install every plugin's wheel with only warp-core beside it, see that it loads, and run its own tests.

python tools/check_alone.py            all plugins
python tools/check_alone.py warp-zstd  one
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST_TOOLS = ("pytest>=9.0", "pytest-asyncio>=1.3", "pytest-timeout>=2.4", "hypothesis>=6.140")
LOADS = """
import sys
from warp_core.plugins import Plugins, State
found = Plugins().load_all()
wrong = [f"{p.found.entry}: {p.state.value} {p.reason}" for p in found if p.state is not State.LOADED]
print("loaded:", *(p.found.entry for p in found))
sys.exit("; ".join(wrong) if wrong else 0 if found else "nothing was found")
"""


def run(*command: str, **environment: str) -> None:
    """Run a command; raise if it fails."""
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    subprocess.run(command, check=True, cwd=ROOT, env=clean | environment)


def distribution(folder: Path) -> dict[str, object]:
    """Return the [project] table of a package folder."""
    with (folder / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def check(folder: Path, wheels: Path, work: Path) -> None:
    """Build, install alone, load, then add the test tools and run the plugin's tests without real clients."""
    name = str(distribution(folder)["name"])
    venv = work / name
    python = str(venv / "bin" / "python")
    run("uv", "venv", "--quiet", "--python", sys.executable, str(venv))
    install = ("uv", "pip", "install", "--quiet", "--python", python, "--find-links", str(wheels))
    run(*install, name)
    run(python, "-c", LOADS)
    if (folder / "tests").is_dir():
        extra = tuple(TEST_EXTRAS.get(name, ()))
        run(*install, "warp-conformance", *TEST_TOOLS, *extra)
        target = str(folder / "tests")
        run(python, "-m", "pytest", "-q", "-x", "-m", "not slow and not workspace", target)


# What a plugin's own tests use besides the kits: clients and oracles, never other plugins of ours.
TEST_EXTRAS: dict[str, tuple[str, ...]] = {
    "warp-s3": ("boto3>=1.40",),
    "warp-etcd": ("cryptography>=50",),
}


def main() -> int:
    """Check the named plugins, or all."""
    wanted = set(sys.argv[1:])
    folders = [p.parent for p in sorted(ROOT.glob("plugins/*/*/pyproject.toml"))]
    if wanted:
        folders = [f for f in folders if distribution(f)["name"] in wanted]
    if not folders:
        sys.exit(f"no plugin is named {', '.join(sorted(wanted))}")
    with tempfile.TemporaryDirectory(prefix="warp-alone-") as scratch:
        work = Path(scratch)
        wheels = work / "wheels"
        for folder in [ROOT / "warp-core", ROOT / "conformance", *folders]:
            run("uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(folder))
        for folder in folders:
            print(f"-- {folder.relative_to(ROOT)}", flush=True)
            check(folder, wheels, work)
    print(f"{len(folders)} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
