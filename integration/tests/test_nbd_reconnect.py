"""A client that stays while its server dies: qemu connects anew by itself and goes on."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from warp_integration.nbd import disk, environment, export, warp
from warp_integration.requirements import locate, require
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.slow, pytest.mark.usefixtures("warp_serve")]

WAIT_S = 120  # for one answer, on a busy machine


class QemuIo:
    """qemu-io told what to do line by line, which waits for a server that is away."""

    def __init__(self, uri: str) -> None:
        """Connect to an export of a Unix socket."""
        parts = urlsplit(uri)
        path = parse_qs(parts.query)["socket"][0]
        options = (
            f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={path},"
            f"file.export={parts.path.lstrip('/')},file.reconnect-delay={WAIT_S}"
        )
        self._process = subprocess.Popen(
            [str(locate("qemu-io")), "--image-opts", options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def tell(self, command: str) -> None:
        """Have it begin something."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Return what it says to a read or write: its first line."""
        while True:
            line = self._lines.get(timeout=WAIT_S)
            if "ops; " not in line:
                return line.removeprefix("qemu-io> ").strip()

    def __enter__(self) -> QemuIo:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(30)


@pytest.mark.parametrize("kills", [4])
def test_qemu_goes_on_with_a_server_that_was_killed_and_finds_what_it_flushed(
    tmp_path: Path, kills: int
) -> None:
    require("qemu-io")
    config = tmp_path / "warp.toml"
    config.write_text(config_text(extra="[protocols.nbd]\n"))
    with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as server:
        warp(tmp_path / "data", "volume", "create", "v")
        disk(tmp_path / "data", "create", "v/disk", "--size", "64M")
        with QemuIo(export(server.endpoints["nbd"], "v/disk")) as client:
            for turn in range(1, kills + 1):
                client.tell(f"write -f -P {turn} {turn}M 256k")
                assert client.answer() == f"wrote 262144/262144 bytes at offset {turn << 20}"
                server.kill()
                client.tell(f"write -P {turn + 100} {turn + 20}M 64k")  # while nobody answers
                time.sleep(0.2)
                server.start()
                assert client.answer() == f"wrote 65536/65536 bytes at offset {turn + 20 << 20}"
                for earlier in range(1, turn + 1):
                    client.tell(f"read -P {earlier} {earlier}M 256k")
                    assert client.answer() == f"read 262144/262144 bytes at offset {earlier << 20}"
                client.tell(f"read -P {turn + 100} {turn + 20}M 64k")
                assert client.answer() == f"read 65536/65536 bytes at offset {turn + 20 << 20}"
        assert server.running, server.log_tail()
