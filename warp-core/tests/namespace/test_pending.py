"""Snapshots and clones of files that are being written: shown at once, folded later, the same before, during and after."""

from __future__ import annotations

import asyncio

import files_stage as stage_module
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from warp_core.metadata import transact
from warp_core.namespace import contents, extents, folding, keys, layers, rows, tables
from warp_core.namespace.check import Check
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import HERE, Access, Owner
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.tables import chunks_of_window

ME = Owner(HERE, b"me")
BOTH = Access.READ | Access.WRITE
V = "v"
W = 64  # a small window, so that few bytes cross many
SIZE_MAX = 5 * W
places = st.integers(0, SIZE_MAX)
lengths = st.integers(1, 2 * W)


@pytest.fixture(autouse=True, scope="module")
def small_windows_and_folds_that_wait():
    patch = pytest.MonkeyPatch()
    for owner in (extents, contents, folding, layers, tables):
        patch.setattr(owner, "WINDOW", W)
    for owner in (extents, contents):
        patch.setattr(owner, "CHUNK_MAX", W // 2)
    patch.setattr(folding, "BATCH", 2)
    patch.setattr(layers, "WINDOWS_CACHED", 2)
    patch.setattr(contents, "AT_ONCE", -1)  # everything is marked
    patch.setattr(contents.Content, "fold_later", lambda self: None)  # and folded when told
    yield
    patch.undo()


def laid(state: bytearray, offset: int, data: bytes) -> None:
    state.extend(bytes(max(0, offset - len(state))))
    state[offset : offset + len(data)] = data


class Machine(RuleBasedStateMachine):
    """Open files of a volume, of clones of it, and what snapshots and clones of files show of them."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stage = stage_module.Stage()
        self.run(self.stage.__aenter__())
        self.attach()
        self.model: dict[tuple[str, bytes], bytearray] = {}  # volume, path
        self.handles = {}
        self.snapshots: dict[str, dict[bytes, bytes]] = {}
        self.held: set[str] = set()  # snapshots that clones read through
        self.readers: list = []
        self.since: dict[tuple[str, bytes], list[bytes]] = {}  # states since all was durable
        self.count = 0
        self.again = False

    def attach(self):
        self.objects = NamespaceObjects(self.stage.namespace)
        self.taken = Snapshots(self.stage.namespace, self.stage.inodes)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def open(self, volume, path, access=BOTH):
        info = await self.stage.files.walk(volume, path)
        return await self.stage.files.open(info.ref, owner=ME, access=access, deny=Access.NONE)

    async def whole(self, handle):
        return bytes(await handle.read(0, 4 * SIZE_MAX))

    def close_all(self):
        for handle in self.handles.values():
            self.run(handle.close())
        self.handles.clear()

    def teardown(self):
        self.close_all()
        volumes = {volume for volume, _ in self.model} | {V}
        for volume, path in self.model:
            self.run(self.objects.delete(volume, path))
        for volume in volumes - {V}:
            self.run(self.objects.delete_volume(volume))
        for name in set(self.snapshots) - self.held:
            self.run(self.taken.delete(V, name))
        self.run(self.stage.files.settle_collections())
        while not self.run(self.stage.inodes.drain(V)):
            pass
        left = [key for key, _ in self.run(self.rows()) if key[:1] in b"DVRIEASLXZWOCN"]
        if not self.held:
            assert left == [], "rows are left of nothing"
        self.run(self.stage.__aexit__(None, None, None))
        self.loop.close()

    async def rows(self):
        view = self.stage.meta.view()
        try:
            found, start = [], b"v"
            while page := await view.scan(start, b"w"):
                found += [(row.key[keys.PREFIX_BYTES :], row.value) for row in page]
                start = page[-1].key + b"\0"
            return found
        finally:
            view.close()

    # What happens ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model) < 3)
    @rule(path=st.sampled_from([b"a", b"b"]))
    def create(self, path):
        if (V, path) in self.model:
            return
        root = self.run(self.stage.files.root(V))
        handle, _ = self.run(
            self.stage.files.create(root, path, 0o644, owner=ME, access=BOTH, deny=Access.NONE)
        )
        self.handles[V, path], self.model[V, path] = handle, bytearray()

    def drawn(self, data):
        file = data.draw(st.sampled_from(sorted(self.model)))
        if file not in self.handles:
            self.handles[file] = self.run(self.open(*file))
        self.noted(file)
        return self.handles[file], self.model[file]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), offset=places, length=lengths)
    def write(self, data, offset, length):
        handle, state = self.drawn(data)
        self.count += 1
        new = bytes([self.count % 255 + 1]) * length
        self.run(handle.write(offset, new))
        laid(state, offset, new)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), offset=places, length=lengths)
    def punch(self, data, offset, length):
        handle, state = self.drawn(data)
        self.run(handle.punch(offset, length))
        end = min(len(state), offset + length)
        if offset < end:
            state[offset:end] = bytes(end - offset)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), size=places)
    def truncate(self, data, size):
        handle, state = self.drawn(data)
        self.run(handle.truncate(size))
        del state[size:]
        state.extend(bytes(size - len(state)))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def clone_a_file(self, data):
        volume, path = data.draw(st.sampled_from(sorted(self.model)))
        self.count += 1
        target = b"clone%d" % (self.count % 2)
        if path == target or (volume, target) in self.model:
            return
        files = self.stage.files
        info = self.run(files.walk(volume, path))
        self.run(files.clone(info.ref, self.run(files.root(volume)), target))
        self.model[volume, target] = bytearray(self.model[volume, path])
        self.since.pop((volume, path), None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        file = data.draw(st.sampled_from(sorted(self.model)))
        self.run(self.objects.delete(*file))
        del self.model[file]
        self.since.pop(file, None)
        if file in self.handles:
            self.run(self.handles.pop(file).close())

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def close(self, data):
        """What is closed is folded, whatever it lies over."""
        file = data.draw(st.sampled_from(sorted(self.handles)))
        self.run(self.handles.pop(file).close())

    @precondition(lambda self: len(self.snapshots) < 4)
    @rule()
    def snapshot(self):
        self.count += 1
        name = f"s{self.count}"
        self.run(self.taken.create(V, name))
        for file in [file for file in self.since if file[0] == V]:
            del self.since[file]
        self.snapshots[name] = {
            path: bytes(state) for (volume, path), state in self.model.items() if volume == V
        }

    @precondition(lambda self: set(self.snapshots) - self.held)
    @rule(data=st.data())
    def delete_snapshot(self, data):
        name = data.draw(st.sampled_from(sorted(set(self.snapshots) - self.held)))
        self.readers.clear()
        self.run(self.taken.delete(V, name))
        del self.snapshots[name]

    @precondition(lambda self: self.snapshots and len(self.held) < 2)
    @rule(data=st.data())
    def clone_the_volume(self, data):
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.count += 1
        target = f"clone{self.count}"
        self.run(self.taken.clone(V, target, snapshot=name, owner="me"))
        self.held.add(name)
        for path, state in self.snapshots[name].items():
            self.model[target, path] = bytearray(state)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def rollback(self, data):
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.readers.clear()
        for file in [file for file in self.handles if file[0] == V]:
            self.run(self.handles.pop(file).close())
        self.run(self.taken.rollback(V, name))
        self.model = {file: state for file, state in self.model.items() if file[0] != V}
        self.since = {file: states for file, states in self.since.items() if file[0] != V}
        for path, state in self.snapshots[name].items():
            self.model[V, path] = bytearray(state)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def open_what_a_snapshot_shows(self, data):
        name = data.draw(st.sampled_from(sorted(self.snapshots)))
        for path, state in self.snapshots[name].items():
            shown = b".snapshots/%s/%s" % (name.encode(), path)
            self.readers.append((self.run(self.open(V, shown, Access.READ)), state))

    @rule()
    def rest(self):
        self.run(self.stage.inodes.rest())

    @rule()
    def checkpoint(self):
        self.run(self.stage.inodes.checkpoint())
        assert not [key for key, _ in self.run(self.rows()) if key[:1] == b"N"]

    @rule(synced=st.booleans())
    def crash(self, synced):
        """What a snapshot shows is durable; a file that was not synced is as it was at some time since the last snapshot or sync."""
        if synced:
            for handle in self.handles.values():
                self.run(handle.sync())
        self.handles.clear()
        self.readers.clear()
        self.again = True
        self.run(self.stage.crash())
        self.attach()
        assert not [key for key, _ in self.run(self.rows()) if key[:1] == b"N"]
        for file, state in self.model.items():
            handle = self.run(self.open(*file, Access.READ))
            found = self.run(self.whole(handle))
            self.run(handle.close())
            assert found == bytes(state) or (not synced and found in self.since[file])
            state[:] = found
        self.since.clear()

    def noted(self, file):
        """Keep what a file is before it changes: a power cut may lead back to that."""
        self.since.setdefault(file, []).append(bytes(self.model[file]))

    # What is true ---------------------------------------------------------------------------------

    @invariant()
    def files_are_the_model(self):
        for file, state in self.model.items():
            handle = self.handles.get(file) or self.run(self.open(*file, Access.READ))
            assert self.run(self.whole(handle)) == bytes(state)
            if file not in self.handles:
                self.run(handle.close())

    @invariant()
    def snapshots_stay_what_they_were(self):
        for name, model in self.snapshots.items():
            for path, state in model.items():
                shown = b".snapshots/%s/%s" % (name.encode(), path)
                handle = self.run(self.open(V, shown, Access.READ))
                assert handle.size == len(state)
                assert self.run(self.whole(handle)) == state
                assert self.run(self.got(f"{V}.snap-{name}", path)) == state
        for handle, state in self.readers:
            assert self.run(self.whole(handle)) == state

    async def got(self, volume, path):
        reader = await self.objects.open(volume, path)
        try:
            found = b""
            while len(found) < reader.info.size:
                found += bytes(await reader.read(len(found), 1 << 20))
            return found
        finally:
            reader.close()

    @invariant()
    def nothing_that_is_referred_to_is_garbage(self):
        referred = set()
        for key, value in self.run(self.rows()):
            family = key[1:2] if key[:1] == b"A" else key[:1]
            if family == b"E" and not rows.is_whiteout(value):
                referred |= chunks_of_window(value)
        garbage = []
        view = self.stage.meta.view()
        for row in self.run(view.scan(keys.GARBAGE, keys.GARBAGE_END)):
            garbage += rows.decode_garbage(row.value).chunks
        view.close()
        for live in self.stage.inodes._contents.values():
            for each in live.content._stretches.queue:
                referred |= set(each.alive)
        assert not set(garbage) & referred
        assert self.again or len(garbage) == len(set(garbage))

    @rule()
    def check(self):
        found = self.run(Check(self.stage.namespace, deep=True, progress=lambda _: None).run())
        assert found.problems == []


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


# One by one --------------------------------------------------------------------------------------


@pytest.fixture
async def stage():
    async with stage_module.Stage() as made:
        yield made


async def made_file(stage, name, data):
    root = await stage.files.root(V)
    handle, _ = await stage.files.create(root, name, 0o644, owner=ME, access=BOTH, deny=Access.NONE)
    await handle.write(0, data)
    return handle, await stage.files.walk(V, name)


async def opened(stage, volume, path, access=BOTH):
    info = await stage.files.walk(volume, path)
    return await stage.files.open(info.ref, owner=ME, access=access, deny=Access.NONE)


async def marks(stage):
    view = stage.meta.view()
    try:
        prefix = keys.prefix(await stage.files.number(V))
        return await view.scan(*(prefix + bound for bound in keys.PENDING))
    finally:
        view.close()


async def test_a_clone_of_a_file_is_folded_after_what_it_lies_over(stage):
    handle, info = await made_file(stage, b"a", b"below" * 20)
    clone = await stage.files.clone(info.ref, await stage.files.root(V), b"b")
    assert len(await marks(stage)) == 1
    other = await opened(stage, V, b"b")
    await other.write(3, b"ABOVE")

    await other.close()  # which folds it

    assert not await marks(stage)
    other = await opened(stage, V, b"b", Access.READ)
    assert bytes(await other.read(0, 200)) == b"belABOVEow" + b"below" * 18
    assert clone.size == 100
    await other.close()
    await handle.close()


async def test_a_clone_of_the_volume_is_folded_after_what_it_lies_over(stage):
    taken = Snapshots(stage.namespace, stage.inodes)
    handle, _ = await made_file(stage, b"a", b"below" * 20)
    await taken.clone(V, "w", owner="me")
    await handle.write(0, b"LATER")
    other = await opened(stage, "w", b"a")
    await other.write(3, b"ABOVE")

    await other.close()

    other = await opened(stage, "w", b"a", Access.READ)
    assert bytes(await other.read(0, 200)) == b"belABOVEow" + b"below" * 18
    assert bytes(await handle.read(0, 10)) == b"LATERbelow"
    await other.close()
    await handle.close()


async def test_allocated_bytes_of_a_clone_count_what_was_pending(stage):
    handle, info = await made_file(stage, b"a", b"x" * 100)
    await stage.files.clone(info.ref, await stage.files.root(V), b"b")

    await stage.inodes.checkpoint()

    assert (await stage.files.walk(V, b"a")).allocated == 100
    assert (await stage.files.walk(V, b"b")).allocated == 100
    await handle.close()


async def test_a_snapshot_waits_for_no_fold_and_a_fold_for_the_snapshot(stage, monkeypatch):
    taken = Snapshots(stage.namespace, stage.inodes)
    handle, info = await made_file(stage, b"a", b"1" * 300)
    content = stage.inodes.live(await stage.files.number(V), info.ref.inode)
    go, begun = asyncio.Event(), asyncio.Event()
    real = folding.Fold._fold_batch

    async def slow(self, batch):
        begun.set()
        await go.wait()
        return await real(self, batch)

    monkeypatch.setattr(folding.Fold, "_fold_batch", slow)
    fold = asyncio.create_task(content.fold())
    await begun.wait()
    await handle.write(0, b"2" * 10)
    await taken.create(V, "S")
    await handle.write(0, b"3" * 10)
    assert not fold.done()
    go.set()
    await fold
    await content.fold()

    then = await opened(stage, V, b".snapshots/S/a", Access.READ)
    assert bytes(await then.read(0, 400)) == b"2" * 10 + b"1" * 290
    assert bytes(await handle.read(0, 20)) == b"3" * 10 + b"1" * 10
    assert not await marks(stage)
    await handle.close()


async def test_a_file_whose_changes_a_clone_is_shown_may_be_removed(stage):
    handle, info = await made_file(stage, b"a", b"x" * 100)
    root = await stage.files.root(V)
    await stage.files.clone(info.ref, root, b"b")
    await handle.write(0, b"y" * 10)
    await stage.files.unlink(root, b"a")
    await handle.close()
    await stage.files.settle_collections()

    await stage.crash()

    other = await opened(stage, V, b"b", Access.READ)
    assert bytes(await other.read(0, 200)) == b"x" * 100
    await other.close()


async def test_a_mark_that_nothing_waits_for_goes_with_a_restart(stage):
    handle, info = await made_file(stage, b"a", b"x" * 100)
    await stage.files.clone(info.ref, await stage.files.root(V), b"b")
    key, value, *_ = (await marks(stage))[0]
    await stage.inodes.checkpoint()
    await handle.close()

    async def put_back(tx):
        tx.put(key, value)

    await transact(stage.meta, put_back)
    await stage.crash()

    assert not await marks(stage)


async def test_writes_are_slowed_down_and_never_stopped_while_folds_are_behind(stage, monkeypatch):
    monkeypatch.setattr(contents, "FRESH_MAX", 10)
    monkeypatch.setattr(contents, "FRESH_LIMIT", 20)
    handle, info = await made_file(stage, b"a", b"x")
    content = stage.inodes.live(await stage.files.number(V), info.ref.inode)
    go = asyncio.Event()
    real = folding.Fold.run

    async def slow(self):
        await go.wait()
        await real(self)

    monkeypatch.setattr(folding.Fold, "run", slow)
    for number in range(38):
        await handle.write(number * W, b"y")
    assert content._background is not None, "a fold is under way, and none is done"

    waiting = [asyncio.create_task(handle.write(number * W, b"y")) for number in range(38, 50)]
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert len(done) < len(waiting), "memory has a limit"
    go.set()
    await asyncio.gather(*waiting)
    assert bytes(await handle.read(0, 50 * W))[::W] == b"y" * 50
    await handle.close()
