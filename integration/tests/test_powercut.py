"""The rig against programs whose verdict is known: the faulty must be caught, the correct never blamed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warp_integration.namespace import MountNamespace, MountRefused
from warp_integration.powercut import BTRFS, EXT4, XFS, Cut, FileSystem, Recording, Trace, after_cut
from warp_integration.powercut.campaign import Report, campaign
from warp_integration.powercut.toys import TOYS, ToyWorkload
from warp_integration.requirements import require_power_cuts

CORRECT = [(name, "") for name in TOYS]
FAULTY = [(name, fault) for name, toy in TOYS.items() for fault in toy.faults]
FILESYSTEMS = [EXT4, XFS, BTRFS]
SEED = int(os.environ.get("WARP_TEST_SEED", "1"))


@pytest.fixture
def powercuts() -> None:
    require_power_cuts()


def cut_power(
    tmp_path: Path,
    name: str,
    fault: str,
    *,
    cuts: int,
    items: int = 60,
    filesystem: FileSystem = EXT4,
    torn: float = 0.0,
) -> Report:
    workload = ToyWorkload(name, fault, items=items, seed=SEED)
    return campaign(
        workload, tmp_path / "run", cuts=cuts, seed=SEED, filesystem=filesystem, torn=torn
    )


@pytest.mark.usefixtures("powercuts")
class TestVerdicts:
    @pytest.mark.parametrize(("name", "fault"), CORRECT)
    @pytest.mark.parametrize("torn", [0.0, 0.5])
    def test_a_correct_program_is_never_blamed(
        self, tmp_path: Path, name: str, fault: str, torn: float
    ) -> None:
        report = cut_power(tmp_path, name, fault, cuts=60, torn=torn)

        assert report.acknowledged == 60
        assert not report.harmful, report
        assert not report.refused, report

    @pytest.mark.parametrize(("name", "fault"), FAULTY)
    def test_a_faulty_program_is_caught(self, tmp_path: Path, name: str, fault: str) -> None:
        report = cut_power(tmp_path, name, fault, cuts=60)

        assert len(report.harmful) >= 3, report
        assert report.kinds() == ({"mixed"} if fault == "in-place" else {"lost"})

    @pytest.mark.slow
    @pytest.mark.parametrize("filesystem", FILESYSTEMS, ids=lambda f: f.name)
    @pytest.mark.parametrize(("name", "fault"), CORRECT + FAULTY)
    def test_verdicts_hold_over_many_cuts_and_file_systems(
        self, tmp_path: Path, name: str, fault: str, filesystem: FileSystem
    ) -> None:
        require_power_cuts(filesystem.name)
        report = cut_power(tmp_path, name, fault, cuts=200, items=400, filesystem=filesystem)

        assert bool(report.harmful) == bool(fault), report
        assert not report.refused, report


@pytest.mark.usefixtures("powercuts")
class TestRecording:
    def test_a_cut_that_keeps_everything_gives_the_disk_as_it_was(self, tmp_path: Path) -> None:
        with Recording(tmp_path / "run") as recording:
            (recording.path() / "file").write_bytes(os.urandom(3_000_000))
            recording.namespace.run("sync", "-f", recording.mounts[0])
            recording.stop()
        end = sum(1 for _ in Trace(tmp_path / "run/trace"))
        for _, (image,) in recording.replay().images([Cut(end, 1, 1.0)]):
            same = image.read_bytes() == (tmp_path / "run/live-0").read_bytes()

        assert same
        assert not image.exists()

    def test_two_disks_fail_at_one_moment(self, tmp_path: Path) -> None:
        with Recording(tmp_path / "run", disks=2) as recording:
            at = {}
            for disk in (0, 1):
                (recording.path(disk) / "file").write_bytes(b"x")
                recording.namespace.run("sync", "-f", recording.mounts[disk])
                at[disk] = recording.position.read()
            recording.stop()
        cut = Cut(at[0], 1, 0.0)
        for _, images in recording.replay().images([cut]):
            with after_cut(images, tmp_path / "after") as remains:
                first, second = ((remains.path(disk) / "file").exists() for disk in (0, 1))

        assert (first, second) == (True, False)

    def test_a_broken_image_is_refused_with_its_reason(self, tmp_path: Path) -> None:
        image = tmp_path / "image"
        image.write_bytes(bytes(1 << 20))

        with pytest.raises(MountRefused, match="bad superblock"), after_cut([image], tmp_path):
            pass


def loop_devices() -> set[str]:
    listing = subprocess.run(["losetup", "-ln", "-O", "BACK-FILE"], capture_output=True, text=True)
    return set(listing.stdout.split())


@pytest.mark.usefixtures("powercuts")
class TestCleanup:
    def test_a_failing_test_leaves_no_mount_and_no_loop_device(self, tmp_path: Path) -> None:
        def fail() -> None:
            with Recording(tmp_path / "run") as recording:
                recording.namespace.popen(["sleep", "1000"])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

        assert not left_over(tmp_path)

    def test_a_killed_test_leaves_no_mount_and_no_loop_device(self, tmp_path: Path) -> None:
        program = (
            "import os, sys, pathlib\n"
            "from warp_integration.powercut import Recording\n"
            "with Recording(pathlib.Path(sys.argv[1])) as recording:\n"
            "    recording.namespace.popen(['sleep', '1000'])\n"
            "    print(recording.path(), flush=True)\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "run"], capture_output=True, text=True
        )

        assert ended.returncode == -9
        assert ended.stdout
        assert not left_over(tmp_path)

    def test_closing_a_namespace_ends_what_runs_inside(self, tmp_path: Path) -> None:
        with MountNamespace() as namespace:
            child = namespace.popen(["sleep", "1000"])

        assert child.returncode == -9


def left_over(directory: Path) -> list[str]:
    """Wait a moment for the kernel to let go, then say what it still holds."""
    deadline = time.monotonic() + 5
    while True:
        held = [path for path in loop_devices() if path.startswith(str(directory))]
        held += [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(directory) in line
        ]
        if not held or time.monotonic() > deadline:
            return held
        time.sleep(0.05)
