"""Segments of the journal as they lie on several stores: reading any good copy, finding the end
after a crash, sealing.

An offset is written once, and a record names its container and offset and carries checksums. So a
valid record found at its place on any copy is the record: copies are read as their union, and one
that lacks something gets it from another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from warp_core.containers import format as fmt
from warp_core.containers.pages import Page, pack_page, unpack_page
from warp_core.errors import NewerFormat, NotFound, WarpError
from warp_core.interfaces.stores import BlobStore

WINDOW = 1024 * 1024  # bytes read at once while a segment is scanned
SEARCH = (
    4 * 1024 * 1024
)  # likewise while the next record is searched: mostly in what was reserved and never written
RECORD_MAX = (
    4 * 1024 * 1024
)  # bytes of one record in the journal: a commit of COMMIT_MAX, with room


class Position(NamedTuple):
    """A place in the journal: places sort in the order of what was appended."""

    container: int
    offset: int


START = Position(0, 0)


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """Payload of a batch mark, the first record of each batch.

    Everything before (`container`, `offset`) was durable on every copy when the mark was made.
    `previous` is the segment before this one, 0 for the first.
    """

    container: int
    offset: int
    previous: int


class Gap(NamedTuple):
    """A range that was durable once and that no copy can show any more."""

    start: Position
    end: int


class Entry(NamedTuple):
    """One record of the journal."""

    kind: int
    owner: fmt.Owner
    sequence: int
    payload: memoryview  # as it is stored
    chunk: fmt.Chunk
    filters: str = ""  # that the payload went through

    @property
    def position(self) -> Position:
        """Where it lies."""
        return Position(self.chunk.container, self.chunk.offset)

    @property
    def end(self) -> Position:
        """Where the next record may begin."""
        return Position(self.chunk.container, fmt.align(self.chunk.offset + self.chunk.stored))


@dataclass(slots=True)
class Segment:
    """One container of the journal. `size` is where its last record ends once it is sealed."""

    container: int
    stores: list[BlobStore]
    sealed: bool = False
    size: int = 0
    payload: int = (
        0  # bytes of records that are neither commits nor marks: what containers keep books about
    )

    @property
    def blob(self) -> str:
        """Name of its blobs."""
        return fmt.blob_name(self.container)


class _Window:
    """One copy's bytes around where the scan is."""

    def __init__(self, store: BlobStore, blob: str) -> None:
        self.store = store
        self.blob = blob
        self.start = 0
        self.data = b""
        self.failed = False
        self.error: WarpError | None = (
            None  # of the last read that failed, though the blob is there
        )

    async def at(self, offset: int, length: int) -> memoryview:
        """Return up to `length` bytes from `offset`: fewer at the blob's end, none from a copy that
        cannot be read.
        """
        if offset < self.start or offset + length > self.start + len(self.data):
            if self.failed:
                return memoryview(b"")
            try:
                self.data = await self.store.read(
                    self.blob, offset=offset, length=max(length, WINDOW)
                )
            except NotFound:
                self.failed = True
                self.data = b""
            except WarpError as error:
                # An unreadable sector is like a damaged one: ask the others, go on behind it.
                self.data = b""
                self.error = error
            self.start = offset
        return memoryview(self.data)[offset - self.start : offset - self.start + length]


class Reader:
    """Reads a segment as the union of its copies."""

    def __init__(self, container: int, stores: Sequence[BlobStore]) -> None:
        self.container = container
        self._windows = [_Window(store, fmt.blob_name(container)) for store in stores]

    @property
    def errors(self) -> list[WarpError | None]:
        """For each copy, why some of it could not be read."""
        return [window.error for window in self._windows]

    async def record(self, offset: int) -> tuple[fmt.Head, memoryview, list[int]] | None:
        """Return head, record bytes and the indexes of copies that lack it.

        None if no copy has it whole.
        """
        found: tuple[fmt.Head, memoryview] | None = None
        lacking = []
        for index, window in enumerate(self._windows):
            data = await window.at(offset, 4 * 1024)
            span = fmt.head_span(data)
            if span > len(data):
                data = await window.at(offset, span)
            head = fmt.unpack_head(data)
            if (
                head is None
                or head.container != self.container
                or head.offset != offset
                or head.stored > RECORD_MAX
            ):
                lacking.append(index)
                continue
            data = await window.at(offset, head.stored)
            if len(data) < head.stored or fmt.bad_frames(head, 0, data[head.size :]):
                lacking.append(index)
            elif found is None:
                found = head, data
        return (found[0], found[1], lacking) if found is not None else None

    async def next_head(self, offset: int, end: int) -> int | None:
        """Return the offset of the first valid head in [offset, end) of any copy."""
        best: int | None = None
        for window in self._windows:
            at = offset
            while at < (end if best is None else best):
                data = await window.at(at, SEARCH)
                head = fmt.find_head(data, container=self.container, base=at)
                if head is not None:
                    best = head.offset if best is None else min(best, head.offset)
                    break
                if len(data) < SEARCH:
                    break
                # Heads and tables that cross the edge are found with the next window, which
                # overlaps.
                at += SEARCH - 64 * 1024
        return best


async def entries(
    segment: Segment,
    start: int = fmt.PAGE,
    *,
    end: int | None = None,
    gaps: list[Gap] | None = None,
) -> AsyncIterator[Entry]:
    """Yield the records of a segment from `start` on, in order, each verified; ranges that no copy has go into `gaps`."""
    limit = segment.size if end is None else end
    reader = Reader(segment.container, segment.stores)
    offset = max(start, fmt.PAGE)
    while offset < limit:
        record = await reader.record(offset)
        if record is None:
            following = await reader.next_head(offset + fmt.ALIGN, limit)
            upto = limit if following is None else following
            if gaps is not None:
                gaps.append(Gap(Position(segment.container, offset), upto))
            offset = upto
            continue
        head, data, _ = record
        stored = data[head.size : head.stored]
        yield Entry(head.kind, head.owner, head.sequence, stored, head.chunk, head.filters)
        offset = head.next


async def damage(
    container: int, size: int, stores: Sequence[BlobStore]
) -> AsyncIterator[tuple[int, list[int]]]:
    """Yield (offset, indexes of the stores) for every record that some copy lacks."""
    reader = Reader(container, stores)
    offset = fmt.PAGE
    while offset < size:
        record = await reader.record(offset)
        if record is None:
            yield offset, list(range(len(stores)))
            offset = await reader.next_head(offset + fmt.ALIGN, size) or size
            continue
        head, _, lacking = record
        if lacking:
            yield offset, lacking
        offset = head.next


async def page_of(store: BlobStore, container: int) -> Page | None:
    """Return a copy's page, None if it has none that is valid: a recycled blob may show an older
    one's.
    """
    try:
        page = unpack_page(await store.read(fmt.blob_name(container), offset=0, length=fmt.PAGE))
    except NewerFormat:
        raise
    except WarpError:
        return None
    return page if page is not None and page.container == container else None


async def sealed_page(stores: Sequence[BlobStore], container: int) -> Page | None:
    """Return the page of the first copy that is sealed.

    A stale copy's page may say that it is still open.
    """
    for store in stores:
        page = await page_of(store, container)
        if page is not None and page.state == fmt.State.SEALED:
            return page
    return None


async def recover(
    container: int,
    stores: Sequence[BlobStore],
    pages: Sequence[Page | None],
    *,
    durable_to: int,
    created_ns: int,
    copies: int = 0,
) -> tuple[Segment, list[WarpError | None]]:
    """Find the end of a segment that a crash left open, complete every copy, and seal it.

    Returns the segment, and for each store why its copy could not be completed. If a copy could not be read, none is completed:
    what it has, or where the segment ends, may be known by it alone, and the others would be sealed without that for ever. One that
    is sealed can be gone on with; one that is open cannot.

    Args:
        stores: All that should hold it afterwards; those that lack the blob get it.
        pages: Of each store's copy. A copy that is sealed already says where the end is; of several, the longest.
        durable_to: Offset below which a later segment says that everything was durable.
        created_ns: For the page.
        copies: That there should be, also on stores that are away; 0: one on each of these.

    Otherwise the end is the first place at which no copy has a valid record, unless a mark says
    that more was durable: what is missing before that is a gap.
    """
    reader = Reader(container, stores)
    missing: list[list[tuple[int, bytes]]] = [[] for _ in stores]
    segment = Segment(container, list(stores), sealed=True)
    ends = [page.size if page and page.state == fmt.State.SEALED else 0 for page in pages]
    size = max(ends)
    # A start that went no further may have sealed one copy alone, where the other one has a tail that nobody acknowledged.
    sealed = [end == size > 0 for end in ends]
    reserved = size or await _reserved(container, stores)
    offset = fmt.PAGE
    while not size or offset < size:
        record = await reader.record(offset)
        if record is None:
            if size:
                following = await reader.next_head(offset + fmt.ALIGN, size) or size
            else:
                after = await _durable_after(reader, container, offset, reserved, durable_to)
                if after is None:
                    break
                following = after
            offset = following
            continue
        head, data, lacking = record
        for index in lacking:
            missing[index].append((offset, bytes(data)))
        if head.kind not in (fmt.Kind.COMMIT, fmt.Kind.BATCH):
            segment.payload += head.next - offset
        offset = head.next
    segment.size = offset
    if any(reader.errors):
        segment.sealed = False
        unread = [None if done else why for why, done in zip(reader.errors, sealed, strict=True)]
        if not any(unread):
            why = next(error for error in reader.errors if error)
            unread = [None if done else why for done in sealed]
        return segment, unread

    async def complete(
        store: BlobStore, lacks: Sequence[tuple[int, bytes]], done: bool
    ) -> WarpError | None:
        if not done:
            try:
                await _complete(
                    store,
                    container,
                    lacks,
                    size=offset,
                    copies=copies or len(stores),
                    created_ns=created_ns,
                )
            except WarpError as error:
                return error
        return None

    failures = await asyncio.gather(*map(complete, stores, missing, sealed))
    return segment, failures


async def _reserved(container: int, stores: Sequence[BlobStore]) -> int:
    size = fmt.PAGE
    for store in stores:
        try:
            size = max(size, (await store.stat(fmt.blob_name(container))).size)
        except NotFound:
            continue
    return size


async def _durable_after(
    reader: Reader, container: int, offset: int, reserved: int, durable_to: int
) -> int | None:
    """Return where records go on behind a gap at `offset`, if something says that the gap was
    durable once.
    """
    at = await reader.next_head(offset + fmt.ALIGN, reserved)
    if durable_to > offset:
        return durable_to if at is None else min(at, durable_to)
    first = at
    while at is not None:
        record = await reader.record(at)
        if record is None:
            at = await reader.next_head(at + fmt.ALIGN, reserved)
            continue
        head, data, _ = record
        if head.kind == fmt.Kind.BATCH:
            mark = msgspec.msgpack.decode(data[head.size : head.stored], type=Mark)
            if Position(mark.container, mark.offset) > Position(container, offset):
                return first
        at = head.next
        if at >= reserved:
            break
    return None


async def _complete(
    store: BlobStore,
    container: int,
    lacks: Sequence[tuple[int, bytes]],
    *,
    size: int,
    copies: int,
    created_ns: int,
) -> None:
    """Give a copy the records that it lacks and seal it."""
    blob = fmt.blob_name(container)
    try:
        await store.stat(blob)
    except NotFound:
        await store.create(blob, reserve=size)
    for offset, run in _runs(lacks):
        await store.write(blob, offset=offset, buffers=[run])
    await store.sync(blob)
    await seal(store, container, size=size, copies=copies, created_ns=created_ns)


def _runs(records: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield records, padded, as runs of up to WINDOW bytes that lie side by side.

    A copy with another node may lack ten thousand records of 4 KiB, and a write of each would be a round trip.
    """
    start, size = 0, 0
    parts: list[bytes] = []
    for offset, data in records:
        if parts and (offset != start + size or size >= WINDOW):
            yield start, b"".join(parts)
            parts = []
        if not parts:
            start, size = offset, 0
        padded = fmt.align(len(data))
        parts += (data, bytes(padded - len(data)))
        size += padded
    if parts:
        yield start, b"".join(parts)


async def seal(
    store: BlobStore,
    container: int,
    *,
    size: int,
    copies: int,
    created_ns: int,
    keep: bool = False,
) -> None:
    """Say in the page that nothing follows `size`, durably, and give back what was reserved.

    With `keep` the blob stays as it is: it will soon be deleted, and the store may recycle it.
    """
    page = Page(container, state=fmt.State.SEALED, copies=copies, created_ns=created_ns, size=size)
    blob = fmt.blob_name(container)
    await store.write(blob, offset=0, buffers=[pack_page(page)], sync=True)
    if not keep:
        await store.seal(blob, size=size)
