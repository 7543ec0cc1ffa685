"""Keys that are deleted in one commit leave what they leave one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warp_core.containers import Containers, StoreSlot
from warp_core.errors import InvalidArgument, NameTooLong, VolumeNotFound
from warp_core.interfaces.auth import Principal
from warp_core.namespace import keys
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import TOGETHER_MAX, Attributes, Digests, Versioning
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory import Memory as MemoryStore

NOW = 1_700_000_000_000_000_000
DEEP = b"deep/" * 30
PLACES = (b"a", b"d/", b"d/a", b"d/b", b"d/e/f/a", b"d/e/g", b"x" * 450, DEEP + b"1", DEEP + b"2")


@asynccontextmanager
async def made() -> AsyncIterator[NamespaceObjects]:
    async with (
        MemoryMeta() as meta,
        MemoryStore() as store,
        Containers(
            [StoreSlot("m", store)], codec=lambda _: Fixed(10_000), now_ns=lambda: NOW
        ) as containers,
    ):
        objects = NamespaceObjects(Namespace(meta, containers, clock_ns=lambda: NOW))
        await objects.create_volume("v", owner=Principal(name="alice"))
        yield objects


async def fill(objects: NamespaceObjects, names: Sequence[bytes], versioning: Versioning) -> None:
    if versioning != "off":
        await objects.set_versioning("v", "on")
    for name in names:
        await objects.put("v", name, name, Attributes(owner="alice"), Digests(etag="e"))
    if versioning == "suspended":
        await objects.set_versioning("v", versioning)


async def listed(objects: NamespaceObjects) -> list[bytes]:
    return [each.key for each in (await objects.list("v")).entries]


async def left(objects: NamespaceObjects) -> list[tuple[bytes, bytes]]:
    """Return all rows but those whose keys tell a commit's version."""
    view = objects._namespace.store.view()
    try:
        rows = await view.scan(b"\0", b"\xff")
    finally:
        view.close()
    stamped = (keys.prefix(1) + keys.FEED, keys.GARBAGE)
    return [(row.key, row.value) for row in rows if not row.key.startswith(stamped)]


some_keys = st.lists(st.sampled_from(PLACES), max_size=TOGETHER_MAX)


@settings(max_examples=30, deadline=None)
@given(stored=some_keys, gone=some_keys, versioning=st.sampled_from(["off", "on", "suspended"]))
def test_together_leaves_what_one_by_one_leaves(
    stored: list[bytes], gone: list[bytes], versioning: Versioning
) -> None:
    async def run() -> None:
        async with made() as one, made() as other:
            for objects in one, other:
                await fill(objects, stored, versioning)
            together = await one.delete_together("v", gone)
            alone = [await other.delete("v", key) for key in gone]
            pages = [await objects.list_versions("v") for objects in (one, other)]

            # Version ids and numbers of markers are their own; what there is, is the same.
            shown = [(each.marker, each.found) for each in together]
            assert shown == [(each.marker, each.found) for each in alone]
            entries = [
                [(e.key, e.marker, e.latest, e.size) for e in page.entries] for page in pages
            ]
            assert entries[0] == entries[1]
            assert await listed(one) == await listed(other)
            if versioning == "off":
                assert await left(one) == await left(other)
            usage = [await objects._namespace.usage("v") for objects in (one, other)]
            assert usage[0] == usage[1]

    asyncio.run(run())


async def test_sixteen_keys_of_a_folder_are_one_commit() -> None:
    async with made() as objects:
        names = [b"folder/%d" % n for n in range(TOGETHER_MAX)]
        await fill(objects, names, "off")
        view = objects._namespace.store.view()
        before = view.version
        view.close()

        await objects.delete_together("v", names)
        view = objects._namespace.store.view()
        assert view.version == before + 1
        view.close()
        assert await listed(objects) == []


async def test_what_one_commit_has_no_room_for_is_halved() -> None:
    async with made() as objects:
        names = [b"%d/a/b/c/d/e" % n for n in range(TOGETHER_MAX)]
        await fill(objects, [*names, b"kept"], "off")

        assert all(each.found for each in await objects.delete_together("v", names))
        assert await listed(objects) == [b"kept"]


async def test_keys_that_cannot_be_are_refused_before_anything_is_deleted() -> None:
    async with made() as objects:
        await fill(objects, [b"a"], "off")
        with pytest.raises(NameTooLong):
            await objects.delete_together("v", [b"a", b"x" * 2000])
        with pytest.raises(InvalidArgument):
            await objects.delete_together("v", [b"a"] * (TOGETHER_MAX + 1))
        with pytest.raises(VolumeNotFound):
            await objects.delete_together("w", [b"a", b"b"])

        assert await listed(objects) == [b"a"]
        assert await objects.delete_together("v", []) == []
