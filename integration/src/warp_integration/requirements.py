"""Skip a test by naming what this machine lacks for it.

`packages.txt` lists the Debian packages that bring the programs which integration tests drive.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest


@cache
def packages() -> dict[str, str]:
    """Return program → Debian package, as `packages.txt` lists them."""
    here = Path(__file__)
    beside, tree = here.with_name("packages.txt"), here.parents[2] / "packages.txt"
    found: dict[str, str] = {}
    for line in (beside if beside.exists() else tree).read_text().splitlines():
        package, _, programs = line.partition("#")
        if package.strip():
            found |= dict.fromkeys(programs.split(), package.strip())
    return found


def locate(program: str) -> Path | None:
    """Return where `program` is: beside this interpreter, from a system package, or anywhere on the path."""
    beside = Path(sys.executable).with_name(program)
    if beside.exists():
        return beside
    system = "/usr/bin:/usr/sbin:/bin:/sbin"
    found = shutil.which(program, path=f"{system}:{os.environ.get('PATH', '')}")
    return Path(found) if found else None


def require(*programs: str) -> None:
    """Skip the calling test unless all programs are installed; the reason names their packages."""
    missing = [program for program in programs if locate(program) is None]
    if missing:
        names = ", ".join(f"{program} (package {_package(program)})" for program in missing)
        pytest.skip(f"missing: {names}")


def require_modules(**modules: str) -> None:
    """Skip the calling test unless all modules can be imported; each is named with the package that brings it.

    `require_modules(zarr="zarr>=3", pyiceberg="pyiceberg[pyarrow,sql-sqlite]")`
    """
    if reason := _missing(modules):
        pytest.skip(reason)


def needs_modules(**modules: str) -> pytest.MarkDecorator:
    """Mark a test as `require_modules` would skip it, before its fixtures are made."""
    reason = _missing(modules)
    return pytest.mark.skipif(bool(reason), reason=reason)


def _missing(modules: Mapping[str, str]) -> str:
    absent = [f"{name} (PyPI: {modules[name]})" for name in modules if find_spec(name) is None]
    return f"missing: {', '.join(absent)}" if absent else ""


def require_server() -> None:
    """Skip the calling test unless the command `warp` is installed beside this interpreter."""
    if locate("warp") is None or find_spec("warp_cli.main") is None:
        pytest.skip("missing: the command warp (package warp-cli)")


def require_root() -> None:
    """Skip the calling test unless it runs as root that may mount, which root of a container often may not."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts file systems")
    require("unshare")
    if not _may_mount():
        pytest.skip("needs the right to mount (CAP_SYS_ADMIN), which this root lacks")


@cache
def _may_mount() -> bool:
    command = ["unshare", "--mount", "--propagation", "private", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def require_power_cuts(filesystem: str = "ext4") -> None:
    """Skip the calling test unless power cuts can be recorded here on the named kind of file system."""
    require_root()
    require("unshare", "nsenter", "setpriv", "mount", f"mkfs.{filesystem}")
    if not Path("/dev/fuse").exists():
        pytest.skip("missing: /dev/fuse (kernel module fuse)")
    if not Path("/dev/loop-control").exists():
        pytest.skip("missing: /dev/loop-control (kernel module loop)")
    kinds = Path("/proc/filesystems").read_text().split()
    if filesystem not in kinds and shutil.which("modprobe") is None:
        pytest.skip(f"missing: {filesystem} in this kernel")


def _package(program: str) -> str:
    if program not in packages():
        raise LookupError(f"{program} has no line in packages.txt")
    return packages()[program]
