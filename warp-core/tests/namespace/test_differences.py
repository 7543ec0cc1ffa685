"""Differences between snapshots, told from what changed, are those that reading everything twice finds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import files_stage as stage_module
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from warp_core.errors import InvalidArgument, NotFound, WarpError
from warp_core.namespace import keys, rows
from warp_core.namespace.differences import Differences, _described
from warp_core.namespace.inodes import implied_directory, implied_file, read_inode
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.tree import Cursor, ViewSource
from warp_core.views.files import SetInfo
from warp_core.views.objects import Attributes, Digests

ME = Owner(HERE, b"me")
BOTH = Access.READ | Access.WRITE
V = "v"
LONG = b"n" * 230
PATHS = [b"a", b"b", b"d/c", b"d/e", b"d/f/g", b"x/" + LONG]
DIRECTORIES = [b"d", b"d/f", b"x", b"y"]
DIRECTORY_KINDS = (rows.DIRECTORY, rows.IMPLIED)


class Rig:
    def __init__(self):
        self.count = 0

    async def begin(self):
        self.stage = stage_module.Stage()
        await self.stage.__aenter__()
        self.objects = NamespaceObjects(self.stage.namespace)
        self.snapshots = Snapshots(self.stage.namespace, self.stage.inodes)

    async def end(self):
        await self.stage.__aexit__(None, None, None)

    def fresh(self, size):
        self.count += 1
        return self.count.to_bytes(2, "big") * (size // 2)

    async def put(self, path, size=3000):
        data = self.fresh(size)
        digests = Digests(etag=f"{self.count:032x}")
        await self.objects.put(V, path, data, Attributes(), digests)

    async def above(self, path):
        return await self.stage.files.lookup_parent(V, path), path.rpartition(b"/")[2]

    async def write(self, path, offset):
        info = await self.stage.files.walk(V, path)
        file = await self.stage.files.open(info.ref, owner=ME, access=BOTH, deny=Access.NONE)
        await file.write(offset, self.fresh(1000))
        await file.close()

    async def told(self, older, newer="", page=1000):
        """Return all differences, asked for in pages."""
        number = await self.stage.files.number(V)
        await self.stage.inodes.settle_all(number)
        found, cursor = [], b""
        differences = Differences(self.stage.namespace, V, older, newer)
        while True:
            some, cursor = await differences.page(cursor, page)
            found += some
            if not cursor:
                return found

    # What reading everything finds

    async def everything(self, name):
        volume = await self.stage.namespace.volumes.get(f"{V}.snap-{name}" if name else V)
        view = self.stage.meta.view()
        try:
            stored = replace(volume).rows(ViewSource(view))
            names, cursor = {}, Cursor(stored, b"D", b"E", 100, False)
            while (row := await cursor.peek()) is not None:
                cursor.skip()
                names[row[0]] = rows.decode_name(row[1])
            paths = {keys.ROOT: b""}
            while True:  # downwards, until nothing is new
                more = {
                    each.inode: paths[_directory(key)] + keys.raw_of(key[9:])
                    for key, each in names.items()
                    if each.kind in (*DIRECTORY_KINDS, rows.CONTINUED)
                    and _directory(key) in paths
                    and each.inode not in paths
                }
                if not more:
                    break
                paths |= more
            found = {}
            for key, each in names.items():
                if each.kind != rows.CONTINUED:
                    path = paths[_directory(key)] + keys.raw_of(key[9:])
                    if key.endswith(keys.DIRECTORY_END):
                        path = path[:-1]
                    found[key] = each, path, await self.state(stored, each)
            return found
        finally:
            view.close()

    async def state(self, stored, name):
        value = await stored.get(keys.inode_key(name.inode))
        if value is not None:
            inode = read_inode(name.inode, value)
        elif name.kind in DIRECTORY_KINDS:
            inode = implied_directory(name, 0)
        else:
            inode = implied_file(name)
        revision = None
        if inode.revision:
            revision = rows.decode_revision(await stored.get(keys.revision_key(inode.revision)))
        return _described(inode, revision)

    async def check(self, older, newer="", page=1000):
        then, now = await self.everything(older), await self.everything(newer)
        by_inode = {}
        for index, side in enumerate((then, now)):
            for key, (name, _, _) in side.items():
                by_inode.setdefault(name.inode, (set(), set()))[index].add(key)
        expected, several, paths_of = set(), set(), {}
        renamed = {
            inode
            for inode, (old, new) in by_inode.items()
            if len(old) == len(new) == 1 and old != new
        }
        for inode in renamed:
            [old], [new] = by_inode[inode]
            changed = _differs(then[old][2], now[new][2])
            expected.add(("renamed", then[old][1], now[new][1], *changed))
        for key in then.keys() | now.keys():
            old, new = then.get(key), now.get(key)
            if old and new and old[0].inode == new[0].inode:
                changed = _differs(old[2], new[2])
                if any(changed):
                    several.add((old[0].inode, *changed))
                    paths_of.setdefault(old[0].inode, set()).add(new[1])
                continue
            old = None if old and old[0].inode in renamed else old
            new = None if new and new[0].inode in renamed else new
            if old and new:
                both = old[0].kind in DIRECTORY_KINDS and new[0].kind in DIRECTORY_KINDS
                if both or old[0].kind == new[0].kind == rows.FILE:
                    changed = _differs(old[2], new[2])
                    if any(changed):
                        several.add((new[0].inode, *changed))
                        paths_of.setdefault(new[0].inode, set()).add(new[1])
                    continue
            if old:
                expected.add(("removed", old[1], b"", False, ()))
            if new:
                expected.add(("added", new[1], b"", False, ()))
        told = await self.told(older, newer, page)
        others = [each for each in told if each.what != "changed"]
        found = {(each.what, each.path, each.to, each.content, each.attributes) for each in others}
        assert found == expected
        assert len(others) == len(found), "nothing is told twice"
        changes = [each for each in told if each.what == "changed" and each.path]
        assert {(each.inode, each.content, each.attributes) for each in changes} == several
        assert len({each.path for each in changes}) == len(changes)
        assert all(each.path in paths_of[each.inode] for each in changes)


def _directory(key):
    return int.from_bytes(key[1:9], "big")


def _differs(before, after):
    content = before["content"] != after["content"] or before["type"] != after["type"]
    names = sorted(
        name for name in before if name not in ("content", "type") and before[name] != after[name]
    )
    return content, tuple(names)


@pytest.fixture
async def rig():
    made = Rig()
    await made.begin()
    yield made
    await made.end()


async def test_each_kind_of_difference_is_told(rig):
    files = rig.stage.files
    for path in (b"gone", b"old", b"same", b"edited", b"tagged", b"d/x", b"e/y", b"e/z"):
        await rig.put(path)
    root = await files.root(V)
    await rig.snapshots.create(V, "A")
    await rig.objects.delete(V, b"gone")
    await rig.put(b"new")
    await files.rename(root, b"old", root, b"young")
    await rig.write(b"edited", 100)
    await rig.objects.set_tags(V, b"tagged", {"a": "b"})
    await files.rename(root, b"d", root, b"moved")
    await files.setattr((await files.walk(V, b"e/y")).ref, SetInfo(mode=0o600))
    await rig.snapshots.create(V, "B")
    await rig.put(b"later")

    told = await rig.told("A", "B")

    assert {(each.what, each.path, each.to, each.content, each.attributes) for each in told} == {
        ("removed", b"gone", b"", False, ()),
        ("added", b"new", b"", False, ()),
        ("renamed", b"old", b"young", False, ()),
        ("renamed", b"d", b"moved", False, ()),
        ("changed", b"edited", b"", True, ("modified",)),
        ("changed", b"tagged", b"", False, ("tags",)),
        ("changed", b"e/y", b"", False, ("mode",)),
    }
    assert [each.path for each in await rig.told("B")] == [b"later"]
    assert await rig.told("A", "B", page=1) == told
    await rig.check("A", "B")
    await rig.check("A")


async def test_only_what_changed_is_read(rig):
    for number in range(300):
        await rig.put(b"d%02d/k%03d" % (number % 20, number), size=10)
    await rig.snapshots.create(V, "A")
    await rig.put(b"d03/k003")
    await rig.put(b"d04/new")
    await rig.objects.delete(V, b"d05/k005")
    await rig.objects.set_tags(V, b"d06/k006", {"a": "b"})
    await rig.snapshots.create(V, "B")
    reads = 0
    engine = rig.stage.meta
    make = engine.view

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

    engine.view = view
    told = await Differences(rig.stage.namespace, V, "A", "B").page()
    engine.view = make

    assert len(told[0]) == 4
    assert reads < 150


async def test_a_clone_is_compared_with_its_own_snapshots(rig):
    await rig.put(b"d/a")
    await rig.put(b"d/b")
    await rig.snapshots.create(V, "S")
    await rig.snapshots.clone(V, "w", snapshot="S", owner="me")
    await rig.snapshots.create("w", "A")
    await rig.objects.delete("w", b"d/a")
    await rig.objects.put("w", b"d/b", b"other", Attributes(), Digests(etag="f"))
    await rig.objects.put("w", b"d/c", b"new", Attributes(), Digests(etag="g"))

    told = (await Differences(rig.stage.namespace, "w", "A").page())[0]

    assert {(each.what, each.path) for each in told} == {
        ("removed", b"d/a"),
        ("changed", b"d/b"),
        ("added", b"d/c"),
    }


async def test_notes_go_with_the_snapshots_that_need_them(rig):
    async def notes():
        view = rig.stage.meta.view()
        prefix = keys.prefix(await rig.stage.files.number(V))
        found = await view.scan(prefix + b"b", prefix + b"q")
        view.close()
        return [row.key[len(prefix) : len(prefix) + 1] for row in found]

    await rig.put(b"d/before")
    assert await notes() == []
    await rig.snapshots.create(V, "A")
    for number in range(120):
        await rig.put(b"d/%d" % number, size=10)
    await rig.snapshots.create(V, "B")
    await rig.put(b"d/after", size=10)
    assert await notes() == [b"b"] * 121 + [b"p"]

    await rig.snapshots.delete(V, "A")
    assert await notes() == [b"b", b"p"]
    assert [each.path for each in await rig.told("B")] == [b"d/after"]
    await rig.snapshots.delete(V, "B")
    assert await notes() == []


async def test_what_cannot_be_compared_is_refused(rig):
    await rig.snapshots.create(V, "A")
    await rig.snapshots.create(V, "B")
    for older, newer in (("B", "A"), ("A", "A")):
        with pytest.raises(InvalidArgument, match="not newer"):
            await Differences(rig.stage.namespace, V, older, newer).page()
    with pytest.raises(NotFound):
        await Differences(rig.stage.namespace, V, "C").page()


path = st.sampled_from(PATHS)
directory = st.sampled_from(DIRECTORIES)


class Machine(RuleBasedStateMachine):
    """Anything that changes names, content and attributes; whatever is refused changed nothing."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = Rig()
        self.run(self.rig.begin())
        self.snapshots = []
        self.count = 0

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def attempt(self, coroutine):
        with suppress(WarpError):
            self.run(coroutine)

    def teardown(self):
        self.run(self.rig.end())
        self.loop.close()

    @rule(path=path)
    def put(self, path):
        self.attempt(self.rig.put(path))

    @rule(path=path)
    def delete(self, path):
        self.attempt(self.rig.objects.delete(V, path))

    @rule(path=path, offset=st.integers(0, 5000))
    def write(self, path, offset):
        self.attempt(self.rig.write(path, offset))

    @rule(path=path)
    def tag(self, path):
        self.count += 1
        self.attempt(self.rig.objects.set_tags(V, path, {"t": str(self.count)}))

    @rule(path=st.sampled_from([*PATHS, *DIRECTORIES]), mode=st.sampled_from([0o600, 0o755]))
    def chmod(self, path, mode):
        async def run():
            files = self.rig.stage.files
            await files.setattr((await files.walk(V, path)).ref, SetInfo(mode=mode))

        self.attempt(run())

    @rule(path=directory)
    def mkdir(self, path):
        async def run():
            above, name = await self.rig.above(path)
            await self.rig.stage.files.mkdir(above, name, 0o755)

        self.attempt(run())

    @rule(path=directory)
    def rmdir(self, path):
        async def run():
            above, name = await self.rig.above(path)
            await self.rig.stage.files.rmdir(above, name)

        self.attempt(run())

    @rule(
        source=st.sampled_from([*PATHS, *DIRECTORIES]),
        to=st.sampled_from([*PATHS, *DIRECTORIES]),
    )
    def rename(self, source, to):
        async def run():
            one, other = await self.rig.above(source), await self.rig.above(to)
            await self.rig.stage.files.rename(*one, *other)

        self.attempt(run())

    @rule(source=path, to=path)
    def link(self, source, to):
        async def run():
            files = self.rig.stage.files
            info = await files.walk(V, source)
            await files.link(info.ref, *await self.rig.above(to))

        self.attempt(run())

    @rule(path=path)
    def unlink(self, path):
        async def run():
            await self.rig.stage.files.unlink(*await self.rig.above(path))

        self.attempt(run())

    @rule(source=path, to=path)
    def clone(self, source, to):
        async def run():
            files = self.rig.stage.files
            info = await files.walk(V, source)
            await files.clone(info.ref, *await self.rig.above(to))

        self.attempt(run())

    @rule()
    def snapshot(self):
        self.count += 1
        self.run(self.rig.snapshots.create(V, f"s{self.count}"))
        self.snapshots.append(f"s{self.count}")

    @precondition(lambda self: len(self.snapshots) > 1)
    @rule(data=st.data())
    def forget(self, data):
        name = data.draw(st.sampled_from(self.snapshots))
        self.run(self.rig.snapshots.delete(V, name))
        self.snapshots.remove(name)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def rollback(self, data):
        name = data.draw(st.sampled_from(self.snapshots))
        self.run(self.rig.snapshots.rollback(V, name))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), page=st.sampled_from([1, 3, 1000]))
    def compare(self, data, page):
        older = data.draw(st.sampled_from(self.snapshots))
        later = self.snapshots[self.snapshots.index(older) + 1 :]
        newer = data.draw(st.sampled_from(["", *later]))
        self.run(self.rig.check(older, newer, page))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
