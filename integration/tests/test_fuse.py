"""Volumes mounted by `warp serve`, used through Linux's own client of FUSE."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from warp_integration.mounts import Mounted, mounted
from warp_integration.namespace import MountRefused
from warp_integration.posix import cases, compare, differences
from warp_integration.posix.calls import User
from warp_integration.posix.fsx import exercise
from warp_integration.requirements import require

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))
ROUNDS = int(os.environ.get("WARP_TEST_ROUNDS", "100"))


@pytest.fixture(scope="module")
def volume(warp_serve: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with mounted(tmp_path_factory.mktemp("fuse")) as running:
        yield running
        assert running.server.running, running.server.log_tail()


def test_calls_end_as_they_do_in_the_kernels_own_file_systems(
    volume: Mounted, tmp_path: Path
) -> None:
    for seed in (SEED, SEED + 1):
        assert not differences(tmp_path, (volume.one, volume.two), seed=seed, calls=80)


@pytest.mark.slow
def test_thousands_of_calls_end_as_they_do_in_the_kernels_own_file_systems(
    volume: Mounted, tmp_path: Path
) -> None:
    for seed in range(SEED + 100, SEED + 100 + ROUNDS):
        found = differences(tmp_path, (volume.one, volume.two), seed=seed, calls=250)
        assert not found, "\n".join(found)


@pytest.fixture(scope="module")
def reference(volume: Mounted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 of our own: what a temporary directory lies on may be anything."""
    require("mkfs.ext4")
    folder = tmp_path_factory.mktemp("reference")
    image = folder / "image"
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    volume.run("mkfs.ext4", "-q", "-N", "200000", str(image))
    try:
        return volume.mount_image(image, folder)
    except MountRefused as error:
        pytest.skip(f"missing: loop devices ({error})")


def _places(volume: Mounted, reference: Path, name: str) -> list[Path]:
    places = [each / name for each in (reference, volume.one, volume.two)]
    places[0].mkdir()
    places[1].mkdir()
    return places


SAME_ONE_IN = int(os.environ.get("WARP_TEST_ONE_IN", "100"))


def test_each_call_answers_and_does_what_it_does_in_ext4(volume: Mounted, reference: Path) -> None:
    first, *mounts = _places(volume, reference, "some")
    assert compare(first, mounts, cases(every=SAME_ONE_IN)) == []


@pytest.mark.slow
def test_every_call_answers_and_does_what_it_does_in_ext4(volume: Mounted, reference: Path) -> None:
    """About 10,000 cases: each call with each thing that can be wrong, for each kind of file and user."""
    first, one, two = _places(volume, reference, "all")
    assert compare(first, [one], cases()) == []
    first, one, two = _places(volume, reference, "all-two")
    assert compare(first, [one, two], cases(every=3)) == []


def test_a_file_holds_what_was_written_by_any_call(volume: Mounted) -> None:
    exercise([volume.one / "fsx"], seed=SEED, operations=300)
    exercise([volume.one / "fsx-two", volume.two / "fsx-two"], seed=SEED, operations=300)


def test_what_several_append_through_two_mounts_is_there_once_and_whole(volume: Mounted) -> None:
    """Each reads it now and then, so each mount has pages that the other's writes make wrong."""
    (volume.one / "log").write_bytes(b"")

    def work(place: Path, writer: int) -> None:
        file = os.open(place / "log", os.O_WRONLY | os.O_APPEND)
        for number in range(60):
            os.write(file, b"%d:%03d\n" % (writer, number))
            if number % 7 == 0:
                (place / "log").read_bytes()
        os.close(file)

    places = (volume.one, volume.two, volume.one)
    with ThreadPoolExecutor(len(places)) as pool:
        for done in [pool.submit(work, place, n) for n, place in enumerate(places)]:
            done.result(120)

    lines = (volume.two / "log").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert sorted(lines) == sorted(b"%d:%03d" % (w, n) for w in range(3) for n in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("maps", [True, False])
def test_a_file_holds_what_100_000_calls_wrote(volume: Mounted, maps: bool) -> None:
    name = f"fsx-{maps}"
    exercise([volume.one / name], seed=SEED, operations=100_000, maps=maps)
    exercise([volume.one / name, volume.two / name], seed=SEED + 1, operations=100_000, maps=maps)


def test_a_change_over_any_protocol_is_seen_at_once(volume: Mounted) -> None:
    s3, one, two = volume.s3(), volume.one / "seen", volume.two / "seen"
    one.mkdir()
    for turn in range(5):
        data = os.urandom(5_000 + turn)
        s3.put_object(Bucket="data", Key="seen/x", Body=data)
        assert (one / "x").read_bytes() == data
        assert (two / "x").stat().st_size == len(data)
        (two / "x").write_bytes(data[:100])
        assert (one / "x").read_bytes() == data[:100]
        assert s3.get_object(Bucket="data", Key="seen/x")["Body"].read() == data[:100]
        os.rename(one / "x", one / "y")
        assert not (two / "x").exists()
        assert (two / "y").stat().st_size == 100
        s3.delete_object(Bucket="data", Key="seen/y")
        assert not (one / "y").exists()
        assert os.listdir(two) == []


def test_what_is_read_again_and_again_is_never_old(volume: Mounted) -> None:
    """One mount keeps a file open and reads it, the other writes numbers that only grow."""
    path, ended, read = "counter", threading.Event(), []
    (volume.one / path).write_bytes(bytes(8))

    def write() -> None:
        with open(volume.one / path, "r+b", buffering=0) as file:
            for number in range(1, 201):
                file.seek(0)
                file.write(number.to_bytes(8, "big"))
                written.append(number)
        ended.set()

    written = [0]
    writer = threading.Thread(target=write)
    with open(volume.two / path, "rb", buffering=0) as file:
        writer.start()
        while not ended.is_set():
            least = written[-1]
            file.seek(0)
            seen = int.from_bytes(file.read(8), "big")
            assert seen >= least
            read.append(seen)
        writer.join()
        file.seek(0)
        assert int.from_bytes(file.read(8), "big") == 200
    assert read == sorted(read)


def test_locks_hold_between_mounts_and_give_way_in_turn(volume: Mounted) -> None:
    with open(volume.one / "lock", "w+b") as first, open(volume.two / "lock", "w+b") as second:
        fcntl.lockf(first, fcntl.LOCK_EX, 100, 0)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(second, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
        fcntl.lockf(second, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
        fcntl.flock(
            second, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # the other kind, which is in nobody's way
        waiting = threading.Thread(target=fcntl.lockf, args=(second, fcntl.LOCK_EX, 10, 50))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        fcntl.lockf(first, fcntl.LOCK_UN, 100, 0)
        waiting.join(30)
        assert not waiting.is_alive()
        with pytest.raises(BlockingIOError):
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_circle_of_waiting_is_refused_to_one_of_it(volume: Mounted) -> None:
    """Two processes lock one byte each and wait for the other's, through two mounts."""
    (volume.one / "circle").write_bytes(b"xx")
    with contextlib.ExitStack() as stack:
        users = [User(place, 0, 0, []) for place in (volume.one, volume.two)]
        for number, user in enumerate(users):
            stack.callback(user.end)
            assert user.call(["hold", "h", "circle", os.O_RDWR]) == "done"
            assert user.call(["lock", "h", fcntl.F_WRLCK, number, 1]) == "done"

        def wait(number: int) -> str:
            told: str = users[number].call(["wait_for_lock", "h", fcntl.F_WRLCK, 1 - number, 1])
            if told != "done":
                assert users[number].call(["lock", "h", fcntl.F_UNLCK, 0, 0]) == "done"
            return told

        threads = stack.enter_context(ThreadPoolExecutor(2))
        refused = errno.errorcode[errno.EDEADLK]
        assert sorted(threads.map(wait, (0, 1))) == [refused, "done"]


def test_a_listing_has_every_name_that_stayed_once(volume: Mounted) -> None:
    """Names come and go, through the other mount, while one process reads on from where it was."""
    one, two = volume.one / "listed", volume.two / "listed"
    one.mkdir()
    stay = {f"stays-{number:04}" for number in range(600)}
    for name in stay:
        (one / name).touch()
    seen: list[str] = []
    with os.scandir(one) as listing:
        for number, entry in enumerate(listing):
            seen.append(entry.name)
            if number % 10 == 0:
                (two / f"comes-{number:04}").touch()
            if number % 10 == 5:
                (two / f"comes-{number - 5:04}").unlink()
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)


DATABASE = """
import contextlib, os, sqlite3, sys
with contextlib.closing(sqlite3.connect(os.path.join(sys.argv[1], "a.db"))) as database:
    for mode in ("delete", "wal"):
        database.execute(f"pragma journal_mode={mode}")
        database.execute("create table if not exists rows (number, text)")
        for number in range(10):
            database.execute("insert into rows values (?, ?)", (number, "x" * 2000))
            database.commit()
    print(database.execute("select count(*) from rows").fetchone()[0])
    print(database.execute("pragma integrity_check").fetchone()[0])
"""


def test_databases_live_here(volume: Mounted) -> None:
    assert volume.run(sys.executable, "-c", DATABASE, "{one}").split() == ["20", "ok"]


def test_a_mapped_file_is_written_back(volume: Mounted) -> None:
    with open(volume.one / "mapped", "w+b") as file:
        file.truncate(1 << 20)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[500_000:500_005] = b"hello"
    data = (volume.two / "mapped").read_bytes()
    assert (len(data), data[500_000:500_005]) == (1 << 20, b"hello")


def test_holes_are_found_and_made(volume: Mounted) -> None:
    with open(volume.one / "holes", "w+b") as file:
        os.pwrite(file.fileno(), b"x" * 65536, 4 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) <= 4 << 20
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 0
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.lseek(file.fileno(), 8 << 20, os.SEEK_DATA)
        assert os.fstat(file.fileno()).st_blocks * 512 < 1 << 20


def test_what_fsync_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    with mounted(tmp_path) as volume:
        file = os.open(volume.one / "kept", os.O_CREAT | os.O_WRONLY)
        os.write(file, b"durable" * 1000)
        os.fsync(file)
        volume.server.kill()
        for use in (lambda: os.stat(volume.one / "kept"), lambda: os.close(file)):
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                use()  # the mount is dead, and nobody hangs
        volume.server.start()
        assert (volume.two / "kept").read_bytes() == b"durable" * 1000
        assert volume.mounts() == 2  # the dead ones are gone
        assert volume.server.terminate() == 0
        assert volume.mounts() == 0


def test_a_mount_in_use_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with mounted(tmp_path) as volume:
        file = os.open(volume.one / "open", os.O_CREAT | os.O_WRONLY)
        assert volume.server.terminate() == 0
        for use in (lambda: os.write(file, b"x"), lambda: os.close(file)):
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                use()
