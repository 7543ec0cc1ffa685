"""What the device does wrong becomes the right error, and nothing acknowledged hangs on it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from warp_core.config.types import Size
from warp_core.errors import InvalidArgument, NoSpace, StoreFailed
from warp_disk import Config, Disk, files


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Disk]:
    async with Disk(Config(path="s", reserve=Size(0)), tmp_path) as opened:
        yield opened


def failing(number: int, after: int = 0) -> Any:
    """Return a system call that fails from its call number `after` on."""
    left = [after]

    def call(*args: object, **kwargs: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))

    return call


async def test_after_a_failed_sync_a_blob_is_never_trusted_again(
    store: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create("g", reserve=8192)
    await store.create("h", reserve=8192)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(StoreFailed, match="Input/output error"):
            await store.write("g", offset=0, buffers=[b"x"], sync=True)
    for call in (
        lambda: store.write("g", offset=0, buffers=[b"y"], sync=True),
        lambda: store.sync("g"),
        lambda: store.seal("g", size=1),
    ):
        with pytest.raises(StoreFailed, match="earlier sync"):
            await call()
    await store.write("h", offset=0, buffers=[b"fine"], sync=True)
    await store.delete("g")
    await store.create("g", reserve=8192)
    await store.write("g", offset=0, buffers=[b"new"], sync=True)

    assert await store.read("g", offset=0, length=3) == b"new"


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EIO, StoreFailed), (errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace)],
)
async def test_a_put_that_fails_leaves_the_old_blob(
    store: Disk, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    await store.put("a", [b"old"])
    for name in ("pwritev", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(number))
            with pytest.raises(error):
                await store.put("a", [b"new"])
        assert await store.read("a", offset=0, length=9) == b"old"
        assert os.listdir(store.path / "incoming") == []


async def test_reading_a_bad_sector_is_an_error_of_the_store(
    store: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("a", [b"x" * 5000])
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    monkeypatch.setattr(os, "preadv", failing(errno.EIO))

    with pytest.raises(StoreFailed):
        await store.read("a", offset=0, length=10)
    with pytest.raises(StoreFailed):
        await store.read_into("a", offset=0, buffer=memoryview(bytearray(10)))
    assert store.read_now("a", offset=0, length=10) is None


async def test_a_create_that_fails_leaves_nothing(
    store: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("posix_fallocate", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(errno.EIO))
            with pytest.raises(StoreFailed):
                await store.create("g", reserve=8192)
        await store.create("g", reserve=8192)
        await store.delete("g")


async def test_short_writes_are_continued(store: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def short(descriptor: int, buffers: Any, offset: int) -> int:
        first = next(memoryview(buffer) for buffer in buffers if len(buffer))
        return real(descriptor, [first[: max(1, len(first) // 2)]], offset)

    await store.create("g", reserve=10_000)
    monkeypatch.setattr(os, "pwritev", short)
    await store.write("g", offset=5, buffers=[b"abc", b"", b"defgh" * 50, b"z"])

    assert await store.read("g", offset=5, length=254) == b"abc" + b"defgh" * 50 + b"z"


async def test_a_device_that_takes_nothing_is_no_endless_loop(
    store: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create("g", reserve=10)
    monkeypatch.setattr(os, "pwritev", lambda *args: 0)

    with pytest.raises(StoreFailed):
        await store.write("g", offset=0, buffers=[b"abc"])


async def test_recycled_files_are_taken_again_and_others_are_not(store: Disk) -> None:
    size = 300_000
    await store.create("r1", reserve=size, recycle=True)
    inode = (store.path / "blobs" / "r1").stat().st_ino
    await store.write("r1", offset=0, buffers=[b"secret" * 1000], sync=True)
    await store.seal("r1", size=size - 10_000)
    await store.delete("r1")
    assert len(os.listdir(store.path / "spare")) == 1  # an inode's number alone could be chance
    await store.create("r2", reserve=size, recycle=True)

    assert (store.path / "blobs" / "r2").stat().st_ino == inode
    assert (await store.stat("r2")).size == size
    await store.write("r2", offset=0, buffers=[b"x"], sync=True)
    await store.delete("r2")
    await store.create("plain", reserve=size)
    assert await store.read("plain", offset=0, length=size) == bytes(size)
    await store.create("small", reserve=1000, recycle=True)
    assert await store.read("small", offset=0, length=1000) == bytes(1000)


async def test_a_punched_file_is_not_taken_again(store: Disk) -> None:
    await store.create("r", reserve=300_000, recycle=True)
    await store.seal("r", size=300_000)
    await store.punch("r", offset=0, length=100_000)
    await store.delete("r")

    assert os.listdir(store.path / "spare") == []


async def test_a_crash_while_a_blob_is_punched_leaves_it_whole(tmp_path: Path) -> None:
    config = Config(path="d", reserve=Size(0))
    async with Disk(config, tmp_path) as store:
        await store.put("a", [b"x" * 10_000])
        path = store.path / "blobs" / "a"
    path.chmod(0o601)
    async with Disk(config, tmp_path) as store:
        with pytest.raises(InvalidArgument, match="whole"):
            await store.write("a", offset=0, buffers=[b"y"])
        await store.punch("a", offset=0, length=4096)

        assert await store.read("a", offset=0, length=10_000) == bytes(4096) + b"x" * 5904


async def test_syncing_folders_is_not_forgotten(
    store: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = files.sync_folder

    def note(folder: Path) -> None:
        synced.append(folder.name)
        real(folder)

    monkeypatch.setattr(files, "sync_folder", note)
    await store.put("f/a", [b"x"])
    assert synced == ["blobs", "+f"]
    await store.create("f/g", reserve=10)
    assert synced == ["blobs", "+f", "+f"]
    await store.delete("f/a")
    assert synced == ["blobs", "+f", "+f", "+f"]


async def test_few_descriptors_serve_many_blobs(tmp_path: Path) -> None:
    async with Disk(Config(path="d", reserve=Size(0), descriptors=8), tmp_path) as store:
        for n in range(40):
            await store.put(f"b{n}", [b"%d" % n])
        for _ in range(2):
            for n in range(40):
                assert await store.read(f"b{n}", offset=0, length=9) == b"%d" % n
        assert len(os.listdir("/proc/self/fd")) < 100
        assert len(store._files) <= 8


# A disk that is really full -----------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_keeps_its_reserve_and_goes_on_reading_and_deleting(
    small_disk: Path,
) -> None:
    async with Disk(Config(path=str(small_disk / "s"), reserve=Size(4 << 20)), small_disk) as store:
        await store.put("first", [b"precious"])
        await store.create("log", reserve=1 << 20)
        count = 0
        while (await store.space()).free >= 1 << 20:
            await store.put(f"b{count}", [bytes(1 << 20)])
            count += 1
        with pytest.raises(NoSpace):
            await store.put("too-much", [bytes(1 << 20)])
        assert 10 < count < 24
        assert (await store.space()).free < 1 << 20
        with pytest.raises(NoSpace):
            await store.create("more", reserve=2 << 20)
        await store.create("vital", reserve=2 << 20, vital=True)
        await store.write("log", offset=0, buffers=[b"commit"], sync=True)
        assert await store.read("first", offset=0, length=99) == b"precious"
        assert len(await store.list()) == count + 3
        (small_disk / "ballast").write_bytes(bytes(1 << 20))  # somebody else takes what is left
        for n in range(count):
            await store.delete(f"b{n}")
        await store.put("again", [bytes(1 << 20)])


async def test_a_disk_that_others_filled_refuses_cleanly(small_disk: Path) -> None:
    async with Disk(Config(path=str(small_disk / "s"), reserve=Size(0)), small_disk) as store:
        await store.put("kept", [b"x" * 1000])
        await store.create("g", reserve=4096)
        space = os.statvfs(small_disk)
        with (small_disk / "ballast").open("wb") as ballast:
            ballast.write(bytes(space.f_bavail * space.f_frsize))
        for call in (
            lambda: store.put("new", [bytes(100_000)]),
            lambda: store.put("kept", [bytes(100_000)]),
            lambda: store.create("h", reserve=100_000),
            lambda: store.create("r", reserve=100_000, recycle=True),
            lambda: store.write("g", offset=4096, buffers=[bytes(100_000)]),
        ):
            with pytest.raises(NoSpace):
                await call()

        assert await store.read("kept", offset=0, length=2000) == b"x" * 1000
        assert [info.name for info in await store.list()] == ["g", "kept"]
        await store.delete("kept")


def fill_up(folder: Path) -> Path:
    space = os.statvfs(folder)
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(space.f_bavail * space.f_frsize))
    return ballast


async def test_vital_blobs_find_space_on_a_disk_that_others_filled(small_disk: Path) -> None:
    config = Config(path=str(small_disk / "s"), reserve=Size(8 << 20))
    async with Disk(config, small_disk) as store:
        await store.put("kept", [b"x" * 1000])
        fill_up(small_disk)
        with pytest.raises(NoSpace):
            await store.create("other", reserve=1 << 20)
        await store.create("log", reserve=2 << 20, vital=True)

    async with Disk(config, small_disk) as store:  # as full as before
        await store.put("fact", [bytes(1 << 20)], vital=True)
        await store.write("log", offset=0, buffers=[bytes(2 << 20)], sync=True)
        with pytest.raises(NoSpace):
            await store.create("beyond", reserve=16 << 20, vital=True)

        assert await store.read("kept", offset=0, length=2000) == b"x" * 1000


async def test_what_was_given_up_is_held_again_when_there_is_room(small_disk: Path) -> None:
    config = Config(path=str(small_disk / "s"), reserve=Size(4 << 20))
    async with Disk(config, small_disk) as store:
        ballast = fill_up(small_disk)
        await store.create("vital", reserve=2 << 20, vital=True)
        less = (await store.space()).free
        ballast.unlink()
        await store.delete("vital")
        fill_up(small_disk)

        assert less == 0
        await store.create("vital", reserve=3 << 20, vital=True)
