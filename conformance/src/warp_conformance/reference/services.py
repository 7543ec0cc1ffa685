"""A service that hands garbage rows to the containers, a few in each pass."""

from __future__ import annotations

from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import ObjectInfo

BATCHES = 3  # of garbage rows in a pass


class Sweep(Service):
    """Reclaims what nothing refers to."""

    interval_s = 1.0

    def __init__(self, context: ServiceContext) -> None:
        self.passes = 0

    async def work(self, context: ServiceContext) -> Report:
        """Do one pass."""
        self.passes += 1
        counts = await self.sweep(Garbage(context.namespace))
        return self.report(counts)

    async def sweep(self, garbage: Garbage) -> dict[str, int]:
        """Reclaim some rows."""
        counts = {"windows": await garbage.drain(), "rows": 0}
        await garbage.advance()
        for _ in range(BATCHES):
            some = await garbage.reclaim()
            counts["rows"] += some
            if not some:
                break
        return counts

    def report(self, counts: dict[str, int]) -> Report:
        """Say what was done."""
        return Report(counts, idle=not any(counts.values()))


async def first_object(context: ServiceContext) -> tuple[NamespaceObjects, str, ObjectInfo] | None:
    """Return some live object, for faults to harm."""
    objects = NamespaceObjects(context.namespace)
    for volume in await objects.volumes():
        for info in (await objects.list(volume.name)).entries:
            if info.size:
                return objects, volume.name, info
    return None
