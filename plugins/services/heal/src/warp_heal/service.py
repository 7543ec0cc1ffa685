"""Healing: each pass writes some of the copies that are missing, fewest good copies first."""

from __future__ import annotations

from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.logs import get

from warp_heal.config import Config

log = get("warp_heal")


class Healing(Service):
    """Writes missing and damaged copies anew."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._waiting = 0
        self.interval_s = float(config.interval)

    async def work(self, context: ServiceContext) -> Report:
        """Do one bounded pass; what cannot be healed now is tried again in the next ones."""
        report = await context.containers.heal(
            budget=self._config.budget, settle_s=float(self._config.settle)
        )
        if report.waiting != self._waiting:
            self._waiting = report.waiting
            if report.problems:
                log.warning("copies are missing", containers=report.waiting, why=report.problems[0])
            elif not report.waiting:
                log.info("every container has its copies")
        counts = {
            "written_copies": report.written_copies,
            "written_bytes": report.written_bytes,
            "removed_copies": report.removed_copies,
        }
        return Report(counts, idle=not (report.written_copies or report.removed_copies))
