"""Rolling volumes back: what the model cannot say, since it has no time, no handles and no disks."""

from __future__ import annotations

import asyncio

import files_stage as stage_module
import msgspec
import pytest
from warp_core.errors import Busy, InvalidArgument, NotFound, ReadOnly, Retained, StaleHandle
from warp_core.namespace import keys
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.views.objects import Attributes, Digests

ME = Owner(HERE, b"me")
BOTH = Access.READ | Access.WRITE
V = "v"


class Rig:
    """A stage with all views and snapshots."""

    def __init__(self, stage):
        self.stage = stage
        self.attach()

    def attach(self):
        self.files, self.blocks = self.stage.files, self.stage.blocks
        self.objects = NamespaceObjects(self.stage.namespace)
        self.snapshots = Snapshots(self.stage.namespace, self.stage.inodes)

    async def put(self, key, data):
        await self.objects.put(V, key, data, Attributes(), Digests(etag="e"))

    async def all(self):
        found = {}
        for entry in (await self.objects.list(V)).entries:
            reader = await self.objects.open(V, entry.key)
            found[entry.key] = bytes(await reader.read(0, 1 << 20)) if entry.size else b""
            reader.close()
        return found

    async def open(self, path):
        info = await self.files.walk(V, path)
        return await self.files.open(info.ref, owner=ME, access=BOTH, deny=Access.NONE)

    async def write(self, path, offset, data):
        file = await self.open(path)
        await file.write(offset, data)
        await file.close()


@pytest.fixture
async def rig():
    async with stage_module.Stage() as stage:
        yield Rig(stage)


async def test_everything_is_as_it_was_and_later_snapshots_stay(rig):
    root = await rig.files.root(V)
    await rig.put(b"a", b"a" * 3000)
    await rig.put(b"b", b"b" * 3000)
    await rig.write(b"b", 5, b"edited")
    await rig.files.mkdir(root, b"made", 0o755)
    before = await rig.all()
    usage = (await rig.stage.namespace.usage(V))._replace(snapshot_bytes=0)
    await rig.snapshots.create(V, "S1")
    await rig.write(b"b", 100, b"later")
    await rig.files.rename(root, b"a", root, b"moved")
    await rig.put(b"new/deep/key", b"n" * 3000)
    await rig.files.rmdir(root, b"made")
    after = await rig.all()
    await rig.snapshots.create(V, "S2")

    assert await rig.snapshots.rollback(V, "S1") > 0

    assert await rig.all() == before
    assert (await rig.stage.namespace.usage(V))._replace(snapshot_bytes=0) == usage
    assert (await rig.files.walk(V, b"made")).kind == "directory"
    assert await audit(rig.stage.namespace, V) == []
    await rig.snapshots.rollback(V, "S2")
    assert await rig.all() == after
    with pytest.raises(NotFound):
        await rig.files.walk(V, b"made")
    assert await audit(rig.stage.namespace, V) == []


async def test_a_rollback_that_a_crash_cut_short_shows_the_snapshot_and_is_finished(rig):
    for n in range(40):
        await rig.put(b"k%d" % n, b"old" * 700)
    await rig.write(b"k0", 0, b"OLD")
    before = await rig.all()
    await rig.snapshots.create(V, "S")
    for n in range(40):
        await rig.put(b"k%d" % n, b"new" * 700)
        await rig.put(b"l%d" % n, b"new" * 700)
    await rig.write(b"k0", 0, b"NEW")

    def stop(_):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await rig.snapshots.rollback(V, "S", progress=stop)
    assert await rig.all() == before
    with pytest.raises(Busy):
        await rig.put(b"k0", b"x")
    with pytest.raises(Busy):
        await rig.snapshots.create(V, "T")
    with pytest.raises(Busy):
        await rig.snapshots.rollback(V, "S")
    await rig.stage.crash()
    rig.attach()
    assert await rig.all() == before
    assert await rig.snapshots.resume() == [V]

    assert await rig.all() == before
    await rig.put(b"k0", b"writable again")
    assert await audit(rig.stage.namespace, V) == []


async def test_what_was_written_after_the_snapshot_does_not_come_back_with_a_crash(rig):
    await rig.put(b"a", b"a" * 3000)
    await rig.write(b"a", 0, b"before")
    await rig.snapshots.create(V, "S")
    file = await rig.open(b"a")
    await file.write(0, b"AFTER!")
    await file.sync()

    await rig.snapshots.rollback(V, "S", force=True)
    await rig.stage.crash()
    rig.attach()

    assert (await rig.all())[b"a"][:6] == b"before"


async def test_open_files_refuse_a_rollback_and_forced_are_stale(rig):
    await rig.put(b"a", b"a" * 3000)
    await rig.snapshots.create(V, "S")
    file = await rig.open(b"a")
    await file.write(0, b"X")

    with pytest.raises(Busy, match="1 files"):
        await rig.snapshots.rollback(V, "S")
    await file.write(1, b"Y")
    await rig.snapshots.rollback(V, "S", force=True)

    for call in (file.read(0, 1), file.write(0, b"Z"), file.truncate(0), file.seek(0, "data")):
        with pytest.raises(StaleHandle):
            await call
    await file.close()
    assert await rig.all() == {b"a": b"a" * 3000}
    await rig.write(b"a", 0, b"Z")
    assert (await rig.all())[b"a"][:2] == b"Za"


async def test_a_volume_with_retained_content_is_not_rolled_back(rig):
    await rig.put(b"a", b"a" * 3000)
    await rig.snapshots.create(V, "S")
    await rig.put(b"a", b"b" * 3000)

    async def lock(change):
        path = await change.find(b"a")
        revision = await change.revision(path.current.revision)
        locked = msgspec.structs.replace(revision, born=change.epoch, legal_hold=True)
        await change.put_revision(path.current.revision, locked)

    await rig.stage.namespace.change(V, lock)

    with pytest.raises(Retained):
        await rig.snapshots.rollback(V, "S")

    assert await rig.all() == {b"a": b"b" * 3000}
    await rig.put(b"c", b"still writable")


async def test_a_file_that_a_later_clone_lies_over_gets_its_content_by_copying(rig):
    await rig.put(b"a", b"a" * 3000)
    await rig.write(b"a", 0, b"one")
    await rig.snapshots.create(V, "S1")
    await rig.write(b"a", 0, b"two")
    root = await rig.files.root(V)
    await rig.files.clone((await rig.files.walk(V, b"a")).ref, root, b"clone")
    await rig.snapshots.create(V, "S2")

    await rig.snapshots.rollback(V, "S1")
    await rig.write(b"a", 2000, b"more")

    assert (await rig.all())[b"a"] == b"one" + b"a" * 1997 + b"more" + b"a" * 996
    await rig.snapshots.rollback(V, "S2")
    assert {key: data[:3] for key, data in (await rig.all()).items()} == {
        b"a": b"two",
        b"clone": b"two",
    }
    assert await audit(rig.stage.namespace, V) == []


async def test_disks_come_back_and_those_made_later_go(rig):
    await rig.blocks.create(V, b"old", size=1 << 20)
    await rig.snapshots.create(V, "S")
    await rig.blocks.delete(V, b"old")
    await rig.blocks.create(V, b"new", size=1 << 20)

    await rig.snapshots.rollback(V, "S")

    assert [(disk.path, disk.size) for disk in await rig.blocks.disks(V)] == [(b"old", 1 << 20)]


async def test_snapshots_and_unknown_names_are_refused(rig):
    await rig.snapshots.create(V, "S")

    with pytest.raises(NotFound):
        await rig.snapshots.rollback(V, "T")
    with pytest.raises(ReadOnly):
        await rig.snapshots.rollback("v.snap-S", "S")


async def test_pruning_goes_by_age_number_and_name_and_leaves_what_clones_read(rig):
    for n in range(6):
        await rig.snapshots.create(V, f"daily-{n}")
        await rig.put(b"a", b"x" * (n + 1))
    await rig.snapshots.create(V, "by-hand")
    await rig.snapshots.clone(V, "w", snapshot="daily-1", owner="me")

    with pytest.raises(InvalidArgument):
        await rig.snapshots.prune(V)
    assert await rig.snapshots.prune(V, older_than_s=3600) == []
    wanted = ["daily-0", "daily-2", "daily-3"]
    assert await rig.snapshots.prune(V, keep=2, matching="daily-*", dry_run=True) == wanted
    assert len(await rig.snapshots.all(V)) == 7
    assert await rig.snapshots.prune(V, keep=2, matching="daily-*") == wanted

    left = [each.name for each in await rig.snapshots.all(V)]
    assert left == ["daily-1", "daily-4", "daily-5", "by-hand"]
    assert await rig.snapshots.prune(V, older_than_s=0) == ["daily-4", "daily-5", "by-hand"]


async def test_directories_that_went_leave_no_times_behind(rig):
    await rig.put(b"a", b"x")
    await rig.snapshots.create(V, "S")
    await rig.put(b"p/q/r", b"x")
    await rig.snapshots.rollback(V, "S")

    view = rig.stage.meta.view()
    prefix = keys.prefix(1)
    found = await view.scan(prefix + b"T", prefix + b"U")
    view.close()
    left = [keys.times_key(keys.ROOT), keys.branches_key(keys.ROOT)]
    assert [row.key for row in found] == [prefix + key for key in left]
