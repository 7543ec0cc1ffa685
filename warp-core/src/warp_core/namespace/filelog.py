"""The journal as the log of changes to files: where records go, and where they are found again after a crash.

Changes of files are always journal records, so that they are in one order and one sync covers them; a volume's filters (compression,
encryption) act on each of them. A record belongs to a file that was set apart before it was written: its position is behind
the inode's `folded`, which an S3 payload of the same inode never is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from warp_core.containers import Chunk, Containers, Kind, Owner, Pin
from warp_core.containers.journal import Journal
from warp_core.containers.segments import Entry, Position
from warp_core.interfaces.stores import BlobStore, Buffer


class ChangeRecord(NamedTuple):
    """One record, verified."""

    volume: int
    inode: int
    chunk: Chunk
    payload: bytes | None  # None: it went through filters, and is read once it is needed
    time_ns: int


class FileLog:
    """Appends, reads and replays records of files."""

    def __init__(
        self, journal: Journal, containers: Containers, stores: Sequence[BlobStore] = ()
    ) -> None:
        """Take the entered parts; `stores` are those whose space `statfs` shows."""
        self._journal = journal
        self._containers = containers
        self._stores = stores

    def append(
        self, payload: Buffer, *, volume: int, inode: int, revision: int, filters: str = ""
    ) -> Chunk:
        """Queue a record, through a comma separated list of filters, and return its place; it can be read at once."""
        owner = Owner(volume, inode, revision)
        packer = self._containers.packer(filters) if filters else None
        return self._journal.append(Kind.PAYLOAD, payload, owner=owner, packer=packer)

    def has_room(self, length: int) -> bool:
        """Say whether `room` would not wait."""
        return self._journal.has_room(length)

    async def room(self, length: int) -> None:
        """Wait until so many bytes more can be appended.

        Raises:
            NoSpace, ReadOnly: They never can.
        """
        if not self.has_room(length):
            await self._journal.room(length)

    async def flush(self) -> None:
        """Return when everything appended before is durable."""
        await self._journal.flush()

    async def read(self, chunk: Chunk, *, offset: int, length: int) -> Buffer:
        """Return verified bytes of a record's payload."""
        return await self._containers.read(chunk, offset=offset, length=length)

    def read_now(self, chunk: Chunk, *, offset: int, length: int) -> Buffer | None:
        """Return them if no device has to be waited for."""
        return self._containers.read_now(chunk, offset=offset, length=length)

    def end(self) -> tuple[int, int]:
        """Return a position behind every record appended so far; the next one may lie just there."""
        container, offset = self._journal.end
        return container, offset

    def last(self) -> tuple[int, int]:
        """Return a position that no record appended so far lies behind, and every later one does."""
        container, offset = self._journal.end
        return container, offset - 1

    def pin(self) -> Pin:
        """Keep everything readable that is alive now."""
        return self._containers.pin()

    async def pending(self, since: tuple[int, int]) -> AsyncIterator[ChangeRecord]:
        """Yield the payload records of earlier runs from a position on, in order."""
        async for entry in self._journal.replay(Position(*since)):
            if isinstance(entry, Entry) and entry.kind == Kind.PAYLOAD:
                volume, inode, _ = entry.owner
                payload = None if entry.filters else bytes(entry.payload)
                yield ChangeRecord(volume, inode, entry.chunk, payload, entry.sequence)

    async def space(self) -> tuple[int, int]:
        """Return total and free bytes of the stores."""
        spaces = [await store.space() for store in self._stores]
        return sum(each.total for each in spaces), sum(each.free for each in spaces)
