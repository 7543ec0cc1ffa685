"""What the namespace does for itself in the background: finish what took several transactions, forget what has had its time."""

from __future__ import annotations

from typing import Final

from warp_core.errors import NotFound
from warp_core.interfaces.consistency import SCAN_MAX, Row
from warp_core.metadata import Transaction, transact
from warp_core.namespace import feed, keys, uploads
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.notified import still_told
from warp_core.namespace.rows import decode_upload, is_whiteout
from warp_core.namespace.tree import ViewSource, Volume, below_clone
from warp_core.namespace.volumes import DELETED, unpin

FEED_KEEP_S: Final = 7 * 24 * 3600.0  # a consumer that is away longer scans anew
BATCH: Final = 90  # rows removed by one transaction, within WRITES_MAX
BATCHES: Final = 20  # of one kind in one pass: then others get their turn

# Of a deleted volume: what goes at once. R, X and Z stay as long as others borrow; U and P, W and E, O and I have ends of their own.
_PLAIN: Final = (b"B", b"C", b"D", b"F", b"J", b"K", b"M", b"N", b"Q", b"T", b"V", b"Y", b"f", b"w")

_OF_EVENTS: Final = (b"F", b"K", b"f", b"w")  # of these, what waits for notifications to be sent


class Upkeep:
    """One pass over all volumes at a time."""

    def __init__(self, namespace: Namespace, *, feed_keep_s: float = FEED_KEEP_S) -> None:
        self._namespace = namespace
        self._feed_keep_ns = int(feed_keep_s * 1e9)

    async def work(self) -> dict[str, int]:
        """Do a bounded pass; returns counters, all zero when there is nothing to do now."""
        counts = {"uploads": 0, "directories": 0, "events": 0, "rows_of_deleted": 0}
        await self._namespace.lock_clock.persist()
        for volume in await self._namespace.volumes.all(deleted=True):
            if volume.row.frozen:
                continue
            gone = volume.row.name.startswith(DELETED)
            counts["uploads"] += await self._uploads(volume, every=gone)
            counts["directories"] += await self._directories(volume)
            if gone:
                counts["rows_of_deleted"] += await self._remove(volume)
            else:
                counts["events"] += await self._events(volume)
        return counts

    async def _scan(self, volume: Volume, start: bytes, end: bytes, limit: int) -> list[Row]:
        view = self._namespace.store.view()
        try:
            return await view.scan(volume.prefix + start, volume.prefix + end, limit=limit)
        finally:
            view.close()

    async def _uploads(self, volume: Volume, *, every: bool) -> int:
        """Finish uploads that have ended, in a deleted volume all; returns how many there were work for."""
        namespace, name = self._namespace, volume.row.name
        done = 0
        start, end = keys.UPLOADS
        while page := await self._scan(volume, start, end, SCAN_MAX):
            for row in page:
                upload = decode_upload(row.value)
                number = int.from_bytes(row.key[-8:], "big")
                if not upload.state:
                    if every:
                        try:
                            await uploads.abort(namespace, name, upload.key, number)
                        except NotFound:
                            continue
                        done += 1
                    continue
                fresh = upload.ended_ns + uploads.COMPLETED_S * 10**9 > namespace.clock_ns()
                parts = await self._scan(volume, *keys.parts_of(number), 1)
                if upload.state == "completed" and fresh and not parts and not every:
                    continue
                done += 1
                while not await uploads.sweep(namespace, name, upload.key, number):
                    pass
                if every and upload.state == "completed":
                    await self._drop(volume, [row])
            start = page[-1].key[len(volume.prefix) :] + b"\0"
        return done

    async def _directories(self, volume: Volume) -> int:
        """Remove directories that a crash left without anything below them."""
        found = await self._scan(volume, *keys.UNTIDY, BATCH)
        for row in found:
            number = int.from_bytes(row.key[-8:], "big")
            await self._namespace.tidy(volume.row.name, row.value, number)
        return len(found)

    async def _events(self, volume: Volume) -> int:
        """Remove events that are older than the feed goes back."""
        before = self._namespace.clock_ns() - self._feed_keep_ns
        done = 0
        for _ in range(BATCHES):
            some = await feed.trim(self._namespace, volume.row.name, before_ns=before)
            done += some
            if not some:
                break
        return done

    async def _remove(self, volume: Volume) -> int:
        """Remove rows of a deleted volume; when none are left, itself."""
        done = 0
        if self._namespace.apart is not None:  # files that were open when the volume went
            done += await self._namespace.apart.collect_orphans(volume.row.name)
        since_ns = self._namespace.clock_ns() - self._feed_keep_ns
        told = await still_told(self._namespace, volume, after_ns=since_ns)
        for family in _PLAIN:
            if told and family in _OF_EVENTS:
                continue
            for _ in range(BATCHES):
                found = await self._scan(volume, family, keys.after(family), BATCH)
                await self._drop(volume, found)
                done += len(found)
                if len(found) < BATCH:
                    break
        hidden = [
            row
            for family in (b"R", b"I", b"E", b"X", b"Z", b"O")
            for row in await self._scan(volume, family, keys.after(family), SCAN_MAX)
            if is_whiteout(row.value)
        ]
        for start in range(0, len(hidden), BATCH):
            await self._drop(volume, hidden[start : start + BATCH])
        done += len(hidden)
        if volume.row.base is not None:
            done += await self._remove_copies(volume)
        view = self._namespace.store.view()
        try:
            left = await view.scan(volume.prefix, keys.after(volume.prefix), limit=1)
        finally:
            view.close()
        if left:
            return done

        async def body(tx: Transaction) -> None:
            tx.check(keys.volume_name_key(volume.row.name), volume.version)
            tx.delete(keys.volume_name_key(volume.row.name))
            tx.delete(keys.volume_number_key(volume.number))
            if volume.row.base is not None:
                await unpin(tx, volume.number, volume.row.base)

        await transact(self._namespace.store, body)
        self._namespace.volumes.forget(volume.row.name)
        return done + 1

    async def _remove_copies(self, volume: Volume) -> int:
        """Remove what a deleted clone says of its base's revisions, unless others borrow them from it: their content is the base's."""
        lent: set[bytes] = set()
        start, end = b"X", b"Y"
        while page := await self._scan(volume, start, end, SCAN_MAX):
            for row in page:
                key = row.key[len(volume.prefix) :]
                if key[9:10] == b"r" and not is_whiteout(row.value):
                    lent.add(key[1:9])
            start = page[-1].key[len(volume.prefix) :] + b"\0"
        view = self._namespace.store.view()
        try:
            below = below_clone(ViewSource(view), volume)
            found = [
                row
                for family in (b"R", b"X", b"Z")
                for row in await self._scan(volume, family, keys.after(family), BATCH)
                if (number := row.key[len(volume.prefix) + 1 :][:8]) not in lent
                and await below.get(b"R" + number) is not None
            ]
        finally:
            view.close()
        for first in range(0, len(found), BATCH):
            await self._drop(volume, found[first : first + BATCH])
        return len(found)

    async def _drop(self, volume: Volume, found: list[Row]) -> None:
        if not found:
            return

        async def body(tx: Transaction) -> None:
            tx.check(keys.volume_name_key(volume.row.name), volume.version)
            for row in found:
                tx.delete(row.key)

        await transact(self._namespace.store, body)
