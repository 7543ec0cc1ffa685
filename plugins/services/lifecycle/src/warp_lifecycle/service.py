"""The service: which volumes have rules, whose sweep is due, and one page of each a pass.

It runs at the volume's home. What it writes is fenced as everything that the home writes: once another node may have taken over, it
fails. How far a sweep has come is a row of the volume, so that the next home, or the next start, goes on there.
"""

from __future__ import annotations

import msgspec
from warp_core import lifecycle
from warp_core.errors import Busy, ReadOnly, VolumeNotFound
from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.lifecycle import Lifecycle
from warp_core.logs import get
from warp_core.namespace import keys
from warp_core.namespace.changes import Change
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.tree import ViewSource, Volume

from warp_lifecycle.config import Config
from warp_lifecycle.restoring import restore_some
from warp_lifecycle.sweep import DONE, Progress, Sweep

SHORT_DAY_SWEEPS = (
    5  # sweeps in a day that is shorter than a day: a test waits for days, not for sweeps
)
LOOK_S = 10.0  # how often it is seen whether a sweep is due
RESTORE_LOOK_S = (
    2.0  # …and whether something is to be restored, where there are archives: somebody waits for it
)

log = get("warp_lifecycle")

_decode_progress = msgspec.msgpack.Decoder(Progress).decode


class LifecycleRules(Service):
    """Carries out the rules of all volumes."""

    def __init__(self, config: Config, namespace: Namespace | None = None) -> None:
        """Take options; `namespace` is told that somebody restores, and what a day is."""
        self._day_ns = int(float(config.day) * 1e9)
        if namespace is not None and namespace.archives:
            namespace.restores_day_ns = self._day_ns
        every_s = float(config.interval)
        if config.day != Config().day:
            every_s = min(every_s, float(config.day) / SHORT_DAY_SWEEPS)
        self._every_ns = int(every_s * 1e9)
        self.interval_s = min(LOOK_S, self._every_ns / 1e9)
        if namespace is not None and namespace.archives:
            self.interval_s = min(RESTORE_LOOK_S, self.interval_s)
        self._objects: NamespaceObjects | None = None
        self._known: dict[int, Progress] = {}
        self._damaged: set[int] = set()

    async def work(self, context: ServiceContext) -> Report:
        """Do one page of every sweep that is due."""
        namespace = context.namespace
        if self._objects is None:
            self._objects = NamespaceObjects(namespace)
        counts: dict[str, int] = {}
        idle = True
        for volume in await namespace.volumes.all():
            if namespace.archives:
                idle = await restore_some(namespace, volume, counts) and idle
            rules = await self._rules_of(namespace, volume)
            if rules is None:
                continue
            try:
                done = await self._sweep(namespace, self._objects, volume, rules, counts)
            except (VolumeNotFound, ReadOnly, Busy):  # deleted meanwhile, or rolled back just now
                continue
            idle = idle and done
        return Report(counts, idle)

    async def _rules_of(self, namespace: Namespace, volume: Volume) -> Lifecycle | None:
        document = (await namespace.volumes.documents(volume)).get(lifecycle.DOCUMENT)
        if document is None or volume.row.frozen or volume.row.read_only:
            self._known.pop(volume.number, None)
            return None
        try:
            return lifecycle.unpack(document)
        except msgspec.DecodeError as error:
            if volume.number not in self._damaged:
                self._damaged.add(volume.number)
                log.error("rules cannot be read", volume=volume.row.name, error=str(error))
            return None

    async def _sweep(
        self,
        namespace: Namespace,
        objects: NamespaceObjects,
        volume: Volume,
        rules: Lifecycle,
        counts: dict[str, int],
    ) -> bool:
        """Do a page of a volume's sweep if one is due; True if there is nothing more to do now."""
        now_ns = namespace.clock_ns()
        progress = self._known.get(volume.number) or await _load(namespace, volume)
        begun = progress is not None and progress.phase != DONE
        waits = progress is not None and now_ns - progress.started_ns < self._every_ns
        if progress is None or (not begun and not waits):
            progress = Progress(now_ns)
        elif not begun:
            self._known[volume.number] = progress
            return True
        sweep = Sweep(
            namespace, objects, volume.row.name, rules, progress,
            now_ns=now_ns, day_ns=self._day_ns,
        )  # fmt: skip
        await sweep.step()
        await _save(namespace, volume, sweep.progress)
        self._known[volume.number] = sweep.progress
        for what, count in sweep.counts.items():
            counts[what] = counts.get(what, 0) + count
        return sweep.progress.phase == DONE


async def _load(namespace: Namespace, volume: Volume) -> Progress | None:
    view = namespace.store.view()
    try:
        value = await volume.rows(ViewSource(view)).get(keys.progress_key("lifecycle"))
    finally:
        view.close()
    return _decode_progress(value) if value is not None else None


async def _save(namespace: Namespace, volume: Volume, progress: Progress) -> None:
    async def body(change: Change) -> None:
        row = msgspec.msgpack.encode(progress)
        change.rows.put_present(keys.progress_key("lifecycle"), row)

    await namespace.change(volume.row.name, body)
