"""Which stores of a domain its home writes to, and how it may do without one: only after everybody can know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from warp_core.cluster import domains
from warp_core.cluster.domains import Domain
from warp_core.cluster.guard import unavailable
from warp_core.cluster.lease import DomainLease
from warp_core.containers.standing import Standing
from warp_core.interfaces.consistency import MetaStore
from warp_core.logs import get

log = get("warp_core.cluster")


class DomainStanding(Standing):
    """A copy on every store of the domain; one that fails is left behind after `whole/<n>` says so under the home's token."""

    def __init__(
        self, shared: MetaStore, domain: Domain, lease: DomainLease, used: frozenset[str]
    ) -> None:
        """Begin with the stores that are here, `used`, of those that the domain has."""
        self.stores = frozenset(kept.store for kept in domain.row.stores)
        self.used = used
        self.whole = domain.whole
        self._claimed: frozenset[str] = (
            frozenset()
        )  # said to be whole, without an answer: it may be written yet
        self._shared = shared
        self._domain = domain
        self._lease = lease
        self._turn = asyncio.Lock()
        self._told: list[Callable[[frozenset[str]], None]] = []

    def copies(self, wanted: int) -> int:
        """One on every store, so that each can be taken over with."""
        return max(wanted, len(self.stores))

    def enough(self, copies: int) -> int:
        """As many as there are stores in use."""
        return max(1, copies - len(self.stores - self.used))

    def uses(self, store: str) -> bool:
        """Say whether a store gets anything now."""
        return store in self.used

    def complete(self, stores: Collection[str], wanted: int) -> bool:
        """As `Standing.complete`: a store that is whole has everything that was acknowledged, whoever else is away."""
        return not self.whole.isdisjoint(stores)

    def on_leave(self, forget: Callable[[frozenset[str]], None]) -> None:
        """As `Standing.on_leave`."""
        self._told.append(forget)

    async def leave(self, living: Sequence[str]) -> bool:
        """Go on with these stores only: noted in the MetaStore before anything is acknowledged without the others.

        Raises:
            Fenced: Another node is the home.
            Unavailable: There is no quorum, or nothing whole would be left.
        """
        async with self._turn:
            left = self.used - set(living)
            said = self.whole | self._claimed
            if not left and said <= set(living):
                return False
            if not said <= set(living):
                await self._shrink(frozenset(living))
            self.used -= left
            if left:
                for told in self._told:
                    told(left)
                row = self._domain.row
                log.warning(
                    "going on without stores",
                    domain=self._domain.number,
                    left=domains.describe_stores(row, left),
                )
            return True

    async def _shrink(self, living: frozenset[str]) -> None:
        self._lease.demand()
        try:
            async with asyncio.timeout(self._lease.left_s):
                self.whole = await domains.change_whole(
                    self._shared,
                    self._domain.number,
                    token=self._lease.token,
                    change=lambda whole: whole & living,
                )
        except TimeoutError:
            raise unavailable(self._domain.number) from None
        self._claimed &= living
        self._lease.demand()

    async def join(self, store: str) -> None:
        """Note that a store holds everything that was acknowledged; raises as `leave`."""
        async with self._turn:
            if store not in self.used:
                return
            self._claimed |= {store}
            self.whole = await domains.change_whole(
                self._shared,
                self._domain.number,
                token=self._lease.token,
                change=lambda whole: whole | {store},
            )
            self._claimed -= {store}
