"""The engine: ordered keys and optimistic transactions."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from warp_core.contexts import MetaContext
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Commit,
    MetaCapabilities,
    MetaStore,
    Row,
    View,
)
from warp_core.metadata import check_limits

from warp_skeleton.config import Config


class SkeletonView(View):
    """A read view of one moment."""

    def __init__(self, version: int) -> None:
        self.version = version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Return value and version of the row, or None."""
        raise NotImplementedError

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """Return up to `limit` rows of [start, end), ascending unless `reverse`."""
        raise NotImplementedError


class Skeleton(MetaStore):
    """Say where rows are kept, and what a commit promises."""

    capabilities = MetaCapabilities(durable=False)

    def __init__(self, config: Config, context: MetaContext) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        """Open what it keeps rows in."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""

    def view(self) -> View:
        """Take a read view; it shows every commit that returned before this call."""
        raise NotImplementedError

    async def commit(self, commit: Commit) -> int:
        """Apply a commit whole and return its version.

        Raises:
            Conflict: A check does not hold; nothing was applied.
            TooLarge: Beyond the limits.
        """
        check_limits(commit)
        raise NotImplementedError
