"""The stretches of one file that its rows do not tell yet, in their order: how they are folded, and marked (`pending.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from warp_core.namespace.folding import Fold, Untidy, mark
from warp_core.namespace.inodes import Inode, Position
from warp_core.namespace.layers import Layers, Ledger
from warp_core.namespace.pending import Gathered, Pending
from warp_core.namespace.tables import Overlay


class Synced(Protocol):
    """What makes records durable: the log."""

    async def flush(self) -> None:
        """Return when everything appended before is durable."""


class Stretches:
    """What was written to a file and closed off, oldest first. `take` is told what the inode's row says."""

    def __init__(
        self,
        ledger: Ledger,
        log: Synced,
        number: int,
        layers: Layers,
        pending: Pending,
        take: Callable[[Inode], None],
    ) -> None:
        self.queue: list[Gathered] = []
        self.pieces = 0  # in all of them
        self.windows = Untidy()
        self.folding = asyncio.Lock()  # held by who changes windows
        self._row = asyncio.Lock()  # of the inode: a fold's end and a mark come one after the other
        self._ledger = ledger
        self._log = log
        self._number = number
        self._layers = layers
        self._pending = pending
        self._take = take

    @property
    def marks(self) -> set[bytes]:
        """The keys of the N rows that say what is still to come into windows."""
        return {each.row for each in self.queue if each.row}

    def add(self, gathered: Gathered) -> None:
        """Take a stretch that was closed: it lies above the rows of the layer on top."""
        self.queue.append(gathered)
        self.pieces += len(gathered.pieces)
        self._layers.top.above.append(gathered)

    def adopt(self, gathered: Gathered) -> None:
        """Take a stretch that was marked before a crash, and that the layers know."""
        self.queue.append(gathered)

    def at(self, position: Position) -> Gathered | None:
        """Return the stretch that a record belongs to, None if it is newer than all."""
        for gathered in self.queue:
            if position <= gathered.last:
                return gathered
        return None

    async def fold(self, pause: Callable[[], Awaitable[None]]) -> None:
        """Fold all, the oldest first; `folding` is held, and `pause` awaited between transactions."""
        for gathered in list(self.queue):
            await self._make_durable()
            fold = Fold(self._ledger, self._number, self._layers, gathered, self.windows, pause)
            try:
                await fold.run()
                async with self._row:
                    others = any(each.row == gathered.row for each in self.queue[1:])
                    self._take(await fold.finish(row_stays=others))
                    self._forget(gathered)
            except BaseException:
                gathered.partial = True
                raise

    def _forget(self, gathered: Gathered) -> None:
        """Drop a stretch that is in the rows."""
        gathered.done = True
        gathered.claim.release()
        self.queue.remove(gathered)
        self.pieces = sum(len(each.pieces) for each in self.queue)
        layer = self._layers.layer_of(gathered.revision)
        assert layer is not None
        layer.above.remove(gathered)
        self._pending.remove(self._ledger.number, gathered)

    async def mark(self) -> None:
        """Have rows say how the file is after all of them, and what windows lack; nobody writes meanwhile."""
        async with self._row:
            unmarked = [each for each in self.queue if not each.row]
            if not unmarked:
                return
            await self._make_durable()
            top = self._layers.top
            same = [each for each in self.queue if each.revision == top.revision]
            inode, epoch, row = await mark(self._ledger, self._number, same, top.cut)
            for each in unmarked:
                each.epoch, each.row = epoch, row
                self._pending.add(self._ledger.number, each)
            self._take(inode)

    async def _make_durable(self) -> None:
        """Sync what was written if the next commit does not."""
        if not self._ledger.journaled():
            await self._log.flush()

    def in_many_pieces(self, fresh: Overlay, few: int) -> list[int]:
        """Return windows whose rows are to get more than a few pieces, those in `fresh` included, or any where they have many."""
        found = [window for window in self.windows.crowded if window in fresh.windows]
        queued = [each.pieces.windows for each in self.queue]
        bar = few - sum(each.widest for each in self.queue)
        for window, table in fresh.windows.items():
            if len(table.starts) > bar:
                here = [windows[window] for windows in queued if window in windows]
                if len(table.starts) + sum(len(each) for each in here) > few:
                    found.append(window)
        return found
