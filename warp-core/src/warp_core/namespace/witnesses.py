"""Where a directory had rows lately: places to look first when somebody asks whether it still has any.

They are guesses, never answers: whoever asks reads the row in its transaction, and looks into the directory where it is gone.
"""

from __future__ import annotations

import random
from typing import Final

WITNESSES: Final = 8  # rows of a directory of which one is watched: enough that parallel deletes rarely watch each other's
DIRECTORIES_MAX: Final = 4096  # remembered, at about a KiB each; then all are forgotten


class Witnesses:
    """Keys of some rows of each directory, by the key that the directory's range starts with."""

    def __init__(self) -> None:
        self._rows: dict[bytes, list[bytes]] = {}

    def one_of(self, start: bytes) -> bytes | None:
        """Return the key of a row that a directory had lately, any of those that are remembered."""
        found = self._rows.get(start)
        return random.choice(found) if found else None

    def seen(self, start: bytes, found: list[bytes]) -> None:
        """Remember rows of a directory; too few to be shared by parallel deletes are not worth it."""
        if len(found) < WITNESSES:
            self._rows.pop(start, None)
            return
        if len(self._rows) >= DIRECTORIES_MAX:
            self._rows.clear()
        self._rows[start] = found

    def gone(self, start: bytes, key: bytes) -> None:
        """Forget a row that was not there; with half of them gone, forget the directory, so that it is looked into anew."""
        found = self._rows.get(start)
        if found is None:
            return
        if key in found:
            found.remove(key)
        if len(found) <= WITNESSES // 2:
            del self._rows[start]
