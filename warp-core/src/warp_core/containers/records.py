"""Walking through containers: which records there are, and their bytes from whichever copy is good.

Small records are read many at a time (`stretches`): a read costs a hop to a thread and back, some 60 us, and a segment of the journal
has ten thousand of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from warp_core.containers.fleet import Container, Copy, Fleet
from warp_core.containers.format import (
    FRAME,
    HEAD,
    PAGE,
    Head,
    bad_frames,
    find_head,
    unpack_head,
    whole,
)
from warp_core.containers.pages import Map
from warp_core.errors import Corrupt, NotFound, StoreFailed
from warp_core.interfaces.stores import Buffer

WINDOW = (
    256 * 1024
)  # read at once while looking for heads: many small records, or the head of one large
OVERLAP = 16 * 1024  # a head with its table is never longer: 64 bytes, names, 1024 entries
PIECE_FRAMES = 16  # frames moved at once: 1 MiB
STRETCH_GAP = (
    32 * 1024
)  # bytes between two records that are read in vain: they cost less than a read of their own

Placed = tuple[Head, int]  # a record and its position in a copy's blob


async def heads(fleet: Fleet, entry: Container, copy: Copy) -> AsyncIterator[Head]:
    """Yield the heads of all records that one copy has, by offset; damaged stretches are passed over.

    Raises:
        Corrupt, NotFound, StoreFailed: The copy cannot be read at all.
    """
    await fleet.load(copy)
    if copy.map is not None:
        runs: Iterable[tuple[int, int, int]] = copy.map.runs()
    else:
        end = entry.size or (await copy.slot.store.stat(copy.name)).size
        runs = [(PAGE, end - PAGE, PAGE)]
    for offset, length, position in runs:
        async for head in _run_heads(copy, entry.id, offset, offset + length, position - offset):
            yield head


async def _run_heads(
    copy: Copy, container: int, at: int, end: int, shift: int
) -> AsyncIterator[Head]:
    store = copy.slot.store
    while at + HEAD <= end:
        window = await store.read(copy.name, offset=at + shift, length=min(WINDOW, end - at))
        base = at
        if len(window) < HEAD:
            return
        while at + HEAD <= base + len(window):
            head = unpack_head(window, at=at - base)
            if head is None or head.container != container or head.offset != at:
                head = find_head(window, container=container, base=base, start=at - base)
            if head is None:
                break
            yield head
            at = head.next
        else:
            continue
        last = base + len(window) >= end
        if last:
            return
        # Nothing valid up to the window's end; a head may lie across it.
        at = max(at, base + len(window) - OVERLAP) if at == base or len(window) > OVERLAP else at
        if at <= base:
            return


async def inventory(fleet: Fleet, entry: Container) -> list[Head]:
    """Return the heads of a container by offset: of the first copy that explains all of it, else of all copies together.

    Raises:
        Corrupt: No copy can be read.
        StoreFailed: Nor can one just now whose store is away, and will be back.
    """
    found: dict[int, Head] = {}
    problem: Exception | None = None
    read = 0
    away = False
    for copy in tuple(fleet.copies(entry.id)):
        try:
            async for head in heads(fleet, entry, copy):
                found.setdefault(head.offset, head)
            read += 1
        except (Corrupt, NotFound, StoreFailed) as error:
            problem = error
            away = away or (isinstance(error, StoreFailed) and error.retryable)
            continue
        if not unexplained(fleet, entry, found.values()):
            break
    if not read and away:
        raise StoreFailed(f"no copy of container {entry.id:016x} can be read now: {problem}")
    if not read:
        raise Corrupt(f"no copy of container {entry.id:016x} can be read: {problem}")
    return [found[offset] for offset in sorted(found)]


def unexplained(fleet: Fleet, entry: Container, found: Iterable[Head]) -> list[tuple[int, int]]:
    """Return the ranges (offset, length) of a container that are neither records nor known to be dead."""
    known = [(head.offset, head.next) for head in found]
    dead = fleet.ledger.known.dead.get(entry.id)
    if dead is not None:
        known += [(offset, offset + length) for offset, length in dead.ranges()]
    for copy in entry.copies:
        if copy.map is not None:  # what it left out was dead, or a commit that nobody needed
            known += _between(copy.map, entry.size)
    gaps: list[tuple[int, int]] = []
    at = PAGE
    for start, end in sorted(known):
        if start > at:
            gaps.append((at, start - at))
        at = max(at, end)
    if entry.size > at:
        gaps.append((at, entry.size - at))
    return gaps


def _between(mapped: Map, size: int) -> list[tuple[int, int]]:
    """Return the (start, end) of what lies between the runs of a map."""
    holes = []
    at = PAGE
    for offset, length, _ in mapped.runs():
        holes.append((at, offset))
        at = offset + length
    return [*holes, (at, size)]


def stretches(keep: Iterable[Head], copy: Copy) -> Iterator[list[Placed]]:
    """Divide records (by offset) into runs of up to WINDOW bytes of a copy, to be read at once; those that it lacks are left out."""
    run: list[Placed] = []
    begin = end = 0
    for head in keep:
        position = copy.position(head.offset)
        if position is None:
            continue
        if run and (position - end > STRETCH_GAP or position + head.stored - begin > WINDOW):
            yield run
            run = []
        if not run:
            begin = position
        run.append((head, position))
        end = position + head.stored
    if run:
        yield run


async def read_stretch(copy: Copy, run: Sequence[Placed]) -> list[Buffer | None]:
    """Read records of one run; of each its bytes, verified, or None where they are damaged or not there.

    Raises:
        NotFound, StoreFailed: As the store says.
    """
    begin = run[0][1]
    last, end = run[-1]
    length = end + last.stored - begin
    data = memoryview(await copy.slot.store.read(copy.name, offset=begin, length=length))
    found: list[Buffer | None] = []
    for head, position in run:
        at = position - begin
        good = whole(data, at=at) == head
        found.append(data[at : at + head.stored] if good else None)
    return found


async def stored(fleet: Fleet, entry: Container, keep: Sequence[Head]) -> AsyncIterator[Buffer]:
    """Yield the bytes of records (by offset) in pieces, each record padded; verified, and from any copy that has them.

    Raises:
        Corrupt: No copy has some piece; the message names the frames.
    """
    gathered: dict[int, Buffer] = {}
    runs: Iterator[list[Placed]] = iter(())
    copy = next(iter(fleet.copies(entry.id)), None)
    if copy is not None:
        try:
            await fleet.load(copy)
        except (Corrupt, NotFound, StoreFailed):
            copy = None
        else:
            runs = stretches(keep, copy)
    upto = -1  # what lies before it was read at once, as far as it could be
    for head in keep:
        while copy is not None and head.offset > upto and (run := next(runs, None)):
            upto = run[-1][0].offset
            gathered = await _gathered(copy, run)
        data = gathered.get(head.offset)
        if data is not None:
            yield data
        else:
            async for piece in pieces(fleet, entry, head):
                yield piece
        if padding := head.next - head.offset - head.stored:
            yield bytes(padding)


async def _gathered(copy: Copy, run: Sequence[Placed]) -> dict[int, Buffer]:
    """Return the records of a run that are good, by offset; a run of one is for `pieces`."""
    if len(run) == 1:
        return {}
    try:
        found = await read_stretch(copy, run)
    except (NotFound, StoreFailed):
        return {}
    return {
        head.offset: data for (head, _), data in zip(run, found, strict=True) if data is not None
    }


async def pieces(
    fleet: Fleet, entry: Container, head: Head, *, sources: Sequence[Copy] | None = None
) -> AsyncIterator[bytes]:
    """Yield the bytes of a record, head first, in pieces of up to a MiB, each verified and from any copy that has it.

    Raises:
        Corrupt: No copy has some piece; the message names the frames.
    """
    copies = tuple(fleet.copies(entry.id)) if sources is None else sources
    yield await _piece(fleet, copies, head, -1, -1)
    for first in range(0, len(head.ends), PIECE_FRAMES):
        yield await _piece(
            fleet, copies, head, first, min(first + PIECE_FRAMES, len(head.ends)) - 1
        )


async def _piece(fleet: Fleet, copies: Sequence[Copy], head: Head, first: int, last: int) -> bytes:
    begin, end = head.span(first, last) if first >= 0 else (0, head.size)
    problems = []
    for copy in copies:
        try:
            await fleet.load(copy)
            position = copy.position(head.offset)
            if position is None:
                raise Corrupt("the copy lacks the record")
            data = await copy.slot.store.read(
                copy.name, offset=position + begin, length=end - begin
            )
            if first < 0:
                if unpack_head(data) != head:
                    raise Corrupt("the head is damaged")
            elif len(data) < end - begin or bad_frames(head, first, data):
                raise Corrupt("frames are damaged")
        except (Corrupt, NotFound, StoreFailed) as error:
            copy.bad = copy.bad or isinstance(error, Corrupt | NotFound)
            problems.append(f"{copy.slot.name}: {error}")
        else:
            return data
    where = (
        f"bytes {max(first, 0) * FRAME} to {min((last + 1) * FRAME, head.length) - 1}"
        if first >= 0
        else "the head"
    )
    raise Corrupt(
        f"{where} of container {head.container:016x} offset {head.offset} (volume {head.owner.volume}, inode"
        f" {head.owner.inode}, revision {head.owner.revision}) have no good copy: {'; '.join(problems)}"
    )
