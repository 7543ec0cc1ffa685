"""`warp mount`: of the node here, and of one elsewhere by a client of its own, through Linux's own client of FUSE."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warp_integration.namespace import MountNamespace
from warp_integration.requirements import require, require_root
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

WAIT_S = 90.0  # for what happens in milliseconds, on a machine that others keep busy
MOUNTS = '[protocols.fuse]\n[mounts]\nlisten = "127.0.0.1:{port}"\n'


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


class Place:
    """A node with a volume, and a client on another machine (another mount of the same machine)."""

    def __init__(self, folder: Path, namespace: MountNamespace, port: int) -> None:
        self.folder = folder
        self.namespace = namespace
        self.config = folder / "warp.toml"
        self.config.write_text(config_text(extra=MOUNTS.format(port=port)))
        self.server = WarpServer(
            folder / "data", config=self.config, logs=folder, prefix=namespace.prefix
        )
        self.local, self.remote = (namespace.path(folder / name) for name in ("local", "remote"))
        self.clients: list[subprocess.Popen[str]] = []

    def warp(self, *words: str) -> Any:
        """Run a command where the node is, and return its JSON."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.namespace.prefix, sys.executable, "-m", "warp_cli", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            env=self.environment,
        )

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "WARP_MOUNTS": str(self.folder / "identities"),
            "WARP_CONFIG": str(self.config),
            "WARP_DATA": str(self.folder / "data"),
        }

    def client(self, what: str, *options: str) -> subprocess.Popen[str]:
        """Mount in the foreground of a process; return when it has."""
        words = ["mount", what, str(self.folder / "remote"), "--json", *options]
        client = subprocess.Popen(
            [*self.namespace.prefix, sys.executable, "-m", "warp_cli", *words],
            stdout=subprocess.PIPE,
            stderr=(self.folder / f"client{len(self.clients)}.log").open("w"),
            text=True,
            env=self.environment,
        )
        self.clients.append(client)
        assert client.stdout
        assert json.loads(client.stdout.readline() or "{}").get("event") == "ready"
        return client

    def mounted(self) -> list[str]:
        """Return where something of ours is mounted."""
        table = self.namespace.run("cat", "/proc/self/mountinfo").splitlines()
        found = [line.split()[4] for line in table if "fuse.warp" in line]
        return [place for place in found if place.startswith(str(self.folder))]

    def close(self) -> None:
        for client in self.clients:
            if client.poll() is None:
                client.kill()
            client.wait()
            assert client.stdout
            client.stdout.close()
        self.server.kill()


@pytest.fixture
def place(warp_serve: None, tmp_path: Path, unused_tcp_port: int) -> Iterator[Place]:
    require_root()
    require("unshare", "nsenter", "setpriv")
    if not Path("/dev/fuse").exists():
        pytest.skip("missing: /dev/fuse (kernel module fuse)")
    with MountNamespace() as namespace:
        place = Place(tmp_path, namespace, unused_tcp_port)
        try:
            place.server.start()
            place.warp("volume", "create", "v")
            yield place
        finally:
            place.close()


def test_a_volume_of_the_node_is_mounted_kept_and_taken_away(place: Place) -> None:
    here = str(place.folder / "local")
    place.warp("mount", "v", here, "--keep")
    (place.local / "a").write_text("kept")
    assert place.warp("mount", "list") == [
        {"directory": here, "volume": "v", "read_only": False, "origin": "kept"}
    ]
    assert place.run("mount", "v", here).returncode == 1  # it is taken
    assert place.run("mount", "w", here + "2").returncode == 1  # there is no such volume
    assert place.server.terminate() == 0
    assert place.mounted() == []
    place.server.start()
    assert (place.local / "a").read_text() == "kept"
    place.warp("unmount", here)
    assert place.mounted() == []
    assert place.warp("mount", "list") == []
    assert place.run("unmount", here).returncode == 1


def test_a_client_elsewhere_sees_what_others_do_and_outlives_a_restart(place: Place) -> None:
    token = place.warp("mount", "token", "v")["token"]
    place.warp("mount", "v", str(place.folder / "local"), "--keep")
    client = place.client(token, "--patience", "60s")
    [known] = place.warp("mount", "clients")
    assert known["volume"] == "v"
    for turn in range(3):
        (place.local / "f").write_text(f"local {turn}")
        assert (place.remote / "f").read_text() == f"local {turn}"
        (place.remote / "f").write_text(f"remote {turn}")
        assert (place.local / "f").read_text() == f"remote {turn}"
    with contextlib.ExitStack() as stack:
        synced, unsynced, gone = (
            stack.enter_context((place.remote / name).open("w+b", buffering=0))
            for name in ("synced", "unsynced", "gone")
        )
        for file in (synced, gone):
            file.write(b"before")
        os.unlink(place.remote / "gone")
        os.fsync(synced.fileno())  # a barrier, also for names
        unsynced.write(b"before")

        place.server.kill()
        reading: list[str] = []
        waiting = threading.Thread(
            target=lambda: reading.append((place.remote / "f").read_text()), daemon=True
        )
        waiting.start()
        place.server.start()
        waiting.join(WAIT_S)

        assert reading == ["remote 2"]
        assert os.pread(synced.fileno(), 9, 0) == b"before"
        synced.write(b" and after")
        os.fsync(synced.fileno())
        assert (place.local / "synced").read_bytes() == b"before and after"
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.fsync(unsynced.fileno())
        os.fsync(unsynced.fileno())  # it was told
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            os.pread(gone.fileno(), 9, 0)
    client.terminate()
    assert client.wait(WAIT_S) == 0
    until(lambda: len(place.mounted()) == 1)


@pytest.mark.slow
def test_a_client_whose_node_is_gone_gets_errors_and_ends(place: Place) -> None:
    answer = place.warp("mount", "token", "v", "--read-only")
    client = place.client(answer["token"], "--patience", "100ms", "--give-up", "1s")
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (place.remote / "x").write_text("x")
    assert place.run("mount", answer["token"], str(place.folder / "again")).returncode == 1

    place.server.kill()

    with pytest.raises(OSError, match=os.strerror(errno.EHOSTDOWN)):
        (place.remote / "y").stat()
    assert client.wait(WAIT_S) == 1
    assert place.mounted() == []
    place.server.start()
    client = place.client(f"warp://{answer['address']}/v")
    [known] = place.warp("mount", "clients")
    place.warp("mount", "revoke", known["client"])
    until(lambda: not _listed(place.remote))
    place.run("unmount", str(place.folder / "remote"))
    until(lambda: client.poll() is not None)


def _listed(folder: Path) -> bool:
    try:
        os.listdir(folder)
    except OSError:
        return False
    return True
