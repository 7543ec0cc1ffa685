"""Content comes back from the records when all rows are lost."""

from __future__ import annotations

import hashlib

import files_stage as stage_module
from warp_core.interfaces.auth import Principal
from warp_core.metadata import transact
from warp_core.namespace import keys
from warp_core.namespace.audit import audit
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.salvage import salvage
from warp_core.views.objects import Attributes, Digests, PartInfo

PLAIN = Attributes()
ALICE = Principal("alice")


def noise(length: int, seed: int) -> bytes:
    return hashlib.shake_128(bytes([seed])).digest(length)


async def stream(objects, key: bytes, data: bytes) -> None:
    writer = await objects.writer("v", key, PLAIN)
    await writer.write(data)
    await writer.commit(Digests(etag="e"))


async def everything(objects, volume: str) -> list[bytes]:
    found = []
    for entry in (await objects.list(volume)).entries:
        assert entry.key.startswith(b"lost+found/")
        reader = await objects.open(volume, entry.key)
        data = b""
        while len(data) < entry.size:
            data += bytes(await reader.read(len(data), 1 << 20))
        reader.close()
        found.append(data)
    return sorted(found)


async def wipe(namespace: Namespace, start: bytes, end: bytes) -> int:
    view = namespace.store.view()
    rows = await view.scan(start, end)
    view.close()

    for at in range(0, len(rows), 90):

        async def body(tx, at=at) -> None:
            for row in rows[at : at + 90]:
                tx.delete(row.key)

        await transact(namespace.store, body)
    return len(rows)


async def test_content_of_lost_rows_comes_back(objects: NamespaceObjects, namespace) -> None:
    small, large = noise(3000, 1), noise(9 * 1024 * 1024, 2)
    await objects.put("v", b"a/small", small, PLAIN, Digests(etag="e"))
    await stream(objects, b"b/large", large)
    upload = (await objects.create_upload("v", b"c", PLAIN)).upload
    parts = []
    for number in range(1, 80):
        writer = await objects.part_writer("v", b"c", upload, number)
        await writer.write(noise(1500, number))
        made = await writer.commit(Digests(etag=str(number)))
        parts.append(PartInfo(number=number, size=made.size, etag=made.etag))
    await objects.complete_upload("v", b"c", upload, parts, Digests(etag="e"))
    whole = b"".join(noise(1500, number) for number in range(1, 80))
    assert await wipe(namespace, b"a", b"z")
    anew = Namespace(namespace.store, namespace.containers)
    report = await salvage(anew, namespace.containers.records(of_this_session=True))

    views = NamespaceObjects(anew)
    assert (report.revisions, report.volumes, report.unreadable) == (3, 1, 0)
    assert [info.name for info in await views.volumes()] == ["recovered-1"]
    assert await everything(views, "recovered-1") == sorted([small, large, whole])
    assert await audit(anew, "recovered-1") == []
    await views.put("recovered-1", b"new", small, PLAIN, Digests(etag="e"))
    assert (await views.create_volume("other", owner=ALICE)).name == "other"
    again = await salvage(anew, namespace.containers.records(of_this_session=True))
    assert again.revisions == 0


async def test_what_rows_need_stays_where_it_is(objects: NamespaceObjects, namespace) -> None:
    await objects.put("v", b"kept", noise(3000, 1), PLAIN, Digests(etag="e"))
    await objects.put("v", b"lost", noise(3000, 2), PLAIN, Digests(etag="e"))
    volume = await namespace.volumes.get("v")
    view = namespace.store.view()
    rows = await view.scan(volume.prefix + b"R", volume.prefix + b"S")
    view.close()
    await wipe(namespace, rows[-1].key, rows[-1].key + b"\0")
    await wipe(
        namespace,
        volume.prefix + keys.name_key(keys.ROOT, b"lost\0\0"),
        volume.prefix + keys.name_key(keys.ROOT, b"lost\0\1"),
    )
    report = await salvage(namespace, namespace.containers.records(of_this_session=True))

    assert (report.revisions, report.volumes, report.bytes) == (1, 0, 3000)
    found = [entry.key for entry in (await objects.list("v")).entries]
    assert found[0] == b"kept"
    assert found[1].startswith(b"lost+found/")


async def test_files_written_in_place_come_back_at_their_places() -> None:
    stage = stage_module.Stage()
    async with stage:
        files = stage.files
        root = await files.root("v")
        file, _ = await files.create(
            root,
            b"f",
            0o644,
            owner=Owner(HERE, b"me"),
            access=Access.READ | Access.WRITE,
            deny=Access.NONE,
        )
        await file.write(10_000, b"late" * 100)
        await file.write(0, b"x" * 5000)
        await file.write(100, b"y" * 50)
        await file.truncate(10_100)
        await file.sync()
        await file.close()
        await wipe(stage.namespace, b"a", b"z")
        anew = Namespace(stage.meta, stage.containers)
        await salvage(anew, stage.containers.records(of_this_session=True))

        wanted = bytearray(10_100)
        wanted[10_000:] = b"late" * 25
        wanted[:5000] = b"x" * 5000
        wanted[100:150] = b"y" * 50
        assert await everything(NamespaceObjects(anew), "recovered-1") == [bytes(wanted)]
