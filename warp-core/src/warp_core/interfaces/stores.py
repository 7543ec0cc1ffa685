"""BlobStore: named blobs on one failure domain, usually one disk.

A blob is either *put* whole (atomic and durable when the call returns) or *grown*: created with reserved space, written at
positions, synced, and in the end sealed. Stores know nothing of records, chunks or checksums: they keep bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from warp_core.errors import Unsupported

BLOB_NAME_MAX = 120  # characters: [a-z0-9._-], folders separated by "/"

Buffer = bytes | bytearray | memoryview


class BlobInfo(NamedTuple):
    """What a listing tells of a blob."""

    name: str
    size: int  # bytes that reads can reach
    allocated: int  # bytes that it occupies


class Space(NamedTuple):
    """Bytes of a store. `free` excludes the reserve, which keeps deletes and commits working on a full disk."""

    total: int
    free: int
    reserve: int


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What a store claims."""

    durable: bool = False  # what was synced survives kill -9 and a power cut
    grow: bool = False  # create, write, sync, seal
    punch: bool = False  # free space inside a blob
    immediate: bool = False  # read_now answers from cache without blocking
    local_path: bool = False  # `path` is a folder where an engine may keep an index of its own


class BlobStore(ABC):
    """A store. Open it with `async with`; every call is safe to make concurrently for different blobs."""

    capabilities: StoreCapabilities
    path: Path | None = None  # with the capability local_path

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @abstractmethod
    async def put(self, name: str, buffers: Sequence[Buffer]) -> None:
        """Store a whole blob, replacing what had the name. On return it is durable; before, the old one is seen.

        Raises:
            NoSpace: Only the reserve is left.
            StoreFailed: The device answered with an error; nothing of the old blob is lost.
        """

    @abstractmethod
    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the end of the blob.

        Raises:
            NotFound: No such blob.
            StoreFailed: The device answered with an error.
        """

    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; return how many bytes there were."""
        data = await self.read(name, offset=offset, length=len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """Return the bytes if that needs no waiting for a device, else None. Short only at the blob's end."""
        return None

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Remove a blob, durably. Never needs free space; never reads its content.

        Raises:
            NotFound: No such blob.
        """

    @abstractmethod
    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """Return blobs whose name starts with `prefix` and sorts after `after`, ascending, at most `limit`."""

    @abstractmethod
    async def stat(self, name: str) -> BlobInfo:
        """Return one blob's sizes.

        Raises:
            NotFound: No such blob.
        """

    @abstractmethod
    async def space(self) -> Space:
        """Return how full the store is."""

    async def create(self, name: str, *, reserve: int) -> None:
        """Begin a growing blob with `reserve` bytes of space; durable as an empty blob (reads zeros) on return.

        Raises:
            AlreadyExists: The name is taken.
            NoSpace: Only the store's reserve is left.
        """
        raise Unsupported("this store keeps whole blobs only")

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """Write at a position of a growing blob; durable after `sync` (of this call or the next `sync`).

        Raises:
            NoSpace: The device is full. What was written before stays.
            StoreFailed: After a failed sync nothing unsynced of this blob may be trusted: abandon it.
        """
        raise Unsupported("this store keeps whole blobs only")

    async def sync(self, name: str) -> None:
        """Make everything written to the blob durable.

        Raises:
            StoreFailed: As for `write`.
        """
        raise Unsupported("this store keeps whole blobs only")

    async def seal(self, name: str, *, size: int) -> None:
        """End growth: cut the blob to `size`, give back reserved space, durably."""
        raise Unsupported("this store keeps whole blobs only")

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """Free a range; it reads as zeros afterwards. Granularity is the device's: partial blocks stay."""
        raise Unsupported("this store cannot free ranges")
