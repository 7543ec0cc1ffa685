"""What earlier runs left in the journal: found, completed and sealed at the start, replayed afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import msgspec

from warp_core.containers import format as fmt
from warp_core.containers import segments as seg
from warp_core.containers.generations import Copy
from warp_core.containers.segments import START, Entry, Gap, Mark, Position, Segment
from warp_core.errors import Corrupt, NoSpace, WarpError
from warp_core.interfaces.stores import BlobStore


class Past:
    """The segments of earlier runs. `ids` are those that are still as they were written, ascending."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        self._copies = copies
        self.ids: list[int] = []
        self.greatest = 0  # of all ids, also of compacted segments
        self.opened: dict[int, Segment] = {}  # those that a run did not seal on every copy

    @property
    def newest(self) -> int:
        """The newest segment, 0 if there is none."""
        return self.ids[-1] if self.ids else 0

    def _living(self) -> list[BlobStore]:
        return [copy.store for copy in self._copies if copy.alive]

    async def recover(
        self, *, sealed_below: int, created_ns: int, require_whole: Callable[[], None]
    ) -> list[Segment]:
        """Find all segments; complete and seal those that were left open. Return these, and the empty ones to delete.

        A copy that fails on the way is marked dead. `require_whole` raises as soon as no whole one is left: a stale copy alone
        would show segments as empty that it never got, and what is sealed so stays so.
        """
        require_whole()
        self.ids = await self._list()
        candidates = [container for container in self.ids if container >= sealed_below]
        empty = []
        waiting = list(enumerate(candidates))
        while waiting:
            index, container = waiting[0]
            living = [copy for copy in self._copies if copy.alive]
            stores = [copy.store for copy in living]
            pages = [await seg.page_of(store, container) for store in stores]
            sealed = [page.size for page in pages if page and page.state == fmt.State.SEALED]
            if len(sealed) == len(stores) and len(set(sealed)) == 1:
                self.opened[container] = Segment(container, stores, sealed=True, size=sealed[0])
                del waiting[0]
                continue
            durable_to = sealed[0] if sealed else 0
            for later in candidates[index + 1 :]:
                mark = await self._first_mark(later)
                if mark is not None and mark.container == container:
                    durable_to = max(durable_to, mark.offset)
            segment, failures = await seg.recover(
                container,
                stores,
                pages,
                durable_to=durable_to,
                created_ns=created_ns,
                copies=len(self._copies),
            )
            for copy, failure in zip(living, failures, strict=True):
                if failure is not None and not isinstance(failure, NoSpace):
                    copy.alive, copy.reason = False, str(failure)
            require_whole()
            if not segment.sealed:
                continue  # with the copies that can be read
            del waiting[0]
            if segment.size <= fmt.PAGE:
                empty.append(segment)
                self.ids.remove(container)
            else:
                self.opened[container] = segment
        return empty

    async def _list(self) -> list[int]:
        ids = set()
        prefix = f"c/{fmt.Lane.JOURNAL:02x}"
        for copy in self._copies:
            after = ""
            while copy.alive:
                page = await copy.store.list(prefix, after=after)
                if not page:
                    break
                for blob in page:
                    parsed = fmt.parse_blob_name(blob.name)
                    if parsed is not None:
                        self.greatest = max(self.greatest, parsed[0])
                        if not parsed[1]:  # a compacted segment has nothing to replay
                            ids.add(parsed[0])
                after = page[-1].name
        return sorted(ids)

    async def reaches(self, since: Position) -> bool:
        """Tell whether everything that was appended after `since` is still here."""
        later = [container for container in self.ids if container > since.container]
        if since.container in self.ids or not later:
            return True
        mark = await self._first_mark(later[0])
        return mark is not None and mark.previous == since.container

    async def size_since(self, since: Position) -> int:
        """See `Journal.logged_since`."""
        living = self._living()
        total = 0
        for container in self.ids:
            if container < since.container:
                continue
            for store in living:
                with suppress(WarpError):
                    total += (await store.stat(fmt.blob_name(container))).size
                    break
            if container == since.container:
                total -= since.offset
        return max(total, 0)

    async def replay(self, since: Position, *, strict: bool) -> AsyncIterator[Entry | Gap]:
        """See `Journal.replay`."""
        living = self._living()
        known = since == START or since.container in self.ids
        previous: int | None = since.container if known else None
        for container in self.ids:
            if container < since.container:
                continue
            segment = self.opened.get(container)
            if segment is None:
                page = await seg.sealed_page(living, container)
                if page is None:
                    if not strict:
                        continue
                    raise Corrupt(
                        f"segment {container:016x} of the journal has no valid page on any copy"
                    )
                segment = Segment(container, living, sealed=True, size=page.size)
            if strict and container != since.container and previous is not None:
                mark = await self._first_mark(container)
                if mark is not None and mark.previous != previous:
                    raise Corrupt(
                        f"the journal's segments between {previous:016x} and {container:016x} are missing"
                    )
            start = since.offset if container == since.container else fmt.PAGE
            gaps: list[Gap] = []
            async for entry in seg.entries(segment, start, gaps=gaps):
                while gaps:
                    yield gaps.pop(0)
                yield entry
            for gap in gaps:
                yield gap
            previous = container

    async def inspect(self) -> AsyncIterator[str]:
        """See `Journal.inspect`."""
        living = [copy for copy in self._copies if copy.alive]
        for copy in self._copies:
            if not copy.alive:
                yield f"the journal's copy on {copy.name} cannot be used: {copy.reason}"
            elif not copy.whole:
                yield f"the journal's copy on {copy.name} was stale when the journal was opened"
        stores = [copy.store for copy in living]
        for container in self.ids:
            page = await seg.sealed_page(stores, container)
            if page is None:
                yield f"segment {container:016x} has no valid page on any copy"
                continue
            async for offset, lacking in seg.damage(container, page.size, stores):
                where = ", ".join(living[index].name for index in lacking)
                lost = ", so it is lost" if len(lacking) == len(living) else ""
                yield f"segment {container:016x} is damaged at {offset} on {where}{lost}"

    async def _first_mark(self, container: int) -> Mark | None:
        async for entry in seg.entries(Segment(container, self._living()), end=fmt.PAGE + 1):
            if entry.kind == fmt.Kind.BATCH:
                return msgspec.msgpack.decode(entry.payload, type=Mark)
        return None
