"""Background services: each works in short passes, as long as the node runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from warp_core.errors import WarpError
from warp_core.interfaces.services import Service, ServiceContext
from warp_core.logs import get

FAILED_S = (
    5.0  # after a pass that failed, doubled up to FAILED_MAX_S: what is broken stays so a while
)
FAILED_MAX_S = 300.0

log = get("warp_core.node")


@asynccontextmanager
async def running(
    services: Iterable[tuple[str, Service]], context: ServiceContext
) -> AsyncIterator[None]:
    """Run services while the block lasts; a pass under way is cancelled at its end."""
    tasks = [
        asyncio.create_task(_run(name, service, context), name=f"service {name}")
        for name, service in services
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(name: str, service: Service, context: ServiceContext) -> None:
    await asyncio.sleep(service.interval_s * random.random())  # so that they do not work in step
    async with service:
        await _repeat(name, service, context)


async def _repeat(name: str, service: Service, context: ServiceContext) -> None:
    passes = context.metrics.counters(
        "warp_service_passes_total", "Passes of background services", labels=("service", "result")
    )
    done = context.metrics.counters(
        "warp_service_work_total", "What background services did", labels=("service", "what")
    )
    wait_s = FAILED_S
    while True:
        try:
            report = await service.work(context)
        except Exception as error:
            passes.labels(name, "failed").add()
            if isinstance(error, WarpError):
                log.warning("service failed", service=name, error=str(error), again_in_s=wait_s)
            else:
                log.exception("service failed", error, service=name, again_in_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, FAILED_MAX_S)
            continue
        wait_s = FAILED_S
        passes.labels(name, "done").add()
        for what, count in report.counts.items():
            if count:
                done.labels(name, what).add(count)
        # A service that has more to do comes again at once, but lets others in between.
        await asyncio.sleep(service.interval_s if report.idle else 0)
