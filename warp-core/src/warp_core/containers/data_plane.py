"""The data plane of a node: where payloads go in and come out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from warp_core.containers import facts
from warp_core.containers.buffers import BufferPool
from warp_core.containers.collector import Collector, living
from warp_core.containers.filters import Codecs, FilteredRecords, decode_frames
from warp_core.containers.fleet import Copy, Fleet
from warp_core.containers.format import (
    CONTAINER_SIZE,
    Chunk,
    Head,
    Kind,
    Lane,
    Owner,
    align,
    epoch_of,
    lane_of,
    open_small,
    pack,
    require_head,
    stored_size,
)
from warp_core.containers.keyring import Keyring
from warp_core.containers.leases import Leases
from warp_core.containers.policy import DataPolicy, Place, StoreSlot
from warp_core.containers.reader import Reader
from warp_core.containers.reclaim import Pin, Refers
from warp_core.containers.records import inventory
from warp_core.containers.scrub import HealReport, Scrubber, ScrubReport
from warp_core.containers.shared import SharedLog
from warp_core.containers.standing import ALONE, Standing
from warp_core.containers.writer import ChunkWriter
from warp_core.errors import Corrupt, StoreFailed, TooLarge, Unavailable, WarpError
from warp_core.interfaces.codecs import Codec
from warp_core.interfaces.stores import Buffer

if TYPE_CHECKING:
    from warp_core.containers.journal import Journal

ROTTEN_MAX = 10_000  # containers remembered for repair; more damage than this is for scrub and heal
APPEND_MAX = 1024 * 1024  # bytes of one small payload: what a batch of the journal holds
SETTLE_S = 10.0  # a container that waits so long for more goes to its place: a sweep sends contents one after the other
CODEC_THREADS = 2  # filters of streams; more would only compete with the loop on small machines


class Containers:
    """Appends, reads and frees chunks. Open it with `async with`, after the journal and before the metadata engine."""

    def __init__(
        self,
        stores: Sequence[StoreSlot],
        *,
        codec: Callable[[str], Codec],
        journal: Journal | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        container_size: int = CONTAINER_SIZE,
        standing: Standing = ALONE,
        places: Sequence[Place] = (),
    ) -> None:
        """Take the parts.

        Args:
            stores: Of this node, entered.
            codec: Makes a codec of a policy's word, such as "zstd:3".
            journal: Entered; None for a node whose small payloads share containers only.
            standing: How many copies have to be written.
            places: Stores among these that storage classes have for themselves.
        """
        self._fleet = Fleet(
            stores,
            now_ns=now_ns,
            monotonic=monotonic,
            container_size=container_size,
            standing=standing,
            places=places,
        )
        self._standing = standing
        self._codecs = Codecs(codec)
        self._journal = journal
        self._pool = BufferPool()
        self._leases = Leases(self._fleet)
        self._shared: dict[tuple[int, int], SharedLog] = {}
        self._rotten: set[int] = set()  # containers of which reads found a damaged copy
        self._reader = Reader(self._fleet, self._codecs, self._pending, self._note_rotten)
        self._journal_floor = 0  # segments from this one on are replayed by a restart
        needed = self._needed_by_restart
        self._collector = Collector(
            self._fleet,
            needed=needed,
            current=self._of_this_session,
            find=self._reader.find,
            forget=self._reader.forget,
            retire=self._retire,
        )
        self._scrubber = Scrubber(self._fleet, needed=needed, monotonic=monotonic)
        self._threads = ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="codec")

    async def __aenter__(self) -> Self:
        """Take the inventory of the stores.

        Raises:
            Unavailable: There is no store.
            StoreFailed: No store can be written.
            NewerFormat: A later release wrote them.
        """
        await self._fleet.open()
        self._collector.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Seal what is open, and say so if the session leaves nothing in doubt."""
        for shared in self._shared.values():
            with suppress(WarpError):  # whoever waited for what was queued has heard of it
                await shared.close()
        await self._leases.close()
        self._threads.shutdown(wait=True)
        doubt = any(
            entry.open or entry.doubtful
            for entry in self._fleet.containers.values()
            if epoch_of(entry.id) == self._fleet.ledger.epoch
        )
        if kind is None and not doubt:
            ended = {self._fleet.ledger.epoch, epoch_of(self.journal_end())}
            self._fleet.ledger.note(facts.clean(epoch) for epoch in sorted(ended) if epoch)
        await self._fleet.ledger.flush()

    # In -------------------------------------------------------------------------------------------

    def append(self, payload: Buffer, *, owner: Owner, policy: DataPolicy) -> Chunk:
        """Queue a small payload (1 byte to 1 MiB; kept until it is durable, so do not change it) and return where it will be.

        It goes into the journal when the journal has the copies that the policy wants. It can be read at once, and is durable after
        `sync`, or after a commit of a `journaled` engine if `in_journal(chunk)`.

        Raises:
            TooLarge: Beyond APPEND_MAX.
            ReadOnly: The node has stopped writing.
            Busy: Too much is queued: await `room` first.
            Unavailable, NoSpace: The policy's copies find no stores.
        """
        length = len(payload)
        if length > APPEND_MAX:
            raise TooLarge(f"payload of {length} bytes > APPEND_MAX {APPEND_MAX}: use a writer")
        copies = self._standing.copies(policy.copies)
        journal = self._journal
        if (
            journal is not None
            and not policy.place
            and sum(one.alive for one in journal.copies) >= self._standing.enough(copies)
        ):
            packer = self.packer(",".join(policy.filters)) if policy.filters else None
            return journal.append(Kind.PAYLOAD, payload, owner=owner, packer=packer)
        kept = self._kept(policy, copies)
        shared = self._shared.get(kept)
        if shared is None:
            shared = self._shared[kept] = SharedLog(self._fleet, *kept)
        if policy.filters:
            return self._append_filtered(shared, payload, owner, ",".join(policy.filters))
        stored = stored_size(length)
        container, offset = shared.place(align(stored))
        record = pack(Kind.PAYLOAD, container, offset, owner, self._fleet.sequence(), payload)
        shared.put(align(stored), record, payload)
        return Chunk(container, offset, stored, length)

    def _append_filtered(
        self, shared: SharedLog, payload: Buffer, owner: Owner, filters: str
    ) -> Chunk:
        packer = self.packer(filters)
        container, offset = shared.place(packer.most(len(payload)))
        buffers, stored = packer.pack(
            Kind.PAYLOAD, container, offset, owner, self._fleet.sequence(), payload
        )
        shared.put(align(stored), buffers, payload)
        return Chunk(container, offset, stored, len(payload))

    def _kept(self, policy: DataPolicy, copies: int) -> tuple[int, int]:
        """Return how many copies a container gets while it is written, and the number of the place that it belongs to.

        Raises:
            Unavailable: There is no such place.
        """
        if not policy.place:
            return copies, 0
        number = self._fleet.number_of(policy.place)
        place = self._fleet.place_by(number)
        return (place.copies if place.grows else copies), number

    @property
    def keyring(self) -> Keyring:
        """The keys of sealed contents that are in use."""
        return self._codecs.keyring

    def packer(self, filters: str) -> FilteredRecords:
        """Return what packs records through a comma separated list of filters, for the journal as well."""
        return FilteredRecords(self._codecs, filters)

    def in_journal(self, chunk: Chunk) -> bool:
        """Say whether the chunk becomes durable with the next flush of the journal."""
        return lane_of(chunk.container) == Lane.JOURNAL

    async def room(self, length: int) -> None:
        """Wait until `append` may succeed again: what is queued is bounded.

        Raises:
            NoSpace, ReadOnly: It will not.
        """
        if self._journal is not None:
            await self._journal.room(length)
        for shared in self._shared.values():
            if shared.crowded:
                await shared.flush()

    async def sync(self) -> None:
        """Return when everything that was appended before is durable on all copies.

        Call it in the step that appended, without an `await` between: a failure counts from this call on.

        Raises:
            StoreFailed, NoSpace: It is not and will not be.
        """
        flushes = [shared.flush(shared.failures) for shared in self._shared.values()]
        if self._journal is not None:
            flushes.append(self._journal.flush())
        if len(flushes) == 1:
            await flushes[0]
            return
        for result in await asyncio.gather(*flushes, return_exceptions=True):
            if result is not None:
                raise result

    async def _sync_small(self, chunks: Sequence[Chunk], journaled: bool) -> None:
        if all(map(self.in_journal, chunks)):
            if not journaled and self._journal is not None:
                await self._journal.flush()
        else:
            await self.sync()
            # These were appended steps ago: a failure before `sync` was called may have been theirs.
            for chunk in chunks:
                for shared in self._shared.values():
                    shared.check(chunk.container, chunk.offset)

    def writer(
        self, policy: DataPolicy, owner: Owner, *, size_hint: int | None = None
    ) -> ChunkWriter:
        """Begin a stream. `size_hint` is the whole length where it is known; a wrong one costs space, not correctness.

        Raises:
            Unavailable: The policy wants more copies than there are stores.
            NotFound, InvalidArgument: Its chunker or filters.
        """
        kept = self._kept(policy, self._standing.copies(policy.copies))
        self._fleet.check_policy(*kept)
        filters = ",".join(policy.filters)
        return ChunkWriter(
            self._fleet,
            self._leases,
            self._pool,
            kept=kept,
            owner=owner,
            chunker=self._codecs.chunker(policy.chunker),
            chain=self._codecs.chain(filters),
            filters=filters,
            size_hint=size_hint,
            codec_threads=self._threads,
            append=lambda payload: self.append(payload, owner=owner, policy=policy),
            sync=self._sync_small,
            discard=self._collector.discard,
        )

    # Out ------------------------------------------------------------------------------------------

    def read_now(
        self, chunk: Chunk, *, offset: int = 0, length: int | None = None
    ) -> Buffer | None:
        """Return verified payload bytes if no device has to be waited for, else None: then `read`. At most 1 MiB."""
        if length is None:
            length = chunk.length - offset
        return self._reader.read_now(chunk, offset, length)

    async def read(self, chunk: Chunk, *, offset: int = 0, length: int | None = None) -> Buffer:
        """Return `length` payload bytes from `offset` (to the end by default), verified.

        Raises:
            OutOfRange: The range is not inside the chunk.
            Corrupt: No good copy is left; the message names container, offset and range.
            Unavailable: The stores that have it are not here.
            WritesStopped: It was queued when the journal failed, and never written.
        """
        if length is None:
            length = chunk.length - offset
        try:
            return await self._reader.read(chunk, offset, length)
        except Corrupt:
            self._refuse_lost(chunk)
            raise

    async def verify(self, chunk: Chunk, *, offset: int, length: int) -> None:
        """Check payload bytes as `read` does, also those of which nobody holds the key: as they are stored, then; raises as `read`."""
        try:
            await self._reader.verify(chunk, offset, length)
        except Corrupt:
            self._refuse_lost(chunk)
            raise

    async def read_into(self, chunk: Chunk, *, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with verified payload bytes; raises as `read`."""
        try:
            await self._reader.read_into(chunk, offset, buffer)
        except Corrupt:
            self._refuse_lost(chunk)
            raise

    def _refuse_lost(self, chunk: Chunk) -> None:
        """Say of a chunk that the journal queued and could not write why it could not, in the place of calling it damaged."""
        if self._journal is not None and lane_of(chunk.container) == Lane.JOURNAL:
            lost = self._journal.lost(chunk)
            if lost is not None:
                raise lost

    def pin(self) -> Pin:
        """Claim everything that is alive now: what is reclaimed from now on stays readable until the pin is released."""
        return self._fleet.pins.take()

    def _pending(self, chunk: Chunk) -> Buffer | None:
        if lane_of(chunk.container) == Lane.JOURNAL:
            record = self._journal.queued_record(chunk) if self._journal is not None else None
            if record is None:
                return None
            payload = open_small(record, chunk)
            if payload is None:
                head = require_head(record, chunk)
                stored = memoryview(record)[head.size :]
                payload = memoryview(
                    decode_frames(self._codecs.chain(head.filters), head, 0, stored)
                )
            return payload
        for shared in self._shared.values():
            waiting = shared.pending(chunk.container, chunk.offset)
            if waiting is not None:
                return waiting
        return None

    def _note_rotten(self, container: int, copy: Copy) -> None:
        copy.bad = True
        if len(self._rotten) < ROTTEN_MAX:
            self._rotten.add(container)

    # Freeing --------------------------------------------------------------------------------------

    async def reclaim(self, chunks: Sequence[Chunk]) -> None:
        """Note durably that nothing refers to these chunks any more. Repeating it is harmless, so: reclaim, then drop the row.

        Their space is reused when no pin older than this call is left, by `collect`.

        Raises:
            StoreFailed: It is not noted.
        """
        await self._collector.reclaim(chunks)

    def discard(self, chunks: Sequence[Chunk]) -> None:
        """Note that these chunks were written and will never be linked. Durable later; after a crash, `recover` finds them."""
        self._collector.discard(
            (chunk.container, chunk.offset, align(chunk.stored)) for chunk in chunks
        )

    async def collect(self, *, budget: int) -> dict[str, int]:
        """Free space, copying at most about `budget` bytes; returns counters, all zero when there is nothing to do."""
        return await self._collector.collect(budget)

    async def recover(self, refers: Refers, *, budget: int) -> bool:
        """Ask the namespace about records of sessions that crashed; True when none is left. Bounded by `budget` bytes read.

        `refers(owner, chunk)` says whether a row leads to the chunk; commits must have been replayed before the first call.
        """
        return await self._collector.recover(refers, budget)

    async def records(self, *, of_this_session: bool = False) -> AsyncIterator[Head]:
        """Yield every payload record that was not noted as dead, container by container; what cannot be read is left out.

        What this session writes may be on its way to its rows, so it comes only when it is asked for.
        """
        for entry in list(self._fleet.containers.values()):
            if not of_this_session and self._of_this_session(entry.id):
                continue
            await self._fleet.describe(entry)
            try:
                found = await inventory(self._fleet, entry)
            except (Corrupt, StoreFailed):
                continue
            for head in living(self._fleet, entry, found):
                if head.kind == Kind.PAYLOAD:
                    yield head

    def journal_end(self) -> int:
        """Return the segment that the journal writes now, 0 without a journal."""
        return self._journal.end.container if self._journal is not None else 0

    def release_journal(self, container: int) -> None:
        """Say that no restart replays segments of the journal before this one; until then, all of them are left alone."""
        self._journal_floor = max(self._journal_floor, container)

    def _needed_by_restart(self, container: int) -> bool:
        if self._journal is None or lane_of(container) != Lane.JOURNAL:
            return False
        return container >= self._journal_floor or self._journal.needed(container)

    async def _retire(self, container: int) -> None:
        await self._leases.retire(container)
        for shared in self._shared.values():
            with suppress(WarpError):  # whoever waits for what was queued hears of it
                await shared.retire(container)

    def _of_this_session(self, container: int) -> bool:
        if lane_of(container) == Lane.JOURNAL:
            return epoch_of(container) == epoch_of(self.journal_end())
        return epoch_of(container) == self._fleet.ledger.epoch

    # Keeping --------------------------------------------------------------------------------------

    async def scrub(
        self, *, deep: bool, after: int = 0, budget: int | None = None, rate: float | None = None
    ) -> ScrubReport:
        """Look for what is missing or damaged; see `Scrubber.scrub`. `heal` repairs it."""
        return await self._scrubber.scrub(deep=deep, after=after, budget=budget, rate=rate)

    async def heal(self, *, budget: int, settle_s: float = SETTLE_S) -> HealReport:
        """Write missing and damaged copies anew, fewest good copies first, and bring containers to where they belong.

        What belongs to a place goes there when nothing more has come into its container for `settle_s`.
        """
        before_s = self._fleet.monotonic() - settle_s
        await self._leases.settle(before_s)
        for shared in tuple(self._shared.values()):
            with suppress(WarpError):  # whoever waits for what was queued hears of it
                await shared.settle(before_s)
        return await self._scrubber.heal(budget=budget)

    async def repair(self, *, budget: int) -> HealReport:
        """Write anew the copies that reads have found damaged since the last call."""
        report = HealReport()
        while self._rotten and report.written_bytes < budget:
            entry = self._fleet.containers.get(self._rotten.pop())
            if entry is not None:
                one = await self._scrubber.heal(budget=budget, only=entry)
                report.written_bytes += one.written_bytes
                report.written_copies += one.written_copies
                report.problems += one.problems
        return report

    def lacking(self, store: str) -> int:
        """Return how many containers have no good copy on a store, those left out that are being written now."""
        return sum(
            not any(copy.slot.store.id == store and not copy.bad for copy in entry.copies)
            for entry in self._fleet.containers.values()
            if entry.live and not entry.open
        )

    def missing_stores(self) -> list[str]:
        """Return the names of stores that belong to the node and are not here."""
        here = {slot.store.id for slot in self._fleet.slots}
        return [member.name for member in self._fleet.map.members if member.id not in here]


def no_codec(name: str) -> Codec:
    """Refuse every codec: for containers that only read and append unfiltered payloads.

    Raises:
        Unavailable: Always.
    """
    raise Unavailable(f'codec "{name}" is not installed')
