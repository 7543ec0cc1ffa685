from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_integration.powercut import ABSENT, Ledger


class Clock:
    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock)


def put(ledger: Ledger, key: str, content: str) -> None:
    ledger.acknowledge(ledger.begin(key, content))


def test_what_was_acknowledged_before_the_cut_must_be_there(ledger: Ledger, clock: Clock) -> None:
    clock.now = 10
    put(ledger, "k", "one")

    assert [f.kind for f in ledger.judge({}, at=10)] == ["lost"]
    assert ledger.judge({"k": "one"}, at=10) == []


def test_what_was_acknowledged_after_the_cut_may_be_there_once_begun(
    ledger: Ledger, clock: Clock
) -> None:
    clock.now = 10
    operation = ledger.begin("k", "one")
    clock.now = 20
    ledger.acknowledge(operation)

    assert ledger.judge({}, at=15) == []
    assert ledger.judge({"k": "one"}, at=15) == []
    assert [f.kind for f in ledger.judge({"k": "one"}, at=9)] == ["mixed"]


def test_the_old_content_after_an_acknowledged_overwrite_is_a_loss(ledger: Ledger) -> None:
    put(ledger, "k", "one")
    put(ledger, "k", "two")

    assert [f.kind for f in ledger.judge({"k": "one"})] == ["lost"]


def test_a_deleted_key_that_returns_is_a_loss(ledger: Ledger) -> None:
    put(ledger, "k", "one")
    put(ledger, "k", ABSENT)

    assert ledger.judge({}) == []
    assert [f.kind for f in ledger.judge({"k": "one"})] == ["lost"]


def test_a_content_that_nobody_wrote_there_is_mixed(ledger: Ledger) -> None:
    put(ledger, "k", "one")
    put(ledger, "l", "two")

    assert [(f.kind, f.key) for f in ledger.judge({"k": "two", "l": "two", "m": "x"})] == [
        ("mixed", "k"),
        ("mixed", "m"),
    ]


def test_operations_at_the_same_time_may_end_in_either_order(ledger: Ledger) -> None:
    first, second = ledger.begin("k", "one"), ledger.begin("k", "two")
    ledger.acknowledge(first)
    ledger.acknowledge(second)

    assert set(ledger.allowed("k")) == {"one", "two"}


def test_a_refused_operation_must_not_show(ledger: Ledger) -> None:
    put(ledger, "k", "one")
    ledger.refuse(ledger.begin("k", "two"))

    assert [f.kind for f in ledger.judge({"k": "two"})] == ["mixed"]


def test_an_operation_in_doubt_may_show_until_its_key_is_observed(ledger: Ledger) -> None:
    put(ledger, "k", "one")
    ledger.doubt(ledger.begin("k", "two"))
    put(ledger, "k", "three")

    assert set(ledger.allowed("k")) == {"two", "three"}

    ledger.observe("k", "three")

    assert ledger.allowed("k") == ("three",)


def test_an_unanswered_operation_is_settled_by_observing(ledger: Ledger) -> None:
    ledger.begin("k", "one")
    ledger.observe("k", ABSENT)

    assert [f.kind for f in ledger.judge({"k": "one"})] == ["lost"]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("kl"),
        st.sampled_from(["1", "2", ABSENT]),
        st.sampled_from(["acknowledge", "refuse", "doubt", "observe", "nothing"]),
        st.integers(0, 3),
    )
)


def play(ledger: Ledger, clock: Clock, events: list[tuple[str, str, str, int]]) -> None:
    for key, content, verb, steps in events:
        if verb == "observe":
            ledger.observe(key, content)
            continue
        operation = ledger.begin(key, content)
        clock.now += steps
        if verb != "nothing":
            getattr(ledger, verb)(operation)


@given(EVENTS)
def test_a_ledger_read_from_its_file_judges_alike(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str, str, int]]
) -> None:
    file = tmp_path_factory.mktemp("ledger") / "events"
    clock = Clock()
    ledger = Ledger(clock, file=file)
    play(ledger, clock, events)
    ledger.close()
    loaded = Ledger.load(file)

    for at in range(clock.now + 2):
        for key in "kl":
            assert loaded.allowed(key, at) == ledger.allowed(key, at)


@given(EVENTS)
def test_something_is_always_allowed(events: list[tuple[str, str, str, int]]) -> None:
    clock = Clock()
    ledger = Ledger(clock)
    play(ledger, clock, events)

    for at in range(clock.now + 2):
        assert ledger.allowed("k", at)


def test_a_torn_last_line_is_an_event_that_was_not_noted(tmp_path: Path) -> None:
    file = tmp_path / "events"
    ledger = Ledger(file=file)
    put(ledger, "k", "one")
    ledger.close()
    file.write_text(file.read_text()[:-5])

    assert set(Ledger.load(file).allowed("k")) == {ABSENT, "one"}
