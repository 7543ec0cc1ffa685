"""The server brick itself, against a stand-in that keeps or breaks the command's contract."""

from __future__ import annotations

import socket
import sys
import textwrap
from pathlib import Path

import pytest
from warp_integration.ports import busy_port
from warp_integration.server import ServerFailed, WarpServer

STAND_IN = """
    import json, os, signal, sys, time
    print("starting", sys.argv[1:], file=sys.stderr)
    mode = os.environ.get("MODE", "")
    if mode == "fail":
        sys.exit("port 9000 is taken")
    if mode == "silent":
        time.sleep(100)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("hello")
    sys.stdout.write('{"event": "ready", "endp')
    sys.stdout.flush()
    time.sleep(0.05)
    print('oints": {"s3": "http://127.0.0.1:1"}}')
    time.sleep(100)
"""


def stand_in(tmp_path: Path, mode: str = "") -> WarpServer:
    script = tmp_path / "warp.py"
    script.write_text(textwrap.dedent(STAND_IN))
    return WarpServer(
        tmp_path / "data", command=[sys.executable, str(script)], environment={"MODE": mode}
    )


def test_a_server_is_ready_when_it_says_so(tmp_path: Path) -> None:
    with stand_in(tmp_path) as server:
        assert server.s3 == "http://127.0.0.1:1"
        assert server.running
        assert server.rss_anon() > 1 << 20
        assert str(tmp_path / "data") in server.log()
        assert server.terminate() == 0


def test_leaving_kills(tmp_path: Path) -> None:
    with stand_in(tmp_path, "stubborn") as server:
        pid = server.pid

    assert not Path(f"/proc/{pid}").exists()


def test_a_server_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"ended with 1(.|\n)*port 9000 is taken"):
        stand_in(tmp_path, "fail").start()


def test_a_silent_server_is_killed_and_reported(tmp_path: Path) -> None:
    server = stand_in(tmp_path, "silent")
    with pytest.raises(ServerFailed, match="not ready"):
        server.start(timeout_s=0.3)

    assert not server.running


def test_a_server_that_ignores_sigterm_is_killed_and_reported(tmp_path: Path) -> None:
    with stand_in(tmp_path, "stubborn") as server:
        with pytest.raises(ServerFailed, match="still running"):
            server.terminate(timeout_s=0.2)

        assert not server.running


def test_a_killed_server_starts_again_with_its_own_log(tmp_path: Path) -> None:
    with stand_in(tmp_path) as server:
        first = server.pid
        server.kill()
        server.start()

        assert server.pid != first
        assert len(list(tmp_path.glob("server-*.err"))) == 2


def test_a_busy_port_is_busy() -> None:
    with busy_port() as port, pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
