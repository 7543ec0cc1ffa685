"""Archives: contents are refused until they were restored, can be read for a while, and nothing is lost or left over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from warp_core.containers import Containers, DataPolicy, Owner, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.containers.policy import Place
from warp_core.errors import (
    Archived,
    InvalidArgument,
    NotFound,
    Restoring,
    Retained,
    Unsupported,
    VersionNotFound,
)
from warp_core.interfaces.auth import Principal
from warp_core.namespace import archives, feed
from warp_core.namespace.apart import Inodes
from warp_core.namespace.audit import audit
from warp_core.namespace.classes import set_storage_class
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Opens
from warp_core.namespace.opens import Owner as OpenOwner
from warp_core.namespace.snapshots import Snapshots
from warp_core.views.files import SetInfo
from warp_core.views.objects import Attributes, Digests, PartInfo, VolumeLock
from warp_fixed.chunker import Fixed
from warp_meta_memory.engine import Memory as MemoryMeta
from warp_store_memory import Memory as MemoryStore

DATA = bytes(range(256)) * 1200  # 300 KB: more than the small ones that share a container
DAY_NS = 1_000_000_000
ICE = "GLACIER"


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now += 1000
        return self.now


class Stage:
    """A volume "v" whose class GLACIER is an archive on a store of its own."""

    snapshots: Snapshots
    files: NamespaceFiles

    def __init__(self, namespace: Namespace, containers: Containers, clock: Clock) -> None:
        self.namespace = namespace
        self.containers = containers
        self.objects = NamespaceObjects(namespace)
        self.clock = clock

    async def put(self, key: bytes, data: bytes = DATA, kind: str = ICE, **more: Any) -> Any:
        writer = await self.objects.writer("v", key, Attributes(storage_class=kind, **more))
        await writer.write(data)
        return await writer.commit(Digests(etag="e"))

    async def get(self, key: bytes, version: str = "", volume: str = "v") -> bytes:
        reader = await self.objects.open(volume, key, version=version)
        try:
            found = b""
            while len(found) < reader.info.size:
                found += bytes(await reader.read(len(found), 1 << 20))
            return found
        finally:
            reader.close()

    async def work(self, volume: str = "v") -> list[str]:
        """Do what is due; return what that was."""
        found = await self.namespace.volumes.get(volume)
        return [
            await archives.do(self.namespace, volume, task, None)
            for task in await archives.due(self.namespace, found, 100)
        ]

    async def restored(self, key: bytes, days: int = 2, **more: Any) -> None:
        assert await self.objects.restore("v", key, days, **more)
        assert await self.work() == ["restored"]

    def pass_days(self, days: float) -> None:
        self.clock.now += int(days * DAY_NS)

    async def left_over(self) -> list[str]:
        """Return what is wrong with the rows, and records that nothing leads to."""
        problems = await audit(self.namespace, "v")
        assert problems is not None
        garbage = Garbage(self.namespace)
        while await garbage.reclaim():
            pass
        return problems + [
            f"{head.owner} at {head.container:x}:{head.offset}"
            async for head in self.containers.records(of_this_session=True)
            if not await garbage.refers(Owner(*head.owner), head.chunk)
        ]

    async def where(self, key: bytes, version: str = "") -> set[str]:
        """Return which class's stores the content lies on, "" for the common ones."""
        found = await self.namespace.volumes.get("v")
        _, revision, _ = await self.objects._finder.look(found, key, version, flat=False)
        return {"ice" if each.chunk.container >> 56 > 64 else "" for each in revision.extents}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    clock = Clock()
    async with (
        MemoryMeta() as meta,
        MemoryStore() as near,
        MemoryStore() as far,
        Journal([near], segment_size=8 << 20) as journal,
    ):
        slots = [StoreSlot("near", near), StoreSlot("far", far)]
        async with Containers(
            slots, codec=lambda name: Fixed(64 * 1024), places=[Place(ICE, (slots[1],))]
        ) as containers:
            namespace = Namespace(
                meta,
                containers,
                clock_ns=clock,
                placed=[ICE],
                archives=[ICE],
                opens=Opens(lambda: 0.0),
            )
            namespace.restores_day_ns = DAY_NS
            stage = Stage(namespace, containers, clock)
            inodes = Inodes(namespace, FileLog(journal, containers, [near]))
            stage.snapshots = Snapshots(namespace, inodes)
            stage.files = NamespaceFiles(namespace, inodes)
            await stage.objects.create_volume("v", owner=Principal("alice"))
            yield stage


async def test_content_of_an_archive_is_refused_and_described(stage: Stage) -> None:
    await stage.put(b"k")

    assert await stage.where(b"k") == {"ice"}
    info = await stage.objects.head("v", b"k")
    assert (info.storage_class, info.restore) == (ICE, None)
    with pytest.raises(Archived) as refused:
        await stage.get(b"k")
    assert refused.value.storage_class == ICE
    assert stage.objects.open_now("v", b"k") is None
    with pytest.raises(Archived):
        await stage.objects.copy("v", b"k", "v", b"other")
    upload = await stage.objects.create_upload("v", b"parts", Attributes())
    with pytest.raises(Archived):
        await stage.objects.copy_part("v", b"k", "v", b"parts", upload.upload, 1)


async def test_a_restored_object_is_read_from_the_volumes_own_stores_until_its_time_is_over(
    stage: Stage,
) -> None:
    before = await stage.put(b"k", tags={"a": "b"})
    usage = await stage.namespace.usage("v")
    assert await stage.objects.restore("v", b"k", 2, tier="Bulk")
    asked = await stage.objects.head("v", b"k")
    assert asked.restore is not None
    assert asked.restore.ongoing
    with pytest.raises(Archived):
        await stage.get(b"k")
    with pytest.raises(Restoring):
        await stage.objects.restore("v", b"k", 2)

    assert await stage.work() == ["restored"]

    info = await stage.objects.head("v", b"k")
    assert info.restore is not None
    assert not info.restore.ongoing
    assert 2 * DAY_NS <= info.restore.until_ns - asked.modified_ns < 3 * DAY_NS
    assert (info.storage_class, info.version, info.etag) == (ICE, before.version, before.etag)
    assert info.modified_ns == before.modified_ns
    assert info.attributes.tags == {"a": "b"}
    assert await stage.where(b"k") == {""}
    assert await stage.get(b"k") == DATA
    assert await stage.namespace.usage("v") == usage
    assert await stage.left_over() == []

    assert await stage.work() == []
    stage.pass_days(3)
    assert await stage.work() == ["dropped"]

    with pytest.raises(Archived):
        await stage.get(b"k")
    assert (await stage.objects.head("v", b"k")).restore is None
    assert await stage.where(b"k") == {"ice"}
    assert await stage.namespace.usage("v") == usage
    assert await stage.left_over() == []
    await stage.restored(b"k")
    assert await stage.get(b"k") == DATA
    assert await stage.left_over() == []


async def test_restoring_again_moves_the_end(stage: Stage) -> None:
    await stage.put(b"k")
    await stage.restored(b"k", 1)
    assert not await stage.objects.restore("v", b"k", 10)
    stage.pass_days(5)
    assert await stage.work() == []
    assert await stage.get(b"k") == DATA
    assert not await stage.objects.restore("v", b"k", 1)
    stage.pass_days(2)

    assert await stage.work() == ["dropped"]
    assert await stage.left_over() == []


async def test_what_was_said_meanwhile_stays_when_the_copy_goes(stage: Stage) -> None:
    await stage.put(b"k", tags={"old": "1"})
    await stage.restored(b"k", 1)
    await stage.objects.set_tags("v", b"k", {"new": "2"})
    stage.pass_days(2)
    await stage.work()

    assert (await stage.objects.head("v", b"k")).attributes.tags == {"new": "2"}


@pytest.mark.parametrize("moment", ["archived", "asked", "restored", "dropped"])
@pytest.mark.parametrize("how", ["delete", "overwrite", "another class"])
async def test_whatever_ends_a_version_takes_everything_along(
    stage: Stage, moment: str, how: str
) -> None:
    await stage.put(b"k")
    if moment != "archived":
        await stage.objects.restore("v", b"k", 1)
    if moment in ("restored", "dropped"):
        await stage.work()
    if moment == "dropped":
        stage.pass_days(2)
        await stage.work()
    if how == "delete":
        await stage.objects.delete("v", b"k")
    elif how == "overwrite":
        await stage.put(b"k", b"new" * 100_000, "STANDARD")
    else:
        assert await set_storage_class(stage.namespace, "v", b"k", "null", "STANDARD")
        assert await stage.get(b"k") == DATA
        assert (await stage.objects.head("v", b"k")).restore is None
    stage.pass_days(10)

    assert set(await stage.work()) <= {""}
    assert await stage.work() == []
    assert await stage.left_over() == []


async def test_versions_are_restored_one_by_one(stage: Stage) -> None:
    await stage.objects.set_versioning("v", "on")
    old = await stage.put(b"k", b"old" * 100_000)
    new = await stage.put(b"k", b"new" * 100_000)
    await stage.restored(b"k", version=old.version)

    assert await stage.get(b"k", old.version) == b"old" * 100_000
    with pytest.raises(Archived):
        await stage.get(b"k", new.version)
    with pytest.raises(VersionNotFound):
        await stage.objects.restore("v", b"k", 1, version="0" * 32)
    await stage.objects.delete("v", b"k")
    with pytest.raises(NotFound):
        await stage.objects.restore("v", b"k", 1)
    stage.pass_days(5)
    assert await stage.work() == ["dropped"]
    assert await stage.left_over() == []


async def test_a_current_version_that_is_overwritten_while_restored_stays_so_as_an_old_one(
    stage: Stage,
) -> None:
    await stage.objects.set_versioning("v", "on")
    old = await stage.put(b"k", b"old" * 100_000)
    await stage.restored(b"k")
    await stage.put(b"k", b"new" * 100_000, "STANDARD")

    assert await stage.get(b"k", old.version) == b"old" * 100_000
    stage.pass_days(5)
    assert await stage.work() == ["dropped"]
    with pytest.raises(Archived):
        await stage.get(b"k", old.version)
    assert await stage.left_over() == []
    await stage.objects.delete("v", b"k", version=old.version)
    assert await stage.left_over() == []


async def test_object_lock_holds_through_restoring(stage: Stage) -> None:
    await stage.objects.set_versioning("v", "on")
    await stage.objects.set_lock("v", VolumeLock())
    until_ns = 1 << 62
    kept = await stage.put(b"k", retain_mode="COMPLIANCE", retain_until_ns=until_ns)

    async def demand_locked() -> None:
        with pytest.raises(Retained):
            await stage.objects.delete("v", b"k", version=kept.version)
        info = await stage.objects.head("v", b"k")
        assert info.attributes.retain_until_ns == until_ns

    await demand_locked()
    await stage.restored(b"k")
    await demand_locked()
    await stage.objects.set_legal_hold("v", b"k", True)
    stage.pass_days(5)
    assert await stage.work() == ["dropped"]
    await demand_locked()
    assert (await stage.objects.head("v", b"k")).attributes.legal_hold
    assert await stage.left_over() == []


async def test_small_content_lies_in_its_row_and_is_refused_all_the_same(stage: Stage) -> None:
    await stage.objects.put("v", b"k", b"tiny", Attributes(storage_class=ICE), Digests(etag="e"))
    with pytest.raises(Archived):
        await stage.get(b"k")
    await stage.restored(b"k", 1)
    assert await stage.get(b"k") == b"tiny"
    stage.pass_days(2)

    assert await stage.work() == ["dropped"]
    with pytest.raises(Archived):
        await stage.get(b"k")


async def test_a_multipart_object_is_restored_with_its_parts(stage: Stage) -> None:
    upload = await stage.objects.create_upload("v", b"k", Attributes(storage_class=ICE))
    parts = []
    for number in (1, 2):
        writer = await stage.objects.part_writer("v", b"k", upload.upload, number)
        await writer.write(bytes([number]) * (5 << 20))
        info = await writer.commit(Digests(etag=f"e{number}"))
        parts.append(PartInfo(number=number, size=info.size, etag=info.etag))
    await stage.objects.complete_upload("v", b"k", upload.upload, parts, Digests(etag="m-2"))
    await stage.restored(b"k")

    assert await stage.get(b"k") == b"\1" * (5 << 20) + b"\2" * (5 << 20)
    assert [part.size for part in (await stage.objects.head("v", b"k")).parts] == [5 << 20] * 2
    stage.pass_days(5)
    await stage.work()
    assert [part.size for part in (await stage.objects.head("v", b"k")).parts] == [5 << 20] * 2
    assert await stage.left_over() == []


async def test_a_copy_of_a_restored_object_needs_the_archive_no_more(stage: Stage) -> None:
    await stage.put(b"k")
    await stage.restored(b"k")
    await stage.objects.copy(
        "v", b"k", "v", b"warm", attributes=Attributes(storage_class="STANDARD")
    )
    await stage.objects.copy("v", b"k", "v", b"cold", attributes=Attributes(storage_class=ICE))
    stage.pass_days(5)
    await stage.work()
    await stage.objects.delete("v", b"k")

    assert await stage.get(b"warm") == DATA
    with pytest.raises(Archived):
        await stage.get(b"cold")
    assert await stage.where(b"cold") == {"ice"}
    await stage.restored(b"cold")
    assert await stage.get(b"cold") == DATA
    assert await stage.left_over() == []


async def test_snapshots_and_a_rollback_know_of_copies(stage: Stage) -> None:
    snapshots = stage.snapshots
    await stage.put(b"k")
    await stage.restored(b"k", 1)
    await snapshots.create("v", "s")
    stage.pass_days(2)
    assert await stage.work() == ["dropped"]
    with pytest.raises(Archived):
        await stage.get(b"k")
    assert await stage.get(b"k", volume="v.snap-s") == DATA

    await snapshots.rollback("v", "s")
    assert await stage.get(b"k") == DATA
    assert await stage.work() == ["dropped"]
    with pytest.raises(Archived):
        await stage.get(b"k")
    await snapshots.delete("v", "s")
    while not await snapshots.clean("v"):
        pass
    assert await stage.left_over() == []


async def test_a_clone_restores_for_itself(stage: Stage) -> None:
    snapshots = stage.snapshots
    await stage.put(b"k")
    await snapshots.create("v", "s")
    await snapshots.clone("v", "c", snapshot="s", owner="alice")
    await stage.objects.restore("c", b"k", 1)
    assert await stage.work("c") == ["restored"]

    assert await stage.get(b"k", volume="c") == DATA
    with pytest.raises(Archived):
        await stage.get(b"k")
    stage.pass_days(2)
    assert await stage.work("c") == ["dropped"]
    with pytest.raises(Archived):
        await stage.get(b"k", volume="c")
    assert await audit(stage.namespace, "c") == []
    assert await stage.left_over() == []


async def test_what_is_no_archive_is_not_restored(stage: Stage) -> None:
    await stage.put(b"k", kind="STANDARD")
    with pytest.raises(Archived) as refused:
        await stage.objects.restore("v", b"k", 1)
    assert refused.value.storage_class == "STANDARD"
    for days in (0, -1, 10**6):
        with pytest.raises(InvalidArgument):
            await stage.objects.restore("v", b"k", days)
    stage.namespace.restores_day_ns = 0
    with pytest.raises(Unsupported):
        await stage.objects.restore("v", b"k", 1)


async def test_the_feed_tells_of_restoring(stage: Stage) -> None:
    await stage.put(b"k")
    await stage.restored(b"k", 1)
    stage.pass_days(2)
    await stage.work()

    found = await feed.read(stage.namespace, "v", b"", limit=10)
    assert [event.verb for event in found.events] == ["put", "restore", "restored", "unrestored"]


async def test_a_policy_with_a_place_differs_from_one_without() -> None:
    assert DataPolicy(place=ICE) != DataPolicy()


async def test_files_of_an_archive_are_read_after_they_were_restored_and_never_changed(
    stage: Stage,
) -> None:
    await stage.put(b"k")
    root = await stage.files.root("v")
    file = (await stage.files.lookup(root, b"k")).ref
    owner = OpenOwner(HERE, b"me")

    async def opened(access: Access) -> bytes:
        handle = await stage.files.open(file, owner=owner, access=access, deny=Access(0))
        try:
            return bytes(await handle.read(0, 10))
        finally:
            await handle.close()

    for access in (Access.READ, Access.WRITE, Access.READ | Access.WRITE):
        with pytest.raises(Archived):
            await opened(access)
    with pytest.raises(Archived):
        await stage.files.setattr(file, SetInfo(size=0))
    await stage.restored(b"k", 1)
    assert await opened(Access.READ) == DATA[:10]
    with pytest.raises(Archived, match="copy it to change it"):
        await opened(Access.READ | Access.WRITE)
    stage.pass_days(2)
    await stage.work()
    with pytest.raises(Archived):
        await opened(Access.READ)
    assert await stage.left_over() == []
