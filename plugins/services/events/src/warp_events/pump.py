"""A pump: the events of one volume on their way to one target, in pages of the change feed.

The feed is the queue. A page is read, what the rules name of it is sent, and the cursor moves behind what was taken; a crash anywhere
sends some of it again and misses nothing. Messages about one key are sent one after another, in the feed's order; others side by
side, in as many *lanes* as the target takes at once:

```
 feed  ──▶ page ──▶ rules ──▶ lane of the key's hash ──▶ target
   ▲                                                       │ taken, up to the first that was not
   └──────────────── cursor, in a row of the volume ◀──────┘
```

Where a target takes nothing, nothing is held in memory but the cursor and which events of the page the other lanes brought home.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from warp_core.errors import Expired, Unavailable, VolumeNotFound, WarpError
from warp_core.interfaces.targets import BODY_MAX, Message, Target
from warp_core.logs import get
from warp_core.metrics import Counter
from warp_core.namespace import feed
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.notified import save_progress
from warp_core.namespace.rows import Event
from warp_core.namespace.tree import Volume
from warp_core.notifications import Progress, Rule

from warp_events.config import Config
from warp_events.records import Bucket, Identity, message_of, name_of, record_of

PAGE: Final = 250  # events in memory for one volume and target: about 500 KiB with their records
SAVE_S: Final = 10.0  # how often the cursor is kept while it only passes what no rule names
FIRST_LOOK_S: Final = 0.02  # after a page that had something; doubled up to the interval

log = get("warp_events")


class Sending(NamedTuple):
    """An event on its way."""

    at: int  # its place in the page
    event: Event
    name: str
    record: bytes


class Pump:
    """Delivers until it is cancelled.

    Attributes:
        rules: Those that name the target; others may take their place at any time.
        drained: There was nothing more when it last looked.
        idle_s: How long it waits at most before it looks again.
    """

    def __init__(
        self,
        namespace: Namespace,
        volume: Volume,
        target: Target,
        turns: asyncio.Semaphore,
        rules: Sequence[Rule],
        progress: Progress,
        config: Config,
        lost: Counter,
        bucket: str,
    ) -> None:
        """Take what it works on; `turns` are the pages that one target has in memory at once, `lost` counts gaps.

        `bucket` is the volume's name, also when that has been deleted.
        """
        self.rules = rules
        self.drained = False
        self.idle_s = float(config.interval)
        self.since_ns = progress.since_ns
        self._namespace = namespace
        self._volume = volume
        self._target = target
        self._turns = turns
        self._config = config
        self._lost = lost
        self._cursor = self._saved = progress.cursor
        self._saved_s = time.monotonic()
        self._ahead: set[bytes] = set()  # taken, behind one that was not
        row = volume.row
        self._bucket = Bucket(bucket, Identity(row.owner), f"arn:aws:s3:::{bucket}")
        # Of this volume and no other, also where several clusters send to one place.
        self._unique = f"{row.created_ns:x}-{volume.number:x}"

    async def run(self) -> None:
        """Deliver page after page; ends when the volume is gone."""
        name, target = self._volume.row.name, self._target.name
        look_s = FIRST_LOOK_S
        retry_s = float(self._config.retry)
        while True:
            try:
                async with self._turns:
                    moved = await self._page()
            except VolumeNotFound:
                return
            except Unavailable as error:
                log.debug("events wait", volume=name, target=target, error=str(error))
            except Expired:
                await self._over_the_gap()
                continue
            except WarpError as error:
                log.warning("events wait", volume=name, target=target, error=str(error))
            except Exception as error:
                log.exception("events wait", error, volume=name, target=target)
            else:
                retry_s = float(self._config.retry)
                if moved:
                    look_s = FIRST_LOOK_S
                    await asyncio.sleep(0)
                else:
                    look_s = min(2 * look_s, self.idle_s)
                    await asyncio.sleep(look_s)
                continue
            await asyncio.sleep(retry_s * random.uniform(0.75, 1.0))
            retry_s = min(2 * retry_s, float(self._config.retry_max))

    async def _page(self) -> bool:
        """Deliver a page; False if there was none.

        Raises:
            Unavailable: The target did not take everything; what it took is noted.
            Expired: The feed does not reach back to the cursor.
        """
        page = await feed.read_of(self._namespace, self._volume, self._cursor, limit=PAGE)
        self.drained = not page.events
        if not page.events:
            await self._save(0)
            return False
        wanted = self._chosen(page)
        taken = set(range(len(page.events))) - {each.at for each in wanted}
        failure = await self._send(wanted, page.cursors, taken)
        done = 0
        while done in taken:
            done += 1
        if done:
            self._cursor = page.cursors[done - 1]
        self._ahead = {page.cursors[at] for at in taken if at > done} if failure else set()
        await self._save(len(wanted))
        if failure is not None:
            raise failure
        return True

    def _chosen(self, page: feed.Page) -> list[Sending]:
        """Return what of a page is still to be sent."""
        found: list[Sending] = []
        rules = self.rules
        for at, event in enumerate(page.events):
            name = name_of(event)
            if not name or page.cursors[at] in self._ahead:
                continue
            key = event.key.decode("utf-8", "surrogateescape")
            rule = next((each for each in rules if each.fits(name, key)), None)
            if rule is not None:
                record = record_of(
                    event,
                    name,
                    cursor=page.cursors[at],
                    configuration=rule.id,
                    bucket=self._bucket,
                    region=self._config.region,
                )
                found.append(Sending(at, event, name, record))
        return found

    async def _send(
        self, wanted: Sequence[Sending], cursors: Sequence[bytes], taken: set[int]
    ) -> Unavailable | None:
        """Send by lanes; add what was taken to `taken`, and return why something was not."""
        lanes: dict[int, list[Sending]] = {}
        width = self._target.capabilities.at_once
        for each in wanted:
            lanes.setdefault(zlib.crc32(each.event.key) % width, []).append(each)
        failures: list[Unavailable] = []

        async def follow(lane: list[Sending]) -> None:
            for batch in self._batches(lane):
                try:
                    await self._target.send(self._message(batch, cursors))
                except Unavailable as error:
                    failures.append(error)
                    return
                taken.update(each.at for each in batch)

        if len(lanes) == 1:
            await follow(next(iter(lanes.values())))
        elif lanes:
            async with asyncio.TaskGroup() as group:
                for lane in lanes.values():
                    group.create_task(follow(lane))
        return failures[0] if failures else None

    def _batches(self, lane: Sequence[Sending]) -> list[list[Sending]]:
        """Divide a lane into messages."""
        most = self._target.capabilities.batch_max
        found: list[list[Sending]] = []
        size = 0
        for each in lane:
            if not found or len(found[-1]) == most or size + len(each.record) > BODY_MAX // 2:
                found.append([])
                size = 0
            found[-1].append(each)
            size += len(each.record)
        return found

    def _message(self, batch: Sequence[Sending], cursors: Sequence[bytes]) -> Message:
        first = batch[0]
        return Message(
            f"{self._unique}-{cursors[first.at].hex()}",
            message_of([each.record for each in batch]),
            self._bucket.name,
            first.name,
            first.event.key.decode("utf-8", "replace"),
            len(batch),
        )

    async def _save(self, sent: int) -> None:
        """Keep the cursor, at once if something was sent."""
        now_s = time.monotonic()
        if self._cursor == self._saved or (not sent and now_s - self._saved_s < SAVE_S):
            return
        progress = Progress(self.since_ns, self._cursor)
        await save_progress(self._namespace, self._volume, self._target.name, progress)
        self._saved, self._saved_s = self._cursor, now_s

    async def _over_the_gap(self) -> None:
        """Go on with what is left of the feed: events between were removed, after the time that it goes back."""
        self._lost.add()
        log.error(
            "events are lost: the target took none for longer than the change feed goes back",
            volume=self._volume.row.name,
            target=self._target.name,
        )
        self._cursor = await feed.oldest(self._namespace, self._volume)
        self._ahead.clear()
