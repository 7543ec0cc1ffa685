"""Power cuts under S3 load, and the same with planted bugs, which must be caught."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warp_integration.faults import DROP, LATE, Call, Faults, Rule
from warp_integration.powercut.campaign import campaign
from warp_integration.requirements import require_power_cuts
from warp_integration.s3powercut import S3Workload

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

# No directory that goes without its fsync: ext4, xfs and btrfs make a file's name durable with the file's own fsync, and no answer
# of S3's stands on a name alone. Where one does, in the store, the bug is planted and caught (test_powercut_store.py).
BUGS = {
    "no fsync": Rule(Call.SYNC, DROP, path="/disk-"),
    "acknowledged before the flush": Rule(Call.SYNC, LATE, path="/disk-"),
    # An error that nobody looks at is a write that did not happen and a success. The first 200 fill segments with zeros.
    "ignored EIO": Rule(Call.WRITE, DROP, 200, path="/disk-"),
}


@pytest.fixture
def powercuts() -> None:
    require_power_cuts()


@pytest.mark.usefixtures("powercuts")
class TestPowerCutsUnderS3Load:
    @pytest.mark.parametrize("cuts", [5, pytest.param(500, marks=pytest.mark.slow)])
    def test_nothing_acknowledged_is_lost(self, tmp_path: Path, cuts: int) -> None:
        workload = S3Workload(seconds=1 if cuts < 100 else 20, seed=SEED)
        report = campaign(workload, tmp_path / "run", cuts=cuts, seed=SEED)

        print(report)
        assert report.acknowledged >= 100
        assert not report.harmful, report
        assert not report.refused, report
        assert workload.load
        assert not workload.load.findings

    @pytest.mark.parametrize("cuts", [4, pytest.param(200, marks=pytest.mark.slow)])
    def test_nothing_is_lost_with_one_of_three_disks(self, tmp_path: Path, cuts: int) -> None:
        workload = S3Workload(seconds=1, seed=SEED, stores=3, redundancy="replica:2", lose=True)
        report = campaign(workload, tmp_path / "run", cuts=cuts, seed=SEED)

        print(report)
        assert not report.harmful, report
        assert not report.refused, report

    @pytest.mark.parametrize("bug", BUGS)
    def test_a_planted_bug_is_caught(self, tmp_path: Path, bug: str) -> None:
        with Faults(tmp_path / "faults", [BUGS[bug]]) as faults:
            workload = S3Workload(
                seconds=1.5, seed=SEED, acknowledged=400, environment=faults.environment
            )
            report = campaign(workload, tmp_path / "run", cuts=6, seed=SEED)

            assert faults.count() > 0, "the bug was never met"
        print(report)
        assert report.harmful, report
