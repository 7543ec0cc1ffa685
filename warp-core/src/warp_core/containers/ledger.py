"""The ledger: what is dead or gone, kept on up to three stores and merged by union when it is read."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from warp_core.containers import facts
from warp_core.containers.format import (
    NOBODY,
    PAGE,
    Kind,
    Lane,
    align,
    container_id,
    epoch_of,
    next_epoch,
    pack,
    scan,
    whole,
)
from warp_core.containers.pages import Page, pack_page, unpack_page
from warp_core.containers.policy import StoreSlot
from warp_core.errors import Corrupt, NotFound, StoreFailed, WarpError
from warp_core.interfaces.stores import Buffer

COPIES = 3  # losing it costs space that must be found again, never data: three are plenty
GROWTH_MAX = 8 * 1024 * 1024  # then it is written anew; bounds what a start has to read
RECORD_FACTS = 500  # facts in one record: keeps records far below a payload's limit
DEAD_FACT = 20_000  # ranges in one fact, for the same reason
FOLDER = "ledger/"


class Ledger:
    """An append-only log of facts. `known` is what they amount to."""

    def __init__(
        self,
        slots: Sequence[StoreSlot],
        *,
        now_ns: Callable[[], int],
        uses: Callable[[str], bool] = lambda store: True,
    ) -> None:
        self.known = facts.Knowledge()
        self._slots = list(slots)
        self._uses = uses
        self._live: list[StoreSlot] = []
        self._now_ns = now_ns
        self._lock = asyncio.Lock()
        self._queue: list[facts.Fact] = []
        self._files = itertools.count()
        self._id = 0
        self._name = ""
        self._base = 0  # bytes that it began with
        self._tail = 0
        self.epoch = 0

    async def open(self, last_epoch: int) -> None:
        """Read what there is, give out an epoch after `last_epoch`, begin a new ledger, delete the old ones.

        Raises:
            StoreFailed: No store takes the ledger: the node must not write.
            Corrupt: Every copy of the ledger is unreadable.
        """
        old: list[tuple[StoreSlot, str]] = []
        damaged: list[str] = []
        for slot in self._slots:
            if not self._uses(slot.store.id):
                continue
            for info in await slot.store.list(FOLDER):
                old.append((slot, info.name))
                last_epoch = max(last_epoch, _epoch_of_name(info.name))
                if not await self._read(slot, info.name):
                    damaged.append(f"{info.name} on {slot.name}")
        if damaged and len(damaged) == len(old):
            # A ledger whose creation was cut off has no page yet; nothing depended on it.
            self.known = facts.Knowledge()
        self.epoch = next_epoch(max(self.known.epoch, last_epoch), self._now_ns() / 1e9)
        self.known.add(facts.epoch(self.epoch))
        async with self._lock:
            await self._rewrite()
        for slot, name in old:
            with suppress(WarpError):  # it is read again at the next start, which does no harm
                await slot.store.delete(name)

    async def add(self, new: Iterable[facts.Fact]) -> None:
        """Add facts; they are durable on return.

        Raises:
            StoreFailed: No copy of the ledger can be written any more.
        """
        new = list(new)
        self.note(new)
        await self.flush()

    def note(self, new: Iterable[facts.Fact]) -> None:
        """Add facts that become durable with the next `flush`."""
        for fact in new:
            self.known.add(fact)
            self._queue.append(fact)

    async def flush(self) -> None:
        """Make every fact durable; concurrent calls share one sync."""
        async with self._lock:
            queue, self._queue = self._queue, []
            if not queue:
                return
            if self._tail - self._base > GROWTH_MAX:
                await self._rewrite()
            else:
                await self._append(queue)

    async def _append(self, new: Sequence[facts.Fact]) -> None:
        buffers: list[Buffer] = []
        tail = self._tail
        for start in range(0, len(new), RECORD_FACTS):
            payload = msgspec.msgpack.encode(new[start : start + RECORD_FACTS])
            record = pack(Kind.LEDGER, self._id, tail, NOBODY, self._now_ns(), payload)
            buffers += record
            tail += sum(map(len, record))
        offset, self._tail = self._tail, tail
        results = await asyncio.gather(
            *(
                slot.store.write(self._name, offset=offset, buffers=buffers, sync=True)
                for slot in self._live
            ),
            return_exceptions=True,
        )
        survivors = [
            slot for slot, result in zip(self._live, results, strict=True) if result is None
        ]
        if len(survivors) < len(self._live):
            await (
                self._rewrite()
            )  # the failed copy must not be the newest one somewhere: begin again beside it

    async def _rewrite(self) -> None:
        """Write everything known into a new ledger on the stores that take it."""
        old_name, old_live = self._name, self._live
        self._id = container_id(Lane.LEDGER, self.epoch, next(self._files))
        self._name = f"{FOLDER}{self._id:016x}"
        page = pack_page(Page(self._id, copies=COPIES, created_ns=self._now_ns()))
        buffers: list[Buffer] = [page]
        tail = PAGE
        for batch in _batches(self.known.facts()):
            record = pack(
                Kind.LEDGER, self._id, tail, NOBODY, self._now_ns(), msgspec.msgpack.encode(batch)
            )
            buffers += record
            tail += sum(map(len, record))
        self._queue.clear()
        self._base = self._tail = tail
        self._live = []
        problem: WarpError | None = None
        for slot in self._slots:
            if len(self._live) == COPIES:
                break
            if not self._uses(slot.store.id):
                continue
            try:
                await slot.store.create(
                    self._name, reserve=align(tail) + GROWTH_MAX + PAGE, vital=True
                )
                await slot.store.write(self._name, offset=0, buffers=buffers, sync=True)
            except WarpError as error:
                problem = error
            else:
                self._live.append(slot)
        if not self._live:
            raise StoreFailed(
                f"no store takes the ledger of dead space: {problem}; free some space there, or add a store"
            ) from problem
        for slot in old_live:
            with suppress(WarpError):
                await slot.store.delete(old_name)

    async def _read(self, slot: StoreSlot, name: str) -> bool:
        try:
            image = await slot.store.read(name, offset=0, length=(await slot.store.stat(name)).size)
        except (NotFound, StoreFailed):
            return False
        page = unpack_page(image)
        if page is None:
            return False
        body = memoryview(image)[PAGE:]
        for head in scan(body, container=page.container):
            at = head.offset - PAGE
            if whole(body, at=at) is not None and head.kind == Kind.LEDGER:
                with suppress(msgspec.DecodeError, Corrupt):
                    self.known.learn(body[at + head.size : at + head.stored])
        return True


def _epoch_of_name(name: str) -> int:
    try:
        return epoch_of(int(name.removeprefix(FOLDER), 16))
    except ValueError:
        return 0


def _batches(new: Iterable[facts.Fact]) -> Iterable[list[facts.Fact]]:
    batch: list[facts.Fact] = []
    size = 0
    for fact in new:
        for part in _parts(fact):
            batch.append(part)
            size += 32 + sum(len(value) for value in part if isinstance(value, bytes))
            if len(batch) == RECORD_FACTS or size > 8 * DEAD_FACT:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _parts(fact: facts.Fact) -> Iterable[facts.Fact]:
    """Split a fact with very many ranges."""
    if fact[0] != facts.DEAD:
        yield fact
        return
    _, container, packed = fact
    assert isinstance(packed, bytes)
    for start in range(0, len(packed), 8 * DEAD_FACT):
        yield [facts.DEAD, container, packed[start : start + 8 * DEAD_FACT]]
