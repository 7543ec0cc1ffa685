"""Receivers of events in processes of their own, killed and started again at the same address: an HTTP server and a NATS server.

What either answered for is on its disk: a kill takes nothing back.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from warp_integration.namespace import leashed
from warp_integration.requirements import locate

STARTED_S = 60.0
STREAM = "EVENTS"


class ReceiverProcess(ABC):
    """One receiver; leaving the context kills it.

    Attributes:
        port: Where it listens, known after the first start.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder for what it is told."""
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return what to run."""

    @abstractmethod
    def find_port(self) -> int:
        """Return the port that it listens on, 0 as long as that is not known."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        prefix = leashed() if shutil.which("setpriv") else ()
        self._process = subprocess.Popen(
            [*prefix, *self.command()], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + STARTED_S
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"{type(self).__name__} ended with {self._process.returncode}")
            self.port = self.port or self.find_port()
            if self.port and self._accepts():
                return
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} does not start")
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


class HookProcess(ReceiverProcess):
    """An HTTP server that keeps every body as a line of a file, and then says yes."""

    @property
    def file(self) -> Path:
        """Where bodies are."""
        return self.folder / "events"

    def command(self) -> list[str]:
        """As `ReceiverProcess.command`."""
        return [sys.executable, __file__, str(self.folder), str(self.port)]

    def find_port(self) -> int:
        """As `ReceiverProcess.find_port`."""
        try:
            return int((self.folder / "port").read_text() or 0)
        except FileNotFoundError:
            return 0

    def records(self) -> list[dict[str, Any]]:
        """Return every record in the order of arrival."""
        found: list[dict[str, Any]] = []
        lines = self.file.read_bytes().split(b"\n")[:-1] if self.file.exists() else []
        for line in lines:
            found += json.loads(line).get("Records", [])
        return found


class NatsProcess(ReceiverProcess):
    """A NATS server with JetStream on disk."""

    def command(self) -> list[str]:
        """As `ReceiverProcess.command`."""
        program = locate("nats-server")
        assert program is not None
        port = str(self.port or -1)
        shutil.rmtree(self.folder / "ports", ignore_errors=True)
        (self.folder / "ports").mkdir()
        # Every message is synced: its own habit is to sync every two minutes, which a kill -9 survives and a power cut does not.
        (self.folder / "nats.conf").write_text(
            f"jetstream {{ store_dir: {json.dumps(str(self.folder))}, sync_interval: always }}\n"
        )
        return [
            *(str(program), "--config", str(self.folder / "nats.conf"), "--addr", "127.0.0.1"),
            *("--port", port, "--ports_file_dir", str(self.folder / "ports")),
        ]

    def find_port(self) -> int:
        """As `ReceiverProcess.find_port`."""
        for path in (self.folder / "ports").glob("*.ports"):
            if text := path.read_text():
                return int(json.loads(text)["nats"][0].rpartition(":")[2])
        return 0

    async def make_stream(self, *subjects: str) -> None:
        """Make the stream that takes the subjects."""
        import nats

        client = await nats.connect(f"nats://127.0.0.1:{self.port}")
        await client.jetstream().add_stream(name=STREAM, subjects=list(subjects))
        await client.close()

    async def records(self) -> list[dict[str, Any]]:
        """Return every record of the stream, in its order."""
        import nats
        from nats.js.api import ConsumerConfig, DeliverPolicy

        client = await nats.connect(f"nats://127.0.0.1:{self.port}")
        stream = client.jetstream()
        left = (await stream.stream_info(STREAM)).state.messages
        reader = await stream.pull_subscribe(
            "", stream=STREAM, config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        )
        found: list[dict[str, Any]] = []
        while left:
            batch = await reader.fetch(min(left, 500), timeout=30)
            left -= len(batch)
            for message in batch:
                await message.ack()
                found += json.loads(message.data).get("Records", [])
        await client.close()
        return found


class _Keeper(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    file: Any

    def do_POST(self) -> None:
        """Keep a body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.file.write(body + b"\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def _serve(folder: Path, port: int) -> None:
    """Serve for ever."""
    deadline = time.monotonic() + STARTED_S
    while True:
        try:
            server = _Server(("127.0.0.1", port), _Keeper)
            break
        except OSError:  # a connection of the last one may still linger there
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    with (folder / "events").open("ab", buffering=0) as file:
        _Keeper.file = file
        (folder / "port").write_text(str(server.server_address[1]))
        server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
