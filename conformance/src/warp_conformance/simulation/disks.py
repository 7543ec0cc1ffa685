"""Disks that take time, forget what was not synced when the power goes, tear what was on its way, and fail.

A `Medium` is what lies in the machine and outlives its processes: the page cache, which a power cut empties, and what is durable. A
`SimDisk` is one process' way to it. The rules are those of `BlobStore`, as badly as they allow: of each write that was not synced any
sectors may be kept, in any order; after a failed sync the page cache shows what the device does not have, and never writes it
again; a recycled blob holds bytes of a deleted one.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from warp_core.errors import AlreadyExists, InvalidArgument, NoSpace, NotFound, StoreFailed
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)

from warp_conformance.simulation.world import World

SECTOR = 512  # bytes that a disk writes whole, or not
CALL_S = (0.00005, 0.001)  # one call, before and after its effect each
SLOW_S = (0.01, 0.4)  # one call in SLOW: a disk that remaps, a queue that is full
SLOW = 0.01
CAPACITY = 256 * 1024 * 1024
RESERVE = 1024 * 1024


@dataclass(slots=True)
class Blob:
    """Bytes as the page cache has them, and as the device has them. `unsynced` are writes that only the former has for sure."""

    cached: bytearray
    durable: bytearray
    whole: bool
    recycle: bool = False
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)


class Medium:
    """One disk of a machine. `failing` is a list of calls that answer with an error, `stalled_until` when it answers again."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.id = f"{world.chance(f'id of {name}').getrandbits(64):016x}"
        self.chance = world.chance(f"disk {name}")
        self.blobs: dict[str, Blob] = {}
        self.deleted: list[bytes] = []  # what recycled blobs may show
        self.failing: frozenset[str] = frozenset()
        self.stalled_until = 0.0
        self.used = 0
        self.capacity = CAPACITY
        self.syncs = 0
        self.lost_writes = 0  # sectors that a power cut took

    def note(self, what: str) -> None:
        """Add to the trace."""
        self.world.note(self.name, what)

    def replace(self) -> None:
        """Be lost, and another one be there in its place."""
        self.note("lost for good: an empty disk is in its place")
        self.id = f"{self.chance.getrandbits(64):016x}"
        self.blobs.clear()
        self.deleted.clear()
        self.used = 0

    def cut(self) -> None:
        """Lose power. Each cut has a mood of its own: everything unsynced is lost, some of it, or hardly anything."""
        keep = self.chance.choice((0.0, 0.2, 0.5, 0.8, 0.98))
        lost = 0
        for blob in self.blobs.values():
            for offset, data in blob.unsynced:
                lost += apply_some(blob.durable, offset, data, keep, self.chance)
            blob.unsynced.clear()
            blob.cached = bytearray(blob.durable)
        self.used = sum(len(blob.cached) for blob in self.blobs.values())
        self.lost_writes += lost
        self.note(f"power cut, keeping {keep}: {lost} sectors lost")


def apply_some(
    image: bytearray, offset: int, data: bytes, keep: float, chance: random.Random
) -> int:
    """Write those sectors that chance keeps; return how many it does not."""
    lost = 0
    at = 0
    while at < len(data):
        size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
        if chance.random() < keep:
            overwrite(image, offset + at, data[at : at + size])
        else:
            lost += 1
        at += size
    return lost


def overwrite(image: bytearray, offset: int, data: bytes) -> None:
    """Write at a position, extending with zeros."""
    if len(image) < offset + len(data):
        image.extend(bytes(offset + len(data) - len(image)))
    image[offset : offset + len(data)] = data


class SimDisk(BlobStore):
    """A process' way to a medium."""

    capabilities = StoreCapabilities(durable=True, grow=True, punch=True)

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._chance = medium.chance
        self.id = medium.id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    # Time and trouble -----------------------------------------------------------------------------

    async def _wait(self) -> None:
        chance = self._chance
        await asyncio.sleep(chance.uniform(*(SLOW_S if chance.random() < SLOW else CALL_S)))
        left = self._medium.stalled_until - self._medium.world.now
        if left > 0:
            await asyncio.sleep(left)

    async def _begin(self, call: str, name: str, rest: str = "") -> None:
        """Wait until the effect is due, which is then up to the caller; its process may be dead by then, or its disk."""
        await self._wait()
        medium = self._medium
        if call in medium.failing:
            medium.note(f"{call} {name}{rest} fails")
            raise StoreFailed(f"{medium.name}: {call} {name}: input/output error")
        medium.note(f"{call} {name}{rest}")

    def _find(self, name: str) -> Blob:
        try:
            return self._medium.blobs[name]
        except KeyError:
            raise NotFound(f"no blob {name}") from None

    def _admit(self, size: int, vital: bool) -> None:
        free = self._medium.capacity - self._medium.used - (0 if vital else RESERVE)
        if size > free:
            raise NoSpace(f"{self._medium.name}: {size} bytes do not fit, {free} are free")

    # Whole blobs ----------------------------------------------------------------------------------

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """See `BlobStore.put`."""
        check_blob_name(name)
        data = bytearray().join(buffers)
        await self._begin("put", name, told(0, data))
        old = self._medium.blobs.get(name)
        growth = len(data) - (len(old.cached) if old else 0)
        self._admit(growth, vital)
        self._medium.blobs[name] = Blob(data, bytearray(data), whole=True)
        self._medium.used += growth
        await self._wait()

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """See `BlobStore.read`."""
        await self._begin("read", name, f" {offset}+{length}")
        return bytes(self._find(name).cached[offset : offset + length])

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        await self._begin("delete", name)
        blob = self._find(name)
        del self._medium.blobs[name]
        self._medium.used -= len(blob.cached)
        if blob.recycle:
            self._medium.deleted.append(bytes(blob.cached))
        await self._wait()

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """See `BlobStore.list`."""
        await self._begin("list", prefix)
        blobs = self._medium.blobs
        names = sorted(name for name in blobs if name.startswith(prefix) and name > after)
        return [
            BlobInfo(name, len(blobs[name].cached), len(blobs[name].cached))
            for name in names[:limit]
        ]

    async def stat(self, name: str) -> BlobInfo:
        """See `BlobStore.stat`."""
        await self._begin("stat", name)
        size = len(self._find(name).cached)
        return BlobInfo(name, size, size)

    async def space(self) -> Space:
        """See `BlobStore.space`."""
        await self._begin("space", "")
        capacity = self._medium.capacity
        return Space(capacity, max(0, capacity - RESERVE - self._medium.used), RESERVE)

    # Growing blobs --------------------------------------------------------------------------------

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """See `BlobStore.create`."""
        check_blob_name(name)
        await self._begin("create", name, f" {reserve}")
        medium = self._medium
        if name in medium.blobs:
            raise AlreadyExists(name)
        self._admit(reserve, vital)
        data = bytearray(reserve)
        if recycle and medium.deleted:
            old = medium.deleted.pop(self._chance.randrange(len(medium.deleted)))[:reserve]
            data[: len(old)] = old
        medium.blobs[name] = Blob(data, bytearray(data), whole=False, recycle=recycle)
        medium.used += reserve
        await self._wait()

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """See `BlobStore.write`."""
        data = b"".join(buffers)
        await self._begin("write", name, told(offset, data))
        blob = self._find(name)
        if blob.whole:
            raise InvalidArgument(f"blob {name} is whole")
        growth = offset + len(data) - len(blob.cached)
        if growth > 0:
            self._admit(growth, vital=False)
            self._medium.used += growth
        overwrite(blob.cached, offset, data)
        blob.unsynced.append((offset, data))
        await self._wait()
        if sync:
            await self.sync(name)

    async def sync(self, name: str) -> None:
        """See `BlobStore.sync`."""
        try:
            await self._begin("sync", name)
        except StoreFailed:
            blob = self._medium.blobs.get(name)
            if blob is not None:
                for offset, data in blob.unsynced:
                    apply_some(blob.durable, offset, data, 0.5, self._chance)
                blob.unsynced.clear()
            raise
        blob = self._find(name)
        for offset, data in blob.unsynced:
            overwrite(blob.durable, offset, data)
        blob.unsynced.clear()
        if len(blob.durable) < len(blob.cached):
            blob.durable.extend(bytes(len(blob.cached) - len(blob.durable)))
        self._medium.syncs += 1
        await self._wait()

    async def seal(self, name: str, *, size: int) -> None:
        """See `BlobStore.seal`."""
        await self._begin("seal", name, f" {size}")
        blob = self._find(name)
        for offset, data in blob.unsynced:
            overwrite(blob.durable, offset, data)
        blob.unsynced.clear()
        self._medium.used -= max(0, len(blob.cached) - size)
        del blob.cached[size:]
        del blob.durable[size:]
        blob.whole = True
        await self._wait()

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """See `BlobStore.punch`."""
        await self._begin("punch", name, f" {offset}+{length}")
        blob = self._find(name)
        for image in (blob.cached, blob.durable):
            end = min(offset + length, len(image))
            if offset < end:
                image[offset:end] = bytes(end - offset)
        await self._wait()


def told(offset: int, data: Buffer) -> str:
    """Return place, size and checksum for the trace."""
    return f" {offset}+{len(data)} {zlib.crc32(data):08x}"
