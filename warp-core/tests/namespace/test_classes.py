"""Storage classes with policies: contents lie as their class says, and move when it changes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from warp_core.containers import Containers, DataPolicy, StoreSlot
from warp_core.errors import Corrupt, Retained
from warp_core.interfaces.auth import Principal
from warp_core.namespace.audit import audit
from warp_core.namespace.classes import set_storage_class
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests, PartInfo
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory import Memory as MemoryStore
from warp_zstd.filter import Zstd

TEXT = b"the same again and again " * 8000  # 200 KB that compress well
COLD = "STANDARD_IA"


@pytest.fixture
async def objects() -> AsyncIterator[NamespaceObjects]:
    clock = itertools.count(1_700_000_000_000_000_000, 1_000_000)

    def codec(name: str) -> Any:
        return Zstd(3) if name.startswith("zstd") else Fixed(64 * 1024)

    async with (
        MemoryMeta() as meta,
        MemoryStore() as store,
        Containers([StoreSlot("m", store)], codec=codec) as containers,
    ):
        cold = DataPolicy(filters=("zstd:3",))
        namespace = Namespace(
            meta, containers, clock_ns=lambda: next(clock), classes={COLD: cold, "GLACIER": cold}
        )
        made = NamespaceObjects(namespace)
        await made.create_volume("v", owner=Principal("alice"))
        yield made


async def put(
    objects: NamespaceObjects, key: bytes, data: bytes = TEXT, kind: str = "STANDARD", **more: Any
) -> Any:
    writer = await objects.writer(
        "v", key, Attributes(storage_class=kind, metadata={"a": "b"}, **more)
    )
    await writer.write(data)
    return await writer.commit(Digests(etag="e", checksums={"CRC32": "AAAA"}))


async def get(objects: NamespaceObjects, key: bytes, version: str = "", volume: str = "v") -> bytes:
    reader = await objects.open(volume, key, version=version)
    try:
        found = b""
        while len(found) < reader.info.size:
            found += bytes(await reader.read(len(found), 1 << 20))
        return found
    finally:
        reader.close()


async def stored(objects: NamespaceObjects, key: bytes, version: str = "") -> int:
    """Return the bytes that a content takes."""
    namespace = objects._namespace
    found = await namespace.volumes.get("v")
    _, revision, _ = await objects._finder.look(found, key, version, flat=False)
    assert revision.extents
    return sum(extent.chunk.stored for extent in revision.extents)


async def move(objects: NamespaceObjects, key: bytes, kind: str, version: str = "null") -> bool:
    return await set_storage_class(objects._namespace, "v", key, version, kind)


async def test_what_is_written_lies_as_its_class_says(objects: NamespaceObjects) -> None:
    await put(objects, b"warm")
    await put(objects, b"cold", kind=COLD)

    assert await stored(objects, b"cold") < len(TEXT) / 10 < await stored(objects, b"warm")
    assert await get(objects, b"cold") == TEXT


async def test_a_version_that_changes_its_class_is_the_same_and_lies_otherwise(
    objects: NamespaceObjects,
) -> None:
    await put(objects, b"k")
    await objects.set_tags("v", b"k", {"t": "1"})
    before = await objects.head("v", b"k")
    assert await move(objects, b"k", COLD)

    after = await objects.head("v", b"k")
    assert after.storage_class == COLD
    assert (after.etag, after.modified_ns, after.version) == (
        before.etag,
        before.modified_ns,
        before.version,
    )
    assert after.attributes.tags == {"t": "1"}
    assert after.attributes.metadata == {"a": "b"}
    assert after.checksums == before.checksums
    assert await stored(objects, b"k") < len(TEXT) / 10
    assert await get(objects, b"k") == TEXT
    assert await audit(objects._namespace, "v") == []
    place = await objects._finder.look(
        await objects._namespace.volumes.get("v"), b"k", "", flat=False
    )
    assert await move(objects, b"k", "GLACIER")  # the same policy: a label
    again = await objects._finder.look(
        await objects._namespace.volumes.get("v"), b"k", "", flat=False
    )
    assert again[1].extents == place[1].extents
    assert await move(objects, b"k", "STANDARD")
    assert await stored(objects, b"k") > len(TEXT)
    assert not await move(objects, b"gone", COLD)


async def test_noncurrent_and_locked_versions_move_and_stay_locked(
    objects: NamespaceObjects,
) -> None:
    await objects.delete_volume("v")
    await objects.create_volume("v", owner=Principal("alice"), locked=True)
    first = await put(objects, b"k", legal_hold=True)
    await put(objects, b"k", b"second" * 1000)
    assert await move(objects, b"k", COLD, first.version)

    assert await get(objects, b"k", first.version) == TEXT
    assert await stored(objects, b"k", first.version) < len(TEXT) / 10
    with pytest.raises(Retained):
        await objects.delete("v", b"k", version=first.version)
    assert await audit(objects._namespace, "v") == []


async def test_copies_by_reference_keep_what_they_borrow(objects: NamespaceObjects) -> None:
    await put(objects, b"k")
    await objects.copy("v", b"k", "v", b"same")
    await objects.copy("v", b"k", "v", b"cold", attributes=Attributes(storage_class=COLD))
    assert await stored(objects, b"cold") < len(TEXT) / 10
    assert await move(objects, b"k", COLD)
    assert await move(objects, b"same", COLD)
    for key in (b"k", b"same", b"cold"):
        assert await get(objects, key) == TEXT
    assert await audit(objects._namespace, "v") == []


async def test_a_multipart_object_moves_with_its_parts(objects: NamespaceObjects) -> None:
    upload = await objects.create_upload("v", b"k", Attributes(storage_class="STANDARD"))
    named = []
    for number in range(1, 71):  # more than a row keeps
        writer = await objects.part_writer("v", b"k", upload.upload, number, size=3000)
        await writer.write(TEXT[:3000])
        made = await writer.commit(Digests(etag=str(number)))
        named.append(PartInfo(number=number, size=made.size, etag=made.etag))
    await objects.complete_upload("v", b"k", upload.upload, named, Digests(etag="e-70"))
    before = await objects.head("v", b"k")
    assert await move(objects, b"k", COLD)

    after = await objects.head("v", b"k")
    assert after.parts == before.parts
    assert await get(objects, b"k") == TEXT[:3000] * 70
    assert await audit(objects._namespace, "v") == []


async def test_what_was_overwritten_meanwhile_stays_as_it_is(
    objects: NamespaceObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(objects, b"k")
    containers = objects._namespace.containers
    sync = containers.sync

    async def overwritten() -> None:
        monkeypatch.setattr(containers, "sync", sync)
        await put(objects, b"k", b"another" * 1000)
        await sync()

    monkeypatch.setattr(containers, "sync", overwritten)
    assert not await move(objects, b"k", COLD)
    assert await get(objects, b"k") == b"another" * 1000
    assert (await objects.head("v", b"k")).storage_class == "STANDARD"
    assert await audit(objects._namespace, "v") == []


async def test_what_reads_differently_where_it_was_moved_to_stays_where_it_was(
    objects: NamespaceObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(objects, b"k")
    containers = objects._namespace.containers
    read, seen = containers.read, set()

    async def wrong(chunk: Any, *, offset: int, length: int) -> Any:
        data = bytes(await read(chunk, offset=offset, length=length))
        seen.add(chunk)
        return data if len(seen) <= 4 else b"\0" * len(data)

    monkeypatch.setattr(containers, "read", wrong)
    with pytest.raises(Corrupt, match="reads differently"):
        await move(objects, b"k", COLD)
    monkeypatch.setattr(containers, "read", read)
    assert await get(objects, b"k") == TEXT
    assert (await objects.head("v", b"k")).storage_class == "STANDARD"
