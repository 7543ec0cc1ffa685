"""A node in a cluster: it keeps its own domain, and takes over those of others whose stores lie here too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from warp_core.cluster import domains, rows
from warp_core.cluster.copies import next_keeper
from warp_core.cluster.domains import Domain, Map
from warp_core.cluster.home import Holder, Homes
from warp_core.cluster.lease import RENEWALS, DomainLease
from warp_core.cluster.rows import Kept, MemberRow
from warp_core.cluster.stores import LocalStore, Place, check_superblock
from warp_core.cluster.tenure import End, Parts, Tenure
from warp_core.cluster.written import room_of_domain
from warp_core.errors import InvalidArgument, Locked, NotFound, StoreFailed, Unavailable, WarpError
from warp_core.interfaces.stores import BlobStore
from warp_core.logs import get

if TYPE_CHECKING:
    from warp_core.node.stack import Stack

VOLUMES_MAX = 100_000  # names remembered with their domain; then they are asked for again
FAILED_S = 0.5  # after a tenure that failed, doubled up to FAILED_MAX_S
FAILED_MAX_S = 30.0
COPY_AGAIN_S = 5.0  # after another copy could not be had
START_S = 30.0  # how long a start waits until its own domain is open, here or elsewhere
LOOKS = 4  # at another's lease in the time of a renewal: the engine only reads for it
YIELD = 3.0  # times the lease's ttl: how long a node that gave a domain away leaves it to the one that should have it

T = TypeVar("T")
MakeRoom = Callable[[str, str], Awaitable[LocalStore]]
"""Makes room for a copy, given its name for others and the node that will use it first: returns the store, which lies here, open."""

log = get("warp_core.cluster")


class Keeper(Homes):
    """Opens and closes stacks as leases come and go. Use it as a context manager."""

    def __init__(
        self,
        parts: Parts,
        member: MemberRow,
        *,
        local: Sequence[LocalStore],
        own: Sequence[LocalStore | Place],
        failback: bool = False,
        patience_s: float = 10.0,
        before: bool = False,
    ) -> None:
        """Take the node's parts.

        Args:
            parts: What tenures are built from; `place` and `local` are set here.
            member: This node, for its row.
            local: Every store that lies here, open.
            own: The stores of the node's own domain, in order; none for a node without one.
            failback: Ask for the own domain as soon as it may come back.
            patience_s: How long the own domain waits at a start for stores that are whole and away.
            before: There is data from before the cluster.
        """
        self.node = member.name
        self.shared = parts.shared
        self.own = -1
        self.map = Map()
        self.on_change: list[Callable[[Map], None]] = []  # called with each map that was read
        self.make_room: MakeRoom | None = None  # None: this node never does
        self._local_stores = {each.store.id: each for each in local}
        self._parts = replace(parts, place=self._place, local=lambda: self._local_stores)
        self._member = member
        self._own = list(own)
        self._failback = failback
        self._patience_s = patience_s
        self._before = before
        self._tenures: dict[int, Tenure] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._growing: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._stopping = False
        self._volumes: dict[str, int] = {}
        self._began_s = 0.0
        self._pause_s = parts.ttl_s / RENEWALS

    async def __aenter__(self) -> Self:
        """Make the own domain known, and wait until it is open, here or at another node.

        Raises:
            Unavailable: There is no quorum.
            WarpError: The own domain cannot be opened.
        """
        self._began_s = self._parts.monotonic()
        await self.describe()
        if self._own:
            self.own = await domains.found(
                self.shared,
                origin=self.node,
                identity=self._member.identity,
                first=self._before,
            )
        await self.fence()
        self._refreshing = asyncio.create_task(self._keep_refreshing(), name="rows of the cluster")
        self._growing = asyncio.create_task(self._keep_growing(), name="stores to be used")
        self._begin_domains()
        if self._own:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_S + self._patience_s):
                    await self._settled.wait()
        return self

    def reachable(self, address: str) -> None:
        """Note where other nodes reach this one, before it is entered."""
        self._member = msgspec.structs.replace(self._member, address=address)

    async def describe(self, endpoints: Mapping[str, str] | None = None) -> None:
        """Say in the node's row what it is, and what it serves by now; the others learn from it where it is."""
        if endpoints is not None:
            self._member = msgspec.structs.replace(self._member, endpoints=dict(endpoints))
        await domains.describe(self.shared, self._member)

    async def fence(self) -> None:
        """Close the stores that lie here to those who were homes before: before anybody can ask for them.

        Raises:
            StoreFailed: A store of a domain that should lie here is another one now.
        """
        await self._refresh()
        for domain in self.map.domains.values():
            for kept in domain.row.stores:
                local = self._local_stores.get(kept.store)
                if local is not None:
                    local.gate.token = max(local.gate.token, domain.row.token)
                elif kept.node == self.node:
                    raise StoreFailed(
                        f"{kept.export} of this node is another store than that of domain {domain.number}"
                        f" ({kept.store}): mount its disk"
                    )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every stack, and give the domains back."""
        self._stopping = True
        for beside in (self._refreshing, self._growing):
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
        for number, task in self._tasks.items():
            tenure = self._tenures.get(number)
            if tenure is not None:
                tenure.stop()
            else:
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # Who is the home ------------------------------------------------------------------------------

    @property
    def local(self) -> Mapping[int, Stack]:
        """See `Homes.local`."""
        return {
            number: tenure.stack
            for number, tenure in self._tenures.items()
            if tenure.stack is not None and tenure.lease is not None and tenure.lease.held
        }

    def domains(self) -> list[int]:
        """See `Homes.domains`."""
        return sorted(self.map.domains)

    async def holder_of(self, domain: int, *, fresh: bool = False) -> Holder:
        """See `Homes.holder_of`."""
        stack = self.local.get(domain)
        if stack is None and (fresh or domain not in self.map.domains):
            await self._asked(self._refresh())
        known = self.map.domains.get(domain)
        if known is None:
            raise NotFound(f"no domain has number {domain}")
        name, token = known.row.holder, known.row.token
        if stack is not None:
            lease = self._tenures[domain].lease
            name, token = self.node, lease.token if lease is not None else token
        member = self.map.members.get(name)
        if member is None or (name == self.node and stack is None):  # not open here, or not now
            return Holder(domain, name, "", "", token, stack)
        return Holder(domain, name, member.address, member.transport, token, stack)

    async def domain_of(self, volume: str, *, fresh: bool = False) -> int | None:
        """See `Homes.domain_of`."""
        known = self._volumes.get(volume)
        if known is not None and not fresh:
            return known
        found = await self._asked(self._row(rows.volume_key(volume)))
        if found is None:
            self.forget(volume)
            return None
        if len(self._volumes) >= VOLUMES_MAX:
            self._volumes.clear()
        self._volumes[volume] = int.from_bytes(found[0], "big")
        return self._volumes[volume]

    def forget(self, volume: str) -> None:
        """See `Homes.forget`."""
        self._volumes.pop(volume, None)

    async def wish(self, domain: int, node: str) -> None:
        """See `Homes.wish`."""
        await self._refresh()
        known = self.map.domains.get(domain)
        if known is None:
            raise NotFound(f"no domain has number {domain}")
        if node and not any(kept.node == node for kept in known.row.stores):
            nodes = ", ".join(sorted({kept.node for kept in known.row.stores}))
            raise InvalidArgument(
                f'node "{node}" keeps nothing of domain {domain}; those that do: {nodes}'
            )
        await domains.wish(self.shared, domain, node)

    async def _asked(self, question: Coroutine[object, object, T]) -> T:
        """Wait for an answer of the engine while a verb waits for it.

        Raises:
            Unavailable: None came within half a lease: there is no quorum.
        """
        try:
            async with asyncio.timeout(self._parts.ttl_s / 2):
                return await question
        except TimeoutError:
            raise Unavailable("the metadata engine does not answer: is there a quorum?") from None

    async def _row(self, key: bytes) -> tuple[bytes, int] | None:
        view = self.shared.view()
        try:
            return await view.get(key)
        finally:
            view.close()

    # Rows -----------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        self.map = await domains.read(self.shared)
        for told in self.on_change:
            told(self.map)

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                await self._asked(self._refresh())
                await self._ask_back()
            except Exception as error:  # without it, nothing would be taken over any more
                if isinstance(error, WarpError):
                    log.warning("rows of the cluster cannot be read", reason=str(error))
                else:
                    log.exception("rows of the cluster cannot be read", error)
            self._begin_domains()

    async def _ask_back(self) -> None:
        """Ask for the own domain where that is wanted and can be."""
        domain = self.map.domains.get(self.own)
        if not self._failback or domain is None or domain.row.holder == self.node or domain.wish:
            return
        mine = {kept.store for kept in domain.row.stores if kept.node == self.node}
        if mine and mine <= domain.whole:
            await domains.wish(self.shared, self.own, self.node)

    def _place(self, kept: Kept) -> Place | None:
        """Return where a peer's store is: as its node says, else as configured."""
        configured = next(
            (
                each
                for each in self._own
                if isinstance(each, Place) and (each.node, each.export) == (kept.node, kept.export)
            ),
            None,
        )
        member = self.map.members.get(kept.node)
        if member is not None and member.address:
            deadline_s = configured.deadline_s if configured else self._parts.ttl_s
            return Place(kept.node, member.address, member.transport, kept.export, deadline_s)
        return configured

    # Stores that come while it runs ---------------------------------------------------------------

    def add(self, *, local: Sequence[LocalStore] = (), own: Sequence[Place] = ()) -> None:
        """Take stores that were not there at the start: some that lie here, and some at peers for the own domain."""
        self._local_stores.update({each.store.id: each for each in local})
        known = {(each.node, each.export) for each in self._own if isinstance(each, Place)}
        self._own += [each for each in own if (each.node, each.export) not in known]

    async def _keep_growing(self) -> None:
        """Have domains use stores of peers that they never used, as soon as they can be reached, and make room for those of others."""
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                await self._give_rooms()
                for number, tenure in list(self._tenures.items()):
                    domain = self.map.domains.get(number)
                    if domain is not None and tenure.stack is not None and tenure.lease is not None:
                        await self._grow(domain, tenure, tenure.lease)
            except Exception as error:  # without it, no domain would get a copy any more
                if isinstance(error, WarpError):
                    log.warning("copies are not made now", reason=str(error))
                else:
                    log.exception("copies are not made now", error)
                await asyncio.sleep(COPY_AGAIN_S)

    async def _grow(self, domain: Domain, tenure: Tenure, lease: DomainLease) -> None:
        """Let a domain use what it may use by now, or see to it that it may; a sitting ends where there is something."""
        unused = self._unused(domain)
        for place in unused:
            if await self._reached(place, domain, lease):
                tenure.grow()
                return
        room = self.map.rooms.get(domain.number)
        if room is not None and room.export:
            made = self._place(Kept(room.store, room.node, room.export))
            if made is not None and await self._reached(made, domain, lease):
                tenure.grow()
        elif room is None and not unused and (node := next_keeper(self.map, domain.number)):
            log.info("a node is asked to keep a copy", domain=domain.number, node=node)
            await domains.ask_for_room(self.shared, domain.number, token=lease.token, node=node)

    async def _give_rooms(self) -> None:
        """Make the rooms for copies of domains that this node is asked for."""
        for number, room in self.map.rooms.items():
            domain = self.map.domains.get(number)
            if room.node != self.node or room.export or domain is None or self.make_room is None:
                continue
            export = room_of_domain(number)
            made = next((one for one in self._local_stores.values() if one.export == export), None)
            if made is None:
                made = await self.make_room(export, domain.row.holder)
                self.add(local=[made])
            await domains.give_room(
                self.shared, number, node=self.node, export=made.export, store=made.store.id
            )
            log.info("room for a copy", domain=number, export=made.export)

    def _unused(self, domain: Domain) -> list[Place]:
        """Return the configured stores at peers that the row of the own domain does not name yet; none for another's."""
        if domain.number != self.own:
            return []
        known = {(kept.node, kept.export) for kept in domain.row.stores}
        return [
            each
            for each in self._own
            if isinstance(each, Place)
            and each.node not in self.map.left
            and (each.node, each.export) not in known
        ]

    async def _reached(self, place: Place, domain: Domain, lease: DomainLease) -> bool:
        """Say whether a store is there and the domain's to use."""
        place = self._place(Kept("", place.node, place.export)) or place
        try:
            async with self._parts.peers.open(
                place, store="", fence=lease.token, dial_s=self._pause_s
            ) as (bare, store):
                if bare.here:
                    await check_superblock(store, domain.row.identity)
                return bare.here
        except WarpError as error:
            log.warning("a store cannot be used", node=place.node, reason=str(error))
            return False

    # Tenures --------------------------------------------------------------------------------------

    def _begin_domains(self) -> None:
        for number in self.map.domains:
            if number not in self._tasks and not self._stopping:
                task = asyncio.create_task(self._keep(number), name=f"domain {number}")
                self._tasks[number] = task

    async def _keep(self, number: int) -> None:
        """Be the home of a domain whenever that is possible and nobody better is."""
        failed_s = FAILED_S
        first = True
        given_s = float("-inf")
        while not self._stopping:
            domain = self.map.domains.get(number)
            if domain is None or not self._may_take(domain, given_s):
                if number == self.own and domain is not None and domain.row.holder != self.node:
                    self._settled.set()
                await asyncio.sleep(self._pause_s)
                continue
            tenure = Tenure(number, self._parts, lambda: self.map)
            prepare = self._preparing(number)
            mine = self._usual(domain) == self.node
            patience_s = self._patience_s if first and mine else 0.0
            self._tenures[number] = tenure
            watching = asyncio.create_task(self._settle(number, tenure))
            try:
                end = await tenure.run(prepare, patience_s=patience_s)
                failed_s = FAILED_S
                if end is End.GIVEN:
                    given_s = self._parts.monotonic()
            except Locked:
                self._note_settled(number)
                await asyncio.sleep(self._pause_s / LOOKS)
            except Exception as error:
                if isinstance(error, WarpError):
                    log.warning("not the home of a domain", domain=number, reason=str(error))
                else:
                    log.exception("a domain's home failed", error, domain=number)
                self._note_settled(number)
                await asyncio.sleep(failed_s)
                failed_s = min(2 * failed_s, FAILED_MAX_S)
            finally:
                watching.cancel()
                self._tenures.pop(number, None)
                first = False

    async def _settle(self, number: int, tenure: Tenure) -> None:
        await tenure.opened.wait()
        self._note_settled(number)

    def _note_settled(self, number: int) -> None:
        if number == self.own:
            self._settled.set()

    def _may_take(self, domain: Domain, given_s: float) -> bool:
        """Say whether this node may try to become the home of a domain."""
        if not domain.row.stores:
            return domain.number == self.own
        if not any(store in domain.whole for store in self._local_stores):
            return False
        now_s = self._parts.monotonic()
        if domain.wish not in ("", self.node) and now_s < given_s + YIELD * self._parts.ttl_s:
            return False
        # At a start, who was the home comes first: perhaps all nodes started just now.
        return self._usual(domain) == self.node or (now_s >= self._began_s + self._parts.ttl_s)

    def _usual(self, domain: Domain) -> str:
        """Return the node that has the domain, or should."""
        return domain.row.holder or domain.row.origin

    def _preparing(self, number: int) -> Callable[[DomainLease], Awaitable[None]]:
        async def prepare(lease: DomainLease) -> None:
            if number == self.own:
                await self._configure(number, lease)
            if self.map.rooms.get(number) is not None:
                await domains.use_room(self.shared, number, token=lease.token)
                await self._refresh()

        return prepare

    async def _configure(self, number: int, lease: DomainLease) -> None:
        """Write into the own domain's row which stores it has; at the first time all of them have to be here.

        Raises:
            Unavailable: A store that was never used is away.
            StoreFailed: A store belongs to another node.
        """
        await self._refresh()
        domain = self.map.domains[number]
        known = {(kept.node, kept.export): kept for kept in domain.row.stores}
        kept: list[Kept] = []
        async with AsyncExitStack() as exits:
            for each in self._own:
                if isinstance(each, LocalStore):
                    key = (self.node, each.export)
                    if key not in known:
                        await check_superblock(each.store, domain.row.identity)
                    kept.append(known.get(key) or Kept(each.store.id, *key))
                    continue
                key = (each.node, each.export)
                if key in known:
                    kept.append(known[key])
                    continue
                if each.node in self.map.left:
                    log.warning(
                        "the configuration names a store of a node that left: delete that table",
                        node=each.node,
                        export=each.export,
                    )
                    continue
                needed = not domain.row.stores
                store = await self._never_used(exits, number, each, lease, needed=needed)
                if store is None:
                    continue  # used as soon as it can be reached, see `_keep_growing`
                await check_superblock(store, domain.row.identity)
                kept.append(Kept(store.id, *key))
            kept += [each for each in domain.row.stores if each not in kept]
            whole: frozenset[str] | set[str] = domain.whole
            if not domain.row.stores:
                local = {each.store.id for each in self._own if isinstance(each, LocalStore)}
                if self._before and len(local) > 1:
                    raise Unavailable(
                        "data from before the cluster lies on several stores: a domain needs it on one"
                    )
                whole = local if self._before else {each.store for each in kept}
            if tuple(kept) != domain.row.stores or whole != domain.whole:
                await domains.keep(
                    self.shared, number, token=lease.token, stores=kept, whole=sorted(whole)
                )
        await self._refresh()

    async def _never_used(
        self,
        exits: AsyncExitStack,
        number: int,
        place: Place,
        lease: DomainLease,
        *,
        needed: bool,
    ) -> BlobStore | None:
        """Open a store that the domain never used; None if it is not there, and the domain has others.

        Raises:
            Unavailable: It is not there, and needed: the domain has none yet.
        """
        until_s = self._parts.monotonic() + self._patience_s
        while True:
            place = self._place(Kept("", place.node, place.export)) or place
            one = AsyncExitStack()
            bare, store = await one.enter_async_context(
                self._parts.peers.open(
                    place, store="", fence=lease.token, dial_s=max(1.0, self._pause_s)
                )
            )
            if bare.here:
                exits.push_async_callback(one.aclose)
                return store
            await one.aclose()
            if not needed:
                return None
            if self._parts.monotonic() >= until_s:
                raise Unavailable(
                    f'store "{place.export}" of node "{place.node}" at {place.address} cannot be reached, and domain'
                    f" {number} never used it: start that node"
                )
            await asyncio.sleep(0.2)
