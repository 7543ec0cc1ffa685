"""`fsck`: a healthy node has no problems, and each planted damage is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from warp_core.config.load import load
from warp_core.interfaces.consistency import Commit, Write
from warp_core.namespace import keys
from warp_core.node.assembly import Node, open_node
from warp_core.node.control import perform
from warp_core.node.verbs import VERBS
from warp_core.plugins import Plugins
from warp_core.views.objects import Attributes, Digests

pytestmark = pytest.mark.workspace

LARGE = 3 * 1024 * 1024


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Node]:
    plugins = Plugins()
    options = [("node.data", f'"{tmp_path}/d"')]
    settings = load(None, catalog=plugins, environ={}, options=options)
    async with open_node(settings, plugins, serve=False) as node:
        yield node


async def filled(node: Node) -> None:
    await node.namespace.volumes.create("v", owner="me")
    for number in range(5):
        await node.objects.put(
            "v", b"dir/small%d" % number, bytes([number]) * 5000, Attributes(), Digests(etag="e")
        )
    await node.objects.put("v", b"tiny", b"inline", Attributes(), Digests(etag="e"))
    writer = await node.objects.writer("v", b"large", Attributes())
    await writer.write(b"x" * LARGE)
    await writer.commit(Digests(etag="e"))


async def fsck(node: Node, *, deep: bool = False) -> Any:
    return await perform(VERBS, node, "fsck", {"deep": deep}, lambda progress: None)


async def row_of(node: Node, family: bytes, size: int) -> tuple[bytes, bytes]:
    volume = await node.namespace.volumes.get("v")
    prefix = volume.prefix + family
    view = node.namespace.store.view()
    found = await view.scan(prefix, keys.after(prefix))
    view.close()
    return next((row.key, row.value) for row in found if len(row.value) >= size)


async def test_a_healthy_node_has_no_problems(tmp_path: Path) -> None:
    async with opened(tmp_path) as node:
        await filled(node)
        first = await fsck(node, deep=True)
    async with opened(tmp_path) as node:
        again = await fsck(node)

    for found in (first, again):
        assert found["problems"] == []
        assert found["names"] >= 7
        assert found["containers"]["lost_count"] == 0
    assert first["bytes"] >= LARGE
    assert again["bytes"] < LARGE


async def test_a_name_without_its_revision_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as node:
        await filled(node)
        key, _ = await row_of(node, b"R", 20)
        await node.namespace.store.commit(Commit(writes=[Write(key, None)]))
        found = await fsck(node)

    assert found["problem_count"] == 1
    assert "volume v: a name leads to revision" in found["problems"][0]


async def test_a_row_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as node:
        await filled(node)
        key, _ = await row_of(node, b"D", 10)
        await node.namespace.store.commit(Commit(writes=[Write(key, b"\x93junk")]))
        found = await fsck(node)

    assert found["problem_count"] == 1
    assert "cannot be read" in found["problems"][0]


async def test_content_that_rotted_is_told_where_it_lies(tmp_path: Path) -> None:
    async with opened(tmp_path) as node:
        await filled(node)
    blobs = [path for path in (tmp_path / "d" / "store").rglob("*") if path.is_file()]
    for path in blobs:
        data = path.read_bytes()
        if data.count(b"x" * 1000) and path.suffix != ".mdb":
            at = data.index(b"x" * 1000) + 500
            mode = path.stat().st_mode
            path.chmod(0o600)  # who is not root may not write to a whole blob
            path.write_bytes(data[:at] + b"!" + data[at + 1 :])
            path.chmod(mode)
    async with opened(tmp_path) as node:
        found = await fsck(node, deep=True)

    assert found["problem_count"] >= 1
    assert "cannot be read" in found["problems"][0]
