"""Rolling a volume back to a snapshot: row by row, while the volume shows the snapshot and nothing may change it.

```
 frozen            nothing changes the volume; open files and retention are looked at
 rolling = S       reads show S. A crash from here on is finished by whoever opens the volume next: each step may be repeated
   1. D V I C J M O  each row that differs becomes what it was; who lets go of a revision releases it, who gets one holds it
   2. R E          content of revisions that went on being written in place becomes what it was
   3.              revisions that others lie over by now stay as they are: what S shows of them is copied to new ones
   4.              counters, events, files without a name
 thawed
```

A row is put as any change puts it, so later snapshots keep what they show. But a value may now come back after a time without it:
from the first rollback on, what an archived row held is compared with all of its key (`VolumeTransaction.relatives`), not only its
neighbours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

import msgspec

from warp_core.containers import Chunk, Owner
from warp_core.containers.keyring import Hold
from warp_core.errors import Busy, Corrupt, Retained
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys, rows
from warp_core.namespace.apart import Inodes
from warp_core.namespace.changes import Change
from warp_core.namespace.content import listed_of, placed
from warp_core.namespace.inodes import Inode, read_inode
from warp_core.namespace.ledgers import Fresh
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import (
    CONTINUED,
    DIRECTORY,
    FILE,
    IMPLIED,
    Event,
    Extent,
    Name,
    Revision,
    born,
    decode_name,
    decode_revision,
    encode,
    reborn,
    unborn,
)
from warp_core.namespace.sealing import sealed_policy
from warp_core.namespace.tables import unpack_window
from warp_core.namespace.tree import Cursor, Volume, VolumeTransaction
from warp_core.namespace.usage import Usage, decode_usage

T = TypeVar("T")

BATCH: Final = 4  # rows of one transaction: each at most about 20 writes, within WRITES_MAX
WINDOW_BATCH: Final = (
    16  # windows of one transaction: each three writes, together less than COMMIT_MAX
)
TOGETHER: Final = 8  # transactions side by side: they share the journal's syncs
PAGE: Final = 500  # rows of one scan
READ_MAX: Final = 1024 * 1024

_NODES: Final = (DIRECTORY, IMPLIED, CONTINUED)
_NULL_VERSION_BYTE: Final = 0x92  # an array of two elements: a `NullVersion`, no `Name`

Progress = Callable[[int], None]
_Batch = list[tuple[bytes, bytes | None]]  # keys and what S shows there
_Restore = Callable[[Change, bytes, bytes | None], Awaitable[None]]


async def begin(
    namespace: Namespace, inodes: Inodes, name: str, snapshot: str, *, force: bool
) -> None:
    """Have a volume show a snapshot and refuse changes, if it may be rolled back.

    Raises:
        VolumeNotFound, NotFound
        Busy: Files are open, and `force` does not say that they may be lost.
        Retained: Something in it is locked.
    """
    volumes = namespace.volumes
    number = (await volumes.get(name)).number

    def demand_closed() -> None:
        count = inodes.opens.open_in(number)
        if count and not force:
            raise Busy(f"{count} files of volume {name!r} are open: close them, or force it")

    demand_closed()
    await inodes.catch_up(number)  # it may be what the snapshot shows
    target = await volumes.freeze(name, snapshot)
    try:
        demand_closed()
        if inodes.pending.within(number):
            raise Busy(f"another snapshot of volume {name!r} was made meanwhile: try again")
        await _demand_free(namespace, await volumes.get(name))
    except BaseException:
        await volumes.thaw(name)
        raise
    await volumes.thaw(name, rolling=target)


async def _demand_free(namespace: Namespace, volume: Volume) -> None:
    now_ns = await namespace.lock_clock.now_ns()
    stored = Cursor(Fresh(namespace, volume), b"R", b"S", PAGE, False)
    while (row := await stored.peek()) is not None:
        stored.skip()
        revision: Revision = rows.checked(decode_revision, *row)
        if revision.legal_hold or (revision.retain_mode and revision.retain_until_ns > now_ns):
            raise Retained(
                f"volume {volume.row.name!r} has content that is retained or under legal hold"
            )


async def work(namespace: Namespace, inodes: Inodes, name: str, progress: Progress) -> int:
    """Do what is left of a rollback that was begun; returns how many rows it changed.

    Raises:
        VolumeNotFound, Corrupt
    """
    volume = await namespace.volumes.get(name)
    assert volume.row.rolling
    inodes.forget(volume.number)
    await inodes.checkpoint()  # a restart does not replay what files had besides their rows
    done = await _Rollback(namespace, inodes, volume, progress).run()
    await namespace.volumes.reload(name)
    await inodes.collect_orphans(name)
    return done


class _Rollback:
    def __init__(
        self, namespace: Namespace, inodes: Inodes, volume: Volume, progress: Progress
    ) -> None:
        self._namespace = namespace
        self._inodes = inodes
        self._name = volume.row.name
        self._snapshot = volume.row.rolling
        self._then = Fresh(namespace, volume)
        self._now = Fresh(namespace, replace(volume, snapshot=0))
        self._own = Fresh(namespace, replace(volume, snapshot=0, bases=()))
        self._volume = volume
        self._progress = progress
        self._seen = 0
        self._changed = 0
        self._gone: set[int] = set()  # directories that S does not show
        self._covered: set[int] = set()  # revisions that others lie over since S
        self._lost: set[int] = set()  # of them those that are not what S shows any more

    async def run(self) -> int:
        for family, restore in (
            (b"D", self._name_row),
            (b"V", self._version_row),
            (b"I", self._inode_row),
            (b"C", self._plain_row),
            (b"J", self._plain_row),
            (b"M", self._plain_row),
            (b"O", self._plain_row),
        ):
            await self._each(family, self._in_one(restore))
        await self._each(b"R", self._revisions)
        if self._covered:
            for family in (b"D", b"V", b"I"):
                await self._part_ways(family)
        await self._change(self._finish)
        return self._changed

    # Rows that differ -----------------------------------------------------------------------------

    async def _each(self, family: bytes, restore: Callable[[_Batch], Awaitable[None]]) -> None:
        """Restore each row of a family that differs, some batches side by side."""
        batches: list[_Batch] = [[]]
        async for difference in self._differences(family, keys.after(family)):
            if len(batches[-1]) == BATCH:
                if len(batches) == TOGETHER:
                    await self._together(batches, restore)
                    batches = []
                batches.append([])
            batches[-1].append(difference)
        await self._together(batches, restore)

    async def _together(
        self, batches: list[_Batch], restore: Callable[[_Batch], Awaitable[None]]
    ) -> None:
        for outcome in await asyncio.gather(*map(restore, batches), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        self._changed += sum(map(len, batches))
        self._progress(self._seen)

    def _in_one(self, restore: _Restore) -> Callable[[_Batch], Awaitable[None]]:
        """Return what restores a batch of rows in one transaction."""

        async def some(batch: _Batch) -> None:
            async def body(change: Change) -> None:
                for key, then in batch:
                    await restore(change, key, then)

            await self._change(body)

        return some

    async def _differences(
        self, start: bytes, end: bytes
    ) -> AsyncIterator[tuple[bytes, bytes | None]]:
        """Yield keys whose row was written since S, with what S shows."""
        then = Cursor(self._then, start, end, PAGE, False)
        now = Cursor(self._now, start, end, PAGE, False)
        while True:
            old, new = await then.peek(), await now.peek()
            self._seen += 1
            if old is None and new is None:
                return
            if new is None or (old is not None and old[0] < new[0]):
                assert old is not None
                then.skip()
                yield old
                continue
            now.skip()
            if old is None or new[0] < old[0]:
                yield new[0], None
                continue
            then.skip()
            if old[1] != new[1] or await self._rewritten(*new):
                yield old

    async def _rewritten(self, key: bytes, value: bytes) -> bool:
        """Say whether a clone wrote a row of its own since S over its base's. It may be equal: epochs of two volumes are."""
        if not self._volume.bases or born(value) < self._snapshot:
            return False
        return await self._own.get(key) is not None

    async def _change(self, body: Callable[[Change], Awaitable[T]]) -> T:
        """Run a body in a transaction of the volume as it is below what it shows."""
        namespace = self._namespace

        async def run(tx: Transaction) -> T:
            volume = await namespace.volumes.reload(self._name)
            if volume.row.rolling != self._snapshot:
                raise Corrupt(f"volume {self._name!r} is no longer being rolled back")
            stored = VolumeTransaction(tx, replace(volume, snapshot=0))
            change = Change(
                stored,
                namespace.clock_ns(),
                namespace.ids.take,
                namespace.volume_in,
                namespace.lock_clock,
            )
            result = await body(change)
            change.finish()
            return result

        try:
            return await transact(namespace.store, run)
        finally:
            namespace.quotas.doubt(self._volume.number)

    # Names, versions, inodes ----------------------------------------------------------------------

    async def _plain_row(self, change: Change, key: bytes, then: bytes | None) -> None:
        if then is None:
            await change.rows.delete(key)
        else:
            await change.rows.put(key, reborn(then, change.epoch))

    async def _name_row(self, change: Change, key: bytes, then: bytes | None) -> None:
        """Restore a live entry. A version that becomes current, or was, moves in the same transaction: it stays one holder."""
        live = await change.rows.get(key)
        if live is not None and then is not None and unborn(live) == unborn(then):
            return
        old = decode_name(live) if live is not None else None
        new = decode_name(then) if then is not None else None
        await self._plain_row(change, key, then)
        self._touch(change, key, old, new)
        held, holds = _reference(key, live), _reference(key, then)
        if held == holds:
            return
        if holds is not None:
            assert new is not None
            version = _version_key(key, new)
            there = await change.rows.get(version)
            if there is not None and _reference(version, there) == holds:
                await change.rows.delete(version)
            else:
                await self._hold(change, *holds)
        if held is not None:
            assert old is not None
            version = _version_key(key, old)
            shown = await self._then.get(version)
            if shown is not None and _reference(version, shown) == held:
                await change.rows.put(version, reborn(shown, change.epoch))
            else:
                await change.release(*held)

    def _touch(self, change: Change, key: bytes, old: Name | None, new: Name | None) -> None:
        """Note that a directory changed, and which ones leave."""
        if new is not None and new.kind in _NODES:
            self._gone.discard(new.inode)
        if old is not None and old.kind in _NODES and (new is None or new.inode != old.inode):
            self._gone.add(old.inode)
            change.forget_directory(old.inode)
        directory = int.from_bytes(key[1:9], "big")
        if directory not in self._gone:
            change.touch(directory)

    async def _version_row(self, change: Change, key: bytes, then: bytes | None) -> None:
        live = await change.rows.get(key)
        if live == then or (live and then and unborn(live) == unborn(then)):
            return
        await self._plain_row(change, key, then)
        await self._pass_on(change, _reference(key, live), _reference(key, then))

    async def _inode_row(self, change: Change, key: bytes, then: bytes | None) -> None:
        number = int.from_bytes(key[1:9], "big")
        live = await change.rows.get(key)
        old = read_inode(number, live) if live is not None else None
        new = read_inode(number, then) if then is not None else None
        if new is None:
            await change.rows.delete(key)
        else:
            changes = max(old.change if old else 0, new.change) + 1
            new = msgspec.structs.replace(new, born=change.epoch, change=changes)
            await change.rows.put(key, encode(new))
        if old is not None and old.disk and not (new is not None and new.disk):
            change.rows.delete_present(keys.reserved_key(number))
        held = (old.revision, keys.holder_of_inode(number)) if old and old.revision else None
        holds = (new.revision, keys.holder_of_inode(number)) if new and new.revision else None
        await self._pass_on(change, held, holds)

    async def _pass_on(
        self, change: Change, held: tuple[int, bytes] | None, holds: tuple[int, bytes] | None
    ) -> None:
        if held == holds:
            return
        if holds is not None:
            await self._hold(change, *holds)
        if held is not None:
            await change.release(*held)

    async def _hold(self, change: Change, number: int, holder: bytes) -> None:
        """Add a holder to a revision; one that was dropped comes back with it."""
        key = keys.revision_key(number)
        if await change.rows.get(key) is not None:
            await change.hold(number, holder)
            return
        then = await self._then.get(key)
        if then is None:
            raise Corrupt(f"revision {number} is missing in the snapshot")
        await change.rows.put(key, reborn(then, change.epoch))
        change.rows.delete_present(keys.drain_key(number))  # its windows stay

    # Content --------------------------------------------------------------------------------------

    async def _revisions(self, batch: _Batch) -> None:
        for key, then in batch:
            if then is not None:  # else it went with its last holder, or is of use to somebody else
                await self._revision(key, then)

    async def _revision(self, key: bytes, then: bytes) -> None:
        """Restore a revision that was written in place since, or whose attributes changed."""
        number = int.from_bytes(key[1:9], "big")
        shown: Revision = rows.checked(decode_revision, key, then)
        windows = [each async for each in self._differences(*keys.windows_of(number))]

        async def attributes(change: Change) -> bool:
            live = await change.rows.get(key)
            if live is None:
                return False  # S shows it, but nothing there leads to it
            if await self._is_base(change, number):
                self._covered.add(number)
                old = decode_revision(live)
                if (old.size, old.cut) != (shown.size, shown.cut) or [
                    each for each in windows if await self._differs(change, *each)
                ]:
                    self._lost.add(number)
                    return False
            if unborn(live) != unborn(then):
                await change.rows.put(key, reborn(then, change.epoch))
            return True

        if await self._change(attributes):
            for first in range(0, len(windows), WINDOW_BATCH):
                await self._in_one(self._window_row)(windows[first : first + WINDOW_BATCH])

    async def _differs(self, change: Change, key: bytes, then: bytes | None) -> bool:
        live = await change.rows.get(key)
        if live is None or then is None:
            return live is not then
        return unborn(live) != unborn(then)

    async def _window_row(self, change: Change, key: bytes, then: bytes | None) -> None:
        live = await change.rows.get(key)
        if live == then or (live and then and unborn(live) == unborn(then)):
            return
        if then is None:
            kept = await change.rows.delete(key)
        else:
            kept = await change.rows.put(key, reborn(then, change.epoch))
        if kept or live is None:
            return
        gone = _own_chunks(live) - (_own_chunks(then) if then is not None else set())
        for other in await change.rows.relatives(key):
            gone -= _own_chunks(other)
        if gone:
            change.free(int.from_bytes(key[1:9], "big"), gone)

    async def _is_base(self, change: Change, number: int) -> bool:
        """Say whether another revision, live or archived, lies over this one."""
        mine = self._volume.number
        for entry, _ in await change.rows.scan(*keys.holds_of(number)):
            holder = entry[9:]
            if holder[:1] != b"r" or int.from_bytes(holder[1:5], "big") != mine:
                continue
            key = keys.revision_key(int.from_bytes(holder[5:13], "big"))
            values = await change.rows.relatives(key)
            live = await change.rows.get(key)
            values += [live] if live is not None else []
            if any(decode_revision(value).base == number for value in values):
                return True
        return False

    async def _part_ways(self, family: bytes) -> None:
        """Have those that S shows with a revision which others lie over by now go on without it."""
        shown = Cursor(self._then, family, keys.after(family), PAGE, False)
        while (row := await shown.peek()) is not None:
            shown.skip()
            key, value = row
            number = self._revision_of(key, value)
            if number in self._lost:
                await self._copy(key, number)
            elif number in self._covered and family == b"I":

                async def share(change: Change, key: bytes = key) -> None:
                    live = await change.rows.get(key)
                    assert live is not None
                    inode = read_inode(int.from_bytes(key[1:9], "big"), live)
                    inode = msgspec.structs.replace(inode, born=change.epoch, shared=True)
                    await change.rows.put(key, encode(inode))

                await self._change(share)

    def _revision_of(self, key: bytes, value: bytes) -> int:
        if key[:1] == b"I":
            return read_inode(int.from_bytes(key[1:9], "big"), value).revision
        found = _reference(key, value)
        return found[0] if found else 0

    async def _copy(self, key: bytes, number: int) -> None:
        """Copy what S shows of a revision to a new one, and lead a name or inode there."""
        namespace = self._namespace
        pin = namespace.containers.pin()
        hold: Hold | None = None
        try:
            value = await self._then.get(keys.revision_key(number))
            assert value is not None
            shown: Revision = rows.checked(decode_revision, keys.revision_key(number), value)
            made = await namespace.ids.take()
            policy = namespace.policy_of(self._volume)
            owner = Owner(self._volume.number, made, made)
            of_content = policy
            if shown.seal is not None:
                hold = await namespace.sealer.open(shown.seal)
                of_content = sealed_policy(policy, hold)
            stream = namespace.containers.writer(of_content, owner, size_hint=shown.size)
            try:
                async for data in self._bytes(number, shown.size):
                    await stream.write(data)
                written = await stream.finish(journaled=namespace.journaled)
            except BaseException:
                await stream.abort()
                raise
        finally:
            pin.release()
            if hold is not None:
                hold.release()
        extents = [Extent(offset, chunk.length, chunk) for offset, chunk in written]
        kept, manifest, _ = await placed(namespace.containers, policy, owner, extents)
        revision = msgspec.structs.replace(
            shown,
            extents=kept,
            manifest=manifest,
            inline=None,
            windowed=False,
            base=0,
            cut=-1,
            lenders=(),
            lent_manifest=False,
            listed=listed_of(manifest, extents),
        )

        async def link(change: Change) -> None:
            live = await change.rows.get(key)
            assert live is not None
            await change.put_revision(made, msgspec.structs.replace(revision, born=change.epoch))
            row: Name | Inode
            if key[:1] == b"I":
                row = read_inode(int.from_bytes(key[1:9], "big"), live)
                held = (row.revision, keys.holder_of_inode(int.from_bytes(key[1:9], "big")))
                row = msgspec.structs.replace(row, born=change.epoch, revision=made, shared=False)
            else:
                name = decode_name(live)
                found = _reference(key, live)
                assert found is not None
                held = found
                row = msgspec.structs.replace(name, born=change.epoch, revision=made)
            await change.rows.put(key, encode(row))
            await change.release(*held)

        await self._change(link)

    async def _bytes(self, number: int, size: int) -> AsyncIterator[bytes | bytearray | memoryview]:
        """Yield what S shows of a revision, holes as zeros."""
        containers = self._namespace.containers
        at = 0
        for extent in await self._inodes.flatten(self._then, number, size):
            while at < extent.offset:
                step = min(READ_MAX, extent.offset - at)
                yield bytes(step)
                at += step
            end = extent.offset + extent.length
            while at < end:
                step = min(READ_MAX, end - at)
                skip = extent.skip + at - extent.offset
                yield await containers.read(extent.chunk, offset=skip, length=step)
                at += step
        while at < size:
            step = min(READ_MAX, size - at)
            yield bytes(step)
            at += step

    # The end --------------------------------------------------------------------------------------

    async def _finish(self, change: Change) -> None:
        """Set the counters back, tell it, and let the volume be changed again."""
        since = Usage()
        start, end = keys.usage_key(self._snapshot), keys.usage_until(0)[1]
        while page := await change.rows.scan_present(start, end):
            for _, value in page:
                since = since.plus(decode_usage(value))
            start = page[-1][0] + b"\0"
        change.count(
            objects=-since.objects,
            bytes=-since.bytes,
            versions=-since.versions,
            version_bytes=-since.version_bytes,
        )
        row = change.rows.volume.row
        change.tell(Event("rollback", change.now_ns, size=self._changed))
        change.rows.engine.put(
            keys.volume_name_key(row.name),
            encode(msgspec.structs.replace(row, frozen=False, rolling=0)),
        )


def _reference(key: bytes, value: bytes | None) -> tuple[int, bytes] | None:
    """Return (revision, holder) of a D or V row that holds one."""
    if value is None or value[0] == _NULL_VERSION_BYTE:
        return None
    name = decode_name(value)
    if name.kind != FILE or not name.revision:
        return None
    component = key[keys.NAME_AT :] if key[:1] == b"D" else key[keys.NAME_AT : -8]
    directory = int.from_bytes(key[1:9], "big")
    return name.revision, keys.holder_of_name(directory, component, name.sequence)


def _version_key(key: bytes, name: Name) -> bytes:
    """Return where a current version would lie as a noncurrent one."""
    return keys.version_key(int.from_bytes(key[1:9], "big"), key[keys.NAME_AT :], name.sequence)


def _own_chunks(value: bytes) -> set[Chunk]:
    """Return the chunks that a window's row refers to and that its revision wrote."""
    return unpack_window(value).own_chunks()
