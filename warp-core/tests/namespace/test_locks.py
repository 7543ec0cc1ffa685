"""Byte-range locks against a model that keeps one entry for each owner and byte, and finds circles by exhaustive search."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from warp_core.errors import Busy, Deadlock, InvalidArgument, Locked
from warp_core.namespace import locks as module
from warp_core.namespace.locks import END, LockTable, Node, Owner, Range, Waiter

BYTES = 8
NODES = [Node(1, 1), Node(1, 2)]
OWNERS = [Owner(1, key) for key in range(5)]
A, B, C, D = OWNERS[:4]
N = NODES[0]

nodes = st.sampled_from(NODES)
owners = st.sampled_from(OWNERS)
spans = st.tuples(st.integers(0, BYTES - 1), st.integers(1, BYTES)).map(
    lambda pair: (pair[0], min(BYTES, pair[0] + pair[1]))
)


class Model:
    """Modes by (node, owner, byte); waiting requests in order of arrival."""

    def __init__(self) -> None:
        self.mode: dict[tuple[Node, Owner, int], bool] = {}
        self.queue: list[Waiter] = []

    def blockers(
        self, node: Node, owner: Owner, span: tuple[int, int], exclusive: bool
    ) -> set[Owner]:
        return {
            other
            for (n, other, byte), mode in self.mode.items()
            if n == node and other != owner and span[0] <= byte < span[1] and (mode or exclusive)
        }

    def set(self, node: Node, owner: Owner, span: tuple[int, int], exclusive: bool | None) -> None:
        for byte in range(*span):
            if exclusive is None:
                self.mode.pop((node, owner, byte), None)
            else:
                self.mode[node, owner, byte] = exclusive

    def hard(self, waiter: Waiter) -> set[Owner]:
        return self.blockers(
            waiter.node, waiter.owner, (waiter.start, waiter.end), waiter.exclusive
        )

    def soft(self, waiter: Waiter) -> set[Owner]:
        older = self.queue[: self.queue.index(waiter)]
        return {
            each.owner
            for each in older
            if each.node == waiter.node
            and each.owner != waiter.owner
            and set(range(each.start, each.end)) & set(range(waiter.start, waiter.end))
            and (each.exclusive or waiter.exclusive)
        }

    def closure(self, *, soft: bool) -> set[tuple[Owner, Owner]]:
        edges = {(w.owner, b) for w in self.queue for b in self.hard(w)}
        if soft:
            edges |= {(w.owner, b) for w in self.queue for b in self.soft(w)}
        while True:
            more = {(a, d) for a, b in edges for c, d in edges if b == c} - edges
            if not more:
                return edges
            edges |= more

    def granted(self, released: list[Waiter]) -> None:
        for waiter in released:
            assert waiter.granted
            assert not self.hard(waiter), "granted against a holder"
            self.set(waiter.node, waiter.owner, (waiter.start, waiter.end), waiter.exclusive)
            self.queue.remove(waiter)


class Machine(RuleBasedStateMachine):
    """Random requests of five owners on two inodes. An owner that waits asks nothing else, as a thread does."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LockTable()
        self.model = Model()

    def idle(self, owner: Owner) -> bool:
        return all(waiter.owner != owner for waiter in self.model.queue)

    @rule(node=nodes, owner=owners, span=spans, exclusive=st.booleans())
    def try_lock(self, node, owner, span, exclusive):
        if not self.idle(owner):
            return
        blockers = self.model.blockers(node, owner, span, exclusive)
        conflict = self.table.test(node, owner, *span, exclusive=exclusive)
        assert (conflict is None) == (not blockers)
        assert conflict is None or conflict.owner in blockers
        if blockers:
            with pytest.raises(Locked):
                self.table.lock(node, owner, *span, exclusive=exclusive)
        else:
            self.model.set(node, owner, span, exclusive)
            self.model.granted(self.table.lock(node, owner, *span, exclusive=exclusive))

    @rule(node=nodes, owner=owners, span=spans, exclusive=st.booleans())
    def wait_lock(self, node, owner, span, exclusive):
        if not self.idle(owner):
            return
        closure = self.model.closure(soft=False)
        blockers = self.model.blockers(node, owner, span, exclusive)
        if any((blocker, owner) in closure for blocker in blockers):
            with pytest.raises(Deadlock):
                self.table.wait(node, owner, *span, exclusive=exclusive)
            return
        waiter, released = self.table.wait(node, owner, *span, exclusive=exclusive)
        self.model.queue.append(waiter)
        if waiter.granted:
            self.model.granted([waiter])
        self.model.granted(released)

    @rule(node=nodes, owner=owners, span=spans)
    def unlock(self, node, owner, span):
        if not self.idle(owner):
            return
        self.model.set(node, owner, span, None)
        self.model.granted(self.table.unlock(node, owner, *span))

    @rule(node=nodes, owner=owners)
    def release(self, node, owner):
        self.model.set(node, owner, (0, BYTES), None)
        self.model.queue = [w for w in self.model.queue if (w.node, w.owner) != (node, owner)]
        self.model.granted(self.table.release(node, owner))

    @precondition(lambda self: self.model.queue)
    @rule(data=st.data())
    def cancel(self, data):
        waiter = data.draw(st.sampled_from(self.model.queue))
        self.model.queue.remove(waiter)
        self.model.granted(self.table.cancel(waiter))
        assert not waiter.granted

    @invariant()
    def held_ranges_are_the_models_and_minimal(self):
        for node in NODES:
            held = self.table.held(node)
            spread = {
                (node, each.owner, byte): each.exclusive
                for each in held
                for byte in range(each.start, each.end)
            }
            assert spread == {key: mode for key, mode in self.model.mode.items() if key[0] == node}
            for one in held:
                assert not [
                    other
                    for other in held
                    if other.owner == one.owner
                    and other.start == one.end
                    and other.exclusive == one.exclusive
                ], "neighbours of one mode merge"
            assert self.table.waiting(node) == [w for w in self.model.queue if w.node == node]

    @invariant()
    def nobody_waits_without_a_reason(self):
        closure = self.model.closure(soft=True)
        for waiter in self.model.queue:
            reasons = self.model.hard(waiter) | {
                other for other in self.model.soft(waiter) if (other, waiter.owner) not in closure
            }
            assert reasons, f"{waiter} could go"

    @invariant()
    def a_circle_of_hard_waits_never_stands(self):
        assert all(a != b for a, b in self.model.closure(soft=False))

    def teardown(self):
        """Whoever does not wait lets go, again and again: then everybody has had a turn."""
        for _ in range(len(OWNERS) * 20):
            for node in NODES:
                for owner in OWNERS:
                    if self.idle(owner):
                        self.unlock_everything(node, owner)
        assert not self.model.queue
        assert not self.table.nodes

    def unlock_everything(self, node, owner):
        self.model.set(node, owner, (0, BYTES), None)
        self.model.granted(self.table.unlock(node, owner, 0, BYTES))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_upgrade_waits_for_other_readers_and_keeps_its_share():
    table = LockTable()
    table.lock(N, A, 0, 10, exclusive=False)
    table.lock(N, B, 5, 15, exclusive=False)

    waiter, _ = table.wait(N, A, 0, 10, exclusive=True)

    assert not waiter.granted
    assert Range(A, 0, 10, False) in table.held(N)
    assert table.unlock(N, B, 5, 10) == [waiter]


def test_two_upgrades_of_one_range_are_a_deadlock():
    table = LockTable()
    table.lock(N, A, 0, 10, exclusive=False)
    table.lock(N, B, 0, 10, exclusive=False)
    table.wait(N, A, 0, 10, exclusive=True)

    with pytest.raises(Deadlock):
        table.wait(N, B, 0, 10, exclusive=True)


def test_open_file_descriptions_are_not_accused_of_deadlock():
    one, two = Owner(1, 1, several=True), Owner(1, 2, several=True)
    table = LockTable()
    table.lock(N, one, 0, 10, exclusive=False)
    table.lock(N, two, 0, 10, exclusive=False)
    table.wait(N, one, 0, 10, exclusive=True)

    waiter, _ = table.wait(N, two, 0, 10, exclusive=True)

    assert not waiter.granted


def test_a_deadlock_across_two_inodes_and_three_owners_is_found():
    table = LockTable()
    other = NODES[1]
    table.lock(N, A, 0, 1, exclusive=True)
    table.lock(N, B, 1, 2, exclusive=True)
    table.lock(other, C, 0, 1, exclusive=True)
    table.wait(N, A, 1, 2, exclusive=True)
    table.wait(other, B, 0, 1, exclusive=False)

    with pytest.raises(Deadlock):
        table.wait(N, C, 0, 1, exclusive=False)


def test_unlocking_the_middle_splits_a_range():
    table = LockTable()
    table.lock(N, A, 0, END, exclusive=True)

    table.unlock(N, A, 100, 200)

    assert table.held(N) == [Range(A, 0, 100, True), Range(A, 200, END, True)]


def test_readers_do_not_overtake_a_waiting_writer():
    table = LockTable()
    table.lock(N, A, 0, 10, exclusive=False)
    writer, _ = table.wait(N, B, 0, 10, exclusive=True)

    reader, _ = table.wait(N, C, 0, 10, exclusive=False)

    assert not reader.granted
    assert table.unlock(N, A, 0, 10) == [writer]
    assert table.unlock(N, B, 0, 10) == [reader]


def test_a_downgrade_lets_waiting_readers_in():
    table = LockTable()
    table.lock(N, A, 0, 10, exclusive=True)
    reader, _ = table.wait(N, B, 0, 10, exclusive=False)

    assert table.lock(N, A, 0, 10, exclusive=False) == [reader]


def test_fairness_gives_way_to_whom_the_queue_waits_for():
    table = LockTable()
    table.lock(N, A, 0, 10, exclusive=False)
    writer, _ = table.wait(N, B, 0, 20, exclusive=True)

    waiter, released = table.wait(N, A, 5, 15, exclusive=False)

    assert waiter.granted
    assert released == []
    assert not writer.granted


@pytest.mark.parametrize("span", [(5, 5), (-1, 5), (0, END + 1), (9, 3)])
def test_ranges_that_no_protocol_has_are_refused(span):
    with pytest.raises(InvalidArgument):
        LockTable().lock(N, A, *span, exclusive=True)


def test_the_number_of_ranges_is_limited_and_unlocking_never_is(monkeypatch):
    monkeypatch.setattr(module, "RANGES_MAX", 5)
    table = LockTable()
    for start in (0, 10, 20, 30):
        table.lock(N, A, start, start + 5, exclusive=True)

    with pytest.raises(Busy):
        table.lock(N, A, 40, 45, exclusive=True)
    with pytest.raises(Busy):
        table.wait(N, A, 40, 45, exclusive=True)
    table.unlock(N, A, 11, 12)
    table.unlock(N, A, 0, END)

    assert not table.nodes


def test_the_number_of_waiters_is_limited(monkeypatch):
    monkeypatch.setattr(module, "WAITERS_MAX", 1)
    table = LockTable()
    table.lock(N, A, 0, 1, exclusive=True)
    table.wait(N, B, 0, 1, exclusive=True)

    with pytest.raises(Busy):
        table.wait(N, C, 0, 1, exclusive=True)
