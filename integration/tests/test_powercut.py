"""The rig against programs whose verdict is known: the faulty must be caught, the correct never blamed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
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
        report = cut_power(tmp_path, name, fault, cuts=30, torn=torn)

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


@pytest.fixture
def leaves_nothing(tmp_path: Path) -> Iterator[None]:
    """Fail unless the kernel holds what it held before; it may take a moment to let go.

    By the devices, not their names: a loop device whose file lost its mount shows another one. What has a name below the folder of
    another test is another run's.
    """
    before = loop_devices()
    yield
    deadline = time.monotonic() + 60
    while left := sorted(ours(loop_devices() - before, tmp_path)) + mounts_below(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def loop_devices() -> set[tuple[str, str]]:
    found = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.add((file.parts[3], file.read_text().strip()))
    return found


def ours(devices: set[tuple[str, str]], folder: Path) -> set[tuple[str, str]]:
    return {
        (name, file)
        for name, file in devices
        if file.startswith(f"{folder}/") or f"/{folder.parents[1].name}/" not in file
    }


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(directory) in line]


@pytest.mark.usefixtures("powercuts", "leaves_nothing")
class TestCleanup:
    def test_a_failing_test_leaves_no_mount_and_no_loop_device(self, tmp_path: Path) -> None:
        def fail() -> None:
            with Recording(tmp_path / "run") as recording:
                recording.namespace.popen(["sleep", "1000"])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

    @pytest.mark.parametrize("turn", range(2))
    def test_a_killed_test_leaves_no_mount_and_no_loop_device(
        self, tmp_path: Path, turn: int
    ) -> None:
        program = (
            "import os, sys, pathlib\n"
            "from warp_integration.powercut import Recording\n"
            "with Recording(pathlib.Path(sys.argv[1])) as recording:\n"
            "    recording.namespace.popen(['sleep', '1000'])\n"
            "    (recording.path() / 'dirty').write_bytes(bytes(1 << 20))\n"
            "    print(recording.path(), flush=True)\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "run"],
            capture_output=True,
            text=True,
            timeout=60,
        )

        assert ended.returncode == -9
        assert ended.stdout

    @pytest.mark.parametrize("after_ms", range(8))
    def test_nothing_inside_outlives_a_process_however_early_it_dies(self, after_ms: int) -> None:
        program = (
            "import os, sys, time\n"
            "from warp_integration.namespace import MountNamespace\n"
            "with MountNamespace() as namespace:\n"
            "    namespace.popen(['sleep', '1000'])\n"
            "    time.sleep(int(sys.argv[1]) / 1000)\n"
            "    os.kill(os.getpid(), 9)\n"
        )

        # Whatever is left inside keeps the pipe open that is read to its end here.
        subprocess.run(
            [sys.executable, "-c", program, str(after_ms)], capture_output=True, timeout=60
        )

    def test_closing_a_namespace_ends_what_runs_inside(self, tmp_path: Path) -> None:
        with MountNamespace() as namespace:
            child = namespace.popen(["sleep", "1000"])

        assert child.returncode == -9
