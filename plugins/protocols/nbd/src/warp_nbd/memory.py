"""Memory that payloads may take: a number of bytes that all connections share."""

import asyncio
from collections import deque
from contextlib import suppress


class Budget:
    """Lends bytes, to those that wait in their order."""

    def __init__(self, limit: int) -> None:
        """Begin with `limit` bytes to lend; nobody asks for more at once."""
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes lent."""
        return self._limit - self._free

    async def take(self, length: int) -> None:
        """Borrow bytes as soon as there are so many; they have to be given back."""
        if length <= self._free and not self._waiting:
            self._free -= length
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((length, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(length)  # lent and cancelled in the same turn of the loop
            else:
                with suppress(ValueError):  # passed over already
                    self._waiting.remove((length, future))
                self._lend()
            raise

    def give(self, length: int) -> None:
        """Take bytes back."""
        self._free += length
        self._lend()

    def _lend(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            length, future = self._waiting.popleft()
            if not future.cancelled():
                self._free -= length
                future.set_result(None)
