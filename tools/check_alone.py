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
from concurrent.futures import ThreadPoolExecutor, as_completed
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

AT_ONCE = 2  # plugins: much of an installation is waiting


class Failed(Exception):
    """A step of a check; the message has what was printed."""


def run(*command: str) -> str:
    """Run a command and return what it printed.

    Raises:
        Failed: It ended with another status than 0.
    """
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(
        command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise Failed(f"{done.stdout}{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def distribution(folder: Path) -> dict[str, object]:
    """Return the [project] table of a package folder."""
    with (folder / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def check(folder: Path, wheels: Path, work: Path) -> str:
    """Install alone, load, then add the test tools and run the plugin's tests without real clients; return what was printed.

    Raises:
        Failed: At the first step that fails.
    """
    name = str(distribution(folder)["name"])
    venv = work / name
    python = str(venv / "bin" / "python")
    run("uv", "venv", "--quiet", "--python", sys.executable, str(venv))
    install = ("uv", "pip", "install", "--quiet", "--python", python, "--find-links", str(wheels))
    run(*install, name)
    printed = run(python, "-c", LOADS)
    if (folder / "tests").is_dir():
        extra = tuple(TEST_EXTRAS.get(name, ()))
        run(*install, "warp-conformance", *TEST_TOOLS, *extra)
        target = str(folder / "tests")
        printed += run(
            python, "-m", "pytest", "-q", "-x", "-m", "not slow and not workspace", target
        )
    return printed


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
    failed = 0
    with tempfile.TemporaryDirectory(prefix="warp-alone-") as scratch:
        work = Path(scratch)
        wheels = work / "wheels"
        built = [ROOT / "warp-core", ROOT / "conformance", *folders]

        def build(folder: Path) -> None:
            run("uv", "build", "--quiet", "--wheel", "--out-dir", str(wheels), str(folder))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(build, built))
            checks = {pool.submit(check, folder, wheels, work): folder for folder in folders}
            for done in as_completed(checks):
                print(f"-- {checks[done].relative_to(ROOT)}", flush=True)
                try:
                    print(done.result(), flush=True)
                except Failed as error:
                    failed += 1
                    print(error, flush=True)
    print(f"{len(folders) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
