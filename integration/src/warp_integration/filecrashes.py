"""Power cuts and kills under file operations over a mount."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from warp_integration.fileledger import FileLedger
from warp_integration.filework import VOLUME, FileLoad, differences_through_s3, see
from warp_integration.namespace import MountNamespace
from warp_integration.powercut.bench import Recording, Remains
from warp_integration.powercut.campaign import Unreadable, Workload
from warp_integration.powercut.disks import MIB
from warp_integration.powercut.ledger import Finding
from warp_integration.s3client import ConnectionLost
from warp_integration.server import ServerFailed, WarpServer, config_text

EARLIEST_S, LATEST_S = 0.02, 0.8  # after the load began; the spread matters more than the length
PER_KILL = 20  # calls acknowledged before each kill at least, however slow the machine is
_HANG_S = 120.0
_LOOK_S = 0.01


def write_config(config: Path, mount: Path) -> None:
    """Write a `warp.toml` that mounts the volume at `mount`."""
    lines = ["[protocols.fuse.mounts]", f"{json.dumps(str(mount))} = {json.dumps(VOLUME)}"]
    config.write_text(config_text(extra="\n".join(lines)))


def look(server: WarpServer, mount: Path) -> dict[str, str]:
    """Return what the mount shows, and what S3 tells otherwise as entries that no ledger allows."""
    seen = see(mount)
    return seen | asyncio.run(differences_through_s3(server.s3, mount, seen))


def problems(namespace: MountNamespace, server: WarpServer, config: Path) -> dict[str, str]:
    """Return what `warp fsck --deep` finds, as an entry that no ledger allows; with no node running it reads the journal as well."""
    words = [sys.executable, "-m", "warp_cli", "fsck", "--deep", "--json"]
    done = subprocess.run(
        [*namespace.prefix, *words, "--config", str(config), "--data", str(server.data)],
        capture_output=True,
        text=True,
        timeout=_HANG_S,
        env={**os.environ},
    )
    found = json.loads(done.stdout)["problems"] if done.stdout.startswith("{") else done.stderr
    return {"fsck": str(found)} if found or done.returncode else {}


class MountWorkload(Workload):
    """`warp serve` with a mount; its data directory lies on the recorded disk.

    Args:
        seconds: How long the load runs at least.
        acknowledged: How many calls are acknowledged at least.
        seed: Decides it.
        environment: For the server, such as planted faults; not for the one that reads back.
        check_one_in: How many cuts share one `warp fsck --deep`.
    """

    size = 512 * MIB

    def __init__(
        self,
        *,
        seconds: float,
        seed: int,
        acknowledged: int = 300,
        environment: Mapping[str, str] | None = None,
        check_one_in: int = 1,
    ) -> None:
        self._seconds = seconds
        self._seed = seed
        self._acknowledged = acknowledged
        self._environment = environment
        self._check_one_in = check_one_in
        self._cuts = 0
        self.load: FileLoad | None = None
        """What ran, with what was found while it did."""

    def run(self, recording: Recording) -> FileLedger:
        """Serve from the recorded disk, change files, kill the server."""
        base = recording.mounts[0].parent
        write_config(base / "warp.toml", base / "mount")
        ledger = FileLedger(recording.position.read)
        server = self._server(recording.mounts[0], recording.namespace, "logs", self._environment)
        with server:
            mount = recording.namespace.path(base / "mount")
            self.load = FileLoad(ledger, mount, seed=self._seed)
            self.load.run(server.s3, seconds=self._seconds, acknowledged=self._acknowledged)
        return ledger

    @staticmethod
    def _server(
        disk: Path,
        namespace: MountNamespace,
        logs: str,
        environment: Mapping[str, str] | None = None,
    ) -> WarpServer:
        return WarpServer(
            disk / "data",
            config=disk.parent / "warp.toml",
            prefix=namespace.prefix,
            environment=environment,
            logs=disk.parent / logs,
        )

    def read_back(self, remains: Remains) -> Mapping[str, str]:
        """Serve what the cut left, read everything through mount and S3, and have it checked."""
        base = remains.mounts[0].parent
        self._cuts += 1
        server = self._server(remains.mounts[0], remains.namespace, "logs-after")
        try:
            with closing(server):
                server.start()
                seen = look(server, remains.namespace.path(base / "mount"))
        except (ServerFailed, ConnectionLost, OSError) as error:
            raise Unreadable(f"{error}\n{server.log_tail()}") from error
        if self._cuts % self._check_one_in == 0:
            seen |= problems(remains.namespace, server, base / "warp.toml")
        return seen


@dataclass(slots=True)
class FileKillings:
    """What a series of kills did."""

    kills: int = 0
    acknowledged: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, Finding]] = field(default_factory=list)

    def __str__(self) -> str:
        first = (
            f"{self.kills} kills, {self.acknowledged} acknowledged, {len(self.findings)} findings"
        )
        lines = [first, str(dict(self.calls))]
        return "\n".join(lines + [f"  kill {n}: {finding}" for n, finding in self.findings[:20]])


def kill_under_files(
    folder: Path, *, kills: int, seed: int, stop_at: int = 20, check_one_in: int = 1
) -> FileKillings:
    """SIGKILL a server `kills` times while files are changed over its mount, restart, judge.

    Each round works in directories of its own; those of the round before stay as the restart showed them, and older ones are removed.
    """
    rng = random.Random(seed)
    result = FileKillings()
    config, place = folder / "warp.toml", folder / "mount"
    write_config(config, place)
    with MountNamespace() as namespace:
        mount = namespace.path(place)
        server = WarpServer(folder / "data", config=config, logs=folder, prefix=namespace.prefix)
        settled: dict[str, str] = {}
        with closing(server):
            server.start()
            for number in range(kills):
                ledger = FileLedger(settled=settled)
                load = FileLoad(ledger, mount, seed=rng.getrandbits(32), prefix=f"k{number}w")
                _load_and_kill(server, load, rng.uniform(EARLIEST_S, LATEST_S))
                result.kills += 1
                result.calls += load.calls
                found = [*load.findings]
                down = problems(namespace, server, config) if number % check_one_in == 0 else {}
                server.start()
                found += ledger.judge(look(server, mount) | down)
                result.findings += [(number, finding) for finding in found]
                result.acknowledged += ledger.acknowledged()
                if len(result.findings) >= stop_at:
                    break
                for path in mount.iterdir():
                    if not path.name.startswith(f"k{number}w"):
                        shutil.rmtree(path)
                settled = see(mount)
                _sync(mount)
    return result


def _sync(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _load_and_kill(server: WarpServer, load: FileLoad, after_s: float) -> None:
    def kill() -> None:
        time.sleep(after_s)
        deadline = time.monotonic() + _HANG_S
        while load.ledger.acknowledged() < PER_KILL and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        server.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    load.run(server.s3, seconds=2 * _HANG_S, acknowledged=1 << 30)
    killer.join()
