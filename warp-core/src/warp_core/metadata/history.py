"""What commits changed lately, for those who watch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from warp_core.errors import Expired
from warp_core.interfaces.consistency import Change
from warp_core.metadata.rows import Changes, Rows

HISTORY_ROWS_MAX = 65_536  # a watcher that falls behind by more is told to scan anew
HISTORY_BYTES_MAX = 16 * 1024 * 1024


class History:
    """The newest changes, in commit order. Watchers see those that are durable.

    `since` is the version before the first that is remembered.
    """

    def __init__(self, rows: Rows) -> None:
        self.since = rows.latest
        self._rows = rows
        self._entries: deque[tuple[int, Changes, int]] = deque()
        self._dropped = 0  # entries that were in the deque and left it
        self._row_count = 0
        self._size = 0
        self._waiting: list[asyncio.Future[None]] = []

    def append(self, version: int, changes: Changes, size: int) -> None:
        """Note a commit that wrote about `size` bytes."""
        entries = self._entries
        entries.append((version, changes, size))
        self._row_count += len(changes)
        self._size += size
        while self._row_count > HISTORY_ROWS_MAX or self._size > HISTORY_BYTES_MAX:
            self.since, old_changes, old_size = entries.popleft()
            self._dropped += 1
            self._row_count -= len(old_changes)
            self._size -= old_size

    def wake(self) -> None:
        """Tell watchers that more became durable, or that the engine closed."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """Yield changes below `prefix` of versions above `since`; see `MetaStore.watch`.

        Raises:
            Expired: `since` is older than what is remembered, or the reader fell behind.
        """
        entries = self._entries
        if since < self.since:
            raise Expired(
                f"changes since version {since} are forgotten up to {self.since}: scan anew"
            )
        index = self._dropped + sum(1 for entry in entries if entry[0] <= since)
        while True:
            while index - self._dropped < len(entries):
                if index < self._dropped:
                    raise Expired(f"the watcher of {prefix!r} fell behind: scan anew")
                version, changes, _ = entries[index - self._dropped]
                if version > self._rows.durable:
                    break
                index += 1
                for key, value in changes:
                    if key.startswith(prefix):
                        yield Change(key, value, version)
            if index < self._dropped:
                raise Expired(f"the watcher of {prefix!r} fell behind: scan anew")
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
