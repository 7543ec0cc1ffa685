"""A disk whose home may go while a client uses it, and what may then be lost.

In a cluster a disk that is open dies with its home. The connection opens it anew at the next home, and does there what had no answer
yet: reading, writing, trimming and flushing may all be done twice. What cannot be done again is what was answered and not flushed.
Whether that is still there the disk's incarnation says. If it may be lost, every request is refused until a FLUSH was: then the client
knows, and goes on with the disk as after a power cut.

```
 serving ──home goes──▶ opening anew ──nothing lost──▶ serving
    ▲                        ├──not flushed, other incarnation──▶ lost ──a FLUSH is refused──▶ serving
    └────────────────────────┘                                     └──no FLUSH for LOST_S──▶ the connection ends
                             └──no home for `home_timeout`──▶ refused, the connection ends
```
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from warp_core import logs
from warp_core.errors import StaleHandle, StoreFailed, TimedOut, Unavailable, WarpError
from warp_core.views.blocks import Disk

AGAIN_S: Final = 0.1
"""Between two attempts to open a disk anew."""

LOST_S: Final = 30.0
"""How long a client whose writes are lost has for the FLUSH that tells it; file systems flush every few seconds."""

HOMELESS: Final = (Unavailable, StaleHandle, TimedOut)
"""What a verb raises whose home is gone, or cannot be asked."""

T = TypeVar("T")

_log = logs.get("warp_nbd")


class HomeLost(StoreFailed):
    """Writes that were answered may be lost, or nobody is the disk's home: refused for this client."""


class Standing:
    """What the connections of this server to one disk were promised: a flush of one covers all."""

    def __init__(self, incarnation: str) -> None:
        """Begin with nothing written."""
        self.incarnation = incarnation
        self.answered = 0  # writes without FUA
        self.durable = 0  # of those, the first so many
        self.losses = 0  # times that some were lost

    def found(self, incarnation: str) -> None:
        """Note the incarnation that the disk has after it was opened anew."""
        if incarnation == self.incarnation:
            return
        self.incarnation = incarnation
        if self.answered > self.durable:
            self.losses += 1
            self.durable = self.answered


class Standings:
    """The standings of all disks that are open."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[tuple[str, int], Standing] = WeakValueDictionary()

    def of(self, disk: Disk) -> Standing:
        """Return that of a disk that was just opened."""
        ref = disk.info.ref
        key = (ref.volume, ref.inode)
        standing = self._open.get(key)
        if standing is None:
            standing = self._open[key] = Standing(disk.info.incarnation)
        standing.found(disk.info.incarnation)
        return standing


class HeldDisk:
    """One connection's disk, at whatever home.

    Attributes:
        disk: What it is open as now.
    """

    def __init__(
        self,
        disk: Disk,
        standing: Standing,
        reopen: Callable[[], Awaitable[Disk]],
        end: Callable[[], None],
        *,
        timeout_s: float,
        name: str,
    ) -> None:
        """Take a disk that was opened.

        Args:
            disk: As it is open now.
            standing: What was promised about it.
            reopen: Opens the same export anew.
            end: Ends the connection once everything that was asked is answered.
            timeout_s: How long a home is waited for.
            name: Of the export, for messages.
        """
        self.disk = disk
        self.standing = standing
        self._reopen = reopen
        self._end = end
        self._timeout_s = timeout_s
        self._name = name
        self._seen = standing.losses
        self._refused: HomeLost | None = None  # why everything is, until a FLUSH was
        self._next: Disk | None = None  # what it is used as from then on
        self._homeless = False  # no home could be asked: the connection ends
        self._opening: asyncio.Task[None] | None = None
        self._ending: asyncio.TimerHandle | None = None

    @property
    def refused(self) -> bool:
        """Whether every request is refused now."""
        return self._refused is not None

    async def do(self, verb: Callable[[Disk], Awaitable[T]]) -> T:
        """Do what may be done twice: where the home goes meanwhile, again at the next.

        Raises:
            HomeLost: There is none, or what was answered before may be lost.
            WarpError: What the verb raises.
        """
        until = None
        while True:
            if self._refused is not None:
                raise self._refused
            disk = self.disk
            try:
                return await verb(disk)
            except HOMELESS as error:
                now = asyncio.get_running_loop().time()
                until = until or now + self._timeout_s
                if now > until:
                    self._give_up(error)
                elif disk is self.disk:
                    await self._anew(disk, error)

    async def flush(self) -> None:
        """Flush what every connection of this server wrote and was answered; raises as `do`."""
        standing = self.standing
        answered = standing.answered
        await self.do(lambda disk: disk.flush())
        self._look()
        if self._refused is not None:
            raise self._refused
        standing.durable = max(standing.durable, answered)

    def told(self) -> None:
        """Go on: a FLUSH was refused, so the client knows that not everything it wrote is there."""
        if self._refused is None:
            return
        self._refused = None
        self._stop_ending()
        if self._homeless:
            self._end()
        elif self._next is not None:
            self.disk, self._next = self._next, None

    async def close(self) -> None:
        """Close the disk; a home that is gone has done it."""
        self._stop_ending()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for disk in (self.disk, self._next):
            if disk is not None:
                with suppress(WarpError):
                    await disk.close()

    # ----------------------------------------------------------------------------------------------

    async def _anew(self, disk: Disk, error: WarpError) -> None:
        """Open the disk anew; all requests that wait for that wait for the same attempt."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(disk, error))
            self._opening.add_done_callback(self._opened)
        await asyncio.wait([self._opening])

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening = None

    async def _open(self, disk: Disk, error: WarpError) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                found = await self._reopen()
                break
            except HOMELESS as why:
                if loop.time() > began + self._timeout_s:
                    self._give_up(why)
                    return
            except WarpError as why:
                self._give_up(why)
                return
        if found.info.serial != disk.info.serial:
            await found.close()
            self._give_up(StaleHandle("another disk has this name now"))
            return
        self.standing.found(found.info.incarnation)
        self._look()
        if self._refused is None:
            self.disk = found
        else:
            self._next = found
        _log.info(
            "a disk was opened anew", export=self._name, reason=str(error),
            after_s=round(loop.time() - began, 2), lost_writes=self.refused,
        )  # fmt: skip
        with suppress(WarpError):
            await disk.close()

    def _look(self) -> None:
        """Refuse everything if writes were lost that this connection's client was not told of."""
        if self._seen == self.standing.losses:
            return
        self._seen = self.standing.losses
        self._refuse("writes that were answered and not flushed may be lost with the disk's home")

    def _give_up(self, why: WarpError) -> None:
        """End the connection; first the client hears of writes that were not flushed, if it listens."""
        self._homeless = True
        unsaid = self.standing.answered > self.standing.durable
        self._refuse(f"the disk has no home that can be asked: {why}")
        _log.warning("a disk's home is away", export=self._name, reason=str(why), unflushed=unsaid)
        if not unsaid:
            asyncio.get_running_loop().call_soon(self._end)

    def _refuse(self, why: str) -> None:
        self._refused = HomeLost(f"{self._name}: {why}")
        self._stop_ending()
        self._ending = asyncio.get_running_loop().call_later(LOST_S, self._end)

    def _stop_ending(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
