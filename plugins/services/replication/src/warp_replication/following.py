"""A pass over one volume: what happened to it since the last one, and where that goes. A row of the volume says how far it is:

    rules are new ─▶ scan ─── all versions that are PENDING or FAILED, or that a rule for existing objects names ───▶ feed
                      ▲                                                                                               │
                      └───────────────────────── the change feed does not go back that far ──────────────────────────┘

The cursor of the feed is taken before the scan begins, and moves when everything up to it has been sent, so that nothing is left out;
what is sent twice is known there by its version. Events of one key go one after the other, those of different keys side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from warp_core.errors import Expired, NotFound, Sealed
from warp_core.logs import get
from warp_core.namespace import feed, keys
from warp_core.namespace.changes import Change
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.rows import Event
from warp_core.namespace.tree import ViewSource, Volume
from warp_core.replication import CLOCKS_NS, Replication, Rule
from warp_core.views.objects import ObjectInfo
from warp_core.views.objects import Replication as Status

from warp_replication.sending import Refused, send_lock, send_marker, send_tags, send_version

if TYPE_CHECKING:
    from warp_replication.service import Replicator

PAGE: Final = 200
"""Events, or versions of a scan, of one pass over a volume."""

SCAN, FEED = "scan", "feed"

NEVER_NS: Final = 2**63 - 1

MADE: Final = frozenset({"put", "copy", "complete"})
"""Verbs of events that make a version, all of them of the Objects view."""

TOLD: Final = MADE | {"marker", "tags", "lock"}

log = get("warp_replication")


class Progress(msgspec.Struct, array_like=True):
    """How far a volume is, as its row keeps it."""

    rules: str  # digest of the document
    cursor: bytes
    phase: str = SCAN
    key: bytes = b""  # of a scan: behind this one
    version: str = ""
    markers_ns: int = NEVER_NS  # of a scan: markers from then on are sent, too


_decode_progress = msgspec.msgpack.Decoder(Progress).decode


class Run:
    """One pass over a volume."""

    def __init__(
        self,
        service: Replicator,
        namespace: Namespace,
        objects: NamespaceObjects,
        volume: Volume,
        rules: Replication,
        stamp: str,
        counts: dict[str, int],
    ) -> None:
        self._service = service
        self._namespace = namespace
        self._objects = objects
        self._volume = volume
        self._name = volume.row.name
        self._rules = rules
        self._stamp = stamp
        self._counts = counts
        self._slots = asyncio.Semaphore(service.jobs)

    async def work(self) -> bool:
        """Do a page; True if there is nothing more to do now."""
        progress = await _load(self._namespace, self._volume)
        if progress is None or progress.rules != self._stamp:
            progress = await self._begun(progress)
            await _save(self._namespace, self._volume, progress)
        if progress.phase == SCAN:
            await self._scan(progress)
            return False
        try:
            page = await feed.read(self._namespace, self._name, progress.cursor, limit=PAGE)
        except Expired:
            log.warning("the change feed does not go back far enough: scanning", volume=self._name)
            cursor = await feed.now(self._namespace, self._name)
            await _save(self._namespace, self._volume, Progress(self._stamp, cursor, markers_ns=0))
            return False
        if not page.events:
            return True
        await self._send_events(page.events)
        progress.cursor = page.cursor
        await _save(self._namespace, self._volume, progress)
        return len(page.events) < PAGE

    async def _begun(self, last: Progress | None) -> Progress:
        """Return where to begin with rules that are new: with a scan, and the feed behind what the last ones had sent."""
        if last is not None:
            markers_ns = last.markers_ns if last.phase == SCAN else NEVER_NS
            return Progress(self._stamp, last.cursor, markers_ns=markers_ns)
        # Markers do not say that they are to be sent: those count that were made since the rules were.
        cursor = await feed.now(self._namespace, self._name)
        return Progress(self._stamp, cursor, markers_ns=self._rules.since_ns - CLOCKS_NS)

    # From the feed --------------------------------------------------------------------------------

    async def _send_events(self, events: Sequence[Event]) -> None:
        by_key: dict[bytes, list[Event]] = {}
        for event in events:
            if event.key and event.verb in TOLD:
                by_key.setdefault(event.key, []).append(event)
        await _together([self._send_key(of_key) for of_key in by_key.values()])

    async def _send_key(self, events: Sequence[Event]) -> None:
        """Send what happened to a key, in the order that it did."""
        async with self._slots:
            for event in events:
                if event.verb in MADE:
                    # What was written before the rules, and does not wait by older ones, was there before.
                    before = event.time_ns < self._rules.since_ns - CLOCKS_NS
                    await self._version(event.key, event.version, existing=before)
                elif event.verb == "marker":
                    await self._marker(event, event.time_ns)
                else:
                    await self._setting(event)

    async def _version(self, key: bytes, version: str, *, existing: bool = False) -> None:
        """Send a version, unless it is there, is a replica itself, or is none of ours."""
        try:
            info = await self._objects.head(self._name, key, version=version)
        except NotFound:  # removed meanwhile, or a marker
            return
        status = info.attributes.replication
        if info.version == "null" or status in ("REPLICA", "COMPLETED"):
            return
        kept = info.seal is not None and bool(info.seal.key)  # under a key of the key service
        rules = [
            rule
            for rule in self._rules.rules_of(key, info.attributes.tags)
            if (status or rule.existing or not existing) and (rule.sealed or not kept)
        ]
        if not rules:
            return
        try:
            for rule in rules:
                await self._send(info, rule)
        except Refused as error:
            await self._failed("version", info, error)
        else:
            self._count("replicated")
            await self._note(info, "COMPLETED")

    async def _send(self, info: ObjectInfo, rule: Rule) -> None:
        client, bucket = self._service.client(rule.bucket)
        try:
            reader = await self._objects.open(self._name, info.key, version=info.version)
        except Sealed as error:
            raise Refused("its key is its owner's (SSE-C)") from error
        try:
            await send_version(client, _path(bucket, info.key), reader.info, reader, rule)
        finally:
            reader.close()

    async def _marker(self, entry: ObjectInfo | Event, modified_ns: int) -> None:
        for rule in self._rules.rules_of(entry.key, {}):
            if not rule.markers or entry.version == "null":
                continue
            client, bucket = self._service.client(rule.bucket)
            try:
                await send_marker(client, _path(bucket, entry.key), entry.version, modified_ns)
            except Refused as error:
                await self._failed("delete marker", entry, error)
            else:
                self._count("markers")

    async def _setting(self, event: Event) -> None:
        """Send what is said now of a version that is there."""
        try:
            info = await self._objects.head(self._name, event.key, version=event.version)
        except NotFound:
            return
        if info.attributes.replication != "COMPLETED":
            # Its new tags may have made it one of those that are copied.
            await self._version(event.key, event.version)
            return
        send = send_tags if event.verb == "tags" else send_lock
        for rule in self._rules.rules_of(event.key, info.attributes.tags):
            client, bucket = self._service.client(rule.bucket)
            try:
                await send(client, _path(bucket, event.key), info)
            except Refused as error:
                await self._failed(event.verb, info, error)
            else:
                self._count("settings")

    async def _failed(self, what: str, entry: ObjectInfo | Event, error: Refused) -> None:
        """Tell what the other side will never take, and say so of the version."""
        self._count("failed")
        log.error(
            "not replicated",
            what=what,
            volume=self._name,
            key=entry.key.decode("utf-8", "replace"),
            version=entry.version,
            reason=str(error),
        )
        if isinstance(entry, ObjectInfo) and not entry.marker:
            await self._note(entry, "FAILED")

    async def _note(self, info: ObjectInfo, status: Status) -> None:
        with contextlib.suppress(NotFound):  # it was removed meanwhile
            await self._objects.set_replication(self._name, info.key, status, version=info.version)

    # From a scan ----------------------------------------------------------------------------------

    async def _scan(self, progress: Progress) -> None:
        """Send what of a page of versions is to be there and is not."""
        page = await self._objects.list_versions(
            self._name, key_marker=progress.key, version_marker=progress.version, limit=PAGE
        )
        by_key: dict[bytes, list[ObjectInfo]] = {}
        for entry in page.entries:
            by_key.setdefault(entry.key, []).append(entry)
        await _together([self._scan_key(each[::-1], progress) for each in by_key.values()])
        if page.next_key:
            progress.key, progress.version = page.next_key, page.next_version
        else:
            progress.phase, progress.key, progress.version = FEED, b"", ""
        await _save(self._namespace, self._volume, progress)

    async def _scan_key(self, entries: Sequence[ObjectInfo], progress: Progress) -> None:
        async with self._slots:
            for entry in entries:
                if not entry.marker:
                    await self._version(entry.key, entry.version, existing=True)
                    continue
                existing = any(rule.existing for rule in self._rules.rules)
                if existing or entry.modified_ns >= progress.markers_ns:
                    await self._marker(entry, entry.modified_ns)

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1


async def _together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of them, and raise what one of them raised."""
    for ended in await asyncio.gather(*works, return_exceptions=True):
        if ended is not None:
            raise ended


def _path(bucket: str, key: bytes) -> bytes:
    return b"/" + bucket.encode() + b"/" + key


async def _load(namespace: Namespace, volume: Volume) -> Progress | None:
    view = namespace.store.view()
    try:
        value = await volume.rows(ViewSource(view)).get(keys.progress_key("replication"))
    finally:
        view.close()
    return _decode_progress(value) if value is not None else None


async def _save(namespace: Namespace, volume: Volume, progress: Progress) -> None:
    async def body(change: Change) -> None:
        row = msgspec.msgpack.encode(progress)
        change.rows.put_present(keys.progress_key("replication"), row)

    await namespace.change(volume.row.name, body)
