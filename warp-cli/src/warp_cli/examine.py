"""What `warp doctor` looks at: the host, the installation, the configuration, the data."""

from __future__ import annotations

import errno
import os
import resource
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
from warp_core.config import Settings
from warp_core.errors import ConfigError, Unavailable, WarpError
from warp_core.node.client import Control
from warp_core.node.data_directory import CONTROL, is_data
from warp_core.node.root_key import FILE as ROOT_KEY
from warp_core.plugins import Plugins, State

from warp_cli.settings import data_of, settings_of

FILES_WANTED = 4096  # connections and open containers of a busy node
SYNC_SLOW_S = 0.02  # a disk that takes longer makes every durable write slow
SYNCS = 20
FREE_WANTED = 0.05

Verdict = Literal["fine", "note", "bad"]


class Finding(msgspec.Struct, frozen=True):
    """What one check found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(config: Path | None, data: Path | None) -> Iterator[Finding]:
    """Yield findings, one check after the other; none raises."""
    yield from _host()
    plugins = Plugins()
    yield from _plugins(plugins)
    settings: Settings | None = None
    try:
        settings = settings_of(config, data, plugins=plugins)
        where = settings.file or "no file: the defaults"
        yield Finding("configuration", "fine", f"{where}")
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding(
                "configuration", "bad", line, "mend that line; `warp config check` says more"
            )
    try:
        folder = settings.data if settings else data_of(config, data)
    except WarpError as error:
        yield Finding("data", "bad", str(error))
        return
    yield from _data(folder)
    if settings is not None:
        for part in settings.stores:
            path = getattr(part.config, "path", None) if part.name == "disk" else None
            if path:
                yield from _store(Path(folder, Path(path).expanduser()))
    yield from _node(folder)


def _host() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "fine", version)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_WANTED:
        yield Finding(
            "open files",
            "note",
            f"at most {soft}",
            f"raise it for many connections: `ulimit -n {FILES_WANTED}`, or LimitNOFILE= of the unit"
            + ("" if hard >= FILES_WANTED else f" (the hard limit is {hard})"),
        )
    else:
        yield Finding("open files", "fine", f"at most {soft}")
    if time.time() < 1_700_000_000:
        yield Finding(
            "clock",
            "bad",
            time.strftime("%Y-%m-%d"),
            "set the clock: signed requests are refused when it is more than 15 minutes wrong",
        )
    else:
        yield Finding("clock", "fine", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _plugins(plugins: Plugins) -> Iterator[Finding]:
    statuses = plugins.load_all()
    failed = [status for status in statuses if status.state is State.FAILED]
    for status in failed:
        yield Finding("plugins", "bad", status.found.entry, status.reason)
    loaded = len(statuses) - len(failed)
    yield Finding(
        "plugins",
        "fine" if loaded else "bad",
        f"all {loaded} load" if not failed else f"{loaded} load",
        "" if loaded else "install some",
    )


def _data(folder: Path) -> Iterator[Finding]:
    if not is_data(folder):
        if not folder.exists():
            yield Finding("data", "note", f"{folder} does not exist yet", "`warp serve` makes it")
        else:
            yield Finding(
                "data", "note", f"{folder} holds no WARP data", "`warp serve` begins there"
            )
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            "data",
            "note",
            f"{folder} has mode {mode:03o}",
            f"others need not see it: chmod 700 {folder}",
        )
    else:
        yield Finding("data", "fine", str(folder))
    key = folder / ROOT_KEY
    if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
        yield Finding(
            "root key",
            "bad",
            f"others can read {key}",
            f"chmod 600 {key}, then make a new key: delete it",
        )


def _store(path: Path) -> Iterator[Finding]:
    name = f"store {path}"
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    usage = os.statvfs(existing)
    total, free = usage.f_blocks * usage.f_frsize, usage.f_bavail * usage.f_frsize
    share = free / total if total else 0.0
    if 0 < share < FREE_WANTED:
        yield Finding(name, "bad", f"{share:.1%} free", "free some space, or add a [[store]]")
    kind = _file_system(existing)
    if kind in ("nfs", "nfs4", "cifs", "fuse", "overlay", "tmpfs", "ramfs"):
        advice = {
            "tmpfs": "it is memory: everything is gone after a restart of the machine",
            "ramfs": "it is memory: everything is gone after a restart of the machine",
            "overlay": "a container's own layer: put the data on a volume or bind mount",
        }.get(kind, "a file system of another machine: its syncs promise less than a disk's")
        yield Finding(name, "note", f"on {kind}", advice)
    try:
        took = _sync_s(existing)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        advice = f"make {existing} writable for user {os.getuid()}"
        yield Finding(
            name,
            "bad",
            f"cannot be written: {error.strerror}",
            "free some space, or add a [[store]]" if full else advice,
        )
        return
    if took > SYNC_SLOW_S:
        yield Finding(
            name,
            "note",
            f"a sync takes {took * 1e3:.1f} ms",
            "durable writes wait for it: an SSD with power-loss protection takes well below 1 ms",
        )
    else:
        yield Finding(
            name,
            "fine",
            f"on {kind or 'unknown'}, {share:.0%} free, a sync takes {took * 1e3:.2f} ms",
        )


def _node(folder: Path) -> Iterator[Finding]:
    path = folder / CONTROL
    if not path.exists():
        yield Finding("node", "note", "not running", "start it with `warp serve`")
        return
    try:
        with Control(path) as control:
            status = control.call("status")
    except Unavailable:
        yield Finding(
            "node",
            "note",
            "not running; the last one was killed",
            "start it: it recovers by itself",
        )
        return
    except WarpError as error:
        yield Finding("node", "bad", str(error))
        return
    problems = [each for each in status["problems"] if not each.startswith("plugin ")]
    for problem in problems:  # plugins were looked at above
        yield Finding("node", "bad", problem)
    if not problems:
        yield Finding("node", "fine", f"runs as process {status['pid']}")


def _file_system(path: Path) -> str:
    """Return the type of the file system that a path is on, "" if the system does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == wanted]
    return kinds[-1].partition(".")[0] if kinds else ""


def _sync_s(folder: Path, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median time that a small write takes to be durable.

    Raises:
        OSError: It cannot be made.
    """
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        times = []
        for index in range(SYNCS):
            started = clock()
            os.pwrite(file.fileno(), b"x" * 4096, index * 4096)
            os.fdatasync(file.fileno())
            times.append(clock() - started)
    return sorted(times)[len(times) // 2]
