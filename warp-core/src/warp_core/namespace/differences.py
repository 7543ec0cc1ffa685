"""What differs between two snapshots of a volume, or a snapshot and now: read from what changed, not from all that there is.

Every kept row that changed since snapshot A is named by the dead list of A or of a later one, or is noted as new (family b). So the
names that may differ are the D and I keys of those lists, merged in their order; each is looked up in both moments. A name is a place
in a directory, and what it leads to an inode, so a directory that was renamed is one difference, whatever lies below it.

```
 dead lists of A … B      D keys, I keys ─┐
 notes of epochs A … B    D keys ─────────┴─ merged ─▶ each key at A and at B ─▶ added · removed · renamed · changed
```

An inode with one name at A and one at B is *renamed* where these differ; of an inode with several names each that went is removed,
each that came added. A cursor is the last key that was judged.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from warp_core.errors import InvalidArgument, NotFound
from warp_core.interfaces.consistency import View
from warp_core.namespace import keys, rows
from warp_core.namespace.finding import KINDS, SPECIAL
from warp_core.namespace.inodes import Inode, implied_directory, implied_file, read_inode
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import Name, Revision, decode_name, decode_snapshot
from warp_core.namespace.tree import Cursor, LiveRows, Rows, ViewSource, Volume
from warp_core.views.files import FileKind

PAGE_MAX: Final = 1_000  # differences of one answer
LOOKED_MAX: Final = 4_000  # keys judged for one: a view lasts a few seconds
FETCHED: Final = 128  # rows of one list at a time
_DIRECTORIES: Final = (rows.DIRECTORY, rows.IMPLIED)

What = Literal["added", "removed", "renamed", "changed"]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One name that differs."""

    what: What
    path: bytes  # where it is, or was
    to: bytes = b""  # where it is now, of what was renamed
    kind: FileKind = "file"
    inode: int = 0
    size: int = 0  # now; of what was removed, as it was
    content: bool = False  # other bytes
    attributes: tuple[str, ...] = ()  # which of them differ


@dataclass(slots=True)
class Moment:
    """A volume as of a snapshot, or now, through one view; with what was found out about it."""

    rows: Rows
    paths: dict[int, bytes] = field(default_factory=dict)  # directory → its path with a slash
    walked: dict[int, list[tuple[int, bytes]]] | None = (
        None  # inode → its names, once all were read
    )


class Differences:
    """The differences of a volume between snapshot `older` and snapshot `newer`, or now ("")."""

    def __init__(self, namespace: Namespace, volume: str, older: str, newer: str = "") -> None:
        self._namespace = namespace
        self._name = volume
        self._older = older
        self._newer = newer

    async def page(
        self, after: bytes = b"", limit: int = PAGE_MAX
    ) -> tuple[list[Difference], bytes]:
        """Return some differences after a cursor (empty: the first ones), and the next cursor, empty at the end.

        A page may be empty although there is a next one. What is compared with now should be settled before (`Inodes.settle_all`).

        Raises:
            VolumeNotFound, NotFound
            InvalidArgument: The newer snapshot is the older one, or no cursor of ours.
        """
        volume, older, newer = await self._moments()
        view = self._namespace.store.view()
        try:
            look = _Look(view, volume, older, newer)
            return await look.page(after, max(1, min(limit, PAGE_MAX)))
        finally:
            view.close()

    async def all(self) -> AsyncIterator[Difference]:
        """Yield all differences."""
        cursor = b""
        while True:
            page, cursor = await self.page(cursor)
            for each in page:
                yield each
            if not cursor:
                return

    async def _moments(self) -> tuple[Volume, int, int]:
        """Return the volume and both snapshots' numbers, 0 for now."""
        volume = await self._namespace.volumes.get(self._name)
        if volume.snapshot:
            raise InvalidArgument(f"{self._name} is a snapshot, or is rolled back just now")
        numbers = [await self._number(volume, each) for each in (self._older, self._newer)]
        if numbers[1] and numbers[1] <= numbers[0]:
            raise InvalidArgument(f"{self._newer} is not newer than {self._older}: the older first")
        return volume, numbers[0], numbers[1]

    async def _number(self, volume: Volume, name: str) -> int:
        if not name:
            return 0
        view = self._namespace.store.view()
        try:
            own = LiveRows(ViewSource(view), volume.prefix)
            start = keys.SNAPSHOTS[0]
            while page := await own.scan(start, keys.SNAPSHOTS[1]):
                for key, value in page:
                    row = decode_snapshot(value)
                    if row.name == name and not row.state:
                        return int.from_bytes(key[1:9], "big")
                start = page[-1][0] + b"\0"
        finally:
            view.close()
        raise NotFound(f"volume {self._name!r} has no snapshot {name!r}")


class Changes:
    """The keys of a volume that may differ between two moments: those of dead lists and notes, merged."""

    def __init__(self, own: Rows, older: int, newer: int) -> None:
        """Take the rows of the volume itself, and two snapshots' numbers, the newer 0 for now."""
        self._own = own
        self._older = older
        self._newer = newer
        self._lists: list[bytes] | None = None  # what the rows of each list begin with

    async def lists(self) -> list[bytes]:
        """Return what the keys of each list begin with, before the key that they tell of."""
        if self._lists is None:
            found = []
            end = keys.snapshot_key(self._newer) if self._newer else keys.SNAPSHOTS[1]
            start = keys.snapshot_key(self._older)
            while page := await self._own.scan(start, end):
                found += [keys.dead_of(int.from_bytes(key[1:9], "big"))[0] for key, _ in page]
                start = page[-1][0] + b"\0"
            epoch = self._older
            until = keys.births_of(self._newer) if self._newer else keys.after(keys.BIRTHS)
            while page := await self._own.scan(keys.births_of(epoch), until, limit=1):
                epoch = int.from_bytes(page[0][0][1:9], "big")
                found.append(keys.births_of(epoch))
                epoch += 1
            self._lists = found
        return self._lists

    async def within(self, family: bytes, after: bytes = b"") -> AsyncIterator[bytes]:
        """Yield the keys of a family after one, each once, in order."""
        # No key begins with another one, so behind a key's deaths is behind the key.
        start, end = after + b"\xff" * 9 if after else family, keys.after(family)
        async for key in self.between(start, end):
            yield key

    async def between(self, start: bytes, end: bytes) -> AsyncIterator[bytes]:
        """Yield the keys of a range, each once, in order."""
        heads: list[tuple[bytes, int]] = []
        cursors = []
        for index, prefix in enumerate(await self.lists()):
            cursors.append(Cursor(self._own, prefix + start, prefix + end, FETCHED, False))
            await _push(heads, cursors[index], index)
        last = b""
        while heads:
            key, index = heapq.heappop(heads)
            await _push(heads, cursors[index], index)
            if key != last:
                last = key
                yield key

    async def has(self, key: bytes) -> bool:
        """Say whether a key is among them."""
        for prefix in await self.lists():
            start = prefix + key
            dead = prefix[:1] == b"L"
            end = start + b"\xff" * 9 if dead else start + b"\0"
            found = await self._own.scan(start, end, limit=1)
            if found and (not dead or len(found[0][0]) == len(start) + 8):
                return True
        return False


async def _push(heads: list[tuple[bytes, int]], cursor: Cursor, index: int) -> None:
    found = await cursor.peek()
    if found is not None:
        cursor.skip()
        entry = found[0]
        key = keys.dead_parts(entry)[0] if entry[:1] == b"L" else entry[9:]
        heapq.heappush(heads, (key, index))


class _Look:
    """One page, through one view."""

    def __init__(self, view: View, volume: Volume, older: int, newer: int) -> None:
        source = ViewSource(view)
        self._own = LiveRows(source, volume.prefix)
        self._then = Moment(replace(volume, snapshot=older).rows(source))
        self._now = Moment(replace(volume, snapshot=newer).rows(source))
        self._changes = Changes(self._own, older, newer)
        prefixes = [volume.prefix, *(keys.prefix(number) for number, _ in volume.bases)]
        self._notes = [LiveRows(source, prefix) for prefix in prefixes]
        self._found: list[Difference] = []

    async def page(self, after: bytes, limit: int) -> tuple[list[Difference], bytes]:
        looked = 0
        for family in (b"D", b"I"):
            if after[:1] > family:
                continue
            resumed = after if after[:1] == family else b""
            async for key in self._changes.within(family, resumed):
                await (self._name(key) if family == b"D" else self._inode(key))
                looked += 1
                if len(self._found) >= limit or looked >= LOOKED_MAX:
                    return self._found, key
        return self._found, b""

    # Names ----------------------------------------------------------------------------------------

    async def _name(self, key: bytes) -> None:
        """Judge a name by what it led to and leads to."""
        old, new = await self._leads(self._then, key), await self._leads(self._now, key)
        if old is None and new is None:
            return
        if old is not None and new is not None and old.inode == new.inode:
            await self._same(key, old, new)
            return
        gone, came = old, new
        if old is not None:
            to = await self._only_name(self._now, old)
            if to is not None and to != key and await self._links(self._then, old) == 1:
                there = await self._leads(self._now, to)
                assert there is not None
                path, target = await self._path(self._then, key), await self._path(self._now, to)
                await self._tell("renamed", path, old, there, to=target)
                gone = None
        if new is not None:
            place = await self._only_name(self._then, new)
            if place is not None and place != key and await self._links(self._now, new) == 1:
                came = None  # told where it was
        if gone is not None and came is not None:
            both = gone.kind in _DIRECTORIES, came.kind in _DIRECTORIES
            if both == (True, True) or (gone.kind == came.kind == rows.FILE):
                await self._same(key, gone, came)
                return
        if gone is not None:
            await self._tell("removed", await self._path(self._then, key), gone, None)
        if came is not None:
            await self._tell("added", await self._path(self._now, key), None, came)

    async def _same(self, key: bytes, old: Name, new: Name) -> None:
        before, after = await self._state(self._then, old), await self._state(self._now, new)
        content, attributes = _compared(before, after)
        if content or attributes:
            path = await self._path(self._now, key)
            await self._tell("changed", path, old, new)

    async def _inode(self, key: bytes) -> None:
        """Judge an inode that changed where no name of it did."""
        number = int.from_bytes(key[1:9], "big")
        old, new = await self._then.rows.get(key), await self._now.rows.get(key)
        if old is None or new is None:
            if number == keys.ROOT and (old or new):
                await self._root(old, new)
            return
        if number == keys.ROOT:
            await self._root(old, new)
            return
        before, after = read_inode(number, old), read_inode(number, new)
        if before.orphan or after.orphan:
            return
        name = Name(0, after.kind, number)
        places = await self._places(self._now, name, after)
        if not places or await self._changes.has(places[0]):
            return  # it has no name any more, or was judged by it
        there = await self._leads(self._then, places[0])
        if there is not None and there.inode == number:
            await self._same(places[0], there, name)

    async def _root(self, old: bytes | None, new: bytes | None) -> None:
        plain = implied_directory(Name(0, rows.DIRECTORY, keys.ROOT), 0)
        before = _described(read_inode(keys.ROOT, old) if old else plain, None)
        after = _described(read_inode(keys.ROOT, new) if new else plain, None)
        _, attributes = _compared(before, after)
        if attributes:
            self._found.append(
                Difference(
                    what="changed", path=b"", kind="directory", inode=1, attributes=attributes
                )
            )

    async def _leads(self, moment: Moment, key: bytes) -> Name | None:
        """Return what a D key leads to, None for nothing and for continuations of names."""
        value = await moment.rows.get(key)
        name = decode_name(value) if value is not None else None
        return None if name is None or name.kind == rows.CONTINUED else name

    # Places ---------------------------------------------------------------------------------------

    async def _links(self, moment: Moment, name: Name) -> int:
        if name.kind in _DIRECTORIES:
            return 1
        inode = await self._inode_of(moment, name.inode)
        return inode.links if inode is not None else 1

    async def _inode_of(self, moment: Moment, number: int) -> Inode | None:
        value = await moment.rows.get(keys.inode_key(number))
        return read_inode(number, value) if value is not None else None

    async def _only_name(self, moment: Moment, name: Name) -> bytes | None:
        """Return the D key of an inode that has just one name, None if it has none or several."""
        inode = await self._inode_of(moment, name.inode)
        if inode is not None and (
            inode.orphan or (inode.kind != rows.DIRECTORY and inode.links != 1)
        ):
            return None
        places = await self._places(moment, name, inode)
        return places[0] if len(places) == 1 else None

    async def _places(self, moment: Moment, name: Name, inode: Inode | None) -> list[bytes]:
        """Return the D keys that lead to an inode: the one that its row or a note tells, or, where that is outdated, all."""
        is_directory = name.kind in _DIRECTORIES
        key: bytes | None = None
        if inode is not None and inode.directory:
            key = await _key_at(moment.rows, inode.directory, inode.name, is_directory)
        elif (noted := await self._noted(name.inode)) is not None:
            key = b"D" + noted
        if key is not None:
            there = await self._leads(moment, key)
            if there is not None and there.inode == name.inode:
                return [key]
        if inode is None:
            return []  # what had no inode row then has a note of its place, or was not there
        return [keys.name_key(*place) for place in (await _walked(moment)).get(name.inode, ())]

    async def _path(self, moment: Moment, key: bytes) -> bytes:
        """Return the path of a D key, without a slash at its end."""
        directory = int.from_bytes(key[1:9], "big")
        name = keys.raw_of(key[keys.NAME_AT :])
        above = await self._above(moment, directory)
        return above + (name.removesuffix(b"/") if key.endswith(keys.DIRECTORY_END) else name)

    async def _above(self, moment: Moment, directory: int) -> bytes:
        """Return the path of a directory, or of the beginning of a long name, as its entries continue it."""
        parts: list[bytes] = []
        node = directory
        while node != keys.ROOT and node not in moment.paths:
            place = await self._place_of(moment, node)
            if place is None:
                parts.append(b"?/")  # it left with the row that named it
                node = keys.ROOT
                break
            parts.append(place[1])
            node = place[0]
        path = moment.paths.get(node, b"") + b"".join(reversed(parts))
        moment.paths[directory] = path
        return path

    async def _noted(self, number: int) -> bytes | None:
        """Return the note of where something was that had no inode row, also one that a clone's base has."""
        for own in self._notes:
            found = await own.get(keys.place_key(number))
            if found is not None:
                return found
        return None

    async def _place_of(self, moment: Moment, node: int) -> tuple[int, bytes] | None:
        """Return where a directory or continuation is, and what it adds to a path."""
        inode = await self._inode_of(moment, node)
        if inode is not None and inode.directory:
            return inode.directory, inode.name + b"/"
        noted = await self._noted(node)
        if noted is not None:
            return int.from_bytes(noted[:8], "big"), keys.raw_of(noted[8:])
        names = (await _walked(moment)).get(node)
        return (names[0][0], keys.raw_of(names[0][1])) if names else None

    # What a name leads to -------------------------------------------------------------------------

    async def _state(self, moment: Moment, name: Name) -> dict[str, Any]:
        inode = await self._inode_of(moment, name.inode)
        if inode is None:
            if name.kind in _DIRECTORIES:
                inode = implied_directory(name, 0)
            else:
                inode = implied_file(name)
        revision: Revision | None = None
        if inode.revision:
            value = await moment.rows.get(keys.revision_key(inode.revision))
            revision = rows.decode_revision(value) if value is not None else None
        return _described(inode, revision)

    async def _tell(
        self, what: What, path: bytes, old: Name | None, new: Name | None, *, to: bytes = b""
    ) -> None:
        before = await self._state(self._then, old) if old is not None else None
        after = await self._state(self._now, new) if new is not None else None
        content = False
        attributes: tuple[str, ...] = ()
        if before is not None and after is not None:
            content, attributes = _compared(before, after)
        shown = after if after is not None else before
        name = new if new is not None else old
        assert shown is not None
        assert name is not None
        kind = KINDS.get(name.kind) or SPECIAL.get(shown["type"], "fifo")
        self._found.append(
            Difference(
                what=what,
                path=path,
                to=to,
                kind=kind,
                inode=name.inode,
                size=shown["content"][0],
                content=content,
                attributes=attributes,
            )
        )


async def _walked(moment: Moment) -> dict[int, list[tuple[int, bytes]]]:
    """Return all names by what they lead to: reads every name of the volume, where nothing else tells."""
    if moment.walked is None:
        found: dict[int, list[tuple[int, bytes]]] = {}
        cursor = Cursor(moment.rows, b"D", keys.after(b"D"), 1000, False)
        while (row := await cursor.peek()) is not None:
            cursor.skip()
            key, value = row
            place = int.from_bytes(key[1:9], "big"), key[keys.NAME_AT :]
            found.setdefault(decode_name(value).inode, []).append(place)
        moment.walked = found
    return moment.walked


async def _key_at(stored: Rows, directory: int, raw: bytes, is_directory: bool) -> bytes | None:
    """Return the D key of a name in a directory, None where its long beginning is not there."""
    *above, last = keys.name_steps(raw, directory=is_directory)
    for step in above:
        value = await stored.get(keys.name_key(directory, step.key))
        if value is None:
            return None
        directory = decode_name(value).inode
    return keys.name_key(directory, last.key)


def _described(inode: Inode, revision: Revision | None) -> dict[str, Any]:
    """Return what is compared of an inode; times of directories follow from their entries."""
    directory = inode.kind == rows.DIRECTORY
    found: dict[str, Any] = {
        "content": (inode.size, inode.etag, inode.target, inode.device),
        "type": inode.mode & 0o170000,
        "mode": inode.mode & 0o7777,
        "uid": inode.uid,
        "gid": inode.gid,
        "owner": inode.owner,
        "xattrs": inode.xattrs,
        "dos": inode.attributes,
        "modified": 0 if directory else inode.modified_ns,
        "disk": inode.disk,
    }
    said = revision or Revision(0, 0, "", 0)
    for name in ("headers", "metadata", "tags", "storage_class", "legal_hold", "acl"):
        found[name] = getattr(said, name)
    found["retention"] = said.retain_mode, said.retain_until_ns
    return found


def _compared(before: dict[str, Any], after: dict[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Return whether the content differs, and which attributes."""
    content = before["content"] != after["content"] or before["type"] != after["type"]
    names = before.keys() - {"content", "type"}
    return content, tuple(sorted(name for name in names if before[name] != after[name]))
