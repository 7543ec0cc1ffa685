"""Pins: what was freed after a pin was taken is not reused while it lasts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from warp_core.containers.format import Chunk, Owner

Refers = Callable[[Owner, Chunk], Awaitable[bool]]  # does the namespace still know this record?


class Pins:
    """Counts who may still read what was dead at which moment. A moment is a number that grows."""

    def __init__(self) -> None:
        self.moment = 0
        self._holders: dict[int, int] = {}

    def take(self) -> Pin:
        """Pin everything that is alive now."""
        moment = self.moment
        self._holders[moment] = self._holders.get(moment, 0) + 1
        return Pin(self, moment)

    def advance(self) -> int:
        """Begin a new moment and return the one that ended: what died in it may go when no pin of it or before is left."""
        self.moment += 1
        return self.moment - 1

    def drop(self, moment: int) -> None:
        """Give back one pin of a moment."""
        left = self._holders[moment] - 1
        if left:
            self._holders[moment] = left
        else:
            del self._holders[moment]

    @property
    def oldest(self) -> int:
        """The moment of the oldest pin; the present one if there is none."""
        return min(self._holders, default=self.moment)

    def passed(self, moment: int) -> bool:
        """Say whether nobody reads any more what died in `moment`."""
        return moment < self.oldest


class Pin:
    """A reader's claim. Release it; releasing twice is harmless."""

    __slots__ = ("_moment", "_pins")

    def __init__(self, pins: Pins, moment: int) -> None:
        self._pins: Pins | None = pins
        self._moment = moment

    def release(self) -> None:
        """End the claim."""
        pins, self._pins = self._pins, None
        if pins is not None:
            pins.drop(self._moment)
