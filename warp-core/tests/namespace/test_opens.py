"""The table of opens: what waits, what wakes, what deadlines do."""

from __future__ import annotations

import asyncio

import pytest
from warp_core.errors import (
    Busy,
    Deadlock,
    Expired,
    InGrace,
    InvalidArgument,
    Locked,
    StaleHandle,
)
from warp_core.namespace import shares
from warp_core.namespace.leases import ALL, FOR_WRITE, Kind, Lease
from warp_core.namespace.opens import END, HERE, Access, Opens, Owner

R, W, H = Kind.READ, Kind.WRITE, Kind.HANDLE
V, I = 1, 7  # noqa: E741


class Holder:
    """A client that keeps a lease until told, then does what `answer` says."""

    def __init__(
        self, opens: Opens, name: str = "holder", *, ttl_s: float | None = None, answer=None
    ):
        self.opens = opens
        self.answer = answer
        self.told: list[tuple[Kind, Kind]] = []
        self.client = opens.add_client(name, ttl_s=ttl_s, tell=self.tell)
        self.owner = Owner(self.client, 0)

    def tell(self, lease: Lease) -> None:
        self.told.append((lease.kinds, lease.wanted))
        if self.answer and lease.kinds:
            self.answer(lease)

    def gives_back_at_once(self) -> Holder:
        self.answer = lambda lease: self.opens.give_back(
            *lease.node, lease.owner, lease.kinds & ~lease.wanted
        )
        return self


@pytest.fixture
async def table() -> Opens:
    return Opens(asyncio.get_running_loop().time, recall_s=0.05)


async def soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nobody_holding_anything_costs_nothing(table):
    assert not table.holders(V, I)

    await table.recall(V, I, ALL)
    async with table.changing(V, I):
        pass
    table.check_share(V, I, Access.WRITE)

    assert not table.holders(V, I)


async def test_a_recall_returns_when_the_lease_is_given_back(table):
    holder = Holder(table)
    assert table.lease(V, I, holder.owner, ALL) == ALL

    change = asyncio.create_task(table.recall(V, I, FOR_WRITE))
    await soon()
    assert holder.told == [(ALL, FOR_WRITE)]
    assert not change.done()
    table.give_back(V, I, holder.owner, keep=R | H)
    await soon()
    assert not change.done()
    table.give_back(V, I, holder.owner, keep=H)
    await change

    assert table.leased(V, I, holder.owner) == H


async def test_a_holder_that_never_answers_is_revoked_at_the_deadline(table):
    holder = Holder(table)
    table.lease(V, I, holder.owner, ALL)
    began = asyncio.get_running_loop().time()

    await table.recall(V, I, FOR_WRITE)

    assert 0.045 <= asyncio.get_running_loop().time() - began < 1
    assert holder.told == [(ALL, FOR_WRITE), (Kind.NONE, FOR_WRITE)]
    assert table.leased(V, I, holder.owner) == Kind.NONE
    assert not table.holders(V, I)


async def test_ones_own_change_recalls_only_others(table):
    one, two = Holder(table, "one"), Holder(table, "two").gives_back_at_once()
    table.lease(V, I, one.owner, R)
    table.lease(V, I, two.owner, R)

    await table.recall(V, I, ALL, by=one.owner)

    assert table.leased(V, I, one.owner) == R
    assert table.leased(V, I, two.owner) == Kind.NONE
    assert one.told == []


async def test_no_lease_is_granted_while_a_change_is_under_way(table):
    holder = Holder(table)

    async with table.changing(V, I, FOR_WRITE):
        assert table.lease(V, I, holder.owner, ALL) == H
        table.give_back(V, I, holder.owner)

    assert table.lease(V, I, holder.owner, ALL) == ALL


async def test_a_lease_waits_for_no_other_inode(table):
    holder = Holder(table)
    table.lease(V, I, holder.owner, ALL)

    async with asyncio.timeout(0.02):
        await table.recall(V, I + 1, ALL)
        await table.recall(V + 1, I, ALL)

    assert table.leased(V, I, holder.owner) == ALL


async def test_opening_for_reading_recalls_write_and_for_writing_also_read(table):
    holder = Holder(table).gives_back_at_once()
    table.lease(V, I, holder.owner, ALL)
    reader = await table.open(V, I, Owner(HERE, 1), Access.READ)
    assert table.leased(V, I, holder.owner) == R | H

    await table.open(V, I, Owner(HERE, 1), Access.WRITE)

    assert table.leased(V, I, holder.owner) == H
    assert not table.close(reader)


async def test_no_write_lease_beside_anothers_open_and_no_read_lease_beside_a_writer(table):
    holder = Holder(table)
    reader = await table.open(V, I, Owner(HERE, 1), Access.READ)
    assert table.lease(V, I, holder.owner, ALL) == R | H
    table.give_back(V, I, holder.owner)
    await table.open(V, I, Owner(HERE, 2), Access.WRITE)
    table.close(reader)

    assert table.lease(V, I, holder.owner, ALL) == Kind.NONE


async def test_who_cannot_be_called_gets_no_lease(table):
    client = table.add_client("deaf")

    assert table.lease(V, I, Owner(client, 0), ALL) == Kind.NONE


async def test_share_modes_refuse_in_both_directions(table):
    await table.open(V, I, Owner(HERE, 1), Access.READ, Access.WRITE)

    with pytest.raises(Locked):
        await table.open(V, I, Owner(HERE, 2), Access.WRITE)
    with pytest.raises(Locked):
        await table.open(V, I, Owner(HERE, 2), Access.READ, Access.READ)
    with pytest.raises(Locked):
        table.check_share(V, I, Access.WRITE)
    table.check_share(V, I, Access.READ)
    await table.open(V, I, Owner(HERE, 2), Access.READ, Access.WRITE)

    assert table.open_count(V, I) == 2


async def test_a_handle_lease_is_recalled_before_a_share_conflict_is_reported(table):
    holder = Holder(table)
    opened = await table.open(V, I, holder.owner, Access.READ, Access.WRITE)
    table.lease(V, I, holder.owner, R | H)
    holder.answer = lambda lease: (
        table.close(opened),
        table.give_back(V, I, holder.owner, lease.kinds & ~lease.wanted),
    )

    await table.open(V, I, Owner(HERE, 1), Access.WRITE)

    assert opened.closed


async def test_a_share_conflict_that_is_real_is_reported_after_the_recall(table):
    holder = Holder(table).gives_back_at_once()
    await table.open(V, I, holder.owner, Access.READ, Access.WRITE)
    table.lease(V, I, holder.owner, R | H)

    with pytest.raises(Locked):
        await table.open(V, I, Owner(HERE, 1), Access.WRITE)

    assert holder.told == [(R | H, H)]


async def test_changing_an_open_respects_others(table):
    mine = await table.open(V, I, Owner(HERE, 1), Access.READ)
    other = await table.open(V, I, Owner(HERE, 2), Access.READ, Access.WRITE)

    with pytest.raises(Locked):
        await table.change(mine, Access.READ | Access.WRITE, Access.NONE)
    table.close(other)
    await table.change(mine, Access.READ | Access.WRITE, Access.NONE)

    assert mine.access == Access.READ | Access.WRITE


async def test_the_last_close_is_told_once(table):
    told = []
    table.on_last_close(told.append)
    one = await table.open(V, I, Owner(HERE, 1), Access.READ)
    two = await table.open(V, I, Owner(HERE, 2), Access.READ)

    assert not table.close(one)
    assert not table.close(one)
    assert table.close(two)

    assert told == [(V, I)]


async def test_a_blocking_lock_is_granted_when_the_holder_unlocks(table):
    one, two = Owner(HERE, 1), Owner(HERE, 2)
    await table.lock(V, I, one, 0, 10, exclusive=True)
    waiting = asyncio.create_task(table.lock(V, I, two, 5, 15, exclusive=True, wait=True))
    await soon()
    assert not waiting.done()

    table.unlock(V, I, one, 0, 10)
    await waiting

    assert [each.owner for each in table.locks(V, I)] == [two]


async def test_a_cancelled_wait_leaves_no_lock_and_frees_the_queue(table):
    one, two, three = (Owner(HERE, key) for key in (1, 2, 3))
    await table.lock(V, I, one, 0, 10, exclusive=False)
    writer = asyncio.create_task(table.lock(V, I, two, 0, 10, exclusive=True, wait=True))
    await soon()
    reader = asyncio.create_task(table.lock(V, I, three, 0, 10, exclusive=False, wait=True))
    await soon()
    assert not reader.done()

    writer.cancel()
    await reader

    assert {each.owner for each in table.locks(V, I)} == {one, three}


async def test_a_wait_cancelled_in_the_turn_of_its_grant_leaves_no_lock(table):
    one, two = Owner(HERE, 1), Owner(HERE, 2)
    await table.lock(V, I, one, 0, 10, exclusive=True)
    waiting = asyncio.create_task(table.lock(V, I, two, 0, 10, exclusive=True, wait=True))
    await soon()

    table.unlock(V, I, one)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert table.locks(V, I) == []


async def test_a_deadlock_is_refused(table):
    one, two = Owner(HERE, 1), Owner(HERE, 2)
    await table.lock(V, I, one, 0, 1, exclusive=True)
    await table.lock(V, I, two, 1, 2, exclusive=True)
    waiting = asyncio.create_task(table.lock(V, I, one, 1, 2, exclusive=True, wait=True))
    await soon()

    with pytest.raises(Deadlock):
        await table.lock(V, I, two, 0, 1, exclusive=True, wait=True)

    table.unlock_all(V, I, two)
    await waiting


async def test_releasing_an_owner_ends_its_waits(table):
    one, two = Owner(HERE, 1), Owner(HERE, 2)
    await table.lock(V, I, one, 0, 1, exclusive=True)
    waiting = asyncio.create_task(table.lock(V, I, two, 0, 1, exclusive=True, wait=True))
    await soon()

    table.unlock_all(V, I, two)

    with pytest.raises(StaleHandle):
        await waiting


async def test_locks_recall_write_leases(table):
    holder = Holder(table).gives_back_at_once()
    table.lease(V, I, holder.owner, ALL)

    await table.lock(V, I, Owner(HERE, 1), 0, 1, exclusive=False)

    assert table.leased(V, I, holder.owner) == R | H


async def test_a_dropped_client_leaves_nothing(table):
    holder = Holder(table)
    closed = []
    table.on_last_close(closed.append)
    await table.open(V, I, holder.owner, Access.READ, Access.WRITE)
    table.lease(V, I, holder.owner, R | H)
    await table.lock(V, I, Owner(holder.client, 9), 0, END, exclusive=True)
    waiting = asyncio.create_task(table.lock(V, I, Owner(HERE, 1), 0, 1, exclusive=True, wait=True))
    await soon()

    table.drop_client(holder.client)
    await waiting
    table.unlock_all(V, I, Owner(HERE, 1))

    assert not table.holders(V, I)
    assert closed == [(V, I)]
    with pytest.raises(StaleHandle):
        table.renew(holder.client)
    with pytest.raises(StaleHandle):
        table.lease(V, I, holder.owner, R)


async def test_a_silent_client_is_dropped_when_it_is_in_the_way_and_not_before(table):
    holder = Holder(table, ttl_s=0.03)
    await table.lock(V, I, holder.owner, 0, 10, exclusive=True)
    await asyncio.sleep(0.05)
    assert len(table.locks(V, I)) == 1

    await table.lock(V, I, Owner(HERE, 1), 0, 10, exclusive=True)

    assert [each.owner for each in table.locks(V, I)] == [Owner(HERE, 1)]


async def test_a_waiter_outlives_the_silent_client_it_waits_for(table):
    holder = Holder(table, ttl_s=0.03)
    await table.lock(V, I, holder.owner, 0, 10, exclusive=True)

    async with asyncio.timeout(1):
        await table.lock(V, I, Owner(HERE, 1), 0, 10, exclusive=True, wait=True)

    assert [each.owner for each in table.locks(V, I)] == [Owner(HERE, 1)]


async def test_a_client_that_renews_keeps_what_it_has(table):
    holder = Holder(table, ttl_s=0.05)
    await table.lock(V, I, holder.owner, 0, 10, exclusive=True)
    for _ in range(4):
        await asyncio.sleep(0.02)
        table.renew(holder.client)

    with pytest.raises(Locked):
        await table.lock(V, I, Owner(HERE, 1), 0, 10, exclusive=True)


async def test_grace_admits_reclaims_alone_and_ends_when_all_are_back(table):
    table.begin_grace(V, ["back", "lost"], seconds=0.05)
    back = Holder(table, "back")
    other = Holder(table, "new")

    with pytest.raises(InGrace):
        await table.open(V, I, other.owner, Access.READ)
    with pytest.raises(Expired):
        await table.open(V, I, other.owner, Access.READ, reclaim=True)
    await table.open(V, I, back.owner, Access.READ, reclaim=True)
    await table.lock(V, I, back.owner, 0, 10, exclusive=True, reclaim=True)
    assert table.lease(V, I, back.owner, R | H, reclaim=True) == R | H
    table.reclaimed(V, back.client)
    change = asyncio.create_task(table.recall(V, I, ALL))
    await soon()
    assert not change.done(), "the lost client may still come"
    assert back.told == []
    await asyncio.sleep(0.06)
    assert back.told, "grace ended by time, the recall went on"
    table.give_back(V, I, back.owner)
    await change

    assert not table.in_grace(V)
    with pytest.raises(Expired):
        await table.open(V, I, back.owner, Access.READ, reclaim=True)


async def test_grace_of_one_client_ends_with_its_word(table):
    table.begin_grace(V, ["back"], seconds=60)
    back = Holder(table, "back")

    table.reclaimed(V, back.client)

    assert not table.in_grace(V)


async def test_the_number_of_opens_of_one_client_is_limited(table, monkeypatch):
    monkeypatch.setattr(shares, "OPENS_PER_CLIENT_MAX", 1)
    await table.open(V, I, Owner(HERE, 1), Access.READ)

    with pytest.raises(Busy):
        await table.open(V, I, Owner(HERE, 2), Access.READ)


async def test_nobody_can_keep_more_than_it_has(table):
    holder = Holder(table)
    table.lease(V, I, holder.owner, R)

    with pytest.raises(InvalidArgument):
        table.give_back(V, I, holder.owner, keep=ALL)
