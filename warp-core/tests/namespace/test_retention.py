"""Object lock holds for every view, and its clock for every change of the machine's."""

from __future__ import annotations

import time

import files_stage as stage_module
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warp_core.errors import (
    CrossesVolumes,
    InvalidArgument,
    IsDeleteMarker,
    Locked,
    NotEmpty,
    Retained,
)
from warp_core.interfaces.auth import Principal
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.retention import LockClock, check_lock, until
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.upkeep import Upkeep
from warp_core.views.files import Rename, SetInfo
from warp_core.views.objects import Attributes, Digests, PartInfo, VolumeLock
from warp_meta_memory.engine import Memory as MemoryMeta

ALICE = Principal("account:alice")
ME = Owner(HERE, b"me")
L = "locked"
HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS


class Rig:
    """A stage with a volume that has object lock, and a wall clock and a counter that a test sets."""

    def __init__(self, stage):
        self.stage = stage
        self.wall_ns = time.time_ns()
        self.steady_ns = 0
        self.files, self.blocks = stage.files, stage.blocks
        self.clock = LockClock(
            stage.meta, lambda: self.wall_ns, steady_ns=lambda: self.steady_ns, boot=lambda: "boot"
        )
        stage.namespace.lock_clock = self.clock
        stage.namespace.clock_ns = lambda: self.wall_ns
        self.objects = NamespaceObjects(stage.namespace)
        self.snapshots = Snapshots(stage.namespace, stage.inodes)

    def retained(self, mode="COMPLIANCE", *, hours=1):
        return Attributes(retain_mode=mode, retain_until_ns=self.wall_ns + hours * HOUR_NS)

    async def put(self, key, data=b"data" * 500, attributes=None):
        said = attributes or Attributes()
        made = await self.objects.put(L, key, data, said, Digests(etag="e"))
        return made.version

    async def content(self, key, version):
        reader = await self.objects.open(L, key, version=version)
        data = bytes(await reader.read(0, 1 << 20))
        reader.close()
        return data

    async def open(self, path, access=Access.READ | Access.WRITE):
        info = await self.files.walk(L, path)
        return await self.files.open(info.ref, owner=ME, access=access, deny=Access.NONE)


@pytest.fixture
async def rig():
    async with stage_module.Stage() as stage:
        made = Rig(stage)
        await made.objects.create_volume(L, owner=ALICE, locked=True)
        yield made


# Objects ------------------------------------------------------------------------------------------


async def test_a_locked_volume_keeps_versions_for_good(rig):
    info = await rig.objects.volume(L)
    assert (info.versioning, info.lock) == ("on", VolumeLock())

    with pytest.raises(InvalidArgument):
        await rig.objects.set_versioning(L, "suspended")
    assert (await rig.objects.volume("v")).lock is None
    with pytest.raises(InvalidArgument):
        await rig.objects.set_lock("v", VolumeLock())
    await rig.objects.set_versioning("v", "on")
    await rig.objects.set_lock("v", VolumeLock("GOVERNANCE", days=3))
    assert (await rig.objects.volume("v")).lock == VolumeLock("GOVERNANCE", 3)


async def test_where_nothing_can_be_locked_asking_for_it_is_refused(rig):
    made = Digests(etag="e")
    with pytest.raises(InvalidArgument):
        await rig.objects.put("v", b"k", b"x", rig.retained(), made)
    with pytest.raises(InvalidArgument):
        await rig.objects.put("v", b"k", b"x", Attributes(legal_hold=True), made)
    with pytest.raises(InvalidArgument):
        await rig.objects.create_upload("v", b"k", rig.retained())
    await rig.objects.put("v", b"k", b"x", Attributes(), made)
    with pytest.raises(InvalidArgument):
        await rig.objects.set_retention("v", b"k", "GOVERNANCE", rig.wall_ns + HOUR_NS)
    with pytest.raises(InvalidArgument):
        await rig.objects.set_legal_hold("v", b"k", True)


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
async def test_a_retained_version_stays_until_its_time_and_markers_go_on(rig, mode):
    version = await rig.put(b"k", attributes=rig.retained(mode))

    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=version)
    marker = await rig.objects.delete(L, b"k")
    assert marker.marker
    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=version)
    assert (await rig.objects.delete(L, b"k", version=marker.version)).marker
    rig.steady_ns += HOUR_NS + 1
    await rig.objects.delete(L, b"k", version=version)
    assert (await rig.objects.list_versions(L)).entries == []
    assert await audit(rig.stage.namespace, L) == []


async def test_bypass_ends_governance_and_nothing_else(rig):
    weak = await rig.put(b"k", attributes=rig.retained("GOVERNANCE"))
    strong = await rig.put(b"k", attributes=rig.retained("COMPLIANCE"))
    held = await rig.put(b"k", attributes=Attributes(legal_hold=True))

    await rig.objects.delete(L, b"k", version=weak, bypass=True)
    for version in (strong, held):
        with pytest.raises(Retained):
            await rig.objects.delete(L, b"k", version=version, bypass=True)
    await rig.objects.set_legal_hold(L, b"k", False, version=held)
    await rig.objects.delete(L, b"k", version=held)


async def test_retention_is_made_longer_by_all_and_shorter_by_few(rig):
    version = await rig.put(b"k", attributes=rig.retained("GOVERNANCE", hours=4))
    shorter, longer = rig.wall_ns + HOUR_NS, rig.wall_ns + 8 * HOUR_NS
    set_retention = rig.objects.set_retention

    with pytest.raises(Retained):
        await set_retention(L, b"k", "GOVERNANCE", shorter)
    with pytest.raises(Retained):
        await set_retention(L, b"k", "", 0)
    assert await set_retention(L, b"k", "GOVERNANCE", shorter, bypass=True) == version
    await set_retention(L, b"k", "GOVERNANCE", longer)
    with pytest.raises(Retained):
        await set_retention(L, b"k", "COMPLIANCE", longer)
    await set_retention(L, b"k", "COMPLIANCE", longer, bypass=True)
    for mode, until_ns in (("GOVERNANCE", longer), ("COMPLIANCE", shorter), ("", 0)):
        with pytest.raises(Retained):
            await set_retention(L, b"k", mode, until_ns, bypass=True)
    with pytest.raises(InvalidArgument):
        await set_retention(L, b"k", "COMPLIANCE", rig.wall_ns - 1)
    said = (await rig.objects.head(L, b"k")).attributes
    assert (said.retain_mode, said.retain_until_ns) == ("COMPLIANCE", longer)


async def test_what_says_nothing_is_retained_as_the_volume_says(rig):
    await rig.objects.set_lock(L, VolumeLock("COMPLIANCE", days=2))
    version = await rig.put(b"k")
    own = await rig.put(b"own", attributes=rig.retained("GOVERNANCE"))

    said = (await rig.objects.head(L, b"k", version=version)).attributes
    assert (said.retain_mode, said.retain_until_ns) == ("COMPLIANCE", rig.wall_ns + 2 * DAY_NS)
    assert (await rig.objects.head(L, b"own", version=own)).attributes.retain_mode == "GOVERNANCE"
    await rig.objects.set_lock(L, VolumeLock())
    assert not (
        await rig.objects.head(L, b"k2", version=await rig.put(b"k2"))
    ).attributes.retain_mode
    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=version)


async def test_overwriting_copying_and_multipart_leave_the_locked_version(rig):
    version = await rig.put(b"k", b"first" * 300, attributes=rig.retained())
    await rig.put(b"k", b"second")
    await rig.put(b"other", b"third")
    await rig.objects.copy(L, b"other", L, b"k")
    copied = await rig.objects.copy(L, b"k", L, b"copy", source_version=version)
    upload = await rig.objects.create_upload(L, b"k", Attributes())
    part = await rig.objects.part_writer(L, b"k", upload.upload, 1)
    await part.write(b"fourth")
    done = await part.commit(Digests(etag="p"))
    info = PartInfo(number=1, size=6, etag=done.etag)
    await rig.objects.complete_upload(L, b"k", upload.upload, [info], Digests(etag="m"))

    assert await rig.content(b"k", version) == b"first" * 300
    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=version)
    # A copy has the content and not the lock; dropping it leaves the original alone.
    assert not (await rig.objects.head(L, b"copy")).attributes.retain_mode
    await rig.objects.delete(L, b"copy", version=copied.version)
    assert await rig.content(b"k", version) == b"first" * 300
    assert await audit(rig.stage.namespace, L) == []


async def test_what_a_removed_version_lent_goes_with_the_last_copy(rig):
    version = await rig.put(b"k", b"x" * 3000, attributes=rig.retained("GOVERNANCE"))
    copied = await rig.objects.copy(L, b"k", L, b"copy")
    await rig.objects.delete(L, b"k", version=version, bypass=True)

    assert await rig.content(b"copy", copied.version) == b"x" * 3000
    await rig.objects.delete(L, b"copy", version=copied.version)
    assert (await rig.objects.list_versions(L)).entries == []
    assert await audit(rig.stage.namespace, L) == []


async def test_an_upload_keeps_the_retention_that_it_began_with(rig):
    said = rig.retained(hours=1)
    upload = await rig.objects.create_upload(L, b"k", said)
    part = await rig.objects.part_writer(L, b"k", upload.upload, 1)
    await part.write(b"part")
    done = await part.commit(Digests(etag="p"))
    info = PartInfo(number=1, size=4, etag=done.etag)
    made = await rig.objects.complete_upload(L, b"k", upload.upload, [info], Digests(etag="m"))

    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=made.version)
    with pytest.raises(InvalidArgument):
        await rig.objects.create_upload(L, b"k", Attributes(retain_mode="GOVERNANCE"))


async def test_a_volume_with_locked_content_is_neither_deleted_nor_rolled_back(rig):
    await rig.put(b"k")
    await rig.snapshots.create(L, "S")
    version = await rig.put(b"k2", attributes=Attributes(legal_hold=True))
    with pytest.raises(Retained):
        await rig.snapshots.rollback(L, "S")
    await rig.snapshots.delete(L, "S")
    while not await rig.snapshots.clean(L):
        pass
    with pytest.raises(NotEmpty):
        await rig.objects.delete_volume(L)

    await rig.objects.delete(L, b"k2")
    with pytest.raises(NotEmpty):
        await rig.objects.delete_volume(L)
    assert await rig.content(b"k2", version) == b"data" * 500


async def test_a_clone_has_the_lock_of_its_origin(rig):
    version = await rig.put(b"k", attributes=rig.retained())
    await rig.snapshots.clone(L, "twin", owner="account:alice")

    info = await rig.objects.volume("twin")
    assert (info.versioning, info.lock) == ("on", VolumeLock())
    with pytest.raises(Retained):
        await rig.objects.delete("twin", b"k", version=version)
    with pytest.raises(InvalidArgument):
        await rig.objects.set_versioning("twin", "suspended")


# Files and Blocks ---------------------------------------------------------------------------------


async def test_what_is_locked_is_not_written_in_place(rig):
    version = await rig.put(b"k", b"lockedby" * 512, attributes=rig.retained())
    ref = (await rig.files.walk(L, b"k")).ref

    with pytest.raises(Retained):
        await rig.open(b"k")
    with pytest.raises(Retained):
        await rig.files.setattr(ref, SetInfo(size=0))
    with pytest.raises(Retained):
        await rig.blocks.create(L, b"k", size=None)
    root = await rig.files.root(L)
    with pytest.raises(Retained):
        await rig.files.create(
            root, b"k", 0o644, owner=ME, access=Access.WRITE, deny=Access.NONE, truncate=True
        )
    file = await rig.open(b"k", Access.READ)
    assert bytes(await file.read(0, 100)) == (b"lockedby" * 512)[:100]
    await file.close()
    rig.steady_ns += 2 * HOUR_NS
    await (await rig.open(b"k")).close()
    assert await rig.content(b"k", version) == b"lockedby" * 512


async def test_a_file_that_is_being_written_cannot_be_locked(rig):
    await rig.put(b"k")
    file = await rig.open(b"k")
    await file.write(0, b"new")

    with pytest.raises(Locked):
        await rig.objects.set_retention(L, b"k", "COMPLIANCE", rig.wall_ns + HOUR_NS)
    with pytest.raises(Locked):
        await rig.objects.set_legal_hold(L, b"k", True)
    await file.close()
    version = await rig.objects.set_legal_hold(L, b"k", True)
    with pytest.raises(Retained):
        await rig.open(b"k")
    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=version)
    assert (await rig.content(b"k", version))[:4] == b"newa"


async def test_unlinking_and_renaming_leave_the_locked_version_under_its_key(rig):
    root = await rig.files.root(L)
    first = await rig.put(b"a", b"first" * 400, attributes=rig.retained())
    second = await rig.put(b"b", b"second" * 400, attributes=rig.retained())
    await rig.put(b"c", b"third")
    await rig.files.unlink(root, b"a")
    await rig.files.rename(root, b"b", root, b"moved")
    await rig.files.rename(root, b"c", root, b"moved")
    await rig.put(b"d", b"fourth")
    await rig.put(b"e", b"fifth")
    await rig.files.rename(root, b"d", root, b"e", how=Rename.EXCHANGE)

    for key, version, data in ((b"a", first, b"first"), (b"b", second, b"second")):
        with pytest.raises(IsDeleteMarker):
            await rig.objects.head(L, key)
        assert await rig.content(key, version) == data * 400
        with pytest.raises(Retained):
            await rig.objects.delete(L, key, version=version)
    assert await audit(rig.stage.namespace, L) == []


async def test_directories_keep_their_names(rig):
    root = await rig.files.root(L)
    version = await rig.put(b"dir/k", attributes=rig.retained())
    with pytest.raises(CrossesVolumes):
        await rig.files.rename(root, b"dir", root, b"elsewhere")
    assert await rig.content(b"dir/k", version) == b"data" * 500


async def test_hard_links_go_and_the_locked_version_stays(rig):
    root = await rig.files.root(L)
    await rig.put(b"x")
    await rig.files.link((await rig.files.walk(L, b"x")).ref, root, b"y")
    version = await rig.objects.set_retention(L, b"x", "COMPLIANCE", rig.wall_ns + HOUR_NS)

    await rig.files.unlink(root, b"y")
    with pytest.raises(Retained):
        await rig.objects.delete(L, b"x", version=version)
    await rig.files.unlink(root, b"x")
    with pytest.raises(Retained):
        await rig.objects.delete(L, b"x", version=version)


async def test_a_locked_disk_is_read_only(rig):
    await rig.blocks.create(L, b"disk", size=1 << 20)
    disk = await rig.blocks.open(L, b"disk", initiator="i")
    await disk.write(0, b"x" * 4096)
    with pytest.raises(Locked):
        await rig.objects.set_legal_hold(L, b"disk", True)
    await disk.close()
    await rig.objects.set_legal_hold(L, b"disk", True)

    with pytest.raises(Retained):
        await rig.blocks.open(L, b"disk", initiator="i")
    with pytest.raises(Retained):
        await rig.blocks.resize(L, b"disk", 2 << 20)
    with pytest.raises(Retained):
        await rig.blocks.delete(L, b"disk")
    disk = await rig.blocks.open(L, b"disk", initiator="i", read_only=True)
    assert bytes(await disk.read(0, 4096)) == b"x" * 4096
    await disk.close()


# The clock ----------------------------------------------------------------------------------------


async def test_setting_the_wall_clock_frees_nothing_and_shortens_nothing(rig):
    version = await rig.put(b"k", attributes=rig.retained())
    true_ns = rig.wall_ns
    rig.wall_ns += 1000 * DAY_NS

    with pytest.raises(Retained):
        await rig.objects.delete(L, b"k", version=version)
    with pytest.raises(Retained):
        await rig.objects.set_retention(L, b"k", "", 0)
    rig.wall_ns = true_ns - 1000 * DAY_NS
    await rig.objects.set_lock(L, VolumeLock("COMPLIANCE", days=1))
    said = (await rig.objects.head(L, b"k2", version=await rig.put(b"k2"))).attributes
    assert said.retain_until_ns == true_ns + DAY_NS
    rig.steady_ns += HOUR_NS + 1
    await rig.objects.delete(L, b"k", version=version)


class Machine:
    """What a clock is made of, for one boot after the other."""

    def __init__(self, meta):
        self.meta, self.wall_ns, self.steady_ns, self.boot = meta, 10**18, 0, 1
        self.clock = self.started()

    def started(self):
        return LockClock(
            self.meta,
            lambda: self.wall_ns,
            steady_ns=lambda: self.steady_ns,
            boot=lambda: str(self.boot),
        )

    async def do(self, step, amount):
        if step == "wait":
            self.steady_ns += amount
            self.wall_ns += amount
        elif step == "set":
            self.wall_ns += amount * 1000 - 10**17
        elif step == "restart":
            self.clock = self.started()
        elif step == "reboot":
            self.boot += 1
            self.steady_ns = amount
            self.clock = self.started()
        else:
            await self.clock.persist()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "set", "restart", "reboot", "persist"]),
            st.integers(0, 10**15),
        ),
        max_size=12,
    )
)
async def test_the_clock_never_goes_back_and_never_faster_than_time(steps):
    async with MemoryMeta() as meta:
        machine = Machine(meta)
        assert await machine.clock.now_ns() == machine.wall_ns  # nothing is locked yet
        await machine.clock.start()
        start_ns = machine.wall_ns
        passed_ns = 0
        persisted_ns = start_ns
        for step, amount in steps:
            await machine.do(step, amount)
            passed_ns += amount if step == "wait" else 0
            now_ns = await machine.clock.now_ns()
            assert persisted_ns <= now_ns <= start_ns + passed_ns
            if step == "persist" and now_ns - persisted_ns >= 60 * 10**9:
                persisted_ns = now_ns
            if "reboot" not in [each for each, _ in steps]:
                assert now_ns == start_ns + passed_ns


async def test_upkeep_writes_the_clock_and_a_reboot_goes_on_from_there(rig):
    rig.steady_ns += 5 * HOUR_NS
    await Upkeep(rig.stage.namespace).work()
    after = LockClock(rig.stage.meta, lambda: 0, steady_ns=lambda: 7, boot=lambda: "another")
    assert await after.now_ns() == rig.wall_ns + 5 * HOUR_NS


@pytest.mark.parametrize(
    "lock",
    [
        VolumeLock("GOVERNANCE"),
        VolumeLock("GOVERNANCE", days=1, years=1),
        VolumeLock("GOVERNANCE", days=-1),
        VolumeLock("GOVERNANCE", days=36_501),
        VolumeLock("GOVERNANCE", years=101),
        VolumeLock("", days=1),
        VolumeLock("governance", days=1),  # type: ignore[arg-type]
    ],
)
def test_a_period_that_cannot_be_is_refused(lock):
    with pytest.raises(InvalidArgument):
        check_lock(lock)


def test_a_year_is_a_year_of_the_calendar():
    day = 1_709_164_800 * 10**9  # 29 February 2024
    assert until(VolumeLock("GOVERNANCE", years=1), day + 5) == 1_740_700_800 * 10**9 + 5
    assert until(VolumeLock("GOVERNANCE", years=4), day) == 1_835_395_200 * 10**9
