"""A layer of chains: the rows that changed since some version, and their keys in order.

Rows that are only deleted here are kept apart: a scan has to know of a row below that it is gone, which a look into the dictionary
tells, but need not walk past what is not there any more. So a listing beside many deleted rows costs what it costs without.

```
 newest   a ─▶ put      b ─▶ deleted ─▶ put      c ─▶ deleted
 live     a             b                                        until a scan finds that nobody sees b's value any more
 dead                                            c               walked for range checks only: a delete is a change
```
"""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedList

Node = tuple[int, bytes | None, "Node | None"]  # (version, value or None, older): newest first
LEAD = 6  # bytes of a key: what rows of one family of one volume begin with


class Layer:
    """Chains by key. `newest` is read and replaced by whoever owns the layer, who says so with `added` and `revived`."""

    __slots__ = ("_dead", "_leads", "_live", "_revived", "_unsorted", "latest", "newest")

    def __init__(self) -> None:
        self.newest: dict[bytes, Node] = {}
        self.latest = 0  # version of the newest node
        self._live: SortedList[bytes] = SortedList()  # keys with a value in their chain, or once
        self._dead: SortedList[bytes] = SortedList()  # keys without
        # Keys of `newest` that go into these when somebody asks for an order: sorting many at once is cheaper than one by one.
        self._unsorted: list[bytes] = []
        self._revived: list[bytes] = []  # keys that were deleted, and have a value again
        self._leads: set[bytes] = set()  # first LEAD bytes of the keys

    def added(self, key: bytes) -> None:
        """Note that `newest` has a key that it did not have."""
        self._unsorted.append(key)
        self._leads.add(key[:LEAD])

    def revived(self, key: bytes) -> None:
        """Note that a key has a value again whose newest node had none."""
        self._revived.append(key)

    def forget(self, key: bytes) -> None:
        """Drop a key and its chain."""
        self._sort()
        del self.newest[key]
        (self._dead if key in self._dead else self._live).remove(key)

    def may_have(self, lead: bytes) -> bool:
        """Say whether any key begins with these LEAD bytes."""
        return lead in self._leads

    def live(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """Yield the keys of [start, end) that may have a value, in order."""
        self._sort()
        return iter(self._live.irange(start, end, (True, False), reverse))

    def changed(self, start: bytes, end: bytes) -> Iterator[bytes]:
        """Yield every key of [start, end), those without a value last."""
        self._sort()
        yield from self._live.irange(start, end, (True, False))
        yield from self._dead.irange(start, end, (True, False))

    def bury(self, keys: list[bytes], needed: int) -> None:
        """Yield those of these live keys no more that were deleted up to version `needed`, the oldest that views may read."""
        newest = self.newest
        dead = [
            key
            for key, (version, value, _) in zip(keys, map(newest.__getitem__, keys), strict=True)
            if value is None and version <= needed
        ]
        for key in dead:
            self._live.remove(key)
        self._dead.update(dead)

    def _sort(self) -> None:
        if self._unsorted:
            dead = [key for key in self._unsorted if not _has_value(self.newest[key])]
            if dead:
                self._dead.update(dead)
                gone = set(dead)
                self._live.update([key for key in self._unsorted if key not in gone])
            else:
                self._live.update(self._unsorted)
            self._unsorted = []
        if self._revived:
            for key in set(self._revived):
                if key in self._dead:
                    self._dead.remove(key)
                    self._live.add(key)
            self._revived = []


def _has_value(node: Node | None) -> bool:
    while node is not None:
        if node[1] is not None:
            return True
        node = node[2]
    return False
