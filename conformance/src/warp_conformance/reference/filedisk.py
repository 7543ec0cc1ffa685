"""A small BlobStore of files: what a kit builds durable engines on when no other store is installed. Not fast: it blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from warp_core.errors import AlreadyExists, NotFound
from warp_core.interfaces.stores import BlobInfo, BlobStore, Buffer, Space, StoreCapabilities


class FileDisk(BlobStore):
    """Blobs as files below a folder."""

    capabilities = StoreCapabilities(durable=True, grow=True, local_path=True)

    def __init__(self, path: Path) -> None:
        self.id = path.name
        self.path: Path = path
        self._blobs = path / "blobs"

    async def __aenter__(self) -> Self:
        """Make the folder."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *rest: object) -> None:
        """Nothing is open."""

    def _file(self, name: str) -> Path:
        return self._blobs / name.replace("/", "~")

    def _open(self, name: str) -> int:
        try:
            return os.open(self._file(name), os.O_RDWR)
        except FileNotFoundError:
            raise NotFound(name) from None

    def _sync_folder(self) -> None:
        descriptor = os.open(self._blobs, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """See `BlobStore.put`."""
        making = self._file(name + ".new")
        with making.open("wb") as file:
            file.write(b"".join(buffers))
            file.flush()
            os.fsync(file.fileno())
        making.rename(self._file(name))
        self._sync_folder()

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """See `BlobStore.read`."""
        descriptor = self._open(name)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        try:
            self._file(name).unlink()
        except FileNotFoundError:
            raise NotFound(name) from None
        self._sync_folder()

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """See `BlobStore.list`."""
        names = (path.name.replace("~", "/") for path in self._blobs.iterdir())
        chosen = sorted(name for name in names if name.startswith(prefix) and name > after)
        return [await self.stat(name) for name in chosen[:limit]]

    async def stat(self, name: str) -> BlobInfo:
        """See `BlobStore.stat`."""
        try:
            status = self._file(name).stat()
        except FileNotFoundError:
            raise NotFound(name) from None
        return BlobInfo(name, status.st_size, status.st_blocks * 512)

    async def space(self) -> Space:
        """See `BlobStore.space`."""
        status = os.statvfs(self.path)
        return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize, 0)

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """See `BlobStore.create`."""
        try:
            with self._file(name).open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, max(reserve, 1))
                os.fsync(file.fileno())
        except FileExistsError:
            raise AlreadyExists(name) from None
        self._sync_folder()

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """See `BlobStore.write`."""
        descriptor = self._open(name)
        try:
            os.pwrite(descriptor, b"".join(buffers), offset)
            if sync:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    async def sync(self, name: str) -> None:
        """See `BlobStore.sync`."""
        descriptor = self._open(name)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    async def seal(self, name: str, *, size: int) -> None:
        """See `BlobStore.seal`."""
        os.truncate(self._file(name), size)
        await self.sync(name)
