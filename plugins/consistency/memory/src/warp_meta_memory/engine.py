"""The engine: `Rows` without anything beneath them, and nothing that waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from warp_core.errors import Unavailable
from warp_core.interfaces.consistency import (
    Change,
    Commit,
    Lease,
    MetaCapabilities,
    MetaStore,
    View,
)
from warp_core.metadata.history import History
from warp_core.metadata.leases import Leases
from warp_core.metadata.limits import check_limits
from warp_core.metadata.rows import Rows, RowsView

DELETES_REMEMBERED = 16_384  # rows changed lately; checks of closed views reach back so far
TICK_S = 0.5  # how often expired views are looked for, a fraction of VIEW_MAX_S


class Memory(MetaStore):
    """MetaStore in memory: linearizable, watchable, leases; nothing survives `__aexit__`."""

    capabilities = MetaCapabilities(watch=True, lease=True, immediate=True)

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._rows = Rows()
        self._history = History(self._rows)
        self._leases = Leases(monotonic, self._empty_commit)
        self._ticked_s = 0.0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True

    def view(self) -> View:
        """See `MetaStore.view`."""
        return RowsView(self._rows)

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        """See `MetaStore.get_now`."""
        return self._rows.get(key, self._rows.durable)

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        if self._closed:
            raise Unavailable("the metadata engine is closed")
        rows = self._rows
        size = check_limits(commit)
        request_id = commit.request_id
        if request_id and (earlier := rows.applied(request_id)) is not None:
            return earlier
        changes = rows.judge(commit)
        version = rows.apply(changes, request_id)
        rows.durable = rows.sealed = version
        self._history.append(version, changes, size)
        self._history.wake()
        if rows.logged_rows > DELETES_REMEMBERED:
            self._forget(2 * len(changes) + 1)
        return version

    async def _empty_commit(self) -> int:
        return await self.commit(Commit())

    def _forget(self, rows_max: int) -> None:
        now = self._monotonic()
        if now - self._ticked_s > TICK_S:
            self._ticked_s = now
            self._rows.tick(now)
        self._rows.retire(self._rows.oldest_needed(), rows_max=rows_max)

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`."""
        return self._rows.applied(request_id)

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        return self._history.watch(prefix, since)

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        return await self._leases.grant(name, holder, ttl_s)

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        return self._leases.renew(lease)

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        self._leases.release(lease)
