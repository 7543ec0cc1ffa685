"""The member that WARP runs itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from warp_core.errors import Ambiguous, PluginError, Unavailable
from warp_core.interfaces.consistency import Commit, Write
from warp_etcd.config import Config
from warp_etcd.engine import Etcd
from warp_etcd.member import Member

NEEDED = pytest.mark.skipif(
    shutil.which("etcd") is None,
    reason="the program etcd is missing: install the package etcd-server",
)


async def commit(store: Etcd, key: bytes) -> int:
    """Commit as soon as etcd answers."""
    for _ in range(100):
        try:
            return await store.commit(Commit(writes=[Write(key, b"v")], request_id=key.ljust(16)))
        except (Unavailable, Ambiguous):
            await asyncio.sleep(0.1)
    raise AssertionError("it does not come back")


def running(folder: Path) -> list[int]:
    """Return the members that run in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (
                    os.readlink(entry / "cwd") == str(folder)
                    and b"etcd" in (entry / "cmdline").read_bytes().split(b"\0", 1)[0]
                ):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@NEEDED
async def test_a_member_of_its_own_keeps_rows_and_ends_with_the_engine(tmp_path: Path) -> None:
    async with Etcd(Config(), tmp_path) as store:
        version = await store.commit(Commit(writes=[Write(b"k", b"v")]))
        assert len(running(tmp_path / "etcd")) == 1
        assert stat.S_IMODE((tmp_path / "etcd").stat().st_mode) == 0o700
    assert running(tmp_path / "etcd") == []

    async with Etcd(Config(), tmp_path) as again:
        assert await again.view().get(b"k") == (b"v", version)
        assert not again.capabilities.shared


@NEEDED
async def test_a_member_that_is_killed_is_started_again(tmp_path: Path) -> None:
    async with Etcd(Config(), tmp_path) as store:
        await commit(store, b"k1")
        (before,) = running(tmp_path / "etcd")
        os.kill(before, signal.SIGKILL)
        await commit(store, b"k2")
        (after,) = running(tmp_path / "etcd")

        assert after != before
        assert [row.key for row in await store.view().scan(b"k", b"l")] == [b"k1", b"k2"]


@NEEDED
async def test_a_data_folder_with_a_long_path_is_reached_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with Etcd(Config(), folder) as store:
        await commit(store, b"k")

        assert [row.key for row in await store.view().scan(b"k", b"l")] == [b"k"]


@NEEDED
def test_a_member_does_not_outlive_a_node_that_is_killed(tmp_path: Path) -> None:
    node = (
        "import asyncio,sys,pathlib\n"
        "from warp_etcd.engine import Etcd\n"
        "from warp_etcd.config import Config\n"
        "async def main():\n"
        "    async with Etcd(Config(), pathlib.Path(sys.argv[1])):\n"
        "        print('up', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", node, tmp_path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert running(tmp_path / "etcd")
        process.kill()
    deadline = time.monotonic() + 10
    while running(tmp_path / "etcd") and time.monotonic() < deadline:
        time.sleep(0.05)

    assert running(tmp_path / "etcd") == []


async def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="apt install etcd-server"):
        async with Etcd(Config(program="no-such-etcd"), tmp_path):
            pass


async def test_a_member_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"etcd does not start: .*etcd\.log"):
        async with Member(Config(program=sys.executable), tmp_path / "etcd"):
            pass
