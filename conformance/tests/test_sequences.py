"""Random sequences are drawn again from their seed, and failing ones are cut down to what matters."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from warp_conformance.sequences import Step, Verb, drawn, search, shortest

VERBS = {
    "put": Verb(lambda chance: {"key": chance.randrange(4)}, weight=3),
    "delete": Verb(lambda chance: {"key": chance.randrange(4)}),
    "crash": Verb(lambda chance: {}, weight=0.5),
}


class Forgetful:
    """A set that comes back with what was deleted before a crash."""

    def __init__(self) -> None:
        self.keys: set[int] = set()
        self.deleted: set[int] = set()

    def put(self, key: int) -> None:
        self.keys.add(key)

    def delete(self, key: int) -> None:
        if key in self.keys:
            self.keys.remove(key)
            self.deleted.add(key)

    def crash(self) -> None:
        assert not self.deleted, "deleted keys came back"


def attempt(steps: Sequence[Step]) -> None:
    subject = Forgetful()
    for verb, arguments in steps:
        getattr(subject, verb)(**arguments)


def test_a_failure_is_found_and_shrunk_to_what_matters() -> None:
    found = search(VERBS, attempt, seed=1, length=60, budget_s=20)

    assert found is not None
    assert [verb for verb, _ in found.steps] == ["put", "delete", "crash"]
    assert found.steps[0][1] == found.steps[1][1]
    assert "deleted keys came back" in found.error


def test_a_failure_reads_as_a_list_to_paste() -> None:
    found = search(VERBS, attempt, seed=1, length=60, budget_s=20)
    text = str(found)

    assert found is not None
    assert eval(text[text.index("[") : text.index("]\n") + 1]) == list(found.steps)


def test_the_same_seed_finds_the_same() -> None:
    once, again = (search(VERBS, attempt, seed=5, length=60, budget_s=20) for _ in range(2))

    assert once is not None
    assert again is not None
    assert (once.steps, once.tried) == (again.steps, again.tried)
    assert drawn(VERBS, random.Random(1), 40) != drawn(VERBS, random.Random(2), 40)


def test_what_does_not_fail_is_no_failure() -> None:
    assert search(VERBS, lambda steps: None, seed=1, length=10, budget_s=0.05) is None


def test_another_error_is_not_taken_for_the_failure() -> None:
    def other(steps: Sequence[Step]) -> None:
        if len(steps) < 30:
            raise KeyError("too short to be set up")
        raise AssertionError("wrong")

    found = search(VERBS, other, seed=1, length=64, budget_s=20)

    assert found is not None
    assert len(found.steps) == 30
    assert "wrong" in found.error


@given(st.lists(st.integers(0, 99), max_size=60), st.sets(st.integers(0, 59), max_size=4))
def test_nothing_that_is_left_can_go(noise: list[int], wanted: set[int]) -> None:
    steps: list[Step] = [(str(at), {}) for at in range(len(noise))]
    needed = [(str(at), {}) for at in sorted(wanted) if at < len(noise)]

    def fails(some: Sequence[Step]) -> bool:
        return all(step in some for step in needed)

    assert shortest(steps, fails, budget_s=10) == needed


def test_shrinking_keeps_to_its_budget() -> None:
    steps: list[Step] = [(str(at), {}) for at in range(1000)]

    assert shortest(steps, lambda some: True, budget_s=-1) == steps
