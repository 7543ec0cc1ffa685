"""A BlobStore in memory: the rules of a real one, for tests, tools and caches."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from warp_core.errors import AlreadyExists, ConfigError, InvalidArgument, NoSpace, NotFound
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)

from warp_store_memory.config import Config


class _Blob:
    """Bytes, and whether they may still change."""

    __slots__ = ("data", "growing")

    def __init__(self, data: bytearray, *, growing: bool) -> None:
        self.data = data
        self.growing = growing


class Memory(BlobStore):
    """Blobs in a dictionary. They live as long as the object, also while it is not entered."""

    capabilities = StoreCapabilities(grow=True, punch=True, immediate=True)

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or Config()
        if not 0 <= self._config.reserve <= self._config.capacity:
            raise ConfigError(
                f"reserve = {self._config.reserve} is not between 0 and capacity = {self._config.capacity}"
            )
        self.id = secrets.token_hex(8)
        self._blobs: dict[str, _Blob] = {}
        self._used = 0

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """Replace the blob."""
        check_blob_name(name)
        old = self._blobs.get(name)
        data = bytearray().join(buffers)
        self._admit(len(data) - (len(old.data) if old else 0), vital)
        self._set(name, _Blob(data, growing=False))

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """Copy the range."""
        with memoryview(self._find(name).data) as view:
            return bytes(view[offset : offset + length])

    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        """Copy the range into `buffer`."""
        return self._copy(name, offset, buffer)

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """Copy the range; None for a blob that does not exist, which `read` reports."""
        blob = self._blobs.get(name)
        if blob is None:
            return None
        with memoryview(blob.data) as view:
            return bytes(view[offset : offset + length])

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """Copy the range into `buffer`."""
        return self._copy(name, offset, buffer) if name in self._blobs else None

    async def delete(self, name: str) -> None:
        """Forget the blob."""
        self._used -= len(self._find(name).data)
        del self._blobs[name]

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """Walk the names in order."""
        names = sorted(name for name in self._blobs if name.startswith(prefix))
        page = islice(names, bisect_right(names, after), None)
        return [self._describe(name) for name in islice(page, limit)]

    async def stat(self, name: str) -> BlobInfo:
        """Describe the blob."""
        self._find(name)
        return self._describe(name)

    async def space(self) -> Space:
        """Count what is left of the capacity."""
        config = self._config
        return Space(
            config.capacity, max(0, config.capacity - config.reserve - self._used), config.reserve
        )

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """Make a blob of zeros."""
        check_blob_name(name)
        if name in self._blobs:
            raise AlreadyExists(f"blob {name} exists")
        self._admit(reserve, vital)
        self._set(name, _Blob(bytearray(reserve), growing=True))

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """Overwrite or extend the blob."""
        blob = self._find(name)
        if not blob.growing:
            raise InvalidArgument(f"blob {name} is whole and takes no more writes")
        growth = offset + sum(map(len, buffers)) - len(blob.data)
        if growth > 0:
            self._admit(growth, vital=False)
            blob.data += bytes(growth)
            self._used += growth
        for buffer in buffers:
            blob.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    async def sync(self, name: str) -> None:
        """Nothing outlives the process: only the name is checked."""
        self._find(name)

    async def seal(self, name: str, *, size: int) -> None:
        """Cut the blob and forbid writes."""
        blob = self._find(name)
        self._used -= max(0, len(blob.data) - size)
        del blob.data[size:]
        blob.growing = False

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """Zero the range."""
        data = self._find(name).data
        end = min(offset + length, len(data))
        if offset < end:
            data[offset:end] = bytes(end - offset)

    def _find(self, name: str) -> _Blob:
        try:
            return self._blobs[name]
        except KeyError:
            check_blob_name(name)
            raise NotFound(f"no blob {name}") from None

    def _copy(self, name: str, offset: int, buffer: memoryview) -> int:
        with memoryview(self._find(name).data) as view:
            part = view[offset : offset + len(buffer)]
            buffer[: len(part)] = part
            count = len(part)
            part.release()
        return count

    def _set(self, name: str, blob: _Blob) -> None:
        old = self._blobs.get(name)
        self._used += len(blob.data) - (len(old.data) if old else 0)
        self._blobs[name] = blob

    def _admit(self, size: int, vital: bool) -> None:
        free = self._config.capacity - self._used - (0 if vital else self._config.reserve)
        if size > max(free, 0):
            raise NoSpace(
                f"the store has {max(free, 0)} bytes free beside its reserve, {size} are needed"
            )

    def _describe(self, name: str) -> BlobInfo:
        size = len(self._blobs[name].data)
        return BlobInfo(name, size, size)
