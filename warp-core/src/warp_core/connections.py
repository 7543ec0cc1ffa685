"""The open connections of a protocol's server: how many there may be, and how they end with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

C = TypeVar("C")


class Connections(Generic[C]):
    """Connections by their protocol objects; used in one event loop."""

    __slots__ = ("_emptied", "_limit", "_open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[C] = set()
        self._emptied = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[C]:
        """Yield those that are open now; each may end meanwhile."""
        return iter(tuple(self._open))

    def enter(self, connection: C) -> bool:
        """Remember a connection; False if there are too many, or the server is about to end."""
        if len(self._open) >= self._limit:
            return False
        self._open.add(connection)
        return True

    def leave(self, connection: C) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    async def end(self, ask: Callable[[C], None], seconds: float) -> bool:
        """Take no more, ask each to leave, and wait until none is left; False if that takes too long. May be called again."""
        self._limit = 0
        for connection in self:
            ask(connection)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    self._emptied.clear()
                    await self._emptied.wait()
        return not self._open
