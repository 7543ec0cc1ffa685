"""Layer: an event target whose attempts are counted, timed and told: when it fails first, and when it is back."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from warp_core.errors import Unavailable
from warp_core.interfaces.targets import EventTarget, Message, Target, TargetHealth
from warp_core.logs import get
from warp_core.metrics import Metrics

log = get("warp_core.targets")


class WatchedTarget(Target):
    """A target that tells how it does."""

    def __init__(self, name: str, kind: str, inner: EventTarget, metrics: Metrics) -> None:
        """Take the target and the names it goes by."""
        self.name = name
        self.kind = kind
        self.capabilities = inner.capabilities
        self._inner = inner
        self._health = TargetHealth()
        self._sent = metrics.counters(
            "warp_events_sent_total", "Messages that targets took", labels=("target",)
        ).labels(name)
        self._failed = metrics.counters(
            "warp_events_failed_total", "Attempts to send a message that failed", labels=("target",)
        ).labels(name)
        self._up = metrics.gauges(
            "warp_events_target_up",
            "Whether the last attempt to send to a target succeeded",
            labels=("target",),
        ).labels(name)
        self._up.set(1)
        self._took = metrics.histograms(
            "warp_events_send_seconds", "How long targets took for a message", labels=("target",)
        ).labels(name)

    @property
    def health(self) -> TargetHealth:
        """As `Target.health`."""
        return self._health

    async def __aenter__(self) -> Self:
        """Open it."""
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def send(self, message: Message) -> None:
        """As `EventTarget.send`."""
        began_s = time.perf_counter()
        try:
            await self._inner.send(message)
        except Unavailable as error:
            self._note_failure(error)
            raise
        self._took.observe(time.perf_counter() - began_s)
        self._sent.value += 1
        before = self._health
        if before.failing_since_ns:
            log.info("event target is back", target=self.name, attempts_failed=before.failed)
            self._up.set(1)
        self._health = TargetHealth(before.sent + 1, before.failed)

    def _note_failure(self, error: Unavailable) -> None:
        self._failed.value += 1
        before = self._health
        if not before.failing_since_ns:
            log.warning("event target takes nothing", target=self.name, error=str(error))
            self._up.set(0)
        self._health = TargetHealth(
            before.sent,
            before.failed + 1,
            before.failing_since_ns or time.time_ns(),
            str(error),
        )
