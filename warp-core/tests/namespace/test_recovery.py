"""A node comes back whatever its last run was in the middle of."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import files_stage as stage_module
from warp_core.interfaces.consistency import SCAN_MAX, MetaCapabilities, MetaStore, Row, View
from warp_core.layers.forward import MetaLayer
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests


async def test_a_node_opens_beside_a_deleted_volume_that_upkeep_has_not_finished() -> None:
    async with stage_module.Stage() as stage:
        objects = NamespaceObjects(stage.namespace)
        await stage.namespace.volumes.create("gone", owner="me")
        await objects.set_versioning("gone", "on")
        data = b"x" * 5000
        digests = Digests(etag=hashlib.md5(data).hexdigest())
        made = await objects.put("gone", b"k", data, Attributes(), digests)
        await objects.delete("gone", b"k", version=made.version)
        await objects.delete_volume("gone")
        deleted = await stage.namespace.volumes.all(deleted=True)
        assert len(deleted) == 2, "its rows remain until upkeep drops them"

        await stage.crash()

        assert [v.row.name for v in await stage.namespace.volumes.all()] == ["v"]


class Far(MetaLayer):
    """An engine that is a step away, and counts how many rows are asked for at once."""

    def __init__(self, inner: MetaStore) -> None:
        super().__init__(inner)
        self.asked = self.most = self.gets = 0

    @property
    def capabilities(self) -> MetaCapabilities:  # type: ignore[override]
        return replace(self.inner.capabilities, immediate=False)

    def view(self) -> View:
        return _FarView(super().view(), self)


class _FarView(View):
    def __init__(self, inner: View, far: Far) -> None:
        self._inner = inner
        self._far = far

    @property
    def version(self) -> int:  # type: ignore[override]
        return self._inner.version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        far = self._far
        far.asked += 1
        far.gets += 1
        far.most = max(far.most, far.asked)
        try:
            await asyncio.sleep(0)
            return await self._inner.get(key)
        finally:
            far.asked -= 1

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        return await self._inner.scan(start, end, limit=limit, reverse=reverse)

    def close(self) -> None:
        self._inner.close()


async def test_a_restart_asks_for_many_rows_at_once_and_only_since_the_checkpoint() -> None:
    async with stage_module.Stage() as stage:
        objects = NamespaceObjects(stage.namespace)

        async def put(count: int, prefix: bytes) -> None:
            for number in range(count):
                data = prefix * 500 + b"%d" % number
                digests = Digests(etag=hashlib.md5(data).hexdigest())
                await objects.put("v", prefix + b"%d" % number, data, Attributes(), digests)

        await put(200, b"early")
        await stage.inodes.checkpoint()
        await put(100, b"late")
        await stage.blocks.create("v", b"disk", size=1 << 20)
        file = await stage.blocks.open("v", b"disk", initiator="i")
        await file.write(0, b"in place" * 64)
        await file.flush()
        stage.meta = far = Far(stage.meta)
        await stage.crash()

        assert far.most > 20
        assert far.gets < 200, "what a checkpoint covers is not looked at"
        again = await stage.blocks.open("v", b"disk", initiator="i")
        assert bytes(await again.read(0, 512)) == b"in place" * 64
        assert bytes(await again.read(512, 8)) == bytes(8)
