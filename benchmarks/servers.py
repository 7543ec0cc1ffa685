"""Servers under measurement: WARP and its peers, each started on free loopback ports in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "BENCHMARKACCESSKEY00", "benchmarksecret0123456789benchmarksecret01"
START_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """One endpoint to load."""

    name: str
    url: str
    pid: int


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server for the length of the block, its standard error in `log`, and end it by its id."""
    with log.open("w") as errors:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | environment
        )
        try:
            yield server
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@contextlib.contextmanager
def warp(folder: Path, *, name: str = "warp", config: str = "") -> Iterator[Server]:
    """Serve WARP from `folder`; `config` replaces the default configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "warp.toml"
    path.write_text(
        config or f'[node]\ndata = "{folder}/data"\n\n[protocols.s3]\nlisten = "127.0.0.1:0"\n'
    )
    command = [sys.executable, "-m", "warp_cli", "serve", "--config", str(path)]
    keys = {"WARP_ACCESS_KEY": ACCESS_KEY, "WARP_SECRET_KEY": SECRET_KEY}
    with process(command, folder / "log", **keys) as server:
        assert server.stdout
        line = server.stdout.readline()
        if not line:
            raise RuntimeError(f"warp serve ended: {(folder / 'log').read_text()[-2000:]}")
        yield Server(name, json.loads(line)["endpoints"]["s3"], server.pid)


@contextlib.contextmanager
def seaweedfs(folder: Path, *, name: str = "weed", fsync: bool = False) -> Iterator[Server]:
    """Serve SeaweedFS's all-in-one server; with `fsync`, its volume server syncs every write before it answers."""
    weed = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "identities": [
            {
                "name": "benchmark",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    (folder / "s3.json").write_text(json.dumps(identity))
    ports = {part: free_port() for part in ("master", "volume", "filer", "s3")}
    grpc = {part: free_port() for part in ports}
    command = [
        weed,
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
    ]
    command += [f"-{part}.port={port}" for part, port in ports.items()]
    command += [f"-{part}.port.grpc={port}" for part, port in grpc.items()]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-volume.max=64",
    ]
    command += [f"-s3.config={folder / 's3.json'}"]
    with process(command, folder / "log") as server:
        url = f"http://127.0.0.1:{ports['s3']}"
        wait_for(url, server, folder / "log")
        if fsync:
            master = f"127.0.0.1:{ports['master']}.{grpc['master']}"
            filer = f"127.0.0.1:{ports['filer']}.{grpc['filer']}"
            configure = "fs.configure -locationPrefix=/buckets/ -fsync=true -apply\n"
            shell = [weed, "shell", f"-master={master}", f"-filer={filer}"]
            done = subprocess.run(
                shell, input=configure, text=True, capture_output=True, timeout=60
            )
            if '"fsync":' not in done.stdout.replace(" ", "") and "fsync" not in done.stdout:
                raise RuntimeError(
                    f"SeaweedFS did not take the fsync option: {done.stdout} {done.stderr}"
                )
        yield Server(name, url, server.pid)


@contextlib.contextmanager
def rclone(folder: Path, *, name: str = "rclone") -> Iterator[Server]:
    """Serve a local folder by `rclone serve s3`: files as they are, no sync, ETags that are MD5s computed when asked for."""
    program = shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [program, "serve", "s3", f"--addr=127.0.0.1:{port}", "--config=/dev/null"]
    command += [f"--auth-key={ACCESS_KEY},{SECRET_KEY}", f"--cache-dir={folder / 'cache'}"]
    command += ["--vfs-cache-mode=off", str(folder / "data")]
    with process(command, folder / "log") as server:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, server, folder / "log")
        yield Server(name, url, server.pid)


def peer(name: str, folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Serve one of the peers by its name.

    Raises:
        ValueError: There is none of that name.
    """
    if name in {"weed", "weed-fsync"}:
        return seaweedfs(folder, name=name, fsync=name.endswith("-fsync"))
    if name == "rclone":
        return rclone(folder, name=name)
    if name == "warp-opaque":
        listen = '[protocols.s3]\nlisten = "127.0.0.1:0"\netags = "opaque"\n'
        return warp(folder, name=name, config=f'[node]\ndata = "{folder}/data"\n\n{listen}')
    raise ValueError(f"no peer is called {name!r}")


def wait_for(url: str, server: subprocess.Popen[str], log: Path) -> None:
    """Return once the endpoint answers HTTP."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            time.sleep(3)  # the volume server joins a little after the gateway answers
            return
        except OSError:
            time.sleep(0.3)
        else:
            time.sleep(3)
            return
    raise RuntimeError(f"{url} does not answer: {log.read_text()[-2000:]}")
