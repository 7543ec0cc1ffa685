"""Files and Objects on one volume: the same bytes, one table of leases; worked examples 3 and 5 of the design."""

from __future__ import annotations

import asyncio

import files_stage as stage_module
import pytest
from warp_core.errors import NotFound
from warp_core.namespace.changes import Change
from warp_core.namespace.leases import ALL, FOR_WRITE
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.views.files import SetInfo
from warp_core.views.objects import Attributes, Digests

ME = Owner(HERE, b"me")
BOTH = Access.READ | Access.WRITE
V = "v"


@pytest.fixture
async def stage():
    async with stage_module.Stage() as stage:
        stage.objects = NamespaceObjects(stage.namespace)
        yield stage


async def put(stage, key, data):
    return await stage.objects.put(V, key, data, Attributes(), Digests(etag=f"e{len(data)}"))


async def get(stage, key, version=""):
    reader = await stage.objects.open(V, key, version=version)
    try:
        found = b""
        while len(found) < reader.info.size:
            found += bytes(await reader.read(len(found), 1 << 20))
        return found
    finally:
        reader.close()


async def edit(stage, path):
    info = await stage.files.walk(V, path)
    return await stage.files.open(info.ref, owner=ME, access=BOTH, deny=Access.NONE)


async def versions(stage, key):
    listing = await stage.objects.list_versions(V, prefix=key)
    return [entry for entry in listing.entries if entry.key == key]


@pytest.mark.parametrize("size", [0, 10, 5000, 60_000])
async def test_an_object_is_a_file_and_a_file_is_an_object(stage, size):
    data = bytes(i % 251 for i in range(size))
    await put(stage, b"d/a", data)

    file = await edit(stage, b"d/a")
    assert bytes(await file.read(0, 1 << 20)) == data
    await file.write(size, b"tail")

    assert await get(stage, b"d/a") == data + b"tail", "what is not folded yet is seen"
    head = await stage.objects.head(V, b"d/a")
    assert head.size == size + 4
    assert head.etag.endswith("-0")
    listed = (await stage.objects.list(V)).entries
    assert [(entry.key, entry.size) for entry in listed] == [(b"d/a", size + 4)]
    await file.close()
    assert await get(stage, b"d/a") == data + b"tail"


async def test_the_etag_is_new_with_each_change(stage):
    await put(stage, b"a", b"x")
    file = await edit(stage, b"a")
    etags = set()
    for n in range(3):
        await file.write(n, b"y")
        etags.add((await stage.objects.head(V, b"a")).etag)

    assert len(etags) == 3


async def test_a_get_in_progress_keeps_what_it_began_with(stage):
    file, _ = await stage.files.create(
        await stage.files.root(V), b"a", 0o644, owner=ME, access=BOTH, deny=Access.NONE
    )
    await file.write(0, b"1" * 200_000)
    reader = await stage.objects.open(V, b"a")
    first = bytes(await reader.read(0, 1000))

    await file.write(0, b"2" * 200_000)
    await file.sync()
    await stage.inodes.checkpoint()

    assert first == b"1" * 1000
    assert bytes(await reader.read(100_000, 1000)) == b"1" * 1000
    reader.close()
    assert (await get(stage, b"a"))[:3] == b"222"


async def test_a_put_replaces_the_file_and_open_handles_keep_theirs(stage):
    await put(stage, b"a", b"old")
    file = await edit(stage, b"a")
    await file.write(0, b"OLD")

    await put(stage, b"a", b"new content")

    assert bytes(await file.read(0, 100)) == b"OLD"
    assert (await file.info()).links == 0
    assert await get(stage, b"a") == b"new content"
    await file.close()


async def test_a_version_never_changes_also_if_a_put_made_it_beside_a_write(stage, monkeypatch):
    await stage.objects.set_versioning(V, "on")
    await put(stage, b"a", b"old")
    kept = await versions(stage, b"a")
    info = await stage.files.walk(V, b"a")
    await stage.files.link(info.ref, await stage.files.root(V), b"b")
    file = await edit(stage, b"a")
    await file.write(3, b"er")
    await file.sync()
    hold = Change.hold

    async def slow(change, revision, holder):
        if not written:
            written.append(asyncio.create_task(file.write(0, b"NEW")))
            await asyncio.sleep(0.01)
        await hold(change, revision, holder)

    written: list[asyncio.Task[int]] = []
    monkeypatch.setattr(Change, "hold", slow)
    await put(stage, b"a", b"other")
    await written[0]

    (_, older, oldest) = await versions(stage, b"a")  # the edit kept what the file was
    assert oldest.version == kept[0].version
    assert await get(stage, b"a", oldest.version) == b"old"
    first = await get(stage, b"a", older.version)
    await file.sync()
    await stage.inodes.checkpoint()
    assert await get(stage, b"a", older.version) == first
    assert await get(stage, b"b") == b"NEWer"
    assert await get(stage, b"a") == b"other"
    await file.close()


async def test_an_s3_put_recalls_a_lease(stage):
    await put(stage, b"a", b"old")
    info = await stage.files.walk(V, b"a")
    node = (await stage.files.number(V), info.ref.inode)
    told = []
    client = stage.opens.add_client("holder", tell=lambda lease: told.append(lease.wanted))
    holder = Owner(client, 0)
    assert stage.opens.lease(*node, holder, ALL) == ALL

    writing = asyncio.create_task(put(stage, b"a", b"new"))
    await asyncio.sleep(0.01)
    assert told == [ALL]
    assert not writing.done()
    assert (await stage.files.walk(V, b"a")).ref.inode == info.ref.inode, (
        "not before it is given back"
    )
    stage.opens.give_back(*node, holder)
    await writing

    assert await get(stage, b"a") == b"new"


async def test_an_s3_put_does_not_wait_for_ever(stage):
    await put(stage, b"a", b"old")
    info = await stage.files.walk(V, b"a")
    node = (await stage.files.number(V), info.ref.inode)
    client = stage.opens.add_client("deaf", tell=lambda lease: None)
    stage.opens.lease(*node, Owner(client, 0), ALL)

    await put(stage, b"a", b"new")

    assert await get(stage, b"a") == b"new"
    assert not stage.opens.leased(*node, Owner(client, 0))


async def test_an_s3_get_recalls_a_write_lease_and_shows_what_was_held_back(stage):
    await put(stage, b"a", b"old")
    file = await edit(stage, b"a")
    node = (await stage.files.number(V), file.ref.inode)

    def flush_and_give_back(lease):
        async def work():
            await file.write(0, b"held back")
            stage.opens.give_back(*node, holder, keep=lease.kinds & ~lease.wanted)

        tasks.append(asyncio.create_task(work()))

    tasks = []
    client = stage.opens.add_client("holder", tell=flush_and_give_back)
    holder = Owner(client, 0)
    file.owner = holder
    file._opened.owner = holder
    assert stage.opens.lease(*node, holder, ALL) == ALL

    assert await get(stage, b"a") == b"held back"
    assert not stage.opens.leased(*node, holder) & FOR_WRITE & ~1


async def test_worked_example_3_hard_link(stage):
    await stage.objects.set_versioning(V, "on")
    await put(stage, b"x", b"r1")
    root = await stage.files.root(V)
    x = await stage.files.walk(V, b"x")
    await stage.files.link(x.ref, root, b"y")
    assert (await stage.files.walk(V, b"y")).ref.inode == x.ref.inode

    await put(stage, b"x", b"r2")

    assert (await stage.files.walk(V, b"x")).ref.inode != x.ref.inode
    assert (await stage.files.walk(V, b"y")).ref.inode == x.ref.inode
    old = [entry for entry in await versions(stage, b"x") if not entry.latest]
    assert len(old) == 1
    assert await get(stage, b"x", old[0].version) == b"r1"

    file = await edit(stage, b"y")
    await file.write(0, b"r3")
    await file.close()

    assert await get(stage, b"y") == b"r3"
    assert await get(stage, b"x") == b"r2"
    assert await get(stage, b"x", old[0].version) == b"r1"

    await stage.files.unlink(root, b"y")
    assert await get(stage, b"x", old[0].version) == b"r1"
    await stage.objects.delete(V, b"x", version=old[0].version)
    with pytest.raises(NotFound):
        await stage.objects.open(V, b"x", version=old[0].version)
    assert await get(stage, b"x") == b"r2"


async def test_unlink_on_a_versioned_volume_leaves_a_version_behind_a_marker(stage):
    await stage.objects.set_versioning(V, "on")
    root = await stage.files.root(V)
    file, _ = await stage.files.create(root, b"a", 0o644, owner=ME, access=BOTH, deny=Access.NONE)
    await file.write(0, b"content")

    await stage.files.unlink(root, b"a")
    await file.write(0, b"CONTENT")
    await file.close()
    await stage.files.settle_collections()

    found = await versions(stage, b"a")
    assert [entry.marker for entry in found] == [True, False]
    assert await get(stage, b"a", found[1].version) == b"content"
    with pytest.raises(NotFound):
        await stage.objects.open(V, b"a")


async def test_rename_on_a_versioned_volume_leaves_history_behind(stage):
    await stage.objects.set_versioning(V, "on")
    await put(stage, b"a", b"content")
    root = await stage.files.root(V)

    await stage.files.rename(root, b"a", root, b"b")

    assert await get(stage, b"b") == b"content"
    found = await versions(stage, b"a")
    assert [entry.marker for entry in found] == [True, False]
    assert await get(stage, b"a", found[1].version) == b"content"
    file = await edit(stage, b"b")
    await file.write(0, b"CHANGED")
    await file.close()
    assert await get(stage, b"a", found[1].version) == b"content"
    assert await get(stage, b"b") == b"CHANGED"


async def test_a_directory_takes_its_history_along(stage):
    await stage.objects.set_versioning(V, "on")
    await put(stage, b"d/a", b"1")
    await put(stage, b"d/a", b"2")
    root = await stage.files.root(V)

    await stage.files.rename(root, b"d", root, b"e")

    assert await get(stage, b"e/a") == b"2"
    found = await versions(stage, b"e/a")
    assert len(found) == 2
    assert await get(stage, b"e/a", found[1].version) == b"1"
    assert await versions(stage, b"d/a") == []


async def test_directories_that_keys_imply_stay_once_files_are_removed_from_them(stage):
    await put(stage, b"d/a", b"1")
    root = await stage.files.root(V)
    directory = await stage.files.walk(V, b"d")

    await stage.files.unlink(directory.ref, b"a")
    assert (await stage.files.readdir(directory.ref))[0] == []
    await stage.files.rmdir(root, b"d")

    assert (await stage.files.readdir(root))[0] == []
    assert (await stage.files.statfs(V)).files == 0


async def test_a_mode_set_on_an_object_survives_being_listed_and_read(stage):
    await put(stage, b"a", b"content")
    info = await stage.files.walk(V, b"a")
    await stage.files.setattr(info.ref, SetInfo(mode=0o600))

    assert await get(stage, b"a") == b"content"
    assert (await stage.files.walk(V, b"a")).mode == 0o600
    head = await stage.objects.head(V, b"a")
    assert head.etag == "e7"


async def test_worked_example_5_random_write_and_a_crash(stage):
    root = await stage.files.root(V)
    file, _ = await stage.files.create(
        root, b"disk", 0o644, owner=ME, access=BOTH, deny=Access.NONE
    )
    await file.truncate(4 << 20)
    await file.sync()
    commits = await _version(stage)

    await file.write((1 << 20) + 8192, b"w" * 4096)
    await file.sync()

    assert await _version(stage) == commits, "a write and its sync are no transaction"
    await stage.crash()
    stage.objects = NamespaceObjects(stage.namespace)
    data = await get(stage, b"disk")
    assert len(data) == 4 << 20
    assert data[(1 << 20) + 8192 : (1 << 20) + 12288] == b"w" * 4096
    assert data.count(b"w") == 4096


async def _version(stage):
    view = stage.meta.view()
    try:
        return view.version
    finally:
        view.close()


@pytest.mark.parametrize("settle", [True, False])
async def test_a_copy_of_a_file_written_in_place_keeps_its_content(stage, settle):
    await put(stage, b"a", b"x" * 3000)
    file = await edit(stage, b"a")
    await file.write(100, b"edited")
    if settle:
        await file.close()
        file = await edit(stage, b"a")

    await stage.objects.copy(V, b"a", V, b"b")
    await file.write(0, b"later")
    await file.write(100, b"LATER!")
    await file.close()

    expected = b"x" * 100 + b"edited" + b"x" * 2894
    assert await get(stage, b"b") == expected
    await stage.objects.delete(V, b"a")
    assert await get(stage, b"b") == expected
    copy = await edit(stage, b"b")
    await copy.write(0, b"mine")
    await copy.close()
    assert await get(stage, b"b") == b"mine" + expected[4:]
