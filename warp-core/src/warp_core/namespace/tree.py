"""A volume's rows over a MetaStore: live, as of a snapshot, and through a clone's base; and the transaction that keeps snapshots true.

Keys here are relative to the volume (`keys.py`). The live path of a volume that is no clone is a plain `get`.

```
 snapshots     S1          S2                  epoch of the volume: 0 | 1 | 2
 row p    born 0 ─┼─ born 1 ─┼─────────▶       p written in epoch 1: its old value goes to A/p/1, dead list of S1
 at S1:   live born 1 ≥ 1, so the first archived row with death ≥ 1: A/p/1, born 0 < 1
 at S2:   live born 1 < 2: the live row
```

A clone's rows hide its base's; a row of the base that is deleted in the clone leaves a *whiteout*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

from msgspec import structs

from warp_core.containers.format import Chunk
from warp_core.errors import Corrupt
from warp_core.interfaces.consistency import SCAN_MAX, Row, View
from warp_core.metadata import Transaction
from warp_core.namespace import keys
from warp_core.namespace.kept import is_content, kept_bytes
from warp_core.namespace.rows import VolumeRow, born, decode_snapshot, is_whiteout, whiteout
from warp_core.namespace.soles import (
    CONTENT,
    Grave,
    Held,
    Soles,
    add,
    among,
    difference,
    held,
    soles,
    weigh,
    weighed,
)

Pair = tuple[bytes, bytes]  # relative key, value

KEPT_FAMILIES: Final = frozenset(
    b"DVRIECXZJOM"
)  # what snapshots keep; the rest is bookkeeping of the present


class Source(Protocol):
    """What rows are read from: a view, or a transaction, which remembers what it read and checks it at its commit."""

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value."""

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """Return up to `limit` rows of [start, end)."""


class ViewSource:
    """A view as a source."""

    __slots__ = ("scan", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.scan = view.scan

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value."""
        found = await self.view.get(key)
        return found[0] if found else None


class Unchecked:
    """A transaction as a source whose reads are not checked at its commit: the body says what matters by `check`."""

    __slots__ = ("_txn",)

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value."""
        return await self._txn.get(key, checked=False)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """Return up to `limit` rows of [start, end)."""
        return await self._txn.scan(start, end, limit=limit, reverse=reverse, checked=False)


class Rows(Protocol):
    """Rows of one volume, by relative key."""

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value."""

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of [start, end)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as it was last read. `version` is that of its row, which every transaction checks.

    With `snapshot` this is the volume as of then: read only. `bases` are (volume, snapshot) below a clone, nearest first.
    """

    row: VolumeRow
    version: int
    prefix: bytes
    bases: tuple[tuple[int, int], ...] = ()
    snapshot: int = 0

    @property
    def number(self) -> int:
        """Return the number that its rows and records carry."""
        return self.row.number

    @property
    def plain(self) -> bool:
        """Say whether its rows are just what the MetaStore holds under its prefix."""
        return not self.snapshot and not self.bases

    def rows(self, source: Source) -> Rows:
        """Return the volume's rows as `source` shows them."""
        own: Rows = (
            SnapshotRows(source, self.prefix, self.snapshot)
            if self.snapshot
            else LiveRows(source, self.prefix)
        )
        return _layered(source, own, self.bases)


def below_clone(source: Source, volume: Volume) -> Rows:
    """Return what a clone shows where it has no rows of its own."""
    return _layered(source, _Nothing(), volume.bases)


def _layered(source: Source, own: Rows, bases: tuple[tuple[int, int], ...]) -> Rows:
    if not bases:
        return own
    (number, snapshot), *deeper = bases
    base = SnapshotRows(source, keys.prefix(number), snapshot)
    return CloneRows(own, _layered(source, base, tuple(deeper)))


class LiveRows:
    """What the volume's prefix holds now."""

    __slots__ = ("_prefix", "_source")

    def __init__(self, source: Source, prefix: bytes) -> None:
        self._source = source
        self._prefix = prefix

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value."""
        return await self._source.get(self._prefix + key)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of [start, end)."""
        prefix = self._prefix
        cut = len(prefix)
        found = await self._source.scan(prefix + start, prefix + end, limit=limit, reverse=reverse)
        return [(row[0][cut:], row[1]) for row in found]


class SnapshotRows:
    """What the volume's prefix held when snapshot `snapshot` was taken."""

    __slots__ = ("_live", "_snapshot")

    def __init__(self, source: Source, prefix: bytes, snapshot: int) -> None:
        self._live = LiveRows(source, prefix)
        self._snapshot = snapshot

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value as of the snapshot; of a family that snapshots do not keep, as it is now."""
        value = await self._live.get(key)
        if key[0] not in KEPT_FAMILIES:
            return value
        if value is not None and born(value) < self._snapshot:
            return value
        archived = b"A" + key
        found = await self._live.scan(
            archived + keys.u64(self._snapshot), archived + b"\xff" * 9, limit=1
        )
        return found[0][1] if found and born(found[0][1]) < self._snapshot else None

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of [start, end) as of the snapshot; of a family that snapshots do not keep, as they are now."""
        if start[0] not in KEPT_FAMILIES:
            return await self._live.scan(start, end, limit=limit, reverse=reverse)
        live = Cursor(self._live, start, end, limit, reverse)
        # A start or end that lies just behind a key (key + 00) lies before that key's archived rows, which go on with their death.
        far_end = end[:-1] + b"\xff" * 9 if end.endswith(b"\0") else end
        dead = Cursor(self._live, b"A" + start, b"A" + far_end, limit, reverse)
        result: list[Pair] = []
        while len(result) < limit:
            row, grave = await live.peek(), await dead.peek()
            if row is None and grave is None:
                break
            buried = keys.archive_parts(grave[0])[0] if grave else b""
            if row is not None and (
                grave is None or (row[0] >= buried if reverse else row[0] <= buried)
            ):
                live.skip()
                if born(row[1]) < self._snapshot:
                    result.append(row)
                    await self._skip(dead, row[0])
                continue
            found = await self._archived(dead, buried, reverse)
            if found is not None and start <= buried < end:
                result.append((buried, found))
        return result

    async def _skip(self, dead: Cursor, key: bytes) -> None:
        while (grave := await dead.peek()) is not None and grave[0][1:-8] == key:
            dead.skip()

    async def _archived(self, dead: Cursor, key: bytes, reverse: bool) -> bytes | None:
        """Consume a key's archived rows; return what it held at the snapshot: the first death at or after it, if born before it."""
        chosen: bytes | None = None
        while (grave := await dead.peek()) is not None and grave[0][1:-8] == key:
            dead.skip()
            death = int.from_bytes(grave[0][-8:], "big")
            if death >= self._snapshot and (chosen is None or reverse):
                chosen = grave[1]
        return chosen if chosen is not None and born(chosen) < self._snapshot else None


class CloneRows:
    """A clone's own rows before those of its base."""

    __slots__ = ("_base", "_own")

    def __init__(self, own: Rows, base: Rows) -> None:
        self._own = own
        self._base = base

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value, the base's where the clone has none of its own."""
        value = await self._own.get(key)
        if value is None:
            return await self._base.get(key) if key[0] in KEPT_FAMILIES else None
        return None if is_whiteout(value) else value

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of [start, end), each key once."""
        if start[0] not in KEPT_FAMILIES:
            return await self._own.scan(start, end, limit=limit, reverse=reverse)
        own = Cursor(self._own, start, end, limit, reverse)
        base = Cursor(self._base, start, end, limit, reverse)
        result: list[Pair] = []
        while len(result) < limit:
            mine, below = await own.peek(), await base.peek()
            if mine is None and below is None:
                break
            if mine is None or (
                below is not None and (below[0] > mine[0] if reverse else below[0] < mine[0])
            ):
                assert below is not None
                base.skip()
                result.append(below)
                continue
            own.skip()
            if below is not None and below[0] == mine[0]:
                base.skip()
            if not is_whiteout(mine[1]):
                result.append(mine)
        return result


class Cursor:
    """Rows of a range one by one, fetched a page at a time."""

    __slots__ = ("_end", "_limit", "_page", "_place", "_reverse", "_rows", "_start")

    def __init__(self, rows: Rows, start: bytes, end: bytes, limit: int, reverse: bool) -> None:
        self._rows = rows
        self._start = start
        self._end = end
        self._limit = max(1, min(limit, SCAN_MAX))
        self._reverse = reverse
        self._page: list[Pair] | None = None
        self._place = 0

    async def peek(self) -> Pair | None:
        """Return the next row without consuming it."""
        page = self._page
        if page is None or (self._place == len(page) and len(page) == self._limit):
            if page:
                last = page[-1][0]
                if self._reverse:
                    self._end = last
                else:
                    self._start = last + b"\0"
            page = self._page = await self._rows.scan(
                self._start, self._end, limit=self._limit, reverse=self._reverse
            )
            self._place = 0
        return page[self._place] if self._place < len(page) else None

    def skip(self) -> None:
        """Consume the row that `peek` returned."""
        self._place += 1


MARKED: Final = frozenset(b"DE")  # families whose new rows are noted while there are snapshots
_REVISION: Final = 0x52  # R
_WINDOW: Final = 0x45  # E
_INODE: Final = 0x49  # I


class VolumeTransaction:
    """Reads and writes of one volume in one transaction; the first change of a row after a snapshot archives it.

    The volume's row is checked at the commit: a snapshot, a change of versioning or the volume's deletion in between is a
    conflict, and the body runs again with the volume as it then is.
    """

    __slots__ = (
        "_bases",
        "_own",
        "_prefix",
        "_rows",
        "_txn",
        "kept_bytes",
        "newest",
        "owned",
        "soles",
        "volume",
    )

    def __init__(self, txn: Transaction, volume: Volume) -> None:
        assert not volume.snapshot, "a snapshot is read only"
        txn.check(keys.volume_name_key(volume.row.name), volume.version)
        self._txn = txn
        self._prefix = volume.prefix
        self._own = LiveRows(txn, volume.prefix)
        self._rows: Rows = volume.rows(txn) if volume.bases else self._own
        self._bases = volume.bases
        self.volume = volume
        self.newest = volume.row.newest
        self.kept_bytes = 0  # how much more snapshots alone keep when this is committed
        self.soles: Soles = {}  # and how much more each archived row holds alone
        # Where users have limits: inodes' rows as they were and as they become.
        self.owned: dict[bytes, tuple[bytes | None, bytes | None]] = {}

    async def as_of(self, epoch: int) -> VolumeTransaction:
        """Return the same transaction as of an epoch that may be over: what it writes, snapshots since then show as well.

        Right for rows alone that nobody has changed since.
        """
        newest = self.newest
        while newest > epoch:
            value = await self._own.get(keys.snapshot_key(newest))
            if value is None:
                raise Corrupt(f"snapshot {newest} of volume {self.volume.number} is missing")
            newest = decode_snapshot(value).previous
        row = structs.replace(self.volume.row, epoch=epoch, newest=newest)
        made = VolumeTransaction(self._txn, replace(self.volume, row=row))
        made.soles = self.soles
        made.owned = self.owned
        return made

    @property
    def epoch(self) -> int:
        """Return what rows written now are born in."""
        return self.volume.row.epoch

    @property
    def engine(self) -> Transaction:
        """Return the transaction below, for rows outside the volume."""
        return self._txn

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value, checked at the commit."""
        if self._bases:
            return await self._rows.get(key)
        return await self._txn.get(self._prefix + key)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of [start, end); the range that was seen is checked at the commit."""
        return await self._rows.scan(start, end, limit=limit, reverse=reverse)

    async def put(
        self, key: bytes, value: bytes, *, fresh: bool = False, gone: set[Chunk] | None = None
    ) -> bool:
        """Set a row that snapshots keep; `value` says that it is born in `epoch`. Returns whether its old value stays for somebody.

        Where that is False, what only the old value referred to is garbage now: see `relatives`.

        Args:
            fresh: It is of a number that no row had before.
            gone: The chunks of its own revision that the old value refers to and `value` does not, where that is known.
        """
        if key[0] == _INODE and self.volume.row.owned:
            await self._note_owned(key, value)
        if key[0] == _REVISION and self.epoch and not fresh and not await self._lives(key):
            self.kept_bytes -= await self._buried(key)  # a name leads to it again
        counted = self.epoch > 0 and key[0] in CONTENT and not fresh
        old = await self._own.get(key) if counted else None
        before = await self._soles(key) if counted and self.volume.row.rolled else {}
        kept = await self._archive(key) if self.newest or self._bases else False
        self._txn.put(self._prefix + key, value)
        if counted:
            await self._count(key, old, value, gone, before)
        return kept

    async def delete(self, key: bytes) -> bool:
        """Remove a row that snapshots keep. Returns whether its value stays for somebody, as `put` does."""
        if key[0] == _INODE and self.volume.row.owned:
            await self._note_owned(key, None)
        lived = key[0] == _REVISION and self.epoch > 0 and await self._lives(key)
        counted = self.epoch > 0 and key[0] in CONTENT
        old = await self._own.get(key) if counted else None
        before = await self._soles(key) if counted and self.volume.row.rolled else {}
        kept = await self._delete(key, lived=lived)
        if counted:
            await self._count(key, old, None, None, before)
        return kept

    async def _note_owned(self, key: bytes, value: bytes | None) -> None:
        before = self.owned[key][0] if key in self.owned else await self.get(key)
        self.owned[key] = before, value

    async def _delete(self, key: bytes, *, lived: bool) -> bool:
        if not (self.newest or self._bases):
            self._txn.delete(self._prefix + key)
            if lived:  # of a snapshot that is being removed there may be archived rows
                self.kept_bytes += await self._buried(key)
            return False
        kept = await self._archive(key)
        if lived:
            self.kept_bytes += await self._buried(key)
        if self._bases and await self._below(key):
            self._txn.put(self._prefix + key, whiteout(self.epoch))
        else:
            self._txn.delete(self._prefix + key)
        return kept

    async def _archive(self, key: bytes) -> bool:
        """Keep the row for the newest snapshot that shows it; returns whether a snapshot or the base keeps it."""
        value = await self._txn.get(self._prefix + key)
        if value is None:
            if key[0] in MARKED:
                self.mark(key)
            return bool(self._bases) and await self._below(key)
        if born(value) >= self.newest:
            return False
        self._txn.put(self._prefix + keys.archive_key(key, self.epoch), value)
        self._txn.put(self._prefix + keys.dead_key(self.newest, key, self.epoch), b"")
        if key[0] == _WINDOW:
            self.kept_bytes += kept_bytes(key, value)
        return True

    # What archived rows hold alone ------------------------------------------------------------------

    async def _count(
        self,
        key: bytes,
        old: bytes | None,
        new: bytes | None,
        gone: set[Chunk] | None,
        before: Soles,
    ) -> None:
        """Count what a change of a live row from `old` to `new` leaves to one archived row alone."""
        if self.volume.row.rolled:  # content may be in several pieces of time
            self._add(difference(before, await self._soles(key)))
            return
        if old is None or gone == set():
            return
        left: Held = held(key, old) if gone is None else weighed(gone)
        if gone is None and new is not None:
            left = _without(left, among(key, new, left))
        if left and self._bases and key[0] == _REVISION:
            below = await below_clone(self._txn, self.volume).get(key)
            left = _without(left, among(key, below, left)) if below is not None else left
        if not left:
            return
        graves = await self._graves(key, limit=2)
        if not graves:
            return
        (death, grave), *older = graves
        if grave != old:  # it was not archived just now
            left = {chunk: left[chunk] for chunk in among(key, grave, left)}
        for _, value in older:
            left = _without(left, among(key, value, left))
        if left:
            add(self.soles, death, born(grave), weigh(left))

    async def _graves(self, key: bytes, *, limit: int = SCAN_MAX) -> list[Grave]:
        """Return the newest archived rows of a key, the newest first."""
        found = await self._own.scan(*keys.graves_of(key), limit=limit, reverse=True)
        return [(int.from_bytes(entry[-8:], "big"), value) for entry, value in found]

    async def _soles(self, key: bytes, graves: list[Grave] | None = None) -> Soles:
        """Return what archived rows of a key, by default all, hold alone as it is now."""
        if graves is None:
            every = await self._every(*keys.graves_of(key))
            graves = [(int.from_bytes(entry[-8:], "big"), value) for entry, value in every]
        if not graves:
            return {}
        live = await self._own.get(key)
        if key[0] == _REVISION and (live is None or is_whiteout(live)) and await self._lent(key):
            return {}
        living = [live] if live is not None else []
        if self._bases:
            below = await below_clone(self._txn, self.volume).get(key)
            living += [below] if below is not None else []
        return soles(key, graves, living)

    async def _lent(self, key: bytes) -> bool:
        """Say whether somebody borrows from a revision."""
        return bool(await self.scan(*keys.holds_of(int.from_bytes(key[1:9], "big")), limit=1))

    def _add(self, more: Soles) -> None:
        for (death, epoch), weight in more.items():
            add(self.soles, death, epoch, weight)

    async def lending(self, key: bytes) -> Soles | None:
        """Say what archived rows hold alone of a revision that is about to get or to lose a borrower: `lent` takes it."""
        if not self.epoch or await self._lives(key):
            return None
        return await self._soles(key)

    async def lent(self, key: bytes, before: Soles | None) -> None:
        """Count what changed by the borrower."""
        if before is not None:
            self._add(difference(before, await self._soles(key)))

    async def drop_archived(self, key: bytes, death: int, value: bytes) -> None:
        """Remove an archived row."""
        if key[0] not in CONTENT:
            await self._drop_archived(key, death, value)
            return
        near = None if self.volume.row.rolled else await self._near(key, death)
        before = await self._soles(key, None if near is None else [*near, (death, value)])
        await self._drop_archived(key, death, value)
        self._add(difference(before, await self._soles(key, near)))

    async def _near(self, key: bytes, death: int) -> list[Grave]:
        """Return the two archived rows before one, and the two behind it."""
        start, end = keys.graves_of(key)
        mine = keys.archive_key(key, death)
        found = await self._own.scan(start, mine, limit=2, reverse=True)
        found += await self._own.scan(mine + b"\0", end, limit=2)
        return [(int.from_bytes(entry[-8:], "big"), value) for entry, value in found]

    async def _drop_archived(self, key: bytes, death: int, value: bytes) -> None:
        archived = keys.archive_key(key, death)
        if key[0] == _WINDOW:
            self.kept_bytes -= kept_bytes(key, value)
        elif is_content(key) and not await self._lives(key):
            self.kept_bytes -= await self._buried(key)
            self._txn.delete(self._prefix + archived)
            self.kept_bytes += await self._buried(key)
        self._txn.delete(self._prefix + archived)

    async def _lives(self, key: bytes) -> bool:
        """Say whether the volume itself has a row, as it is now."""
        value = await self._own.get(key)
        return value is not None and not is_whiteout(value)

    async def _buried(self, key: bytes) -> int:
        """Return what the newest archived row of a revision keeps."""
        found = await self._own.scan(*keys.graves_of(key), limit=1, reverse=True)
        return kept_bytes(key, found[0][1]) if found else 0

    async def _below(self, key: bytes) -> bool:
        base = _layered(self._txn, _Nothing(), self._bases)
        return await base.get(key) is not None

    async def relatives(self, key: bytes, *, death: int = 0) -> list[bytes]:
        """Return the values of a row with which its live one, or with `death` an archived one, may share content.

        Content lies in one piece of time, so these are its neighbours; in a volume that was rolled back they are all.
        """
        base = b"A" + key
        end = base + b"\xff" * 9
        found: list[bytes] = []
        if self.volume.row.rolled:
            found = [
                value
                for entry, value in await self._every(base, end)
                if entry[-8:] != keys.u64(death)
            ]
        elif death:
            mine = base + keys.u64(death)
            found = [row[1] for row in await self._own.scan(base, mine, limit=1, reverse=True)]
            found += [row[1] for row in await self._own.scan(mine + b"\0", end, limit=1)]
        elif self.newest:
            found = [row[1] for row in await self._own.scan(base, end, limit=1, reverse=True)]
        if death:
            live = await self._own.get(key)
            found += [live] if live is not None else []
        if self._bases:
            below = await _layered(self._txn, _Nothing(), self._bases).get(key)
            found += [below] if below is not None else []
        return [value for value in found if not is_whiteout(value)]

    async def _every(self, start: bytes, end: bytes) -> list[Pair]:
        found: list[Pair] = []
        while page := await self._own.scan(start, end):
            found += page
            start = page[-1][0] + b"\0"
        return found

    def mark(self, key: bytes) -> None:
        """Note that a key changed in this epoch where no archived row tells it, for who compares snapshots."""
        if self.newest:
            self._txn.put(self._prefix + keys.birth_key(self.epoch, key), b"")

    async def note_place(self, number: int, directory: int, component: bytes) -> None:
        """Note where something is named that has no inode row to say so, for who compares snapshots."""
        key = self._prefix + keys.place_key(number)
        place = keys.u64(directory) + component
        if self.newest and await self._txn.get(key, checked=False) != place:
            self._txn.put(key, place)

    # Rows that snapshots do not keep --------------------------------------------------------------

    async def get_present(self, key: bytes) -> bytes | None:
        """Return the value of a row that snapshots and clones do not share."""
        return await self._own.get(key)

    async def scan_present(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of a range that snapshots and clones do not share."""
        return await self._own.scan(start, end, limit=limit, reverse=reverse)

    def put_present(self, key: bytes, value: bytes) -> None:
        """Set a row that snapshots do not keep."""
        self._txn.put(self._prefix + key, value)

    def delete_present(self, key: bytes) -> None:
        """Remove a row that snapshots do not keep."""
        self._txn.delete(self._prefix + key)

    def merge(
        self, key: bytes, *, add: tuple[int, ...] = (), maximum: tuple[int, ...] = ()
    ) -> None:
        """Add to a counter row without reading it."""
        self._txn.merge(self._prefix + key, add=add, max=maximum)

    def stamp(self, prefix: bytes, suffix: bytes, value: bytes) -> None:
        """Write a row whose key carries the commit's version."""
        self._txn.stamp(self._prefix + prefix, suffix, value)


def _without(chunks: Held, fewer: set[Chunk]) -> Held:
    return {chunk: weight for chunk, weight in chunks.items() if chunk not in fewer}


class _Nothing:
    """The own rows of nobody."""

    async def get(self, key: bytes) -> bytes | None:
        return None

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        return []
