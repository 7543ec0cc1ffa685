"""Which bytes of a file differ between two moments of it, by reference: its windows are compared where something may have changed.

A file that went on in a revision made of the one that a snapshot or clone keeps has its changes in the windows above that one; where
both moments show the same revision, the dead lists name the windows that changed in place. Only those are looked at. Two files that
have no revision in common are compared in all their windows, by what these refer to. No byte of content is read, so a range that was
overwritten with what it held is told as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from warp_core.errors import InvalidArgument
from warp_core.namespace import keys, rows
from warp_core.namespace.apart import Inodes
from warp_core.namespace.differences import Changes
from warp_core.namespace.extents import WINDOW, Piece, Pieces
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.layers import Layer, Layers, load_layers
from warp_core.namespace.ledgers import Fresh, Moment
from warp_core.namespace.pending import END
from warp_core.namespace.tree import Volume
from warp_core.views.files import Ref

RUNS_MAX: Final = 1_024  # of one answer


class Run(NamedTuple):
    """A range that differs; `hole` reads as zeros now."""

    offset: int
    length: int
    hole: bool


@dataclass(frozen=True, slots=True)
class Side:
    """A file at one moment: the volume as it shows it, its revision and size."""

    volume: Volume
    revision: int
    size: int


class Ranges:
    """The ranges of a file at `newer` that differ from a file at `older`, both of one volume."""

    def __init__(self, inodes: Inodes, older: Side, newer: Side) -> None:
        self._inodes = inodes
        self._older = older
        self._newer = newer

    async def page(self, offset: int = 0, limit: int = RUNS_MAX) -> tuple[list[Run], int]:
        """Return ranges at or behind an offset, in order, and where to go on: the size at the end.

        Raises:
            Corrupt: A row is missing or damaged.
        """
        limit = max(1, min(limit, RUNS_MAX))
        found: list[Run] = []
        end = self._newer.size
        async with self._loaded(self._older) as old, self._loaded(self._newer) as new:
            windows = await self._windows(old, new, offset)
            for window in sorted(windows):
                if window * WINDOW >= end:
                    break
                start = max(offset, window * WINDOW)
                border = min(end, (window + 1) * WINDOW)
                before = await old.within(start, min(border, max(start, self._older.size)))
                after = await new.within(start, border)
                for run in differing(before, after, start, border):
                    if found and found[-1].offset + found[-1].length == run.offset:
                        last = found[-1]
                        if last.hole == run.hole:
                            found[-1] = Run(last.offset, last.length + run.length, run.hole)
                            continue
                    if len(found) == limit:
                        return found, run.offset
                    found.append(run)
        return found, end

    @asynccontextmanager
    async def _loaded(self, side: Side) -> AsyncIterator[Layers]:
        above = self._inodes.above(side.volume)
        ledger = Moment(Fresh(self._inodes.namespace, side.volume))
        pin = self._inodes.log.pin()
        try:
            yield await load_layers(ledger, self._inodes.log, side.revision, above)
        finally:
            pin.release()

    async def _windows(self, old: Layers, new: Layers, offset: int) -> set[int]:
        """Return the windows that may differ from an offset on."""
        end = max(self._older.size, self._newer.size)
        common = _common(old.top, new.top)
        found: set[int] = set()
        hidden = min(self._older.size, self._newer.size)
        for layers, stop in ((old, common[0]), (new, common[1])):
            layer: Layer | None = layers.top
            while layer is not None and layer is not stop:
                found |= await _own(layers, layer, offset, end)
                hidden = min(hidden, layer.cut)
                layer = layer.base
        one, other = common
        while one is not None and other is not None:
            found |= await self._changed(one.revision, offset, end)
            found |= _above(one, offset, end) ^ _above(other, offset, end)
            if one.cut != other.cut:
                hidden = min(hidden, one.cut, other.cut)
            one, other = one.base, other.base
        if hidden < end:  # what one shows there is cut off in the other
            start = max(offset, hidden)
            for layers in (old, new):
                found |= await layers.known(layers.top, start, end)
            found |= set(range(hidden // WINDOW, hidden // WINDOW + 1))
        return {window for window in found if (window + 1) * WINDOW > offset}

    async def _changed(self, revision: int, start: int, end: int) -> set[int]:
        """Return the windows of a revision that changed in place between both moments."""
        older, newer = self._older.volume, self._newer.volume
        if older.snapshot == newer.snapshot:
            return set()
        own = Fresh(self._inodes.namespace, Volume(newer.row, newer.version, newer.prefix))
        changes = Changes(own, older.snapshot, newer.snapshot)
        found: set[int] = set()
        low, high = keys.window_key(revision, start // WINDOW), keys.windows_of(revision)[1]
        async for key in changes.between(low, high):
            found.add(int.from_bytes(key[9:17], "big"))
        return found


def _common(old: Layer | None, new: Layer | None) -> tuple[Layer | None, Layer | None]:
    """Return the highest revision that both lie over, as each has it; None twice without one."""
    known: dict[int, Layer] = {}
    while old is not None:
        known[old.revision] = old
        old = old.base
    while new is not None and new.revision not in known:
        new = new.base
    return (known[new.revision], new) if new is not None else (None, None)


async def _own(layers: Layers, layer: Layer, start: int, end: int) -> set[int]:
    """Return the windows that a layer itself says something of."""
    found = _above(layer, start, end)
    for piece in layer.extents.within(start, end):
        found.update(range(piece.offset // WINDOW, (piece.end - 1) // WINDOW + 1))
    if layer.windowed and start < end:
        found |= await layers.windows_between(layer, start, end)
    return found


def _above(layer: Layer, start: int, end: int) -> set[int]:
    """Return the windows that what is still to come into a layer's rows changes."""
    found: set[int] = set()
    for gathered in layer.above:
        found.update(window for window in gathered.pieces.windows if window * WINDOW < end)
        for hole in gathered.pieces.holes.within(start, min(end, END)):
            found.update(range(hole.offset // WINDOW, (hole.end - 1) // WINDOW + 1))
    return found


def differing(before: list[Piece], after: list[Piece], start: int, end: int) -> list[Run]:
    """Return the ranges of [start, end) where pieces refer to something else, back to back ones as one."""
    old, new = Pieces(before), Pieces(after)
    borders = {start, end}
    for piece in (*before, *after):
        borders.update((piece.offset, piece.end))
    places = sorted(border for border in borders if start <= border <= end)
    found: list[Run] = []
    for low, high in pairwise(places):
        shown = _reference(new, low, high)
        if _reference(old, low, high) == shown:
            continue
        hole = shown is None
        if found and found[-1].offset + found[-1].length == low and found[-1].hole == hole:
            last = found.pop()
            found.append(Run(last.offset, last.length + high - low, hole))
        else:
            found.append(Run(low, high - low, hole))
    return found


def _reference(pieces: Pieces, start: int, end: int) -> tuple[object, int] | None:
    """Return what a range refers to that no piece begins or ends in, None for a hole."""
    for piece in pieces.within(start, end):
        if isinstance(piece.chunk, bytes):
            return piece.chunk[piece.skip : piece.skip + end - start], 0
        if piece.chunk is not None:
            return piece.chunk, piece.skip
    return None


async def side_of(files: NamespaceFiles, file: Ref) -> Side:
    """Return a file as its volume, or the snapshot that its ref names, shows it, settled.

    Raises:
        StaleHandle: It is gone.
        InvalidArgument: It is no regular file.
    """
    if not file.snapshot:
        await files.inodes.settle(await files.number(file.volume), file.inode)
    volume, inode = await files.located(file)
    if inode.kind != rows.FILE:
        raise InvalidArgument(f"inode {file.inode} is no regular file")
    return Side(volume, inode.revision, inode.size)
