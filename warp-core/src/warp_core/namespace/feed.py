"""The change feed: what happened to a volume, in the order of commits, read from a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from warp_core.errors import Expired, InvalidArgument
from warp_core.metadata import Transaction, transact
from warp_core.namespace import keys
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.rows import Event, checked, decode_event
from warp_core.namespace.tree import Volume

START: Final = b""  # the cursor before everything that is still there
CURSOR_BYTES: Final = 10
PAGE: Final = 90  # rows trimmed by one transaction, within WRITES_MAX


class Page(NamedTuple):
    """Events and the cursor behind the last one; `cursors` has the one behind each."""

    events: list[Event]
    cursor: bytes
    cursors: Sequence[bytes] = ()


async def read(namespace: Namespace, volume: str, cursor: bytes, *, limit: int = 1000) -> Page:
    """Return what followed a cursor, oldest first; an empty page has the cursor unchanged.

    Raises:
        Expired: Events behind the cursor were removed: scan the volume, then begin with `now`.
        InvalidArgument: Not a cursor.
    """
    return await read_of(namespace, await namespace.volumes.get(volume), cursor, limit=limit)


async def read_of(
    namespace: Namespace, volume: Volume, cursor: bytes, *, limit: int = 1000
) -> Page:
    """Do as `read`, of a volume that may have been deleted since, and another one have its name; without rows, there are no events.

    Raises:
        Expired, InvalidArgument: As `read`.
    """
    if len(cursor) not in (0, CURSOR_BYTES):
        raise InvalidArgument(f"cursor of {len(cursor)} bytes, not {CURSOR_BYTES}")
    prefix = volume.prefix
    view = namespace.store.view()
    try:
        trimmed = await view.get(prefix + keys.FEED_TRIMMED)
        if cursor and trimmed is not None and cursor[:8] < trimmed[0]:
            raise Expired(f"the feed of {volume.row.name!r} does not reach back to the cursor")
        start = prefix + keys.FEED + (cursor + b"\0" if cursor else b"")
        found = await view.scan(start, prefix + keys.FEED_END, limit=limit)
    finally:
        view.close()
    events = [checked(decode_event, row.key, row.value) for row in found]
    cursors = [row.key[-CURSOR_BYTES:] for row in found]
    return Page(events, cursors[-1] if cursors else cursor, cursors)


async def now(namespace: Namespace, volume: str) -> bytes:
    """Return the cursor behind everything that happened so far."""
    prefix = (await namespace.volumes.get(volume)).prefix
    view = namespace.store.view()
    try:
        start, end = prefix + keys.FEED, prefix + keys.FEED_END
        found = await view.scan(start, end, limit=1, reverse=True)
        trimmed = await view.get(prefix + keys.FEED_TRIMMED)
    finally:
        view.close()
    if found:
        return found[0].key[-CURSOR_BYTES:]
    return trimmed[0] + b"\xff\xff" if trimmed else bytes(CURSOR_BYTES)


async def oldest(namespace: Namespace, volume: Volume) -> bytes:
    """Return the cursor before the oldest event that is still there."""
    view = namespace.store.view()
    try:
        trimmed = await view.get(volume.prefix + keys.FEED_TRIMMED)
    finally:
        view.close()
    return trimmed[0] + b"\xff\xff" if trimmed is not None else bytes(CURSOR_BYTES)


async def trim(namespace: Namespace, volume: str, *, before_ns: int) -> int:
    """Remove a batch of events older than a time, oldest first; return how many, 0 when there are none."""
    prefix = (await namespace.volumes.get(volume)).prefix
    view = namespace.store.view()
    try:
        found = await view.scan(prefix + keys.FEED, prefix + keys.FEED_END, limit=PAGE + 1)
    finally:
        view.close()
    old = []
    for row in found:
        if checked(decode_event, row.key, row.value).time_ns >= before_ns:
            break
        old.append(row.key)
    version = old[-1][-CURSOR_BYTES:-2] if old else b""
    if len(old) > PAGE:  # a commit's events go together, so that the mark says what is left
        old = [key for key in old if key[-CURSOR_BYTES:-2] != version] or old
        version = old[-1][-CURSOR_BYTES:-2]
    if not old:
        return 0

    async def body(tx: Transaction) -> None:
        for key in old:
            tx.delete(key)
        tx.put(prefix + keys.FEED_TRIMMED, version)

    await transact(namespace.store, body)
    return len(old)
