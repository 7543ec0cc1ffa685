"""One change of a volume in one transaction: names, versions and revisions move together with usage, times, feed and garbage.

A name's current version is its D row, older ones and markers are V rows (`docs/formats/rows.md`). `Change` and `versions.py` have the
verbs from which the views build theirs; each leaves the invariants true:

- a directory that keys imply is in D exactly as long as something is below it in D, and its id is in V exactly as long as something is
  below it in V;
- where D has no row of a name, its newest V row is a marker, or it has none;
- a revision row exists exactly as long as it has a holder.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from warp_core.containers import Chunk
from warp_core.errors import Corrupt, Retained
from warp_core.metadata import Transaction
from warp_core.namespace import keys, rows
from warp_core.namespace.keys import Step
from warp_core.namespace.leases import FOR_NAMES, Kind
from warp_core.namespace.locks import Owner
from warp_core.namespace.owned import growth
from warp_core.namespace.paths import Path, extend, resolve
from warp_core.namespace.pending import NOTHING, Above
from warp_core.namespace.pools import Amount, Claim, amount_of
from warp_core.namespace.retention import LockClock
from warp_core.namespace.rows import (
    CONTINUED,
    DIRECTORY,
    FILE,
    IMPLIED,
    Event,
    Extent,
    Garbage,
    Name,
    Revision,
    decode_name,
    decode_revision,
    encode,
)
from warp_core.namespace.tree import Rows, Volume, VolumeTransaction
from warp_core.namespace.usage import COUNTED, Usage
from warp_core.namespace.witnesses import WITNESSES, Witnesses
from warp_core.views.objects import VolumeLock

GARBAGE_CHUNKS: Final = 1000  # of one garbage row: about 40 bytes each, within a row's 64 KiB


# Directories made or removed by one transaction: with what snapshots archive, five rows each, within WRITES_MAX beside the rest.
LEVELS: Final = 12


class TooDeep(Exception):
    """A key lacks more directories than one transaction makes: `scaffold` makes them first."""

    def __init__(self, key: bytes, *, versions: bool = False) -> None:
        super().__init__(key)
        self.key = key
        self.versions = versions


class Apart(Protocol):
    """What knows inodes that a row sets apart from their names (`revision` 0 in the name): the Files view's half."""

    async def unlinked(self, change: Change, name: Name, holder: bytes) -> Name:
        """Take one name from the inode; return the name as a version to keep or drop: with a revision that it holds by `holder`."""

    async def unnamed(self, change: Change, number: int) -> None:
        """Take one name from an inode without content: a symbolic link, a special file."""

    async def summary(self, stored: Rows, name: Name) -> Name:
        """Return the name with what its inode knows: revision, size, etag, times."""

    async def settle(self, volume: int, inode: int) -> None:
        """Bring a file's rows up to date with what was written to it."""

    async def rest(self) -> None:
        """Bring the rows of files up to date that nobody has changed since the last call."""

    async def checkpoint(self) -> None:
        """Bring all rows up to date, and note from where a restart replays the journal."""

    async def drain(self, name: str) -> bool:
        """Remove some windows of a volume's dropped revisions; True when none is left."""

    async def collect_orphans(self, name: str) -> int:
        """Remove the files of a volume, which may be a deleted one, that have no name and that nobody has open; return how many."""

    def above(self, volume: Volume) -> Above:
        """Return what the rows of a volume do not tell yet although somebody is shown it: ask before reading them."""

    async def flatten(
        self, stored: Rows, revision: int, size: int, above: Above = NOTHING
    ) -> list[Extent]:
        """Return the extents of a revision that was written in place, as its rows and what lay above them tell it.

        Raises:
            TooLarge: They are more than a reader holds.
        """


class Held(Exception):
    """Somebody holds an inode that a verb is about to read or change: recall and settle it, then begin again.

    `kinds` are what is recalled; without HANDLE nobody loses the inode's name, and who denies that is not asked.
    """

    def __init__(self, volume: int, inode: int, kinds: Kind = FOR_NAMES) -> None:
        super().__init__(volume, inode)
        self.volume = volume
        self.inode = inode
        self.kinds = kinds


class Change:
    """A transaction's half of a verb. Call `finish` at the end of the body: it writes counters and events."""

    __slots__ = (
        "_branched",
        "_events",
        "_first",
        "_freed",
        "_parts",
        "_touched",
        "_usage",
        "_volume_of",
        "_witnesses",
        "apart",
        "by",
        "credit",
        "disturbed",
        "judged",
        "listed",
        "lock_clock",
        "moved",
        "now_ns",
        "rows",
        "take_id",
        "unlocked",
        "untidy",
        "versioned",
        "versioning",
    )

    def __init__(
        self,
        transaction: VolumeTransaction,
        now_ns: int,
        take_id: Callable[[], Awaitable[int]],
        volume_of: Callable[[Transaction, int], Awaitable[Volume]],
        lock_clock: LockClock,
        apart: Apart | None = None,
        witnesses: Witnesses | None = None,
    ) -> None:
        self.rows = transaction
        self._witnesses = Witnesses() if witnesses is None else witnesses
        self.now_ns = now_ns
        self.take_id = take_id
        self._volume_of = volume_of
        # Every other volume's part of the transaction, whoever came to it from where, is with the first. That knows itself: were it
        # in its own table, each transaction with all it holds would wait for the collector, 26 objects and 30 to 70 us a commit.
        self._parts: dict[int, Change] = {}
        self._first: Change | None = None
        self.apart = apart
        self.lock_clock = lock_clock
        self.unlocked = 0  # a revision that may be dropped although it is retained
        self.moved = 0  # one whose content and retention another has by now
        self.versioning = transaction.volume.row.versioning
        self.versioned = self.versioning != "off"
        self._usage = [0] * COUNTED
        self.judged = True  # by quotas: what the namespace does for itself is not
        self.credit: Claim | None = None  # what was reserved for this change before
        self._touched: set[int] = set()
        self._branched: set[int] = set()  # directories in which directories came or went
        self._events: list[Event] = []
        self._freed: list[Garbage] = []
        self.untidy = b""  # a key above which directories are left that have nothing below them
        self.by: Owner | None = None  # whose leases on directories need not be asked: it knows
        self.disturbed: set[int] = set()  # inodes whose holders have to be asked
        self.listed: set[int] = set()  # directories whose listings change

    @property
    def epoch(self) -> int:
        """Return what rows written now are born in."""
        return self.rows.epoch

    @property
    def lock(self) -> VolumeLock | None:
        """Return what the volume says about object lock, None where it has none."""
        return self.rows.volume.row.lock

    # Names ----------------------------------------------------------------------------------------

    async def find(self, key: bytes) -> Path:
        """Look up the current version of an S3 key."""
        return await resolve(self.rows, keys.steps(key), key)

    async def make_way(self, path: Path, *, at_most: int = 0) -> None:
        """Make the directories that a path lacks; those that versions lie below come back with their id.

        With `at_most`, only so many of them, and the path may stay incomplete.

        Raises:
            TooDeep: More than LEVELS are missing.
        """
        if not at_most and len(path.steps) - len(path.nodes) > LEVELS:
            raise TooDeep(path.key)
        self.touch(path.nodes[-1])
        made = 0
        while not path.complete and (not at_most or made < at_most):
            made += 1
            index = len(path.nodes) - 1
            parent, step = path.nodes[index], path.steps[index]
            kept = None
            if self.versioned:
                kept = await self.rows.get(keys.kept_directory_key(parent, step.key))
            number = decode_name(kept).inode if kept else await self.take_id()
            name = Name(self.epoch, _kind_of(step), number, modified_ns=self.now_ns)
            await self.rows.put(keys.name_key(parent, step.key), encode(name))
            if name.kind == IMPLIED:
                self._branched.add(path.directory(index))
            path.names.append(name)
            path.nodes.append(number)

    async def put_name(self, path: Path, name: Name) -> None:
        """Make `name` the current version at the end of a complete path, whatever was there having been moved or dropped before."""
        directory, component = path.place
        await self.note_places(path)
        await self.rows.put(keys.name_key(directory, component), encode(name))
        self.touch(path.directory())
        if name.kind in (DIRECTORY, IMPLIED):
            self._branched.add(path.directory())
        if name.kind == FILE:
            self.count(objects=1, bytes=name.size)

    async def drop_name(self, path: Path) -> None:
        """Remove the current version's row, after `supersede`, and the directories that it leaves empty."""
        directory, component = path.place
        current = path.current
        await self.note_places(path)
        await self.rows.delete(keys.name_key(directory, component))
        self.touch(path.directory())
        if current is None or current.kind in (DIRECTORY, IMPLIED):
            self._branched.add(path.directory())
        await self._prune_names(path)

    async def note_places(self, path: Path) -> None:
        """Note where the directories of a path are that have no inode row, for who compares snapshots."""
        if not self.rows.newest:
            return
        for index, name in enumerate(path.names):
            if name.kind in (IMPLIED, CONTINUED):
                await self.rows.note_place(name.inode, path.nodes[index], path.steps[index].key)

    async def note_attributes(self, key: bytes) -> None:
        """Note that a name leads to other attributes, its row and its inode's being as they were."""
        if not self.rows.newest:
            return
        path = await self.find(key)
        if path.current is not None:
            await self.note_places(path)
            self.rows.mark(keys.name_key(*path.place))

    async def _prune_names(self, path: Path) -> None:
        """Remove directories without anything below them, from the last one that was found upwards."""
        last = min(len(path.names), len(path.steps) - 1) - 1
        for removed, index in enumerate(range(last, -1, -1)):
            node = path.names[index].inode
            if path.names[index].kind not in (IMPLIED, CONTINUED) or await self.occupied(
                *keys.names_of(node)
            ):
                return
            if removed == LEVELS:
                self.untidy = path.key
                return
            await self.rows.delete(keys.name_key(path.nodes[index], path.steps[index].key))
            self.forget_directory(node)
            self._touched.add(path.directory(index))
            if path.names[index].kind == IMPLIED:
                self._branched.add(path.directory(index))

    async def scaffold(self, key: bytes, *, versions: bool) -> bool:
        """Make some of the directories that a deep key lacks, among names or for versions; True when none is lacking."""
        path = await self.find(key)
        if not versions:
            await self.make_way(path, at_most=LEVELS)
            return path.complete
        made = 0
        for index, step in enumerate(path.steps[:-1]):
            kept_key = keys.kept_directory_key(path.nodes[index], step.key)
            value = await self.rows.get(kept_key)
            if index + 1 == len(path.nodes):
                path.nodes.append(decode_name(value).inode if value else await self.take_id())
            if value is None:
                if made == LEVELS:
                    return False
                made += 1
                name = Name(self.epoch, _kind_of(step), path.nodes[index + 1])
                await self.rows.put(kept_key, encode(name))
        return True

    async def tidy(self, key: bytes) -> bool:
        """Remove some of the directories on the way to a key that have nothing below them; True when none is left."""
        self.untidy = b""
        await self._prune_names(await self.find(key))
        if not self.untidy:
            path = Path(key, keys.steps(key), [keys.ROOT], [])
            await self.prune_versions(await extend(self.rows, path))
        left, self.untidy = self.untidy, b""
        return not left

    async def occupied(self, start: bytes, end: bytes) -> bool:
        """Say whether a range has a row; the commit fails if that is not so any more.

        One row out of several at the end is watched, so that deletes of a directory's entries side by side do not collide.
        Those that were found last time are tried first: a row costs much less than a range.
        """
        if not self.rows.volume.plain:
            return bool(await self.rows.scan(start, end, limit=1))
        engine, prefix = self.rows.engine, self.rows.volume.prefix
        while (known := self._witnesses.one_of(prefix + start)) is not None:
            if await engine.get(known) is not None:
                return True
            self._witnesses.gone(prefix + start, known)
        found = await engine.scan(
            prefix + start, prefix + end, limit=WITNESSES, reverse=True, checked=False
        )
        if not found:
            return bool(await engine.scan(prefix + start, prefix + end, limit=1))
        self._witnesses.seen(prefix + start, [row.key for row in found])
        witness = random.choice(found)
        if witness.version:
            engine.check(witness.key, witness.version)
        return True

    async def keep_directories(self, path: Path) -> None:
        """Write the rows that keep the directories above a place in V."""
        for made, index in enumerate(range(len(path.steps) - 2, -1, -1)):
            key = keys.kept_directory_key(path.nodes[index], path.steps[index].key)
            if await self.rows.get(key) is not None:
                return
            if made == LEVELS:
                raise TooDeep(path.key, versions=True)
            step = path.steps[index]
            name = Name(self.epoch, _kind_of(step), path.nodes[index + 1])
            await self.rows.put(key, encode(name))

    async def make_way_for_versions(self, path: Path) -> None:
        """Complete a path for versions alone: directories that neither D nor V knows get an id."""
        await extend(self.rows, path)
        while not path.complete:
            path.nodes.append(await self.take_id())

    async def prune_versions(self, path: Path) -> None:
        """Remove the rows that keep directories without versions below them, from the last node that is known upwards."""
        for removed, index in enumerate(range(len(path.nodes) - 2, -1, -1)):
            if await self.occupied(*keys.versions_of(path.nodes[index + 1])):
                return
            if removed == LEVELS:
                self.untidy = path.key
                return
            await self.rows.delete(
                keys.kept_directory_key(path.nodes[index], path.steps[index].key)
            )

    # Revisions ------------------------------------------------------------------------------------

    async def revision(self, number: int) -> Revision:
        """Return a revision that some row leads to.

        Raises:
            Corrupt: It is missing or damaged.
        """
        key = keys.revision_key(number)
        value = await self.rows.get(key)
        if value is None:
            raise Corrupt(f"revision {number} of volume {self.rows.volume.number} is missing")
        revision: Revision = rows.checked(decode_revision, key, value)
        return revision

    async def put_revision(self, number: int, revision: Revision) -> None:
        """Write a revision, its first holder being what the caller links it to."""
        await self.rows.put(keys.revision_key(number), encode(revision), fresh=True)

    async def hold(self, number: int, holder: bytes) -> None:
        """Add a holder to a revision whose row this transaction has read."""
        alone = await self.rows.lending(keys.revision_key(number))
        await self.rows.put(keys.hold_key(number, holder), rows.held(self.epoch))
        await self.rows.lent(keys.revision_key(number), alone)

    async def hand_over(self, number: int, holder: bytes, successor: bytes) -> None:
        """Let another holder take the place of one."""
        own = keys.hold_key(number, holder)
        if await self.rows.get(own) is not None:
            await self.rows.delete(own)
            await self.hold(number, successor)

    async def release(self, number: int, holder: bytes) -> None:
        """Take a holder from a revision; the last one drops it, with what only it referred to.

        Raises:
            Retained: It is locked, and this is its last holder.
        """
        held = await self.rows.scan(*keys.holds_of(number), limit=3)
        if held:
            own = keys.hold_key(number, holder)
            if await self.rows.get(own) is not None:
                alone = await self.rows.lending(keys.revision_key(number))
                await self.rows.delete(own)
                await self.rows.lent(keys.revision_key(number), alone)
                left_behind = len(held) > 1 or await self.rows.get(keys.left_key(number)) is None
                if left_behind:
                    return
                await self.rows.delete(keys.left_key(number))
            else:
                await self.rows.put(keys.left_key(number), rows.held(self.epoch))
                return
        revision = await self.revision(number)
        if holder[:1] != keys.OF_REVISION:
            # What only borrowed from it may always go: whatever showed it was removed, and judged, before.
            await self.check_retention(number, revision)
        kept = await self.rows.delete(keys.revision_key(number))
        if revision.windowed:
            self.rows.put_present(keys.drain_key(number), b"")
        if not kept:
            await self.drop_content(number, revision)

    async def check_retention(self, number: int, revision: Revision) -> None:
        """Raise if a revision may not be dropped now.

        Raises:
            Retained: Object lock or a legal hold is on it.
        """
        if number == self.moved:
            return
        if revision.legal_hold:
            raise Retained(f"revision {number} is under legal hold")
        if not revision.retain_mode or number == self.unlocked:
            return
        if revision.retain_until_ns > await self.lock_clock.now_ns():
            raise Retained(f"revision {number} is retained until {revision.retain_until_ns}")

    async def drop_content(self, number: int, revision: Revision) -> None:
        """Make garbage of what only a dropped revision referred to; what other moments show stays."""
        found = await self.rows.relatives(keys.revision_key(number))
        kept = [decode_revision(value) for value in found]
        self.free_revision(number, revision, kept)
        if not kept:
            await self.leave_lenders(number, revision)

    async def leave_lenders(self, number: int, revision: Revision) -> None:
        """Release what a dropped revision referred to besides its own records."""
        holder = keys.holder_of_revision(self.rows.volume.number, number)
        for volume, lender in lenders(revision):
            change = await self.in_volume(volume)
            await change.release(lender, holder)

    async def lend(self, number: int, revision: Revision) -> None:
        """Hold what a new revision refers to besides its own records, which this transaction has read."""
        holder = keys.holder_of_revision(self.rows.volume.number, number)
        for volume, lender in lenders(revision):
            change = await self.in_volume(volume)
            await change.hold(lender, holder)

    async def in_volume(self, number: int) -> Change:
        """Return the part of this change that is in a volume (0: its own), which may be a deleted one."""
        if number in (0, self.rows.volume.number):
            return self
        first = self._first or self
        if number == first.rows.volume.number:
            return first
        found = first._parts.get(number)
        if found is None:
            volume = await self._volume_of(self.rows.engine, number)
            rows_there = VolumeTransaction(self.rows.engine, volume)
            found = Change(
                rows_there,
                self.now_ns,
                self.take_id,
                self._volume_of,
                self.lock_clock,
                witnesses=self._witnesses,
            )
            found._first = first
            first._parts[number] = found
        return found

    def free_revision(self, number: int, revision: Revision, kept: Iterable[Revision]) -> None:
        """Make garbage of a revision row's own chunks, except those that neighbours in time show."""
        held: set[Chunk] = set()
        manifests: set[Chunk] = set()
        for other in kept:
            held.update(extent.chunk for extent in other.extents if not extent.revision)
            if other.manifest:
                manifests.add(other.manifest)
        chunks = own_chunks(revision.extents) - held
        manifest = revision.manifest if revision.manifest not in manifests else None
        if revision.lent_manifest:
            manifest = None
        if chunks or manifest:
            self.free(number, chunks, manifest)

    def free(self, revision: int, chunks: Iterable[Chunk], manifest: Chunk | None = None) -> None:
        """Write that nothing refers to these chunks any more once this transaction is committed."""
        every = sorted(
            chunks, key=place_of
        )  # many come as a set, whose order is another in each process
        number = self.rows.volume.number
        for start in range(0, max(len(every), 1), GARBAGE_CHUNKS):
            part = tuple(every[start : start + GARBAGE_CHUNKS])
            self._freed.append(Garbage(number, revision, part, manifest if not start else None))

    # The end --------------------------------------------------------------------------------------

    def count(
        self,
        *,
        objects: int = 0,
        bytes: int = 0,
        versions: int = 0,
        version_bytes: int = 0,
        uploads: int = 0,
        part_bytes: int = 0,
        snapshot_bytes: int = 0,
    ) -> None:
        """Add to what the volume holds."""
        usage = self._usage
        usage[0] += objects
        usage[1] += bytes
        usage[2] += versions
        usage[3] += version_bytes
        usage[4] += uploads
        usage[5] += part_bytes
        self.rows.kept_bytes += snapshot_bytes

    def touch(self, directory: int) -> None:
        """Note that a directory's entries changed."""
        self._touched.add(directory)
        self.listed.add(directory)

    def forget_directory(self, directory: int) -> None:
        """Drop what is known of the changes of a directory that is gone."""
        self._touched.discard(directory)
        self._branched.discard(directory)
        self.rows.delete_present(keys.times_key(directory))
        self.rows.delete_present(keys.branches_key(directory))

    def tell(self, event: Event) -> None:
        """Add an event to the change feed."""
        self._events.append(event)

    def finish(self) -> None:
        """Write counters, times, events and garbage of every volume that the transaction came to."""
        freed: list[Garbage] = []
        for part in (self, *self._parts.values()):
            freed += part._freed
            part._finish()
        engine = self.rows.engine
        for index, garbage in enumerate(freed):
            engine.stamp(keys.GARBAGE, index.to_bytes(2, "big"), encode(garbage))

    def growth(self) -> list[tuple[Volume, Amount, bool]]:
        """Return by how much each volume grows for its quotas, and whether it may be refused.

        What takes a current object away may not, although a marker is left: who is full must be able to delete.
        """
        found = []
        for part in (self, *self._parts.values()):
            if part.rows.kept_bytes or any(part._usage):
                counted = Usage(*part._usage)._replace(snapshot_bytes=part.rows.kept_bytes)
                grown = amount_of(counted)
                found.append((part.rows.volume, grown, self.judged and part._usage[0] >= 0))
        return found

    def owners(self) -> list[tuple[Volume, dict[str, Amount]]]:
        """Return by how much users and groups have more in each volume that counts that."""
        return [
            (part.rows.volume, grown)
            for part in (self, *self._parts.values())
            if part.rows.owned and (grown := growth(part.rows.owned.values()))
        ]

    def _finish(self) -> None:
        if self.rows.owned:
            for owner, amount in growth(self.rows.owned.values()).items():
                self.rows.merge(keys.owner_key(owner), add=tuple(amount))
        if any(self._usage):
            self.rows.merge(keys.usage_key(self.epoch), add=tuple(self._usage))
        if self.rows.kept_bytes:
            self.rows.merge(keys.KEPT_BYTES, add=(self.rows.kept_bytes,))
        for (death, born), weight in self.rows.soles.items():
            if any(weight):
                self.rows.merge(keys.sole_key(death, born), add=tuple(weight))
        for directory in self._touched:
            self.rows.merge(keys.times_key(directory), maximum=(self.now_ns,))
        for directory in self._branched:
            self.rows.merge(keys.branches_key(directory), maximum=(self.now_ns,))
        for index, event in enumerate(self._events):
            self.rows.stamp(keys.FEED, index.to_bytes(2, "big"), encode(event))


def lenders(revision: Revision) -> set[tuple[int, int]]:
    """Return (volume, revision) of what a revision refers to besides its own records; volume 0 is its own."""
    found = {(extent.volume, extent.revision) for extent in revision.extents if extent.revision}
    if revision.base:
        found.add((0, revision.base))
    found.update(revision.lenders)
    return found


def own_chunks(extents: Iterable[Extent]) -> set[Chunk]:
    """Return the chunks of extents that are of the revision's own records."""
    return {extent.chunk for extent in extents if not extent.revision}


def place_of(chunk: Chunk) -> tuple[int, int]:
    """Return what chunks are sorted by."""
    return chunk.container, chunk.offset


def _kind_of(step: Step) -> int:
    return CONTINUED if step.key.endswith(keys.CONTINUED_END) else IMPLIED
