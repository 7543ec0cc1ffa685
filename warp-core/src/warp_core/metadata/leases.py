"""Leases of an embedded engine: they live in memory and end with it; their tokens are commit
versions, so they always grow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from warp_core.errors import Busy, Fenced, InvalidArgument, Locked
from warp_core.interfaces.consistency import Lease

LEASES_MAX = 10_000  # alive at once; a node holds a few for each of its volumes


class Leases:
    """Who holds which name until when.

    `next_token` commits an empty change and returns its version.
    """

    def __init__(
        self, monotonic: Callable[[], float], next_token: Callable[[], Awaitable[int]]
    ) -> None:
        self._monotonic = monotonic
        self._next_token = next_token
        self._held: dict[str, tuple[Lease, float]] = {}

    async def grant(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        if not ttl_s > 0:
            raise InvalidArgument(f"lease of {ttl_s} s: a time above 0 is needed")
        self._refuse_if_held(name, holder)
        if len(self._held) >= LEASES_MAX:
            now = self._monotonic()
            self._held = {key: held for key, held in self._held.items() if held[1] > now}
            if len(self._held) >= LEASES_MAX:
                raise Busy(f"{LEASES_MAX} leases are alive")
        token = await self._next_token()
        self._refuse_if_held(
            name, holder
        )  # another may have come first while the token was made durable
        lease = Lease(name, holder, token, ttl_s)
        self._held[name] = (lease, self._monotonic() + ttl_s)
        return lease

    def _refuse_if_held(self, name: str, holder: str) -> None:
        held = self._held.get(name)
        if held is not None and held[0].holder != holder and held[1] > self._monotonic():
            raise Locked(f'lease "{name}" is held by "{held[0].holder}"')

    def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        held = self._held.get(lease.name)
        now = self._monotonic()
        if held is None or held[0].token != lease.token or held[1] <= now:
            raise Fenced(f'lease "{lease.name}" with token {lease.token} ended')
        self._held[lease.name] = (held[0], now + held[0].ttl_s)
        return held[0]

    def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        held = self._held.get(lease.name)
        if held is not None and held[0].token == lease.token:
            del self._held[lease.name]
