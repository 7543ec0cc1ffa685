"""Auditing a volume: rows agree with one another, and what is counted is what a recount gives.

`check` reads one row after the other and their content; this reads all rows of a volume and compares them. It keeps a few numbers for
each name and revision in memory. Where the volume changed meanwhile the answer is that nothing can be said.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from warp_core.namespace import feed, keys
from warp_core.namespace.inodes import decode_inode
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.owners import miscounted_owners
from warp_core.namespace.recount import Tally, every, recount_soles, stored_soles
from warp_core.namespace.rows import (
    CONTINUED,
    DIRECTORY,
    FILE,
    IMPLIED,
    MARKER,
    Name,
    decode_name,
    decode_null,
    decode_part,
    decode_upload,
)
from warp_core.namespace.soles import difference
from warp_core.namespace.tree import Volume
from warp_core.namespace.usage import Usage

NODES = (IMPLIED, DIRECTORY, CONTINUED)


@dataclass(slots=True)
class _Seen:
    """What the rows of a volume say."""

    nodes: dict[int, tuple[int, bytes, int]] = field(
        default_factory=dict
    )  # parent, component, kind
    filled: set[int] = field(default_factory=set)  # nodes with something below them in D
    kept: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # in V: parent, component
    versions_below: set[int] = field(default_factory=set)
    current: set[tuple[int, bytes]] = field(default_factory=set)
    led_to: set[int] = field(
        default_factory=set
    )  # revisions that names, versions and inodes lead to
    inodes: set[int] = field(default_factory=set)  # set apart
    expected: set[int] = field(
        default_factory=set
    )  # of them the files that say that they have names
    named: set[int] = field(default_factory=set)  # inodes set apart that a name leads to
    orphans: set[int] = field(default_factory=set)  # inodes that say that they have no name
    waiting: set[int] = field(default_factory=set)  # of which a row says so
    disks: set[int] = field(default_factory=set)  # inodes that say that they are
    listed: set[int] = field(default_factory=set)  # of which a row says so
    revisions: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    left: set[int] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    problems: list[str] = field(default_factory=list)


async def audit(namespace: Namespace, name: str) -> list[str] | None:
    """Return what does not fit together in a volume; None if it changed while it was read.

    Raises:
        VolumeNotFound
    """
    volume = await namespace.volumes.get(name)
    before = await feed.now(namespace, name), await namespace.usage(name)
    seen = _Seen()
    await _read_names(namespace, volume, seen)
    await _read_versions(namespace, volume, seen)
    await _read_content(namespace, volume, seen)
    await _read_uploads(namespace, volume, seen)
    if (await feed.now(namespace, name), await namespace.usage(name)) != before:
        return None
    _judge(seen, before[1])
    counted = await stored_soles(namespace, volume)
    again = await recount_soles(namespace, volume) if volume.row.epoch else {}
    if (await feed.now(namespace, name), await stored_soles(namespace, volume)) != (
        before[0],
        counted,
    ):
        return None
    if counted != again:
        off = {each: tuple(by) for each, by in sorted(difference(counted, again).items())[:5]}
        seen.problems.append(f"what snapshots hold alone is counted wrong, by {off}")
    owners = await miscounted_owners(namespace, name)
    if owners:
        few = {owner: tuple(by) for owner, by in sorted(owners.items())[:5]}
        seen.problems.append(f"what users and groups have is counted wrong, by {few}")
    return seen.problems


async def _read_names(namespace: Namespace, volume: Volume, seen: _Seen) -> None:
    async for key, value in every(namespace, volume, b"D", b"E"):
        directory = int.from_bytes(key[1:9], "big")
        component = key[9:]
        name = decode_name(value)
        seen.filled.add(directory)
        if name.kind in NODES:
            if name.inode in seen.nodes:
                seen.problems.append(f"directory {name.inode} has two names")
            seen.nodes[name.inode] = directory, component, name.kind
            continue
        seen.current.add((directory, component))
        seen.tally.name(name)
        _follow(seen, name)


def _follow(seen: _Seen, name: Name) -> None:
    if name.revision:
        seen.led_to.add(name.revision)
    elif name.kind != MARKER:
        seen.named.add(name.inode)


async def _read_versions(namespace: Namespace, volume: Volume, seen: _Seen) -> None:
    newest: tuple[int, bytes] | None = None
    null: int | None = None
    async for key, value in every(namespace, volume, b"V", b"W"):
        directory = int.from_bytes(key[1:9], "big")
        end = keys.end_of_component(key, keys.NAME_AT)
        component, tail = key[9:end], key[end:]
        seen.versions_below.add(directory)
        if not tail:
            seen.kept[decode_name(value).inode] = directory, component
            continue
        if tail == b"\0":
            null = decode_null(value).sequence
            continue
        name = decode_name(value)
        seen.tally.version(name)
        _follow(seen, name)
        sequence = keys.from_descending(tail)
        if name.sequence != sequence:
            seen.problems.append(f"version {sequence} says that it is {name.sequence}")
        if (name.nonce == 0) != (null == sequence):
            seen.problems.append(f"version {sequence} and the pointer to the null version disagree")
        if (directory, component) != newest:
            newest = directory, component
            if newest not in seen.current and name.kind != MARKER:
                seen.problems.append(f"name {component!r} has no current version and no marker")
        if null == sequence:
            null = None


async def _read_content(namespace: Namespace, volume: Volume, seen: _Seen) -> None:
    async for key, value in every(namespace, volume, b"I", b"J"):
        inode = decode_inode(value)
        number = int.from_bytes(key[1:9], "big")
        seen.inodes.add(number)
        seen.tally.inode(inode)
        if inode.kind == FILE and not inode.orphan:
            seen.expected.add(number)
        if inode.orphan:
            seen.orphans.add(number)
        if inode.disk:
            seen.disks.add(number)
        if inode.revision:
            seen.led_to.add(inode.revision)
    async for key, _ in every(namespace, volume, *keys.ORPHANS):
        seen.waiting.add(int.from_bytes(key[1:9], "big"))
    async for key, _ in every(namespace, volume, *keys.DISKS):
        seen.listed.add(int.from_bytes(key[1:9], "big"))
    async for key, value in every(namespace, volume, b"A", b"B"):
        seen.tally.archived(key, value)
    async for key, _ in every(namespace, volume, b"R", b"S"):
        seen.revisions.add(int.from_bytes(key[1:9], "big"))
        seen.tally.revision(key)
    async for key, _ in every(namespace, volume, b"X", b"Y"):
        seen.held.add(int.from_bytes(key[1:9], "big"))
    async for key, _ in every(namespace, volume, b"Z", b"["):
        seen.left.add(int.from_bytes(key[1:9], "big"))


async def _read_uploads(namespace: Namespace, volume: Volume, seen: _Seen) -> None:
    async for key, value in every(namespace, volume, *keys.UPLOADS):
        seen.tally.upload(int.from_bytes(key[-8:], "big"), decode_upload(value))
    async for key, value in every(namespace, volume, b"P", b"Q"):
        seen.tally.part(int.from_bytes(key[1:9], "big"), decode_part(value))


def _judge(seen: _Seen, counted: Usage) -> None:
    tell = seen.problems.append
    for node, (parent, component, kind) in seen.nodes.items():
        if parent != keys.ROOT and parent not in seen.nodes:
            tell(f"directory {component!r} lies in {parent}, which has no name")
        if kind in (IMPLIED, CONTINUED) and node not in seen.filled:
            tell(f"directory {component!r} of {parent} has nothing below it")
        if node in seen.kept and seen.kept[node] != (parent, component):
            tell(f"directory {node} is kept under another name than its own")
    for node in seen.filled - seen.nodes.keys() - {keys.ROOT}:
        tell(f"directory {node} has entries and no name")
    for node, (parent, component) in seen.kept.items():
        if node not in seen.versions_below:
            tell(f"directory {component!r} is kept for versions that are not there")
        if parent != keys.ROOT and parent not in seen.kept:
            tell(f"directory {component!r} is kept in {parent}, which is not")
    for node in seen.versions_below - seen.kept.keys() - {keys.ROOT}:
        tell(f"versions lie below directory {node}, which is not kept")
    for inode in seen.named - seen.inodes:
        tell(f"a name leads to inode {inode}, which has no row")
    for inode in seen.expected - seen.named:
        tell(f"inode {inode} has no name, and is not kept for who has it open")
    for inode in seen.orphans - seen.waiting:
        tell(f"inode {inode} has no name, and no row says so: nothing collects it")
    for inode in seen.waiting - seen.inodes:
        tell(f"inode {inode} waits to be collected and is gone")
    for inode in seen.disks ^ seen.listed:
        tell(f"inode {inode} and the rows of disks disagree whether it is one")
    for number in sorted(seen.led_to - seen.revisions):
        tell(f"revision {number} is missing")
    for number in sorted(seen.revisions - seen.led_to - seen.held):
        tell(f"nothing needs revision {number}")
    for number in sorted(seen.left - seen.held):
        tell(f"revision {number} was left by everybody")
    for number in sorted(seen.held - seen.revisions):
        if number in seen.led_to:
            tell(f"revision {number} has holders and no row")
    counted_again = seen.tally.usage()
    if counted_again != counted:
        tell(f"usage says {counted}, a recount {counted_again}")
