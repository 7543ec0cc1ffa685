"""The lease of a domain: its holder counts the time from before it asked, on its own monotonic clock, and stops first.

```
 holder    ask ──────────▶ granted                          deadline: answers nothing any more
            │◀──────────────── ttl ─────────────────────────▶│
 engine              grant│◀────────────── ttl ─────────────────────▶│ another may be granted it
```

Wall clocks play no part. A process that was stopped finds its deadline passed at the first verb after it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from warp_core.cluster.guard import unavailable
from warp_core.errors import Fenced, TimedOut, WarpError
from warp_core.interfaces.consistency import Lease, MetaStore
from warp_core.logs import get

RENEWALS = 4  # in the time of a lease: three may fail before it ends
NAME = "domain/{}"

log = get("warp_core.cluster")


class DomainLease:
    """A lease that was granted. `keep` renews it until it is lost."""

    def __init__(
        self,
        engine: MetaStore,
        domain: int,
        lease: Lease,
        deadline_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """See `acquire`."""
        self.domain = domain
        self.token = lease.token
        self.lost = asyncio.Event()
        self._engine = engine
        self._lease = lease
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._refused = False  # the latest renewal that was answered

    @classmethod
    async def acquire(
        cls,
        engine: MetaStore,
        domain: int,
        *,
        node: str,
        ttl_s: float,
        monotonic: Callable[[], float],
    ) -> DomainLease:
        """Take the lease of a domain for a node.

        Raises:
            Locked: Another node's is alive.
            Unavailable, TimedOut: There is no quorum.
        """
        asked_s = monotonic()
        try:
            async with asyncio.timeout(ttl_s):  # an answer that comes later is of no use
                lease = await engine.lease(NAME.format(domain), node, ttl_s)
        except TimeoutError:
            raise TimedOut(f"the metadata engine did not answer within {ttl_s:g} s") from None
        return cls(engine, domain, lease, asked_s + ttl_s, monotonic)

    @property
    def held(self) -> bool:
        """Whether no other node can be the home now."""
        return self._monotonic() < self._deadline_s and not self.lost.is_set()

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self._deadline_s - self._monotonic()

    def demand(self) -> None:
        """Refuse what comes too late.

        Raises:
            Unavailable: Another node may be the home.
        """
        if self._monotonic() >= self._deadline_s or self.lost.is_set():
            self.lose()
            raise unavailable(self.domain)

    def lose(self) -> None:
        """Stop: for good, also if the deadline has not passed."""
        self.lost.set()

    async def keep(self) -> None:
        """Renew the lease until it is lost or this task is cancelled.

        A renewal does not wait for the one before: an engine that is busy may take longer for each than the time between two, and
        still be in time; and one that is lost (etcd drops what its old leader was asked) must not use up all the time that there is.
        """
        pause_s = self._lease.ttl_s / RENEWALS
        renewals: set[asyncio.Task[None]] = set()
        try:
            while self.held:
                wait_s = pause_s / 8 if self._refused else pause_s
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait_s, max(self.left_s, 0.0))):
                        await self.lost.wait()
                if self.held and len(renewals) < RENEWALS:
                    renewal = asyncio.create_task(self._renew(), name="renewal of a lease")
                    renewals.add(renewal)
                    renewal.add_done_callback(renewals.discard)
        finally:
            for renewal in list(renewals):
                renewal.cancel()
            await asyncio.gather(*renewals, return_exceptions=True)
        self.lose()

    async def _renew(self) -> None:
        """Renew once; the time counts from before it was asked for."""
        asked_s = self._monotonic()
        try:
            async with asyncio.timeout(max(self.left_s, 0.001)):
                await self._engine.renew(self._lease)
        except Fenced as error:
            log.warning("lease lost", domain=self.domain, reason=str(error))
            self.lose()
        except (WarpError, TimeoutError) as error:
            if asked_s + self._lease.ttl_s <= self._deadline_s:
                return  # one that was asked for later is there already
            self._refused = True
            log.warning(
                "lease not renewed", domain=self.domain, left_s=self.left_s, reason=str(error)
            )
        else:
            self._refused = False
            if not self.held:  # the answer came too late: another may have been granted it
                self.lose()
                return
            self._deadline_s = max(self._deadline_s, asked_s + self._lease.ttl_s)

    async def give_back(self) -> None:
        """End it early, as far as the engine can be asked."""
        self.lose()
        try:
            await self._engine.release(self._lease)
        except WarpError as error:
            log.info("lease ends by itself", domain=self.domain, reason=str(error))
