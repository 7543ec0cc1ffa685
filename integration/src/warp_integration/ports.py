"""Ports that are free, for servers that cannot be told to take any (`port 0`)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


def free_ports(count: int) -> list[int]:
    """Return loopback TCP ports that were free a moment ago, all different.

    Another process may take one before its user does: prefer port 0 wherever the server reports what it got.
    """
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def busy_port() -> Iterator[int]:
    """Hold a loopback TCP port, for tests of servers that find theirs taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
