"""A correct store in memory that remembers what is durable, and loses the rest in a power cut."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from warp_core.errors import AlreadyExists, InvalidArgument, NoSpace, NotFound
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)


@dataclass(slots=True)
class Blob:
    """Bytes, and whether they may still change."""

    data: bytearray
    whole: bool = True

    def copy(self) -> Blob:
        """Return an independent equal blob."""
        return Blob(bytearray(self.data), self.whole)


@dataclass(slots=True)
class Medium:
    """What outlives a store object: the durable blobs, and the store's identity."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))


class Plain(BlobStore):
    """A store of 8 MiB. Opening another one on the same medium shows what a power cut leaves."""

    capabilities = StoreCapabilities(durable=True, grow=True, punch=True, immediate=True)
    capacity = 8 * 1024 * 1024
    reserve = 512 * 1024

    def __init__(self, medium: Medium, path: Path | None = None) -> None:
        self.medium = medium
        self.path = path
        self.id = medium.id
        self.blobs = {name: blob.copy() for name, blob in medium.blobs.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def find(self, name: str) -> Blob:
        """Return a blob, or raise NotFound."""
        if name not in self.blobs:
            raise NotFound(f"no blob {name}")
        return self.blobs[name]

    def admit(self, size: int, vital: bool) -> None:
        """Refuse what does not fit."""
        free = self.capacity - sum(len(blob.data) for blob in self.blobs.values())
        if size > free - (0 if vital else self.reserve):
            raise NoSpace(f"{size} bytes do not fit")

    def keep(self, name: str) -> None:
        """Make a blob durable as it is."""
        self.medium.blobs[name] = self.blobs[name].copy()

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """See `BlobStore.put`."""
        check_blob_name(name)
        data = bytearray().join(buffers)
        await asyncio.sleep(0)
        old = self.blobs.get(name)
        self.admit(len(data) - (len(old.data) if old else 0), vital)
        self.blobs[name] = Blob(data)
        self.keep(name)

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """See `BlobStore.read`."""
        await asyncio.sleep(0)
        return bytes(self.find(name).data[offset : offset + length])

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """See `BlobStore.read_now`."""
        blob = self.blobs.get(name)
        return None if blob is None else bytes(blob.data[offset : offset + length])

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        self.find(name)
        del self.blobs[name]
        del self.medium.blobs[name]

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """See `BlobStore.list`."""
        names = sorted(name for name in self.blobs if name.startswith(prefix) and name > after)
        return [await self.stat(name) for name in names[:limit]]

    async def stat(self, name: str) -> BlobInfo:
        """See `BlobStore.stat`."""
        size = len(self.find(name).data)
        return BlobInfo(name, size, size)

    async def space(self) -> Space:
        """See `BlobStore.space`."""
        used = sum(len(blob.data) for blob in self.blobs.values())
        return Space(self.capacity, max(0, self.capacity - self.reserve - used), self.reserve)

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """See `BlobStore.create`."""
        check_blob_name(name)
        if name in self.blobs:
            raise AlreadyExists(name)
        self.admit(reserve, vital)
        self.blobs[name] = Blob(bytearray(reserve), whole=False)
        self.keep(name)

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """See `BlobStore.write`."""
        blob = self.find(name)
        if blob.whole:
            raise InvalidArgument(f"blob {name} is whole")
        data = b"".join(buffers)
        await asyncio.sleep(0)
        growth = offset + len(data) - len(blob.data)
        if growth > 0:
            self.admit(growth, vital=False)
            blob.data.extend(bytes(growth))
        blob.data[offset : offset + len(data)] = data
        if sync:
            await self.sync(name)

    async def sync(self, name: str) -> None:
        """See `BlobStore.sync`."""
        self.find(name)
        await asyncio.sleep(0)
        self.keep(name)

    async def seal(self, name: str, *, size: int) -> None:
        """See `BlobStore.seal`."""
        blob = self.find(name)
        del blob.data[size:]
        blob.whole = True
        self.keep(name)

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """See `BlobStore.punch`."""
        data = self.find(name).data
        end = min(offset + length, len(data))
        data[offset:end] = bytes(max(0, end - offset))
