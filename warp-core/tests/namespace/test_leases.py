"""Leases against a plain model: one dictionary of flags."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from warp_core.errors import InvalidArgument
from warp_core.namespace.leases import ALL, FOR_READ, FOR_WRITE, Kind, LeaseTable
from warp_core.namespace.locks import Node, Owner

OWNERS = [Owner(1, 1), Owner(1, 2), Owner(2, 1)]
A, B, C = OWNERS
N = Node(1, 1)

owners = st.sampled_from(OWNERS)
kinds = st.integers(0, 7).map(Kind)
R, W, H = Kind.READ, Kind.WRITE, Kind.HANDLE


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.table = LeaseTable(recall_s=10.0)
        self.now = 0.0
        self.has: dict[Owner, Kind] = {}
        self.wanted: dict[Owner, tuple[Kind, float]] = {}
        self.changes: list[tuple[Owner | None, Kind]] = []

    @rule(owner=owners, want=kinds)
    def grant(self, owner, want):
        have = self.has.get(owner, Kind.NONE)
        got = self.table.grant(N, owner, want)
        assert got & have == have, "a grant never takes away"
        assert not got & ~(have | want), "a grant gives only what was asked"
        if owner in self.wanted:
            assert got == have, "what is being recalled does not grow"
        for by, changing in self.changes:
            assert by == owner or not got & ~have & changing, "nobody acquires what is changing"
        others = [kinds for other, kinds in self.has.items() if other != owner]
        free = not others and owner not in self.wanted and not self.changes
        if free and want & R:
            assert got == have | want, "alone, an owner gets what it asks for"
        if got:
            self.has[owner] = got

    @rule(want=kinds, by=st.none() | owners)
    def recall(self, want, by):
        told = {lease.owner for lease in self.table.recall(N, want, by=by, now=self.now)}
        expected = set()
        for owner, has in self.has.items():
            old, deadline = self.wanted.get(owner, (Kind.NONE, self.now + 10.0))
            if owner != by and has & want & ~old:
                expected.add(owner)
                self.wanted[owner] = (old | (has & want), deadline)
        assert told == expected

    @rule(owner=owners, keep=kinds)
    def acknowledge(self, owner, keep):
        has = self.has.get(owner, Kind.NONE)
        if keep & ~has:
            with pytest.raises(InvalidArgument):
                self.table.acknowledge(N, owner, keep)
            return
        left = self.table.acknowledge(N, owner, keep)
        wanted, deadline = self.wanted.pop(owner, (Kind.NONE, 0.0))
        assert left == wanted & keep
        if wanted & keep:
            self.wanted[owner] = (wanted & keep, deadline)
        self.has[owner] = keep
        if not keep:
            del self.has[owner]

    @rule(owner=owners)
    def drop(self, owner):
        assert self.table.drop(N, owner) == (owner in self.has)
        self.has.pop(owner, None)
        self.wanted.pop(owner, None)

    @rule(seconds=st.sampled_from([0.0, 3.0, 7.0, 10.0]))
    def expire(self, seconds):
        self.now += seconds
        revoked = {lease.owner for lease in self.table.expire(self.now)}
        assert revoked == {o for o, (_, deadline) in self.wanted.items() if deadline <= self.now}
        for owner in revoked:
            del self.has[owner], self.wanted[owner]

    @rule(want=kinds, by=st.none() | owners)
    def begin(self, want, by):
        self.table.begin(N, want, by=by)
        self.changes.append((by, want))

    @rule(data=st.data())
    def end(self, data):
        if self.changes:
            by, want = data.draw(st.sampled_from(self.changes))
            self.table.end(N, want, by=by)
            self.changes.remove((by, want))

    @invariant()
    def the_table_is_the_model(self):
        assert {lease.owner: lease.kinds for lease in self.table.on(N)} == self.has
        assert {lease.owner: lease.wanted for lease in self.table.all() if lease.wanted} == {
            owner: wanted for owner, (wanted, _) in self.wanted.items()
        }
        deadlines = [deadline for _, deadline in self.wanted.values()]
        assert self.table.next_deadline() == min(deadlines, default=None)

    @invariant()
    def a_writer_is_alone(self):
        writers = [owner for owner, has in self.has.items() if has & W]
        assert not writers or len(self.has) == 1

    @invariant()
    def conflicts_are_what_others_hold(self):
        for by in [None, *OWNERS]:
            for want in (FOR_READ, FOR_WRITE, H, ALL):
                assert self.table.conflicts(N, want, by=by) == any(
                    owner != by and has & want for owner, has in self.has.items()
                )


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_readers_share_and_a_writer_does_not():
    table = LeaseTable()

    assert table.grant(N, A, R | H) == R | H
    assert table.grant(N, B, ALL) == R | H
    assert table.grant(N, A, W) == R | H


def test_repeating_a_recall_does_not_prolong_it():
    table = LeaseTable(recall_s=10)
    table.grant(N, A, ALL)
    table.recall(N, W, by=B, now=0)

    assert table.recall(N, W, by=C, now=9) == []
    assert [lease.owner for lease in table.recall(N, R, by=C, now=9)] == [A]
    assert [lease.owner for lease in table.expire(10)] == [A]
