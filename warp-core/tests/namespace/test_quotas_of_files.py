"""Quotas over Files and Blocks: growth is refused when it is written, and what snapshots keep counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import files_stage as stage_module
import pytest
from warp_core.errors import QuotaExceeded
from warp_core.interfaces.quotas import Quota
from warp_core.namespace.audit import audit
from warp_core.namespace.extents import WINDOW
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.quotas import set_volume_quota
from warp_core.namespace.snapshots import Snapshots
from warp_core.views.objects import Attributes, Digests

ME = Owner(HERE, b"me")
BOTH = Access.READ | Access.WRITE
V = "v"


class Rig:
    """A stage and what these tests ask of it."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.files = stage.files
        self.objects = NamespaceObjects(stage.namespace)
        self.snapshots = Snapshots(stage.namespace, stage.inodes)

    async def limit(self, **limits: Any) -> None:
        await set_volume_quota(self.stage.namespace.volumes, V, Quota(**limits))

    async def create(self, name: bytes) -> Any:
        made, _ = await self.files.create(
            await self.files.root(V), name, 0o644, owner=ME, access=BOTH, deny=Access.NONE
        )
        return made

    async def held(self) -> int:
        await self.stage.inodes.checkpoint()
        assert await audit(self.stage.namespace, V) == []
        pool = await self.stage.namespace.quotas.pool(volume=V)
        assert pool.reserved_bytes == 0
        return pool.bytes

    async def clean(self) -> None:
        while not await self.stage.inodes.drain(V):
            pass


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with stage_module.Stage() as stage:
        yield Rig(stage)


async def test_a_write_past_the_quota_is_refused_and_the_next_smaller_one_is_not(rig: Rig) -> None:
    await rig.limit(bytes=10_000)
    file = await rig.create(b"a")
    await file.write(0, bytes(8000))
    with pytest.raises(QuotaExceeded):
        await file.write(8000, bytes(2001))
    with pytest.raises(QuotaExceeded):
        await file.append(bytes(2001))
    with pytest.raises(QuotaExceeded):
        await file.truncate(10_001)
    with pytest.raises(QuotaExceeded):
        await file.allocate(0, 10_001)
    assert file.size == 8000
    await file.write(0, bytes(9000))
    await file.append(bytes(1000))
    await file.close()

    assert await rig.held() == 10_000


async def test_what_is_written_and_not_yet_in_rows_counts_for_everybody(rig: Rig) -> None:
    await rig.limit(bytes=10_000)
    file = await rig.create(b"a")
    await file.write(0, bytes(6000))
    with pytest.raises(QuotaExceeded):
        await rig.objects.put(V, b"b", bytes(4001), Attributes(), Digests(etag="e"))
    other = await rig.create(b"c")
    with pytest.raises(QuotaExceeded):
        await other.write(0, bytes(4001))
    await file.truncate(0)
    await file.close()
    await other.write(0, bytes(10_000))
    await other.close()

    assert await rig.held() == 10_000


async def test_growing_again_after_a_fold_is_asked_for_again(rig: Rig) -> None:
    await rig.limit(bytes=10_000)
    file = await rig.create(b"a")
    for _ in range(3):
        await file.write(0, bytes(9000))
        await file.truncate(0)
        await rig.stage.inodes.checkpoint()
    other = await rig.create(b"b")
    await other.write(0, bytes(5000))
    with pytest.raises(QuotaExceeded):
        await file.write(0, bytes(9000))
    await file.write(0, bytes(5000))
    await file.close()
    await other.close()

    assert await rig.held() == 10_000


async def test_what_was_written_before_a_crash_counts_after_it(rig: Rig) -> None:
    await rig.limit(bytes=10_000)
    file = await rig.create(b"a")
    await file.write(0, bytes(9000), sync=True)

    await rig.stage.crash()
    again = Rig(rig.stage)
    found = await again.files.walk(V, b"a")
    file = await again.files.open(found.ref, owner=ME, access=BOTH, deny=Access.NONE)
    with pytest.raises(QuotaExceeded):
        await file.append(bytes(1001))
    await file.append(bytes(1000))
    await file.close()
    assert await again.held() == 10_000


async def test_a_disk_counts_with_its_size_and_writes_inside_it_are_never_refused(
    rig: Rig,
) -> None:
    blocks = rig.stage.blocks
    await rig.limit(bytes=WINDOW)
    with pytest.raises(QuotaExceeded):
        await blocks.create(V, b"large", size=WINDOW + 512)
    assert await blocks.disks(V) == []
    await blocks.create(V, b"d", size=WINDOW)
    disk = await blocks.open(V, b"d", initiator="me")
    try:
        await disk.write(0, b"x" * WINDOW, fua=True)
        assert disk.write_now(4096, b"y" * 4096)
    finally:
        await disk.close()
    with pytest.raises(QuotaExceeded):
        await blocks.resize(V, b"d", WINDOW + 512)

    assert await rig.held() == WINDOW


async def test_what_a_snapshot_keeps_counts_until_it_is_removed(rig: Rig) -> None:
    put = rig.objects.put
    await put(V, b"a", bytes(4000), Attributes(), Digests(etag="e"))
    await rig.limit(bytes=10_000)
    await rig.snapshots.create(V, "S")
    await put(V, b"a", bytes(4000), Attributes(), Digests(etag="e"))
    assert await rig.held() == 8000
    with pytest.raises(QuotaExceeded):
        await put(V, b"a", bytes(6001), Attributes(), Digests(etag="e"))
    await rig.objects.set_tags(V, b"a", {"k": "v"})
    await rig.snapshots.create(V, "T")
    await rig.objects.delete(V, b"a")
    assert await rig.held() == 8000

    await rig.snapshots.delete(V, "S")
    while not await rig.snapshots.clean(V):
        pass
    assert await rig.held() == 4000
    await rig.snapshots.delete(V, "T")
    while not await rig.snapshots.clean(V):
        pass
    assert await rig.held() == 0


async def test_blocks_that_a_snapshot_shows_are_refused_to_be_overwritten_without_room(
    rig: Rig,
) -> None:
    blocks = rig.stage.blocks
    await blocks.create(V, b"d", size=2 * WINDOW)
    disk = await blocks.open(V, b"d", initiator="me")
    try:
        await disk.write(0, b"x" * 2 * WINDOW, fua=True)
    finally:
        await disk.close()
    await rig.limit(bytes=3 * WINDOW)
    await rig.snapshots.create(V, "S")
    disk = await blocks.open(V, b"d", initiator="me")
    try:
        await disk.write(0, b"y" * 4096, fua=True)
        with pytest.raises(QuotaExceeded):
            await disk.write(WINDOW, b"y" * 4096)
        await disk.write(8192, b"y" * 4096, fua=True)  # its window was kept already
        await disk.flush()
    finally:
        await disk.close()
    assert await rig.held() == 3 * WINDOW

    await rig.snapshots.delete(V, "S")
    while not await rig.snapshots.clean(V):
        pass
    assert await rig.held() == 2 * WINDOW


async def test_hard_links_count_once_and_clones_in_full(rig: Rig) -> None:
    await rig.limit(bytes=10_000)
    file = await rig.create(b"a")
    await file.write(0, bytes(5000))
    await file.close()
    root = await rig.files.root(V)
    await rig.files.link(file.ref, root, b"b")
    await rig.files.clone(file.ref, root, b"c")
    with pytest.raises(QuotaExceeded):
        await rig.files.clone(file.ref, root, b"d")
    await rig.files.rename(root, b"a", root, b"e")

    assert await rig.held() == 10_000
    info = await rig.files.statfs(V)
    assert (info.total, info.free) == (10_000, 0)
