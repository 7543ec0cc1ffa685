"""How the rows of content written in place change: a fold moves into them what was written in one stretch.

For who shares the file from now on there is no need to fold first: `mark` has the rows say how the file is, and what is still to come
into its windows (`pending.py`). The fold then changes the windows as of that time.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import Corrupt
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.extents import CHANGE_HEAD, PIECES_MAX, WINDOW, Pieces
from warp_core.namespace.inodes import Inode, read_inode
from warp_core.namespace.layers import Layer, Layers, Ledger
from warp_core.namespace.pending import END, Gathered
from warp_core.namespace.rows import PendingRow, Revision
from warp_core.namespace.tables import (
    Entry,
    Table,
    chunks_of_window,
    listed,
    pack_window,
    table_of,
    unpack_window,
)
from warp_core.namespace.tree import VolumeTransaction

BATCH: Final = 12  # windows of one transaction: with archived rows and dead lists within WRITES_MAX and COMMIT_MAX
CHUNK_WASTE: Final = 64 * 1024  # bytes of a chunk that nothing shows and that nobody minds
TOGETHER: Final = 8  # transactions of a fold side by side
COPIES_MAX: Final = 32  # clones that an N row names; `allocated` of others lacks what was pending


@dataclass(slots=True)
class Untidy:
    """Windows of a file that had better be written anew, as folds find them."""

    crowded: set[int] = field(default_factory=set)  # their rows list more than PIECES_MAX pieces
    wasteful: set[int] = field(default_factory=set)  # most of what their chunks hold is not shown


class Fold:
    """The fold of one stretch of a file. What it gathered is durable, and those before it are in the rows.

    `windows` is kept true, and so is what the layers remember of rows, as far as a fold came that breaks off.
    """

    def __init__(
        self,
        ledger: Ledger,
        number: int,
        layers: Layers,
        gathered: Gathered,
        windows: Untidy,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        """Take what to fold; `pause` is awaited between transactions, for who must not wait for them."""
        layer = layers.layer_of(gathered.revision)
        if layer is None:
            raise Corrupt(f"inode {number} has nothing of revision {gathered.revision}")
        self._ledger = ledger
        self._number = number
        self._layers = layers
        self._layer = layer
        self._gathered = gathered
        self._windows = windows
        self._pause = pause
        self._cut = min(gathered.cut, self._layer.cut)
        self._allocated = 0

    async def run(self) -> None:
        """Change the windows; after a fold that broke off their rows may tell some of it already."""
        state = self._gathered
        for each in self._layers.lent(
            state.owner
        ):  # a window's row is complete, so it is made last
            await each.finish()
        if state.partial:
            state.dead = await self._in_no_row(state.dead)
        touched = await self._touched()
        batches = [touched[first : first + BATCH] for first in range(0, len(touched), BATCH)]
        if batches and not self._layer.windowed:
            # The first one alone declares that there are windows.
            self._allocated += await self._fold_together([batches.pop(0)])
        for first in range(0, len(batches), TOGETHER):
            await self._pause()
            self._allocated += await self._fold_together(batches[first : first + TOGETHER])

    async def finish(self, *, row_stays: bool) -> Inode:
        """Have the inode say that the windows tell it; with `row_stays` another stretch needs the N row. Returns the inode's row."""

        async def body(change: Change) -> Inode:
            if self._gathered.row:
                return await self._finish_marked(change, row_stays)
            return await self._fold_inode(change)

        inode = await self._ledger.transact(body)
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
            tx = change.rows
            if self._gathered.row:
                tx = await tx.as_of(self._gathered.epoch)
            elif not self._layer.windowed:
                await self._declare_windows(change)
            done = [await self._fold_window(change, tx, window) for window in batch]
            if tx is not change.rows:
                change.rows.kept_bytes += tx.kept_bytes
            return done

        done = await self._ledger.transact(body)
        self._layer.windowed = True
        self._layer.folded += 1
        for window, (_, table, wasteful) in zip(batch, done, strict=True):
            self._layer.remember(window, table)
            if table is not None and len(table) > PIECES_MAX:
                self._windows.crowded.add(window)
            else:
                self._windows.crowded.discard(window)
            if wasteful and self._layer is self._layers.top:
                self._windows.wasteful.add(window)
        return sum(taken for taken, _, _ in done)

    def _was_admitted(self, change: Change) -> None:
        _was_admitted(change, self._gathered)

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
            touched.update(await layers.known(self._layer, piece.offset, min(piece.end, cut)))
            if piece.end > cut:  # the rest of what lies below is hidden by the cut
                start = max(piece.offset, cut)
                touched.update(await layers.windows_between(self._layer, start, piece.end))
        return sorted(touched)

    async def _declare_windows(self, change: Change) -> None:
        """Say in the revision's row that there are windows, before the first one is there."""
        revision = await _revision(change, self._number, self._layer.revision)
        revision = msgspec.structs.replace(revision, born=change.epoch, windowed=True)
        await change.rows.put(keys.revision_key(self._layer.revision), rows.encode(revision))

    async def _fold_window(
        self, change: Change, tx: VolumeTransaction, window: int
    ) -> tuple[int, Table | None, bool]:
        """Change one window's row; returns by how much more it takes, what the row lists now, and whether that is wasteful."""
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
            below = await self._layers.below(self._layer, start, min(end, limit))
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
        gone = _no_longer(covered, data)
        if gone and newer is not None:  # after a fold that broke off the row lists them already
            gone -= newer.own_chunks()
        if len(data) or await self._layers.below(self._layer, start, min(end, limit)):
            kept = await tx.put(key, pack_window(tx.epoch, data), gone=gone)
        elif value is not None:
            kept = await tx.delete(key)
            table = None
        else:
            return 0, None, False
        if gone and not kept:
            for other in await tx.relatives(key):
                gone -= listed(other, gone)
            if gone:
                change.free(self._layer.revision, gone)
        taken = (newer.data_bytes() if newer is not None else 0) - inline
        taken -= sum(each.length for each in covered if each.container)
        cut = any(_own(each) and each.length + CHANGE_HEAD < each.whole for each in covered)
        cut = cut or (newer is not None and newer.shows_parts(CHANGE_HEAD))
        return taken, table, cut and _is_wasteful(data)

    async def _fold_inode(self, change: Change) -> Inode:
        self._was_admitted(change)
        state = self._gathered
        inode = await _describe(change, self._number, state, self._cut)
        inode = msgspec.structs.replace(
            inode,
            allocated=max(0, inode.allocated + self._allocated),
            folded=max(state.last, inode.folded),
        )
        await change.rows.put(keys.inode_key(self._number), rows.encode(inode))
        self._free_dead(change)
        return inode

    async def _finish_marked(self, change: Change, row_stays: bool) -> Inode:
        """Say of a marked stretch that it is in the rows; how the file is they said already, and may say more since."""
        self._was_admitted(change)
        tx, state = change.rows, self._gathered
        copies: tuple[int, ...] = ()
        value = await tx.get_present(state.row)
        if value is not None:
            copies = rows.checked(rows.decode_pending, state.row, value).copies
            if not row_stays:
                tx.delete_present(state.row)
        mine: Inode | None = None
        for number in (*copies, self._number):
            key = keys.inode_key(number)
            found = await tx.get(key)
            if found is None:
                continue
            inode = read_inode(number, found)
            inode = msgspec.structs.replace(
                inode, born=tx.epoch, allocated=max(0, inode.allocated + self._allocated)
            )
            if number == self._number:
                inode = msgspec.structs.replace(inode, folded=max(state.last, inode.folded))
                mine = inode
            await tx.put(key, rows.encode(inode))
        if mine is None:
            raise Corrupt(f"inode {self._number} vanished while it was written")
        self._free_dead(change)
        return mine

    def _free_dead(self, change: Change) -> None:
        if self._gathered.dead:
            dead = [chunk for chunk, _ in self._gathered.dead]
            change.free(self._layer.revision, dead)


async def mark(
    ledger: Ledger, number: int, stretches: list[Gathered], cut: int
) -> tuple[Inode, int, bytes]:
    """Have the rows of a file say how it is, and that these stretches, which are durable, are still to come into its windows.

    Returns:
        The inode's row, the epoch that the windows belong to, and the key of the N row.
    """
    state = stretches[-1]
    for each in stretches[:-1]:
        state.claim.absorb(each.claim)

    async def body(change: Change) -> tuple[Inode, int, bytes]:
        _was_admitted(change, state)
        tx = change.rows
        inode = await _describe(change, number, state, min(cut, *(each.cut for each in stretches)))
        await tx.put(keys.inode_key(number), rows.encode(inode))
        key = keys.pending_key(state.revision, tx.epoch)
        value = await tx.get_present(key)
        copies = rows.checked(rows.decode_pending, key, value).copies if value is not None else ()
        tx.put_present(key, rows.encode(PendingRow(number, state.last, copies)))
        return inode, tx.epoch, key

    return await ledger.transact(body)


def _was_admitted(change: Change, gathered: Gathered) -> None:
    """Say that quotas were asked when it was written: it may not be refused now."""
    change.judged = False
    change.credit = gathered.claim


async def note_copy(change: Change, row: bytes, inode: int) -> None:
    """Have a clone count as allocated what is still to come into the windows that it shows as well."""
    value = await change.rows.get_present(row)
    if value is not None:
        pending: PendingRow = rows.checked(rows.decode_pending, row, value)
        if len(pending.copies) < COPIES_MAX:
            copies = (*pending.copies, inode)
            change.rows.put_present(
                row, rows.encode(msgspec.structs.replace(pending, copies=copies))
            )


async def _revision(change: Change, number: int, revision: int) -> Revision:
    key = keys.revision_key(revision)
    stored = await change.rows.get(key)
    if stored is None:
        raise Corrupt(f"revision {revision} of inode {number} vanished")
    found: Revision = rows.checked(rows.decode_revision, key, stored)
    return found


async def _describe(change: Change, number: int, state: Gathered, cut: int) -> Inode:
    """Write in a revision's row how a file is after a stretch, and return its inode's row, which says the same."""
    tx = change.rows
    value = await tx.get(keys.inode_key(number))
    if value is None:
        raise Corrupt(f"inode {number} vanished while it was written")
    old = read_inode(number, value)
    etag = f"{secrets.token_hex(16)}-0"
    revision = await _revision(change, number, state.revision)
    await tx.put(
        keys.revision_key(state.revision),
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
    return msgspec.structs.replace(
        old,
        born=tx.epoch,
        size=state.size,
        etag=etag,
        modified_ns=state.modified_ns,
        changed_ns=max(old.changed_ns, state.modified_ns),
        change=old.change + 1,
    )


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
