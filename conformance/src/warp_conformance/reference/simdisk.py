"""A disk that forgets: what was written and not synced may be lost, kept, or torn when the power goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from warp_core.errors import AlreadyExists, NoSpace, NotFound, StoreFailed
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
)

SECTOR = 512


class PowerCut(asyncio.CancelledError):
    """The power went: nothing after this happened."""


class SimDisk(BlobStore):
    """A store in memory that remembers what is durable.

    `step` is called before and after each effect with a word for it: raise from it to fail or cut there.
    """

    capabilities = StoreCapabilities(durable=True, grow=True, punch=True)

    def __init__(
        self, name: str = "sim", capacity: int = 1 << 40, path: Path | None = None
    ) -> None:
        self.id = name
        self.path = path
        self.capacity = capacity
        self.reserve = 0
        self.blobs: dict[str, bytearray] = {}
        self.durable: dict[str, bytearray] = {}
        self.unsynced: list[tuple[str, int, bytes]] = []
        self.step: Callable[[str, str], None] = lambda what, blob: None
        self.down: StoreFailed | None = None
        self.syncs = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *rest: Any) -> None:
        pass

    def _at(self, what: str, blob: str) -> None:
        if self.down is not None:
            raise self.down
        self.step(what, blob)

    def used(self) -> int:
        """Return the bytes of all blobs."""
        return sum(map(len, self.blobs.values()))

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """See `BlobStore.put`."""
        await asyncio.sleep(0)
        self._at("put", name)
        self.blobs[name] = bytearray(b"".join(buffers))
        self.durable[name] = bytearray(self.blobs[name])

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """See `BlobStore.read`."""
        await asyncio.sleep(0)
        self._at("read", name)
        if name not in self.blobs:
            raise NotFound(name)
        return bytes(self.blobs[name][offset : offset + length])

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        await asyncio.sleep(0)
        self._at("delete", name)
        if name not in self.blobs:
            raise NotFound(name)
        del self.blobs[name]
        self.durable.pop(name, None)
        self.unsynced = [write for write in self.unsynced if write[0] != name]

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """See `BlobStore.list`."""
        names = sorted(n for n in self.blobs if n.startswith(prefix) and n > after)
        return [BlobInfo(n, len(self.blobs[n]), len(self.blobs[n])) for n in names[:limit]]

    async def stat(self, name: str) -> BlobInfo:
        """See `BlobStore.stat`."""
        if name not in self.blobs:
            raise NotFound(name)
        return BlobInfo(name, len(self.blobs[name]), len(self.blobs[name]))

    async def space(self) -> Space:
        """See `BlobStore.space`."""
        return Space(self.capacity, max(0, self.capacity - self.used()), self.reserve)

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """See `BlobStore.create`."""
        await asyncio.sleep(0)
        self._at("create", name)
        if name in self.blobs:
            raise AlreadyExists(name)
        if self.used() + reserve > self.capacity - (0 if vital else self.reserve):
            raise NoSpace("full")
        self.blobs[name] = bytearray(reserve)
        self.durable[name] = bytearray(reserve)

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """See `BlobStore.write`."""
        await asyncio.sleep(0)
        if name not in self.blobs:
            raise NotFound(name)
        data = b"".join(buffers)
        self._at("write", name)
        self.unsynced.append((name, offset, data))
        _write(self.blobs[name], offset, data)
        if sync:
            await self.sync(name)

    async def sync(self, name: str) -> None:
        """See `BlobStore.sync`."""
        await asyncio.sleep(0)
        self._at("sync", name)
        for blob, offset, data in self.unsynced:
            if blob == name:
                _write(self.durable[name], offset, data)
        self.unsynced = [write for write in self.unsynced if write[0] != name]
        self.syncs += 1
        self._at("synced", name)

    async def seal(self, name: str, *, size: int) -> None:
        """See `BlobStore.seal`."""
        await self.sync(name)
        del self.blobs[name][size:]
        del self.durable[name][size:]

    def cut(self, keep: Callable[[str, int, bytes], Sequence[bool]]) -> None:
        """Lose power: of each unsynced write only those sectors reach the disk that `keep` says."""
        for name, offset, data in self.unsynced:
            image = self.durable.get(name)
            if image is None:
                continue
            for index, kept in enumerate(keep(name, offset, data)):
                if kept:
                    start = index * SECTOR
                    _write(image, offset + start, data[start : start + SECTOR])
        self.unsynced = []
        self.blobs = {name: bytearray(data) for name, data in self.durable.items()}
        self.step = lambda what, blob: None
        self.down = None


def _write(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset + len(data):
        image.extend(bytes(offset + len(data) - len(image)))
    image[offset : offset + len(data)] = data


def sectors(data: bytes) -> int:
    """Return how many sectors some bytes take."""
    return (len(data) + SECTOR - 1) // SECTOR
