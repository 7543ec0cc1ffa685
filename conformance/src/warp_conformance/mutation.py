"""Mutants: correct implementations with one fault planted, which the kit of their kind has to catch.

`mutants/<kind>.py` holds the faults as code, `faults.toml` lists them; a test checks that both agree and that each is caught.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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

    `first` names the test to try first, by method and fault; then only that test may catch a mutant by taking longer than
    `limit_s`, so that a busy machine hides no survivor. A class stops at its first failure.
    A crash (see CRASHES) does not count: the mutant has to fail by its fault.
    """
    classes: dict[str, type[Kit]] = {mutant.name: _staged(mutant, limit_s) for mutant in mutants}
    if len(classes) != len(mutants):
        names = [mutant.name for mutant in mutants]
        raise ValueError(
            f"listed twice: {sorted({name for name in names if names.count(name) > 1})}"
        )
    tried = first or {}
    hunter = _Hunter(
        {mutant.name: tried.get((mutant.method, mutant.fault), "") for mutant in mutants}
    )
    with _unexplained():
        run_quietly(
            [str(STAGE), "-o", "asyncio_mode=auto", "-p", "no:assertion"], hunter, Staging(classes)
        )
    if hunter.error:
        raise RuntimeError(hunter.error)
    return {mutant: hunter.caught.get(mutant.name) for mutant in mutants}


def _staged(mutant: Mutant, limit_s: float) -> type[Kit]:
    made: Any = mutant.implementation
    members = {
        "implementation": staticmethod(made) if isinstance(made, types.FunctionType) else made,
        "time_limit_s": min(mutant.adoption.time_limit_s, limit_s),
    }
    return type(mutant.name, (mutant.adoption,), members)


class _Hunter:
    """The pytest plugin of one hunt."""

    def __init__(self, first: Mapping[str, str]) -> None:
        self.caught: dict[str, Caught] = {}
        self.error = ""
        self._first = first

    def pytest_configure(self, config: pytest.Config) -> None:
        # Native tracebacks parse no source: Python 3.11's parser breaks when a collected task's complaint enters it anew.
        config.option.tbstyle = "native"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        places = {name: at for at, name in enumerate(self._first)}

        def place(item: pytest.Item) -> tuple[int, bool]:
            name = item.cls.__name__  # type: ignore[attr-defined]
            return places[name], _plain(item) != self._first[name]

        items.sort(key=place)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.error = report.longreprtext

    def pytest_internalerror(self, excrepr: object) -> None:
        self.error = str(excrepr)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if item.cls.__name__ in self.caught:  # type: ignore[attr-defined]
            return True  # as if it had run
        with _hurried(item):
            # Which item runs next depends on this one's outcome, so everything is torn down behind each.
            runtestprotocol(item, nextitem=None)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        name = item.cls.__name__  # type: ignore[attr-defined]
        if (
            report.failed
            and call.excinfo
            and not call.excinfo.errisinstance(CRASHES)
            and not (self._late(call) and self._first[name] not in ("", _plain(item)))
        ):
            self.caught.setdefault(name, Caught(item.name, call.excinfo.exconly(tryshort=True)))
        return report

    @staticmethod
    def _late(call: pytest.CallInfo[None]) -> bool:
        error = call.excinfo.value if call.excinfo else None
        return isinstance(error, TimeoutError) or (
            isinstance(error, AssertionError)
            and bool(re.match("took longer than|neither finished nor waited", str(error)))
        )


def _plain(item: pytest.Item) -> str:
    return item.name.partition("[")[0]


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
    test: Any = getattr(item.obj, "__func__", item.obj)  # type: ignore[attr-defined]
    if not getattr(test, "is_hypothesis_test", False):
        yield
        return
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
