"""Ports for tests: nobody else gets them, neither the kernel for a connection nor another process that asks."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from warp_conformance import ports


def test_free_ports_are_free_different_and_no_ports_of_connections() -> None:
    found = ports.free_ports(20)
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    assert len(set(found)) == 20
    assert not [port for port in found if low <= port <= high]
    for port in found:
        socket.create_server(("127.0.0.1", port)).close()


def test_another_process_gets_others() -> None:
    (port,) = ports.free_ports(1)
    code = (
        "from warp_conformance import ports\n"
        f"turns = iter([{port}, {port}, 0])\n"
        "class Chance:\n"
        f"    def choice(self, found): return next(turns) or {port + 1}\n"
        "ports.random.SystemRandom = Chance\n"
        "print(*ports.free_ports(1))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == [str(port + 1)]
