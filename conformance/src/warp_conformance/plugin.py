"""The pytest plugin: `pytest --pyargs warp_conformance --warp-plugin NAME`, a limit for tests that spin, and short explanations."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _pytest.assertion import util

from warp_conformance.difference import explained
from warp_conformance.kit import Kit
from warp_conformance.stage import STAGE, Stage, staged

SPIN_FACTOR = 2.0  # a spinning test is interrupted after this many times its own limit


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("warp")
    group.addoption(
        "--warp-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="check an installed WARP plugin with the kits that fit it: `zstd`, or `codecs/zstd` where two kinds share a name",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; stage the adoptions that the command line asks for."""
    config.addinivalue_line("markers", "warp_requires(**capabilities): set by `requires`")
    names = config.getoption("warp_plugin")
    if names:
        from warp_conformance.adoption import adoptions

        config.option.asyncio_mode = "auto"  # the command line has no ini file to say so
        config.stash[staged] = adoptions(names)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """Collect staged classes in the place of `test_adopted.py`."""
    if module_path.resolve() != STAGE.resolve():
        return None
    return Stage.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Explain failing comparisons of large contents in a line, within the time that pytest's own explainer is set."""
    usual = util._reprcompare
    util._reprcompare = explained(usual)
    try:
        return (yield)
    finally:
        util._reprcompare = usual


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Interrupt a setup that spins."""
    with _limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Interrupt a kit test that spins."""
    with _limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Interrupt a teardown that spins."""
    with _limited(item):
        return (yield)


@contextmanager
def _limited(item: pytest.Item) -> Iterator[None]:
    """Limit one phase of a kit test; other tests are left alone."""
    kit = getattr(item, "cls", None)
    if kit is None or not issubclass(kit, Kit):
        yield
        return
    with _interrupted_after(kit.time_limit_s * SPIN_FACTOR):
        yield


@contextmanager
def _interrupted_after(limit_s: float) -> Iterator[None]:
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise AssertionError(f"neither finished nor waited within {limit_s} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    outer = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)
