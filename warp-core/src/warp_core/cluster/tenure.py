"""The time for which one node is the home of one domain: from the lease that it got to the lease that it lost or gave back.

```
 lease ─▶ gates shut ─▶ row taken ─▶ sitting ─▶ … ─▶ sitting ─▶ gates open, lease given back
          (fence at the  (fence in                      │
           stores)        the MetaStore)                └ ends when the lease is lost, the journal failed, a store came back that was
                                                          away, another node should have the domain, or this one stops
```

In a *sitting* the stack is open. A store that comes back ends it: it is made fit (`fitting`), and the next sitting writes to it
again. Once heal has found nothing that it lacks, it is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from warp_core.cluster import domains
from warp_core.cluster.domains import Domain, Map
from warp_core.cluster.fitting import Fitting, Used
from warp_core.cluster.guard import DomainStore, unavailable
from warp_core.cluster.lease import RENEWALS, DomainLease
from warp_core.cluster.leased import leased
from warp_core.cluster.rows import Kept, prefix
from warp_core.cluster.standing import DomainStanding
from warp_core.cluster.stores import LocalStore, Peers, Place
from warp_core.containers import Containers, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.containers.segments import Position
from warp_core.errors import WarpError
from warp_core.interfaces.codecs import Codec
from warp_core.interfaces.consistency import KeyCheck, MetaStore
from warp_core.interfaces.stores import BlobStore
from warp_core.logs import get
from warp_core.views import Blocks, Files, Objects

if TYPE_CHECKING:
    from warp_core.node.stack import Stack

NO_COMMITS = Position(2**64 - 1, 0)  # the engine has a log of its own
HEAL_BYTES = 64 * 1024 * 1024  # written at once; between such steps requests come first
HEAL_PAUSE_S = 0.5

log = get("warp_core.cluster")


class End(Enum):
    """Why a sitting ended."""

    STOPPED = "the node stops"
    LOST = "the lease was lost"
    FAILED = "the journal failed"
    RETURNED = "a store came back"
    GIVEN = "another node should have it"
    LEFT = "a node that keeps a copy left for good"
    GROWS = "it gets another store"


OpenStack = Callable[
    [int, Journal, Containers, MetaStore, Sequence[BlobStore]], "AbstractAsyncContextManager[Stack]"
]


@dataclass(frozen=True, slots=True)
class Parts:
    """What every tenure of a node is built from."""

    node: str
    shared: MetaStore
    peers: Peers
    open_stack: OpenStack
    codec: Callable[[str], Codec]
    place: Callable[[Kept], Place | None]  # where a peer's store is now; None if that is unknown
    local: Callable[[], dict[str, LocalStore]]  # by id of the store
    ttl_s: float
    monotonic: Callable[[], float]


class Sitting:
    """What is asked on behalf of one sitting: by its handles until it is `over`, by its rows until it is `closed`.

    A handle that outlived its sitting would show what was, and flush a journal that nobody writes to any more.
    """

    def __init__(self, lease: DomainLease) -> None:
        """Begin."""
        self.over = False
        self.lease = lease
        self._closed = False

    @property
    def held(self) -> bool:
        """Whether nobody else can be changing the domain's rows: no other node, and no later sitting."""
        return self.lease.held and not self._closed

    def lose(self) -> None:
        """Take note that the row is another's; after the end that is the next sitting's."""
        if not self._closed:
            self.lease.lose()

    def close(self) -> None:
        """End it: the stack is closed."""
        self._closed = True

    def demand(self) -> None:
        """Refuse what comes too late.

        Raises:
            Unavailable: Another node may be the home, or the stack was opened anew: handles have to be, too.
        """
        self.lease.demand()
        if self.over:
            raise unavailable(self.lease.domain)


class Tenure:
    """Runs one. `stack` is what verbs may be given to, None between sittings."""

    def __init__(self, number: int, parts: Parts, latest: Callable[[], Map]) -> None:
        """Take a domain's number, and what was last read of all rows."""
        self.number = number
        self.stack: Stack | None = None
        self.lease: DomainLease | None = None
        self.standing: DomainStanding | None = None
        self.opened = asyncio.Event()  # it has been, once
        self._parts = parts
        self._latest = latest
        self._stop = asyncio.Event()
        self._returned = asyncio.Event()
        self._grows = asyncio.Event()
        self._fitting = Fitting(number, parts, latest)

    def stop(self) -> None:
        """Give the domain back as soon as possible."""
        self._stop.set()

    def grow(self) -> None:
        """Prepare the domain anew, between two sittings: it has stores that its row does not name yet."""
        self._grows.set()

    async def run(
        self,
        prepare: Callable[[DomainLease], Awaitable[None]] | None = None,
        *,
        patience_s: float = 0.0,
    ) -> End:
        """Become the home, and stay it; returns why that ended.

        Args:
            prepare: Called once the row is this node's, and after `grow`; it sets there which stores the domain has.
            patience_s: How long the first sitting waits for stores that are whole and away.

        Raises:
            Locked: Another node's lease is alive.
            WarpError: It cannot be the home, or not now.
        """
        parts = self._parts
        lease = await DomainLease.acquire(
            parts.shared,
            self.number,
            node=parts.node,
            ttl_s=parts.ttl_s,
            monotonic=parts.monotonic,
        )
        self.lease = lease
        before = self._latest().domains.get(self.number)
        if before is not None and before.wish != parts.node:
            self._fitting.lost_by = before.row.holder
        keeping = asyncio.create_task(lease.keep(), name=f"lease of domain {self.number}")
        mine = [
            local
            for local in parts.local().values()
            if (domain := self._latest().domains.get(self.number)) is not None
            and any(kept.store == local.store.id for kept in domain.row.stores)
        ]
        try:
            for local in mine:
                await local.gate.close(lease.token)
            await domains.take(
                parts.shared,
                self.number,
                node=parts.node,
                token=lease.token,
                mine=[local.store.id for local in mine],
            )
            log.info("home of a domain", domain=self.number, fence=lease.token)
            if prepare is not None:
                await prepare(lease)
            return await self._sittings(lease, patience_s, prepare)
        finally:
            await self._fitting.let_go()
            for local in mine:
                local.gate.open()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await lease.give_back()

    async def _sittings(
        self,
        lease: DomainLease,
        patience_s: float,
        prepare: Callable[[DomainLease], Awaitable[None]] | None,
    ) -> End:
        while True:
            lease.demand()
            if self._grows.is_set() and prepare is not None:
                self._grows.clear()
                await prepare(lease)
            if self._latest().left:  # who left since is dropped by the next sitting
                await domains.drop_left(self._parts.shared, self.number, token=lease.token)
            domain, guard, incarnation = await domains.begin_sitting(
                self._parts.shared, self.number, token=lease.token
            )
            end = await self._sit(lease, domain, guard, incarnation, patience_s)
            patience_s, self._fitting.lost_by = 0.0, ""
            log.info("a sitting ended", domain=self.number, why=end.value)
            if end not in (End.RETURNED, End.FAILED, End.LEFT, End.GROWS) or not lease.held:
                return end
            if end is End.FAILED:
                await asyncio.sleep(HEAL_PAUSE_S)

    # One sitting ----------------------------------------------------------------------------------

    async def _sit(
        self,
        lease: DomainLease,
        domain: Domain,
        guard: KeyCheck,
        incarnation: str,
        patience_s: float,
    ) -> End:
        shared, number = self._parts.shared, self.number
        sitting = Sitting(lease)
        end, journal = await self._sat(sitting, domain, guard, incarnation, patience_s)
        if lease.held and journal.durable >= journal.sequence:
            with suppress(WarpError):  # then clients hear that what they did not flush may be lost
                await domains.end_sitting(
                    shared, number, token=lease.token, incarnation=incarnation
                )
        return end

    async def _sat(
        self,
        sitting: Sitting,
        domain: Domain,
        guard: KeyCheck,
        incarnation: str,
        patience_s: float,
    ) -> tuple[End, Journal]:
        """Have the stack open until something ends that; return what, and the journal, closed."""
        lease = sitting.lease
        began_s = self._parts.monotonic()
        self._returned.clear()
        async with AsyncExitStack() as exits:
            exits.callback(sitting.close)
            stores = await self._fitting.open(exits, lease, domain, patience_s)
            used = await self._fitting.made_fit(stores, domain)
            found_s = self._parts.monotonic()
            standing = DomainStanding(self._parts.shared, domain, lease, used)
            self.standing = standing

            async def leaving(living: Sequence[str]) -> None:
                await standing.leave(living)

            in_use = [each for each in stores if each.kept.store in used]
            journal = await exits.enter_async_context(
                Journal([each.store for each in in_use], leaving=leaving)
            )

            journal_s = self._parts.monotonic()

            def judge() -> None:
                # Another may be writing: what was not acknowledged stays where it is, and recovery judges it.
                if not lease.held:
                    journal.abandon(unavailable(self.number))

            exits.callback(judge)
            containers = await exits.enter_async_context(
                Containers(
                    [
                        StoreSlot(
                            f"{each.kept.node}/{each.kept.export}", each.store, each.kept.node
                        )
                        for each in stores
                    ],
                    codec=self._parts.codec,
                    journal=journal,
                    standing=standing,
                )
            )
            journal.release(NO_COMMITS)
            metastore = DomainStore(
                self._parts.shared,
                prefix(self.number),
                guard,
                held=lambda: sitting.held,
                lost=sitting.lose,
            )
            near = [each.store for each in in_use if each.local is not None]
            stack = await exits.enter_async_context(
                self._parts.open_stack(self.number, journal, containers, metastore, near)
            )
            exits.callback(judge)
            stack.blocks.incarnation = incarnation
            lease.demand()
            async with self._beside(lease, stores, standing, stack):
                self.stack = replace(
                    stack,
                    objects=leased(stack.objects, Objects, sitting.demand),
                    files=leased(stack.files, Files, sitting.demand),
                    blocks=leased(stack.blocks, Blocks, sitting.demand),
                )
                self.opened.set()
                log.info(
                    "domain is open",
                    domain=self.number,
                    whole=domains.describe_stores(domain.row, standing.whole),
                    away=domains.describe_stores(domain.row, standing.stores - used),
                    stores_s=round(found_s - began_s, 2),
                    journal_s=round(journal_s - found_s, 2),
                    stack_s=round(self._parts.monotonic() - journal_s, 2),
                )
                try:
                    end = await self._wait(lease, journal, standing)
                finally:
                    self.stack = None
                    sitting.over = True
            return end, journal

    async def _wait(self, lease: DomainLease, journal: Journal, standing: DomainStanding) -> End:
        """Return when something ends the sitting."""
        waits = [
            asyncio.ensure_future(event.wait())
            for event in (lease.lost, self._stop, self._returned, self._grows)
        ]
        pause_s = self._parts.ttl_s / RENEWALS
        try:
            while True:
                await asyncio.wait(waits, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
                if not lease.held:
                    return End.LOST
                if self._stop.is_set():
                    return End.STOPPED
                if journal.failed is not None:
                    return End.FAILED
                if self._returned.is_set():
                    return End.RETURNED
                if self._grows.is_set():
                    return End.GROWS
                if self._heir(standing):
                    return End.GIVEN
                if self._left(standing):
                    return End.LEFT
        finally:
            for wait in waits:
                wait.cancel()

    def _left(self, standing: DomainStanding) -> bool:
        """Say whether a node that keeps a copy left for good, and a whole one is elsewhere."""
        known = self._latest()
        domain = known.domains.get(self.number)
        if domain is None:
            return False
        gone = {kept.store for kept in domain.row.stores if kept.node in known.left}
        return bool(gone) and bool(standing.whole - gone)

    def _heir(self, standing: DomainStanding) -> bool:
        """Say whether another node should have the domain and can: one of its stores is whole."""
        domain = self._latest().domains.get(self.number)
        if domain is None or domain.wish in ("", self._parts.node):
            return False
        return any(
            kept.node == domain.wish and kept.store in standing.whole & standing.used
            for kept in domain.row.stores
        )

    # Beside the stack -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _beside(
        self, lease: DomainLease, stores: Sequence[Used], standing: DomainStanding, stack: Stack
    ) -> AsyncIterator[None]:
        """Look for stores that come back, and bring those up that did."""
        source = min(
            (each for each in stores if each.kept.store in standing.whole),
            key=lambda each: each.local is None,
        ).store
        tasks = [
            asyncio.create_task(self._bring_up(each.kept, standing, stack), name="bring up a store")
            for each in stores
            if each.kept.store in standing.used - standing.whole
        ]
        tasks.append(
            asyncio.create_task(
                self._look_for(lease, stores, standing, source), name="look for stores"
            )
        )
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_for(
        self,
        lease: DomainLease,
        stores: Sequence[Used],
        standing: DomainStanding,
        source: BlobStore,
    ) -> None:
        await self._fitting.look_for(lease, stores, standing, source)
        self._returned.set()

    async def _bring_up(self, kept: Kept, standing: DomainStanding, stack: Stack) -> None:
        """Heal until a store lacks nothing, then say that it is whole."""
        while kept.store in standing.used:
            try:
                report = await stack.containers.heal(budget=HEAL_BYTES)
                lacking = stack.containers.lacking(kept.store)
                if not lacking:
                    await standing.join(kept.store)
                    log.info(
                        "a store is whole",
                        domain=self.number,
                        store=f"{kept.node}/{kept.export}",
                    )
                    return
                if report.written_copies:
                    continue
            except WarpError as error:
                log.warning("a store is not whole yet", store=kept.export, error=str(error))
            await asyncio.sleep(HEAL_PAUSE_S)
