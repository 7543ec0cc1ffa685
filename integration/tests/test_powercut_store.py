"""The disk store under power cuts, and under the same with its syncs taken away."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from warp_integration.faults import DROP, KILL, Call, Faults, Rule
from warp_integration.powercut.campaign import campaign
from warp_integration.requirements import require_power_cuts

pytest.importorskip("warp_disk")
from warp_integration import storework
from warp_integration.powercut import Finding, Ledger, Position
from warp_integration.storework import StoreWorkload

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))

pytestmark = pytest.mark.workspace


@pytest.fixture
def powercuts() -> None:
    require_power_cuts()


@pytest.mark.usefixtures("powercuts")
class TestDiskStore:
    def test_nothing_acknowledged_is_lost(self, tmp_path: Path) -> None:
        report = campaign(StoreWorkload(steps=200, seed=SEED), tmp_path / "run", cuts=30, seed=SEED)

        assert report.acknowledged > 100
        assert not report.harmful, report
        assert not report.refused, report

    @pytest.mark.parametrize("call", [Call.SYNC, Call.SYNC_DIRECTORY])
    def test_a_forgotten_sync_is_caught(self, tmp_path: Path, call: Call) -> None:
        workload = StoreWorkload(steps=200, seed=SEED)
        with Faults(tmp_path / "faults", [Rule(call, DROP, path="/store")]) as faults:
            workload.environment = {**os.environ, **faults.environment}
            report = campaign(workload, tmp_path / "run", cuts=60, seed=SEED)

            assert faults.count() > 50
        assert len(report.harmful) >= 3, report

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(SEED, SEED + 10))
    def test_nothing_is_lost_over_many_cuts(self, tmp_path: Path, seed: int) -> None:
        report = campaign(StoreWorkload(steps=2000, seed=seed), tmp_path / "run", cuts=300, seed=1)

        assert not report.harmful, report
        assert not report.refused, report


def kill_at_calls(tmp_path: Path, *, rounds: int) -> list[Finding]:
    """Kill the load at a chosen file call, judge, go on with the same store; return everything found."""
    rng = random.Random(SEED)
    findings: list[Finding] = []
    known: dict[str, str] = {}
    store, position = tmp_path / "store", tmp_path / "position"
    Position(position, create=True).close()
    for number in range(rounds):
        at = rng.randint(1, 30)
        rule = Rule(rng.choice(list(Call)), KILL, at, at, "/store")
        ledger = tmp_path / f"ledger-{number}"
        with Faults(tmp_path / "faults", [rule]) as faults:
            arguments = map(str, (store, ledger, position, 200, SEED + number))
            ended = subprocess.run(
                [sys.executable, "-m", storework.__name__, *arguments],
                env={**os.environ, **faults.environment},
                capture_output=True,
                text=True,
            )
        assert ended.returncode in (0, -9), ended.stderr
        seen = asyncio.run(storework.read_store(store))
        promised = Ledger.load(ledger)
        for key in known.keys() - set(promised.used_keys()):  # killed before it had looked
            promised.observe(key, known[key])
        found = promised.judge(seen)
        known = seen
        findings += found
        if found:
            print(f"round {number}: {rule}", *found, sep="\n  ")
    return findings


def test_a_kill_at_any_file_call_loses_nothing(tmp_path: Path) -> None:
    assert not kill_at_calls(tmp_path, rounds=8)


@pytest.mark.slow
def test_many_kills_at_any_file_call_lose_nothing(tmp_path: Path) -> None:
    assert not kill_at_calls(tmp_path, rounds=120)
