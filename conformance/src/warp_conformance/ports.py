"""Ports that are free and stay so, for servers that cannot be told to take any (`port 0`)."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST, _LAST = 10_240, 65_535
_ENOUGH = 1000  # ports, so that those of several runs at once are found by chance
_claims: list[socket.socket] = []  # kept for the life of this process


def free_ports(count: int) -> list[int]:
    """Return loopback TCP ports that nobody takes before their user does, all different; also after it was stopped for a while.

    They lie outside the range from which the kernel takes the ports of connections, and a name in the same network namespace keeps
    every other process that asks here from getting them as long as this one lives. Prefer port 0 wherever the server reports what
    it got.
    """
    chance = random.SystemRandom()  # tests seed the common one: all of them would get the same
    candidates = _candidates()
    found: list[int] = []
    while len(found) < count:
        port = chance.choice(candidates)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0warp-test-port-{port}")
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        found.append(port)
    return found


def _candidates() -> range:
    try:
        low, high = map(int, _RANGE.read_text().split())
    except OSError:
        return range(_FIRST, _LAST + 1)
    outside = (range(_FIRST, low), range(high + 1, _LAST + 1))
    return max(
        (each for each in outside if len(each) >= _ENOUGH),
        key=len,
        default=range(_FIRST, _LAST + 1),
    )
