"""Scenarios find nothing wrong with dozens of seeds, find every bug that is planted, and run the same way again."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
from types import CoroutineType

import pytest
from warp_conformance.simulation import Report, load, names, simulate
from warp_conformance.simulation.planted import PLANTED

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
SEEDS = 3  # of each scenario: with those of the planted bugs, dozens
SEEDS_SLOW = 1000
PLANTED_SEEDS = 40  # within which a planted bug has to be found


def told(report: Report) -> str:
    lines = [f"{report.scenario} --seed {report.seed}", *report.problems, *report.tail]
    return "\n".join(lines)[:20_000]


@pytest.mark.parametrize("name", list(names()))
def test_nothing_acknowledged_is_lost(name: str) -> None:
    scenario = load(name)
    for seed in range(SEED, SEED + SEEDS):
        report = simulate(name, scenario, seed)

        assert report.passed, told(report)
        assert report.counts["answered"] > 50, told(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(names()))
def test_nothing_acknowledged_is_lost_with_many_seeds(name: str) -> None:
    scenario = load(name)
    for seed in range(SEED, SEED + SEEDS_SLOW):
        report = simulate(name, scenario, seed)
        assert report.passed, told(report)


@pytest.mark.parametrize("bug", list(PLANTED))
def test_a_planted_bug_is_found(bug: str) -> None:
    planted = PLANTED[bug]
    scenario = load(planted.scenario)
    found = any(
        not simulate(planted.scenario, scenario, seed, plant=planted.plant).passed
        for seed in range(planted.first, planted.first + PLANTED_SEEDS)
    )

    assert found, f"{planted.what}: {PLANTED_SEEDS} seeds of {planted.scenario} do not show it"


def test_the_same_seed_is_the_same_run() -> None:
    scenario = load("one-node")
    first, again, other = (simulate("one-node", scenario, seed).digest for seed in (7, 7, 8))

    assert first == again
    assert first != other


def test_a_run_leaves_nothing_that_was_begun_and_never_awaited() -> None:
    simulate("one-node", load("one-node"), SEED)
    gc.collect()

    left = [each for each in gc.get_objects() if isinstance(each, CoroutineType)]
    assert not [each for each in left if inspect.getcoroutinestate(each) == inspect.CORO_CREATED]


def test_a_run_is_the_same_in_another_process_and_after_other_runs() -> None:
    code = """
import sys
from warp_conformance.simulation import load, simulate
for seed in map(int, sys.argv[1:]):
    told = simulate("peer", load("peer"), seed).digest
print(told)
"""
    digests = set()
    for hash_seed, *seeds in (("1", "3"), ("2", "4", "3")):
        done = subprocess.run(
            [sys.executable, "-c", code, *seeds],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)

    assert len(digests) == 1
