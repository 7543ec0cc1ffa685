"""PUT and DELETE as one commit made at once, where nothing special is about them: what nearly all requests of S3 are.

`object_changes` has the rules; this module is the same for the case that needs few of them, without a transaction's bookkeeping, which
costs as much as the change itself. It reads rows and writes the checks, rows and counters that the transaction would, so that whoever
comes in between makes the commit fail, and it returns `NotHere` wherever a rule might apply that it does not know: then, and after
a conflict, the transaction does it. `tests/namespace/test_direct.py` holds the two to the same rows.

```
 plain volume, unversioned, never rolled back and without object lock, every directory there, nobody holds what changes
     ──▶ one commit
 anything else
     ──▶ `Namespace.change`
```
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from warp_core.containers import Chunk
from warp_core.errors import Conflict, Unavailable
from warp_core.interfaces.consistency import (
    Commit,
    KeyCheck,
    Merge,
    RangeCheck,
    Row,
    Stamp,
    View,
    Write,
)
from warp_core.metadata import commit_once, new_request_id
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import lenders, own_chunks, place_of
from warp_core.namespace.described import judge
from warp_core.namespace.kept import kept_bytes
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.pools import Admission, Amount, Claim
from warp_core.namespace.rows import (
    CONTINUED,
    FILE,
    IMPLIED,
    NULL_VERSION,
    Event,
    Garbage,
    Name,
    Revision,
    born,
    decode_name,
    decode_revision,
    decode_way,
    encode,
)
from warp_core.namespace.soles import held, weigh
from warp_core.namespace.tree import Volume
from warp_core.namespace.volumes import demand_writable
from warp_core.namespace.witnesses import WITNESSES
from warp_core.views.objects import ALWAYS, Condition
from warp_core.views.origin import Origin

VOLUMES_KNOWN: Final = 1024  # of which it is known from where on revisions are young
WITNESSES_TRIED: Final = 4  # looks, at one row each, to learn that a directory has more
_FIRST: Final = (0).to_bytes(2, "big")  # number of the only event, or garbage row, of a commit
_NULL: Final = "null"  # id of the version that an unversioned volume has
_new = tuple.__new__


class NotHere(Exception):
    """A rule may apply that only the transaction knows."""


class Direct:
    """The short way of a namespace's objects."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._volumes = namespace.volumes
        self._store = namespace.store
        self._witnesses = namespace.witnesses
        self._immediate = namespace.store.capabilities.immediate
        self._young: dict[int, tuple[int, int]] = {}  # see `_younger`

    async def put(
        self,
        volume: str,
        key: bytes,
        number: int,
        revision: Revision,
        condition: Condition,
        verb: str,
        origin: Origin | None = None,
        credit: Claim | None = None,
    ) -> Name:
        """Make a revision the current version of a key, as `object_changes.put_object` does.

        Raises:
            NotHere: Nothing was done.
            PreconditionFailed, NotFound: The condition does not hold.
        """
        target = self._target(volume)
        if revision.retain_mode or revision.legal_hold:
            raise NotHere
        view = self._store.view()
        try:
            draft = _Draft(target, view, self._namespace.clock_ns(), self._younger(target))
            directory, component, _ = draft.walk(keys.steps(key))
            current = draft.current(directory, component)
            if condition is not ALWAYS:
                judge(condition, key, current)
            objects, size, sequence = 1, revision.size, 0
            if current is not None:
                self._demand_free(target, current.inode)
                await draft.drop(current, directory, component)
                objects, size, sequence = 0, size - current.size, current.sequence
            draft.going(keys.name_key(directory, component))
            self._demand_unlisted(target, draft.above)
        finally:
            view.close()
        admission = self._admitted(target, draft, objects, size, judged=True, credit=credit)
        epoch = target.row.epoch
        if epoch:
            revision = msgspec.structs.replace(revision, born=epoch)
        name = Name(
            epoch,
            FILE,
            number,
            number,
            sequence,
            NULL_VERSION,
            revision.size,
            revision.etag,
            revision.modified_ns or draft.now_ns,
            revision.owner,
            revision.storage_class,
            tuple(revision.checksums),
            revision.checksum_type,
        )
        draft.put(keys.revision_key(number), encode(revision))
        draft.put(keys.name_key(directory, component), encode(name))
        draft.finish(objects, size, verb, key, name, origin)
        await self._commit(draft, target, objects, size, admission)
        return name

    async def delete(
        self, volume: str, key: bytes, condition: Condition, origin: Origin | None = None
    ) -> None:
        """Remove the current version of a key, as `object_changes.delete_object` does.

        Raises:
            NotHere: Nothing was done.
            PreconditionFailed, NotFound: The condition does not hold.
        """
        target = self._target(volume)
        view = self._store.view()
        try:
            draft = _Draft(target, view, self._namespace.clock_ns(), self._younger(target))
            directory, component, kind = draft.walk(keys.steps(key))
            current = draft.current(directory, component)
            if current is None:
                raise NotHere
            if condition is not ALWAYS:
                judge(condition, key, current)
            self._demand_free(target, current.inode)
            self._demand_unlisted(target, draft.above)
            await draft.drop(current, directory, component)
            draft.going(keys.name_key(directory, component))
            if kind in (IMPLIED, CONTINUED):
                await self._demand_occupied(draft, directory, component)
        finally:
            view.close()
        admission = self._admitted(target, draft, -1, -current.size, judged=False)
        draft.delete(keys.name_key(directory, component))
        draft.finish(-1, -current.size, "delete", key, current, origin)
        await self._commit(draft, target, -1, -current.size, admission)

    def _younger(self, target: Volume) -> int | None:
        """Return a number from which on no revision has archived rows: they are all younger than the volume's newest snapshot.

        What is archived was there when a snapshot was made; so it is enough to have seen, once since the newest one, which
        number comes next. Without such a number it has to be looked.
        """
        newest = target.row.newest
        known = self._young.get(target.number)
        if known is not None and known[0] == newest:
            return known[1]
        coming = self._namespace.ids.coming()
        if coming is None:
            return None
        if len(self._young) >= VOLUMES_KNOWN:
            self._young.clear()
        self._young[target.number] = newest, coming
        return coming

    def _target(self, volume: str) -> Volume:
        """Return the volume, if it is one of the simple kind."""
        target = self._volumes.known(volume) if self._immediate else None
        if target is None:
            raise NotHere
        row = target.row
        if not target.plain or row.rolled or row.versioning != "off" or row.lock:
            raise NotHere
        demand_writable(target, volume)
        return target

    def _demand_free(self, target: Volume, inode: int) -> None:
        """Leave it to the transaction, which recalls, where somebody may hold the inode."""
        opens = self._namespace.opens
        if opens is not None and opens.holders(target.number, inode):
            raise NotHere

    def _demand_unlisted(self, target: Volume, directory: int) -> None:
        """Leave it to the transaction where somebody may rely on what is in a directory."""
        opens = self._namespace.opens
        if opens is not None and opens.listed_by_any(target.number, directory):
            raise NotHere

    async def _demand_occupied(self, draft: _Draft, directory: int, component: bytes) -> None:
        """Make sure by one other row that a directory has not become empty; an empty one is the transaction's, which removes it."""
        first, last = keys.names_of(directory)
        start, end = draft.prefix + first, draft.prefix + last
        going = draft.prefix + keys.name_key(directory, component)
        for _ in range(WITNESSES_TRIED):
            known = self._witnesses.one_of(start)
            if known is None:
                rows = await draft.last_of(start, end, WITNESSES + 1)
                others = [row for row in rows if row.key != going]
                self._witnesses.seen(start, [row.key for row in others[:WITNESSES]])
                if not others:
                    break
                draft.watch(random.choice(others))
                return
            if known == going:
                continue
            if draft.present(known):
                return
            self._witnesses.gone(start, known)
        raise NotHere

    def _admitted(
        self,
        target: Volume,
        draft: _Draft,
        objects: int,
        size: int,
        *,
        judged: bool,
        credit: Claim | None = None,
    ) -> Admission | None:
        """Ask the quotas; None where no limit applies.

        Raises:
            QuotaExceeded
        """
        quotas = self._namespace.quotas
        tracked = quotas.known(target)
        if tracked is None:
            raise NotHere
        if not tracked.pools:
            return None
        if draft.kept_bytes:  # by a snapshot from now on, which the transaction has counted
            raise NotHere
        admission = Admission()
        try:
            quotas.admit(admission, tracked, Amount(objects, size), judged=judged, credit=credit)
        except BaseException:
            admission.undo()
            raise
        return admission

    async def _commit(
        self, draft: _Draft, target: Volume, objects: int, size: int, admission: Admission | None
    ) -> None:
        try:
            version = await commit_once(self._store, draft.commit())
        except (Conflict, Unavailable) as error:  # it was not applied: the transaction tries again
            if admission is not None:
                admission.undo()
            raise NotHere from error
        except BaseException:
            if admission is not None:
                admission.unknown()
            raise
        if admission is not None:
            admission.done(version)
            self._namespace.quotas.settled(admission)
        else:  # a limit may have come meanwhile
            grown = size + draft.kept_bytes
            self._namespace.quotas.moved(target.number, objects, grown, version)


class _Draft:
    """A commit in the making: what is read is checked, as `Transaction` and `Change` do."""

    __slots__ = (
        "_checks",
        "_garbage",
        "_merges",
        "_name",
        "_stamps",
        "_view",
        "_volume",
        "_writes",
        "_younger",
        "above",
        "kept_bytes",
        "now_ns",
        "prefix",
    )

    def __init__(self, volume: Volume, view: View, now_ns: int, younger: int | None) -> None:
        self._volume = volume
        self._younger = younger  # no revision from this number on has archived rows
        self._view = view
        self.now_ns = now_ns
        self.prefix = volume.prefix
        self.above = keys.ROOT  # the directory of what `walk` led to: long names continue in nodes
        self._checks: list[KeyCheck | RangeCheck] = []
        self._writes: list[Write] = []
        self._merges: list[Merge] = []
        self._stamps: list[Stamp] = []
        self.kept_bytes = 0  # by snapshots alone from now on
        self._name: bytes | None = None  # the row of the name, as it is

    def _get(self, key: bytes) -> bytes | None:
        row = self._view.get_now(key)
        if row is None:
            self._checks.append(_new(KeyCheck, (key, 0)))
            return None
        self._checks.append(_new(KeyCheck, (key, row[1])))
        return row[0]

    def walk(self, steps: list[keys.Step]) -> tuple[int, bytes, int]:
        """Return the directory and the component that the last step names, and the kind of that directory's own entry."""
        directory, kind = keys.ROOT, rows.DIRECTORY
        prefix = self.prefix
        for step in steps[:-1]:
            value = self._get(prefix + keys.name_key(directory, step[0]))
            if value is None:
                raise NotHere
            way = decode_way(value)
            if way.kind != rows.DIRECTORY and self._volume.row.newest:
                self._note_place(way.inode, keys.u64(directory) + step[0])
            directory, kind = way.inode, way.kind
            if kind != CONTINUED:
                self.above = directory
        return directory, steps[-1][0], kind

    def current(self, directory: int, component: bytes) -> Name | None:
        """Return the current version of a name, which is an object that nothing sets apart, or None."""
        value = self._name = self._get(self.prefix + keys.name_key(directory, component))
        if value is None:
            return None
        name = decode_name(value)
        if name.kind != FILE or not name.revision:
            raise NotHere
        return name

    def present(self, key: bytes) -> bool:
        """Say whether a row is there; if it is, the commit fails if that changes."""
        row = self._view.get_now(key)
        if row is None:
            return False
        self._checks.append(_new(KeyCheck, (key, row[1])))
        return True

    async def last_of(self, start: bytes, end: bytes, limit: int) -> list[Row]:
        """Return the last rows of a range, which are not checked."""
        return await self._view.scan(start, end, limit=limit, reverse=True)

    def watch(self, row: Row) -> None:
        """Make the commit fail if a row that the view showed changes."""
        self._checks.append(_new(KeyCheck, (row.key, row.version)))

    async def drop(self, current: Name, directory: int, component: bytes) -> None:
        """Drop the revision of a name whose only holder that is, as `Change.release` does."""
        number, prefix = current.revision, self.prefix
        start, end = keys.holds_of(number)
        start, end = prefix + start, prefix + end
        view = self._view
        if await view.scan(start, end, limit=1):
            raise NotHere
        self._checks.append(_new(RangeCheck, (start, end, view.version)))
        key = keys.revision_key(number)
        value = self._get(prefix + key)
        if value is None:
            raise NotHere
        revision: Revision = rows.checked(decode_revision, key, value)
        if revision.legal_hold or revision.retain_mode or revision.windowed or lenders(revision):
            raise NotHere
        if self._volume.row.epoch and (self._younger is None or number < self._younger):
            # What is left of snapshots that are being removed may keep it: then it counts on.
            start, end = (prefix + bound for bound in keys.graves_of(key))
            if await view.scan(start, end, limit=1):
                raise NotHere
        self.delete(key)
        if revision.born < self._volume.row.newest:
            self._archive(key, value)
            self.kept_bytes = kept_bytes(key, value)
            if self.kept_bytes:
                total = self.prefix + keys.KEPT_BYTES
                self._merges.append(_new(Merge, (total, (self.kept_bytes,), ())))
            alone = weigh(held(key, value))
            if alone.stored:
                counter = self.prefix + keys.sole_key(self._volume.row.epoch, revision.born)
                self._merges.append(_new(Merge, (counter, tuple(alone), ())))
            return
        manifest = None if revision.lent_manifest else revision.manifest
        extents = revision.extents
        if len(extents) == 1:
            chunks: tuple[Chunk, ...] = (extents[0].chunk,)
        else:
            chunks = tuple(sorted(own_chunks(extents), key=place_of))
        if chunks or manifest is not None:
            garbage = Garbage(self._volume.number, number, chunks, manifest)
            self._stamps.append(_new(Stamp, (keys.GARBAGE, _FIRST, encode(garbage), False)))

    def going(self, key: bytes) -> None:
        """Keep the row of the name for snapshots, and what compares them, as `VolumeTransaction` does."""
        row, value = self._volume.row, self._name
        if not row.newest:
            return
        if value is None:
            self.put(keys.birth_key(row.epoch, key), b"")
        elif born(value) < row.newest:
            self._archive(key, value)

    def _archive(self, key: bytes, value: bytes) -> None:
        row = self._volume.row
        self.put(keys.archive_key(key, row.epoch), value)
        self.put(keys.dead_key(row.newest, key, row.epoch), b"")

    def _note_place(self, number: int, place: bytes) -> None:
        """Note where a directory is that has no inode row, as `VolumeTransaction.note_place` does."""
        found = self._view.get_now(self.prefix + keys.place_key(number))
        if found is None or found[0] != place:
            self.put(keys.place_key(number), place)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row of the volume."""
        self._writes.append(_new(Write, (self.prefix + key, value)))

    def delete(self, key: bytes) -> None:
        """Remove a row of the volume."""
        self._writes.append(_new(Write, (self.prefix + key, None)))

    def finish(
        self,
        objects: int,
        size: int,
        verb: str,
        key: bytes,
        name: Name,
        origin: Origin | None,
    ) -> None:
        """Count, touch the directory and tell what happened, as `Change.finish` does."""
        prefix = self.prefix
        if objects or size:
            usage = prefix + keys.usage_key(self._volume.row.epoch)
            self._merges.append(_new(Merge, (usage, (objects, size, 0, 0, 0, 0), ())))
        self._merges.append(_new(Merge, (prefix + keys.times_key(self.above), (), (self.now_ns,))))
        actor = name.owner if origin is None or not origin.actor else origin.actor
        event = Event(
            verb,
            self.now_ns,
            key,
            0,
            b"",
            name.inode,
            _NULL,
            name.size,
            name.etag,
            actor,
            origin,
        )
        self._stamps.append(_new(Stamp, (prefix + keys.FEED, _FIRST, encode(event), False)))

    def commit(self) -> Commit:
        """Return the commit."""
        volume, checks = self._volume, self._checks
        seen = len(checks)
        checks.append(_new(KeyCheck, (keys.volume_name_key(volume.row.name), volume.version)))
        return Commit(
            checks,
            self._writes,
            self._merges,
            self._stamps,
            new_request_id(),
            seen,
            self._view.version,
        )
