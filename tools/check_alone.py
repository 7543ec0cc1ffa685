"""Install every plugin's wheel with only warp-core beside it, see that it loads, and run its own tests.

python tools/check_alone.py            all plugins
python tools/check_alone.py warp-zstd  one
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST_TOOLS = ("pytest>=9.0", "pytest-asyncio>=1.3", "pytest-timeout>=2.4", "hypothesis>=6.140")
BUILD_TOOL = "hatchling>=1.27"  # what every package names as its build system
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


def run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed.

    Raises:
        Failed: It ended with another status than 0.
    """
    clean = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**clean, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise Failed(f"{done.stdout}{' '.join(command)} ended with {done.returncode}")
    return done.stdout


class Bench:
    """Two environments that plugins have one after the other: one for a plugin and what it declares, one for its tests.

    Each installation removes whatever it did not ask for. The folders stay, so compiled modules of what stays are used again.
    """

    def __init__(self, folder: Path) -> None:
        self._alone, self._tested = folder / "alone", folder / "tested"
        self._environment = {"PYTHONPYCACHEPREFIX": str(folder / "pycache")}
        for venv in (self._alone, self._tested):
            run("uv", "venv", "--quiet", "--python", sys.executable, str(venv))

    def load(self, name: str, wheels: Path) -> str:
        """Install a plugin beside nothing that it does not declare, and load it."""
        return run(
            self._install(self._alone, wheels, name), "-c", LOADS, environment=self._environment
        )

    def test(self, name: str, wheels: Path, tests: Path) -> str:
        """Add the test tools, and run the plugin's tests without real clients."""
        extra = TEST_EXTRAS.get(name, ())
        python = self._install(self._tested, wheels, name, "warp-conformance", *TEST_TOOLS, *extra)
        options = ("-q", "-x", "-m", "not slow and not workspace")
        return run(python, "-m", "pytest", *options, str(tests), environment=self._environment)

    def _install(self, venv: Path, wheels: Path, *names: str) -> str:
        python = str(venv / "bin" / "python")
        options = ("--quiet", "--exact", "--python", python, "--find-links", str(wheels))
        run("uv", "pip", "install", *options, *names)
        return python


def distribution(folder: Path) -> dict[str, object]:
    """Return the [project] table of a package folder."""
    with (folder / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def tests_size(folder: Path) -> int:
    """Return the bytes of a plugin's tests, as a measure of how long they take."""
    return sum(each.stat().st_size for each in (folder / "tests").rglob("*.py"))


def check(folder: Path, wheels: Path, benches: queue.SimpleQueue[Bench]) -> str:
    """Load a plugin alone, then run its tests; return what was printed.

    Raises:
        Failed: At the first step that fails.
    """
    name = str(distribution(folder)["name"])
    bench = benches.get()
    try:
        printed = bench.load(name, wheels)
        if (folder / "tests").is_dir():
            printed += bench.test(name, wheels, folder / "tests")
        return printed
    finally:
        benches.put(bench)


# What a plugin's own tests use besides the kits: clients and oracles, never other plugins of ours.
TEST_EXTRAS: dict[str, tuple[str, ...]] = {
    "warp-admin": ("httpx>=0.28",),
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
    folders.sort(key=tests_size, reverse=True)  # the long ones first, so that all end together
    failed = 0
    with tempfile.TemporaryDirectory(prefix="warp-alone-") as scratch:
        work = Path(scratch)
        wheels = work / "wheels"
        built = [ROOT / "warp-core", ROOT / "conformance", *folders]

        maker = work / "maker"
        python = str(maker / "bin" / "python")
        run("uv", "venv", "--quiet", "--python", sys.executable, str(maker))
        run("uv", "pip", "install", "--quiet", "--python", python, BUILD_TOOL)

        def build(folder: Path) -> None:
            options = ("--quiet", "--no-build-isolation", "--python", python, "--wheel")
            run("uv", "build", *options, "--out-dir", str(wheels), str(folder))

        benches: queue.SimpleQueue[Bench] = queue.SimpleQueue()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(build, built))
            for number in range(AT_ONCE):
                benches.put(Bench(work / str(number)))
            checks = {pool.submit(check, folder, wheels, benches): folder for folder in folders}
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
