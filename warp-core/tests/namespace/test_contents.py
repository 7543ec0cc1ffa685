"""Content written in place against a plain bytearray: reads, folds that fail, crashes, snapshots, shared revisions, garbage."""

from __future__ import annotations

import asyncio

import content_rig as rig_module
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from warp_core.containers import Chunk
from warp_core.errors import NoSpace, OutOfRange
from warp_core.namespace import contents, extents, folding, layers, rows, tables
from warp_core.namespace.extents import HOLE, SIZE, WRITE, pieces_of, unpack_change
from warp_core.namespace.rows import Extent
from warp_core.namespace.tables import chunks_of_window

Rig, Ledger, FILE = rig_module.Rig, rig_module.Ledger, rig_module.FILE

W = 64  # a small window, so that few bytes cross many


@pytest.fixture(autouse=True, scope="module")
def small_windows():
    patch = pytest.MonkeyPatch()
    for owner in (extents, contents, folding, layers, tables):
        patch.setattr(owner, "WINDOW", W)
    for owner in (extents, contents, folding):
        patch.setattr(owner, "PIECES_MAX", 12)
    for owner in (extents, contents):
        patch.setattr(owner, "CHUNK_MAX", W // 2)
    patch.setattr(folding, "BATCH", 2)
    patch.setattr(folding, "CHUNK_WASTE", 2)
    patch.setattr(layers, "WINDOWS_CACHED", 2)
    patch.setattr(contents, "FRESH_MAX", 40)
    patch.setattr(contents, "FRESH_LIMIT", 60)
    patch.setattr(contents, "FEW", 3)
    patch.setattr(contents, "MARKED_FEW", 6)
    patch.setattr(contents, "AT_ONCE", 1)
    patch.setattr(
        contents.Content, "fold_later", lambda self: None
    )  # folds come when they are told
    yield
    patch.undo()


SIZE_MAX = 6 * W
places = st.integers(0, SIZE_MAX)
lengths = st.integers(1, 2 * W)
starts = st.sampled_from(["empty", "inline", "extents"])


async def turns(count: int) -> None:
    """Let others run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


def apply(state: bytearray, payload: bytes) -> bytearray:
    """Return what a record makes of a file."""
    what, offset, length = unpack_change(payload)
    new = bytearray(state)
    if what == SIZE:
        del new[offset:]
        new.extend(bytes(offset - len(new)))
        return new
    end = offset + length
    if what == HOLE:
        new[offset:end] = bytes(length)
    elif what == WRITE:
        new.extend(bytes(max(0, end - len(new))))
        new[offset:end] = payload[extents.CHANGE_HEAD :]
    return new


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = Rig()
        self.first = bytearray()
        self.snapshots: dict[int, bytearray] = {}
        self.shared: dict[int, bytearray] = {}
        self.readers: list[tuple[contents.Content, bytearray]] = []
        self.count = 0
        self.begun = False
        self.broke_off = False
        self.forgot = False  # which windows keep more than they show

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def teardown(self):
        if self.begun:
            self.run(self.rig.store.__aexit__(None, None, None))
        self.loop.close()

    @property
    def model(self) -> bytearray:
        state = self.first
        for chunk, payload in self.rig.log.records.items():
            if self.rig.log.owners[chunk][1] == FILE:
                state = apply(state, payload)
        return state

    @precondition(lambda self: not self.begun)
    @rule(how=starts)
    def begin(self, how):
        self.begun = True
        if how == "empty":
            self.run(self.rig.begin())
            return
        if how == "inline":
            self.first = bytearray(b"inline bytes of a small object")
            self.run(self.rig.begin(size=30, inline=bytes(self.first)))
            return
        data = bytes(range(1, 201))
        chunk = self.rig.log.append(data, volume=1, inode=1, revision=7)
        self.run(self.rig.log.flush())
        extents_ = (Extent(0, 100, chunk), Extent(150, 100, chunk, 100))
        self.first = bytearray(data[:100] + bytes(50) + data[100:])
        self.run(self.rig.begin(size=250, extents=extents_))

    @precondition(lambda self: self.begun)
    @rule(offset=places, length=lengths)
    def write(self, offset, length):
        self.count += 1
        self.run(self.rig.content.ready())
        self.rig.content.write(offset, bytes([self.count % 255 + 1]) * length)

    @precondition(lambda self: self.begun)
    @rule(offset=places, length=lengths)
    def punch(self, offset, length):
        self.run(self.rig.content.ready())
        self.rig.content.punch(offset, length)

    @precondition(lambda self: self.begun)
    @rule(size=places)
    def truncate(self, size):
        self.run(self.rig.content.ready())
        self.rig.content.truncate(size)

    @precondition(lambda self: self.begun)
    @rule()
    def sync(self):
        self.run(self.rig.content.sync())

    @precondition(lambda self: self.begun)
    @rule()
    def fold(self):
        self.run(self.rig.content.fold())
        if self.rig.content.dirty:  # it found windows that keep more than they show
            self.run(self.rig.content.fold())
        assert not self.rig.content.dirty

    @precondition(lambda self: self.begun)
    @rule(after=st.integers(0, 3))
    def fold_on_a_full_store(self, after):
        self.rig.ledger.fail_after = after
        try:
            self.run(self.rig.content.fold())
        except NoSpace:
            self.broke_off = self.forgot = True
            assert self.rig.content.dirty
        self.rig.ledger.fail_after = None

    @precondition(lambda self: self.begun)
    @rule(more=st.integers(0, 5))
    def crash(self, more):
        self.forgot = True
        self.readers.clear()
        self.run(self.rig.crash(more))

    @precondition(lambda self: self.begun)
    @rule(after=st.integers(0, 3), more=st.integers(0, 5))
    def crash_in_a_fold(self, after, more):
        self.fold_on_a_full_store(after)
        self.crash(more)

    @precondition(lambda self: self.begun)
    @rule()
    def snapshot(self):
        self.snapshots[self.run(self.rig.snapshot())] = self.model

    @precondition(lambda self: self.begun)
    @rule()
    def share(self):
        self.forgot = True
        revision = self.run(self.rig.share())
        self.shared[revision] = self.model

    @precondition(lambda self: self.begun)
    @rule(
        steps=st.lists(st.integers(0, 12), min_size=3, max_size=3),
        kind=st.sampled_from(["snapshot", "share"]),
        writes=st.lists(st.tuples(places, lengths), max_size=4),
    )
    def snapshot_beside_a_fold_and_writes(self, steps, kind, writes):
        """What it shows is the content of one moment, however far the fold and the writers are."""
        model = bytearray()

        def moment():
            model[:] = self.model

        async def write(offset, length):
            await self.rig.content.ready()
            self.count += 1
            self.rig.content.write(offset, bytes([self.count % 255 + 1]) * length)

        async def all_of_it():
            tasks = [asyncio.create_task(self.rig.content.fold())]
            await turns(steps[0])
            made = asyncio.create_task(getattr(self.rig, kind)(moment))
            for offset, length in writes:
                await turns(steps[1])
                tasks.append(asyncio.create_task(write(offset, length)))
            await turns(steps[2])
            tasks.append(asyncio.create_task(self.rig.content.catch_up()))
            number = await made
            await asyncio.gather(*tasks)
            return number

        number = self.run(all_of_it())
        if kind == "share":
            self.forgot = True
        (self.snapshots if kind == "snapshot" else self.shared)[number] = model

    @precondition(lambda self: self.begun and self.snapshots and len(self.readers) < 4)
    @rule(data=st.data())
    def open_a_snapshot(self, data):
        """Who opened it goes on reading the same while its windows are folded."""
        number = data.draw(st.sampled_from(sorted(self.snapshots)))
        ledger = Ledger(self.rig.store, snapshot=number)
        self.readers.append((self.run(self.rig.open_as(ledger)), self.snapshots[number]))

    @precondition(lambda self: self.begun and self.shared and len(self.readers) < 4)
    @rule(data=st.data())
    def open_a_shared_revision(self, data):
        revision = data.draw(st.sampled_from(sorted(self.shared)))
        other = self.run(self.rig.open_as(self.rig.ledger, revision))
        other.size = len(self.shared[revision])
        self.readers.append((other, self.shared[revision]))

    @invariant()
    def who_reads_them_goes_on_reading_the_same(self):
        for reader, model in self.readers:
            assert bytes(self.run(reader.read(0, SIZE_MAX * 2))) == bytes(model)

    @precondition(lambda self: self.begun)
    @rule()
    def catch_up(self):
        self.run(self.rig.content.catch_up())
        assert not self.rig.content.marks

    @precondition(lambda self: self.begun)
    @rule(offset=places, length=lengths)
    def read(self, offset, length):
        got = self.run(self.rig.content.read(offset, length))
        assert bytes(got) == bytes(self.model[offset : offset + length])

    @precondition(lambda self: self.begun)
    @rule(offset=places)
    def seek(self, offset):
        """Data that seek skips are zeros; what it calls a hole is zeros."""
        model = self.model
        if offset >= len(model):
            for data in (True, False):
                with pytest.raises(OutOfRange):
                    self.run(self.rig.content.seek(offset, data=data))
            return
        hole = self.run(self.rig.content.seek(offset, data=False))
        assert offset <= hole <= len(model)
        try:
            begin = self.run(self.rig.content.seek(offset, data=True))
        except OutOfRange:
            begin = len(model)
        assert not any(model[offset:begin])
        assert begin >= offset
        assert hole == offset or begin == offset

    @invariant()
    def content_is_the_model(self):
        if self.begun:
            model = self.model
            assert self.rig.content.size == len(model)
            got = self.run(self.rig.content.read(0, SIZE_MAX * 2))
            assert bytes(got) == bytes(model)

    @invariant()
    def snapshots_and_shared_revisions_stay_what_they_were(self):
        for number, model in self.snapshots.items():
            then = self.run(self.rig.open_as(Ledger(self.rig.store, snapshot=number)))
            assert then.size == len(model)
            assert bytes(self.run(then.read(0, SIZE_MAX * 2))) == bytes(model)
        for revision, model in self.shared.items():
            other = self.run(self.rig.open_as(self.rig.ledger, revision))
            other.size = len(model)
            assert bytes(self.run(other.read(0, SIZE_MAX * 2))) == bytes(model)

    @precondition(lambda self: self.begun and not self.rig.content.dirty and not self.forgot)
    @rule()
    def what_nothing_shows_is_no_more_than_what_is_shown(self):
        for key, value in self.run(self.rig.stored()):
            if (
                key[:1] == b"E"
                and int.from_bytes(key[1:9], "big") == self.rig.content.inode.revision
            ):
                table = tables.unpack_window(value)
                kept = sum(each.length - extents.CHANGE_HEAD for each in table.own_chunks())
                shown = sum(each.length for each in table if not each.revision)
                assert kept - shown <= max(shown, folding.CHUNK_WASTE)

    @invariant()
    def every_chunk_is_referred_to_or_garbage_and_never_both(self):
        if not self.begun:
            return
        stored = self.run(self.rig.stored())
        referred: set[Chunk] = set()
        for key, value in stored:
            family = key[1:] if key[:1] == b"A" else key
            if family[:1] == b"E":
                referred |= chunks_of_window(value)
            elif family[:1] == b"R":
                row = rows.decode_revision(value)
                referred |= extents.chunks(pieces_of(row.extents))
        thrown = self.rig.ledger.thrown
        if not self.broke_off:  # a fold that is repeated may throw the same away again, harmlessly
            assert len(thrown) == len(set(thrown)), "garbage twice"
        assert not referred & set(thrown), "garbage that a row refers to"
        if not self.rig.content.dirty:
            assert set(self.rig.log.records) <= referred | set(thrown), "a leak"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
