"""Mutants: correct implementations with one fault planted, which the kit of their kind has to catch.

`mutants/<kind>.py` holds the faults as code, `faults.toml` lists them; a test checks that both agree and that each is caught.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from _pytest.assertion import util
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from warp_conformance.kit import Kit
from warp_conformance.report import run_quietly
from warp_conformance.stage import STAGE, Staging

Implementation = TypeVar("Implementation")

MUTANT_TIME_LIMIT_S = 2.0  # of one kit test on a mutant: many faults lose a wake-up, and that shows as waiting for ever
HASTY_LIMIT_S = 0.3  # of a test that is expected to show a fault by waiting
HASTY_SHARE = 0.25  # of it that the correct implementation may take, where a mutant took longer than all of it
SHARE = 0.5  # the same of a limit that is not hasty
PATIENT_LIMIT_S = 6.0  # where nothing says which test to expect
MUTANTS_MIN = 20  # for each kind of plugin

# A mutant that raises one of these has a bug besides its fault: it would be "caught" by any test.
CRASHES = (TypeError, NameError, AttributeError, ImportError, NotImplementedError)


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `faults.toml`."""

    kind: str
    method: str  # "Filter.decode"
    fault: str  # "swapped-bytes"
    what: str  # the fault in a sentence
    test: str = ""  # which catches it: tried first, so that a hunt takes seconds


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault as code: `adoption` is a kit adopted for the correct implementation, which `implementation` takes the place of."""

    kind: str
    method: str
    fault: str
    adoption: type[Kit]
    implementation: object

    @property
    def name(self) -> str:
        """Return the class name under which it runs."""
        words = f"{self.method} {self.fault}".replace(".", " ").replace("-", " ").replace("_", " ")
        return "Test" + "".join(word[:1].upper() + word[1:] for word in words.split())


@dataclass(frozen=True, slots=True)
class Caught:
    """Which kit test caught a mutant, and how it failed."""

    test: str
    error: str
    late: bool  # all that it tells is that something took too long
    drawn: bool  # its examples are hypothesis'
    seconds: float = 0.0  # that the test took, with what is set up for it


@dataclass(slots=True)
class Faults:
    """The mutants of one kind: `@faults(OnFilter, "Filter.decode", "swapped-bytes")` above each faulty implementation."""

    kind: str
    mutants: list[Mutant] = field(default_factory=list)

    def __call__(
        self, adoption: type[Kit], method: str, fault: str
    ) -> Callable[[Implementation], Implementation]:
        """Register what it decorates: whatever the adoption keeps as `implementation` (a class, or a function)."""

        def register(implementation: Implementation) -> Implementation:
            self.mutants.append(Mutant(self.kind, method, fault, adoption, implementation))
            return implementation

        return register


def mutants_of(kind: str) -> list[Mutant]:
    """Return the mutants of `warp_conformance.mutants.<kind>`."""
    faults: Faults = importlib.import_module(f"warp_conformance.mutants.{kind}").faults
    return faults.mutants


def listed(path: Path) -> list[Listed]:
    """Read a `faults.toml`."""
    return msgspec.convert(tomllib.loads(path.read_text())["fault"], list[Listed])


def references(mutants: Iterable[Mutant]) -> dict[str, type[Kit]]:
    """Return the adoptions that the mutants use, with their correct implementations: these have to pass."""
    adoptions = {mutant.adoption for mutant in mutants}
    return {
        f"Test{adoption.__name__}": type(f"Test{adoption.__name__}", (adoption,), {})
        for adoption in adoptions
    }


def hunt(
    mutants: Sequence[Mutant],
    first: Mapping[tuple[str, str], str] | None = None,
    *,
    limit_s: float = MUTANT_TIME_LIMIT_S,
) -> dict[Mutant, Caught | None]:
    """Run the kits on the mutants, in this process, and return what caught each; None for a survivor.

    `first` names the test to try first, by method and fault; then only that test may catch a mutant by taking longer than its
    limit, so that a busy machine hides no survivor. A class stops at its first failure.
    A crash (see CRASHES) does not count: the mutant has to fail by its fault.
    """
    found = survey(mutants, first, limit_s=limit_s, enough=1)
    return {mutant: each[0] if each else None for mutant, each in found.items()}


def survey(
    mutants: Sequence[Mutant],
    first: Mapping[tuple[str, str], str] | None = None,
    *,
    limit_s: float = MUTANT_TIME_LIMIT_S,
    enough: int,
) -> dict[Mutant, list[Caught]]:
    """Run the kits on the mutants as `hunt` does, until `enough` tests have caught each; return what they say."""
    classes: dict[str, type[Kit]] = {mutant.name: _staged(mutant, limit_s) for mutant in mutants}
    if len(classes) != len(mutants):
        names = [mutant.name for mutant in mutants]
        raise ValueError(
            f"listed twice: {sorted({name for name in names if names.count(name) > 1})}"
        )
    tried = first or {}
    hunter = _Hunter(
        {mutant.name: tried.get((mutant.method, mutant.fault), "") for mutant in mutants},
        {mutant.name: f"Test{mutant.adoption.__name__}" for mutant in mutants},
        enough,
    )
    with _unexplained():
        run_quietly(
            [str(STAGE), "-o", "asyncio_mode=auto", "-p", "no:assertion"],
            hunter,
            Staging({**references(mutants), **classes}),
        )
    if hunter.error:
        raise RuntimeError(hunter.error)
    return {mutant: hunter.caught[mutant.name] for mutant in mutants}


def _staged(mutant: Mutant, limit_s: float) -> type[Kit]:
    made: Any = mutant.implementation
    members = {
        "implementation": staticmethod(made) if isinstance(made, types.FunctionType) else made,
        "time_limit_s": min(mutant.adoption.time_limit_s, limit_s),
    }
    return type(mutant.name, (mutant.adoption,), members)


class _Hunter:
    """The pytest plugin of one hunt.

    Many faults lose a wake-up, so that all there is to see is that a test takes too long. Where such a test is the one to be tried
    first, it gets HASTY_LIMIT_S; taking longer counts if the correct implementation, on the same test right afterwards, needs a small
    part of that. If it does not, the machine is busy: the mutant gets four times as long. Where no test is named, taking longer than
    the whole limit counts on the same condition.
    """

    def __init__(self, first: Mapping[str, str], correct: Mapping[str, str], enough: int) -> None:
        self.caught: dict[str, list[Caught]] = {name: [] for name in first}
        self.error = ""
        self._first = first
        self._correct = correct
        self._enough = enough
        self._references: dict[tuple[str, str], pytest.Item] = {}
        self._outcome: Caught | None = None  # of the item that runs, if it failed by its fault
        self._failed = False
        self._longest_s = 0.0  # of its phases: set up, test, torn down

    def pytest_configure(self, config: pytest.Config) -> None:
        # Native tracebacks parse no source: Python 3.11's parser breaks when a collected task's complaint enters it anew.
        config.option.tbstyle = "native"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        places = {name: at for at, name in enumerate(self._first)}

        def place(item: pytest.Item) -> tuple[int, bool]:
            name = _class_of(item).__name__
            return places[name], _plain(item) != self._first[name]

        self._references = {
            (_class_of(item).__name__, item.name): item
            for item in items
            if _class_of(item).__name__ not in places
        }
        items[:] = sorted((item for item in items if _class_of(item).__name__ in places), key=place)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.error = report.longreprtext

    def pytest_internalerror(self, excrepr: object) -> None:
        self.error = str(excrepr)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        name = _class_of(item).__name__
        found = self.caught[name]
        if len(found) >= self._enough or any(each.test == _plain(item) for each in found):
            return True  # as if it had run
        hinted = self._first[name]
        if hinted == _plain(item):
            outcome = self._hasty(item)
        else:
            outcome = self._run(item)
            if outcome is not None and outcome.late and (hinted or not self._telling(item)):
                outcome = None
        if outcome is not None:
            found.append(outcome)
        return True

    def _hasty(self, item: pytest.Item) -> Caught | None:
        """Run the test that is expected to catch a mutant; if all that it tells is time, see what the correct one takes."""
        patient = _class_of(item).time_limit_s
        limit = min(HASTY_LIMIT_S, patient)
        while True:
            outcome = self._run(item, limit)
            if outcome is None or not outcome.late or limit >= patient:
                return outcome
            if self._telling(item, limit):
                return outcome
            limit = min(limit * 4, patient)

    def _telling(self, item: pytest.Item, limit_s: float | None = None) -> bool:
        """Say whether a mutant's taking too long tells something: the correct implementation needs a small part of the time now."""
        limit, share = _class_of(item).time_limit_s, SHARE
        if limit_s is not None:
            limit, share = limit_s, HASTY_SHARE
        self._run(self._references[self._correct[_class_of(item).__name__], item.name], limit)
        return not self._failed and self._longest_s < limit * share

    def _run(self, item: pytest.Item, limit_s: float | None = None) -> Caught | None:
        """Run an item and return how it failed by its fault, None otherwise."""
        kit = _class_of(item)
        before = kit.time_limit_s
        if limit_s is not None:
            kit.time_limit_s = limit_s
        self._outcome, self._failed, self._longest_s = None, False, 0.0
        started = time.monotonic()
        try:
            with _hurried(item):
                # Which item runs next depends on this one's outcome, so everything is torn down behind each.
                runtestprotocol(item, nextitem=None)
        finally:
            kit.time_limit_s = before
        if self._outcome is None:
            return None
        return replace(self._outcome, seconds=time.monotonic() - started)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        self._longest_s = max(self._longest_s, call.duration)
        if report.failed:
            self._failed = True
        if report.failed and call.excinfo and not call.excinfo.errisinstance(CRASHES):
            late = self._late(call)
            if self._outcome is None or (self._outcome.late and not late):
                error = call.excinfo.exconly(tryshort=True)
                self._outcome = Caught(_plain(item), error, late, _is_drawn(item))
        return report

    @staticmethod
    def _late(call: pytest.CallInfo[None]) -> bool:
        error = call.excinfo.value if call.excinfo else None
        return isinstance(error, TimeoutError) or (
            isinstance(error, AssertionError)
            and bool(re.match("took longer than|neither finished nor waited", str(error)))
        )


def _class_of(item: pytest.Item) -> type[Kit]:
    kit: type[Kit] = item.cls  # type: ignore[attr-defined]
    return kit


def _plain(item: pytest.Item) -> str:
    return item.name.partition("[")[0]


def _function(item: pytest.Item) -> Any:
    return getattr(item.obj, "__func__", item.obj)  # type: ignore[attr-defined]


def _is_drawn(item: pytest.Item) -> bool:
    return bool(getattr(_function(item), "is_hypothesis_test", False))


@contextmanager
def _unexplained() -> Iterator[None]:
    """Let failing assertions say no more than their values: mutants fail by hundreds, and nobody reads why.

    `-p no:assertion` keeps pytest from explaining, but where a hunt runs inside a test the explainer of the outer run is still set.
    """
    before = util._reprcompare
    util._reprcompare = None
    try:
        yield
    finally:
        util._reprcompare = before


@contextmanager
def _hurried(item: pytest.Item) -> Iterator[None]:
    """Let a property test run few examples and report the first failure as found: it needs no small example here."""
    if not _is_drawn(item):
        yield
        return
    test: Any = _function(item)
    before = test._hypothesis_internal_use_settings
    test._hypothesis_internal_use_settings = settings(
        before,
        max_examples=30,
        phases=(Phase.explicit, Phase.generate),
        database=None,
        derandomize=True,
    )
    try:
        yield
    finally:
        test._hypothesis_internal_use_settings = before


def main(kinds: Sequence[str]) -> int:
    """Print what catches each mutant of some kinds; return 1 if one survives."""
    survivors = 0
    for kind in kinds:
        for mutant, caught in hunt(mutants_of(kind), limit_s=PATIENT_LIMIT_S).items():
            how = f"{caught.test}: {caught.error.splitlines()[0][:100]}" if caught else "SURVIVES"
            print(f"{mutant.method:24} {mutant.fault:32} {how}")
            survivors += caught is None
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
