"""How the rows of content written in place change: a fold moves into them what was written since the last one."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Final

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import Corrupt
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.extents import CHANGE_HEAD, PIECES_MAX, WINDOW, Pieces
from warp_core.namespace.inodes import Inode, Position, read_inode
from warp_core.namespace.layers import END, Layer, Layers, Ledger
from warp_core.namespace.pools import Claim
from warp_core.namespace.rows import Revision
from warp_core.namespace.tables import (
    Entry,
    Overlay,
    Table,
    chunks_of_window,
    pack_window,
    table_of,
    unpack_window,
)

BATCH: Final = 12  # windows of one transaction: with archived rows and dead lists within WRITES_MAX and COMMIT_MAX
CHUNK_WASTE: Final = 64 * 1024  # bytes of a chunk that nothing shows and that nobody minds
TOGETHER: Final = 8  # transactions of a fold side by side


@dataclass(slots=True)
class Gathered:
    """What was written to a file since the last fold, taken at one moment."""

    pieces: Overlay
    size: int
    cut: int  # lowest size that the file had since the last fold
    modified_ns: int
    last: Position  # of the newest record
    dead: list[tuple[Chunk, int]]  # overwritten before a row referred to it; its window
    alive: dict[Chunk, int]  # bytes of each chunk that nothing newer covers
    claim: Claim = field(default_factory=Claim)  # what was reserved for it


@dataclass(slots=True)
class Untidy:
    """Windows of a file that had better be written anew, as folds find them."""

    crowded: set[int] = field(default_factory=set)  # their rows list more than PIECES_MAX pieces
    wasteful: set[int] = field(default_factory=set)  # most of what their chunks hold is not shown


class Fold:
    """One fold of one file. What it gathered is durable, and the file's folds follow one another.

    `windows` is kept true, and so is what the layers remember of rows, as far as a fold came that breaks off.
    """

    def __init__(
        self,
        ledger: Ledger,
        number: int,
        layers: Layers,
        gathered: Gathered,
        windows: Untidy,
    ) -> None:
        self._ledger = ledger
        self._number = number
        self._layers = layers
        self._layer = layers.top
        self._gathered = gathered
        self._windows = windows
        self._cut = min(gathered.cut, self._layer.cut)

    async def run(self, *, again: bool) -> Inode:
        """Change the rows and return the inode's; `again` after a fold that broke off, whose rows may tell some of it already."""
        state = self._gathered
        allocated = 0
        if again:
            state.dead = await self._in_no_row(state.dead)
        touched = await self._touched()
        batches = [touched[first : first + BATCH] for first in range(0, len(touched), BATCH)]
        if batches and not self._layer.windowed:
            # The first one alone declares that there are windows.
            allocated += await self._fold_together([batches.pop(0)])
        for first in range(0, len(batches), TOGETHER):
            allocated += await self._fold_together(batches[first : first + TOGETHER])

        async def finish(change: Change) -> Inode:
            return await self._fold_inode(change, allocated)

        inode = await self._ledger.transact(finish)
        self._layer.cut = self._cut
        self._layer.windowed = True
        return inode

    async def _fold_together(self, batches: list[list[int]]) -> int:
        """Fold batches of windows in transactions side by side, which share the log's syncs; returns by how much more they take."""
        done = await asyncio.gather(
            *(self._fold_batch(batch) for batch in batches), return_exceptions=True
        )
        allocated = 0
        for each in done:
            if isinstance(each, BaseException):
                raise each
            allocated += each
        return allocated

    async def _fold_batch(self, batch: list[int]) -> int:
        async def body(change: Change) -> list[tuple[int, Table | None, bool]]:
            self._was_admitted(change)
            if not self._layer.windowed:
                await self._declare_windows(change)
            return [await self._fold_window(change, window) for window in batch]

        done = await self._ledger.transact(body)
        self._layer.windowed = True
        self._layer.folded += 1
        for window, (_, table, wasteful) in zip(batch, done, strict=True):
            self._layer.remember(window, table)
            if table is not None and len(table) > PIECES_MAX:
                self._windows.crowded.add(window)
            else:
                self._windows.crowded.discard(window)
            if wasteful:
                self._windows.wasteful.add(window)
        return sum(taken for taken, _, _ in done)

    def _was_admitted(self, change: Change) -> None:
        """Say that quotas were asked when it was written: it may not be refused now."""
        change.judged = False
        change.credit = self._gathered.claim

    async def _in_no_row(self, dead: list[tuple[Chunk, int]]) -> list[tuple[Chunk, int]]:
        """Leave out what a fold that broke off has linked: its windows' rows throw it away."""
        linked: set[Chunk] = set()
        for window in {window for _, window in dead if window >= 0}:
            value = await self._ledger.rows().get(keys.window_key(self._layer.revision, window))
            if value is not None:
                linked |= chunks_of_window(value)
        return [each for each in dead if each[0] not in linked]

    async def _touched(self) -> list[int]:
        """Return the windows whose rows have to change, ascending."""
        pieces, cut, layers = self._gathered.pieces, self._cut, self._layers
        touched = set(pieces.windows)
        for piece in pieces.holes:
            touched.update(await layers.known(piece.offset, min(piece.end, cut)))
            if piece.end > cut:  # the rest of what lies below is hidden by the cut
                touched.update(await layers.windows_between(max(piece.offset, cut), piece.end))
        return sorted(touched)

    async def _declare_windows(self, change: Change) -> None:
        """Say in the revision's row that there are windows, before the first one is there."""
        revision = await self._revision(change)
        revision = msgspec.structs.replace(revision, born=change.epoch, windowed=True)
        await change.rows.put(keys.revision_key(self._layer.revision), rows.encode(revision))

    async def _revision(self, change: Change) -> Revision:
        key = keys.revision_key(self._layer.revision)
        stored = await change.rows.get(key)
        if stored is None:
            raise Corrupt(f"revision {self._layer.revision} of inode {self._number} vanished")
        revision: Revision = rows.checked(rows.decode_revision, key, stored)
        return revision

    async def _fold_window(self, change: Change, window: int) -> tuple[int, Table | None, bool]:
        """Change one window's row; returns by how much more it takes, what the row lists now, and whether that is wasteful."""
        tx = change.rows
        fresh, limit = self._gathered.pieces, self._cut
        start, end = window * WINDOW, (window + 1) * WINDOW
        key = keys.window_key(self._layer.revision, window)
        inline = 0
        value = await tx.get(key)
        if value is not None:
            old = unpack_window(value)
            if await tx.get_present(key) is None:  # a clone's base wrote it, and frees it
                old = old.owned_by(tx.volume.bases[0][0])
        else:
            below = await self._layers.below(start, min(end, limit))
            # What lay inline was written anew, as chunks, before the first change.
            old = table_of((each for each in below if isinstance(each.chunk, Chunk)), start)
            inline = sum(each.length for each in below if isinstance(each.chunk, bytes))
        data = old.copy()
        covered: list[Entry] = []
        for hole in fresh.holes.within(start, end):
            covered += data.lay(hole, start)
        newer = fresh.windows.get(window)
        if newer is not None:
            for row in newer.rows():
                covered += data.lay_row(*row)
        data = data.without_holes()
        table: Table | None = data
        if len(data) or await self._layers.below(start, min(end, limit)):
            kept = await tx.put(key, pack_window(tx.epoch, data))
        elif value is not None:
            kept = await tx.delete(key)
            table = None
        else:
            return 0, None, False
        gone = _no_longer(covered, data)
        if gone and newer is not None:  # after a fold that broke off the row lists them already
            gone -= newer.own_chunks()
        if gone and not kept:
            for other in await tx.relatives(key):
                gone -= chunks_of_window(other)
            if gone:
                change.free(self._layer.revision, gone)
        taken = (newer.data_bytes() if newer is not None else 0) - inline
        taken -= sum(each.length for each in covered if each.container)
        cut = any(_own(each) and each.length + CHANGE_HEAD < each.whole for each in covered)
        cut = cut or (newer is not None and newer.shows_parts(CHANGE_HEAD))
        return taken, table, cut and _is_wasteful(data)

    async def _fold_inode(self, change: Change, allocated: int) -> Inode:
        self._was_admitted(change)
        tx = change.rows
        state, cut = self._gathered, self._cut
        value = await tx.get(keys.inode_key(self._number))
        if value is None:
            raise Corrupt(f"inode {self._number} vanished while it was written")
        old = read_inode(self._number, value)
        etag = f"{secrets.token_hex(16)}-0"
        inode = msgspec.structs.replace(
            old,
            born=tx.epoch,
            size=state.size,
            etag=etag,
            modified_ns=state.modified_ns,
            changed_ns=max(old.changed_ns, state.modified_ns),
            change=old.change + 1,
            allocated=max(0, old.allocated + allocated),
            folded=max(state.last, old.folded),
        )
        await tx.put(keys.inode_key(self._number), rows.encode(inode))
        revision = await self._revision(change)
        await tx.put(
            keys.revision_key(self._layer.revision),
            rows.encode(
                msgspec.structs.replace(
                    revision,
                    born=tx.epoch,
                    size=state.size,
                    etag=etag,
                    modified_ns=state.modified_ns,
                    windowed=True,  # readers of extents alone would miss the cut and holes behind it
                    cut=cut if cut < END else -1,
                    checksums={},  # of the content that was
                    checksum_type="",
                    parts=(),
                )
            ),
        )
        change.count(bytes=state.size - old.size)
        if state.dead:
            dead = [chunk for chunk, _ in state.dead]
            change.free(self._layer.revision, dead)
        return inode


async def put_revision_above(ledger: Ledger, number: int, layers: Layers) -> Inode:
    """Let an inode go on in a new revision made of its current one, which stays as it is; returns the inode's row."""
    revision = await ledger.new_id()
    base = layers.top

    async def body(change: Change) -> Inode:
        tx = change.rows
        value = await tx.get(keys.inode_key(number))
        stored = await tx.get(keys.revision_key(base.revision))
        if value is None or stored is None:
            raise Corrupt(f"inode {number} or its revision vanished")
        old = read_inode(number, value)
        under: Revision = rows.checked(
            rows.decode_revision, keys.revision_key(base.revision), stored
        )
        inode = msgspec.structs.replace(old, born=tx.epoch, revision=revision, shared=False)
        over = Revision(
            born=tx.epoch,
            size=under.size,
            etag=under.etag,
            modified_ns=under.modified_ns,
            headers=under.headers,
            metadata=under.metadata,
            tags=under.tags,
            storage_class=under.storage_class,
            owner=under.owner,
            acl=under.acl,
            seal=under.seal,
            windowed=True,
            base=base.revision,
        )
        await tx.put(keys.inode_key(number), rows.encode(inode))
        await tx.put(keys.revision_key(revision), rows.encode(over))
        volume = ledger.number
        await change.hold(base.revision, keys.holder_of_revision(volume, revision))
        await change.release(base.revision, keys.holder_of_inode(number))
        return inode

    inode = await ledger.transact(body)
    layers.top = Layer(revision, Pieces(), windowed=True, cut=END, base=base)
    return inode


def _own(entry: Entry) -> bool:
    """Say whether an entry is data that the row's own revision wrote."""
    return bool(entry.container and not entry.volume and not entry.revision)


def _is_wasteful(table: Table) -> bool:
    """Say whether more of a window's own chunks is hidden than shown: written anew, they are given back whole."""
    kept = sum(chunk.length - CHANGE_HEAD for chunk in table.own_chunks())
    shown = sum(each.length for each in table if _own(each))
    return kept - shown > max(shown, CHUNK_WASTE)


def _no_longer(covered: list[Entry], now: Table) -> set[Chunk]:
    """Return which of the chunks that the revision wrote into a window, and that something covers, it does not list any more."""
    gone: set[Chunk] = set()
    perhaps: set[Chunk] = set()
    for each in covered:
        if _own(each):
            chunk = each.chunk
            assert chunk is not None
            # A chunk that is covered in one piece, all of it, is in no other.
            (gone if each.length + CHANGE_HEAD == each.whole else perhaps).add(chunk)
    if perhaps:
        gone |= perhaps - now.own_chunks()
    return gone
