"""Numbers of inodes, directories and revisions: one sequence for all volumes, never used again."""

from __future__ import annotations

import asyncio
from typing import Final

from warp_core.interfaces.consistency import MetaStore
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys

FIRST: Final = 1024  # below are numbers with a meaning, such as the root directory
BLOCK: Final = 65_536  # numbers reserved at once: one small commit per so many creations; a restart wastes at most that many of 2^64


class Ids:
    """Hands out numbers from a block that this node has reserved."""

    def __init__(self, store: MetaStore) -> None:
        self._store = store
        self._next = 0
        self._end = 0
        self._reserving = asyncio.Lock()

    async def take(self) -> int:
        """Return a number that nobody had before."""
        while self._next >= self._end:
            async with self._reserving:
                if self._next >= self._end:
                    await self._reserve()
        number = self._next
        self._next += 1
        return number

    def coming(self) -> int | None:
        """Return a number that none is below which is taken from now on; None if that is not known."""
        return self._next if self._next < self._end else None

    async def _reserve(self) -> None:
        async def body(tx: Transaction) -> int:
            value = await tx.get(keys.IDS)
            start = int.from_bytes(value, "big") if value else FIRST
            tx.put(keys.IDS, (start + BLOCK).to_bytes(8, "big"))
            return start

        self._next = await transact(self._store, body)
        self._end = self._next + BLOCK
