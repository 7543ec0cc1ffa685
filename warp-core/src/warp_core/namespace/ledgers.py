"""The rows of a volume as its files' contents see them: live and changing, or of one moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from warp_core.errors import Corrupt, ReadOnly, VolumeNotFound
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.namespace.changes import Change
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.tree import Pair, Rows, ViewSource, Volume

T = TypeVar("T")


class Fresh:
    """Rows of a volume, each call as they are at its moment."""

    __slots__ = ("_namespace", "_volume")

    def __init__(self, namespace: Namespace, volume: Volume) -> None:
        self._namespace = namespace
        self._volume = volume

    async def get(self, key: bytes) -> bytes | None:
        """Return the row's value."""
        view = self._namespace.store.latest()
        try:
            return await self._volume.rows(ViewSource(view)).get(key)
        finally:
            view.close()

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Pair]:
        """Return up to `limit` rows of [start, end)."""
        view = self._namespace.store.latest()
        try:
            stored = self._volume.rows(ViewSource(view))
            return await stored.scan(start, end, limit=limit, reverse=reverse)
        finally:
            view.close()


@dataclass(frozen=True, slots=True)
class VolumeLedger:
    """One volume as its files' contents see it."""

    namespace: Namespace
    name: str
    number: int
    volume: Volume | None = None  # a snapshot: read only

    def rows(self) -> Rows:
        """Return the rows as they are now."""
        volume = self.volume or self.namespace.volumes.known(self.name)
        if volume is None:
            raise VolumeNotFound(f"no volume {self.name!r}")
        return Fresh(self.namespace, volume)

    async def transact(self, body: Callable[[Change], Awaitable[T]]) -> T:
        """Run a body in a transaction of the volume."""
        return await self.namespace.change(self.name, body)

    async def new_id(self) -> int:
        """Return a number that no inode and no revision had."""
        return await self.namespace.ids.take()

    def filters(self) -> str:
        """Return the filters that the volume's policy names now."""
        volume = self.volume or self.namespace.volumes.known(self.name)
        return ",".join(self.namespace.policy_of(volume).filters) if volume is not None else ""

    def journaled(self) -> bool:
        """Say whether commits share the journal with the records."""
        return self.namespace.journaled

    def now_ns(self) -> int:
        """Return the time."""
        return self.namespace.clock_ns()

    def unfilter(self, inline: bytes, filters: str) -> bytes:
        """Return inline content; this release writes it without filters."""
        if filters:
            raise Corrupt(f"inline content went through filters {filters!r}")
        return inline


class Moment:
    """Rows of one moment as a ledger: they can be read, and that is all."""

    number = 0

    def __init__(self, stored: Rows) -> None:
        self._stored = stored

    def rows(self) -> Rows:
        """Return the rows."""
        return self._stored

    async def transact(self, body: Callable[[Change], Awaitable[T]]) -> T:
        """Refuse."""
        raise ReadOnly("rows of a moment")

    async def new_id(self) -> int:
        """Refuse."""
        raise ReadOnly("rows of a moment")

    def filters(self) -> str:
        """Return none: nothing is written."""
        return ""

    def journaled(self) -> bool:
        """Refuse to rely on commits: there are none."""
        return False

    def now_ns(self) -> int:
        """Return no time."""
        return 0

    def unfilter(self, inline: bytes, filters: str) -> bytes:
        """Return inline content."""
        return inline
