"""Failed logins by address: each makes the next one slower, and too many close the door for a while.

An address's count halves with each half-life that passes without a failure. What is remembered is bounded; the address that was quiet
for longest is forgotten first.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

ADDRESSES_MAX: Final = 10_000
HALF_LIFE_S: Final = 60.0
FIRST_DELAY_S: Final = 0.25
DELAY_MAX_S: Final = 8.0


class Attempts:
    """The counts of all addresses."""

    def __init__(self, refused_at: int) -> None:
        """Refuse addresses from so many failures on."""
        self._refused_at = refused_at
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # count, as of when

    def count(self, address: str, now_s: float) -> float:
        """Return the failures of an address, old ones for less."""
        found = self._counts.get(key_of(address))
        if found is None:
            return 0.0
        count, since_s = found
        return float(count * 0.5 ** ((now_s - since_s) / HALF_LIFE_S))

    def failed(self, address: str, now_s: float) -> float:
        """Note a failure and return for how many seconds its answer is kept back."""
        count = self.count(address, now_s) + 1.0
        key = key_of(address)
        self._counts[key] = (count, now_s)
        self._counts.move_to_end(key)
        if len(self._counts) > ADDRESSES_MAX:
            self._counts.popitem(last=False)
        return float(min(FIRST_DELAY_S * 2.0 ** (min(count, 16.0) - 1.0), DELAY_MAX_S))

    def refuses(self, address: str, now_s: float) -> bool:
        """Say whether an address is not let in now."""
        return self.count(address, now_s) >= self._refused_at


def key_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the first 64 bits, which belong to one subscriber."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False).network_address)
    return str(parsed)
