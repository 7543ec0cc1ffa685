"""Reads: verified frame by frame, from whichever copy is good."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from warp_core.containers.filters import Codecs, decode_frames
from warp_core.containers.fleet import Copy, Fleet
from warp_core.containers.format import (
    ENTRY,
    FRAME,
    HEAD,
    Chunk,
    Head,
    bad_frames,
    blob_name,
    frame_count,
    head_span,
    open_small,
    place,
    require_head,
)
from warp_core.containers.keyring import only_sealed
from warp_core.errors import (
    Corrupt,
    NotFound,
    OutOfRange,
    Sealed,
    StoreFailed,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.stores import Buffer

HEADS_MAX = 1024  # frame tables kept: 1.6 KiB for a chunk of 8 MiB, so 1.6 MiB in all
HEAD_READ = 4096  # covers the table of a chunk of up to 20 MiB in one read
NOW_MAX = 1024 * 1024  # bytes that the loop itself reads at once: a quarter of a millisecond
DECODE_NOW_MAX = (
    FRAME  # bytes that the loop itself decompresses; what is only sealed opens at some 7 GB/s
)


class Reader:
    """Reads chunks from the fleet. `pending(chunk)` gives payloads that no store has yet."""

    def __init__(
        self,
        fleet: Fleet,
        codecs: Codecs,
        pending: Callable[[Chunk], Buffer | None],
        rotten: Callable[[int, Copy], None],
    ) -> None:
        self._fleet = fleet
        self._codecs = codecs
        self._pending = pending
        self._rotten = rotten
        self._heads: dict[tuple[int, int], Head] = {}

    # Without waiting ------------------------------------------------------------------------------

    def read_now(self, chunk: Chunk, offset: int, length: int) -> Buffer | None:
        """Return payload bytes if the first copy has them in memory and they are good, else None."""
        entry = self._fleet.containers.get(chunk.container)
        if entry is None or not entry.copies:
            return self._pending_range(chunk, offset, length)
        copy = entry.copies[0]
        position = chunk.offset if not copy.rewrite else copy.position(chunk.offset)
        if position is None:
            return None
        if chunk.length <= FRAME:
            data = copy.slot.store.read_now(copy.name, offset=position, length=chunk.stored)
            if data is not None:
                payload = open_small(data, chunk) or self._open_filtered(data, chunk)
                if payload is not None:
                    return payload if length == chunk.length else payload[offset : offset + length]
            return self._pending_range(chunk, offset, length)
        return self._frames_now(copy, position, chunk, offset, length)

    def _open_filtered(self, data: Buffer, chunk: Chunk) -> memoryview | None:
        """Return the payload of a small record that has filters, None if anything is wrong with it."""
        with suppress(WarpError):
            head = require_head(data, chunk)
            stored = memoryview(data)[head.size :]
            if head.filters and len(data) == head.stored and not bad_frames(head, 0, stored):
                return self._cut(head, 0, stored, 0, head.length)
        return None

    def _frames_now(
        self, copy: Copy, position: int, chunk: Chunk, offset: int, length: int
    ) -> Buffer | None:
        if length > NOW_MAX or not length:
            return None
        read_now = copy.slot.store.read_now
        head = self._heads.get((chunk.container, chunk.offset))
        if head is None:
            span = min(chunk.stored, HEAD_READ)
            start = read_now(copy.name, offset=position, length=span)
            if start is None or head_span(start) > span:
                return None
            try:
                head = self._keep(require_head(start, chunk))
            except WarpError:  # `read` finds out what is wrong
                return None
        if head.filters and length > DECODE_NOW_MAX and not only_sealed(head.filters):
            return None
        first, last = offset // FRAME, (offset + length - 1) // FRAME
        begin, end = head.span(first, last)
        data = read_now(copy.name, offset=position + begin, length=end - begin)
        if data is None or len(data) < end - begin or bad_frames(head, first, data):
            return None
        return self._cut(head, first, data, offset, length)

    def _pending_range(self, chunk: Chunk, offset: int, length: int) -> Buffer | None:
        payload = self._pending(chunk)
        if payload is None:
            return None
        return memoryview(payload)[offset : offset + length]

    # With waiting ---------------------------------------------------------------------------------

    async def verify(self, chunk: Chunk, offset: int, length: int) -> None:
        """Check that a copy has these payload bytes right as they are stored, which needs no key; raises as `read`."""
        try:
            await self.read(chunk, offset, length)
        except Sealed:
            if self._fleet.copies(chunk.container):  # else it waits in memory for its first write
                await self.read(chunk, offset, length, opened=False)

    async def read(self, chunk: Chunk, offset: int, length: int, *, opened: bool = True) -> Buffer:
        """Return payload bytes from the first copy that has them right; nothing if they are not to be `opened`.

        Raises:
            OutOfRange, Corrupt, Unavailable: As `Containers.read`.
        """
        if offset < 0 or length < 0 or offset + length > chunk.length:
            raise OutOfRange(
                f"range {offset}+{length} is outside the {chunk.length} bytes of {place(chunk)}"
            )
        if not length:
            return b""
        pending = self._pending_range(chunk, offset, length) if opened else None
        if pending is not None:
            return pending
        problems: list[str] = []
        if not self._fleet.copies(chunk.container):
            problems += await self.find(chunk.container)
        away = bool(problems)
        damaged: list[Copy] = []
        tried: set[str] = set()
        while copy := self._untried(chunk.container, tried):
            tried.add(copy.slot.name + copy.name)
            try:
                data = await self._read_copy(copy, chunk, offset, length, opened=opened)
            except StoreFailed as error:
                away = True
                problems.append(f"{copy.slot.name}: {error}")
            except (Corrupt, NotFound) as error:
                damaged.append(copy)
                problems.append(f"{copy.slot.name}: {error}")
            else:
                for bad in damaged:
                    self._rotten(chunk.container, bad)
                return data
        raise self._lost(chunk, offset, length, problems, away=away)

    def _untried(self, container: int, tried: set[str]) -> Copy | None:
        """Return the best copy not tried yet; looked up anew each time, since compaction may have put another in its place."""
        for copy in self._fleet.copies(container):
            if copy.slot.name + copy.name not in tried:
                return copy
        return None

    async def read_into(self, chunk: Chunk, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, without a copy where whole unfiltered frames are asked for; raises as `read`."""
        if not await self._read_straight(chunk, offset, buffer):
            buffer[:] = await self.read(chunk, offset, len(buffer))

    async def _read_straight(self, chunk: Chunk, offset: int, buffer: memoryview) -> bool:
        """Read frames to where they belong and verify them there; False if that is not possible, or they are not good."""
        end = offset + len(buffer)
        if (
            offset < 0
            or offset % FRAME
            or end > chunk.length
            or (end % FRAME and end < chunk.length)
        ):
            return False
        copies = self._fleet.copies(chunk.container)
        if not copies or chunk.stored <= HEAD_READ + FRAME or self._pending(chunk) is not None:
            return False
        copy = copies[0]
        try:
            await self._fleet.load(copy)
            position = copy.position(chunk.offset)
            if position is None:
                return False
            head = await self._head(copy, position, chunk)
            if head.filters:
                return False
            first, last = offset // FRAME, (end - 1) // FRAME
            begin, _ = head.span(first, last)
            got = await copy.slot.store.read_into(copy.name, offset=position + begin, buffer=buffer)
        except (Corrupt, NotFound, StoreFailed):
            return False  # `read` tries the others, and says what is wrong
        return got == len(buffer) and not bad_frames(head, first, buffer)

    async def find(self, container: int) -> list[str]:
        """Look on every store in use for a container that the inventory did not have: a journal segment made since.

        Return what keeps stores from saying whether they have it. Nobody sees what some have before all have said: one may have a copy
        that is damaged. A store that was left behind is not asked, since the end of its copy may be missing.
        """
        problems: list[str] = []
        if self._fleet.ledger.known.is_gone(container):
            return problems
        name = blob_name(container)
        await self._fleet.look_again()
        if container in self._fleet.containers and self._fleet.containers[container].live:
            return problems
        uses = self._fleet.standing.uses
        found: list[Copy] = []
        for slot in self._fleet.where(container):
            if not uses(slot.store.id):
                continue
            if slot in self._fleet.unseen:
                problems.append(f"{slot.name}: away since the start")
                continue
            try:
                info = await slot.store.stat(name)
            except NotFound:
                continue
            except StoreFailed as error:
                problems.append(f"{slot.name}: {error}")
            else:
                found.append(Copy(slot, container, 0, info.size, info.allocated))
        for copy in found:
            entry = self._fleet.entry(container)
            if uses(copy.slot.store.id) and all(one.slot is not copy.slot for one in entry.copies):
                entry.copies.append(copy)
        return problems

    def _lost(
        self, chunk: Chunk, offset: int, length: int, problems: list[str], *, away: bool
    ) -> WarpError:
        where = f"{place(chunk)} bytes {offset} to {offset + length - 1}"
        missing = [
            m.name
            for m in self._fleet.map.members
            if all(s.store.id != m.id for s in self._fleet.slots)
        ]
        if away or (missing and not self._fleet.ledger.known.is_gone(chunk.container)):
            also = f"; stores that are missing: {', '.join(missing)}" if missing else ""
            return Unavailable(
                f"{where} cannot be read now: {'; '.join(problems) or 'no copy is here'}{also}"
            )
        return Corrupt(
            f"{where} has no good copy left: {'; '.join(problems) or 'no store has the container'}"
        )

    async def _read_copy(
        self, copy: Copy, chunk: Chunk, offset: int, length: int, *, opened: bool
    ) -> Buffer:
        await self._fleet.load(copy)
        position = copy.position(chunk.offset)
        if position is None:
            raise Corrupt("this copy does not have the record")
        store = copy.slot.store
        if chunk.stored <= HEAD_READ + FRAME:
            data: Buffer = await store.read(copy.name, offset=position, length=chunk.stored)
            payload = open_small(data, chunk)
            if payload is not None:
                return payload[offset : offset + length]
            head = require_head(data, chunk)
            data = memoryview(data)[head.size :]
            first = 0
        else:
            head = await self._head(copy, position, chunk)
            first, last = offset // FRAME, (offset + length - 1) // FRAME
            begin, end = head.span(first, last)
            data = await store.read(copy.name, offset=position + begin, length=end - begin)
            if len(data) < end - begin:
                raise Corrupt(f"{len(data)} of {end - begin} bytes are there")
        bad = bad_frames(head, first, data)
        if bad or (first == 0 and len(data) < head.span(0, 0)[1] - head.size):
            raise Corrupt(f"frames {bad} are damaged")
        return b"" if not opened else self._cut(head, first, data, offset, length)

    async def _head(self, copy: Copy, position: int, chunk: Chunk) -> Head:
        head = self._heads.get((chunk.container, chunk.offset))
        if head is None:
            least = HEAD + ENTRY * frame_count(chunk.length)
            span = min(chunk.stored, max(least, HEAD_READ))
            data = await copy.slot.store.read(copy.name, offset=position, length=span)
            if span < head_span(data) <= chunk.stored:
                data = await copy.slot.store.read(
                    copy.name, offset=position, length=head_span(data)
                )
            head = self._keep(require_head(data, chunk))
        return head

    def _keep(self, head: Head) -> Head:
        if len(self._heads) >= HEADS_MAX:
            del self._heads[next(iter(self._heads))]
        self._heads[head.container, head.offset] = head
        return head

    def forget(self, container: int) -> None:
        """Drop what is kept of a container that is gone."""
        for key in [key for key in self._heads if key[0] == container]:
            del self._heads[key]

    def _cut(self, head: Head, first: int, data: Buffer, offset: int, length: int) -> memoryview:
        if head.filters:
            data = decode_frames(self._codecs.chain(head.filters), head, first, data)
        start = offset - first * FRAME
        return memoryview(data)[start : start + length]
