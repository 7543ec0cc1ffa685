"""Counting again what a volume holds, from its rows: what its counters should say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import msgspec

from warp_core.errors import Corrupt
from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.metadata import counters
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.inodes import Inode, decode_inode
from warp_core.namespace.kept import is_content, kept_bytes
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import FILE, Name, Part, Upload
from warp_core.namespace.soles import Grave, Soles, Weight, add, difference, soles
from warp_core.namespace.tree import Pair, ViewSource, Volume, below_clone
from warp_core.namespace.usage import Usage

ATTEMPTS: Final = 3  # counts of a volume that changes meanwhile, before it is left alone
CORRECTED: Final = 50  # counters of one transaction


class Tally:
    """What rows add up to, told one by one: uploads before their parts, the rest in any order."""

    __slots__ = ("_buried", "_ended", "_usage")

    def __init__(self) -> None:
        self._buried: dict[bytes, int] = {}  # R row → what its newest archived one keeps
        self._usage = dict.fromkeys(Usage._fields, 0)
        self._ended: set[int] = (
            set()
        )  # uploads whose parts are counted no more: they are the object's

    def name(self, name: Name) -> None:
        """Count a live entry; bytes of an inode set apart are counted with it."""
        if name.kind == FILE:
            self._usage["objects"] += 1
            self._usage["bytes"] += name.size if name.revision else 0

    def inode(self, inode: Inode) -> None:
        """Count an inode set apart, once for all its names; one that is kept for who has it open counts as well."""
        if inode.kind == FILE:
            self._usage["bytes"] += inode.size

    def version(self, version: Name) -> None:
        """Count a noncurrent version or marker."""
        self._usage["versions"] += 1
        self._usage["version_bytes"] += version.size

    def upload(self, number: int, upload: Upload) -> None:
        """Count an upload that goes on."""
        self._usage["uploads"] += not upload.state
        if upload.state == "completed":
            self._ended.add(number)

    def part(self, upload: int, part: Part) -> None:
        """Count a part of an upload."""
        if upload not in self._ended:
            self._usage["part_bytes"] += part.size

    def archived(self, key: bytes, value: bytes) -> None:
        """Count an archived row, all of a key in the order of their deaths, and before live ones."""
        of, _ = keys.archive_parts(key)
        if of[:1] == b"E":
            self._usage["snapshot_bytes"] += kept_bytes(of, value)
        elif is_content(of):
            self._buried[of] = kept_bytes(of, value)

    def revision(self, key: bytes) -> None:
        """Tell of a revision that is there: what snapshots have of it counts with who shows it."""
        self._buried.pop(key, None)

    def usage(self) -> Usage:
        """Return the sums."""
        sums = Usage(**self._usage)
        return sums._replace(snapshot_bytes=sums.snapshot_bytes + sum(self._buried.values()))


async def every(
    namespace: Namespace, volume: Volume, start: bytes, end: bytes
) -> AsyncIterator[Pair]:
    """Yield the rows of a range that a volume shows, those of a clone's base included; each page is of one moment."""
    while True:
        view = namespace.store.view()
        try:
            page = await volume.rows(ViewSource(view)).scan(start, end)
        finally:
            view.close()
        for pair in page:
            yield pair
        if len(page) < SCAN_MAX:
            return
        start = page[-1][0] + b"\0"


def is_version(key: bytes) -> bool:
    """Say whether a V row is a version or marker: others keep a directory, or say which version is the null version."""
    tail = key[keys.end_of_component(key, keys.NAME_AT) :]
    return len(tail) > 1


async def miscounted(namespace: Namespace, name: str) -> Usage | None:
    """Return by how much a volume's counters are off; all zeros if they are right, None where it changes all the time.

    A difference counts only if two counts agree on it and the counters did not move meanwhile.

    Raises:
        VolumeNotFound
    """
    seen: Usage | None = None
    for _ in range(ATTEMPTS):
        before = await namespace.usage(name)
        counted = await recount(namespace, await namespace.volumes.get(name))
        if await namespace.usage(name) != before:
            seen = None
            continue
        off = Usage(*(have - is_ for have, is_ in zip(before, counted, strict=True)))
        if not any(off) or off == seen:
            return off
        seen = off
    return None


async def correct(namespace: Namespace, name: str, off: Usage) -> None:
    """Take a difference out of a volume's counters; changes that go on meanwhile keep counting."""

    async def body(change: Change) -> None:
        change.judged = False
        change.count(**{field: -by for field, by in off._asdict().items()})

    await namespace.change(name, body)


async def recount_soles(namespace: Namespace, volume: Volume) -> Soles:
    """Return what archived rows hold alone, as the rows of the volume say; rows that cannot be read hold nothing."""
    total: Soles = {}
    group: list[Grave] = []
    of = b""

    async def close() -> None:
        if group:
            for (death, epoch), weight in (await _soles_of(namespace, volume, of, group)).items():
                add(total, death, epoch, weight)
        group.clear()

    for family in (b"AR", b"AE"):
        async for entry, value in every(namespace, volume, family, keys.after(family)):
            key, death = keys.archive_parts(entry)
            if key != of:
                await close()
                of = key
            group.append((death, value))
        await close()
    return {each: weight for each, weight in total.items() if any(weight)}


async def _soles_of(namespace: Namespace, volume: Volume, key: bytes, graves: list[Grave]) -> Soles:
    view = namespace.store.view()
    try:
        source = ViewSource(view)
        own = replace(volume, bases=(), snapshot=0).rows(source)
        live = await own.get(key)
        if key[:1] == b"R" and (live is None or rows.is_whiteout(live)):
            holds = keys.holds_of(int.from_bytes(key[1:9], "big"))
            if await volume.rows(source).scan(*holds, limit=1):
                return {}
        living = [live] if live is not None else []
        if volume.bases:
            below = await below_clone(source, volume).get(key)
            living += [below] if below is not None else []
        return soles(key, graves, living)
    except (msgspec.MsgspecError, Corrupt):
        return {}
    finally:
        view.close()


async def stored_soles(namespace: Namespace, volume: Volume) -> Soles:
    """Return what archived rows hold alone, as the counters of the volume say."""
    found: Soles = {}
    async for key, value in every(
        namespace, replace(volume, bases=(), snapshot=0), *keys.soles_of(0, 0)
    ):
        weight = Weight(*counters(value, len(Weight._fields)))
        if any(weight):
            found[keys.sole_parts(key)] = weight
    return found


async def correct_soles(namespace: Namespace, name: str) -> bool:
    """Correct what is counted of what snapshots hold alone; returns whether it was wrong.

    Raises:
        VolumeNotFound
    """
    off: Soles = {}
    for _ in range(2):  # what two counts agree on
        volume = await namespace.volumes.get(name)
        before = await stored_soles(namespace, volume)
        found = difference(before, await recount_soles(namespace, volume))
        if not found or (off and found != off) or await stored_soles(namespace, volume) != before:
            return False
        off = found

    async def body(change: Change) -> None:
        change.judged = False
        for (death, epoch), weight in some.items():
            add(change.rows.soles, death, epoch, weight)

    places = sorted(off)
    for first in range(0, len(places), CORRECTED):
        some = {each: off[each] for each in places[first : first + CORRECTED]}
        await namespace.change(name, body)
    return True


async def recount(namespace: Namespace, volume: Volume) -> Usage:
    """Count what the rows of a volume say, those that a clone shows of its base included.

    Rows that cannot be read count for nothing: whoever checks them tells of them.
    """
    tally = Tally()

    def count(key: bytes, value: bytes) -> None:
        match key[:1]:
            case b"D":
                tally.name(rows.decode_name(value))
            case b"I":
                tally.inode(decode_inode(value))
            case b"V" if is_version(key):
                tally.version(rows.decode_name(value))
            case b"U":
                tally.upload(int.from_bytes(key[-8:], "big"), rows.decode_upload(value))
            case b"P":
                tally.part(int.from_bytes(key[1:9], "big"), rows.decode_part(value))
            case b"A":
                tally.archived(key, value)
            case b"R":
                tally.revision(key)

    # A volume that never had a snapshot has no archived rows, and its revisions need not be read.
    archived = (b"A", b"R") if volume.row.epoch else ()
    for family in (b"D", b"I", b"V", b"U", b"P", *archived):
        async for key, value in every(namespace, volume, family, keys.after(family)):
            try:
                count(key, value)
            except (msgspec.MsgspecError, Corrupt):
                continue
    return tally.usage()
