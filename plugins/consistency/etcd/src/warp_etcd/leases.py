"""Leases: a row bound to an etcd lease, so that it goes when its holder does; the token is the revision that wrote it.

etcd counts in whole seconds and keeps nothing for less than one and a half elections. A shorter time is kept by the node that
granted it: there the lease ends on time, for other nodes a little later. Never earlier: a holder's time runs from before it asked.
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


@dataclass(slots=True)
class Held:
    """A lease that this node granted."""

    lease: Lease
    etcd_id: int
    until_s: float


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
            owner = unpack_holder(found.value).holder
            if owner != holder and not self._ended(name, found.mod_revision):
                raise Locked(f'lease "{name}" is held by "{owner}"')

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
            owner = unpack_holder(row.value).holder
            if owner != holder and not self._ended(name, row.mod_revision):
                raise Locked(f'lease "{name}" is held by "{owner}"')
            seen, replaced = row.mod_revision, row.lease

    def _ended(self, name: str, token: int) -> bool:
        """Tell whether this node granted a lease and knows that it ended, though etcd still keeps its row."""
        held = self._held.get(name)
        return held is not None and held.lease.token == token and self._monotonic() >= held.until_s

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        held = self._held.get(lease.name)
        if held is None or held.lease.token != lease.token or self._monotonic() >= held.until_s:
            raise _ended(lease)
        began_s = self._monotonic()
        left_s = min(held.until_s - began_s, self._timeout_s)
        try:
            async with asyncio.timeout(left_s):
                # First the time, then whether it is still ours: who takes the row over revokes its etcd lease only later.
                seconds = await self._keep_alive(held.etcd_id)
                row = await self._client.call(
                    TXN, messages.read(messages.get(self._layout.lease(lease.name)))
                )
        except TimeoutError as error:
            raise Unavailable(
                f'etcd did not renew lease "{lease.name}" in {left_s:.2f} s'
            ) from error
        found = row.responses[0].response_range.kvs
        if not seconds or not found or found[0].mod_revision != lease.token:
            if self._held.get(lease.name) is held:
                del self._held[lease.name]
            raise _ended(lease)
        held.until_s = max(held.until_s, began_s + held.lease.ttl_s)
        return held.lease

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
