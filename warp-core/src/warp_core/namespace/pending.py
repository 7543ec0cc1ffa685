"""What was written to a file and its rows do not tell yet, in stretches: each is folded as one, the oldest first.

A snapshot or a clone does not wait for folds. It has a stretch *marked* (`folding.mark`): the rows of the inode and the revision say
how the file is, and an N row says that changes up to a position of the journal are still to come into the windows of that revision,
as of that epoch. Who is shown the revision besides its file finds the stretch here, and reads it over the rows; a restart makes it
again from the journal.

```
 Content    fresh ──gather──▶ queue [ r1, epoch 0, marked │ r1, epoch 1, marked │ r2, not marked ]    folded from the left
                                       ▲
 Pending    (volume, r1) ──────────────┘  for layers of the revision that are loaded elsewhere: a clone's, a snapshot's
```
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from warp_core.containers import Chunk
from warp_core.namespace import extents
from warp_core.namespace.extents import CHANGE_HEAD, HOLE, WRITE, Change, Piece
from warp_core.namespace.inodes import Position
from warp_core.namespace.pools import Claim
from warp_core.namespace.tables import Overlay

if TYPE_CHECKING:
    from warp_core.namespace.tree import Volume

END: Final = 1 << 62  # beyond every file

Above = Mapping[int, list["Gathered"]]  # by revision: what lies over its rows, oldest first
NOTHING: Final[Above] = {}


@dataclass(slots=True, eq=False)
class Gathered:
    """One stretch of changes of a file: those since the stretch before, up to `last`."""

    revision: int  # that was written
    owner: object  # the content that folds it
    finish: Callable[[], Awaitable[None]]  # returns when it is in the rows
    pieces: Overlay = field(default_factory=Overlay)
    size: int = 0
    cut: int = END  # lowest size that the file had meanwhile
    modified_ns: int = 0
    last: Position = (0, 0)  # of the newest record
    dead: list[tuple[Chunk, int]] = field(
        default_factory=list
    )  # overwritten before a row referred to it; its window
    alive: dict[Chunk, int] = field(
        default_factory=dict
    )  # bytes of each chunk that nothing newer covers
    claim: Claim = field(default_factory=Claim)  # what was reserved for it
    partial: bool = False  # a fold broke off: rows may tell some of it
    epoch: int = -1  # as of which the windows change, once it is marked
    row: bytes = b""  # key of the N row, once it is marked
    done: bool = False  # the rows tell it
    widest: int = extents.PIECES_MAX  # pieces of one window, at most

    def cover(self, covered: list[Piece]) -> None:
        """Note what a newer piece covers."""
        cover(self.alive, self.dead, covered)

    def apply(self, chunk: Chunk, change: Change) -> None:
        """Apply a record that was found in the journal after a crash."""
        if change.what == WRITE:
            self.alive[chunk] = change.length
            self.cover(self.pieces.lay(Piece(change.offset, change.length, chunk, CHANGE_HEAD)))
            return
        self.dead.append((chunk, -1))
        if change.what == HOLE:
            self.cover(self.pieces.lay(Piece(change.offset, change.length, None)))
        else:  # behind a size that grows there is nothing that this could hide
            self.cover(self.pieces.lay(Piece(change.offset, END - change.offset, None)))
            self.cut = min(self.cut, change.offset)


def cover(alive: dict[Chunk, int], dead: list[tuple[Chunk, int]], covered: list[Piece]) -> None:
    """Note which parts of fresh chunks nothing shows any more; chunks without any are dead."""
    for piece in covered:
        if isinstance(piece.chunk, Chunk):
            left = alive[piece.chunk] - piece.length
            if left:
                alive[piece.chunk] = left
            else:
                del alive[piece.chunk]
                dead.append((piece.chunk, piece.offset // extents.WINDOW))


class Pending:
    """The marked stretches of all files of a node, for who is shown a revision besides the file itself."""

    def __init__(self) -> None:
        """Begin without any."""
        self._stretches: dict[tuple[int, int], list[Gathered]] = {}

    def add(self, volume: int, gathered: Gathered) -> None:
        """Note a stretch that was marked; those of one revision come in their order."""
        self._stretches.setdefault((volume, gathered.revision), []).append(gathered)

    def remove(self, volume: int, gathered: Gathered) -> None:
        """Forget a stretch that the rows tell now."""
        node = (volume, gathered.revision)
        left = [each for each in self._stretches.get(node, ()) if each is not gathered]
        if left:
            self._stretches[node] = left
        else:
            self._stretches.pop(node, None)

    def forget(self, volume: int) -> None:
        """Forget all of a volume."""
        for node in [node for node in self._stretches if node[0] == volume]:
            del self._stretches[node]

    def within(self, volume: int) -> list[Gathered]:
        """Return those of one volume's files."""
        return [
            each
            for node, stretches in self._stretches.items()
            if node[0] == volume
            for each in stretches
        ]

    def of(self, volume: Volume) -> Above:
        """Return what lies over the rows that a volume shows: its own stretches, and those of its bases from before it was made.

        Ask before the rows are read: a stretch that is folded in between is in both, which does no harm.
        """
        if not self._stretches:
            return NOTHING
        shown = [(number, snapshot) for number, snapshot in reversed(volume.bases)]
        shown.append((volume.number, volume.snapshot))
        found: dict[int, list[Gathered]] = {}
        for number, snapshot in shown:
            for (owner, revision), stretches in self._stretches.items():
                if owner == number:
                    fitting = [each for each in stretches if not snapshot or each.epoch < snapshot]
                    if fitting:
                        found.setdefault(revision, []).extend(fitting)
        return found
