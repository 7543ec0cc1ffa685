"""A PostgreSQL server of one's own in a temporary folder: for tests, and to try the engine.

`python -m warp_postgres.throwaway` runs one until it is interrupted, and prints what to write into warp.toml.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warp_core.errors import PluginError, Unavailable

from warp_postgres.config import Config

PACKAGE = "postgresql"  # Debian's name
USER = "postgres"  # whom the package makes; the server refuses to run as root
READY_S = 30.0
ROOM = 1 << 30  # bytes free: a cluster begins with 60 MB, and its log may grow by some hundred
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def programs() -> Path | None:
    """Return the folder of the newest server's programs, or None where none is installed."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if folders:
        return max(folders, key=lambda folder: float(folder.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Throwaway:
    """One server below a folder of its own, reached over a Unix socket; it ends with this process, and so does its folder."""

    def __init__(
        self, *settings: str, parent: Path | None = None, faults: Mapping[str, str] | None = None
    ) -> None:
        where = programs()
        if where is None:
            raise PluginError(f"no PostgreSQL server is installed: apt-get install {PACKAGE}")
        self._programs = where
        self._settings = settings
        self._environment = {**os.environ, **(faults or {})}  # of the server itself
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="warp-postgres-", dir=parent or _roomy_memory()))
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam(USER)
            except KeyError:
                raise PluginError(
                    f'PostgreSQL refuses root, and there is no user "{USER}"'
                ) from None
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    @property
    def url(self) -> str:
        """Where it is, as `Config.url`."""
        return f"postgresql://warp@/postgres?host={self.folder}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def create(self) -> None:
        """Make an empty cluster."""
        self._run(
            "initdb", "--pgdata", str(self.folder / "data"), "--username=warp", "--auth=trust",
            "--no-locale", "--encoding=UTF8", "--no-sync", "--no-instructions",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **self._as_user,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"{program}: {done.stdout.decode(errors='replace')[-2000:]}")

    def start(self, *, wait: bool = True) -> None:
        """Start the server, and wait until it answers."""
        settings = ["listen_addresses=", f"unix_socket_directories={self.folder}", *self._settings]
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data")]
        for setting in settings:
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_end_with_parent,
                env=self._environment, **self._as_user,
            )  # fmt: skip
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline_s = time.monotonic() + READY_S
        while True:
            asked = subprocess.run(
                [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder), "-d", "postgres"]
            )
            if asked.returncode == 0:
                return
            gone = self._process is None or self._process.poll() is not None
            if gone or time.monotonic() > deadline_s:
                log = (self.folder / "log").read_text(errors="replace")
                raise Unavailable(f"the server did not start: {log[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and all its processes at once, as a crash would."""
        if self._process is None:
            return
        # Its children notice when the first process is gone; they are killed as well, so that none writes on.
        children = _children(self._process.pid)
        for pid in [self._process.pid, *children]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        while any(_running(pid) for pid in children):
            time.sleep(0.005)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        for pid in [self.pid, *_children(self.pid)]:
            os.kill(pid, number)

    def stop(self) -> None:
        """End it at once and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Throwaway:
        try:
            self.create()
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def _roomy_memory() -> Path | None:
    """Return the folder of shared memory if it has room: there a cluster is made and synced at once."""
    shared = Path("/dev/shm")
    try:
        status = os.statvfs(shared)
    except OSError:
        return None
    roomy = status.f_bavail * status.f_frsize >= ROOM
    return shared if roomy and os.access(shared, os.W_OK) else None


def _end_with_parent() -> None:
    """Ask the kernel to end this process when its parent is gone; runs in the child, as its user."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _children(parent: int) -> list[int]:
    try:
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


_started: list[Throwaway] = []


def trial(folder: Path) -> Config:
    """Return a configuration with a schema of its own for each folder.

    The server is WARP_TEST_POSTGRES_URL, with the password in PGPASSWORD, or one started for this process.
    """
    schema = "warp_" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    url = os.environ.get("WARP_TEST_POSTGRES_URL", "")
    if not url:
        if not _started:
            server = Throwaway()
            atexit.register(server.stop)
            server.create()
            server.start()
            _started.append(server)
        url = _started[0].url
    return Config(url=url, schema=schema)


def main() -> None:
    """Run a server until interrupted."""
    with Throwaway() as server:
        print(f'[metadata]\nengine = "postgres"\nurl = "{server.url}"', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
