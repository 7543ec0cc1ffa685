"""What each snapshot alone holds, counted as rows change: content that one archived row holds, and no other row of its key.

Content lives in one piece of time, so what an archived row alone holds depends on the rows just before and behind it. It changes when
a row is archived, when the live one behind it changes, and when a snapshot in between goes. Each such transaction adds the difference
to a counter (family G) for (death, born) of the archived row:

```
 dead list of S     rows with death in [S, N)            N: the snapshot after S
 freed with it      those of them with born ≥ P          P: the snapshot before S
 so S alone holds   the sum of G(death, born) over S ≤ death < N and born ≥ P
```

Neither P nor N is in the counters, so a snapshot that goes moves none of them: what its neighbours hold alone follows from
the same rows. Borrowed content is nobody's here: what a revision without a live row lends stays when its snapshot goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from warp_core.containers.format import Chunk
from warp_core.namespace.rows import born, decode_revision, is_whiteout
from warp_core.namespace.tables import listed, unpack_window

WINDOW: Final = 0x45  # E
REVISION: Final = 0x52  # R
CONTENT: Final = frozenset((WINDOW, REVISION))  # families whose rows hold chunks


class Weight(NamedTuple):
    """How much content is: its bytes, and those of its records, in one copy."""

    length: int = 0
    stored: int = 0

    def plus(self, other: Weight) -> Weight:
        """Return the sum."""
        return Weight(self.length + other.length, self.stored + other.stored)

    def less(self, other: Weight) -> Weight:
        """Return the difference."""
        return Weight(self.length - other.length, self.stored - other.stored)


NOTHING: Final = Weight()
Held = Mapping[Chunk, Weight]
Grave = tuple[int, bytes]  # death, value
Soles = dict[tuple[int, int], Weight]  # by death and born


def held(key: bytes, value: bytes) -> Held:
    """Return the chunks that a row refers to and that its own revision wrote; a manifest weighs what it lists as well."""
    if is_whiteout(value):
        return {}
    if key[0] == WINDOW:
        return {each: _weight(each) for each in unpack_window(value).own_chunks()}
    if key[0] != REVISION:
        return {}
    revision = decode_revision(value)
    found = {each.chunk: _weight(each.chunk) for each in revision.extents if not each.revision}
    if revision.manifest is not None and not revision.lent_manifest:
        found[revision.manifest] = _weight(revision.manifest).plus(Weight(*revision.listed))
    return found


def among(key: bytes, value: bytes, chunks: Held) -> set[Chunk]:
    """Return those of some chunks that a row holds."""
    if is_whiteout(value):
        return set()
    if key[0] == WINDOW:
        return listed(value, chunks)
    return chunks.keys() & held(key, value).keys()


def weighed(chunks: Iterable[Chunk]) -> Held:
    """Return chunks of windows, each with what it is."""
    return {each: _weight(each) for each in chunks}


def weigh(chunks: Held) -> Weight:
    """Return the sum of some chunks."""
    return Weight(
        sum(each.length for each in chunks.values()), sum(each.stored for each in chunks.values())
    )


def soles(key: bytes, graves: Sequence[Grave], living: Iterable[bytes]) -> Soles:
    """Return what each archived row of a key holds alone; `living` are its live row, and what a clone's base has there."""
    holders: dict[Chunk, list[int]] = {}
    weights: dict[Chunk, Weight] = {}
    for index, (_, value) in enumerate(graves):
        for chunk, weight in held(key, value).items():
            holders.setdefault(chunk, []).append(index)
            weights[chunk] = weight
    for value in living:
        for chunk in held(key, value):
            holders.pop(chunk, None)
    found: Soles = {}
    for chunk, of in holders.items():
        if len(of) == 1:
            death, value = graves[of[0]]
            add(found, death, born(value), weights[chunk])
    return found


def add(to: Soles, death: int, born: int, weight: Weight) -> None:
    """Add to what rows of one (death, born) hold alone."""
    to[death, born] = to.get((death, born), NOTHING).plus(weight)


def difference(before: Soles, after: Soles) -> Soles:
    """Return what to add to `before` to make it `after`."""
    found: Soles = {}
    for each in before.keys() | after.keys():
        less = after.get(each, NOTHING).less(before.get(each, NOTHING))
        if less != NOTHING:
            found[each] = less
    return found


def _weight(chunk: Chunk) -> Weight:
    return Weight(chunk.length, chunk.stored)
