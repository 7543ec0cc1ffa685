"""What the namespace finishes in the background, and what it forgets."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from warp_core.errors import Expired, InvalidArgument, NotFound, VolumeNotFound
from warp_core.interfaces.auth import Principal
from warp_core.namespace import feed, keys, uploads
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.rows import decode_upload, encode
from warp_core.namespace.upkeep import Upkeep
from warp_core.views.objects import Attributes, Digests, PartInfo
from warp_core.views.origin import Origin

ALICE = Principal("alice")
PLAIN = Attributes()


def digests(data: bytes) -> Digests:
    return Digests(etag=hashlib.md5(data).hexdigest())


async def put(objects: NamespaceObjects, key: bytes, data: bytes = b"x" * 2000, volume: str = "v"):
    return await objects.put(volume, key, data, PLAIN, digests(data))


async def put_part(objects: NamespaceObjects, upload: str, number: int) -> PartInfo:
    data = b"%05d" % number * 400
    writer = await objects.part_writer("v", b"k", upload, number)
    await writer.write(data)
    made = await writer.commit(digests(data))
    return PartInfo(number=number, size=made.size, etag=made.etag)


async def all_rows(namespace: Namespace) -> dict[bytes, bytes]:
    view = namespace.store.view()
    found = await view.scan(b"", b"\xff" * 9)
    view.close()
    assert len(found) < 1000
    return {row.key: row.value for row in found}


async def test_nothing_is_left_of_a_deleted_volume(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    before = set(await all_rows(namespace)) - {keys.volume_name_key("v")}
    await objects.set_versioning("v", "on")
    made = await put(objects, b"a/b/c")
    await objects.delete("v", b"a/b/c", version=made.version)
    await objects.set_document("v", "s3.cors", b"<x/>")
    open_ = await objects.create_upload("v", b"k", PLAIN)
    await put_part(objects, open_.upload, 1)
    done = await objects.create_upload("v", b"k", PLAIN)
    part = await put_part(objects, done.upload, 1)
    await objects.complete_upload("v", b"k", done.upload, [part], digests(b""))
    (version,) = (await objects.list_versions("v")).entries
    await objects.delete("v", b"k", version=version.version)
    await objects.delete_volume("v")
    upkeep = Upkeep(namespace)
    while any((await upkeep.work()).values()):
        pass
    garbage = Garbage(namespace)
    while await garbage.reclaim():
        pass

    left = await all_rows(namespace)
    assert {key for key in left if key not in before} == {keys.IDS}
    with pytest.raises(VolumeNotFound):
        await objects.volume("v")


async def test_a_deleted_volume_lends_until_the_last_copy_is_gone(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    await objects.create_volume("w", owner=ALICE)
    await put(objects, b"from", b"lent" * 1000)
    await objects.copy("v", b"from", "w", b"to")
    await objects.delete("v", b"from")
    await objects.delete_volume("v")
    upkeep = Upkeep(namespace)
    while any((await upkeep.work()).values()):
        pass
    garbage = Garbage(namespace)
    assert await garbage.reclaim() == 0
    await objects.create_volume("v", owner=ALICE)
    reader = await objects.open("w", b"to")
    assert await reader.read(0, 4000) == b"lent" * 1000
    reader.close()
    await objects.delete("w", b"to")

    assert await garbage.reclaim() == 1
    while any((await upkeep.work()).values()):
        pass
    assert [volume.row.name for volume in await namespace.volumes.all(deleted=True)] == ["v", "w"]


async def test_a_copy_onto_itself_keeps_its_content(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    await put(objects, b"k", b"kept" * 1000)
    await objects.copy("v", b"k", "v", b"k", attributes=Attributes(metadata={"a": "b"}))
    await objects.copy("v", b"k", "v", b"k")

    garbage = Garbage(namespace)
    assert await garbage.reclaim() == 0
    await objects.delete("v", b"k")
    assert await garbage.reclaim() == 1


async def test_nobody_can_ask_for_a_deleted_volume(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    await put(objects, b"k")
    await objects.delete("v", b"k")
    await objects.delete_volume("v")

    for name in ("\x7f1", "\x7f2"):
        with pytest.raises(VolumeNotFound):
            await objects.volume(name)
        with pytest.raises(VolumeNotFound):
            await put(objects, b"k", volume=name)
        with pytest.raises(VolumeNotFound):
            await objects.list(name)
        with pytest.raises(InvalidArgument):
            await objects.create_volume(name, owner=ALICE)
    assert await objects.volumes() == []


async def test_many_parts_leave_in_batches(objects: NamespaceObjects, namespace: Namespace) -> None:
    upload = await objects.create_upload("v", b"k", PLAIN)
    parts = [await put_part(objects, upload.upload, number) for number in range(1, 151)]
    await objects.complete_upload("v", b"k", upload.upload, parts[::2], digests(b""))
    assert (await objects.head("v", b"k")).parts[1].number == 3
    reader = await objects.open("v", b"k")
    assert await reader.read(1_990, 20) == b"0000100001" + b"0000300003"
    reader.close()
    work = await Upkeep(namespace).work()

    assert work["uploads"] == 1
    prefix = (await namespace.volumes.get("v")).prefix
    assert not [key for key in await all_rows(namespace) if key.startswith(prefix + b"P")]
    assert (await namespace.usage("v")).part_bytes == 0
    again = await objects.complete_upload("v", b"k", upload.upload, parts[::2], digests(b""))
    assert again.size == 75 * 2000


async def test_the_answer_to_a_repeated_completion_is_forgotten_in_the_end(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    upload = await objects.create_upload("v", b"k", PLAIN)
    part = await put_part(objects, upload.upload, 1)
    await objects.complete_upload("v", b"k", upload.upload, [part], digests(b""))
    (key,) = [key for key in await all_rows(namespace) if key[5:6] == b"U"]
    row = decode_upload((await all_rows(namespace))[key])
    long_ago = row.ended_ns - uploads.COMPLETED_S * 10**9

    async def age(change) -> None:
        change.rows.put_present(key[5:], encode(msgspec.structs.replace(row, ended_ns=long_ago)))

    await namespace.change("v", age)
    await Upkeep(namespace).work()
    with pytest.raises(NotFound):
        await objects.complete_upload("v", b"k", upload.upload, [part], digests(b""))


async def test_directories_that_a_crash_left_are_removed(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    deep = b"/".join([b"d"] * 40)

    async def cut_short(change) -> None:
        change.rows.put_present(keys.untidy_key(7), deep)
        await change.scaffold(deep, versions=False)
        await change.scaffold(deep, versions=True)

    await namespace.change("v", cut_short)
    assert (await objects.list("v", delimiter=b"/")).prefixes == [b"d/"]
    await Upkeep(namespace).work()

    assert (await objects.list("v", delimiter=b"/")).prefixes == []
    prefix = (await namespace.volumes.get("v")).prefix
    left = {key[5:6] for key in await all_rows(namespace) if key.startswith(prefix)}
    assert left <= {b"T", b"Q", b"F"}


async def test_the_feed_tells_what_happened_in_order(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    start = await feed.now(namespace, "v")
    await put(objects, b"a")
    await objects.set_versioning("v", "on")
    two = await put(objects, b"a")
    await objects.copy("v", b"a", "v", b"b")
    gone = await objects.delete("v", b"a")
    await objects.delete("v", b"a", version=two.version)
    page = await feed.read(namespace, "v", start)

    told = [(event.verb, event.key, event.version) for event in page.events]
    assert told[:2] == [("put", b"a", "null"), ("put", b"a", two.version)]
    assert told[2][:2] == ("copy", b"b")
    assert told[3:] == [("marker", b"a", gone.version), ("remove", b"a", two.version)]
    assert page.cursor == await feed.now(namespace, "v")
    assert await feed.read(namespace, "v", page.cursor) == feed.Page([], page.cursor, [])
    one = await feed.read(namespace, "v", feed.START, limit=1)
    rest = await feed.read(namespace, "v", one.cursor)
    assert one.events + rest.events == page.events


async def test_the_feed_tells_who_did_it_where_the_protocol_said(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    start = await feed.now(namespace, "v")
    how = Origin("account:bob", "10.0.0.1", "R1", "post")
    await put(objects, b"a")
    writer = await objects.writer("v", b"b", Attributes(owner="alice"), origin=how)
    await writer.write(b"x")
    await writer.commit(Digests(etag="e"))
    await objects.copy("v", b"b", "v", b"c", origin=how)
    await objects.set_tags("v", b"c", {"k": "v"}, origin=how)
    await objects.set_tags("v", b"c", {}, origin=how)
    await objects.set_acl("v", b"c", b"{}", origin=how)
    upload = await objects.create_upload("v", b"d", Attributes(owner="alice"))
    part = await objects.part_writer("v", b"d", upload.upload, 1)
    await part.write(b"y")
    made = await part.commit(Digests(etag="p"))
    parts = [PartInfo(number=1, size=1, etag=made.etag, modified_ns=0)]
    await objects.complete_upload("v", b"d", upload.upload, parts, Digests(etag="w"), origin=how)
    await objects.delete("v", b"c", origin=how)
    await objects.set_versioning("v", "on")
    await objects.delete("v", b"b", origin=how)
    await objects.delete("v", b"b", version="null", origin=how)
    events = (await feed.read(namespace, "v", start)).events

    verbs = [
        "put",
        "put",
        "copy",
        "tags",
        "untags",
        "acl",
        "complete",
        "delete",
        "marker",
        "remove",
    ]
    assert [event.verb for event in events] == verbs
    assert events[0].origin is None
    assert {event.origin for event in events[1:]} == {how}
    assert {event.actor for event in events[1:]} == {"account:bob"}


async def test_a_consumer_that_fell_behind_is_told(
    objects: NamespaceObjects, namespace: Namespace
) -> None:
    start = await feed.now(namespace, "v")
    for number in range(200):
        await put(objects, b"%d" % number)
    middle = (await feed.read(namespace, "v", start, limit=100)).cursor
    last = (await feed.read(namespace, "v", start)).events[-1]
    trimmed = 0
    while some := await feed.trim(namespace, "v", before_ns=last.time_ns):
        trimmed += some

    assert trimmed == 199
    for cursor in (start, middle):
        with pytest.raises(Expired):
            await feed.read(namespace, "v", cursor)
    assert [event.key for event in (await feed.read(namespace, "v", feed.START)).events] == [b"199"]
    with pytest.raises(InvalidArgument):
        await feed.read(namespace, "v", b"junk")
