"""Leases: a row bound to an etcd lease, so that it goes when its holder does; the token is the revision that granted it.

etcd alone would end a lease late: it counts in whole seconds, keeps nothing for less than one and a half elections, and lets every
lease run from the start when another member becomes the leader, which is what happens when a node dies that ran the leader. So a
holder writes its row anew whenever it renews, and who wants the lease watches the row: one that stays the same for the lease's
time, by the watcher's own clock, is over.

```
 holder    asked ─▶ written                                  deadline, counted from before it asked
             │◀──────┼───────────── ttl ────────────────────────▶│
 watcher          seen first, at the earliest│◀────────────── ttl and a little ──────────────▶│ not written since: taken
```

Neither clock's time is compared with the other's, only how fast they go. The row is taken on condition that it has not changed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from warp_core.errors import Fenced, InvalidArgument, Locked, NotFound, Unavailable, WarpError
from warp_core.interfaces.consistency import KEY_MAX, Lease

from warp_etcd import messages
from warp_etcd.client import (
    LEASE_GRANT,
    LEASE_KEEP_ALIVE,
    LEASE_REVOKE,
    TXN,
    Client,
)
from warp_etcd.layout import Layout, pack_holder, unpack_holder
from warp_etcd.wire import etcd_pb2 as pb

TTL_MAX_S = 86_400.0 * 365
DRIFT = 1.01  # how much faster than a holder's a watcher's clock may go; quartz stays within 0.0002


@dataclass(slots=True)
class Held:
    """A lease that this node granted."""

    lease: Lease
    etcd_id: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A row of another holder's, and since when it has not changed."""

    revision: int
    since_s: float


class Leases:
    """Those that were granted through this node."""

    def __init__(
        self,
        client: Client,
        layout: Layout,
        *,
        timeout_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._layout = layout
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._held: dict[str, Held] = {}
        self._seen: dict[str, Seen] = {}  # by name: those that this node asked for in vain

    async def grant(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        if not 0 < ttl_s <= TTL_MAX_S:
            raise InvalidArgument(f"lease of {ttl_s} s: a time above 0 and up to a year is needed")
        if len(name.encode()) > KEY_MAX:
            raise InvalidArgument(f"lease name of {len(name.encode())} bytes > KEY_MAX {KEY_MAX}")
        held = self._held.get(name)
        if held and held.lease.holder != holder and self._monotonic() < held.until_s:
            raise Locked(f'lease "{name}" is held by "{held.lease.holder}"')
        await self._demand_free(name, holder)
        began_s = self._monotonic()
        granted = await self._client.call(
            LEASE_GRANT, pb.LeaseGrantRequest(TTL=max(1, math.ceil(ttl_s)))
        )
        try:
            token, replaced = await self._put(name, holder, ttl_s, granted.ID)
        except BaseException:
            await self._revoke(granted.ID)
            raise
        lease = Lease(name, holder, token, ttl_s)
        self._held[name] = Held(lease, granted.ID, began_s + ttl_s)
        self._seen.pop(name, None)
        if replaced:
            await self._revoke(replaced)
        return lease

    async def _demand_free(self, name: str, holder: str) -> None:
        """Refuse by a read what cannot be had: nodes ask for each other's leases all the time, and a write costs every member a sync.

        Raises:
            Locked: It is another's.
        """
        request = messages.read(messages.get(self._layout.lease(name)))
        row = await self._client.call(TXN, request)
        for found in row.responses[0].response_range.kvs:
            self._demand_over(name, holder, found)

    async def _put(self, name: str, holder: str, ttl_s: float, etcd_id: int) -> tuple[int, int]:
        """Write the row if nobody else's lease is alive; return its revision and the etcd lease of the row that it replaced."""
        key = self._layout.lease(name)
        packed = pack_holder(holder, ttl_s)
        until_s = self._monotonic() + self._timeout_s
        seen, replaced = 0, 0  # revision of the row that may be replaced, and its etcd lease
        while True:
            request = pb.TxnRequest(
                compare=[
                    pb.Compare(
                        result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=seen
                    )
                ],
                success=[
                    pb.RequestOp(request_put=pb.PutRequest(key=key, value=packed, lease=etcd_id))
                ],
                failure=[pb.RequestOp(request_range=messages.get(key))],
            )
            # Repeating is harmless: the row then carries our etcd lease, which nobody else has.
            answer = await self._client.call(TXN, request, until=until_s)
            if answer.succeeded:
                return answer.header.revision, replaced
            found = answer.responses[0].response_range.kvs
            if not found:
                seen, replaced = 0, 0
                continue
            row = found[0]
            if row.lease == etcd_id:
                return row.mod_revision, replaced
            self._demand_over(name, holder, row)
            seen, replaced = row.mod_revision, row.lease

    def _demand_over(self, name: str, holder: str, row: pb.KeyValue) -> None:
        """Refuse to replace a lease that may not be over yet.

        Raises:
            Locked: It is another's, and neither did this node grant it and knows that it ended, nor has it been the same for its time.
        """
        theirs, now_s = unpack_holder(row.value), self._monotonic()
        if theirs.holder == holder:
            return
        held = self._held.get(name)
        if held is not None and held.etcd_id == row.lease and now_s >= held.until_s:
            return
        seen = self._seen.get(name)
        if seen is None or seen.revision != row.mod_revision:
            # It was written before this moment, so its holder counts from an earlier one.
            seen = self._seen[name] = Seen(row.mod_revision, now_s)
        if not theirs.rewritten or now_s < seen.since_s + theirs.ttl_s * DRIFT:
            raise Locked(f'lease "{name}" is held by "{theirs.holder}"')

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        held = self._held.get(lease.name)
        if held is None or held.lease.token != lease.token or self._monotonic() >= held.until_s:
            raise _ended(lease)
        began_s = self._monotonic()
        left_s = min(held.until_s - began_s, self._timeout_s)
        try:
            async with asyncio.timeout(left_s):
                # First the time, then the row, if it is still ours: who takes it over revokes its etcd lease only later.
                seconds = await self._keep_alive(held.etcd_id)
                written = await self._rewrite(held)
        except TimeoutError as error:
            raise Unavailable(
                f'etcd did not renew lease "{lease.name}" in {left_s:.2f} s'
            ) from error
        if not seconds or not written:
            if self._held.get(lease.name) is held:
                del self._held[lease.name]
            raise _ended(lease)
        held.until_s = max(held.until_s, began_s + held.lease.ttl_s)
        return held.lease

    async def _rewrite(self, held: Held) -> bool:
        """Write the row of a lease as it is, for those who watch it; say whether it was still this lease's."""
        lease = held.lease
        key = self._layout.lease(lease.name)
        packed = pack_holder(lease.holder, lease.ttl_s)
        ours = pb.Compare(
            result=pb.Compare.EQUAL, target=pb.Compare.LEASE, key=key, lease=held.etcd_id
        )
        put = pb.PutRequest(key=key, value=packed, lease=held.etcd_id)
        request = pb.TxnRequest(compare=[ours], success=[pb.RequestOp(request_put=put)])
        try:
            return (await self._client.call(TXN, request)).succeeded
        except NotFound:  # the etcd lease ended just now
            return False

    async def _keep_alive(self, etcd_id: int) -> int:
        """Give an etcd lease its time again; return the seconds, 0 if it is gone."""
        while True:
            try:
                async for answer in self._client.stream(
                    LEASE_KEEP_ALIVE,
                    [pb.LeaseKeepAliveRequest(ID=etcd_id)],
                    timeout_s=self._timeout_s,
                ):
                    return answer.TTL
            except NotFound:
                return 0
            except Unavailable:
                await asyncio.sleep(0.02)

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        held = self._held.get(lease.name)
        if held is None or held.lease.token != lease.token:
            return
        await self._revoke(held.etcd_id)
        if self._held.get(lease.name) is held:
            del self._held[lease.name]

    async def close(self) -> None:
        """Give back what this node holds, as far as etcd answers."""
        held, self._held = self._held, {}
        await asyncio.gather(*(self._revoke(each.etcd_id) for each in held.values()))

    async def _revoke(self, etcd_id: int) -> None:
        """End an etcd lease and the row that it carries; it ends by itself if etcd does not answer."""
        try:
            await self._client.attempt(
                LEASE_REVOKE, pb.LeaseRevokeRequest(ID=etcd_id), timeout_s=self._timeout_s
            )
        except WarpError:
            return


def _ended(lease: Lease) -> Fenced:
    return Fenced(f'lease "{lease.name}" with token {lease.token} ended')
