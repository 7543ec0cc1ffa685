"""A file system that is really full."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from warp_integration.namespace import MountNamespace
from warp_integration.powercut import ABSENT, EXT4, Ledger
from warp_integration.requirements import require, require_root
from warp_integration.s3client import S3Connection
from warp_integration.s3load import body_of, read_object
from warp_integration.server import WarpServer, config_text

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
DISK = 384 * MIB
RECLAIM_S = 60.0  # within which deleting makes room for writing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[WarpServer]:
    require_root()
    require("unshare", "nsenter", "mount", "mkfs.ext4")
    image, at, config = tmp_path / "image", tmp_path / "disk", tmp_path / "warp.toml"
    at.mkdir()
    EXT4.format(image, DISK)
    config.write_text(config_text())
    with MountNamespace() as namespace:
        namespace.mount_image(image, at)
        server = WarpServer(
            at / "data", config=config, prefix=namespace.prefix, logs=tmp_path / "logs"
        )
        with server:
            yield server


class Filler:
    """Puts objects until there is no room, and remembers what was promised."""

    def __init__(self, s3: S3Connection) -> None:
        self.s3 = s3
        self.ledger = Ledger()
        self.refusals: list[tuple[int, str]] = []

    async def put(self, key: str, size: int) -> bool:
        operation = self.ledger.begin(f"full/{key}", f"full/{key}")
        headers = {"x-amz-meta-content": f"full/{key}"}
        body = body_of(f"full/{key}", size)
        answer = await self.s3.request("PUT", f"/full/{key}", headers=headers, body=body)
        if answer.status == 200:
            self.ledger.acknowledge(operation)
            return True
        self.ledger.refuse(operation)  # 507 says that nothing was stored
        self.refusals.append((answer.status, answer.code))
        return False

    async def fill(self, prefix: str, size: int) -> int:
        number = 0
        while await self.put(f"{prefix}{number:05}", size):
            number += 1
        return number

    async def delete(self, key: str) -> int:
        operation = self.ledger.begin(f"full/{key}", ABSENT)
        answer = await self.s3.request("DELETE", f"/full/{key}")
        if answer.status == 204:
            self.ledger.acknowledge(operation)
        return answer.status

    async def findings(self) -> list[str]:
        seen = {key: await read_object(self.s3, f"/{key}") for key in self.ledger.used_keys()}
        return [str(finding) for finding in self.ledger.judge(seen)]


async def test_a_full_disk_refuses_writes_and_serves_reads_and_deletes(
    small_disk: WarpServer,
) -> None:
    server = small_disk
    async with S3Connection(server.s3) as s3:
        filler = Filler(s3)
        await s3.request("PUT", "/full")
        large = await filler.fill("large", 8 * MIB)
        for size in (MIB, 64 * 1024):
            await filler.fill(f"small{size}-", size)

        assert large * 8 * MIB > DISK // 4, "much of the disk could not be used"
        assert set(filler.refusals) == {(507, "InsufficientStorage")}
        assert server.running
        assert await filler.findings() == []

    server.kill()
    server.start()
    async with S3Connection(server.s3) as s3:
        filler.s3 = s3
        assert await filler.findings() == [], "after a restart on the full disk"
        for number in range(large):
            assert await filler.delete(f"large{number:05}") == 204
        await _room_again(filler, large)

        assert await filler.findings() == []


def test_a_node_starts_and_deletes_on_a_disk_that_others_filled(
    small_disk: WarpServer, tmp_path: Path
) -> None:
    filler = asyncio.run(_store(small_disk, 20))
    assert small_disk.terminate() == 0
    others = tmp_path / "disk" / "others"
    words = [*small_disk.prefix, "dd", "if=/dev/zero", f"of={others}", "bs=64k"]
    dd = subprocess.run(words, check=False, capture_output=True, text=True)
    assert "No space left on device" in dd.stderr, dd.stderr

    small_disk.start()
    asyncio.run(_delete_and_store(small_disk, filler, 20))


async def _store(server: WarpServer, count: int) -> Filler:
    async with S3Connection(server.s3) as s3:
        filler = Filler(s3)
        await s3.request("PUT", "/full")
        for number in range(count):
            assert await filler.put(f"large{number:05}", 8 * MIB)
        return filler


async def _delete_and_store(server: WarpServer, filler: Filler, count: int) -> None:
    async with S3Connection(server.s3) as filler.s3:
        assert await filler.findings() == []
        assert not await filler.put("other", 8 * MIB)
        assert filler.refusals == [(507, "InsufficientStorage")]
        for number in range(count):
            assert await filler.delete(f"large{number:05}") == 204
        await _room_again(filler, count // 2)  # a container of 64 MiB fits, not two

        assert await filler.findings() == []


async def _room_again(filler: Filler, large: int) -> None:
    """Wait until half of what was deleted can be stored again."""
    deadline = time.monotonic() + RECLAIM_S
    stored = 0
    while stored < large // 2:
        assert time.monotonic() < deadline, f"room for {stored} of {large} after {RECLAIM_S} s"
        if await filler.put(f"again{stored:05}", 8 * MIB):
            stored += 1
        else:
            await asyncio.sleep(0.5)
