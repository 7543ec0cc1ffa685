"""The limits of users and groups within volumes, in the memory of the volumes' home: sums that each commit moves (`pools`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from warp_core.interfaces.consistency import MetaStore
from warp_core.metadata import Transaction, counters, transact
from warp_core.namespace import keys
from warp_core.namespace.pools import Amount, Pool, Tracked
from warp_core.namespace.rows import PoolRow, checked, decode_pool
from warp_core.namespace.tree import Volume


@dataclass(slots=True)
class OwnerPools:
    """Pools of those who have limits, read at the first change that is theirs."""

    store: MetaStore
    look: Callable[[Pool], None]
    _tracked: dict[tuple[int, str], Tracked] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def known(self, volume: Volume, owner: str) -> Tracked | None:
        """Return how an owner with limits is tracked; None if that has to be found out by `watch`."""
        tracked = self._tracked.get((volume.number, owner))
        if tracked is None or tracked.stale or tracked.version < 0 or tracked.row is None:
            return None
        if tracked.row is not volume.row:
            if (
                tracked.row != volume.row
            ):  # there may have been no limit for a while, and nothing told
                return None
            tracked.row = volume.row
        return tracked

    async def watch(self, volume: Volume, owner: str) -> Tracked:
        """Return how an owner with limits is tracked, reading what he has."""
        async with self._lock:
            tracked = self.known(volume, owner)
            if tracked is not None:
                return tracked
            tracked = self._tracked.setdefault((volume.number, owner), Tracked(volume.number))
            if not tracked.pools:
                tracked.pools = (await self._pool(volume, owner),)
            await self._read(volume, owner, tracked)
            pool = tracked.pools[0]
            pool.quota = volume.row.limits[owner]
            tracked.row = volume.row
            self.look(pool)
            return tracked

    async def _pool(self, volume: Volume, owner: str) -> Pool:
        row = keys.owner_pool_key(volume.number, owner)
        pool = Pool(f"{owner} in volume {volume.row.name!r}", row)
        pool.owner = f"{volume.row.name} {owner}"
        view = self.store.view()
        try:
            found = await view.get(row)
        finally:
            view.close()
        kept: PoolRow = checked(decode_pool, row, found[0]) if found is not None else PoolRow()
        pool.over_since_ns = kept.over_since_ns
        return pool

    async def _read(self, volume: Volume, owner: str, tracked: Tracked) -> None:
        key = volume.prefix + keys.owner_key(owner)
        tracked.missed = []
        try:
            if tracked.stale:
                # A commit whose outcome nobody knows may still be on its way: another behind it settles that.
                async def barrier(tx: Transaction) -> None:
                    tx.merge(key, add=(0, 0))

                await transact(self.store, barrier)
            view = self.store.view()
            try:
                version, found = view.version, await view.get(key)
            finally:
                view.close()
        except BaseException:
            tracked.missed = None
            raise
        counted = Amount(*counters(found[0] if found is not None else None, 2))
        for objects, bytes, of in tracked.missed:
            if of > version:
                counted = Amount(counted.objects + objects, counted.bytes + bytes)
                version = max(version, of)
        tracked.missed = None
        pool = tracked.pools[0]
        pool.objects += counted.objects - tracked.counted.objects
        pool.bytes += counted.bytes - tracked.counted.bytes
        tracked.counted, tracked.version, tracked.stale = counted, version, False

    async def of(self, volume: Volume) -> list[tuple[str, Pool]]:
        """Return the pools of all who have limits in a volume."""
        return [
            (owner, (self.known(volume, owner) or await self.watch(volume, owner)).pools[0])
            for owner in sorted(volume.row.limits)
        ]

    def doubt(self, volume: int) -> None:
        """The counters of a volume were corrected: they are to be read again."""
        for (number, _), tracked in self._tracked.items():
            if number == volume:
                tracked.stale = True

    def forget(self, volume: int) -> None:
        """A volume is gone."""
        for key in [key for key in self._tracked if key[0] == volume]:
            del self._tracked[key]
