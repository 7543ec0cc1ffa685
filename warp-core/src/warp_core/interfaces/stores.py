"""BlobStore: named blobs on one failure domain, usually one disk.

A blob is either *put* whole (atomic and durable when the call returns) or *grown*: created with reserved space, written at
positions, synced, and in the end sealed. Stores know nothing of records, chunks or checksums: they keep bytes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from warp_core.errors import InvalidArgument, Unsupported

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
    """A store. Open it with `async with`; every call is safe to make concurrently for different blobs.

    Buffers that were handed to a call may be changed as soon as it returned or raised, also when it was cancelled.
    """

    capabilities: StoreCapabilities
    id: str = ""  # names this store and no other for ever, known once entered; survives a restart if the store is durable
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
    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """Store a whole blob, replacing what had the name. On return it is durable; before, the old one is seen.

        Args:
            vital: May take from the reserve: for what frees space, or records that it is free.

        Raises:
            InvalidArgument: The name breaks the rule at BLOB_NAME_MAX.
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

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """Fill `buffer` if that needs no waiting for a device and return how many bytes there were, else None."""
        data = self.read_now(name, offset=offset, length=len(buffer))
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)

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

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """Begin a growing blob of `reserve` bytes, with space for all of them; durable on return.

        Args:
            recycle: Make it cheap to overwrite and sync, in exchange for what it holds: zeros, or bytes of a deleted blob that
                was made with `recycle`. Without it the blob reads zeros.
            vital: May take from the store's reserve, as for `put`.

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
            NotFound: No such blob.
            InvalidArgument: The blob is whole: it was put, or sealed.
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
        """End growth: cut the blob to `size` (at most what it has), give back reserved space, durably. Harmless when repeated."""
        raise Unsupported("this store keeps whole blobs only")

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """Free a range; it reads as zeros afterwards. Granularity is the device's: partial blocks stay."""
        raise Unsupported("this store cannot free ranges")


_NAME = re.compile(r"[a-z0-9._-]+(?:/[a-z0-9._-]+)*\Z")


def check_blob_name(name: str) -> None:
    """Refuse what is no blob name.

    Raises:
        InvalidArgument: Too long, another character, or a component that is empty, "." or "..".
    """
    if (
        len(name) > BLOB_NAME_MAX
        or not _NAME.match(name)
        or any(part in (".", "..") for part in name.split("/"))
    ):
        raise InvalidArgument(
            f'blob name "{name[:BLOB_NAME_MAX]}" is not 1 to {BLOB_NAME_MAX} characters of a-z 0-9 . _ - in folders'
        )
