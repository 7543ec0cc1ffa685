"""The stores of a domain while one node is its home: opened for each sitting, made fit where they were away, looked for meanwhile.

A store is used if it is whole, or after a whole one made it fit (`resync`). One that is found again while a sitting lasts is compared
with a whole one first, for as long as that takes, and its links stay open: so there is little left to do between that sitting and the
next, when nobody is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Protocol

from warp_core.cluster import domains
from warp_core.cluster.domains import Domain, Map
from warp_core.cluster.lease import RENEWALS, DomainLease
from warp_core.cluster.resync import resync
from warp_core.cluster.rows import Kept
from warp_core.cluster.standing import DomainStanding
from warp_core.cluster.stores import LocalStore, Peers, Place, check_superblock
from warp_core.errors import Unavailable, WarpError
from warp_core.interfaces.stores import BlobStore
from warp_core.logs import get

DIAL_S = 1.0  # at least: a node whose cable is cut must not hold up a takeover, and it is used as soon as it answers

log = get("warp_core.cluster")


class Around(Protocol):
    """What is around a node's domains: `tenure.Parts` is."""

    @property
    def peers(self) -> Peers:
        """Opens stores of other nodes."""

    @property
    def place(self) -> Callable[[Kept], Place | None]:
        """Says where a peer's store is now; None if that is unknown."""

    @property
    def local(self) -> Callable[[], dict[str, LocalStore]]:
        """Gives the stores that lie here, by id."""

    @property
    def ttl_s(self) -> float:
        """Of leases."""

    @property
    def monotonic(self) -> Callable[[], float]:
        """The clock."""


@dataclass(slots=True)
class Used:
    """One store of the domain in a sitting."""

    kept: Kept
    store: BlobStore
    local: LocalStore | None
    here: bool


class Fitting:
    """See the module. It lasts as long as one tenure: what it remembers of stores is true while nobody else is the home."""

    def __init__(self, number: int, around: Around, latest: Callable[[], Map]) -> None:
        """Take a domain's number, what is around it, and what was last read of all rows."""
        self.number = number
        self.lost_by = (
            ""  # the node whose lease ended before this tenure began: it is dead, or cut off
        )
        self._around = around
        self._latest = latest
        # Of stores that returned, by id: links that are open, and names of blobs that need not be looked at again.
        self._came: dict[str, tuple[AsyncExitStack, BlobStore]] = {}
        self._alike: dict[str, set[str]] = {}

    async def let_go(self) -> None:
        """Close the stores that came back and that no sitting has taken over."""
        while self._came:
            _, (exits, _) = self._came.popitem()
            await exits.aclose()

    async def open(
        self, exits: AsyncExitStack, lease: DomainLease, domain: Domain, patience_s: float
    ) -> list[Used]:
        """Open every store of the domain, the whole ones patiently."""
        local = self._around.local()
        until_s = self._around.monotonic() + patience_s
        found = []
        for kept in domain.row.stores:
            mine = local.get(kept.store)
            if mine is not None:
                found.append(Used(kept, mine.store, mine, True))
                continue
            if (came := self._came.pop(kept.store, None)) is not None:
                opened, store = came
                exits.push_async_callback(opened.aclose)
                found.append(Used(kept, store, None, True))
                continue
            # Who lost the domain just now is not waited for at a cable that is cut; if it lives, it is found a moment later.
            away = "it lost the domain" if kept.node == self.lost_by else ""
            while True:
                one = AsyncExitStack()
                store, reason = await self._open_peer(one, lease, kept, away=away)
                late = self._around.monotonic() >= until_s
                if not reason or kept.store not in domain.whole or late:
                    exits.push_async_callback(one.aclose)
                    if reason:
                        log.warning("a store is away", domain=self.number, reason=reason)
                    break
                await one.aclose()
                lease.demand()
                await asyncio.sleep(0.2)
            found.append(Used(kept, store, None, not reason))
        return found

    async def _open_peer(
        self, exits: AsyncExitStack, lease: DomainLease, kept: Kept, *, away: str = ""
    ) -> tuple[BlobStore, str]:
        """Open a store of a peer; return it, and why it is away, or "". It is not asked if that is known."""
        place = self._around.place(kept) or Place(
            kept.node, "127.0.0.1:0", "tcp", kept.export, self._around.ttl_s
        )
        bare, store = await exits.enter_async_context(
            self._around.peers.open(
                place,
                store=kept.store,
                fence=lease.token,
                dial_s=max(DIAL_S, self._around.ttl_s / 4),
                away=away,
            )
        )
        return store, "" if bare.here else bare.reason or "it does not answer"

    async def made_fit(self, stores: Sequence[Used], domain: Domain) -> frozenset[str]:
        """Return the ids of the stores to use: whole ones that are here, and those that a whole one made fit.

        Raises:
            Unavailable: No store that is whole is here.
        """
        whole = [each for each in stores if each.here and each.kept.store in domain.whole]
        if not whole:
            raise Unavailable(
                f"domain {self.number}: of the stores that hold everything acknowledged none is here"
                f" ({domains.describe_stores(domain.row, domain.whole)})"
            )
        used = {each.kept.store for each in whole}
        source = min(whole, key=lambda each: each.local is None).store
        for each in stores:
            if each.here and each.kept.store not in used:
                try:
                    await check_superblock(each.store, domain.row.identity)
                    alike = self._alike.pop(each.kept.store, None)
                    done = await resync(source, each.store, last=True, same=alike)
                except WarpError as error:
                    log.warning(
                        "a store that came back failed", store=each.kept.export, error=str(error)
                    )
                else:
                    used.add(each.kept.store)
                    log.info(
                        "a store that came back is in use",
                        domain=self.number,
                        store=f"{each.kept.node}/{each.kept.export}",
                        **asdict(done),
                    )
        return frozenset(used)

    async def look_for(
        self,
        lease: DomainLease,
        stores: Sequence[Used],
        standing: DomainStanding,
        source: BlobStore,
    ) -> None:
        """Return when a store is reachable that is not in use, open, and with most of what it lacked of the journal."""
        pause_s = first_s = max(1.0, self._around.ttl_s / RENEWALS)
        while True:
            await asyncio.sleep(pause_s)
            for each in stores:
                if each.kept.store in standing.used:
                    continue
                async with AsyncExitStack() as exits:
                    with suppress(WarpError):
                        store = each.store
                        if each.local is None:
                            store, away = await self._open_peer(exits, lease, each.kept)
                            if away:
                                continue
                        else:
                            await store.space()
                        await check_superblock(store, self._identity())
                        alike: set[str] = set()
                        await resync(source, store, last=False, same=alike)
                        self._alike[each.kept.store] = alike
                        if each.local is None:
                            # Its links are there: a busy node may take a second to take another.
                            self._came[each.kept.store] = (exits.pop_all(), store)
                        return
                pause_s = min(2 * pause_s, 8 * first_s)  # it is here, and fails

    def _identity(self) -> str:
        domain = self._latest().domains.get(self.number)
        if domain is None:
            raise Unavailable(f"nothing is known of domain {self.number}")
        return domain.row.identity
