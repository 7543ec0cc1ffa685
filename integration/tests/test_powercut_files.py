"""Power cuts and kills under file operations over a mount: what a sync acknowledged is there, and the rest in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warp_integration.faults import DROP, LATE, Call, Faults, Rule
from warp_integration.filecrashes import MountWorkload, kill_under_files
from warp_integration.powercut.campaign import campaign
from warp_integration.requirements import require_power_cuts

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
CUTS = int(os.environ.get("WARP_TEST_ROUNDS", "200"))

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

BUGS = {
    "no fsync": Rule(Call.SYNC, DROP, path="/disk-"),
    "acknowledged before the flush": Rule(Call.SYNC, LATE, path="/disk-"),
}


@pytest.fixture(autouse=True)
def powercuts(warp_serve: None) -> None:
    require_power_cuts()
    if not Path("/dev/fuse").exists():
        pytest.skip("missing: /dev/fuse (kernel module fuse)")


@pytest.mark.parametrize("cuts", [2, pytest.param(CUTS, marks=pytest.mark.slow)])
def test_after_a_cut_there_is_what_was_after_some_call_and_all_that_was_synced(
    tmp_path: Path, cuts: int
) -> None:
    long, wished = cuts > 10, 2000 if cuts > 10 else 200
    workload = MountWorkload(
        seconds=10 if long else 0.3, seed=SEED, acknowledged=wished, check_one_in=10 if long else 2
    )
    report = campaign(workload, tmp_path / "run", cuts=cuts, seed=SEED)

    print(report)
    assert workload.load
    assert not workload.load.findings
    assert report.acknowledged >= wished
    assert not report.harmful, report
    assert not report.refused, report


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(tmp_path: Path, bug: str) -> None:
    with Faults(tmp_path / "faults", [BUGS[bug]]) as faults:
        workload = MountWorkload(
            seconds=1.5, seed=SEED, environment=faults.environment, check_one_in=1 << 30
        )
        report = campaign(workload, tmp_path / "run", cuts=12, seed=SEED)

        assert faults.count() > 0, "the bug was never met"
    print(report)
    assert report.harmful, report


@pytest.mark.slow
def test_after_a_kill_there_is_what_was_after_some_call_and_all_that_was_synced(
    tmp_path: Path,
) -> None:
    result = kill_under_files(tmp_path, kills=CUTS, seed=SEED, check_one_in=10)

    print(result)
    assert result.kills == CUTS
    assert not result.findings, result
