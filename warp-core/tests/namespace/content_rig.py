"""A volume of one file over the engine `memory`, and a log that loses what was not flushed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import msgspec
from warp_core.containers import Chunk
from warp_core.errors import NoSpace
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.contents import Content
from warp_core.namespace.extents import unpack_change
from warp_core.namespace.inodes import Inode, read_inode
from warp_core.namespace.layers import load_layers
from warp_core.namespace.pending import Gathered, Pending
from warp_core.namespace.tree import ViewSource, Volume, VolumeTransaction
from warp_meta_memory.engine import Memory

FILE = 100


class MemoryLog:
    """Records in a list; a crash keeps those that were flushed, and some more."""

    def __init__(self):
        self.records: dict[Chunk, bytes] = {}
        self.owners: dict[Chunk, tuple[int, int, int]] = {}
        self.flushed = 0
        self.offset = 4096
        self.freed: set[Chunk] = set()

    def append(self, payload, *, volume, inode, revision, filters=""):
        assert 0 < len(payload) <= 1024 * 1024
        chunk = Chunk(1, self.offset, len(payload) + 76, len(payload))
        self.offset += (len(payload) + 76 + 7) & -8
        self.records[chunk] = bytes(payload)
        self.owners[chunk] = (volume, inode, revision)
        return chunk

    async def room(self, length):
        pass

    def has_room(self, length):
        return True

    async def flush(self):
        await asyncio.sleep(0)
        self.flushed = len(self.records)

    def read_now(self, chunk, *, offset, length):
        assert chunk not in self.freed, "read of a chunk that was given away"
        if chunk.offset // 8 % 3 == 0:  # as if this one were not in the page cache
            return None
        return self.records[chunk][offset : offset + length]

    async def read(self, chunk, *, offset, length):
        assert chunk not in self.freed, "read of a chunk that was given away"
        return self.records[chunk][offset : offset + length]

    def crash(self, more: int):
        keep = self.flushed + more
        self.records = dict(itertools.islice(self.records.items(), keep))
        self.flushed = len(self.records)


class Ledger:
    """One volume, live or (with `snapshot`) as of then."""

    number = 1

    def __init__(self, store, *, snapshot: int = 0, clock=None):
        self.store = store
        self.snapshot = snapshot
        self.fail_after: int | None = None
        self.thrown: list[Chunk] = []
        self._clock = clock or itertools.count(1_000)
        self._ids = itertools.count(1_000)

    def _volume(self, row, version):
        return Volume(row, version, keys.prefix(1), (), self.snapshot)

    def rows(self):
        return self

    async def get(self, key):
        view = self.store.view()
        try:
            return (
                await self._volume(rows.VolumeRow(1, 1, "v", 0), 0).rows(ViewSource(view)).get(key)
            )
        finally:
            view.close()

    async def scan(self, start, end, *, limit=1000, reverse=False):
        view = self.store.view()
        try:
            volume = self._volume(rows.VolumeRow(1, 1, "v", 0), 0)
            return await volume.rows(ViewSource(view)).scan(
                start, end, limit=limit, reverse=reverse
            )
        finally:
            view.close()

    async def transact(self, body: Callable[[Change], Awaitable[object]]):
        assert not self.snapshot
        await asyncio.sleep(0)
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                raise NoSpace("the store is full")

        async def run(tx: Transaction):
            value = await tx.get(keys.volume_name_key("v"))
            row = rows.decode_volume(value)
            version = tx._reads[keys.volume_name_key("v")]
            volume = VolumeTransaction(tx, self._volume(row, version))
            change = Change(volume, 5, self.new_id, None, None)
            result = await body(change)
            await asyncio.sleep(0)  # others may be faster: then the body runs again
            pending = [chunk for each in change._freed for chunk in each.chunks]
            change.finish()
            return result, pending

        result, pending = await transact(self.store, run)
        self.thrown += pending
        return result

    async def new_id(self):
        return next(self._ids)

    def filters(self):
        return ""

    def journaled(self):
        return False

    def now_ns(self):
        return next(self._clock)

    def unfilter(self, inline, filters):
        return inline


class Rig:
    """The file, and what can happen to it."""

    def __init__(self):
        self.store = Memory()
        self.log = MemoryLog()
        self.ledger = Ledger(self.store)
        self.content: Content
        self.pending = Pending()

    async def begin(self, *, size=0, extents=(), inline=None):
        await self.store.__aenter__()

        async def body(tx):
            tx.put(keys.volume_name_key("v"), rows.encode(rows.VolumeRow(1, 1, "v", 0)))

        await transact(self.store, body)

        async def make(change):
            tx = change.rows
            last = (1, self.log.offset - 1)
            inode = Inode(0, rows.FILE, 0o644, revision=7, size=size, folded=last)
            revision = rows.Revision(0, size, "e", 0, extents=extents, inline=inline)
            await tx.put(keys.inode_key(FILE), rows.encode(inode))
            await tx.put(keys.revision_key(7), rows.encode(revision))

        await self.ledger.transact(make)
        await self.load()

    async def load(self):
        self.pending = Pending()
        inode = read_inode(FILE, await self.ledger.get(keys.inode_key(FILE)))
        stretches = []
        for key, value in await self.ledger.scan(*keys.PENDING):
            row = rows.decode_pending(value)
            revision, epoch = keys.pending_parts(key)
            assert row.inode == FILE
            if row.until > inode.folded:
                stretches.append(
                    Gathered(
                        revision, None, None, last=row.until, partial=True, epoch=epoch, row=key
                    )
                )
        stretches.sort(key=lambda each: each.last)
        for each in stretches:
            self.pending.add(1, each)
        self.content = await self.open_as(self.ledger)
        self.content.adopt(stretches)
        for chunk, payload in self.log.records.items():
            if self.log.owners[chunk][1] == FILE:
                self.content.replay(chunk, unpack_change(payload), 0)

    async def open_as(self, ledger, revision=None):
        """Return the file's content as it is, as of a ledger's snapshot, or of another revision."""
        above = self.pending.of(ledger._volume(rows.VolumeRow(1, 1, "v", 0), 0))
        inode = read_inode(FILE, await ledger.get(keys.inode_key(FILE)))
        layers = await load_layers(ledger, self.log, revision or inode.revision, above)
        return Content(ledger, self.log, FILE, inode, layers, self.pending)

    async def crash(self, more=0):
        self.log.crash(more)
        self.ledger.fail_after = None
        await self.load()

    async def snapshot(self, moment=lambda: None) -> int:
        """Make a snapshot of the volume; `moment` is called at the time that it is of."""
        async with self.content.standing():
            moment()

            async def body(tx):
                row = rows.decode_volume(await tx.get(keys.volume_name_key("v")))
                number = row.epoch + 1
                snapshot = rows.SnapshotRow(f"S{number}", 0, row.newest)
                tx.put(keys.prefix(1) + keys.snapshot_key(number), rows.encode(snapshot))
                row = msgspec.structs.replace(row, epoch=number, newest=number)
                tx.put(keys.volume_name_key("v"), rows.encode(row))
                return row.epoch

            return await transact(self.store, body)

    async def share(self, moment=lambda: None) -> int:
        """Let something else refer to the current revision; return it."""
        async with self.content.standing():
            moment()

            async def body(change):
                tx = change.rows
                inode = read_inode(FILE, await tx.get(keys.inode_key(FILE)))
                inode = msgspec.structs.replace(inode, shared=True, born=tx.epoch)
                await tx.put(keys.inode_key(FILE), rows.encode(inode))
                await change.hold(inode.revision, keys.holder_of_revision(9, len(self.log.records)))
                return inode

            self.content.inode = await self.ledger.transact(body)
        return self.content.inode.revision

    async def stored(self) -> list[tuple[bytes, bytes]]:
        """Return all rows of the volume, archived ones included."""
        view = self.store.view()
        try:
            prefix = keys.prefix(1)
            found = []
            start = prefix
            while page := await view.scan(start, keys.after(prefix)):
                found += [(row.key[len(prefix) :], row.value) for row in page]
                start = page[-1].key + b"\0"
            return found
        finally:
            view.close()
