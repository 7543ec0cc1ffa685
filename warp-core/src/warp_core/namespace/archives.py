"""Storage classes that are archives: contents are read only after they were restored, for as long as that says.

```
 R1 in the archive ──restore──▶ R1 asked ──copied to the volume's own stores──▶ R2 until T, holds R1 ──T──▶ R1 in the archive
                                 M (0, R1)                                        M (T, R2)
```

The copy is a revision of its own, which the version leads to for a while and which holds the one in the archive, as a copy between
volumes holds what it borrows from. So deleting, overwriting, snapshots and clones need to know nothing of it: whoever drops the
copy lets go of the archive as well. When its time is over, the version leads to the archive's revision again, with what was said of
it meanwhile (tags, retention). Rows M list what is to be done; snapshots keep them, so that a volume that was rolled back, or a clone,
has its own.

What cannot be written anew (content in its row, written in place, or sealed with a key that nobody here has) can be read where it
is while it is restored.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from warp_core import lifecycle
from warp_core.errors import Archived, InvalidArgument, Restoring, Unsupported
from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.classes import Found, find_version, linked, movable, written_anew
from warp_core.namespace.described import STANDARD, show
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.object_changes import event_of
from warp_core.namespace.object_sources import find_object
from warp_core.namespace.rows import DueRow, Restore, Revision, checked, decode_due, encode
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.namespace.versions import version_id
from warp_core.views.origin import Origin

DAYS_MAX: Final = 36_500  # a century; AWS takes any positive number


def demand_readable(archives: Collection[str], revision: Revision, key: bytes) -> None:
    """Refuse to read content that lies in an archive.

    Raises:
        Archived: It does, and was not restored.
    """
    if revision.storage_class in archives and (
        revision.restore is None or not revision.restore.until_ns
    ):
        raise Archived(
            f"{show(key)} is in {revision.storage_class}: restore it first",
            storage_class=revision.storage_class,
        )


async def restore(
    namespace: Namespace,
    volume: str,
    key: bytes,
    version: str,
    days: int,
    tier: str,
    origin: Origin | None,
) -> bool:
    """See `Objects.restore`."""
    if not 1 <= days <= DAYS_MAX:
        raise InvalidArgument(f"{days} days: allowed: 1 to {DAYS_MAX}")
    day_ns = namespace.restores_day_ns
    if not day_ns:
        raise Unsupported("nothing is restored here: the lifecycle service does not run")
    await namespace.volumes.writable(volume)

    async def body(change: Change) -> bool:
        name = await find_object(change.apart, change.rows, key, version)
        revision = await change.revision(name.revision)
        if revision.storage_class not in namespace.archives:
            storage_class = revision.storage_class or STANDARD
            raise Archived(
                f"{show(key)} is in {storage_class}, which is read without being restored",
                storage_class=storage_class,
            )
        now_ns, before = change.now_ns, revision.restore
        if before is not None and not before.until_ns:
            raise Restoring(f"{show(key)} is being restored already")
        asked = Restore(days, tier, now_ns)
        due_ns = 0
        if before is not None:
            due_ns = lifecycle.after(now_ns, days, day_ns)
            asked = msgspec.structs.replace(asked, until_ns=due_ns, archived=before.archived)
            await change.rows.delete(keys.due_key(before.until_ns, name.revision))
        await _say(change, name.revision, revision, asked)
        await _note(change, due_ns, name.revision, key, version_id(name))
        if before is None:
            change.tell(event_of("restore", change, key, name, origin))
        return before is None

    return await namespace.change(volume, body)


async def _say(change: Change, number: int, revision: Revision, said: Restore | None) -> None:
    changed = msgspec.structs.replace(revision, born=change.epoch, restore=said)
    await change.rows.put(keys.revision_key(number), encode(changed))


async def _note(change: Change, due_ns: int, number: int, key: bytes, version: str) -> None:
    await change.rows.put(keys.due_key(due_ns, number), encode(DueRow(change.epoch, key, version)))


# What is due --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """Something to be done for one version."""

    moment_ns: int  # 0: bring it back; else its copy's time was over then
    revision: int
    key: bytes
    version: str


async def due(namespace: Namespace, volume: Volume, limit: int) -> list[Due]:
    """Return what is to be done in a volume now, contents to be brought back first."""
    view = namespace.store.view()
    try:
        stored = volume.rows(ViewSource(view))
        found = await stored.scan(*keys.due_until(namespace.clock_ns()), limit=limit)
    finally:
        view.close()
    entries = []
    for key, value in found:
        row: DueRow = checked(decode_due, key, value)
        entries.append(Due(*keys.due_parts(key), row.key, row.version))
    return entries


async def do(namespace: Namespace, volume: str, task: Due, origin: Origin | None) -> str:
    """Do what is due; return "restored", "dropped", or "" where the version is gone or is something else by now.

    Raises:
        What reading and writing raises: It stays due.
    """
    if task.moment_ns:
        return "dropped" if await _drop(namespace, volume, task, origin) else ""
    return "restored" if await _bring_back(namespace, volume, task, origin) else ""


async def _find(change: Change, task: Due) -> Found | None:
    """Return the version as it is if it is still what was noted; else the note goes."""
    found = await find_version(change, task.key, task.version)
    if found is not None and found.whole.revision == task.revision:
        revision = await change.revision(task.revision)
        if revision.restore is not None and revision.restore.until_ns == task.moment_ns:
            return replace(found, revision=revision)
    await change.rows.delete(keys.due_key(task.moment_ns, task.revision))
    return None


async def _bring_back(namespace: Namespace, volume: str, task: Due, origin: Origin | None) -> bool:
    target = await namespace.volumes.writable(volume)

    async def look(change: Change) -> Found | None:
        return await _find(change, task)

    found = await namespace.change(volume, look)
    if found is None:
        return False
    assert found.revision is not None
    policy = namespace.policy_of(target)
    stays = policy == namespace.policy_of(target, found.revision.storage_class)
    if stays or not movable(found):
        return await namespace.change(volume, lambda change: _mark(namespace, change, task, origin))
    async with namespace.moving:
        made = await written_anew(namespace, target, found, policy)

        async def link(change: Change) -> bool:
            now = await _find(change, task)
            if now is None:
                return False
            assert now.revision is not None
            change.judged = False  # a copy for a while is the operator's
            said = _until(namespace, change, now.revision)
            copy = msgspec.structs.replace(
                now.revision,
                born=change.epoch,
                extents=made.extents,
                manifest=made.manifest,
                parts=made.parts,
                lenders=((0, task.revision),),
                lent_manifest=False,
                listed=made.listed,
                restore=msgspec.structs.replace(said, archived=task.revision),
            )
            await change.put_revision(made.number, copy)
            await change.lend(made.number, copy)
            named = msgspec.structs.replace(now.name, born=change.epoch, revision=made.number)
            await change.rows.put(now.place, encode(named))
            await change.release(task.revision, now.path.holder(now.name.sequence))
            await change.rows.delete(keys.due_key(0, task.revision))
            await _note(change, said.until_ns, made.number, task.key, task.version)
            change.disturbed.add(now.name.inode)
            _tell_restored(change, task, now, said, origin)
            return True

        return await linked(namespace, target, made, link)


def _tell_restored(
    change: Change, task: Due, now: Found, said: Restore, origin: Origin | None
) -> None:
    event = event_of("restored", change, task.key, now.whole, origin)
    restored = (now.name.storage_class, said.until_ns)
    change.tell(msgspec.structs.replace(event, restored=restored))


def _until(namespace: Namespace, change: Change, revision: Revision) -> Restore:
    assert revision.restore is not None
    day_ns = namespace.restores_day_ns or lifecycle.DAY_NS
    until_ns = lifecycle.after(change.now_ns, revision.restore.days, day_ns)
    return msgspec.structs.replace(revision.restore, until_ns=until_ns)


async def _mark(namespace: Namespace, change: Change, task: Due, origin: Origin | None) -> bool:
    """Let content be read where it is."""
    now = await _find(change, task)
    if now is None:
        return False
    assert now.revision is not None
    said = _until(namespace, change, now.revision)
    await _say(change, task.revision, now.revision, said)
    await change.rows.delete(keys.due_key(0, task.revision))
    await _note(change, said.until_ns, task.revision, task.key, task.version)
    _tell_restored(change, task, now, said, origin)
    return True


async def _drop(namespace: Namespace, volume: str, task: Due, origin: Origin | None) -> bool:
    """Let a version lead to the archive alone again."""

    async def body(change: Change) -> bool:
        now = await _find(change, task)
        if now is None:
            return False
        assert now.revision is not None
        copy = now.revision
        change.judged = False
        if copy.archived:
            kept = await change.revision(copy.archived)
            kept = msgspec.structs.replace(
                copy,  # with what was said of it meanwhile
                extents=kept.extents,
                manifest=kept.manifest,
                parts=kept.parts,
                lenders=kept.lenders,
                lent_manifest=kept.lent_manifest,
                listed=kept.listed,
            )
            holder = now.path.holder(now.name.sequence)
            await _say(change, copy.archived, kept, None)
            await change.hold(copy.archived, holder)
            named = msgspec.structs.replace(now.name, born=change.epoch, revision=copy.archived)
            await change.rows.put(now.place, encode(named))
            change.moved = task.revision
            await change.release(task.revision, holder)
            change.disturbed.add(now.name.inode)
        else:
            await _say(change, task.revision, copy, None)
        await change.rows.delete(keys.due_key(task.moment_ns, task.revision))
        change.tell(event_of("unrestored", change, task.key, now.whole, origin))
        return True

    return await namespace.change(volume, body)
