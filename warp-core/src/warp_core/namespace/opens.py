"""The one table of opens, share modes, byte-range locks and leases, at the volume's home, for all protocols.

What a client holds over NFS, SMB and a mount see, and an S3 PUT or a block write calls it back first. Nothing here is stored: after
a restart or takeover a grace period lets known clients reclaim what they had, and admits nothing else.

Rules live in `shares.py`, `locks.py` and `leases.py`, which know no I/O and no clock. This module is their shell: it waits, keeps
deadlines and tells clients. Every change of an inode goes

    async with opens.changing(volume, inode, FOR_WRITE, by=owner): commit

or, where the race with a new lease is settled otherwise, `await opens.recall(...)`. If nobody holds anything either costs
one failed dictionary lookup: `holders` tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from warp_core.errors import Busy, Expired, InGrace, StaleHandle
from warp_core.namespace.leases import (
    ALL,
    FOR_READ,
    FOR_WRITE,
    RECALL_S,
    Kind,
    Lease,
    LeaseTable,
)
from warp_core.namespace.locks import END, LockTable, Node, Owner, Range, Waiter
from warp_core.namespace.shares import HERE, Access, Open, ShareTable, refuse

__all__ = [
    "ALL",
    "END",
    "HERE",
    "Access",
    "Kind",
    "Lease",
    "Node",
    "Open",
    "Opens",
    "Owner",
    "Range",
]

RECALLS_MAX = 65_536  # changes that wait for leases at once

Tell = Callable[[Lease], None]


class Opens:
    """The table. All calls happen in one event loop; those that are not `async` never wait."""

    def __init__(self, monotonic: Callable[[], float], *, recall_s: float = RECALL_S) -> None:
        """Begin empty.

        Args:
            monotonic: Seconds that never go back.
            recall_s: How long a holder has to give back what was recalled before the lease is revoked.
        """
        self._now = monotonic
        self._shares = ShareTable()
        self._locks = LockTable()
        self._leases = LeaseTable(recall_s=recall_s)
        self._tell: dict[int, Tell] = {}
        self._returns: dict[tuple[int, int], set[asyncio.Future[None]]] = {}
        self._granted: dict[Waiter, asyncio.Future[None]] = {}
        self._graces: dict[int, _Grace] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._waits = 0
        self._last_close: list[Callable[[Node], None]] = []

    # Clients --------------------------------------------------------------------------------------

    def add_client(self, name: str, *, ttl_s: float | None = None, tell: Tell | None = None) -> int:
        """Begin a client and return its id.

        Args:
            name: What it calls itself, the same after a restart.
            ttl_s: It is dropped if it is not renewed for so long and is in somebody's way; None: it lives until `drop_client`.
            tell: Called with each lease of which something is recalled (`wanted`) or that is revoked (`kinds` is NONE); must not wait.

        Raises:
            Busy: Too many clients.
        """
        client = self._shares.add_client(name, ttl_s, self._now())
        if tell is not None:
            self._tell[client.id] = tell
        return client.id

    def renew(self, client: int) -> None:
        """Note a sign of life.

        Raises:
            StaleHandle: It is gone, and with it all it held.
        """
        self._shares.renew(client, self._now())

    def drop_client(self, client: int) -> None:
        """Release everything that a client holds or waits for."""
        gone = self._shares.clients.pop(client, None)
        if gone is None:
            return
        self._tell.pop(client, None)
        for node, owner in list(gone.lockers):
            self.unlock_all(*node, owner)
        for node, owner in list(gone.leases):
            if self._leases.drop(node, owner):
                self._returned(node)
        for opened in list(gone.opens.values()):
            self.close(opened)
        for grace in list(self._graces.values()):
            self._reclaimed(grace, gone.name)

    # Opens ----------------------------------------------------------------------------------------

    def holders(self, volume: int, inode: int) -> bool:
        """Say whether anybody may hold an open, lock or lease on the inode: no means that a change need ask nobody."""
        node = (volume, inode)
        return (
            node in self._shares.nodes
            or node in self._leases.nodes
            or node in self._locks.nodes
            or volume in self._graces
        )

    def listed_by_any(self, volume: int, inode: int, *, by: Owner | None = None) -> bool:
        """Say whether anybody but `by` may rely on which entries a directory has; a lease on its name alone does not tell."""
        node = Node(volume, inode)
        return volume in self._graces or (
            node in self._leases.nodes and self._leases.conflicts(node, FOR_WRITE, by=by)
        )

    def in_the_way(self, node: tuple[int, int], kinds: Kind, *, by: Owner | None) -> bool:
        """Say whether another holds a lease on the (volume, inode) that a change would have to recall first."""
        return self._leases.conflicts(Node(*node), kinds, by=by)

    def leased_to_any(self, node: tuple[int, int]) -> bool:
        """Say whether a read or write of the (volume, inode) may have to ask somebody first."""
        return node in self._leases.nodes or node[0] in self._graces

    def open_count(self, volume: int, inode: int) -> int:
        """Return how many opens the inode has."""
        return len(self._shares.nodes.get((volume, inode), ()))

    def open_in(self, volume: int) -> int:
        """Return how many files of a volume are open."""
        return sum(node[0] == volume for node in self._shares.nodes)

    async def open(
        self,
        volume: int,
        inode: int,
        owner: Owner,
        access: Access,
        deny: Access = Access.NONE,
        *,
        reclaim: bool = False,
    ) -> Open:
        """Open an inode, after what its access and share mode conflict with was recalled from others.

        Raises:
            Locked: Share modes do not allow it.
            StaleHandle: The client is gone.
            InGrace: The volume waits for reclaims, and this is none.
            Expired: This is one, but the time for them is over.
            Busy: A limit is reached.
        """
        self._admit(volume, owner.client, reclaim)
        node = Node(volume, inode)
        while (conflict := self._shares.conflict(node, access, deny)) is not None:
            # The application may have closed the file long ago, and only a HANDLE lease keeps it open.
            lease = self._leases.get(node, conflict.owner)
            if self._advance():
                continue
            if conflict.owner == owner or lease is None or not lease.kinds & Kind.HANDLE:
                refuse(node, conflict)
            await self._recall(node, Kind.HANDLE, owner)
        opened = self._shares.add(node, owner, access, deny)
        try:
            wanted = FOR_WRITE if access & Access.WRITE else FOR_READ
            if node in self._leases.nodes:
                await self._recall(node, wanted, owner)
        except BaseException:
            self.close(opened)
            raise
        if opened.closed:
            raise StaleHandle(f"client {owner.client} was dropped while it opened inode {inode}")
        return opened

    async def change(self, opened: Open, access: Access, deny: Access) -> None:
        """Change what an open may do and lets others do.

        Raises:
            Locked: Share modes do not allow it; nothing changed.
            StaleHandle: It is closed.
        """
        self._advance()
        self._shares.change(opened, access, deny)
        if opened.node in self._leases.nodes:
            wanted = FOR_WRITE if access & Access.WRITE else FOR_READ
            await self._recall(opened.node, wanted, opened.owner)

    def close(self, opened: Open) -> bool:
        """Close; True when the inode has no other open now. Locks are the caller's to release (`unlock_all`)."""
        last = self._shares.remove(opened)
        if last:
            for listener in self._last_close:
                listener(opened.node)
        return last

    def on_last_close(self, listener: Callable[[Node], None]) -> None:
        """Call `listener` whenever an inode's last open is closed, also by a client's end; it must not wait."""
        self._last_close.append(listener)

    def check_share(
        self, volume: int, inode: int, access: Access, *, opened: Open | None = None
    ) -> None:
        """Check access without an open of its own (S3, NFSv3, remove and rename) against others' share modes.

        Raises:
            Locked: Somebody has it open and denies this access.
        """
        node = Node(volume, inode)
        if node in self._shares.nodes:
            conflict = self._shares.conflict(node, access, Access.NONE, but=opened)
            if conflict is not None and self._advance():
                conflict = self._shares.conflict(node, access, Access.NONE, but=opened)
            refuse(node, conflict)

    # Byte-range locks -----------------------------------------------------------------------------

    def test_lock(
        self, volume: int, inode: int, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """Return a range that this lock would conflict with, or None. [start, end); END is beyond any file's end."""
        node = Node(volume, inode)
        conflict = self._locks.test(node, owner, start, end, exclusive=exclusive)
        if conflict is not None and self._advance():
            conflict = self._locks.test(node, owner, start, end, exclusive=exclusive)
        return conflict

    async def lock(
        self,
        volume: int,
        inode: int,
        owner: Owner,
        start: int,
        end: int,
        *,
        exclusive: bool,
        wait: bool = False,
        cacher: Owner | None = None,
        reclaim: bool = False,
    ) -> None:
        """Lock [start, end) for the owner, replacing the mode of what it holds of that.

        Cancelling the call withdraws a request that waits.

        Args:
            wait: Queue for it, else fail at once.
            cacher: Whose lease is not recalled by it; default: the owner's own.

        Raises:
            Locked: Another holds a conflicting lock (without `wait`).
            Deadlock: Waiting would never end.
            StaleHandle: The client is gone, or went while the request waited.
            Busy, InGrace, Expired: As `open`.
        """
        self._admit(volume, owner.client, reclaim)
        node = Node(volume, inode)
        client = self._shares.client(owner.client)
        if node in self._leases.nodes:
            kinds = FOR_WRITE if exclusive else FOR_READ
            await self._recall(node, kinds, cacher if cacher is not None else owner)
        if self._locks.test(node, owner, start, end, exclusive=exclusive) is not None:
            self._advance()
        client.lockers.add((node, owner))
        if not wait:
            self._go(self._locks.lock(node, owner, start, end, exclusive=exclusive))
            return
        waiter, released = self._locks.wait(node, owner, start, end, exclusive=exclusive)
        self._go(released)
        if waiter.granted:
            return
        future = asyncio.get_running_loop().create_future()
        self._granted[waiter] = future
        try:
            await self._until(future)
        except BaseException:
            self._granted.pop(waiter, None)
            if waiter.granted:  # and cancelled in the same turn of the loop: nobody will know of it
                self.unlock(volume, inode, owner, start, end)
            else:
                self._go(self._locks.cancel(waiter))
            raise
        if not waiter.granted:
            raise StaleHandle(f"{owner} was released while it waited for a lock")

    def unlock(self, volume: int, inode: int, owner: Owner, start: int = 0, end: int = END) -> None:
        """Unlock what the owner holds of [start, end)."""
        self._go(self._locks.unlock(Node(volume, inode), owner, start, end))

    def unlock_all(self, volume: int, inode: int, owner: Owner) -> None:
        """Drop all of the owner's locks and waiting requests on the inode, as POSIX does at any close by a process."""
        node = Node(volume, inode)
        dropped = [each for each in self._locks.waiting(node) if each.owner == owner]
        self._go(self._locks.release(node, owner))
        client = self._shares.clients.get(owner.client)
        if client is not None:
            client.lockers.discard((node, owner))
        self._go(dropped)

    def locks(self, volume: int, inode: int) -> list[Range]:
        """Return all locks held on the inode."""
        return self._locks.held(Node(volume, inode))

    # Leases ---------------------------------------------------------------------------------------

    def lease(
        self,
        volume: int,
        inode: int,
        owner: Owner,
        kinds: Kind,
        *,
        reclaim: bool = False,
        beside_writers: bool = False,
    ) -> Kind:
        """Lend `owner` as much of `kinds` as is free now; recalls nothing. Ask again to extend.

        WRITE needs that nobody else has the inode open, READ that nobody else has it open for writing, unless `beside_writers`:
        then each of their writes recalls it first.

        Returns:
            What its lease on the inode allows now.

        Raises:
            StaleHandle, InGrace, Expired: As `open`.
        """
        self._admit(volume, owner.client, reclaim)
        node = Node(volume, inode)
        client = self._shares.client(owner.client)
        if owner.client not in self._tell:
            return Kind.NONE  # it could not be called back
        for opened in self._shares.on(node):
            if opened.owner != owner:
                writes = opened.access & Access.WRITE and not beside_writers
                kinds &= ~ALL if writes else ~Kind.WRITE
        for held in self._locks.held(node) if kinds & Kind.WRITE else ():
            if held.owner.client != owner.client:
                kinds &= ~Kind.WRITE
        granted = self._leases.grant(node, owner, kinds)
        if granted:
            client.leases.add((node, owner))
        return granted

    def leased(self, volume: int, inode: int, owner: Owner) -> Kind:
        """Return what the owner's lease on the inode allows."""
        lease = self._leases.get(Node(volume, inode), owner)
        return lease.kinds if lease else Kind.NONE

    def give_back(self, volume: int, inode: int, owner: Owner, keep: Kind = Kind.NONE) -> None:
        """Reduce a lease to `keep`: the answer to a recall, or done with it. Written data must have been sent before.

        Raises:
            InvalidArgument: `keep` is more than the lease has.
        """
        node = Node(volume, inode)
        self._leases.acknowledge(node, owner, keep)
        if not keep:
            self._forget_lease(node, owner)
        self._returned(node)

    async def recall(
        self, volume: int, inode: int, kinds: Kind = ALL, *, by: Owner | None = None
    ) -> None:
        """Call these kinds back from everybody but `by`; returns when they are given back, or revoked at the deadline.

        In a grace period it first waits for its end: a holder may be about to reclaim.

        Raises:
            Busy: RECALLS_MAX changes wait already.
        """
        while volume in self._graces:
            await self._until(self._graces[volume].over())
        if (volume, inode) in self._leases.nodes:
            await self._recall(Node(volume, inode), kinds, by)

    @asynccontextmanager
    async def changing(
        self, volume: int, inode: int, kinds: Kind = ALL, *, by: Owner | None = None
    ) -> AsyncIterator[None]:
        """Recall, and let nobody else acquire these kinds while the block changes the inode."""
        node = Node(volume, inode)
        self._leases.begin(node, kinds, by=by)
        try:
            if node in self._leases.nodes or volume in self._graces:
                await self.recall(volume, inode, kinds, by=by)
            yield
        finally:
            self._leases.end(node, kinds, by=by)

    # Time -----------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Revoke what is overdue and drop clients that ended. Needed only to free memory: whoever is in the way is judged then."""
        self._advance()

    def begin_grace(self, volume: int, clients: Iterable[str], *, seconds: float) -> None:
        """Admit only reclaims by these clients (from their durable records) until all have finished or time is up."""
        names = set(clients)
        if names:
            self._graces[volume] = _Grace(volume, names, self._now() + seconds)

    def in_grace(self, volume: int) -> bool:
        """Say whether the volume admits reclaims alone."""
        self._end_graces(self._now())
        return volume in self._graces

    def reclaimed(self, volume: int, client: int) -> None:
        """Note that a client has nothing (more) to reclaim on the volume; the last one ends the grace period."""
        grace = self._graces.get(volume)
        if grace is not None:
            self._reclaimed(grace, self._shares.client(client).name)

    # ----------------------------------------------------------------------------------------------

    async def _recall(self, node: Node, kinds: Kind, by: Owner | None) -> None:
        self._advance()
        while self._leases.conflicts(node, kinds, by=by):
            for lease in self._leases.recall(node, kinds, by=by, now=self._now()):
                tell = self._tell.get(lease.owner.client)
                if tell is not None:
                    tell(lease)  # may give back at once
            if not self._leases.conflicts(node, kinds, by=by):
                return
            if self._waits >= RECALLS_MAX:
                raise Busy(f"{RECALLS_MAX} changes wait for leases to be given back")
            future = asyncio.get_running_loop().create_future()
            waiting = self._returns.setdefault(node, set())
            waiting.add(future)
            try:
                await self._until(future)
            finally:
                waiting.discard(future)
                if not waiting and self._returns.get(node) is waiting:
                    del self._returns[node]

    async def _until(self, event: Awaitable[None]) -> None:
        """Wait, with the timer running."""
        self._waits += 1
        try:
            self._arm()
            await event
        finally:
            self._waits -= 1

    def _returned(self, node: Node) -> None:
        for future in self._returns.pop(node, ()):
            if not future.done():
                future.set_result(None)

    def _go(self, released: Iterable[Waiter]) -> None:
        for waiter in released:
            future = self._granted.pop(waiter, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _admit(self, volume: int, client: int, reclaim: bool) -> None:
        if not reclaim and volume not in self._graces:
            return
        self._end_graces(self._now())
        grace = self._graces.get(volume)
        if not reclaim and grace is not None:
            raise InGrace(f"volume {volume} admits only reclaims for now")
        if reclaim and (grace is None or self._shares.client(client).name not in grace.names):
            raise Expired(f"client {client} has nothing to reclaim on volume {volume} now")

    def _forget_lease(self, node: Node, owner: Owner) -> None:
        client = self._shares.clients.get(owner.client)
        if client is not None:
            client.leases.discard((node, owner))

    def _reclaimed(self, grace: _Grace, name: str) -> None:
        grace.names.discard(name)
        if not grace.names:
            self._graces.pop(grace.volume, None)
            grace.end()

    def _end_graces(self, now: float) -> None:
        for grace in [each for each in self._graces.values() if each.until <= now]:
            del self._graces[grace.volume]
            grace.end()

    def _advance(self) -> bool:
        """Act on every deadline that has come; say whether there was one."""
        now = self._now()
        self._end_graces(now)
        gone = self._shares.overdue(now)
        for client in gone:
            self.drop_client(client.id)
        revoked = self._leases.expire(now)
        for lease in revoked:
            self._forget_lease(lease.node, lease.owner)
            lease.kinds = Kind.NONE
            tell = self._tell.get(lease.owner.client)
            if tell is not None:
                tell(lease)
            self._returned(lease.node)
        return bool(gone or revoked)

    def _arm(self) -> None:
        """Set the one timer to the next deadline, if anybody waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadlines = [client.deadline for client in self._shares.clients.values()]
        deadlines += [grace.until for grace in self._graces.values()]
        if (recall := self._leases.next_deadline()) is not None:
            deadlines.append(recall)
        earliest = min(deadlines, default=float("inf"))
        if self._waits and earliest != float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, earliest - self._now()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._advance()
        self._arm()


class _Grace:
    """A volume's grace period."""

    def __init__(self, volume: int, names: set[str], until: float) -> None:
        self.volume = volume
        self.names = names
        self.until = until
        self._over = asyncio.Event()

    async def over(self) -> None:
        await self._over.wait()

    def end(self) -> None:
        self._over.set()
