"""What a file may still become: growth in place is reserved when it is written, and until its rows tell of it.

A write that was answered cannot be refused later, when it is folded into the rows. So the question is asked before the write: may
the file end there? Where snapshots show what is overwritten, a window's old data will count as theirs: the window is reserved
whole, once for each snapshot.
"""

from __future__ import annotations

from warp_core.namespace.extents import WINDOW
from warp_core.namespace.pools import Claim, Tracked
from warp_core.namespace.quotas import Quotas
from warp_core.namespace.volumes import Volumes


class Allowance:
    """One file's, shared by all who have it open."""

    __slots__ = ("_claim", "_counted", "_quotas", "_since", "_volume", "_volumes", "_windows")

    def __init__(self, quotas: Quotas, volumes: Volumes, volume: str, size: int) -> None:
        self._quotas = quotas
        self._volumes = volumes
        self._volume = volume
        self._counted = size  # as the rows say, or will with the fold that is under way
        self._claim = Claim()
        self._windows: set[int] = set()  # that were admitted since the newest snapshot
        self._since = 0

    async def ready(self) -> None:
        """Find out which limits apply; called before `admit`, waits if it must."""
        volume = self._volumes.known(self._volume) or await self._volumes.get(self._volume)
        if self._quotas.known(volume) is None:
            await self._quotas.watch(volume)

    def admit_now(self, size: int, start: int, end: int) -> bool:
        """Admit a write if nothing has to be waited for, and say whether that was so; raises as `admit`."""
        tracked = self._tracked()
        if tracked is None:
            return False
        if tracked.pools:
            self._admit(tracked, size, start, end)
        return True

    def admit(self, size: int, start: int, end: int) -> None:
        """Reserve what writing a range adds to a file of `size` bytes.

        Raises:
            QuotaExceeded: Nothing was reserved.
        """
        tracked = self._tracked()
        if tracked is not None and tracked.pools:
            self._admit(tracked, size, start, end)

    def _tracked(self) -> Tracked | None:
        volume = self._volumes.known(self._volume)
        return self._quotas.known(volume) if volume is not None else None

    def _admit(self, tracked: Tracked, size: int, start: int, end: int) -> None:
        if self._claim.pools != tracked.pools:
            self._claim.release()
            self._claim = Claim(tracked.pools)
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
