"""Which snapshots are due, and which have had their time."""

from __future__ import annotations

import calendar
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import given
from warp_core.errors import InvalidArgument
from warp_core.snapshot_policy import (
    HOUR_NS,
    KINDS,
    Policy,
    check,
    due,
    name_at,
    newest,
    pack,
    period,
    surplus,
    unpack,
)

DAY_NS = 24 * HOUR_NS


@dataclass
class Taken:
    name: str
    created_ns: int
    kinds: tuple[str, ...]


def at(text: str) -> int:
    """Return a moment of UTC in ns."""
    year, month, day, hour = map(int, text.replace("T", "-").split("-"))
    return calendar.timegm((year, month, day, hour, 0, 0)) * 10**9


def run(policy: Policy, moments: list[int], hour_ns: int = HOUR_NS) -> list[Taken]:
    """Look at each moment, and do what a service would."""
    taken: list[Taken] = []
    for now in moments:
        kinds = due(policy, newest(taken), now, hour_ns)
        if kinds:
            taken.append(Taken(f"{now}", now, kinds))
        gone = surplus(policy, taken)
        taken = [each for each in taken if each.name not in gone]
    return taken


def test_periods_begin_where_the_calendar_has_them() -> None:
    sunday, monday = at("2026-11-22T23"), at("2026-11-23T00")
    assert period("weekly", monday) == period("weekly", sunday) + 1
    assert period("weekly", at("2026-11-29T23")) == period("weekly", monday)
    assert period("monthly", at("2026-12-01T00")) == period("monthly", at("2026-11-30T23")) + 1
    assert period("monthly", at("2027-01-01T00")) == period("monthly", at("2026-12-31T23")) + 1
    assert period("daily", monday) == period("daily", sunday) + 1
    assert period("hourly", monday) == period("hourly", sunday) + 1


def test_one_snapshot_serves_all_kinds_that_are_due() -> None:
    policy = Policy(hourly=3, daily=2)
    hours = [at("2026-11-22T22") + hour * HOUR_NS for hour in range(5)]

    taken = run(policy, hours)

    assert [each.kinds for each in taken] == [("hourly", "daily"), ("hourly", "daily")] + [
        ("hourly",)
    ] * 2
    assert [each.created_ns for each in taken] == [hours[0], *hours[2:]]


def test_a_long_stop_is_made_up_for_by_one_snapshot() -> None:
    policy = Policy(hourly=24, daily=7)
    first = at("2026-11-01T00")

    taken = run(policy, [first, first + 20 * DAY_NS, first + 20 * DAY_NS + 1])

    assert [each.created_ns for each in taken] == [first, first + 20 * DAY_NS]


def test_a_clock_that_was_set_back_is_waited_for_up_to_a_period() -> None:
    policy = Policy(hourly=24)
    now = at("2026-11-23T06")

    assert due(policy, {"hourly": now}, now - HOUR_NS // 2) == ()
    assert due(policy, {"hourly": now}, now - 2 * HOUR_NS) == ("hourly",)


def test_what_was_made_by_hand_stays() -> None:
    by_hand = [Taken("mine", 1, ()), Taken("auto-19700101-000000", 2, ())]
    taken = [*by_hand, Taken("old", 3, ("hourly",)), Taken("new", 4, ("hourly",))]

    assert surplus(Policy(hourly=1), taken) == ["old"]
    assert surplus(Policy(daily=1), taken) == ["old", "new"]


def test_names_sort_by_age() -> None:
    assert name_at(at("2026-11-23T06")) == "auto-20261123-060000"
    assert (
        name_at(at("2026-11-23T06")) < name_at(at("2026-12-01T00")) < name_at(at("2027-01-01T00"))
    )


@pytest.mark.parametrize("bad", [Policy(), Policy(hourly=-1), Policy(hourly=1001)])
def test_policies_that_cannot_be_kept_are_refused(bad: Policy) -> None:
    with pytest.raises(InvalidArgument):
        check(bad)


counts = st.integers(0, 5)


@given(
    st.builds(Policy, hourly=counts, daily=counts, weekly=counts, monthly=counts),
    st.lists(st.integers(1, 40 * 24), min_size=1, max_size=60),
)
def test_each_kind_keeps_its_newest_one_of_each_period(policy: Policy, steps: list[int]) -> None:
    moments = []
    now = at("2026-11-23T00")
    for step in steps:
        now += step * HOUR_NS // 3
        moments.append(now)

    taken = run(policy, moments)

    for kind in KINDS:
        firsts: dict[int, int] = {}
        for moment in moments:
            firsts.setdefault(period(kind, moment), moment)
        wanted = list(firsts.values())
        keep = policy.keeps(kind)
        found = [each.created_ns for each in taken if kind in each.kinds]
        newest_ones = wanted[max(0, len(wanted) - keep) :]
        assert found[max(0, len(found) - keep) :] == newest_ones
    assert unpack(pack(policy)) == policy
