"""The report behind `warp conformance NAME`: run the kits that fit installed plugins, and say what passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from warp_conformance.stage import STAGE, Staging

Outcome = Literal["passed", "failed", "skipped", "xfailed"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One kit test on one entry."""

    kit: str  # class of the adoption: TestZstdFilter
    test: str
    outcome: Outcome
    seconds: float
    detail: str = ""  # why it failed or was skipped


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All results, in the order in which they ran."""

    plugins: tuple[str, ...]
    results: tuple[Result, ...]
    error: str = ""  # the run itself failed: unknown plugin, kit hidden, nothing fits

    @property
    def passed(self) -> bool:
        """Say whether something ran and nothing failed."""
        return (
            not self.error
            and any(result.outcome == "passed" for result in self.results)
            and not self.failures
        )

    @property
    def failures(self) -> tuple[Result, ...]:
        """Return what failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def counts(self) -> dict[str, int]:
        """Return how many tests had which outcome."""
        return dict(Counter(result.outcome for result in self.results))

    def to_json(self) -> bytes:
        """Return the report as indented JSON, with `passed` and `counts` beside the results."""
        body = {"passed": self.passed, "counts": self.counts(), **msgspec.to_builtins(self)}
        return msgspec.json.format(msgspec.json.encode(body), indent=2)


def check(
    names: Sequence[str],
    *,
    junit: Path | None = None,
    keyword: str = "",
    on_result: Callable[[Result], None] | None = None,
) -> Report:
    """Run the kits that fit the installed plugins `names`, in this process.

    Args:
        names: As for `--warp-plugin`.
        junit: Where to write a JUnit XML file as well.
        keyword: A pytest `-k` expression.
        on_result: Called after each test, for progress displays.
    """
    from warp_conformance.adoption import adoptions

    try:
        classes = adoptions(names)
    except pytest.UsageError as usage:
        return Report(plugins=tuple(names), results=(), error=str(usage))
    recorder = _Recorder(on_result)
    arguments = [
        *([f"--junit-xml={junit}"] if junit else []),
        *(["-k", keyword] if keyword else []),
    ]
    return _run(classes, recorder, arguments, tuple(names))


def check_classes(classes: Mapping[str, type]) -> Report:
    """Run adoptions that exist only in memory, such as those of an entry that is not installed (`adoption.adopt`)."""
    return _run(classes, _Recorder(None), [], ())


def _run(
    classes: Mapping[str, type],
    recorder: _Recorder,
    arguments: Sequence[str],
    names: tuple[str, ...],
) -> Report:
    status = run_quietly(
        [*arguments, str(STAGE), "-o", "asyncio_mode=auto"], recorder, Staging(classes)
    )
    error = recorder.error
    if not error and status is pytest.ExitCode.NO_TESTS_COLLECTED:
        error = "no kit fits"
    elif not error and status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        error = f"pytest ended with {status!r}"
    return Report(plugins=names, results=tuple(recorder.results), error=error)


def run_quietly(arguments: Sequence[str], *plugins: object) -> pytest.ExitCode:
    """Run pytest in this process without output, configuration files or caches of its own."""
    quiet = [
        "-p",
        "no:terminal",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:faulthandler",
    ]
    fixed = [
        "-o",
        "asyncio_default_fixture_loop_scope=function",
        "-c",
        "/dev/null",
        "--import-mode=importlib",
        f"--rootdir={STAGE.parent}",
    ]
    return pytest.ExitCode(pytest.main([*quiet, *fixed, *arguments], plugins=list(plugins)))


class _Recorder:
    """Collects one result for each test: a failing setup or teardown fails it."""

    def __init__(self, on_result: Callable[[Result], None] | None) -> None:
        self.results: list[Result] = []
        self.error = ""
        self._on_result = on_result
        self._current: Result | None = None

    def pytest_internalerror(self, excrepr: object) -> None:
        self.error = str(excrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.error = report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        *_, kit, test = report.nodeid.split("::")
        before = self._current
        outcome: Outcome = (
            "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        )
        worse = (
            before is None
            or outcome == "failed"
            or (before.outcome == "passed" and outcome != "passed")
        )
        self._current = Result(
            kit=kit,
            test=test,
            outcome=outcome if worse or before is None else before.outcome,
            seconds=report.duration + (before.seconds if before else 0.0),
            detail=_why(report) if worse or before is None else before.detail,
        )
        if report.when == "teardown":
            self.results.append(self._current)
            if self._on_result:
                self._on_result(self._current)
            self._current = None


def _why(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext if report.failed else getattr(report, "wasxfail", "")
