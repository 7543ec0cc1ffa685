"""Inodes that something sets apart from their names, in transactions: links, the last name, the last close, what a crash left.

`Inodes` is the namespace's `Apart`: an S3 PUT or DELETE over such a file comes here to take one name from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from warp_core.errors import (
    Busy,
    Corrupt,
    TooLarge,
    VolumeNotFound,
)
from warp_core.interfaces.stores import Buffer
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change, Held
from warp_core.namespace.contents import Content
from warp_core.namespace.extents import unpack_change
from warp_core.namespace.filelog import ChangeRecord
from warp_core.namespace.inode_rows import drop_disk, inode_row, put_inode, summary_of
from warp_core.namespace.inodes import Inode, implied_file
from warp_core.namespace.layers import load_layers
from warp_core.namespace.ledgers import Fresh, Moment
from warp_core.namespace.live import Lives, Log
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.opens import Node
from warp_core.namespace.paths import Path
from warp_core.namespace.pending import NOTHING, Above, Gathered
from warp_core.namespace.rows import Extent, Name, PendingRow, encode
from warp_core.namespace.tables import unpack_window
from warp_core.namespace.tree import Rows

# Of a restart: what it holds in memory of the log, and how many rows it waits for at a time.
RECORDS_AT_ONCE = 1024
RECORDS_SIZE = 8 * 1024 * 1024
ROWS_AT_ONCE = 64

FLAT_MAX: Final = 1_000_000  # extents of one reader: about 100 MiB
DRAIN_BATCH: Final = (
    24  # windows removed in one transaction: with archived rows and dead lists within WRITES_MAX
)


class Inodes(Lives):
    """Inodes of all volumes of a node: the namespace's `apart`."""

    def __init__(self, namespace: Namespace, log: Log) -> None:
        """Become the namespace's `apart`."""
        super().__init__(namespace, log)
        namespace.apart = self

    # The namespace's `Apart` ----------------------------------------------------------------------

    async def summary(self, stored: Rows, name: Name) -> Name:
        """Return the name with what its inode knows."""
        inode = await inode_row(stored, name.inode)
        if inode is None:
            raise Corrupt(f"a name leads to inode {name.inode}, which has no row")
        return summary_of(name, inode)

    async def unlinked(self, change: Change, name: Name, holder: bytes) -> Name:
        """Take one name from a file; return the name as a version to keep or drop.

        Raises:
            Held: The file has content that its rows do not tell yet.
        """
        number = name.inode
        volume = change.rows.volume.number
        inode = await inode_row(change.rows, number)
        if inode is None:
            raise Corrupt(f"a name leads to inode {number}, which has no row")
        version = summary_of(name, inode)
        kept = change.versioning == "on" or (
            change.versioning == "suspended" and name.nonce != rows.NULL_VERSION
        )
        live = self._contents.get((volume, number))
        if live is not None and (live.content.marks or (kept and live.content.dirty)):
            raise Held(volume, number)
        if kept and live is not None:
            # At once: what is written while this change waits must not come into the version.
            live.content.inode = msgspec.structs.replace(live.content.inode, shared=True)
        links = inode.links - 1
        held = links == 0 and (self.opens.open_count(volume, number) > 0)
        if links == 0 and not held:
            await change.rows.delete(keys.inode_key(number))
            change.count(bytes=-inode.size)
            if inode.disk:
                await drop_disk(change, number)
            await change.hand_over(inode.revision, keys.holder_of_inode(number), holder)
            return version
        if kept:
            await change.hold(inode.revision, holder)
        await put_inode(
            change,
            number,
            msgspec.structs.replace(
                inode,
                links=links,
                orphan=held,
                shared=inode.shared or kept,
                changed_ns=change.now_ns,
            ),
        )
        if held:
            await change.rows.put(keys.orphan_key(number), rows.held(change.epoch))
        if not kept:
            return msgspec.structs.replace(version, revision=0)
        # The file goes on at its other names: a version that becomes current again is a file of its own.
        return msgspec.structs.replace(version, inode=await change.take_id())

    async def unnamed(self, change: Change, number: int) -> None:
        """Take one name from an inode without content: a symbolic link, a special file."""
        inode = await inode_row(change.rows, number)
        if inode is not None and inode.links > 1:
            left = msgspec.structs.replace(inode, links=inode.links - 1, changed_ns=change.now_ns)
            await put_inode(change, number, left)
        else:
            await change.rows.delete(keys.inode_key(number))

    async def flatten(
        self, stored: Rows, revision: int, size: int, above: Above = NOTHING
    ) -> list[Extent]:
        """Return the extents of a revision as rows of one moment tell it, and what lay above them before that moment.

        Raises:
            TooLarge: More than FLAT_MAX.
        """
        ledger = Moment(stored)
        layers = await load_layers(ledger, self.log, revision, above)
        content = Content(ledger, self.log, 0, Inode(0, rows.FILE, 0, size=size), layers)
        extents: list[Extent] = []
        async for piece in content.pieces():
            chunk, skip = piece.chunk, piece.skip
            if isinstance(chunk, bytes):  # inline content that a clone shows: readers want chunks
                part = chunk[skip : skip + piece.length]
                chunk, skip = self.log.append(part, volume=0, inode=0, revision=0), 0
            if chunk is not None:
                extents.append(Extent(piece.offset, piece.length, chunk, skip))
            if len(extents) > FLAT_MAX:
                raise TooLarge(f"revision {revision} lies in more than {FLAT_MAX} pieces")
        return extents

    # Setting apart --------------------------------------------------------------------------------

    async def set_apart(self, change: Change, path: Path) -> Inode:
        """Give the file at the end of a path a row of its own, if it has none; return it."""
        name = path.current
        assert name is not None
        if name.revision == 0:
            inode = await inode_row(change.rows, name.inode)
            if inode is None:
                raise Corrupt(f"a name leads to inode {name.inode}, which has no row")
            return inode
        revision = await change.revision(name.revision)
        directory, component = path.place
        await change.note_places(path)
        await change.rows.note_place(name.inode, directory, component)
        await change.hand_over(
            name.revision, path.holder(name.sequence), keys.holder_of_inode(name.inode)
        )
        inode = msgspec.structs.replace(
            implied_file(name, revision),
            directory=directory,
            name=keys.raw_of(component),
            folded=self.log.last(),
            shared=bool(await change.rows.scan(*keys.holds_of(name.revision), limit=1)),
        )
        inode = await put_inode(change, name.inode, inode)
        bare = Name(
            born=change.epoch,
            kind=name.kind,
            inode=name.inode,
            sequence=name.sequence,
            nonce=name.nonce,
            owner=name.owner,
        )
        await change.rows.put(keys.name_key(directory, component), encode(bare))
        path.names[-1] = bare
        return inode

    # After the last close -------------------------------------------------------------------------

    async def collect(self, name: str, node: Node) -> bool:
        """Remove a file that has no name any more, if nobody has it open; say whether it is gone."""
        found = self._contents.get(node)
        waits = found is not None and not found.dropped

        async def body(change: Change) -> bool | None:
            if waits and found is not None and found.content.marks:
                return None
            inode = await inode_row(change.rows, node.inode)
            if inode is None or not inode.orphan or self.opens.open_count(*node):
                return False
            change.judged = False
            await change.rows.delete(keys.inode_key(node.inode))
            await change.rows.delete(keys.orphan_key(node.inode))
            if inode.disk:
                await drop_disk(change, node.inode)
            change.count(bytes=-inode.size)
            if found is not None:
                change.free(inode.revision, found.content.unlinked_chunks())
            await change.release(inode.revision, keys.holder_of_inode(node.inode))
            return True

        try:
            while (gone := await self.namespace.change(name, body)) is None:
                assert found is not None
                await found.content.catch_up()  # others are shown what this file wrote
        except VolumeNotFound:
            gone = True
        except Busy:  # it is being rolled back, and collected then
            gone = False
        if gone and found is not None:
            found.dropped = True
        return gone

    async def drain(self, name: str) -> bool:
        """Remove some windows of dropped revisions; True when none is left."""
        volume = await self.namespace.volumes.any(name)
        own = Fresh(self.namespace, replace(volume, bases=(), snapshot=0))
        found = await own.scan(*keys.DRAINS, limit=1)
        if not found:
            return True
        revision = int.from_bytes(found[0][0][1:9], "big")

        async def body(change: Change) -> None:
            change.judged = False
            page = await change.rows.scan(*keys.windows_of(revision), limit=DRAIN_BATCH)
            for key, value in page:
                mine = await change.rows.get_present(key) is not None
                kept = await change.rows.delete(key)
                if kept or not mine:
                    continue
                gone = unpack_window(value).own_chunks()
                for other in await change.rows.relatives(key):
                    gone -= unpack_window(other).own_chunks()
                if gone:
                    change.free(revision, gone)
            if len(page) < DRAIN_BATCH:
                change.rows.delete_present(keys.drain_key(revision))

        await self.namespace.change(name, body)
        return False

    # After a crash --------------------------------------------------------------------------------

    async def recover(self) -> int:
        """Apply the records that the last run left, and remove files without a name; returns how many records there were."""
        names: dict[int, str] = {}
        for volume in await self.namespace.volumes.all():  # of deleted ones, upkeep drops all rows
            if volume.row.rolling:
                continue  # what its files had besides their rows is not to come back
            if volume.row.frozen:
                await self.namespace.volumes.thaw(volume.row.name)
            names[volume.number] = volume.row.name
        count = 0
        taken = await self._take_marked(names)
        view = self.namespace.store.view()
        try:
            done = await view.get(keys.FILES_DONE)
        finally:
            view.close()
        since = msgspec.msgpack.decode(done[0], type=tuple[int, int]) if done else (0, 0)
        async for record, inode in self._with_inodes(self.log.pending(since), names, taken):
            node = (record.volume, record.inode)
            if node not in taken:
                if inode is None:  # gone since, or born over S3 and never changed
                    continue
                if (record.chunk.container, record.chunk.offset) <= inode.folded:
                    continue  # in its rows already, and perhaps sealed by one who is not here
                await self.take(names[record.volume], record.volume, record.inode, inode)
                taken.add(node)
            content = self._contents[node].content
            if (record.chunk.container, record.chunk.offset) > content.last:
                payload: Buffer | None = record.payload
                if payload is None:
                    length = record.chunk.length
                    payload = await self.log.read(record.chunk, offset=0, length=length)
                content.replay(record.chunk, unpack_change(payload), record.time_ns)
                count += 1
        for node in taken:
            await self.give(*node)
        for name in names.values():
            await self.collect_orphans(name)
        await self.checkpoint()
        return count

    async def _with_inodes(
        self,
        records: AsyncIterator[ChangeRecord],
        names: Mapping[int, str],
        taken: Collection[tuple[int, int]],
    ) -> AsyncIterator[tuple[ChangeRecord, Inode | None]]:
        """Yield the records of known volumes, each with the row of its inode unless that is among `taken`, None if it has none.

        Rows of many are asked for at once: what was put over S3 since the last checkpoint is among the records too, and an engine
        may be a round trip away for each.
        """
        known: dict[tuple[int, int], Inode | None] = {}
        waiting: list[ChangeRecord] = []

        async def read(node: tuple[int, int]) -> None:
            volume = await self.namespace.volumes.get(names[node[0]])
            known[node] = await inode_row(Fresh(self.namespace, volume), node[1])

        async def rows_read() -> None:
            nodes = dict.fromkeys((each.volume, each.inode) for each in waiting)
            new = [node for node in nodes if node not in taken and node not in known]
            for first in range(0, len(new), ROWS_AT_ONCE):
                await asyncio.gather(*map(read, new[first : first + ROWS_AT_ONCE]))

        size = 0
        async for record in records:
            if record.volume not in names:
                continue
            waiting.append(record)
            size += len(record.payload or b"")
            if len(waiting) >= RECORDS_AT_ONCE or size >= RECORDS_SIZE:
                await rows_read()
                for each in waiting:
                    yield each, known.get((each.volume, each.inode))
                waiting.clear()
                size = 0
                # A row stays as it is until it is taken; that a file has none is worth knowing for longer than what is in it.
                known = {node: None for node, inode in known.items() if inode is None}
        await rows_read()
        for each in waiting:
            yield each, known.get((each.volume, each.inode))

    async def _take_marked(self, names: Mapping[int, str]) -> set[tuple[int, int]]:
        """Take the files with changes that wait for their windows, which are to be replayed; returns which they are."""
        found: dict[tuple[int, int], list[Gathered]] = {}
        for number, name in names.items():
            stored = Fresh(self.namespace, await self.namespace.volumes.get(name))
            start, end = keys.PENDING
            while page := await stored.scan(start, end):
                for key, value in page:
                    row: PendingRow = rows.checked(rows.decode_pending, key, value)
                    inode = await inode_row(stored, row.inode)
                    if inode is None or inode.folded >= row.until:
                        await self._unmark(name, key)  # what a mark that failed may leave
                        continue
                    revision, epoch = keys.pending_parts(key)
                    gathered = Gathered(
                        revision, None, _nobody, last=row.until, partial=True, epoch=epoch, row=key
                    )
                    found.setdefault((number, row.inode), []).append(gathered)
                start = page[-1][0] + b"\0"
        for node, stretches in found.items():  # all of them, before any layers are loaded
            stretches.sort(key=lambda each: each.last)
            for gathered in stretches:
                self.pending.add(node[0], gathered)
        for (number, node_inode), stretches in found.items():
            stored = Fresh(self.namespace, await self.namespace.volumes.get(names[number]))
            inode = await inode_row(stored, node_inode)
            assert inode is not None
            content = await self.take(names[number], number, node_inode, inode)
            content.adopt(stretches)
        return set(found)

    async def _unmark(self, name: str, key: bytes) -> None:
        async def body(change: Change) -> None:
            change.rows.delete_present(key)

        await self.namespace.change(name, body)

    async def collect_orphans(self, name: str) -> int:
        """Remove the files of a volume, which may be a deleted one, that have no name and that nobody has open; return how many."""
        volume = await self.namespace.volumes.any(name)
        count = 0
        stored = Fresh(self.namespace, replace(volume, snapshot=0))
        start, end = keys.ORPHANS
        while found := await stored.scan(start, end):
            for key, value in found:
                if not rows.is_whiteout(
                    value
                ):  # in a deleted clone that reads through no base any more
                    node = Node(volume.number, int.from_bytes(key[1:9], "big"))
                    count += await self.collect(name, node)
            start = found[-1][0] + b"\0"
        return count


async def _nobody() -> None:
    """Finish what its file has not taken yet: it does before anybody else reads."""
