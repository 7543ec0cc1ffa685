"""Object lock: what may not go before its time, and the clock that says when that is.

A revision is retained until a moment, or under legal hold until somebody ends it. Every transaction that would drop one comes to
`Change.check_retention`, whichever view it serves; content that is retained is not written in place either.

The moment is compared with a clock of its own, because whoever sets the machine's clock forward must not free what is retained: it
starts with the wall clock when the first volume gets object lock, is kept in the metadata, and from then on advances only as the
kernel counts time since boot, which nobody sets. It never goes back. What happened between two boots is not counted, as nothing
tells it from a changed clock: retention then lasts longer by the time that the machine was off.
"""

from __future__ import annotations

import os
import time
from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from warp_core.errors import InvalidArgument, Retained
from warp_core.interfaces.consistency import MetaStore
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.rows import Revision
from warp_core.views.objects import VolumeLock

DAYS_MAX: Final = 36_500
YEARS_MAX: Final = 100
PERSIST_NS: Final = 60 * 10**9
"""How often the clock is written: what a reboot makes it forget at most, besides the time that the machine was off."""

_DAY_NS: Final = 24 * 3600 * 10**9


class _Mark(msgspec.Struct, frozen=True, array_like=True):
    """The clock's row: it showed `now_ns` when the counter of boot `boot` showed `steady_ns`."""

    now_ns: int
    boot: str
    steady_ns: int


_decode_mark = msgspec.msgpack.Decoder(_Mark).decode


def boot_identity() -> str:
    """Return what the kernel's counter belongs to: this boot, and the time namespace, which may shift it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/time')}"
    except OSError:  # not to be told: every start begins where the last one was seen
        return os.urandom(16).hex()


def _since_boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class LockClock:
    """The clock of one MetaStore. Nothing is read before retention is asked for."""

    def __init__(
        self,
        store: MetaStore,
        wall_ns: Callable[[], int],
        *,
        steady_ns: Callable[[], int] = _since_boot_ns,
        boot: Callable[[], str] = boot_identity,
    ) -> None:
        """Take the metadata, the wall clock, and a counter with what tells one of its lives from the next."""
        self._store = store
        self._wall_ns = wall_ns
        self._steady_ns = steady_ns
        self._boot = boot
        self._known: _Mark | None = None
        self._written_ns = 0

    async def now_ns(self) -> int:
        """Return nanoseconds since 1970 for judging whether retention is over."""
        known = self._known
        if known is None:
            view = self._store.view()
            try:
                found = await view.get(keys.LOCK_CLOCK)
            finally:
                view.close()
            if found is None:  # no volume has object lock yet
                return self._wall_ns()
            known = self._take(_decode_mark(found[0]))
        return known.now_ns + max(0, self._steady_ns() - known.steady_ns)

    async def future_ns(self) -> int:
        """Return the moment that retention begins at: a wall clock that was set back makes it no shorter."""
        return max(self._wall_ns(), await self.now_ns())

    def _take(self, row: _Mark) -> _Mark:
        boot, steady_ns = self._boot(), self._steady_ns()
        passed_ns = max(0, steady_ns - row.steady_ns) if row.boot == boot else 0
        self._known = _Mark(row.now_ns + passed_ns, boot, steady_ns)
        return self._known

    async def start(self) -> None:
        """Begin to count, if that was not done before."""
        if self._known is not None:
            return

        async def body(tx: Transaction) -> None:
            value = await tx.get(keys.LOCK_CLOCK)
            if value is None:
                row = _Mark(self._wall_ns(), self._boot(), self._steady_ns())
                tx.put(keys.LOCK_CLOCK, msgspec.msgpack.encode(row))

        await transact(self._store, body)
        await self.now_ns()

    async def persist(self) -> None:
        """Write what the clock shows, now and then; harmless where nothing is locked."""
        now_ns = await self.now_ns()
        known = self._known
        if known is None or now_ns - self._written_ns < PERSIST_NS:
            return

        async def body(tx: Transaction) -> None:
            value = await tx.get(keys.LOCK_CLOCK)
            seen_ns = _decode_mark(value).now_ns if value is not None else 0
            row = _Mark(max(now_ns, seen_ns), known.boot, self._steady_ns())
            tx.put(keys.LOCK_CLOCK, msgspec.msgpack.encode(row))

        await transact(self._store, body)
        self._written_ns = now_ns


def check_lock(lock: VolumeLock) -> None:
    """Refuse what no volume can say about retention.

    Raises:
        InvalidArgument
    """
    periods = bool(lock.days) + bool(lock.years)
    if periods != bool(lock.mode) or lock.mode not in ("", "GOVERNANCE", "COMPLIANCE"):
        raise InvalidArgument("retention by default takes a mode, and either days or years")
    if not 0 <= lock.days <= DAYS_MAX or not 0 <= lock.years <= YEARS_MAX:
        raise InvalidArgument(f"retention by default: 1 to {DAYS_MAX} days or {YEARS_MAX} years")


def until(lock: VolumeLock, now_ns: int) -> int:
    """Return when retention ends that begins now."""
    if lock.days:
        return now_ns + lock.days * _DAY_NS
    seconds, rest_ns = divmod(now_ns, 10**9)
    now = datetime.fromtimestamp(seconds, UTC)
    year = now.year + lock.years
    day = min(now.day, monthrange(year, now.month)[1])  # 29 February
    return int(now.replace(year=year, day=day).timestamp()) * 10**9 + rest_ns


async def as_locked(
    lock: VolumeLock | None, clock: LockClock, revision: Revision, *, fresh: bool = True
) -> Revision:
    """Return a new revision with the retention that it asks for, or else that of its volume.

    What is not `fresh`, an upload, asked for it a while ago.

    Raises:
        InvalidArgument: The volume has no object lock, or the moment is over.
    """
    if lock is None:
        if revision.retain_mode or revision.legal_hold:
            raise InvalidArgument("nothing can be locked in a volume without object lock")
        return revision
    if revision.retain_mode:
        if fresh:
            await check_moment(clock, revision.retain_until_ns)
        return revision
    if not lock.mode:
        return revision
    return msgspec.structs.replace(
        revision, retain_mode=lock.mode, retain_until_ns=until(lock, await clock.future_ns())
    )


async def check_moment(clock: LockClock, until_ns: int) -> None:
    """Refuse retention that would be over already.

    Raises:
        InvalidArgument
    """
    if until_ns <= await clock.future_ns():
        raise InvalidArgument("The retain until date must be in the future!")


async def check_change(
    clock: LockClock, revision: Revision, mode: str, until_ns: int, *, bypass: bool
) -> None:
    """Refuse to make retention shorter or another.

    Raises:
        Retained
    """
    old = revision.retain_mode
    if not old or revision.retain_until_ns <= await clock.now_ns():
        return
    if mode == old and until_ns >= revision.retain_until_ns:
        return
    if old == "GOVERNANCE" and bypass:
        return
    raise Retained(f"retained in mode {old} until {revision.retain_until_ns}")
