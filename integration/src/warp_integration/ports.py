"""Ports that are free, and a port that is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from warp_conformance.ports import free_ports

__all__ = ["busy_port", "free_ports"]


@contextmanager
def busy_port() -> Iterator[int]:
    """Hold a loopback TCP port, for tests of servers that find theirs taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
