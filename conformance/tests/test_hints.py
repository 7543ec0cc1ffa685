"""Hints of faults.toml: the best test is chosen and noted, and what is only late is told from a busy machine."""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar

import pytest
from warp_conformance import Kit
from warp_conformance.hints import best, found, noted
from warp_conformance.mutation import MUTANT_TIME_LIMIT_S, Caught, Mutant, hunt

TEXT = """# Faults

[[fault]]
kind = "codecs"
method = "Filter.decode"
fault = "swapped"
what = "two bytes change places"

# Stores

[[fault]]
kind = "stores"
method = "Filter.decode"
fault = "swapped"
what = "the same name elsewhere"
test = "test_old"
"""


def caught(test: str, *, late: bool = False, drawn: bool = False, seconds: float = 0.1) -> Caught:
    return Caught(test, "AssertionError", late, drawn, seconds)


def test_a_wrong_result_is_a_better_hint_than_waiting() -> None:
    assert best([caught("late", late=True, seconds=0.01), caught("wrong", drawn=True)]) == "wrong"
    assert best([caught("drawn", drawn=True, seconds=0.01), caught("plain")]) == "plain"
    assert best([caught("slow", seconds=0.2), caught("quick")]) == "quick"


def test_a_hint_is_noted_where_it_belongs() -> None:
    made = noted(TEXT, "codecs", {("Filter.decode", "swapped"): "test_new"})

    assert made == TEXT.replace('change places"\n', 'change places"\ntest = "test_new"\n')
    assert noted(made, "codecs", {("Filter.decode", "swapped"): "test_newer"}) == made.replace(
        "test_new", "test_newer"
    )
    assert noted(TEXT, "stores", {("Filter.decode", "swapped"): "test_new"}) == TEXT.replace(
        "test_old", "test_new"
    )


class Bell:
    """Rings after a while, unless a fault makes it silent."""

    after_s: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.rings = 0

    async def ring(self) -> int:
        await asyncio.sleep(self.after_s)
        self.rings += 1
        return self.rings


class Silent(Bell):
    async def ring(self) -> int:
        await asyncio.Event().wait()
        return 0


class Slow(Bell):
    after_s = 0.5


class Wrong(Bell):
    async def ring(self) -> int:
        return await super().ring() - 1


class BellKit(Kit, kit=True):
    async def test_it_rings(self, subject: Bell) -> None:
        await subject.ring()

    async def test_it_counts(self, subject: Bell) -> None:
        assert await subject.ring() == 1


class OnBell(BellKit):
    implementation: ClassVar[type[Bell]] = Bell

    @pytest.fixture
    def subject(self) -> Bell:
        return self.implementation()


class OnSlowBell(OnBell):
    implementation: ClassVar[type[Bell]] = Slow


def test_a_test_that_waits_for_ever_is_given_up_soon() -> None:
    mutant = Mutant("bells", "Bell.ring", "silent", OnBell, Silent)
    how = hunt([mutant], {("Bell.ring", "silent"): "test_it_rings"})[mutant]

    assert how is not None
    assert how.late
    limit = re.search(r"took longer than ([\d.]+) s", how.error)
    assert limit
    assert float(limit[1]) < MUTANT_TIME_LIMIT_S


def test_what_the_correct_implementation_takes_long_for_is_waited_for() -> None:
    mutant = Mutant("bells", "Bell.ring", "none", OnSlowBell, Slow)

    assert hunt([mutant], {("Bell.ring", "none"): "test_it_rings"})[mutant] is None


def test_only_the_hinted_test_catches_by_waiting() -> None:
    class LateElsewhere(Bell):
        async def ring(self) -> int:
            raise NotImplementedError

    class Twice(BellKit):
        implementation: ClassVar[type[Bell]] = LateElsewhere

        @pytest.fixture
        async def subject(self, request: pytest.FixtureRequest) -> Bell:
            if request.node.name == "test_it_rings":
                return Silent()
            return Bell()

    mutant = Mutant("bells", "Bell.ring", "elsewhere", Twice, LateElsewhere)

    assert hunt([mutant], {("Bell.ring", "elsewhere"): "test_it_counts"})[mutant] is None


def test_hints_are_found_by_trying() -> None:
    wrong = Mutant("bells", "Bell.ring", "wrong", OnBell, Wrong)

    assert found([wrong]) == {("Bell.ring", "wrong"): "test_it_counts"}
