"""Faulty services."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import pytest
from warp_core.errors import Busy, StoreFailed
from warp_core.interfaces.auth import Principal
from warp_core.interfaces.services import Report, ServiceContext
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.objects import NamespaceObjects
from warp_core.views.objects import Attributes, Digests

from warp_conformance.kits.services import Make, ServiceKit, get
from warp_conformance.mutation import Faults
from warp_conformance.reference.services import Sweep, first_object

faults = Faults("services")


class OnService(ServiceKit):
    implementation: ClassVar[type[Sweep]] = Sweep

    @pytest.fixture
    def make(self) -> Make:
        return lambda context: self.implementation(context)


# Passes -------------------------------------------------------------------------------------------


@faults(OnService, "Service.work", "never-idle")
class IsNeverIdle(Sweep):
    def report(self, counts: dict[str, int]) -> Report:
        return Report(counts, idle=False)


@faults(OnService, "Service.work", "never-idle-with-versions")
class IsNeverIdleWithVersions(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        report = await super().work(context)
        volumes = await NamespaceObjects(context.namespace).volumes()
        return Report(
            report.counts, report.idle and all(one.versioning == "off" for one in volumes)
        )


@faults(OnService, "Service.work", "idle-by-turns")
class IsIdleByTurns(Sweep):
    def report(self, counts: dict[str, int]) -> Report:
        return Report(counts, idle=not any(counts.values()) and self.passes % 2 == 0)


@faults(OnService, "Service.work", "endless-pass")
class NeverEnds(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        report = await super().work(context)
        while report.idle:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return report


@faults(OnService, "Service.work", "fails-on-emptiness")
class FailsOnEmptiness(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        if await first_object(context) is None:
            raise StoreFailed("nothing to work on")
        return await super().work(context)


@faults(OnService, "Service.work", "works-once")
class WorksOnce(Sweep):
    done = False

    async def work(self, context: ServiceContext) -> Report:
        if self.done:
            raise Busy("done already")
        report = await super().work(context)
        self.done = report.idle
        return report


@faults(OnService, "Service.work", "blocks-the-loop")
class BlocksTheLoop(Sweep):
    async def sweep(self, garbage: Garbage) -> dict[str, int]:
        end = time.thread_time() + 0.3
        while time.thread_time() < end:
            pass
        return await super().sweep(garbage)


@faults(OnService, "Service.work", "negative-count")
class CountsBelowZero(Sweep):
    def report(self, counts: dict[str, int]) -> Report:
        return Report({**counts, "left": -1}, idle=not any(counts.values()))


@faults(OnService, "Service.work", "fractional-count")
class CountsFractions(Sweep):
    def report(self, counts: dict[str, int]) -> Report:
        return Report({**counts, "done": 0.5}, idle=not any(counts.values()))  # type: ignore[dict-item]


@faults(OnService, "Service.work", "count-without-a-name")
class CountsWithoutAName(Sweep):
    def report(self, counts: dict[str, int]) -> Report:
        return Report({**counts, "rows freed": 0}, idle=not any(counts.values()))


@faults(OnService, "Service.interval_s", "no-interval")
class HasNoInterval(Sweep):
    interval_s = 0.0


@faults(OnService, "Service.interval_s", "never-again")
class NeverComesAgain(Sweep):
    interval_s = float("inf")


# Harm ---------------------------------------------------------------------------------------------


@faults(OnService, "Service.work", "deletes-an-object")
class DeletesAnObject(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        found = await first_object(context)
        if found and self.passes == 2:
            await found[0].delete(found[1], found[2].key)
        return await super().work(context)


@faults(OnService, "Service.work", "deletes-old-versions")
class DeletesOldVersions(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        objects = NamespaceObjects(context.namespace)
        for volume in await objects.volumes():
            for info in (await objects.list_versions(volume.name)).entries:
                if not info.latest:
                    await objects.delete(volume.name, info.key, version=info.version)
                    break
        return await super().work(context)


@faults(OnService, "Service.work", "deletes-markers")
class DeletesMarkers(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        objects = NamespaceObjects(context.namespace)
        for volume in await objects.volumes():
            for info in (await objects.list_versions(volume.name)).entries:
                if info.marker:
                    await objects.delete(volume.name, info.key, version=info.version)
        return await super().work(context)


@faults(OnService, "Service.work", "changes-content")
class ChangesContent(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        found = await first_object(context)
        if found and self.passes == 1:
            objects, volume, info = found
            content = bytearray(await get(objects, info.key, volume=volume))
            content[len(content) // 2] ^= 1
            await objects.put(volume, info.key, content, info.attributes, Digests(etag=info.etag))
        return await super().work(context)


@faults(OnService, "Service.work", "touches-objects")
class TouchesObjects(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        found = await first_object(context)
        if found and self.passes == 1:
            objects, volume, info = found
            await objects.set_tags(volume, info.key, {"seen": "yes"})
        return await super().work(context)


@faults(OnService, "Service.work", "leaves-scratch-objects")
class LeavesScratch(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        found = await first_object(context)
        if found:
            await found[0].put(found[1], b".scratch", b"progress", Attributes(), Digests(etag="0"))
        return await super().work(context)


@faults(OnService, "Service.work", "leaves-a-volume")
class LeavesAVolume(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        objects = NamespaceObjects(context.namespace)
        if self.passes == 0 and await first_object(context):
            names = {one.name for one in await objects.volumes()}
            if "service-state" not in names:
                await objects.create_volume("service-state", owner=Principal("system", admin=True))
                await objects.put("service-state", b"state", b"x", Attributes(), Digests(etag="0"))
        return await super().work(context)


@faults(OnService, "Service.work", "lost-update")
class RewritesObjects(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        objects = NamespaceObjects(context.namespace)
        for volume in await objects.volumes():
            for info in (await objects.list(volume.name, prefix=b"busy")).entries:
                content = await get(objects, info.key, volume=volume.name)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await objects.put(
                    volume.name, info.key, content, Attributes(), Digests(etag=info.etag)
                )
        return await super().work(context)


# Stops --------------------------------------------------------------------------------------------


@faults(OnService, "Service.work", "swallows-cancellation")
class SwallowsCancellation(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        while True:
            try:
                await asyncio.sleep(0)
                return await super().work(context)
            except asyncio.CancelledError:
                await asyncio.sleep(3)


@faults(OnService, "Service.work", "stuck-after-cancellation")
class IsStuckAfterCancellation(Sweep):
    busy = False

    async def work(self, context: ServiceContext) -> Report:
        if self.busy:
            return Report({}, idle=False)
        self.busy = True
        await asyncio.sleep(0)
        report = await super().work(context)
        self.busy = False
        return report


@faults(OnService, "Service.work", "moves-in-two-steps")
class MovesInTwoSteps(Sweep):
    async def work(self, context: ServiceContext) -> Report:
        found = await first_object(context)
        if found:
            objects, volume, info = found
            content = await get(objects, info.key, volume=volume)
            await objects.delete(volume, info.key)
            await asyncio.sleep(0)
            await objects.put(volume, info.key, content, info.attributes, Digests(etag=info.etag))
        return await super().work(context)


@faults(OnService, "Service.work", "state-of-another-refused")
class RefusesAnothersState(Sweep):
    owners: ClassVar[list[tuple[object, Sweep]]] = []  # kept: an address would be used again

    async def work(self, context: ServiceContext) -> Report:
        space = context.namespace
        if not any(each is space for each, _ in self.owners):
            self.owners.append((space, self))
        if not any(each is space and owner is self for each, owner in self.owners):
            raise Busy("another one was at work here")
        return await super().work(context)


@faults(OnService, "Service.work", "leaked-task")
class LeaksATask(Sweep):
    leaked: ClassVar[list[Any]] = []

    async def work(self, context: ServiceContext) -> Report:
        self.leaked.append(asyncio.ensure_future(asyncio.sleep(30)))
        return await super().work(context)


@faults(OnService, "Service.work", "leaked-descriptor")
class LeaksADescriptor(Sweep):
    leaked: ClassVar[list[Any]] = []

    async def work(self, context: ServiceContext) -> Report:
        self.leaked.append(open("/dev/null"))  # noqa: SIM115, ASYNC230
        return await super().work(context)
