"""The audit and the recount say the same of what a volume holds."""

from __future__ import annotations

import files_stage as stage_module
import msgspec
from warp_core.namespace import keys
from warp_core.namespace.audit import audit
from warp_core.namespace.inode_rows import inode_row
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.recount import correct, miscounted
from warp_core.namespace.rows import encode

ME = Owner(HERE, b"me")


async def made(stage, name: bytes, data: bytes):
    """Return a new open file and the directory that it lies in."""
    root = await stage.files.root("v")
    file, _ = await stage.files.create(
        root, name, 0o644, owner=ME, access=Access.WRITE, deny=Access.NONE
    )
    await file.write(0, data)
    await file.sync()
    return file, root


async def test_a_file_without_a_name_is_counted_until_it_is_closed():
    async with stage_module.Stage() as stage:
        file, root = await made(stage, b"a", b"x" * 5000)
        await stage.files.unlink(root, b"a")

        assert (await stage.namespace.usage("v")).bytes == 5000
        assert await audit(stage.namespace, "v") == []
        assert not any(await miscounted(stage.namespace, "v"))

        await file.close()
        await stage.files.settle_collections()

        assert (await stage.namespace.usage("v")).bytes == 0
        assert await audit(stage.namespace, "v") == []


async def test_a_file_that_lost_its_name_is_told():
    async with stage_module.Stage() as stage:
        file, root = await made(stage, b"a", b"x" * 5000)
        number = (await stage.files.walk("v", b"a")).ref.inode
        await stage.files.unlink(root, b"a")

        async def forget(change):
            inode = await inode_row(change.rows, number)
            lost = msgspec.structs.replace(inode, orphan=False)
            await change.rows.put(keys.inode_key(number), encode(lost))

        await stage.namespace.change("v", forget)
        told = await audit(stage.namespace, "v")
        await file.close()

        assert len(told) == 1
        assert "has no name" in told[0]


async def test_counters_that_are_off_are_told_and_corrected():
    async with stage_module.Stage() as stage:
        file, _ = await made(stage, b"a", b"x" * 5000)
        await file.close()

        async def bend(change):
            change.count(objects=2, bytes=-7)

        await stage.namespace.change("v", bend)
        told = await audit(stage.namespace, "v")
        off = await miscounted(stage.namespace, "v")
        await correct(stage.namespace, "v", off)

        assert len(told) == 1
        assert "a recount" in told[0]
        assert (off.objects, off.bytes) == (2, -7)
        assert await audit(stage.namespace, "v") == []
