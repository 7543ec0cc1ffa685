"""Counting again what a volume holds, from its rows: what its counters should say."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from warp_core.interfaces.consistency import SCAN_MAX
from warp_core.namespace import keys, rows
from warp_core.namespace.changes import Change
from warp_core.namespace.inodes import decode_inode
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.namespace.usage import Usage

ATTEMPTS = 3  # counts of a volume that changes meanwhile, before it is left alone


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
        change.count(**{field: -by for field, by in off._asdict().items()})

    await namespace.change(name, body)


async def recount(namespace: Namespace, volume: Volume) -> Usage:
    """Count what the rows of a volume say, those that a clone shows of its base included.

    Rows that cannot be read count for nothing: whoever checks them tells of them.
    """
    objects = size = versions = version_bytes = uploads = part_bytes = 0
    ended: set[bytes] = set()  # uploads whose parts are counted no more

    async def each(family: bytes, count: Callable[[bytes, bytes], None], *, own: bool) -> None:
        start, end = family, keys.after(family)
        while True:
            view = namespace.store.view()
            try:
                if own:
                    found = await view.scan(
                        volume.prefix + start, volume.prefix + end, limit=SCAN_MAX
                    )
                    page = [(row.key[len(volume.prefix) :], row.value) for row in found]
                else:
                    page = list(
                        await volume.rows(ViewSource(view)).scan(start, end, limit=SCAN_MAX)
                    )
            finally:
                view.close()
            for key, value in page:
                try:
                    count(key, value)
                except msgspec.MsgspecError:
                    continue
            if len(page) < SCAN_MAX:
                return
            start = page[-1][0] + b"\0"

    def name(key: bytes, value: bytes) -> None:
        nonlocal objects, size
        found = rows.decode_name(value)
        if found.kind == rows.FILE:
            objects += 1
            size += found.size if found.revision else 0  # else its inode says

    def inode(key: bytes, value: bytes) -> None:
        nonlocal size
        found = decode_inode(value)
        if found.kind == rows.FILE:
            size += found.size

    def version(key: bytes, value: bytes) -> None:
        nonlocal versions, version_bytes
        if value[0] == 0x92:
            return  # says which version is the null version
        found = rows.decode_name(value)
        if found.kind in (rows.FILE, rows.MARKER, rows.SYMLINK, rows.SPECIAL):
            versions += 1
            version_bytes += found.size

    def upload(key: bytes, value: bytes) -> None:
        nonlocal uploads
        state = rows.decode_upload(value).state
        uploads += not state
        if state == "completed":
            ended.add(key[-8:])

    def part(key: bytes, value: bytes) -> None:
        nonlocal part_bytes
        if key[1:9] not in ended:
            part_bytes += rows.decode_part(value).size

    await each(b"D", name, own=False)
    await each(b"I", inode, own=False)
    await each(b"V", version, own=False)
    await each(b"U", upload, own=True)
    await each(b"P", part, own=True)
    return Usage(objects, size, versions, version_bytes, uploads, part_bytes)
