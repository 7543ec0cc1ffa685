"""What rows say of content that is written in place: revisions over one another, each with windows over its extents.

```
 what is still to come into the window rows of the top revision (`pending.py`)
      over those
           over its extents
                over the same of the revision that it was made of, as far as its `cut` …
```
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from warp_core.containers import Chunk
from warp_core.errors import Corrupt
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.extents import WINDOW, Piece, Pieces, gaps, pieces_of
from warp_core.namespace.pending import END, NOTHING, Above, Gathered
from warp_core.namespace.rows import Revision, Seal
from warp_core.namespace.tables import Table, unpack_window
from warp_core.namespace.tree import Rows

T = TypeVar("T")

WINDOWS_CACHED: Final = 4096  # windows of one layer of an open file, and
PIECES_CACHED: Final = (
    524_288  # … pieces in them: 22 MiB, all of a disk of 2 GiB that was written in blocks of 4 KiB
)
DEPTH_MAX: Final = 100_000  # revisions below one another: a damaged chain must end


class Log(Protocol):
    """Where records go: the containers."""

    def append(
        self, payload: Buffer, *, volume: int, inode: int, revision: int, filters: str = ""
    ) -> Chunk:
        """Queue a record, through a comma separated list of filters, and return its place; it can be read at once."""

    async def room(self, length: int) -> None:
        """Wait until so many bytes more can be appended."""

    async def flush(self) -> None:
        """Return when everything appended before is durable."""

    async def read(self, chunk: Chunk, *, offset: int, length: int) -> Buffer:
        """Return verified bytes of a record's payload."""

    def has_room(self, length: int) -> bool:
        """Say whether `room` would not wait."""

    def read_now(self, chunk: Chunk, *, offset: int, length: int) -> Buffer | None:
        """Return them if no device has to be waited for."""


class Ledger(Protocol):
    """Where rows are: one volume of the namespace."""

    @property
    def number(self) -> int:
        """The volume's number."""

    def rows(self) -> Rows:
        """Return the rows as they are now."""

    async def transact(self, body: Callable[[Change], Awaitable[T]]) -> T:
        """Run a body in a transaction, again if another was faster; `finish` is called behind it."""

    async def new_id(self) -> int:
        """Return a number that no inode and no revision had."""

    def filters(self) -> str:
        """Return the comma separated filters that new content goes through."""

    def journaled(self) -> bool:
        """Say whether what was appended to the log before a transaction is durable with it."""

    def now_ns(self) -> int:
        """Return the time, growing with every call."""

    def unfilter(self, inline: bytes, filters: str) -> bytes:
        """Return inline content as it was before the volume's filters."""


@dataclass(slots=True)
class Layer:
    """One revision's content: its windows, with what is still to come into them, over its extents, or over its base below `cut`."""

    revision: int
    extents: Pieces
    windowed: bool
    cut: int
    base: Layer | None
    windows: dict[int, Table | None] = field(default_factory=dict)  # those read last
    cached: int = 0  # pieces in them
    folded: int = 0  # counts folds: a window that was read before one is not remembered after it
    above: list[Gathered] = field(
        default_factory=list
    )  # what the rows do not tell yet, oldest first

    def remember(self, window: int, table: Table | None) -> None:
        """Keep a window's row in memory; the one that came first leaves when there are too many."""
        windows = self.windows
        old = windows.pop(window, None)
        self.cached += (len(table) if table else 0) - (len(old) if old else 0)
        windows[window] = table
        while len(windows) > WINDOWS_CACHED or (self.cached > PIECES_CACHED and len(windows) > 1):
            gone = windows.pop(next(iter(windows)))
            self.cached -= len(gone) if gone else 0

    def drop_done(self) -> None:
        """Let go of what others folded: what was remembered of the rows is from before that."""
        self.above = [each for each in self.above if not each.done]
        self.windows.clear()
        self.cached = 0
        self.folded += 1


class Layers:
    """All that one file's stored content is read from: the layer on top leads to those below it."""

    __slots__ = ("_ledger", "_missing", "seals", "top")

    def __init__(self, ledger: Ledger, top: Layer, seals: Sequence[Seal] = ()) -> None:
        self.top = top
        self.seals = seals  # of the content, the one on top first: new content is sealed with that
        self._ledger = ledger
        self._missing: tuple[Layer, int] = (top, 0)  # the row that `now` lacked

    def now(self, start: int, end: int) -> list[Piece] | None:
        """Return what the rows say about a range, holes among it where a window says so; None if a row is not in memory."""
        result: list[Piece] = []
        while start < end:
            border = min(end, (start // WINDOW + 1) * WINDOW)
            found = self._window_now(self.top, start, border)
            if found is None:
                return None
            result += found
            start = border
        return result

    def _window_now(
        self, layer: Layer | None, start: int, end: int, *, bare: bool = False
    ) -> list[Piece] | None:
        limit = end
        window = start // WINDOW
        base = window * WINDOW
        while layer is not None and start < limit:
            if layer.above and not bare:
                return self._above_now(layer, start, limit)
            bare = False
            if layer.windowed:
                if window not in layer.windows:
                    self._missing = (layer, window)
                    return None
                table = layer.windows[window]
                if table is not None:
                    return [each.piece(base) for each in table.within(start - base, limit - base)]
            limit = min(limit, layer.cut)
            if start < limit:
                found = layer.extents.within(start, limit)
                if found or layer.base is None:
                    return found
            layer = layer.base
        return []

    def _above_now(self, layer: Layer, start: int, end: int) -> list[Piece] | None:
        """Return what a layer shows where not all is in its rows yet."""
        if any(each.done for each in layer.above):
            layer.drop_done()
        found: list[Piece] = []
        left = [(start, end)]
        for gathered in reversed(layer.above):
            uncovered: list[tuple[int, int]] = []
            for low, high in left:
                held = gathered.pieces.within(low, high)
                found += held
                uncovered += gaps(held, low, high)
            left = uncovered
        for low, high in left:
            stored = self._window_now(layer, low, high, bare=True)
            if stored is None:
                return None
            found += stored
        return sorted(found)

    async def within(self, start: int, end: int) -> list[Piece]:
        """Return what `now` does, with rows that have to be read."""
        found: list[Piece] = []
        while start < end:  # one window after the other: not all need fit in memory
            border = min(end, (start // WINDOW + 1) * WINDOW)
            found += await self._in_window(self.top, start, border)
            start = border
        return found

    async def _in_window(self, layer: Layer, start: int, end: int) -> list[Piece]:
        while (found := self._window_now(layer, start, end)) is None:
            await self._table(*self._missing)
        return found

    async def _table(self, layer: Layer, window: int) -> Table | None:
        """Return a window's row, read if it is not in memory."""
        while window not in layer.windows:
            folded = layer.folded
            key = keys.window_key(layer.revision, window)
            value = await self._ledger.rows().get(key)
            if folded == layer.folded:
                layer.remember(window, unpack_window(value) if value is not None else None)
        return layer.windows[window]

    async def next_data(self, offset: int) -> int:
        """Return a place at or after `offset` before which there is no data: the next window that anything is known of."""
        candidates = [END]
        layer: Layer | None = self.top
        while layer is not None:
            for gathered in layer.above:  # before the rows, which a fold moves them to
                data = gathered.pieces.next_data(offset)
                if data is not None:
                    candidates.append(max(offset, data))
            candidates += [
                max(offset, each.offset) for each in layer.extents.within(offset, END)[:1]
            ]
            if layer.windowed:
                start = keys.window_key(layer.revision, offset // WINDOW)
                found = await self._ledger.rows().scan(
                    start, keys.windows_of(layer.revision)[1], limit=1
                )
                if found:
                    window = int.from_bytes(found[0][0][-8:], "big")
                    candidates.append(max(offset, window * WINDOW))
            layer = layer.base
        return min(candidates)

    async def known(self, top: Layer, start: int, end: int) -> set[int]:
        """Return the windows of a range that a layer, or one below it, knows something of."""
        found: set[int] = set()
        layer: Layer | None = top
        while layer is not None:
            for piece in layer.extents.within(start, end):
                found.update(range(piece.offset // WINDOW, (piece.end - 1) // WINDOW + 1))
            if layer.windowed and start < end:
                found.update(await self.windows_between(layer, start, end))
            layer = layer.base
        return found

    async def windows_between(self, layer: Layer, start: int, end: int) -> set[int]:
        """Return the windows of a range that a layer has rows of."""
        first = keys.window_key(layer.revision, start // WINDOW)
        last = keys.window_key(layer.revision, (end - 1) // WINDOW) + b"\0"
        return await self._scan_windows(first, last)

    async def _scan_windows(self, first: bytes, last: bytes) -> set[int]:
        found: set[int] = set()
        while page := await self._ledger.rows().scan(first, last):
            found.update(int.from_bytes(key[-8:], "big") for key, _ in page)
            first = page[-1][0] + b"\0"
        return found

    async def below(self, layer: Layer, start: int, end: int) -> list[Piece]:
        """Return what a window of a layer without a row of its own shows, with its owners named; all below it is in rows."""
        if start >= end:
            return []
        found = layer.extents.within(start, end)
        if found or layer.base is None:
            return found
        base = layer.base
        pieces = await self._in_window(base, start, end)
        return [
            each if each.revision else each._replace(revision=await self._owner(base, start))
            for each in pieces
            if each.chunk is not None
        ]

    def lent(self, owner: object) -> list[Gathered]:
        """Return what somebody else than `owner` is still to fold into rows that these read."""
        found: list[Gathered] = []
        layer: Layer | None = self.top
        while layer is not None:
            found += [each for each in layer.above if not each.done and each.owner is not owner]
            layer = layer.base
        return found

    def layer_of(self, revision: int) -> Layer | None:
        """Return the layer of a revision, None if it is not among these."""
        layer: Layer | None = self.top
        while layer is not None and layer.revision != revision:
            layer = layer.base
        return layer

    async def _owner(self, layer: Layer | None, start: int) -> int:
        """Return which revision below has a row for this window."""
        while layer is not None:
            if layer.windowed and await self._table(layer, start // WINDOW) is not None:
                return layer.revision
            layer = layer.base
        raise Corrupt(f"no revision below has the window at {start}")


async def load_layers(ledger: Ledger, log: Log, revision: int, above: Above = NOTHING) -> Layers:
    """Read a revision and those that it was made of.

    Args:
        above: What their rows do not tell yet, as it was before the first row is read here.

    Raises:
        Corrupt: A row or manifest is missing or damaged.
    """
    top: Layer | None = None
    last: Layer | None = None
    seals: dict[str, Seal] = {}
    stored = ledger.rows()
    for _ in range(DEPTH_MAX):
        key = keys.revision_key(revision)
        value = await stored.get(key)
        if value is None:
            raise Corrupt(f"revision {revision} is missing")
        row: Revision = rows.checked(rows.decode_revision, key, value)
        if row.seal is not None:
            seals.setdefault(row.seal.key_id, row.seal)
        listed = row.extents
        if row.manifest is not None:
            packed = await log.read(row.manifest, offset=0, length=row.manifest.length)
            listed = rows.checked(rows.decode_manifest, key, bytes(packed)).extents
        pieces = pieces_of(listed, revision=revision)
        if row.inline:
            inline = ledger.unfilter(row.inline, row.filters)
            pieces = [Piece(0, len(inline), inline, revision=revision)]
        layer = Layer(
            revision, Pieces(pieces), row.windowed, row.cut if row.cut >= 0 else END, None
        )
        layer.above += above.get(revision, ())
        if last is None:
            top = layer
        else:
            last.base = layer
        last = layer
        revision = row.base
        if not revision:
            assert top is not None
            return Layers(ledger, top, tuple(seals.values()))
    raise Corrupt(f"more than {DEPTH_MAX} revisions lie below one another, down to {revision}")
