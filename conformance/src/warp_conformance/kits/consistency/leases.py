"""Leases: one holder, an end, and tokens that grow."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    Fenced,
    Locked,
    WarpError,
)
from warp_core.interfaces.consistency import (
    MetaStore,
)

from warp_conformance.kit import refused, requires
from warp_conformance.kits.consistency.stage import TTL_S, MetaStoreStage

PATIENT_TTL_S = 16 * TTL_S  # of a lease on a machine that is too busy for a shorter one
LATE = 0.9  # of a lease's time: whatever happens later may happen after its end


class Leases(MetaStoreStage, kit=True):
    """Leases: one holder, an end, and tokens that grow."""

    # Leases ---------------------------------------------------------------------------------------

    @requires(lease=False)
    async def test_leases_are_refused(self, subject: MetaStore) -> None:
        with refused():
            await subject.lease("name", "holder", 1.0)

    @requires(lease=True)
    async def test_a_lease_has_one_holder(self, subject: MetaStore) -> None:
        lease = await subject.lease("home", "a", 30.0)
        with pytest.raises(Locked):
            await subject.lease("home", "b", 30.0)
        other = await subject.lease("another home", "b", 30.0)

        assert (lease.name, lease.holder) == ("home", "a")
        assert (other.name, other.holder) == ("another home", "b")

    @requires(lease=True)
    async def test_of_many_that_ask_for_a_lease_one_gets_it(self, subject: MetaStore) -> None:
        async def ask(holder: str) -> bool:
            try:
                await subject.lease("home", holder, 30.0)
            except Locked:
                return False
            return True

        got = await asyncio.gather(*(ask(f"holder {number}") for number in range(10)))
        assert got.count(True) == 1

    @requires(lease=True)
    async def test_a_lease_ends_unless_renewed_and_tokens_grow(self, subject: MetaStore) -> None:
        assert await _ends_unless_renewed(subject, TTL_S) or await _ends_unless_renewed(
            subject, PATIENT_TTL_S
        ), "this machine is too busy to renew a lease in its time"

    @requires(lease=True)
    async def test_a_lease_that_ended_cannot_be_renewed(self, subject: MetaStore) -> None:
        lease = await subject.lease("home", "a", TTL_S)
        await asyncio.sleep(TTL_S * 1.2)

        with pytest.raises(Fenced):
            await subject.renew(lease)

    @requires(lease=True)
    async def test_a_released_lease_is_free(self, subject: MetaStore) -> None:
        lease = await subject.lease("home", "a", 30.0)
        await subject.release(lease)
        await subject.release(lease)
        with pytest.raises(Fenced):
            await subject.renew(lease)
        new = await subject.lease("home", "b", 30.0)

        assert new.token > lease.token
        await subject.release(lease)
        with pytest.raises(Locked):
            await subject.lease("home", "c", 30.0)

    @requires(lease=True)
    async def test_granting_again_to_the_holder_fences_its_old_token(
        self, subject: MetaStore
    ) -> None:
        old = await subject.lease("home", "a", 30.0)
        new = await subject.lease("home", "a", 30.0)

        assert new.token > old.token
        with pytest.raises(Fenced):
            await subject.renew(old)
        await subject.renew(new)


async def _ends_unless_renewed(subject: MetaStore, ttl_s: float) -> bool:
    """Grant, renew and outlive a lease. Returns False where the machine was too late for what came out to say anything."""
    clock = asyncio.get_running_loop().time
    name = f"home for {ttl_s} s"
    asked = clock()
    old = await subject.lease(name, "a", ttl_s)
    await asyncio.sleep(ttl_s * 0.6)
    renewing = clock()
    try:
        await subject.renew(old)
    except WarpError:
        if clock() - asked > ttl_s * LATE:
            return False
        raise
    await asyncio.sleep(ttl_s * 0.6)
    try:
        await subject.lease(name, "b", ttl_s)
    except Locked:
        pass
    else:
        assert clock() - renewing > ttl_s * LATE, "a renewed lease was granted to another holder"
        return False
    await asyncio.sleep(ttl_s)
    new = await subject.lease(name, "b", 30.0)

    assert new.token > old.token
    with pytest.raises(Fenced):
        await subject.renew(old)
    return True
