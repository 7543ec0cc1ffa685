"""The embedded metadata engine under power cuts, also when a disk with one of its copies is lost at the same moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warp_integration.faults import DROP, Call, Faults, Rule
from warp_integration.powercut.campaign import campaign
from warp_integration.requirements import require_power_cuts

pytest.importorskip("warp_local")
from warp_integration.metawork import MetaWorkload

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))

pytestmark = pytest.mark.workspace


@pytest.fixture
def powercuts() -> None:
    require_power_cuts()


@pytest.mark.usefixtures("powercuts")
class TestLocalEngine:
    @pytest.mark.parametrize("lose", [False, True], ids=["all disks left", "one disk lost"])
    def test_nothing_acknowledged_is_lost(self, tmp_path: Path, lose: bool) -> None:
        workload = MetaWorkload(steps=40, seed=SEED, lose=lose)
        report = campaign(workload, tmp_path / "run", cuts=12, seed=SEED)

        assert report.acknowledged == 320
        assert not report.harmful, report
        assert not report.refused, report

    def test_a_forgotten_sync_is_caught(self, tmp_path: Path) -> None:
        workload = MetaWorkload(steps=40, seed=SEED)
        with Faults(tmp_path / "faults", [Rule(Call.SYNC, DROP, path="/store")]) as faults:
            workload.environment = {**os.environ, **faults.environment}
            report = campaign(workload, tmp_path / "run", cuts=15, seed=SEED)

        assert len(report.harmful) >= 3, report

    @pytest.mark.slow
    @pytest.mark.parametrize("lose", [False, True], ids=["all disks left", "one disk lost"])
    def test_nothing_is_lost_over_many_cuts(self, tmp_path: Path, lose: bool) -> None:
        workload = MetaWorkload(steps=400, seed=SEED, lose=lose)
        report = campaign(workload, tmp_path / "run", cuts=500, seed=SEED)

        assert not report.harmful, report
        assert not report.refused, report
