"""The store: named blobs, put whole. `create`, `write`, `sync`, `seal` and `punch` come with the
capabilities `grow` and `punch`; without them core keeps to `put`."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from warp_core.contexts import StoreContext
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)

from warp_skeleton.config import Config


class Skeleton(BlobStore):
    """Say where blobs are kept, and what survives what."""

    capabilities = StoreCapabilities(durable=False, grow=False, punch=False)

    def __init__(self, config: Config, context: StoreContext) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        """Open what it keeps blobs in, and set `id`: it names this store and no other, for ever."""
        raise NotImplementedError

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """Store a whole blob, replacing what had the name; durable and visible on return, or not at all.

        Raises:
            NoSpace: Only the reserve is left (`vital` may use it).
            StoreFailed: The device answered with an error.
        """
        check_blob_name(name)
        raise NotImplementedError

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, fewer only at the end of the blob.

        Raises:
            NotFound: No such blob.
        """
        raise NotImplementedError

    async def delete(self, name: str) -> None:
        """Remove a blob, durably.

        Raises:
            NotFound: No such blob.
        """
        raise NotImplementedError

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """Return blobs whose name starts with `prefix` and sorts after `after`, ascending."""
        raise NotImplementedError

    async def stat(self, name: str) -> BlobInfo:
        """Return one blob's sizes.

        Raises:
            NotFound: No such blob.
        """
        raise NotImplementedError

    async def space(self) -> Space:
        """Return how full the store is."""
        raise NotImplementedError
