"""A pool of buffers, so that memory stays flat whatever is streamed and copies go into warm pages."""

from __future__ import annotations

import asyncio
import mmap
from collections import deque

BUFFER = 1024 * 1024  # stays in the L2 cache between the socket, the checksum and the write
BUFFERS_MAX = 32  # in use at once by all streams: 32 MiB is what uploads may hold, and more than disks take at once


class BufferPool:
    """Hands out writable views of `size` bytes. What was taken must be given back."""

    def __init__(self, size: int = BUFFER, limit: int = BUFFERS_MAX) -> None:
        self.size = size
        self.limit = limit
        self.taken = 0
        self._free: list[memoryview] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> memoryview:
        """Return a buffer at once, beyond the limit if need be: for the first one of a stream, which holds no other."""
        self.taken += 1
        # An anonymous map takes memory when it is touched: a slow stream that fills little costs little.
        return self._free.pop() if self._free else memoryview(mmap.mmap(-1, self.size))

    async def take(self) -> memoryview:
        """Return a buffer when fewer than the limit are in use; first come, first served."""
        while self.taken >= self.limit:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()
                raise
        return self.take_now()

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back; nobody may use it any more."""
        self.taken -= 1
        if len(self._free) < self.limit:
            self._free.append(buffer)
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self.taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
