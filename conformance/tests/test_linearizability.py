"""The checker against histories known to be right or wrong, and against trying every order."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_conformance.linearizability import NEVER, Model, Operation, TooMuchOverlap, check


def step(state, operation):
    """A register with compare-and-swap."""
    verb, *arguments = operation.asked
    if verb == "read":
        return state if not operation.answered or operation.answer == state else None
    if verb == "write":
        return arguments[0]
    old, new = arguments
    if not operation.answered:
        return new if state == old else state
    return (new if operation.answer else state) if operation.answer == (state == old) else None


REGISTER = Model(0, step)


def op(called, answered, *asked, answer=None):
    return Operation(called, answered, asked, answer)


def lost(called, until, *asked):
    return Operation(called, until, asked, answered=False)


def holds(*history):
    return check(history, REGISTER).linearizable


def test_nothing_is_linearizable():
    assert holds()


def test_one_after_the_other():
    assert holds(op(0, 1, "write", 5), op(2, 3, "read", answer=5))
    assert not holds(op(0, 1, "write", 5), op(2, 3, "read", answer=0))


def test_what_overlaps_may_have_happened_in_either_order():
    assert holds(op(0, 10, "write", 5), op(1, 2, "read", answer=0))
    assert holds(op(0, 10, "write", 5), op(1, 2, "read", answer=5))
    assert holds(op(0, 10, "write", 5), op(1, 2, "read", answer=0), op(3, 4, "read", answer=5))


def test_what_was_seen_stays():
    assert not holds(op(0, 10, "write", 5), op(1, 2, "read", answer=5), op(3, 4, "read", answer=0))


def test_an_operation_without_answer_may_have_happened_later_or_never():
    write = lost(0, NEVER, "write", 5)
    assert holds(write, op(1, 2, "read", answer=0))
    assert holds(write, op(1, 2, "read", answer=0), op(3, 4, "read", answer=5))
    assert not holds(write, op(1, 2, "read", answer=5), op(3, 4, "read", answer=0))
    assert not holds(op(3, 4, "write", 7), op(0, 1, "read", answer=5), lost(5, NEVER, "write", 5))


def test_an_operation_without_answer_may_have_an_end_all_the_same():
    write = lost(0, 2, "write", 5)
    assert holds(write, op(3, 4, "read", answer=5))
    assert holds(write, op(3, 4, "read", answer=0))
    assert not holds(write, op(3, 4, "read", answer=0), op(5, 6, "read", answer=5))


def test_of_two_swaps_from_the_same_one_wins():
    assert holds(op(0, 5, "swap", 0, 1, answer=True), op(1, 4, "swap", 0, 2, answer=False))
    assert not holds(op(0, 5, "swap", 0, 1, answer=True), op(1, 4, "swap", 0, 2, answer=True))


def test_a_verdict_says_where_it_broke():
    verdict = check([op(0, 1, "write", 5), op(2, 3, "read", answer=9)], REGISTER)

    assert [each.asked for each in verdict.order] == [("write", 5)]
    assert [each.answer for each in verdict.stuck_at] == [9]
    assert "('read',) -> 9" in str(verdict)


def test_a_long_history_of_few_at_a_time_is_judged():
    history = performed(random.Random(1), 20_000, overlap=4)

    assert check(history, REGISTER).linearizable


def test_too_much_overlap_is_said():
    history = [op(0, 100, "swap", i, i + 1, answer=True) for i in range(1, 30)]

    with pytest.raises(TooMuchOverlap):
        check([*history, op(0, 100, "read", answer=77)], Model(1, step), steps_max=10)


def test_time_does_not_run_backwards():
    with pytest.raises(ValueError, match="answered before"):
        check([op(2, 1, "read", answer=0)], REGISTER)


def performed(rng, count, overlap):
    """Return a history made by performing operations at known moments, with calls and answers around them."""
    state, history = 0, []
    for moment in range(count):
        called, answered = moment - rng.random() * overlap, moment + rng.random() * overlap
        verb = rng.choice(("read", "write", "swap"))
        asked = {
            "read": ("read",),
            "write": ("write", rng.randrange(4)),
            "swap": ("swap", rng.randrange(4), rng.randrange(4)),
        }[verb]
        if rng.random() < 0.1:
            happened = lost(called, rng.choice((answered, NEVER)), *asked)
            if rng.random() < 0.5:
                state = step(state, happened)
        else:
            answer = state if verb == "read" else verb == "write" or state == asked[1]
            happened = Operation(called, answered, asked, answer)
            state = step(state, happened)
        history.append(happened)
    rng.shuffle(history)
    return history


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_what_was_performed_is_accepted_and_its_order_explains_it(seed, count):
    history = performed(random.Random(seed), count, overlap=3)

    verdict = check(history, REGISTER)

    assert verdict.linearizable
    assert explains(verdict.order, history)


def explains(order, history):
    state = 0
    for operation in order:
        state = step(state, operation)
        if state is None:
            return False
    done = set(map(id, order))
    return all(id(each) in done for each in history if each.answered) and all(
        earlier.called_at <= later.until for at, later in enumerate(order) for earlier in order[:at]
    )


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_search_agrees_with_trying_every_order(seed, count):
    rng = random.Random(seed)
    history = []
    for _ in range(count):
        called = rng.random() * 5
        until = called + rng.random() * 3
        asked, answer = rng.choice(
            [
                (("read",), rng.randrange(3)),
                (("write", rng.randrange(3)), True),
                (("swap", rng.randrange(3), rng.randrange(3)), rng.random() < 0.5),
            ]
        )
        if rng.random() < 0.8:
            history.append(Operation(called, until, asked, answer))
        else:
            history.append(lost(called, rng.choice((until, NEVER)), *asked))

    expected = any(
        explains(order, history)
        for size in range(count + 1)
        for order in itertools.permutations(history, size)
    )

    assert check(history, REGISTER).linearizable == expected
