"""Small payloads that the journal has too few copies for, or that belong elsewhere: they share open containers, and syncs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warp_core.containers.appender import OpenContainer
from warp_core.containers.fleet import Fleet
from warp_core.errors import Busy, NoSpace, StoreFailed, WarpError
from warp_core.interfaces.stores import Buffer

QUEUED_MAX = 64 * 1024 * 1024  # bytes that wait for a flush: more would be a leak, not a queue
LOST_MAX = 256  # containers that lost payloads: who wrote to one asks within moments


class SharedLog:
    """Records of many writers in one open container after another, each kept in `wanted` copies."""

    def __init__(self, fleet: Fleet, wanted: int, place: int = 0) -> None:
        self._fleet = fleet
        self._wanted = wanted
        self._place = place  # that its containers belong to
        self._used_s = 0.0  # when the last payload came
        self._open: OpenContainer | None = None
        self._full: list[OpenContainer] = []  # to be sealed by the next flush
        self._queue: list[tuple[OpenContainer, int, Sequence[Buffer]]] = []
        self._queued = 0
        self._pending: dict[tuple[int, int], Buffer] = {}  # payloads that no store has yet
        self._lock = asyncio.Lock()
        self.failures = 0  # flushes that failed
        self._failure: WarpError | None = None  # why the last one did
        self._lost: dict[int, tuple[int, WarpError]] = {}  # container → first place lost in it, why

    def place(self, size: int) -> tuple[int, int]:
        """Return (container, offset) for a record of `size` bytes; hand it to `put` before the next call.

        Raises:
            Busy: QUEUED_MAX is reached.
            Unavailable: Fewer stores are here than copies wanted.
        """
        if self._queued > QUEUED_MAX:
            raise Busy(
                f"{self._queued} bytes of small payloads wait for a sync, at most {QUEUED_MAX} may"
            )
        self._fleet.check_policy(self._wanted, self._place)
        if self._open is not None and self._open.room < size:
            self._full.append(self._open)
            self._open = None
        if self._open is None:
            self._open = OpenContainer(self._fleet, self._wanted, self._place)
        return self._open.id, self._open.tail

    def put(self, size: int, buffers: Sequence[Buffer], payload: Buffer) -> None:
        """Queue the record at the place that was just given."""
        target = self._open
        assert target is not None
        offset = target.place(size)
        self._queue.append((target, offset, buffers))
        self._queued += size
        self._pending[target.id, offset] = payload
        if self._place:
            self._used_s = self._fleet.monotonic()

    @property
    def crowded(self) -> bool:
        """Whether `place` would refuse."""
        return self._queued > QUEUED_MAX

    def pending(self, container: int, offset: int) -> Buffer | None:
        """Return a payload that was queued and not written yet."""
        return self._pending.get((container, offset))

    def check(self, container: int, offset: int) -> None:
        """Refuse a place whose payload a failed flush lost, whoever called that flush.

        Raises:
            StoreFailed, NoSpace
        """
        lost = self._lost.get(container)
        if lost is not None and offset >= lost[0]:
            raise self._loss(lost[1]) from lost[1]

    async def flush(self, since: int | None = None) -> None:
        """Write and sync everything queued before this call; those who come while one runs share the next.

        Args:
            since: What `failures` was when the caller appended: if it has grown, a flush that failed meanwhile may have
                taken the caller's payload along, and nothing is left in the queue to tell.

        Raises:
            StoreFailed, NoSpace: What was queued is lost. The next payloads go to another container.
        """
        if since is None:
            since = self.failures
        async with self._lock:
            if self.failures != since:
                assert self._failure is not None
                raise self._loss(self._failure) from self._failure
            queue, self._queue = self._queue, []
            full, self._full = self._full, []
            if not queue and not full:
                return
            try:
                await self._write(queue)
                for container in full:
                    await container.seal()
            except WarpError as error:
                self._abandon()
                self._remember(queue, error)
                raise self._loss(error) from error
            finally:
                for target, offset, buffers in queue:
                    self._pending.pop((target.id, offset), None)
                    self._queued -= sum(map(len, buffers))

    async def retire(self, container: int) -> None:
        """Seal the open container if it is this one, so that what is dead in it can be freed; the next payload begins another."""
        if self._open is not None and self._open.id == container:
            await self.close()

    async def settle(self, before_s: float) -> None:
        """Seal what belongs to a place and has got nothing since then, so that it can go there."""
        if self._place and self._open is not None and self._used_s <= before_s:
            await self.close()

    async def close(self) -> None:
        """Flush, and seal what is open."""
        if self._open is not None:
            self._full.append(self._open)
            self._open = None
        await self.flush()

    async def _write(self, queue: Sequence[tuple[OpenContainer, int, Sequence[Buffer]]]) -> None:
        batches: dict[int, tuple[OpenContainer, int, list[Buffer]]] = {}
        for target, offset, buffers in queue:  # places are contiguous within a container
            batch = batches.setdefault(target.id, (target, offset, []))
            batch[2].extend(buffers)
        for target, offset, buffers in batches.values():
            if not target.created:
                await target.create()
            await target.write(offset, buffers, sync=True)
            if len(target.entry.copies) < target.enough:
                await target.sync()

    def _remember(
        self, queue: Sequence[tuple[OpenContainer, int, Sequence[Buffer]]], error: WarpError
    ) -> None:
        self.failures += 1
        self._failure = error
        for target, offset, _ in queue:
            first = self._lost.get(target.id, (offset, error))[0]
            self._lost[target.id] = (min(first, offset), error)
        while len(self._lost) > LOST_MAX:
            del self._lost[next(iter(self._lost))]

    def _loss(self, error: WarpError) -> WarpError:
        kind = NoSpace if isinstance(error, NoSpace) else StoreFailed
        return kind(f"small payloads could not be kept in {self._wanted} copies: {error}")

    def _abandon(self) -> None:
        """Append nothing more to a container that lost what was queued."""
        if self._open is not None:
            self._open.entry.open = False
            self._open.entry.doubtful = True
            self._open = None
