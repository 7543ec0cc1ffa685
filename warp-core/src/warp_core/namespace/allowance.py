"""What a file may still become: growth in place is reserved when it is written, and until its rows tell of it.

A write that was answered cannot be refused later, when it is folded into the rows. So the question is asked before the write: may
the file end there? Where snapshots show what is overwritten, a window's old data will count as theirs: the window is reserved
whole, once for each snapshot.
"""

from __future__ import annotations

from collections.abc import Callable

from warp_core.namespace.extents import WINDOW
from warp_core.namespace.inodes import Inode
from warp_core.namespace.owned import owners_of
from warp_core.namespace.pools import Claim, Pool, Tracked
from warp_core.namespace.quotas import Quotas
from warp_core.namespace.volumes import Volumes


class Allowance:
    """One file's, shared by all who have it open."""

    __slots__ = (
        "_claim",
        "_counted",
        "_inode",
        "_quotas",
        "_since",
        "_volume",
        "_volumes",
        "_windows",
    )

    def __init__(
        self,
        quotas: Quotas,
        volumes: Volumes,
        volume: str,
        size: int,
        inode: Callable[[], Inode],
    ) -> None:
        self._quotas = quotas
        self._volumes = volumes
        self._volume = volume
        self._inode = inode  # as its row is now: it says whose the file is
        self._counted = size  # as the rows say, or will with the fold that is under way
        self._claim = Claim()
        self._windows: set[int] = set()  # that were admitted since the newest snapshot
        self._since = 0

    async def ready(self) -> None:
        """Find out which limits apply; called before `admit`, waits if it must."""
        volume = self._volumes.known(self._volume) or await self._volumes.get(self._volume)
        if self._quotas.known(volume) is None:
            await self._quotas.watch(volume)
        if volume.row.limits:
            for owner in owners_of(self._inode()):
                if owner in volume.row.limits and self._quotas.owners.known(volume, owner) is None:
                    await self._quotas.owners.watch(volume, owner)

    def admit_now(self, size: int, start: int, end: int) -> bool:
        """Admit a write if nothing has to be waited for, and say whether that was so; raises as `admit`."""
        found = self._pools()
        if found is None:
            return False
        tracked, pools = found
        if pools:
            self._admit(tracked, pools, size, start, end)
        return True

    def admit(self, size: int, start: int, end: int) -> None:
        """Reserve what writing a range adds to a file of `size` bytes.

        Raises:
            QuotaExceeded: Nothing was reserved.
        """
        found = self._pools()
        if found is not None and found[1]:
            self._admit(*found, size, start, end)

    def foresee(self, size: int, start: int, end: int) -> None:
        """Ask whether a version of the file as it is, and then writing a range, would be admitted; nothing is reserved.

        Raises:
            QuotaExceeded
        """
        found = self._pools()
        if found is not None:
            now_ns = self._quotas.clock_ns()
            for pool in found[1]:
                pool.demand(1, size + max(0, end - size), now_ns)

    def _pools(self) -> tuple[Tracked, tuple[Pool, ...]] | None:
        """Return which sums the file counts in, its volume's and then its owners'; None if that has to be found out."""
        volume = self._volumes.known(self._volume)
        tracked = self._quotas.known(volume) if volume is not None else None
        if volume is None or tracked is None:
            return None
        pools = tracked.pools
        if volume.row.limits:
            for owner in owners_of(self._inode()):
                if owner in volume.row.limits:
                    owned = self._quotas.owners.known(volume, owner)
                    if owned is None:
                        return None
                    pools += owned.pools
        return tracked, pools

    def _admit(
        self, tracked: Tracked, pools: tuple[Pool, ...], size: int, start: int, end: int
    ) -> None:
        if self._claim.pools != pools:
            self._claim.release()
            self._claim = Claim(pools)
        now = max(0, size - self._counted)
        more = max(0, max(size, end) - self._counted) - min(now, self._claim.bytes)
        windows: set[int] = set()
        newest = tracked.row.newest if tracked.row is not None else 0
        if newest and start < min(end, self._counted):
            if newest != self._since:
                self._windows.clear()
                self._since = newest
            windows = set(range(start // WINDOW, (end - 1) // WINDOW + 1)) - self._windows
            more += WINDOW * len(windows)
        if more > 0:
            self._quotas.extend(self._claim, bytes=more)
        self._windows |= windows

    def gathered(self, size: int) -> Claim:
        """A fold has taken what was written: hand over what was reserved for it."""
        taken, self._claim = self._claim, Claim(self._claim.pools)
        self._counted = size
        return taken

    def release(self) -> None:
        """The file is gone, or nobody has it open."""
        self._claim.release()
