"""Index lost on a whole node: it refuses to start, is rebuilt exactly, and counters are counted again."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from warp_core.config import Settings
from warp_core.config.load import load
from warp_core.errors import Corrupt, NotFound
from warp_core.metadata import transact
from warp_core.namespace import keys
from warp_core.namespace.recount import miscounted
from warp_core.node import mending
from warp_core.node.assembly import Node, open_node
from warp_core.node.control import perform
from warp_core.node.verbs import VERBS
from warp_core.plugins import Plugins
from warp_core.views.objects import Attributes, Digests

pytestmark = pytest.mark.workspace


def settings_in(folder: Path, plugins: Plugins, copies: int) -> Settings:
    lines = [f'[node]\ndata = "{folder}/d"\n[metadata]\nengine = "local"\ncopies = {copies}\n']
    lines += [f'[[store]]\nkind = "disk"\npath = "{folder}/s{n}"\n' for n in range(copies)]
    lines += ["[protocols.s3]\n"]
    (folder / "warp.toml").write_text("".join(lines))
    return load(folder / "warp.toml", catalog=plugins, environ={}, options=[])


async def mixed(node: Node, seed: int, count: int) -> None:
    """Put, overwrite, copy and delete objects in a versioned volume and one without versions."""
    rng = random.Random(seed)
    for _ in range(count):
        volume, key = (
            rng.choice(["plain", "kept"]),
            b"d%d/k%d" % (rng.randrange(4), rng.randrange(40)),
        )
        if rng.random() < 0.3:
            try:
                await node.objects.delete(volume, key)
            except NotFound:
                continue
        else:
            size = rng.choice([0, 10, 700, 5000, 60_000])
            await node.objects.put(
                volume, key, rng.randbytes(size), Attributes(), Digests(etag=f"e{rng.random()}")
            )


async def everything(node: Node) -> list[Any]:
    """Return all rows but the node's own numbers and positions, and what volumes say they hold."""
    view = node.namespace.store.view()
    rows, start = [], b"n"
    while page := await view.scan(start, b"w"):
        rows += [(row.key, row.value) for row in page]
        start = page[-1].key + b"\0"
    view.close()
    return [rows, *[await node.namespace.usage(name) for name in ("plain", "kept")]]


async def fsck(node: Node, **options: object) -> Any:
    return await perform(VERBS, node, "fsck", {"deep": True, **options}, lambda progress: None)


def deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def truncated(folder: Path) -> None:
    with (folder / "data.mdb").open("r+b") as file:
        file.truncate(12288)


@pytest.mark.parametrize("damage", [deleted, truncated])
@pytest.mark.parametrize("copies", [1, 2])
async def test_a_node_that_lost_its_index_is_rebuilt_exactly(tmp_path, damage, copies):
    plugins = Plugins()
    settings = settings_in(tmp_path, plugins, copies)
    async with open_node(settings, plugins, serve=False) as node:
        for name in ("plain", "kept"):
            await node.namespace.volumes.create(name, owner="me")
        await node.objects.set_versioning("kept", "on")
        await mixed(node, 1, 250)
        await node.data.metastore.checkpoint()
        await node.data.metastore.image()
        await mixed(node, 2, 150)
        expected = await everything(node)
    for number in range(copies):
        damage(tmp_path / f"s{number}" / "meta")
    with pytest.raises(Corrupt, match="warp fsck --rebuild"):
        async with open_node(settings, plugins, serve=False):
            pass

    made = await mending.rebuild(settings, plugins, lambda progress: None)
    examined = await mending.examine(settings, plugins, lambda progress: None)

    assert made["image"] > 0
    assert examined == []
    async with open_node(settings, plugins, serve=False) as node:
        assert await everything(node) == expected
        found = await fsck(node)
    assert found["problems"] == []
    assert found["containers"]["lost_count"] == 0


async def test_counters_that_are_off_are_told_and_corrected(tmp_path):
    plugins = Plugins()
    settings = settings_in(tmp_path, plugins, 1)
    async with open_node(settings, plugins, serve=False) as node:
        for name in ("plain", "kept"):
            await node.namespace.volumes.create(name, owner="me")
        await node.objects.set_versioning("kept", "on")
        await mixed(node, 3, 200)
        await node.snapshots.create("kept", "s")
        await mixed(node, 4, 100)
        await node.snapshots.clone("kept", "copy", snapshot="s", owner="me")
        await node.objects.delete("copy", (await _first_key(node, "copy")))
        before = await node.namespace.usage("kept")
        assert (await fsck(node))["problems"] == []
        volume = await node.namespace.volumes.get("kept")

        async def spoil(tx):
            tx.merge(volume.prefix + keys.usage_key(volume.row.epoch), add=(3, -7, 0, 0, 0, 0))

        await transact(node.namespace.store, spoil)
        told = await fsck(node)
        mended = await fsck(node, repair=True)

        assert told["problem_count"] == 1, told["problems"]
        assert "usage says" in told["problems"][0]
        assert mended["problem_count"] == 0
        assert mended["counters_corrected"] == 1
        assert await node.namespace.usage("kept") == before
        assert not any(await miscounted(node.namespace, "copy"))


async def _first_key(node: Node, volume: str) -> bytes:
    found = await node.objects.list(volume, limit=1)
    return found.entries[0].key
