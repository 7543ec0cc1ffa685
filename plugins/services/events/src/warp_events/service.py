"""The service: which volumes have rules, and a pump for each target that they name.

It runs at the volume's home, as every service does. A pass looks at the volumes and begins, changes and ends pumps, which work on
between passes and end with the service.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import msgspec
from warp_core import notifications
from warp_core.errors import Busy, ReadOnly, Unavailable, VolumeNotFound
from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.logs import get
from warp_core.metrics import Counter
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.notified import finish, progress_of, save_progress
from warp_core.namespace.tree import Volume
from warp_core.namespace.volumes import DELETED
from warp_core.notifications import Notifications, Rule

from warp_events.config import Config

if TYPE_CHECKING:
    from warp_events.pump import Pump

LOOK_S: Final = 0.5  # between two looks for new rules, and 50 times as long as the last one took
LOOK_SHARE: Final = 50
TURNS: Final = 8  # pages of one target in memory at once, of all volumes: about 4 MiB
SPREAD_S: Final = 0.001  # of an idle pump's wait for each pump that there is

log = get("warp_events")

Place = tuple[int, str]  # number of a volume, name of a target


class _Running(NamedTuple):
    pump: Pump
    task: asyncio.Task[None]


class Events(Service):
    """Delivers the events that the rules of all volumes name."""

    interval_s = LOOK_S

    def __init__(self, config: Config) -> None:
        self._config = config
        self._running: dict[Place, _Running] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._told: set[tuple[int, str]] = set()
        self._finished: set[int] = set()  # deleted volumes without anything to tell
        self._known: dict[int, tuple[bytes, Notifications]] = {}
        self._entered = False

    async def __aenter__(self) -> Self:
        """Allow pumps to run."""
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all pumps; what was sent and not noted is sent again after the next start."""
        self._entered = False
        running, self._running = list(self._running.values()), {}
        for each in running:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in running), return_exceptions=True)

    async def work(self, context: ServiceContext) -> Report:
        """Bring pumps into line with the rules."""
        began_s = time.monotonic()
        namespace = context.namespace
        lost = context.metrics.counters(
            "warp_events_gaps_total",
            "Gaps in what a target was told: it took nothing for longer than the change feed goes back",
            labels=("target",),
        )
        counts = {"pumps_begun": 0, "pumps_ended": 0}
        wanted: set[Place] = set()
        volumes = await namespace.volumes.all(deleted=True)
        self._forget_volumes({volume.number for volume in volumes})
        for volume in volumes:
            found = await self._rules_of(namespace, volume)
            if found is None or await self._over(namespace, volume, found):
                continue
            for name, rules in found.targets().items():
                target = context.targets.get(name)
                if target is None:
                    self._tell(volume, name)
                    continue
                place = volume.number, name
                wanted.add(place)
                running = self._running.get(place)
                if running is not None and not running.task.done():
                    if running.pump.since_ns == rules[0].since_ns:
                        running.pump.rules = rules
                        continue
                    await self._end(place)
                await self._begin(context, volume, found, name, rules, lost.labels(name))
                counts["pumps_begun"] += 1
        for place in [each for each in self._running if each not in wanted]:
            await self._end(place)
            counts["pumps_ended"] += 1
            await self._forget(namespace, place)
        self._spread()
        self.interval_s = max(LOOK_S, LOOK_SHARE * (time.monotonic() - began_s))
        return Report(counts, idle=True)

    async def _rules_of(self, namespace: Namespace, volume: Volume) -> Notifications | None:
        document = (await namespace.volumes.documents(volume)).get(notifications.DOCUMENT)
        if document is None:
            self._known.pop(volume.number, None)
            return None
        known = self._known.get(volume.number)
        if known is not None and known[0] is document:
            return known[1]
        try:
            found = notifications.unpack(document)
        except msgspec.DecodeError as error:
            if (volume.number, "") not in self._told:
                self._told.add((volume.number, ""))
                log.error("notifications cannot be read", volume=volume.row.name, error=str(error))
            return None
        self._known[volume.number] = document, found
        return found

    def _forget_volumes(self, there: set[int]) -> None:
        """Forget what was known of volumes that are gone."""
        self._finished &= there
        self._told = {each for each in self._told if each[0] in there}
        self._known = {number: known for number, known in self._known.items() if number in there}

    async def _over(self, namespace: Namespace, volume: Volume, found: Notifications) -> bool:
        """Say whether nothing of a volume is to be told any more: it was deleted, and its last event has been."""
        if not volume.row.name.startswith(DELETED):
            return False
        if volume.number in self._finished:
            return True
        running = [self._running.get((volume.number, name)) for name in found.targets()]
        if not all(each is not None and each.pump.drained for each in running):
            return False
        try:
            await finish(namespace, volume)
        except (VolumeNotFound, Unavailable) as error:
            log.debug("a deleted volume waits", volume=volume.row.name, error=str(error))
            return False
        self._finished.add(volume.number)
        return True

    async def _begin(
        self,
        context: ServiceContext,
        volume: Volume,
        found: Notifications,
        name: str,
        rules: tuple[Rule, ...],
        lost: Counter,
    ) -> None:
        from warp_events.pump import Pump  # a node without rules starts faster

        assert self._entered, "pumps run while the service is entered"
        namespace = context.namespace
        progress = await progress_of(
            namespace, volume, name, since_ns=rules[0].since_ns, written_ns=found.written_ns
        )
        turns = self._turns.setdefault(name, asyncio.Semaphore(TURNS))
        target = context.targets[name]
        bucket = found.volume or volume.row.name
        pump = Pump(namespace, volume, target, turns, rules, progress, self._config, lost, bucket)
        task = asyncio.create_task(pump.run(), name=f"events of {volume.row.name} to {name}")
        self._running[volume.number, name] = _Running(pump, task)

    async def _end(self, place: Place) -> None:
        running = self._running.pop(place)
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)

    async def _forget(self, namespace: Namespace, place: Place) -> None:
        """Drop the row of a target that no rule names any more; where that fails, the row is known as an older one's."""
        for volume in await namespace.volumes.all():
            if volume.number == place[0]:
                try:
                    await save_progress(namespace, volume, place[1], None)
                except (VolumeNotFound, ReadOnly, Busy, Unavailable) as error:
                    log.debug("a row of events stays", volume=volume.row.name, error=str(error))

    def _tell(self, volume: Volume, target: str) -> None:
        """Say once that rules name a target that is not configured here."""
        if (volume.number, target) not in self._told:
            self._told.add((volume.number, target))
            log.error(
                "events wait: no [[event_target]] of that name is configured",
                volume=volume.row.name,
                target=target,
            )

    def _spread(self) -> None:
        idle_s = max(float(self._config.interval), SPREAD_S * len(self._running))
        for each in self._running.values():
            each.pump.idle_s = idle_s
