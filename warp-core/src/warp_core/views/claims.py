"""Claims: what clients of the Files view hold from call to call: byte-range locks and leases, at the volume's home.

The table itself is `warp_core.namespace.opens`, in the home's memory. This is how protocols reach it, whether it lies in this
process or at another node; so every call may wait, and files are named by their Ref.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from warp_core.namespace.leases import Kind, Lease
    from warp_core.namespace.locks import Owner, Range
    from warp_core.views.files import Files, Ref

LOCK_END = 1 << 64  # one past the last byte that any protocol can lock


class Recalled(NamedTuple):
    """A lease of which something is called back (`wanted`), or that is revoked (`kinds` is NONE)."""

    volume: str
    inode: int
    owner: Owner
    kinds: Kind
    wanted: Kind


Tell = Callable[[Recalled], None]


class Claims:
    """Clients, locks and leases. What a client holds ends with the client, or with the volume's home."""

    async def add_client(
        self,
        name: str,
        *,
        ttl_s: float | None = None,
        tell: Tell | None = None,
        gone: Callable[[], None] | None = None,
    ) -> int:
        """Begin a client and return its id, which its owners carry.

        Args:
            name: What it calls itself, the same after a restart.
            ttl_s: It is dropped if it is not renewed for so long and is in somebody's way; None: it lives until `drop_client`.
            tell: Called with each of its leases that is recalled or revoked; must not wait. Without it no lease is lent.
            gone: Called once when all that it holds was lost with the way to its home; must not wait. Where the home is this
                process that does not happen.

        Raises:
            Busy: Too many clients.
        """
        raise NotImplementedError

    async def renew(self, client: int) -> None:
        """Note a sign of life.

        Raises:
            StaleHandle: It is gone, and with it all it held.
        """
        raise NotImplementedError

    async def drop_client(self, client: int) -> None:
        """Release everything that a client holds or waits for."""
        raise NotImplementedError

    async def lock(
        self,
        file: Ref,
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
            Busy: A limit is reached.
            InGrace: The volume waits for reclaims, and this is none.
            Expired: This is one, but the time for them is over.
        """
        raise NotImplementedError

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """Return a range that this lock would conflict with, or None."""
        raise NotImplementedError

    async def unlock(self, file: Ref, owner: Owner, start: int = 0, end: int = LOCK_END) -> None:
        """Unlock what the owner holds of [start, end)."""
        raise NotImplementedError

    async def unlock_all(self, file: Ref, owner: Owner) -> None:
        """Drop all of the owner's locks and waiting requests on the file, as POSIX does at any close by a process."""
        raise NotImplementedError

    async def lease(
        self,
        file: Ref,
        owner: Owner,
        kinds: Kind,
        *,
        reclaim: bool = False,
        beside_writers: bool = False,
    ) -> Kind:
        """Lend `owner` as much of `kinds` as is free now, and return what its lease allows then; recalls nothing.

        Args:
            beside_writers: Also where others have the file open for writing: each of their writes recalls it.

        Raises:
            StaleHandle, InGrace, Expired: As `lock`.
        """
        raise NotImplementedError

    async def give_back(self, file: Ref, owner: Owner, keep: Kind | None = None) -> None:
        """Reduce a lease to `keep` (nothing): the answer to a recall, or done with it. Written data must have been sent before.

        Raises:
            InvalidArgument: `keep` is more than the lease has.
        """
        raise NotImplementedError

    async def reclaimed(self, volume: str, client: int) -> None:
        """Note that a client has nothing (more) to reclaim on the volume; the last one ends the grace period."""
        raise NotImplementedError


class LocalClaims(Claims):
    """The claims of a Files view whose table lies in this process."""

    def __init__(self, files: Files) -> None:
        """Take the view; its `opens` is the table."""
        self._files = files
        self._names: dict[int, str] = {}  # volumes on which leases were lent, by number

    async def add_client(
        self,
        name: str,
        *,
        ttl_s: float | None = None,
        tell: Tell | None = None,
        gone: Callable[[], None] | None = None,
    ) -> int:
        """As `Claims.add_client`."""
        told = None if tell is None else self._telling(tell)
        return self._files.opens.add_client(name, ttl_s=ttl_s, tell=told)

    def _telling(self, tell: Tell) -> Callable[[Lease], None]:
        def told(lease: Lease) -> None:
            volume = self._names[lease.node.volume]
            tell(Recalled(volume, lease.node.inode, lease.owner, lease.kinds, lease.wanted))

        return told

    async def _node(self, file: Ref) -> tuple[int, int]:
        return await self._files.number(file.volume), file.inode

    async def renew(self, client: int) -> None:
        """As `Claims.renew`."""
        self._files.opens.renew(client)

    async def drop_client(self, client: int) -> None:
        """As `Claims.drop_client`."""
        self._files.opens.drop_client(client)

    async def lock(
        self,
        file: Ref,
        owner: Owner,
        start: int,
        end: int,
        *,
        exclusive: bool,
        wait: bool = False,
        cacher: Owner | None = None,
        reclaim: bool = False,
    ) -> None:
        """As `Claims.lock`."""
        node = await self._node(file)
        await self._files.opens.lock(
            *node,
            owner,
            start,
            end,
            exclusive=exclusive,
            wait=wait,
            cacher=cacher,
            reclaim=reclaim,
        )

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """As `Claims.test_lock`."""
        node = await self._node(file)
        return self._files.opens.test_lock(*node, owner, start, end, exclusive=exclusive)

    async def unlock(self, file: Ref, owner: Owner, start: int = 0, end: int = LOCK_END) -> None:
        """As `Claims.unlock`."""
        self._files.opens.unlock(*await self._node(file), owner, start, end)

    async def unlock_all(self, file: Ref, owner: Owner) -> None:
        """As `Claims.unlock_all`."""
        self._files.opens.unlock_all(*await self._node(file), owner)

    async def lease(
        self,
        file: Ref,
        owner: Owner,
        kinds: Kind,
        *,
        reclaim: bool = False,
        beside_writers: bool = False,
    ) -> Kind:
        """As `Claims.lease`."""
        number, inode = await self._node(file)
        self._names[number] = file.volume
        return self._files.opens.lease(
            number, inode, owner, kinds, reclaim=reclaim, beside_writers=beside_writers
        )

    async def give_back(self, file: Ref, owner: Owner, keep: Kind | None = None) -> None:
        """As `Claims.give_back`."""
        node = await self._node(file)
        if keep is None:
            self._files.opens.give_back(*node, owner)
        else:
            self._files.opens.give_back(*node, owner, keep)

    async def reclaimed(self, volume: str, client: int) -> None:
        """As `Claims.reclaimed`."""
        self._files.opens.reclaimed(await self._files.number(volume), client)
