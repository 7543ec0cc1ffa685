"""Watches: what etcd tells of rows and of the log, put together into changes in commit order.

A batch is one revision of etcd: its log entry names commits and keys in order, the rows beside it have the values. The log also tells
where to go on after a connection broke or etcd was compacted: as long as it reaches back far enough, nothing is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from warp_core.errors import Expired, Unavailable
from warp_core.interfaces.consistency import Change

from warp_etcd import messages
from warp_etcd.client import TXN, WATCH, Client
from warp_etcd.layout import Layout, unpack_entry, unpack_head, unpack_row
from warp_etcd.wire import etcd_pb2 as pb

PAUSE_S = 0.05  # after a stream broke


async def watch(client: Client, layout: Layout, prefix: bytes, since: int) -> AsyncIterator[Change]:
    """See `MetaStore.watch`; outages are waited out."""
    revision = compacted = 0
    while True:
        try:
            if not revision:
                revision = await _revision_after(client, layout, since)
                if revision < compacted:
                    raise Expired(f"etcd was compacted since version {since}: scan anew")
            stream = client.stream(WATCH, [messages.watch(layout, revision)])
            async with aclosing(stream) as answers:
                async for answer in answers:
                    if answer.canceled or answer.compact_revision:
                        compacted = answer.compact_revision
                        break  # the log tells whether there was something in between
                    for events in _by_revision(answer.events):
                        for change in _changes(layout, events, since):
                            if change.key.startswith(prefix):
                                yield change
                        revision = events[0].kv.mod_revision + 1
                        since = _last(layout, events, since)
        except Unavailable:
            await asyncio.sleep(PAUSE_S)
            continue
        revision = 0


async def _revision_after(client: Client, layout: Layout, since: int) -> int:
    """Return the revision at which the first batch behind a version was applied, or will be.

    Raises:
        Expired: The log does not reach back so far.
    """
    request = messages.read(
        messages.get(layout.head),
        messages.scan(layout.entry(since + 1), layout.log_end, limit=1),
    )
    answer = await client.call(TXN, request)
    head, found = (op.response_range for op in answer.responses)
    if found.kvs:
        before = unpack_entry(found.kvs[0].value).before
        if before > since:
            raise Expired(f"changes since version {since} are forgotten up to {before}: scan anew")
        return int(found.kvs[0].mod_revision)
    version = unpack_head(head.kvs[0].value).version if head.kvs else 0
    if version > since:
        raise Expired(f"changes since version {since} are forgotten up to {version}: scan anew")
    return int(answer.header.revision) + 1


def _by_revision(events: Sequence[pb.Event]) -> list[list[pb.Event]]:
    """Group events; etcd never splits a revision between answers."""
    groups: list[list[pb.Event]] = []
    for event in events:
        if not groups or groups[-1][0].kv.mod_revision != event.kv.mod_revision:
            groups.append([])
        groups[-1].append(event)
    return groups


def _changes(layout: Layout, events: Sequence[pb.Event], since: int) -> list[Change]:
    """Return the changes of one batch behind a version, in commit order."""
    rows: dict[bytes, tuple[bytes | None, int]] = {}
    packed = b""
    for event in events:
        key = event.kv.key
        if key.startswith(layout.rows):
            put = event.type == pb.Event.PUT
            rows[layout.key(key)] = unpack_row(event.kv.value) if put else (None, 0)
        elif event.type == pb.Event.PUT:
            packed = event.kv.value
    if not packed:
        return []  # only old log entries were dropped
    changes = []
    for noted in unpack_entry(packed).commits:
        if noted.version <= since:
            continue
        for key in noted.written:
            value, version = rows[key]
            if version == noted.version:  # else a later commit of the batch merged it once more
                changes.append(Change(key, value, version))
        changes += [Change(key, None, noted.version) for key in noted.deleted]
    return changes


def _last(layout: Layout, events: Sequence[pb.Event], since: int) -> int:
    """Return the version that a batch ends with."""
    for event in events:
        if event.type == pb.Event.PUT and event.kv.key.startswith(layout.entries):
            return max(since, unpack_entry(event.kv.value).commits[-1].version)
    return since
