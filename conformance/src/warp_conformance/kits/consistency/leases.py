"""Leases: one holder, an end, and tokens that grow."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    Fenced,
    Locked,
)
from warp_core.interfaces.consistency import (
    MetaStore,
)

from warp_conformance.kit import refused, requires
from warp_conformance.kits.consistency.stage import TTL_S, MetaStoreStage


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
        old = await subject.lease("home", "a", TTL_S)
        await asyncio.sleep(TTL_S * 0.6)
        await subject.renew(old)
        await asyncio.sleep(TTL_S * 0.6)
        with pytest.raises(Locked):
            await subject.lease("home", "b", TTL_S)
        await asyncio.sleep(TTL_S)
        new = await subject.lease("home", "b", 30.0)

        assert new.token > old.token
        with pytest.raises(Fenced):
            await subject.renew(old)

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
