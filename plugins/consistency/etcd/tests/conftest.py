"""Real etcd members, on loopback and temporary data; without the program the tests that need one are skipped."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warp_conformance.ports import free_ports

PREFIXES = itertools.count()
READY_S = 30.0


class Server:
    """One etcd process; it can be killed, stopped for a while and started again on the same data and ports."""

    def __init__(
        self,
        folder: Path,
        name: str,
        client: int,
        peer: int,
        cluster: str,
        *extra: str,
        secure: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.endpoint = f"{'https' if secure else 'http'}://127.0.0.1:{client}"
        self.peer = f"http://127.0.0.1:{peer}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [
            "etcd",
            f"--name={name}",
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={self.peer}",
            f"--initial-advertise-peer-urls={self.peer}",
            f"--initial-cluster={cluster or f'{name}={self.peer}'}",
            "--pre-vote",
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--logger=zap",
            "--log-outputs=stderr",
            *extra,
        ]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        while number == signal.SIGSTOP and not self._stopped():
            time.sleep(0.001)

    def _stopped(self) -> bool:
        """Whether all threads stand still: on a busy machine some go on for milliseconds."""
        assert self.process is not None
        stats = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        try:
            return all(stat.read_text().rpartition(") ")[2][0] == "T" for stat in stats)
        except FileNotFoundError:  # one ended meanwhile
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def wait(self) -> None:
        """Wait until its port takes connections; the client waits for a leader."""
        deadline = time.monotonic() + READY_S
        port = int(self.endpoint.rpartition(":")[2])
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text()[-2000:])
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"{self.endpoint} does not answer")


def make_cluster(folder: Path, size: int, *extra: str, secure: bool = False) -> list[Server]:
    """Start members on free ports, without syncs unless `extra` says otherwise."""
    if shutil.which("etcd") is None:
        pytest.skip("the program etcd is missing: install the package etcd-server")
    ports = free_ports(2 * size)
    names = [f"m{number}" for number in range(size)]
    peers = ports[size:]
    cluster = ",".join(
        f"{name}=http://127.0.0.1:{peer}" for name, peer in zip(names, peers, strict=True)
    )
    servers = [
        Server(folder / name, name, port, peer, cluster, *extra, secure=secure)
        for name, port, peer in zip(names, ports[:size], peers, strict=True)
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
    except BaseException:
        for server in servers:
            server.stop()
        raise
    return servers


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="warp-etcd-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def one_member(shared_folder: Path) -> Iterator[list[Server]]:
    """A member that all tests share."""
    servers = make_cluster(shared_folder / "one", 1, "--unsafe-no-fsync")
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def three_members(shared_folder: Path) -> Iterator[list[Server]]:
    """A cluster that all tests share."""
    servers = make_cluster(shared_folder / "three", 3, "--unsafe-no-fsync")
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Callable[..., list[Server]]]:
    """Make clusters that only this test uses."""
    made: list[Server] = []

    def make(size: int, *extra: str, secure: bool = False) -> list[Server]:
        servers = make_cluster(tmp_path / f"cluster{len(made)}", size, *extra, secure=secure)
        made.extend(servers)
        return servers

    yield make
    for server in made:
        server.stop()


@pytest.fixture
def prefix() -> str:
    """A part of the shared cluster that only this test uses."""
    return f"test{os.getpid()}-{next(PREFIXES)}/"
