"""Power cuts under S3 load, and the same with planted bugs, which must be caught."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warp_integration.faults import DROP, LATE, Call, Faults, Rule
from warp_integration.powercut import BTRFS, EXT4
from warp_integration.powercut.campaign import campaign
from warp_integration.requirements import require_power_cuts
from warp_integration.s3powercut import S3Workload

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

# Which file system shows a bug is part of the finding: on ext4 the sync of any file makes all earlier names durable, so that
# a folder which is never synced is missed only by what stands on its name alone (test_powercut_store.py); btrfs waits.
BUGS = {
    "no fsync": (EXT4, Rule(Call.SYNC, DROP, path="/disk-")),
    "no directory fsync": (BTRFS, Rule(Call.SYNC_DIRECTORY, DROP, path="/disk-")),
    "acknowledged before the flush": (EXT4, Rule(Call.SYNC, LATE, path="/disk-")),
    # An error that nobody looks at is a write that did not happen and a success. The first 200 fill segments with zeros.
    "ignored EIO": (EXT4, Rule(Call.WRITE, DROP, 200, path="/disk-")),
}


@pytest.fixture
def powercuts() -> None:
    require_power_cuts()


@pytest.mark.usefixtures("powercuts")
class TestPowerCutsUnderS3Load:
    @pytest.mark.parametrize("cuts", [8, pytest.param(500, marks=pytest.mark.slow)])
    def test_nothing_acknowledged_is_lost(self, tmp_path: Path, cuts: int) -> None:
        workload = S3Workload(seconds=2 if cuts < 100 else 20, seed=SEED)
        report = campaign(workload, tmp_path / "run", cuts=cuts, seed=SEED)

        print(report)
        assert report.acknowledged > 100
        assert not report.harmful, report
        assert not report.refused, report
        assert workload.load
        assert not workload.load.findings

    @pytest.mark.parametrize("cuts", [4, pytest.param(200, marks=pytest.mark.slow)])
    def test_nothing_is_lost_with_one_of_three_disks(self, tmp_path: Path, cuts: int) -> None:
        workload = S3Workload(seconds=2, seed=SEED, stores=3, redundancy="replica:2", lose=True)
        report = campaign(workload, tmp_path / "run", cuts=cuts, seed=SEED)

        print(report)
        assert not report.harmful, report
        assert not report.refused, report

    @pytest.mark.parametrize("bug", BUGS)
    def test_a_planted_bug_is_caught(self, tmp_path: Path, bug: str) -> None:
        filesystem, rule = BUGS[bug]
        require_power_cuts(filesystem.name)
        with Faults(tmp_path / "faults", [rule]) as faults:
            workload = S3Workload(seconds=2, seed=SEED, environment=faults.environment)
            report = campaign(workload, tmp_path / "run", cuts=8, seed=SEED, filesystem=filesystem)

            assert faults.count() > 0, "the bug was never met"
        print(report)
        assert report.harmful, report
