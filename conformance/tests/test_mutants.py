"""Every kit catches every fault that faults.toml lists for it, and passes on the correct implementation."""

from __future__ import annotations

import inspect
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from warp_conformance import Kit, mutation
from warp_conformance.mutation import MUTANTS_MIN, Mutant, hunt, listed, mutants_of, references
from warp_conformance.report import check_classes
from warp_core.registry import KINDS

FAULTS = Path(__file__).parents[1] / "faults.toml"
MODULES = sorted(
    path.stem
    for path in Path(inspect.getfile(mutation)).parent.joinpath("mutants").glob("[a-z]*.py")
)


@pytest.mark.parametrize("kind", MODULES)
def test_list_and_code_agree(kind: str) -> None:
    coded = Counter((mutant.method, mutant.fault) for mutant in mutants_of(kind))
    named = Counter((fault.method, fault.fault) for fault in listed(FAULTS) if fault.kind == kind)

    assert coded == named
    assert set(coded.values()) == {1}
    assert len(coded) >= MUTANTS_MIN


def test_every_listed_kind_has_mutants() -> None:
    assert {fault.kind for fault in listed(FAULTS)} == set(MODULES)
    assert set(MODULES) - {"objects", "files", "blocks", "targets"} <= set(KINDS)


def test_every_fault_is_described() -> None:
    assert [fault for fault in listed(FAULTS) if len(fault.what.split()) < 3] == []


@pytest.mark.parametrize("kind", MODULES)
def test_every_mutant_is_caught(kind: str) -> None:
    first = {
        (fault.method, fault.fault): fault.test for fault in listed(FAULTS) if fault.kind == kind
    }
    caught = hunt(mutants_of(kind), first)

    assert [mutant.name for mutant, how in caught.items() if how is None] == []


@pytest.mark.parametrize("kind", MODULES)
def test_the_correct_implementations_pass(kind: str) -> None:
    report = check_classes(references(mutants_of(kind)))

    assert report.error == ""
    assert [(failure.kit, failure.test, failure.detail) for failure in report.failures] == []
    assert report.passed


class LargeKit(Kit, kit=True):
    def test_plainly(self, subject: bytes) -> None:
        got, want = subject, random.Random(1).randbytes(1 << 20)
        assert got == want  # a kit of somebody who has not heard of `same`


class OnLarge(LargeKit):
    implementation: ClassVar[Callable[[], bytes]]

    @pytest.fixture
    def subject(self) -> bytes:
        return self.implementation()


def test_a_hunt_explains_no_assertion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")  # then pytest shows whole differences
    mutant = Mutant(
        "large", "Large.read", "zeros", OnLarge, lambda: random.Random(2).randbytes(1 << 20)
    )
    caught = hunt([mutant])[mutant]

    assert caught is not None
    assert "neither finished" not in caught.error  # explaining two random MiB takes hours
