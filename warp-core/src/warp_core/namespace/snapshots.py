"""Snapshots and clones of volumes: taking one is a row, deleting one walks what only it held.

The rows' side is `tree.py`. A snapshot's number is the epoch that begins with it. With P the snapshot before S, an archived row on
S's dead list that was born in P or later was shown by S alone: it is freed. One born earlier is handed to P's list. What a row held is
freed except for what its neighbours in time, on the same key, hold as well: content lives in one piece of time (in a volume that was
rolled back in several, and all are asked). Rolling back is `rollback.py`.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from warp_core.errors import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    NotFound,
    TooLarge,
)
from warp_core.metadata import Transaction
from warp_core.namespace import keys, rollback, rows
from warp_core.namespace.apart import Inodes
from warp_core.namespace.changes import Change
from warp_core.namespace.ledgers import Fresh
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.recount import stored_soles
from warp_core.namespace.rows import SnapshotRow, VolumeRow, decode_snapshot, encode
from warp_core.namespace.soles import NOTHING, Weight, held
from warp_core.namespace.tree import Volume

SNAPSHOTS_MAX: Final = 4_096  # of one volume: a listing is a few scans
CLONES_MAX: Final = 1_024  # that read through one snapshot: their numbers lie in its row
HOLDS_MAX: Final = 32  # of one snapshot: they lie in its row
BATCH: Final = 16  # dead rows of one transaction: each is up to two deletes, four reads, a put and a garbage row
COUNTERS_MAX: Final = 20  # changed by one transaction: one row of a dead list changes three at most
FORGOTTEN: Final = 90  # removed by one
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}\Z")


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot."""

    name: str
    number: int
    created_ns: int
    clones: tuple[int, ...] = ()  # numbers of volumes that read through it
    kinds: tuple[str, ...] = ()  # for which a policy made it; none: somebody did
    holds: tuple[str, ...] = ()  # who wants it to stay


class Snapshots:
    """Snapshots and clones of all volumes."""

    def __init__(self, namespace: Namespace, inodes: Inodes) -> None:
        self._namespace = namespace
        self._inodes = inodes
        self._rolling = asyncio.Lock()

    async def all(self, volume: str) -> list[SnapshotInfo]:
        """Return a volume's snapshots, oldest first.

        Raises:
            VolumeNotFound
        """
        return [
            SnapshotInfo(
                name=row.name,
                number=number,
                created_ns=row.created_ns,
                clones=row.clones,
                kinds=row.kinds,
                holds=row.holds,
            )
            for number, row in await self._rows(await self._namespace.volumes.get(volume))
            if not row.state
        ]

    async def create(self, volume: str, name: str, *, kinds: tuple[str, ...] = ()) -> SnapshotInfo:
        """Keep the volume as it is now; what was written to its files is in it, synced or not.

        Args:
            kinds: For which a policy makes it, which will remove it again.

        Raises:
            VolumeNotFound, ReadOnly
            AlreadyExists: A snapshot has this name, or one of it is still being deleted.
            InvalidArgument: Not a name that a snapshot can have.
            TooLarge: SNAPSHOTS_MAX.
        """
        if not _NAME.match(name):
            raise InvalidArgument(
                f"snapshot name {name!r}: 1 to 128 letters, digits and . _ @ + -,"
                " beginning with a letter or digit"
            )
        target = await self._namespace.volumes.writable(volume)
        now = self._namespace.clock_ns()

        async def change(row: VolumeRow, tx: Transaction) -> VolumeRow:
            prefix = keys.prefix(row.number)
            existing = await _scan_all(tx, prefix)
            if any(each.name == name for _, each in existing):
                raise AlreadyExists(f"volume {volume!r} has a snapshot {name!r}")
            if len(existing) >= SNAPSHOTS_MAX:
                raise TooLarge(f"volume {volume!r} has {SNAPSHOTS_MAX} snapshots")
            number = row.epoch + 1
            made = SnapshotRow(name, now, row.newest, kinds=kinds)
            tx.put(prefix + keys.snapshot_key(number), encode(made))
            return msgspec.structs.replace(row, epoch=number, newest=number)

        async with self._inodes.quiet(target.number):
            changed = await self._namespace.volumes.update(volume, change)
        return SnapshotInfo(name=name, number=changed.row.newest, created_ns=now, kinds=kinds)

    async def delete(self, volume: str, name: str) -> None:
        """Delete a snapshot and free exactly what only it held; raises as `retire`."""
        await self.retire(volume, name)
        while not await self.clean(volume):
            pass

    async def retire(self, volume: str, name: str) -> None:
        """Have a snapshot gone, but for what only it held: `clean` frees that.

        Raises:
            VolumeNotFound
            NotFound: No snapshot of that name.
            Busy: Clones read through it, or somebody holds it.
        """

        async def change(row: VolumeRow, tx: Transaction) -> VolumeRow:
            prefix = keys.prefix(row.number)
            existing = await _scan_all(tx, prefix)
            number, snapshot = _named(existing, volume, name)
            if snapshot.clones:
                held_by = await self._clones_text(snapshot)
                raise Busy(f"{volume}@{name} stays: {held_by} read through it; remove them first")
            if snapshot.holds:
                raise Busy(
                    f"{volume}@{name} stays: held as {', '.join(snapshot.holds)};"
                    f" `warp snapshot release {volume}@{name}` lets it go"
                )
            going = msgspec.structs.replace(snapshot, state="deleting")
            tx.put(prefix + keys.snapshot_key(number), encode(going))
            for other, later in existing:
                if later.previous == number:
                    later = msgspec.structs.replace(later, previous=snapshot.previous)
                    tx.put(prefix + keys.snapshot_key(other), encode(later))
            if row.newest == number:
                row = msgspec.structs.replace(row, newest=snapshot.previous)
            return row

        await self._namespace.volumes.update(volume, change)

    async def hold(self, volume: str, name: str, word: str) -> None:
        """Have a snapshot stay until `release` with the same word; doing so again changes nothing.

        Raises:
            VolumeNotFound
            NotFound: No snapshot of that name.
            InvalidArgument: Not a word for it.
            Busy: HOLDS_MAX hold it.
        """
        if not _NAME.match(word):
            raise InvalidArgument(f"hold {word!r}: 1 to 128 letters, digits and . _ @ + -")

        def held(row: SnapshotRow) -> SnapshotRow:
            if word in row.holds:
                return row
            if len(row.holds) >= HOLDS_MAX:
                raise Busy(f"{HOLDS_MAX} hold {volume}@{name}")
            return msgspec.structs.replace(row, holds=(*row.holds, word))

        await self._change_row(volume, name, held)

    async def release(self, volume: str, name: str, word: str) -> None:
        """Take a hold back.

        Raises:
            VolumeNotFound
            NotFound: No snapshot of that name, or it is not held so.
        """

        def released(row: SnapshotRow) -> SnapshotRow:
            if word not in row.holds:
                held = f"as {', '.join(row.holds)}" if row.holds else "by nobody"
                raise NotFound(f"{volume}@{name} is not held as {word!r}: it is {held}")
            return msgspec.structs.replace(
                row, holds=tuple(each for each in row.holds if each != word)
            )

        await self._change_row(volume, name, released)

    async def _change_row(
        self, volume: str, name: str, changed: Callable[[SnapshotRow], SnapshotRow]
    ) -> None:
        async def change(row: VolumeRow, tx: Transaction) -> VolumeRow:
            prefix = keys.prefix(row.number)
            number, found = _named(await _scan_all(tx, prefix), volume, name)
            tx.put(prefix + keys.snapshot_key(number), encode(changed(found)))
            return row

        await self._namespace.volumes.update(volume, change)

    async def _clones_text(self, snapshot: SnapshotRow) -> str:
        alive = await self._namespace.volumes.all()
        names = [each.row.name for each in alive if each.row.number in snapshot.clones]
        gone = len(snapshot.clones) - len(names)
        text = f"the clones {', '.join(names)}" if names else "clones"
        return f"{text} ({gone} of them are being removed)" if gone else text

    async def clean(self, volume: str) -> bool:
        """Free some of what deleted snapshots held; True when nothing is left to do. Resumes what a crash cut short."""
        stored = await self._rows(await self._namespace.volumes.get(volume))
        going = [number for number, row in stored if row.state]
        if not going:
            return await self._forget_marks(volume)
        alive = [number for number, row in stored if not row.state]
        previous = max((number for number in alive if number < going[0]), default=0)
        await self._clean(volume, going[0], previous)
        return False

    async def _forget_marks(self, volume: str) -> bool:
        """Remove notes for comparisons (b, p) that no snapshot is old enough to need; True when none is left."""
        target = await self._namespace.volumes.get(volume)
        if not target.row.epoch or target.snapshot:
            return True

        async def body(change: Change) -> bool:
            oldest = await change.rows.scan_present(*keys.SNAPSHOTS, limit=1)
            ranges = [(keys.BIRTHS, keys.after(keys.BIRTHS)), keys.PLACES]
            if oldest:
                until = keys.births_of(int.from_bytes(oldest[0][0][1:9], "big"))
                ranges = [(keys.BIRTHS, until)]
            room = FORGOTTEN
            for start, end in ranges:
                found = await change.rows.scan_present(start, end, limit=room) if room else []
                room -= len(found)
                for key, _ in found:
                    change.rows.delete_present(key)
            return room == FORGOTTEN

        if not await self._notes(target):
            return True
        return await self._namespace.change(volume, body)

    async def _notes(self, target: Volume) -> bool:
        """Say whether there is any note to remove, without a transaction."""
        own = Fresh(self._namespace, replace(target, bases=(), snapshot=0))
        oldest = await own.scan(*keys.SNAPSHOTS, limit=1)
        if oldest:
            end = keys.births_of(int.from_bytes(oldest[0][0][1:9], "big"))
            return bool(await own.scan(keys.BIRTHS, end, limit=1))
        births = keys.BIRTHS, keys.after(keys.BIRTHS)
        return bool(await own.scan(*births, limit=1) or await own.scan(*keys.PLACES, limit=1))

    async def _clean(self, volume: str, number: int, previous: int) -> bool:
        """Work on one dead list; True if there may be more of it."""

        async def body(change: Change) -> bool:
            change.judged = False
            page = await change.rows.scan_present(*keys.dead_of(number), limit=BATCH)
            for entry, _ in page:
                if len(change.rows.soles) > COUNTERS_MAX:
                    return True
                key, death = keys.dead_parts(entry)
                change.rows.delete_present(entry)
                archived = keys.archive_key(key, death)
                value = await change.rows.get_present(archived)
                if value is None:
                    continue
                if rows.born(value) < previous:
                    change.rows.put_present(keys.dead_key(previous, key, death), b"")
                    continue
                near = await change.rows.relatives(key, death=death)
                await change.rows.drop_archived(key, death, value)
                await _free(change, key, value, near)
            return bool(page) or not await _forget_counters(change, number, previous)

        return await self._namespace.change(volume, body)

    async def space(self, volume: str) -> dict[str, Weight]:
        """Return what deleting each snapshot of a volume would free: what it alone holds. Read from counters.

        Raises:
            VolumeNotFound
        """
        target = await self._namespace.volumes.get(volume)
        alive = [(number, row) for number, row in await self._rows(target) if not row.state]
        numbers = [number for number, _ in alive]
        found = {row.name: NOTHING for _, row in alive}
        for (death, epoch), weight in (await stored_soles(self._namespace, target)).items():
            index = bisect_right(numbers, death) - 1
            # What was born later is on the list of one that is being deleted.
            if index >= 0 and alive[index][1].previous <= epoch < numbers[index]:
                name = alive[index][1].name
                found[name] = found[name].plus(weight)
        return found

    async def exclusive(self, volume: str, name: str) -> int:
        """Return how many bytes of content deleting a snapshot would free.

        Raises:
            VolumeNotFound, NotFound
        """
        found = (await self.space(volume)).get(name)
        if found is None:
            raise NotFound(f"volume {volume!r} has no snapshot {name!r}")
        return found.length

    async def clone(self, source: str, target: str, *, snapshot: str = "", owner: str) -> Volume:
        """Make a volume that begins as another one is now, or as a snapshot of it was; no content is copied.

        Raises:
            VolumeNotFound, NotFound, AlreadyExists, AlreadyOwned, InvalidArgument
            Busy: CLONES_MAX volumes read through the snapshot.
        """
        name = snapshot
        if not name:
            name = f"clone-{target}-{self._namespace.clock_ns()}"
            await self.create(source, name)
        origin = await self._namespace.volumes.get(source)
        number, _ = _named(await self._rows(origin), source, name)
        made = await self._namespace.volumes.create(
            target,
            owner=owner,
            base=(origin.number, number),
            policy=dict(origin.row.policy),
            versioning=origin.row.versioning,  # it has the versions as well
            lock=origin.row.lock,
        )

        async def pin(row: VolumeRow, tx: Transaction) -> VolumeRow:
            key = keys.prefix(row.number) + keys.snapshot_key(number)
            value = await tx.get(key)
            held = decode_snapshot(value) if value else None
            if held is None or held.state:
                raise NotFound(f"volume {source!r} has no snapshot {name!r} any more")
            if len(held.clones) >= CLONES_MAX:
                raise Busy(f"{CLONES_MAX} volumes read through {source}@{name}")
            clones = (*held.clones, made.number)
            tx.put(key, encode(msgspec.structs.replace(held, clones=clones)))
            return row

        try:
            await self._namespace.volumes.update(source, pin)
        except BaseException:
            await self._namespace.volumes.delete(target, _may_go)
            raise
        await self._inodes.collect_orphans(target)  # who has them open has them in the source
        return made

    async def rollback(
        self,
        volume: str,
        name: str,
        *,
        force: bool = False,
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Make a volume as one of its snapshots has it; returns how many rows that changed. Snapshots stay, later ones too.

        The volume shows the snapshot from the beginning; until the end changes are refused as `Busy`. Cancelled or cut short by a
        crash, it goes on with `resume`. What is no content is not rolled back: versioning, policy, documents, uploads in progress.

        Args:
            force: Do so although files are open: their handles are stale from then on.
            progress: Told now and then how many rows were looked at.

        Raises:
            VolumeNotFound, NotFound, ReadOnly
            Busy: Files are open, or it is being rolled back.
            Retained: Something in the volume is locked.
        """
        await self._namespace.volumes.writable(volume)
        async with self._rolling:
            await rollback.begin(self._namespace, self._inodes, volume, name, force=force)
            return await rollback.work(self._namespace, self._inodes, volume, progress)

    async def resume(self) -> list[str]:
        """Finish the rollbacks that a crash cut short; returns their volumes."""
        done = []
        async with self._rolling:
            for each in await self._namespace.volumes.all():
                if each.row.rolling:
                    await rollback.work(
                        self._namespace, self._inodes, each.row.name, lambda _: None
                    )
                    done.append(each.row.name)
        return done

    async def prune(
        self,
        volume: str,
        *,
        older_than_s: float | None = None,
        keep: int = 0,
        matching: str = "*",
        dry_run: bool = False,
    ) -> list[str]:
        """Delete snapshots that have had their time, oldest first; returns their names. Those with clones or holds stay.

        Args:
            older_than_s: Only those of at least this age.
            keep: The newest so many of those that match stay, whatever their age.
            matching: Only those whose name fits this shell pattern.
            dry_run: Only say which.

        Raises:
            VolumeNotFound
            InvalidArgument: Neither an age nor a number to keep, or one below zero.
        """
        if older_than_s is None and not keep:
            raise InvalidArgument(
                "which snapshots? Say how old they have to be (older than), or how many to keep"
            )
        if keep < 0 or (older_than_s is not None and older_than_s < 0):
            raise InvalidArgument("an age and a number to keep are not below 0")
        fitting = [each for each in await self.all(volume) if fnmatchcase(each.name, matching)]
        candidates = fitting[: max(0, len(fitting) - keep)]
        if older_than_s is not None:
            before = self._namespace.clock_ns() - int(older_than_s * 1e9)
            candidates = [each for each in candidates if each.created_ns <= before]
        gone = []
        for each in candidates:
            if each.clones or each.holds:
                continue
            if not dry_run:
                with suppress(NotFound, Busy):  # deleted or cloned meanwhile
                    await self.delete(volume, each.name)
            gone.append(each.name)
        return gone

    async def _rows(self, volume: Volume) -> list[tuple[int, SnapshotRow]]:
        own = Fresh(self._namespace, replace(volume, bases=(), snapshot=0))
        found: list[tuple[int, SnapshotRow]] = []
        start = keys.SNAPSHOTS[0]
        while page := await own.scan(start, keys.SNAPSHOTS[1]):
            found += [
                (int.from_bytes(key[1:9], "big"), decode_snapshot(value)) for key, value in page
            ]
            start = page[-1][0] + b"\0"
        return found


async def _forget_counters(change: Change, number: int, previous: int) -> bool:
    """Remove the counters that only a deleted snapshot's rows had, and then its row; True if that was all."""
    start, _ = keys.soles_of(number, 0)
    later = await change.rows.scan_present(keys.snapshot_key(number) + b"\0", b"T", limit=1)
    end = keys.soles_of(0, int.from_bytes(later[0][0][1:9], "big") if later else 0)[1]
    room = FORGOTTEN
    while room and (page := await change.rows.scan_present(start, end)):
        for key, _ in page:
            if keys.sole_parts(key)[1] >= previous:
                change.rows.delete_present(key)
                room -= 1
                if not room:
                    return False
        start = page[-1][0] + b"\0"
    change.rows.delete_present(keys.snapshot_key(number))
    return True


async def _may_go(_: object) -> None:
    """Let a volume go that nobody has used."""


async def _scan_all(tx: Transaction, prefix: bytes) -> list[tuple[int, SnapshotRow]]:
    found: list[tuple[int, SnapshotRow]] = []
    start, end = (prefix + bound for bound in keys.SNAPSHOTS)
    while page := await tx.scan(start, end):
        found += [(int.from_bytes(row.key[-8:], "big"), decode_snapshot(row.value)) for row in page]
        start = page[-1].key + b"\0"
    return found


def _named(
    snapshots: Iterable[tuple[int, SnapshotRow]], volume: str, name: str
) -> tuple[int, SnapshotRow]:
    for number, row in snapshots:
        if row.name == name and not row.state:
            return number, row
    raise NotFound(f"volume {volume!r} has no snapshot {name!r}")


async def _free(change: Change, key: bytes, value: bytes, near: list[bytes]) -> None:
    """Make garbage of what an archived row held and its relatives do not."""
    if rows.is_whiteout(value):
        return
    number = int.from_bytes(key[1:9], "big")
    if key[:1] == b"E":
        gone = set(held(key, value))
        for neighbour in near:
            gone -= held(key, neighbour).keys()
        if gone:
            change.free(number, gone)
    elif key[:1] == b"R":
        revision = rows.decode_revision(value)
        kept = [rows.decode_revision(each) for each in near]
        if not kept and await change.rows.scan(*keys.holds_of(number), limit=1):
            # Somebody borrows what only the snapshot showed: it lives on without a name until the last one leaves.
            await change.put_revision(number, msgspec.structs.replace(revision, born=change.epoch))
            await change.rows.put(keys.left_key(number), rows.held(change.epoch))
            return
        change.free_revision(number, revision, kept)
        if not kept:
            await change.leave_lenders(number, revision)
