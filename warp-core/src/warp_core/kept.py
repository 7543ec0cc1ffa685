"""A bounded memory of what is asked for often."""

from __future__ import annotations

from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

KEPT_EVERY: Final = 7
"""Once there was more than fits, every so many'th offer is taken. An odd number: requests ask for several things in turns."""


class Kept(dict[K, V]):
    """A dictionary of at most `limit` entries, which is asked like any other, and offered what it did not have.

    As long as all fits, all is kept. From then on a part of what is offered is, so that what is asked for often soon is there again,
    and reading any of a million things does not pay for making room, which costs as much as finding them.
    """

    __slots__ = ("_every", "_limit", "_offered")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._every = 1  # of what is offered, how many until one is taken
        self._offered = 0  # since one was

    def offer(self, key: K, value: V) -> None:
        """Keep an entry, perhaps."""
        self._offered += 1
        if self._offered < self._every:
            return
        self._offered = 0
        if len(self) >= self._limit:
            self.clear()
            self._every = KEPT_EVERY
        self[key] = value
