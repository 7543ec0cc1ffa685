"""Quotas: what volumes and accounts may hold, kept in the memory of their home and moved by each commit (`pools`).

A volume is looked at once (`watch`): which limits apply, and where one does, what its counters say. From then on every commit of it
moves the pools. Volumes without a limit cost one look into a table a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from warp_core.errors import InvalidArgument, WarpError
from warp_core.interfaces.consistency import SCAN_MAX, MetaStore, View
from warp_core.interfaces.quotas import NO_QUOTA, Quota, check_quota
from warp_core.logs import get
from warp_core.metadata import Transaction, transact
from warp_core.metrics import Metrics
from warp_core.namespace import keys
from warp_core.namespace.owner_pools import OwnerPools
from warp_core.namespace.pools import (
    Admission,
    Amount,
    Claim,
    Gauges,
    Pool,
    Tracked,
    amount_of,
)
from warp_core.namespace.rows import (
    PoolRow,
    VolumeRow,
    checked,
    decode_pool,
    encode,
)
from warp_core.namespace.tree import Volume
from warp_core.namespace.usage import Usage, usage_at
from warp_core.namespace.volumes import DELETED, Volumes

log = get("warp_core.namespace")


@dataclass(slots=True)
class Quotas:
    """The pools of a namespace."""

    store: MetaStore
    clock_ns: Callable[[], int]
    volumes_of: Callable[[], Awaitable[list[Volume]]]  # all of them
    declared: Mapping[str, Quota] = field(default_factory=dict)  # account → what the file says
    on_cross: list[Callable[[Pool, bool], Awaitable[None]]] = field(default_factory=list)
    _gauges: Gauges | None = None
    _tracked: dict[int, Tracked] = field(default_factory=dict)
    _volumes: dict[int, Pool] = field(default_factory=dict)
    _accounts: dict[str, Pool] | None = None  # those with limits; None: not read yet
    owners: OwnerPools = field(init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.owners = OwnerPools(self.store, self._look)

    # Looking --------------------------------------------------------------------------------------

    def known(self, volume: Volume) -> Tracked | None:
        """Return how a volume is tracked; None if that has to be found out by `watch` first."""
        tracked = self._tracked.get(volume.number)
        if tracked is None or tracked.stale:
            return None
        if tracked.row is not volume.row:
            if tracked.row != volume.row:
                return None
            tracked.row = volume.row  # read anew, and the same
        return tracked

    async def watch(self, volume: Volume) -> Tracked:
        """Return how a volume is tracked, reading its counters if a limit applies that did not before."""
        tracked = self.known(volume)
        if tracked is not None:
            return tracked
        async with self._lock:
            accounts = await self._read_accounts()
            return await self._watch(volume, accounts)

    async def _watch(self, volume: Volume, accounts: dict[str, Pool]) -> Tracked:
        row = volume.row
        pools: list[Pool] = []
        if row.name.startswith(DELETED):
            tracked = self._tracked.setdefault(volume.number, Tracked(volume.number))
            await self._place(tracked, volume, ())
            return tracked
        if row.quota is not None:
            pools.append(await self._pool_of(volume))
        elif volume.number in self._volumes:
            self._gone(self._volumes.pop(volume.number))
        account = accounts.get(row.owner)
        tracked = self._tracked.setdefault(volume.number, Tracked(volume.number))
        if account is not None:
            pools.append(account)
            if not account.whole:
                await self._gather(account, accounts)
        await self._place(tracked, volume, tuple(pools))
        return tracked

    async def _gather(self, account: Pool, accounts: dict[str, Pool]) -> None:
        """Track every volume of an account: its sum is right only with all of them. Later ones come with their first change."""
        for volume in await self.volumes_of():
            if volume.row.owner == account.name:
                pools = [await self._pool_of(volume)] if volume.row.quota is not None else []
                tracked = self._tracked.setdefault(volume.number, Tracked(volume.number))
                await self._place(tracked, volume, (*pools, account))
        account.whole = True

    async def _place(self, tracked: Tracked, volume: Volume, pools: tuple[Pool, ...]) -> None:
        """Let a volume count in these pools, and in no others."""
        fresh = pools and (tracked.stale or tracked.version < 0)
        counted = tracked.counted
        if fresh:
            tracked.missed = []
            try:
                version, usage = await self._read(volume)
            except BaseException:
                tracked.missed = None
                raise
            counted = amount_of(usage)
            for objects, bytes, of in tracked.missed:
                if of > version:
                    counted = Amount(counted.objects + objects, counted.bytes + bytes)
                    version = max(version, of)
            tracked.missed = None
            tracked.version = version
        for pool in tracked.pools:
            pool.objects -= tracked.counted.objects
            pool.bytes -= tracked.counted.bytes
        if not pools:
            tracked.version, counted = -1, Amount()
        tracked.counted = counted
        for pool in pools:
            pool.objects += counted.objects
            pool.bytes += counted.bytes
        tracked.pools = pools
        for pool in pools:
            if pool.gauges is None and self._gauges is not None:
                pool.gauges = self._gauges
                pool.gauges.add(pool)
        tracked.owner = volume.row.owner
        tracked.row = volume.row
        tracked.stale = False
        for pool in pools:
            self._look(pool)

    async def _read(self, volume: Volume) -> tuple[int, Usage]:
        if self._tracked[volume.number].stale:
            # A commit whose outcome nobody knows may still be on its way: another behind it settles that.
            async def barrier(tx: Transaction) -> None:
                tx.merge(volume.prefix + keys.KEPT_BYTES, add=(0,))

            await transact(self.store, barrier)
        view = self.store.view()
        try:
            usage = await usage_at(view, replace(volume, snapshot=0))
            return view.version, usage
        finally:
            view.close()

    async def _pool_of(self, volume: Volume) -> Pool:
        assert volume.row.quota is not None
        pool = self._volumes.get(volume.number)
        if pool is None:
            row = keys.volume_pool_key(volume.number)
            pool = Pool(f"volume {volume.row.name!r}", row, volume.row.name)
            view = self.store.view()
            try:
                pool.over_since_ns = (await _pool_row(view, row)).over_since_ns
            finally:
                view.close()
            self._volumes[volume.number] = pool
        pool.quota = volume.row.quota
        return pool

    async def _read_accounts(self) -> dict[str, Pool]:
        if self._accounts is not None:
            return self._accounts
        found: dict[str, Pool] = {}
        view = self.store.view()
        try:
            start, end = keys.ACCOUNT_POOLS
            while page := await view.scan(start, end):
                for each in page:
                    name = each.key[len(keys.ACCOUNT_POOLS[0]) :].decode()
                    row: PoolRow = checked(decode_pool, each.key, each.value)
                    pool = found[name] = Pool(name, each.key)
                    pool.quota = row.quota or NO_QUOTA
                    pool.over_since_ns = row.over_since_ns
                start = page[-1].key + b"\0"
                if len(page) < SCAN_MAX:
                    break
        finally:
            view.close()
        for name, quota in self.declared.items():
            pool = found.setdefault(name, Pool(name, keys.account_pool_key(name)))
            pool.quota = quota
        self._accounts = {name: pool for name, pool in found.items() if pool.quota != NO_QUOTA}
        return self._accounts

    def metered(self, metrics: Metrics) -> None:
        """Show what is held among these metrics from now on."""
        self._gauges = Gauges(metrics)

    def _gone(self, pool: Pool) -> None:
        """Forget what metrics tell of a pool."""
        if pool.gauges is not None:
            pool.gauges.drop(pool)
            pool.gauges = None

    def forget(self, volume: int) -> None:
        """A volume is gone: its account has room again."""
        tracked = self._tracked.pop(volume, None)
        own = self._volumes.pop(volume, None)
        self.owners.forget(volume)
        if own is not None:
            self._gone(own)
        for pool in tracked.pools if tracked is not None else ():
            pool.objects -= tracked.counted.objects  # type: ignore[union-attr]
            pool.bytes -= tracked.counted.bytes  # type: ignore[union-attr]

    # Admitting ------------------------------------------------------------------------------------

    def claim(self, tracked: Tracked, *, objects: int = 0, bytes: int = 0) -> Claim:
        """Reserve for somebody who begins to write.

        Raises:
            QuotaExceeded
        """
        claim = Claim(tracked.pools)
        self.extend(claim, objects=objects, bytes=bytes)
        return claim

    def extend(self, claim: Claim, *, objects: int = 0, bytes: int = 0) -> None:
        """Reserve more; raises as `claim`."""
        now = self.clock_ns()
        for pool in claim.pools:
            pool.demand(objects, bytes, now)
        claim.move(objects, bytes)

    def admit(
        self,
        admission: Admission,
        tracked: Tracked,
        growth: Amount,
        *,
        judged: bool,
        credit: Claim | None = None,
    ) -> None:
        """Add a volume's part of a commit; what it adds is reserved until the admission ends.

        Args:
            judged: Whether it may be refused.
            credit: What was reserved for it before.

        Raises:
            QuotaExceeded
        """
        objects, bytes = max(0, growth.objects), max(0, growth.bytes)
        if tracked.pools and (objects or bytes):
            # A file's claim is on the pools of its volume first, then on those of its owners.
            if credit is not None and credit.pools[: len(tracked.pools)] == tracked.pools:
                used = min(credit.objects, objects), min(credit.bytes, bytes)
                credit.move(-used[0], -used[1])
                admission._credits.append((credit, *used))
            claim = Claim(tracked.pools)
            admission._claims.append(claim)
            if judged:
                self.extend(claim, objects=objects, bytes=bytes)
            else:
                claim.move(objects, bytes)
        admission._moves.append((tracked, growth.objects, growth.bytes))

    def moved(self, volume: int, objects: int, bytes: int, version: int) -> None:
        """Take in a commit that was made where no limit applied when it began."""
        tracked = self._tracked.get(volume)
        if tracked is not None and (tracked.pools or tracked.missed is not None):
            tracked.move(objects, bytes, version)

    def doubt(self, volume: int) -> None:
        """The counters of a volume were changed without an admission: they are to be read again."""
        tracked = self._tracked.get(volume)
        if tracked is not None:
            tracked.stale = True

    def settled(self, admission: Admission) -> None:
        """Look whether soft limits were crossed by what was admitted."""
        for tracked, _, _ in admission._moves:
            for pool in tracked.pools:
                self._look(pool)

    # Soft limits ----------------------------------------------------------------------------------

    def _look(self, pool: Pool) -> None:
        """Note it where a soft limit is crossed."""
        above = pool.above_soft
        if above == bool(pool.over_since_ns):
            return
        pool.over_since_ns = self.clock_ns() if above else 0
        if above:
            log.warning(
                "soft quota passed",
                of=pool.name,
                bytes=pool.bytes,
                objects=pool.objects,
                soft_bytes=pool.quota.soft_bytes,
                soft_objects=pool.quota.soft_objects,
                grace_s=pool.quota.grace_s,
            )
        else:
            log.info("below the soft quota again", of=pool.name)
        task = asyncio.get_running_loop().create_task(self._tell(pool, above))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, pool: Pool, above: bool) -> None:
        try:
            await self._keep(pool)
            for listener in self.on_cross:
                await listener(pool, above)
        except WarpError as error:  # after a restart it is found out again
            log.warning("a passed soft quota is not noted", of=pool.name, error=str(error))

    async def _keep(self, pool: Pool) -> None:
        """Write since when a soft limit is passed, so that a restart does not begin the grace time again."""

        async def body(tx: Transaction) -> None:
            value = await tx.get(pool.row)
            old: PoolRow = checked(decode_pool, pool.row, value) if value else PoolRow()
            new = msgspec.structs.replace(old, over_since_ns=pool.over_since_ns)
            if new == PoolRow():
                tx.delete(pool.row)
            elif new != old:
                tx.put(pool.row, encode(new))

        await transact(self.store, body)

    async def told(self) -> None:
        """Wait until what was crossed is noted."""
        while self._telling:
            await asyncio.gather(*self._telling, return_exceptions=True)

    # Accounts -------------------------------------------------------------------------------------

    async def set_account(self, account: str, quota: Quota | None) -> None:
        """Give the volumes of an account limits together, or none.

        Raises:
            InvalidArgument: The limits cannot be, or the configuration has them.
        """
        if account in self.declared:
            raise InvalidArgument(
                f"the quota of {account} is in the configuration: change it there"
            )
        if quota is not None:
            check_quota(quota)
        key = keys.account_pool_key(account)

        async def body(tx: Transaction) -> None:
            value = await tx.get(key)
            old: PoolRow = checked(decode_pool, key, value) if value else PoolRow()
            new = msgspec.structs.replace(old, quota=quota)
            if quota is None:
                tx.delete(key)
            else:
                tx.put(key, encode(new))

        async with self._lock:
            accounts = await self._read_accounts()
            await transact(self.store, body)
            if quota is None:
                gone = accounts.pop(account, None)
                if gone is not None:
                    gone.quota = NO_QUOTA
                    self._gone(gone)
            else:
                accounts.setdefault(account, Pool(account, key)).quota = quota
            for tracked in self._tracked.values():
                tracked.row = None  # look again

    async def pools(self) -> list[tuple[Pool, bool]]:
        """Return every pool with limits, as it is now, and whether the configuration declares it."""
        owned: list[Pool] = []
        for volume in await self.volumes_of():
            await self.watch(volume)
            owned += [pool for _, pool in await self.owners.of(volume)]
        accounts = await self._read_accounts()
        every = sorted(self._volumes.values(), key=lambda pool: pool.name)
        return [(pool, False) for pool in (*every, *owned)] + [
            (accounts[name], name in self.declared) for name in sorted(accounts)
        ]

    async def pool(self, *, volume: str = "", account: str = "") -> Pool | None:
        """Return one pool, None where there is no limit."""
        for pool, _ in await self.pools():
            if (pool.volume == volume) if volume else (pool.name == account and not pool.volume):
                return pool
        return None


async def _pool_row(view: View, key: bytes) -> PoolRow:
    found = await view.get(key)
    row: PoolRow = checked(decode_pool, key, found[0]) if found is not None else PoolRow()
    return row


async def set_volume_quota(volumes: Volumes, name: str, quota: Quota | None) -> Volume:
    """Give a volume limits, or none; in the row that every transaction in it checks, so that none that is under way misses them.

    Raises:
        VolumeNotFound, InvalidArgument
    """
    if quota is not None:
        check_quota(quota)

    async def change(row: VolumeRow, _: Transaction) -> VolumeRow:
        return msgspec.structs.replace(row, quota=quota)

    return await volumes.update(name, change)
