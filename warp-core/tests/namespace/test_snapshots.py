"""Snapshots and clones through the views, against dictionaries; and that deleting all of them frees exactly what nobody shows."""

from __future__ import annotations

import asyncio

import files_stage as stage_module
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from warp_core.containers import Chunk
from warp_core.errors import AlreadyExists, Busy, InvalidArgument, NotFound, ReadOnly
from warp_core.namespace import keys, rows
from warp_core.namespace.audit import audit
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.tables import chunks_of_window
from warp_core.views.objects import Attributes, Digests

ME = Owner(HERE, b"me")
BOTH = Access.READ | Access.WRITE
V = "v"
NAMES = [b"a", b"b", b"d/c", b"d/e"]


class Rig:
    """A stage with all views and what a test needs of them."""

    async def begin(self):
        self.stage = stage_module.Stage()
        await self.stage.__aenter__()
        self.attach()

    def attach(self):
        self.objects = NamespaceObjects(self.stage.namespace)
        self.snapshots = Snapshots(self.stage.namespace, self.stage.inodes)

    async def put(self, key, data, volume=V):
        await self.objects.put(volume, key, data, Attributes(), Digests(etag="e"))

    async def get(self, key, volume=V):
        reader = await self.objects.open(volume, key)
        try:
            found = b""
            while len(found) < reader.info.size:
                found += bytes(await reader.read(len(found), 1 << 20))
            return found
        finally:
            reader.close()

    async def all(self, volume=V):
        listing = await self.objects.list(volume)
        return {entry.key: await self.get(entry.key, volume) for entry in listing.entries}

    async def write(self, path, offset, data):
        file = await self.edit(path)
        await file.write(offset, data)
        await file.close()

    async def edit(self, path, volume=V):
        info = await self.stage.files.walk(volume, path)
        return await self.stage.files.open(info.ref, owner=ME, access=BOTH, deny=Access.NONE)

    async def drained(self):
        await self.stage.files.settle_collections()
        for volume in await self.stage.namespace.volumes.all():
            while not await self.stage.inodes.drain(volume.row.name):
                pass

    async def rows(self, prefix=b""):
        view = self.stage.meta.view()
        try:
            found = []
            start = prefix or b"\0"
            while page := await view.scan(start, keys.after(prefix) if prefix else b"\xff"):
                found += [(row.key, row.value) for row in page]
                start = page[-1].key + b"\0"
            return found
        finally:
            view.close()

    async def referred(self):
        """Return every chunk that some row, live or archived, refers to."""
        found: set[Chunk] = set()
        for key, value in await self.rows(b"v"):
            relative = key[keys.PREFIX_BYTES :]
            family = relative[1:2] if relative[:1] == b"A" else relative[:1]
            if family == b"E" and not rows.is_whiteout(value):
                found |= chunks_of_window(value)
            elif family == b"R" and not rows.is_whiteout(value):
                revision = rows.decode_revision(value)
                found |= {extent.chunk for extent in revision.extents}
                if revision.manifest:
                    found.add(revision.manifest)
        return found

    async def garbage(self):
        found: list[Chunk] = []
        for _, value in await self.rows(b"g"):
            found += rows.decode_garbage(value).chunks
        return found


@pytest.fixture
async def rig():
    made = Rig()
    await made.begin()
    yield made
    await made.stage.__aexit__(None, None, None)


async def test_worked_example_4(rig):
    await rig.put(b"p", b"0" * 2000)
    await rig.snapshots.create(V, "S1")
    await rig.put(b"p", b"1" * 2000)
    await rig.put(b"q", b"q" * 2000)
    await rig.snapshots.create(V, "S2")
    await rig.objects.delete(V, b"q")

    assert await rig.all("v.snap-S1") == {b"p": b"0" * 2000}
    assert await rig.all("v.snap-S2") == {b"p": b"1" * 2000, b"q": b"q" * 2000}
    assert await rig.all() == {b"p": b"1" * 2000}
    assert await rig.garbage() == []
    assert await rig.snapshots.exclusive(V, "S1") == 2000
    assert await rig.snapshots.exclusive(V, "S2") == 2000
    await rig.snapshots.delete(V, "S1")
    assert sum(chunk.length for chunk in await rig.garbage()) == 2000
    assert await rig.all("v.snap-S2") == {b"p": b"1" * 2000, b"q": b"q" * 2000}
    await rig.snapshots.delete(V, "S2")
    assert sum(chunk.length for chunk in await rig.garbage()) == 4000
    assert await rig.all() == {b"p": b"1" * 2000}


async def test_a_snapshot_shows_files_as_they_were_synced_or_not(rig):
    root = await rig.stage.files.root(V)
    file, _ = await rig.stage.files.create(
        root, b"a", 0o644, owner=ME, access=BOTH, deny=Access.NONE
    )
    await file.write(0, b"before")

    await rig.snapshots.create(V, "S")
    await file.write(0, b"AFTER!")
    await file.close()

    assert await rig.get(b"a", "v.snap-S") == b"before"
    there = await rig.stage.files.walk(V, b".snapshots/S/a")
    then = await rig.stage.files.open(there.ref, owner=ME, access=Access.READ, deny=Access.NONE)
    assert bytes(await then.read(0, 100)) == b"before"
    assert await rig.get(b"a") == b"AFTER!"
    names, _ = await rig.stage.files.readdir((await rig.stage.files.walk(V, b".snapshots")).ref)
    assert [entry.name for entry in names] == [b"S"]
    with pytest.raises(ReadOnly):
        await rig.stage.files.open(there.ref, owner=ME, access=BOTH, deny=Access.NONE)
    with pytest.raises(ReadOnly):
        await rig.stage.files.unlink(await rig.stage.files.root(V, snapshot="S"), b"a")
    with pytest.raises(ReadOnly):
        await rig.put(b"x", b"y", "v.snap-S")


async def test_names_of_snapshots(rig):
    await rig.snapshots.create(V, "S")
    with pytest.raises(AlreadyExists):
        await rig.snapshots.create(V, "S")
    for bad in ("", "a/b", ".", "a b", "x" * 200):
        with pytest.raises(InvalidArgument):
            await rig.snapshots.create(V, bad)
    with pytest.raises(NotFound):
        await rig.snapshots.delete(V, "T")

    assert [each.name for each in await rig.snapshots.all(V)] == ["S"]


async def test_a_clone_goes_its_own_way_and_holds_its_snapshot(rig):
    await rig.put(b"a", b"a" * 3000)
    await rig.put(b"b", b"b" * 3000)
    await rig.write(b"b", 10, b"edited")
    await rig.snapshots.create(V, "S")
    await rig.snapshots.clone(V, "w", snapshot="S", owner="me")

    await rig.put(b"a", b"A" * 3000)
    await rig.put(b"c", b"c" * 3000, "w")
    await rig.objects.delete("w", b"a")
    file = await rig.edit(b"b", "w")
    await file.write(0, b"clone")
    await file.close()

    original = b"b" * 10 + b"edited" + b"b" * 2984
    assert await rig.all() == {b"a": b"A" * 3000, b"b": original}
    assert await rig.all("w") == {b"b": b"clone" + original[5:], b"c": b"c" * 3000}
    with pytest.raises(Busy):
        await rig.snapshots.delete(V, "S")
    await rig.objects.delete("w", b"b")
    await rig.objects.delete("w", b"c")
    await rig.objects.delete_volume("w")
    await rig.snapshots.delete(V, "S")
    assert await rig.all() == {b"a": b"A" * 3000, b"b": original}
    assert not set(await rig.garbage()) & await rig.referred()


async def test_a_snapshot_costs_the_same_whatever_the_volume_holds(rig):
    async def commits():
        view = rig.stage.meta.view()
        try:
            return view.version
        finally:
            view.close()

    await rig.snapshots.create(V, "S0")
    for n in range(200):
        await rig.put(b"k%d" % n, b"x")
    before = await commits()
    await rig.snapshots.create(V, "S1")

    assert await commits() == before + 1


steps = st.integers(0, 3)


class Machine(RuleBasedStateMachine):
    """Files and objects of one volume, and its snapshots."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = Rig()
        self.run(self.rig.begin())
        self.model: dict[bytes, bytes] = {}
        self.snapshots: dict[str, dict[bytes, bytes]] = {}
        self.count = 0
        self.layered = False  # some revision lies over another

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def teardown(self):
        for name in list(self.snapshots):
            self.run(self.rig.snapshots.delete(V, name))
        for key in list(self.model):
            self.run(self.rig.objects.delete(V, key))
        self.run(self.rig.drained())
        left = [key[5:] for key, _ in self.run(self.rig.rows(b"v"))]
        kept = [key for key in left if key[:1] in b"DVRIEASLXZWOCG"]
        assert kept == [], "rows are left of nothing"
        appended = set(self.run(self.rig.garbage()))
        assert not appended & self.run(self.rig.referred())
        self.run(self.rig.stage.__aexit__(None, None, None))
        self.loop.close()

    def fresh(self, size):
        self.count += 1
        return bytes([self.count % 255 + 1]) * size

    @rule(name=st.sampled_from(NAMES), size=st.sampled_from([5, 3000, 70_000]))
    def put(self, name, size):
        data = self.fresh(min(size, 60_000))
        self.run(self.rig.put(name, data))
        self.model[name] = data

    @precondition(lambda self: self.model)
    @rule(data=st.data(), offset=st.integers(0, 4000), size=st.sampled_from([1, 5000]))
    def write(self, data, offset, size):
        name = data.draw(st.sampled_from(sorted(self.model)))
        new = self.fresh(size)
        self.run(self.rig.write(name, offset, new))
        old = self.model[name].ljust(offset, b"\0")
        self.model[name] = old[:offset] + new + old[offset + size :]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.run(self.rig.objects.delete(V, name))
        del self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), to=st.sampled_from([b"moved", b"a"]))
    def rename(self, data, to):
        target = to
        name = data.draw(st.sampled_from(sorted(name for name in self.model)))
        if b"/" in name or name == target:
            return
        files = self.rig.stage.files
        root = self.run(files.root(V))
        self.run(files.rename(root, name, root, target))
        self.model[target] = self.model.pop(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def clone_a_file(self, data):
        name = data.draw(st.sampled_from(sorted(self.model)))
        files = self.rig.stage.files
        root = self.run(files.root(V))
        info = self.run(files.walk(V, name))
        target = b"clone%d" % (self.count % 3)
        self.run(files.clone(info.ref, root, target, replace=True)) if name != target else None
        if name != target:
            self.model[target] = self.model[name]
            self.layered = True

    @rule()
    def snapshot(self):
        self.count += 1
        name = f"s{self.count}"
        self.run(self.rig.snapshots.create(V, name))
        self.snapshots[name] = dict(self.model)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def delete_snapshot(self, data):
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.well_counted()
        expected = self.run(self.rig.snapshots.space(V))[name]
        before = set(self.run(self.rig.garbage()))
        self.run(self.rig.snapshots.delete(V, name))
        self.run(self.rig.drained())
        gone = set(self.run(self.rig.garbage())) - before
        freed = sum(chunk.length for chunk in gone), sum(chunk.stored for chunk in gone)
        if self.layered:  # revisions that only those lay over which the snapshot showed go with it
            assert freed >= expected
        else:
            assert freed == expected
        del self.snapshots[name]
        self.well_counted()

    def well_counted(self):
        """Check counters, what snapshots hold among them, against a recount."""
        assert self.run(audit(self.rig.stage.namespace, V)) == []

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def rollback(self, data):
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.run(self.rig.snapshots.rollback(V, name))
        self.model = dict(self.snapshots[name])
        self.well_counted()

    @rule()
    def crash(self):
        self.run(self.rig.stage.crash())
        self.rig.attach()

    @invariant()
    def the_volume_is_the_model(self):
        assert self.run(self.rig.all()) == self.model

    @invariant()
    def snapshots_stay_what_they_were(self):
        for name, model in self.snapshots.items():
            assert self.run(self.rig.all(f"v.snap-{name}")) == model

    @invariant()
    def nothing_that_is_referred_to_is_garbage(self):
        self.run(self.rig.drained())
        garbage = self.run(self.rig.garbage())
        assert not set(garbage) & self.run(self.rig.referred())
        assert len(garbage) == len(set(garbage))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
