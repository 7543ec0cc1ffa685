"""How often an address may be wrong about its token before it has to wait."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

WINDOW_S: Final = 60.0
ADDRESSES_MAX: Final = 4096  # remembered, a few hundred bytes each; the oldest are forgotten first


class Failures:
    """Wrong tokens by where they came from. An address of IPv6 stands for its network of 64 bits, which is one customer's."""

    def __init__(self, failures_max: int, clock: Callable[[], float]) -> None:
        self._max = failures_max
        self._clock = clock
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Return how long an address has to wait before its token is looked at; 0 if not at all."""
        times = self._by_address.get(network_of(address))
        if times is None:
            return 0.0
        now = self._clock()
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        return times[0] + WINDOW_S - now if len(times) >= self._max else 0.0

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        network = network_of(address)
        times = self._by_address.setdefault(network, deque(maxlen=self._max))
        times.append(self._clock())
        self._by_address.move_to_end(network)
        if len(self._by_address) > ADDRESSES_MAX:
            self._by_address.popitem(last=False)


def network_of(address: str) -> str:
    """Return what counts as one address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
