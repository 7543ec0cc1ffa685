"""The collector: each pass moves what is dead one step on, from garbage rows over containers to free space."""

from __future__ import annotations

from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.upkeep import Upkeep

from warp_gc.config import Config

ROW_BATCHES = 10  # of garbage rows in one pass: a thousand rows, then others get their turn


class Collection(Service):
    """Frees the space of what was deleted or never linked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._garbage: Garbage | None = None
        self._upkeep: Upkeep | None = None
        self.interval_s = float(config.interval)

    async def work(self, context: ServiceContext) -> Report:
        """Do one bounded pass."""
        if self._garbage is None or self._upkeep is None:
            self._garbage = Garbage(context.namespace)
            self._upkeep = Upkeep(context.namespace)
        garbage, containers = self._garbage, context.containers
        counts = {"windows": await garbage.drain(), **await self._upkeep.work()}
        await garbage.advance()
        asked = await containers.recover(garbage.refers, budget=self._config.ask_budget)
        rows = 0
        for _ in range(ROW_BATCHES):
            some = await garbage.reclaim()
            rows += some
            if not some:
                break
        counts["rows"] = rows
        counts |= await containers.collect(budget=self._config.copy_budget)
        repaired = await containers.repair(budget=self._config.copy_budget)
        counts["repaired_copies"] = repaired.written_copies
        idle = asked and not any(counts.values())
        counts["unreadable_manifests"], garbage.unreadable = garbage.unreadable, 0
        return Report(counts, idle)
