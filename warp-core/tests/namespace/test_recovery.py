"""A node comes back whatever its last run was in the middle of."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests

_spec = importlib.util.spec_from_file_location(
    "files_stage", Path(__file__).with_name("files_stage.py")
)
assert _spec
assert _spec.loader
stage_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stage_module)


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
