"""The Objects view on engines in memory: the worked examples, and what the kit does not see."""

from __future__ import annotations

import asyncio
import gc
import hashlib

import pytest
from warp_core.errors import IsDeleteMarker, NotFound, PreconditionFailed
from warp_core.kept import Kept
from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.rows import FILE, MARKER, decode_name
from warp_core.views.objects import Attributes, Condition, Digests

PLAIN = Attributes()


def digests(data: bytes) -> Digests:
    return Digests(etag=hashlib.md5(data).hexdigest())


async def put(objects, key: bytes, data: bytes = b"x", **more):
    return await objects.put("v", key, data, PLAIN, digests(data), **more)


async def get(objects, key: bytes, version: str = "") -> bytes:
    reader = await objects.open("v", key, version=version)
    try:
        data = b""
        while len(data) < reader.info.size:
            data += await reader.read(len(data), 1 << 20)
        return data
    finally:
        reader.close()


async def listed(objects, **more) -> list[bytes]:
    page = await objects.list("v", **more)
    return [entry.key for entry in page.entries]


async def rows_of(namespace: Namespace, family: bytes) -> dict[bytes, bytes]:
    volume = await namespace.volumes.get("v")
    view = namespace.store.view()
    start = volume.prefix + family
    found = await view.scan(start, keys.after(start))
    view.close()
    return {row.key[keys.PREFIX_BYTES :]: row.value for row in found}


ORDERED = sorted([b"a", b"a\0", b"a-b", b"a/", b"a/\0", b"a/!", b"a//b", b"a0", "aé".encode()])


async def test_worked_example_of_order(objects: NamespaceObjects, namespace: Namespace) -> None:
    for key in reversed(ORDERED):
        await put(objects, key)

    names = {key: decode_name(value) for key, value in (await rows_of(namespace, b"D")).items()}
    first = names[keys.name_key(1, b"a/\0\0")].inode
    second = names[keys.name_key(first, b"/\0\0")].inode
    assert [key for key in sorted(names) if names[key].kind == FILE] == sorted(
        [
            keys.name_key(1, each + b"\0\0")
            for each in (b"a", b"a\0\xff", b"a-b", b"a0", "aé".encode())
        ]
        + [keys.name_key(first, each + b"\0\0") for each in (b"", b"\0\xff", b"!")]
        + [keys.name_key(second, b"b\0\0")]
    )
    assert await listed(objects) == ORDERED
    page = await objects.list("v", delimiter=b"/")
    assert [entry.key for entry in page.entries] == [b"a", b"a\0", b"a-b", b"a0", "aé".encode()]
    assert list(page.prefixes) == [b"a/"]
    page = await objects.list("v", delimiter=b"/", after=b"a/")
    assert ([entry.key for entry in page.entries], list(page.prefixes)) == (
        [b"a0", "aé".encode()],
        [],
    )
    page = await objects.list("v", delimiter=b"-")
    assert list(page.prefixes) == [b"a-"]
    assert [entry.key for entry in page.entries] == [key for key in ORDERED if key != b"a-b"]


async def test_worked_example_of_markers(objects: NamespaceObjects, namespace: Namespace) -> None:
    await objects.set_versioning("v", "on")
    first = await put(objects, b"a/b")
    marker = await objects.delete("v", b"a/b")

    assert await rows_of(namespace, b"D") == {}
    versions = await rows_of(namespace, b"V")
    kept = decode_name(versions[keys.kept_directory_key(1, b"a/\0\0")])
    below = [
        decode_name(value)
        for key, value in sorted(versions.items())
        if key[:9] == b"V" + keys.u64(kept.inode)
    ]
    assert [name.kind for name in below] == [MARKER, FILE]
    assert await listed(objects) == []
    page = await objects.list_versions("v")
    assert [(entry.version, entry.marker, entry.latest) for entry in page.entries] == [
        (marker.version, True, True),
        (first.version, False, False),
    ]

    await put(objects, b"a/c")
    names = await rows_of(namespace, b"D")
    assert decode_name(names[keys.name_key(1, b"a/\0\0")]).inode == kept.inode
    await put(objects, b"a/b", condition=Condition(absent=True))
    with pytest.raises(PreconditionFailed):
        await put(objects, b"a/b", condition=Condition(absent=True))
    for entry in (await objects.list_versions("v")).entries:
        await objects.delete("v", entry.key, version=entry.version)
    assert await rows_of(namespace, b"D") == {}
    assert await rows_of(namespace, b"V") == {}
    assert await rows_of(namespace, b"R") == {}


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 65536])
async def test_small_objects_come_back(objects: NamespaceObjects, size: int) -> None:
    data = bytes(range(256)) * 256
    info = await put(objects, b"dir/key", data[:size])

    assert info.size == size
    assert await get(objects, b"dir/key") == data[:size]
    head = await objects.head("v", b"dir/key")
    assert (head.size, head.etag, head.version) == (
        size,
        hashlib.md5(data[:size]).hexdigest(),
        "null",
    )


async def test_streams_come_back(objects: NamespaceObjects) -> None:
    data = bytes(range(256)) * 4096 * 20 + b"end"
    writer = await objects.writer("v", b"big", PLAIN, size=len(data))
    await writer.write(data)
    await writer.commit(digests(data))

    assert await get(objects, b"big") == data


async def test_overwriting_frees_what_was_there(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    await put(objects, b"k", b"1" * 5000)
    await put(objects, b"k", b"2" * 6000)

    assert len(await rows_of(namespace, b"R")) == 1
    assert (await namespace.usage("v")) == (1, 6000, 0, 0, 0, 0, 0)
    view = namespace.store.view()
    garbage = await view.scan(keys.GARBAGE, keys.GARBAGE_END)
    view.close()
    assert len(garbage) == 1


async def test_a_deleted_object_is_gone_with_its_directories(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    await put(objects, b"a/b/c")
    await put(objects, b"a/d")
    await objects.delete("v", b"a/b/c")

    assert await listed(objects) == [b"a/d"]
    assert len(await rows_of(namespace, b"D")) == 2
    await objects.delete("v", b"a/d")
    assert await rows_of(namespace, b"D") == {}
    assert await rows_of(namespace, b"T") != {}
    with pytest.raises(NotFound):
        await objects.head("v", b"a/d")


async def test_long_components_continue(objects: NamespaceObjects) -> None:
    names = [
        b"x" * 199,
        b"x" * 200,
        b"x" * 201,
        b"x" * 450,
        b"x" * 450 + b"/y",
        b"\0" * 400,
        b"x" * 200 + b"/z",
    ]
    for name in names:
        await put(objects, name, name)

    assert await listed(objects) == sorted(names)
    assert await listed(objects, prefix=b"x" * 200) == sorted(
        name for name in names if name.startswith(b"x" * 200)
    )
    for name in names:
        assert await get(objects, name) == name
        await objects.delete("v", name)
    assert await listed(objects) == []


async def test_conditions_are_compare_and_swap(objects: NamespaceObjects) -> None:
    async def attempt(number: int) -> int:
        try:
            await put(objects, b"k", b"%d" % number, condition=Condition(absent=True))
        except PreconditionFailed:
            return 0
        return 1

    assert sum(await asyncio.gather(*(attempt(number) for number in range(20)))) == 1
    with pytest.raises(NotFound):
        await put(objects, b"other", condition=Condition(etag="x"))


async def test_suspended_versioning_has_one_null_version(objects: NamespaceObjects) -> None:
    await put(objects, b"k", b"0")
    await objects.set_versioning("v", "on")
    one = await put(objects, b"k", b"1")
    await objects.set_versioning("v", "suspended")
    await put(objects, b"k", b"2")
    await put(objects, b"k", b"3")

    page = await objects.list_versions("v")
    assert [(entry.version, entry.latest) for entry in page.entries] == [
        ("null", True),
        (one.version, False),
    ]
    assert await get(objects, b"k", "null") == b"3"
    gone = await objects.delete("v", b"k")
    assert (gone.version, gone.marker) == ("null", True)
    with pytest.raises(IsDeleteMarker):
        await objects.head("v", b"k")
    await objects.delete("v", b"k", version="null")
    assert await get(objects, b"k") == b"1"


async def test_copies_outlive_what_they_were_made_of(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    data = b"c" * 5000
    await put(objects, b"from", data)
    await objects.copy("v", b"from", "v", b"to")
    await objects.delete("v", b"from")

    assert await get(objects, b"to") == data
    view = namespace.store.view()
    assert await view.scan(keys.GARBAGE, keys.GARBAGE_END) == []
    view.close()
    await objects.delete("v", b"to")
    assert await rows_of(namespace, b"R") == {}
    assert await rows_of(namespace, b"X") == {}
    assert await rows_of(namespace, b"Z") == {}
    view = namespace.store.view()
    assert len(await view.scan(keys.GARBAGE, keys.GARBAGE_END)) == 1
    view.close()


async def test_an_object_that_was_read_is_answered_at_once_and_as_it_is_now(
    objects: NamespaceObjects,
) -> None:
    await put(objects, b"d/k", b"one")
    assert objects.head_now("v", b"d/absent") is None
    assert objects.head_now("nowhere", b"k") is None

    first = objects.head_now("v", b"d/k")
    assert first is not None
    assert objects.head_now("v", b"d/k") is first  # decoded once

    await objects.set_tags("v", b"d/k", {"a": "b"})
    tagged = objects.head_now("v", b"d/k")
    assert tagged is not None
    assert tagged.attributes.tags == {"a": "b"}
    await put(objects, b"d/k", b"two" * 1000)
    reader = objects.open_now("v", b"d/k")
    assert reader is not None
    await objects.delete("v", b"d/k")
    assert objects.open_now("v", b"d/k") is None
    assert bytes(await reader.read(0, 3000)) == b"two" * 1000
    reader.close()


async def test_decoded_objects_are_bounded(objects: NamespaceObjects) -> None:
    objects._finder._known = Kept(3)
    for number in range(7):
        await put(objects, b"%d" % number)
        assert objects.head_now("v", b"%d" % number) is not None
    assert len(objects._finder._known) <= 3


async def test_a_change_leaves_nothing_for_the_collector(objects: NamespaceObjects) -> None:
    await put(objects, b"d/k")
    gc.collect()
    gc.disable()
    try:
        for number in range(50):
            await put(objects, b"d/%d" % number)
            await put(objects, b"d/%d" % number)
            await objects.delete("v", b"d/%d" % number)
            await objects.copy("v", b"d/k", "v", b"d/copy")

        left = [one for one in gc.get_objects() if isinstance(one, Change)]

        assert left == []
    finally:
        gc.enable()
