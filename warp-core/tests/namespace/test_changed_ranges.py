"""Ranges that are told cover every byte that differs, and little else."""

from __future__ import annotations

import asyncio

import files_stage as stage_module
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from warp_core.containers import Chunk
from warp_core.errors import InvalidArgument, NotFound
from warp_core.namespace.changed_ranges import Ranges, Run, differing, side_of
from warp_core.namespace.extents import WINDOW, Piece
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.views.objects import Attributes, Digests

ME = Owner(HERE, b"me")
V = "v"
MIB = 1024 * 1024
A, B = Chunk(1, 0, 4096, 4096), Chunk(1, 4096, 4096, 4096)


class Rig:
    async def begin(self):
        self.stage = stage_module.Stage()
        await self.stage.__aenter__()
        self.objects = NamespaceObjects(self.stage.namespace)
        self.snapshots = Snapshots(self.stage.namespace, self.stage.inodes)
        self.files = self.stage.files

    async def end(self):
        await self.stage.__aexit__(None, None, None)

    async def opened(self, path=b"f"):
        info = await self.files.walk(V, path)
        access = Access.READ | Access.WRITE
        return await self.files.open(info.ref, owner=ME, access=access, deny=Access.NONE)

    async def content(self, ref):
        file = await self.files.open(ref, owner=ME, access=Access.READ, deny=Access.NONE)
        found = b""
        while len(found) < file.size:
            found += bytes(await file.read(len(found), 1 << 20))
        await file.close()
        return found

    async def told(self, older, newer, limit=1000):
        sides = [await side_of(self.files, each) for each in (older, newer)]
        found, offset = [], 0
        while offset < sides[1].size:
            page, offset = await Ranges(self.stage.inodes, *sides).page(offset, limit)
            found += page
        return found


@pytest.fixture
async def rig():
    made = Rig()
    await made.begin()
    yield made
    await made.end()


def test_pieces_differ_where_they_refer_to_something_else():
    before = [Piece(0, 100, A, 24), Piece(200, 100, A, 224)]
    after = [Piece(0, 50, A, 24), Piece(50, 50, B, 24), Piece(250, 50, A, 274)]

    assert differing(before, after, 0, 1000) == [Run(50, 50, False), Run(200, 50, True)]
    assert differing(before, before, 0, 1000) == []
    assert differing([], [Piece(0, 8, A, 0)], 0, 4) == [Run(0, 4, False)]


async def test_a_disk_tells_what_was_written_since_its_snapshot(rig):
    blocks = rig.stage.blocks
    await blocks.create(V, b"disk", size=64 * MIB)
    disk = await blocks.open(V, b"disk", initiator="me")
    for window in range(0, 64, 2):
        await disk.write(window * MIB, b"a" * 4096)
    await blocks.snapshot(V, b"disk", "one")
    await disk.write(10 * MIB + 8192, b"b" * 4096)
    await disk.trim(20 * MIB, 4096)
    await blocks.snapshot(V, b"disk", "two")
    await disk.write(30 * MIB, b"c" * 512)
    one, two = [(await blocks.show(V, b"disk", snapshot=name)).ref for name in ("one", "two")]
    now = (await blocks.show(V, b"disk")).ref

    first = [Run(10 * MIB + 8192, 4096, False), Run(20 * MIB, 4096, True)]
    assert await rig.told(one, two) == first
    assert await rig.told(two, now) == [Run(30 * MIB, 512, False)]
    assert await rig.told(one, now, limit=1) == [*first, Run(30 * MIB, 512, False)]
    await disk.close()


async def test_only_windows_that_changed_are_read(rig):
    blocks = rig.stage.blocks
    await blocks.create(V, b"disk", size=400 * MIB)
    disk = await blocks.open(V, b"disk", initiator="me")
    for window in range(400):
        await disk.write(window * MIB, b"a" * 512)
    await disk.close()
    await rig.snapshots.create(V, "S")
    disk = await blocks.open(V, b"disk", initiator="me")
    await disk.write(7 * MIB, b"b" * 512)
    await disk.close()
    there = (await rig.files.walk(V, b".snapshots/S/disk")).ref
    reads = 0
    make = rig.stage.meta.view

    def view():
        made = make()
        get, scan = made.get, made.scan

        async def counted_get(key):
            nonlocal reads
            reads += 1
            return await get(key)

        async def counted_scan(*places, **said):
            nonlocal reads
            found = await scan(*places, **said)
            reads += 1 + len(found)
            return found

        made.get, made.scan = counted_get, counted_scan
        return made

    rig.stage.meta.view = view
    found = await rig.told(there, (await rig.files.walk(V, b"disk")).ref)
    rig.stage.meta.view = make

    assert found == [Run(7 * MIB, 512, False)]
    assert reads < 60


async def test_files_without_a_common_revision_are_compared_whole(rig):
    await rig.objects.put(V, b"f", b"a" * 3000, Attributes(), Digests(etag="a"))
    await rig.snapshots.create(V, "S")
    await rig.objects.put(V, b"f", b"b" * 2000, Attributes(), Digests(etag="b"))
    then = (await rig.files.walk(V, b".snapshots/S/f")).ref
    now = (await rig.files.walk(V, b"f")).ref

    assert await rig.told(then, now) == [Run(0, 2000, False)]
    assert await rig.told(then, then) == []


async def test_what_is_no_file_is_refused(rig):
    await rig.objects.put(V, b"d/f", b"a", Attributes(), Digests(etag="a"))
    with pytest.raises(InvalidArgument):
        await side_of(rig.files, (await rig.files.walk(V, b"d")).ref)
    with pytest.raises(NotFound):
        await rig.files.walk(V, b".snapshots/none/f")


offsets = st.one_of(st.integers(0, 3 * WINDOW), st.sampled_from([0, WINDOW - 100, WINDOW]))
sizes = st.sampled_from([1, 512, 4096, 100_000, WINDOW + 5])


class Machine(RuleBasedStateMachine):
    """One file, snapshots of its volume, and clones of it."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = Rig()
        self.run(self.rig.begin())
        self.count = 0
        data = b"\1" * 50_000
        self.run(self.rig.objects.put(V, b"f", data, Attributes(), Digests(etag="e")))
        self.moments = {}  # name → reference

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def teardown(self):
        self.run(self.rig.end())
        self.loop.close()

    def on_file(self, act):
        async def run():
            file = await self.rig.opened()
            await act(file)
            await file.close()

        self.run(run())

    @rule(offset=offsets, size=sizes)
    def write(self, offset, size):
        self.count += 1
        data = bytes([self.count % 255 + 1]) * size
        self.on_file(lambda file: file.write(offset, data))

    @rule(offset=offsets, size=sizes)
    def punch(self, offset, size):
        self.on_file(lambda file: file.punch(offset, size))

    @rule(size=offsets)
    def truncate(self, size):
        self.on_file(lambda file: file.truncate(size))

    @rule(size=st.sampled_from([100, 60_000]))
    def put(self, size):
        self.count += 1
        data = bytes([self.count % 255 + 1]) * size
        self.run(self.rig.objects.put(V, b"f", data, Attributes(), Digests(etag="e")))

    @rule()
    def snapshot(self):
        self.count += 1
        name = f"s{self.count}"
        self.run(self.rig.snapshots.create(V, name))
        path = b".snapshots/%s/f" % name.encode()
        self.moments[name] = self.run(self.rig.files.walk(V, path)).ref

    @rule()
    def clone(self):
        self.count += 1
        name = b"c%d" % self.count

        async def run():
            files = self.rig.files
            ref = (await files.walk(V, b"f")).ref
            return (await files.clone(ref, await files.root(V), name)).ref

        self.moments[name.decode()] = self.run(run())

    @rule()
    def crash(self):
        self.run(self.rig.stage.crash())
        self.rig.objects = NamespaceObjects(self.rig.stage.namespace)
        self.rig.snapshots = Snapshots(self.rig.stage.namespace, self.rig.stage.inodes)
        self.rig.files = self.rig.stage.files

    @precondition(lambda self: self.moments)
    @rule(data=st.data(), limit=st.sampled_from([1, 1000]))
    def compare(self, data, limit):
        older = self.moments[data.draw(st.sampled_from(list(self.moments)))]
        now = self.run(self.rig.files.walk(V, b"f")).ref
        then = self.run(self.rig.content(older))
        new = self.run(self.rig.content(now))

        told = self.run(self.rig.told(older, now, limit))

        assert all(run.length > 0 for run in told)
        ends = [run.offset + run.length for run in told]
        assert all(end <= run.offset for end, run in zip(ends, told[1:], strict=False))
        assert not ends or ends[-1] <= len(new)
        made = bytearray(then[: len(new)].ljust(len(new), b"\0"))
        for offset, length, hole in told:
            made[offset : offset + length] = new[offset : offset + length]
            assert not hole or not any(new[offset : offset + length])
        assert bytes(made) == new


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
