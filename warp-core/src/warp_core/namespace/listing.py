"""Listings: a depth-first walk over names (and versions) in S3's order, with seeks past common prefixes.

A walk is a stack of frames, one for each directory that it is in. To seek means to build the stack anew for a key: at most one `get` a
level. Rows are read a page at a time and decoded together.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Final, Protocol

from warp_core.interfaces.consistency import SCAN_MAX, View
from warp_core.namespace import keys
from warp_core.namespace.changes import Apart
from warp_core.namespace.described import summarize
from warp_core.namespace.lookup import sequence_of
from warp_core.namespace.paths import extend, resolve
from warp_core.namespace.rows import (
    CONTINUED,
    DIRECTORY,
    FILE,
    IMPLIED,
    MARKER,
    Name,
    decode_name,
    decode_names,
)
from warp_core.namespace.tree import Cursor, Rows, ViewSource, Volume
from warp_core.namespace.versions import parse_version_id
from warp_core.views.objects import Entries, Listing, ObjectInfo, VersionListing

NODES: Final = (IMPLIED, DIRECTORY, CONTINUED)
FIRST_STEP: Final = 32  # entries of a directory read before it is known whether it holds files or what to go down into
_NOT_FILE: Final = re.compile(rb"[^%c]" % FILE)
_NODE: Final = re.compile(rb"[%c%c%c]" % NODES)


class _Frame:
    """One directory of a walk: what it adds to keys, and the entries not yet walked.

    `kinds` has a byte for each of them, so that where files end is found without looking at each. Of entries that the walk goes down
    into few are needed, however many there are: pages of those begin small and double.
    """

    __slots__ = (
        "_step",
        "components",
        "end",
        "index",
        "kinds",
        "more",
        "names",
        "node",
        "prefix",
        "start",
    )

    def __init__(self, node: int, prefix: bytes, start: bytes, end: bytes) -> None:
        self.node = node
        self.prefix = prefix
        self.start = start
        self.end = end
        self.components: list[bytes] = []  # as they add to keys
        self.names: list[Name] = []
        self.kinds = b""
        self.index = 0
        self.more = True
        self._step = FIRST_STEP

    async def fetch(self, read: Pages, lead: bytes, limit: int, *, rolled_up: bool) -> None:
        """Read the next page, of at most `limit`; keys of `read` begin with `lead`. With `rolled_up` the walk goes down into none."""
        limit = min(limit, SCAN_MAX)
        if not rolled_up:
            limit = min(limit, self._step)
        found, values = await read(lead + self.start, lead + self.end, limit=limit)
        at = len(lead) + keys.NAME_AT
        self.components = [key[at:-2] for key in found]
        if b"\0" in b"".join(self.components):
            self.components = [keys.unescape(each) for each in self.components]
        self.names = decode_names(values)
        self.kinds = bytes([name.kind for name in self.names])
        self.index = 0
        self.more = len(found) == limit
        self._step = self._step * 2 if _NODE.search(self.kinds) else SCAN_MAX
        if self.more:
            self.start = found[-1][len(lead) :] + b"\0"


class Pages(Protocol):
    """`columns` of a view, or of a volume's rows."""

    def __call__(
        self, start: bytes, end: bytes, *, limit: int
    ) -> Awaitable[tuple[list[bytes], list[bytes]]]:
        """Return keys and values of up to `limit` rows of [start, end)."""


def _columns_of(stored: Rows) -> Pages:
    async def columns(start: bytes, end: bytes, *, limit: int) -> tuple[list[bytes], list[bytes]]:
        rows = await stored.scan(start, end, limit=limit)
        return [key for key, _ in rows], [value for _, value in rows]

    return columns


class _Bounds:
    """Where a listing with a prefix begins and ends: `base` is the node that the prefix leads into, `rest` what it asks there."""

    __slots__ = ("base", "prefix", "rest", "root")

    def __init__(self, base: int, prefix: bytes, rest: bytes) -> None:
        self.base = base
        self.prefix = prefix
        self.rest = rest


async def _child(stored: Rows, node: int, component: bytes, family: bytes) -> int | None:
    """Return the id of a directory or continuation among names, or also among what versions keep."""
    value = await stored.get(keys.name_key(node, component))
    if value is None and family == b"V":
        value = await stored.get(keys.kept_directory_key(node, component))
    return decode_name(value).inode if value else None


async def _enter(stored: Rows, prefix: bytes, family: bytes) -> _Bounds | None:
    """Go down to where everything with a prefix lies; None if there is nothing."""
    node = keys.ROOT
    done = 0
    for step in keys.steps(prefix)[:-1]:
        child = await _child(stored, node, step.key, family)
        if child is None:
            return None
        node = child
        done += len(step.raw)
    return _Bounds(node, prefix[:done], prefix[done:])


def _range(family: bytes, node: int, rest: bytes) -> tuple[bytes, bytes]:
    base = family + keys.u64(node)
    return base + keys.escape(rest), keys.after(base + keys.escape(rest))


async def _seek(stored: Rows, bounds: _Bounds, lower: bytes, family: bytes) -> list[_Frame]:
    """Return the stack for a walk of keys ≥ `lower` within the bounds."""
    start, end = _range(b"D", bounds.base, bounds.rest)
    whole = bounds.prefix + bounds.rest
    if lower <= whole:
        return [_Frame(bounds.base, bounds.prefix, start, end)]
    if not lower.startswith(whole):
        return []
    stack: list[_Frame] = []
    node, prefix, remaining = bounds.base, bounds.prefix, lower[len(bounds.prefix) :]
    while True:
        base = b"D" + keys.u64(node)
        limit = end if not stack else keys.after(base)
        step = keys.steps(remaining)[0]
        if step.key.endswith(keys.FILE_END) and step.raw == remaining:
            stack.append(_Frame(node, prefix, base + keys.escape(remaining), limit))
            return stack
        child = await _child(stored, node, step.key, family)
        if child is None:
            stack.append(_Frame(node, prefix, base + step.key, limit))
            return stack
        stack.append(_Frame(node, prefix, base + step.key + b"\0", limit))
        node, prefix, remaining = child, prefix + step.raw, remaining[len(step.raw) :]


def first_key(prefix: bytes, delimiter: bytes, after: bytes) -> bytes:
    """Return where a page begins that follows `after`: behind a common prefix as a whole, else behind the key."""
    if not after:
        return prefix
    if delimiter and after.startswith(prefix):
        found = after.find(delimiter, len(prefix))
        if found >= 0 and found + len(delimiter) == len(after):
            return keys.after(after) or after + b"\xff" * keys.NODE_BYTES
    return max(prefix, after + b"\0")


async def list_names(
    volume: Volume,
    view: View,
    prefix: bytes,
    delimiter: bytes,
    after: bytes,
    limit: int,
    apart: Apart | None,
) -> Listing:
    """Return a page of current objects; see `Objects.list`."""
    stored = volume.rows(ViewSource(view))
    read: Pages = view.columns if volume.plain else _columns_of(stored)
    lead = volume.prefix if volume.plain else b""
    entries = Entries(summarize)
    prefixes: list[bytes] = []
    bounds = await _enter(stored, prefix, b"D") if limit > 0 else None
    if bounds is None:
        return Listing(entries, prefixes)
    stack = await _seek(stored, bounds, first_key(prefix, delimiter, after), b"D")
    length = len(prefix)
    last = b""
    left = limit
    while stack:
        frame = stack[-1]
        if frame.index >= len(frame.names):
            if not frame.more:
                stack.pop()
                continue
            await frame.fetch(read, lead, left + 1, rolled_up=delimiter == b"/")
            if not frame.names:
                continue
        # A name of a file holds no slash, so only what is before it can be rolled up.
        if left and (not delimiter or (delimiter == b"/" and b"/" not in frame.prefix[length:])):
            taken = _take_files(frame, entries, left)
            if taken:
                left -= taken
                last = entries.keys[-1]
                continue
        name = frame.names[frame.index]
        key = frame.prefix + frame.components[frame.index]
        kind = name.kind
        frame.index += 1
        if kind in NODES:
            found = key.find(delimiter, length) if delimiter else -1
            if found < 0:
                start, end = keys.names_of(name.inode)
                stack.append(_Frame(name.inode, key, start, end))
                continue
            if kind == DIRECTORY and not await _has_keys(stored, name.inode):
                continue
        elif kind != FILE:
            continue
        else:
            found = key.find(delimiter, length) if delimiter else -1
        if not left:
            return Listing(entries, prefixes, last)
        left -= 1
        if found >= 0:
            last = key[: found + len(delimiter)]
            prefixes.append(last)
            if len(last) != len(key) or kind == FILE:
                behind = keys.after(last)
                stack = await _seek(stored, bounds, behind, b"D") if behind else []
            continue
        if not name.revision and apart is not None:
            name = await apart.summary(stored, name)
        entries.keys.append(key)
        entries.summaries.append(name)
        last = key
    return Listing(entries, prefixes)


def _take_files(frame: _Frame, entries: Entries, limit: int) -> int:
    """Move the objects that come next in a frame to the entries, up to something else; return how many: the path of most listings."""
    start = frame.index
    other = _NOT_FILE.search(frame.kinds, start)
    stop = min(other.start() if other else len(frame.kinds), start + limit)
    names = frame.names[start:stop]
    revisions = [name.revision for name in names]
    if 0 in revisions:  # its inode knows the rest
        del names[revisions.index(0) :]
        stop = start + len(names)
    base, components = frame.prefix, frame.components[start:stop]
    entries.keys += [base + component for component in components] if base else components
    entries.summaries += names
    frame.index = stop
    return stop - start


async def _has_keys(stored: Rows, node: int) -> bool:
    """Say whether any object lies below a directory that was made by `mkdir`."""
    stack = [node]
    while stack:
        start, end = keys.names_of(stack.pop())
        while True:
            page = await stored.scan(start, end, limit=SCAN_MAX)
            names = decode_names([value for _, value in page])
            if any(name.kind in (FILE, IMPLIED) for name in names):
                return True
            stack += [name.inode for name in names if name.kind in NODES]
            if len(page) < SCAN_MAX:
                break
            start = page[-1][0] + b"\0"
    return False


class _Pair:
    """One directory of a walk over names and versions: a cursor on each."""

    __slots__ = ("names", "prefix", "versions")

    def __init__(self, stored: Rows, frame: _Frame) -> None:
        self.prefix = frame.prefix
        self.names = Cursor(stored, frame.start, frame.end, SCAN_MAX, False)
        self.versions = Cursor(
            stored, b"V" + frame.start[1:], b"V" + frame.end[1:], SCAN_MAX, False
        )


async def list_versions(
    volume: Volume,
    view: View,
    prefix: bytes,
    delimiter: bytes,
    key_marker: bytes,
    version_marker: str,
    limit: int,
    apart: Apart | None,
) -> VersionListing:
    """Return a page of versions and markers; see `Objects.list_versions`."""
    stored = volume.rows(ViewSource(view))
    entries: list[ObjectInfo] = []
    prefixes: list[bytes] = []
    bounds = await _enter(stored, prefix, b"V") if limit > 0 else None
    if bounds is None:
        return VersionListing(entries, prefixes)
    below: int | None = None
    if key_marker and version_marker:
        lower = max(prefix, key_marker)
        below = await _marker_sequence(stored, key_marker, version_marker)
    else:
        lower = first_key(prefix, delimiter, key_marker)
    stack = [_Pair(stored, frame) for frame in await _seek(stored, bounds, lower, b"V")]
    last_key, last_version = b"", ""
    left = limit
    while stack:
        pair = stack[-1]
        live, dead = await pair.names.peek(), await pair.versions.peek()
        if live is None and dead is None:
            stack.pop()
            continue
        here = live[0][keys.NAME_AT :] if live else b""
        there = (
            dead[0][keys.NAME_AT : keys.end_of_component(dead[0], keys.NAME_AT)] if dead else b""
        )
        component = here if live and (not dead or here <= there) else there
        key = pair.prefix + keys.raw_of(component)
        if not component.endswith(keys.FILE_END) or component.endswith(keys.DIRECTORY_END):
            assert live is not None or dead is not None
            if component == here and live is not None:
                name = decode_name(live[1])
                pair.names.skip()
            if component == there and dead is not None:
                name = decode_name(dead[1])
                pair.versions.skip()
            found = key.find(delimiter, len(prefix)) if delimiter else -1
            if found < 0:
                start, end = keys.names_of(name.inode)
                stack.append(_Pair(stored, _Frame(name.inode, key, start, end)))
                continue
            if name.kind == DIRECTORY and not await _has_versions(stored, name.inode):
                continue
        else:
            found = key.find(delimiter, len(prefix)) if delimiter else -1
        if found >= 0:
            if not left:
                return VersionListing(entries, prefixes, last_key, last_version)
            left -= 1
            last_key, last_version = key[: found + len(delimiter)], ""
            prefixes.append(last_key)
            behind = keys.after(last_key)
            frames = await _seek(stored, bounds, behind, b"V") if behind else []
            stack = [_Pair(stored, frame) for frame in frames]
            continue
        newest = True
        bound = below if key == key_marker else None
        if component == here and live is not None:
            pair.names.skip()
            name = decode_name(live[1])
            if name.kind == FILE:
                if bound is None or name.sequence < bound:
                    if not left:
                        return VersionListing(entries, prefixes, last_key, last_version)
                    left -= 1
                    if not name.revision and apart is not None:
                        name = await apart.summary(stored, name)
                    entries.append(summarize(key, name, latest=True))
                    last_key, last_version = key, entries[-1].version
                newest = False
        while (dead := await pair.versions.peek()) is not None and dead[0].startswith(
            component, keys.NAME_AT
        ):
            if len(dead[0]) == keys.NAME_AT + len(component) + 8:
                name = decode_name(dead[1])
                if name.kind in (FILE, MARKER) and (bound is None or name.sequence < bound):
                    if not left:
                        return VersionListing(entries, prefixes, last_key, last_version)
                    left -= 1
                    entries.append(summarize(key, name, latest=newest))
                    last_key, last_version = key, entries[-1].version
                newest = False
            pair.versions.skip()
    return VersionListing(entries, prefixes)


async def _has_versions(stored: Rows, node: int) -> bool:
    start, end = keys.versions_of(node)
    return bool(await stored.scan(start, end, limit=1)) or await _has_keys(stored, node)


async def _marker_sequence(stored: Rows, key: bytes, version: str) -> int | None:
    """Return the number of the version that an earlier page ended with, also if it is gone since; None: not an id of a version."""
    parsed = parse_version_id(version)
    if parsed is not None:
        return parsed[0]
    if version != "null":
        return None
    path = await resolve(stored, keys.steps(key), key)
    if path.current is not None and not path.current.nonce:
        return path.current.sequence
    return await sequence_of(stored, await extend(stored, path), version)
