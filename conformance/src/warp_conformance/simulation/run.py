"""One run: machines are started, clients work while things go wrong, everything is mended, and what clients saw is judged."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgspec
from warp_core.cluster import domains
from warp_core.cluster.domains import Domain, Map
from warp_core.errors import WarpError
from warp_core.namespace.check import Check
from warp_core.node.stack import Stack

from warp_conformance.simulation.consensus import Client, Consensus
from warp_conformance.simulation.disk_clients import DiskClients
from warp_conformance.simulation.file_clients import FileClients
from warp_conformance.simulation.loop import Stuck
from warp_conformance.simulation.machine import Away, Died, Machine, Shape
from warp_conformance.simulation.network import Network
from warp_conformance.simulation.objects import ObjectClients
from warp_conformance.simulation.scenario import Scenario
from warp_conformance.simulation.troubles import Troubles
from warp_conformance.simulation.world import World

BACK_S = 60.0  # virtual: within this long after the last fault every node serves again
HEALED_S = 6.0  # virtual: several passes of upkeep
QUIET_S = 12.0  # virtual: what was on its way has arrived or been given up
LOOK_S = 0.05  # virtual: between two looks at who is the home
SHOWN = 60  # lines of the trace that a failure shows


class Report(msgspec.Struct, frozen=True):
    """What one run found. Two runs with the same digest were the same run, event by event."""

    scenario: str
    seed: int
    digest: str
    problems: list[str]
    virtual_s: float
    events: int
    counts: dict[str, int]
    took_s: float
    tail: list[str] = msgspec.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def simulate(
    name: str,
    scenario: Scenario,
    seed: int,
    *,
    plant: Callable[[ExitStack], None] | None = None,
    watch: Callable[[str], None] | None = None,
) -> Report:
    """Run a scenario with a seed, and report.

    Args:
        plant: Puts a bug into the code for as long as the stack that it gets is open.
        watch: Told each line of the trace.
    """
    began_s = time.process_time()
    world = World(seed)
    world.trace.watch = watch
    run = _Run(world, scenario)
    try:
        with ExitStack() as stack:
            if plant is not None:
                plant(stack)
            world.run(run.main)
    except Stuck as error:
        run.problems.append(f"stuck: {error}")
    except Exception as error:
        run.problems.append("broke: " + "".join(traceback.format_exception(error)))
    run.problems += [f"defect: {each}" for each in world.defects]
    run.problems += [f"not caught: {each}" for each in world.loop.errors]
    return Report(
        name,
        seed,
        world.trace.digest,
        run.problems,
        round(world.now, 6),
        world.trace.lines,
        run.counts(),
        round(time.process_time() - began_s, 3),
        list(world.trace.tail)[-SHOWN:] if run.problems else [],
    )


class _Run:
    def __init__(self, world: World, scenario: Scenario) -> None:
        self.world = world
        self.scenario = scenario
        self.problems: list[str] = []
        self.network = Network(world)
        self.consensus = Consensus(world, self.network)
        self.machines = {
            name: Machine(
                world,
                self.network,
                self.consensus,
                Shape(
                    name,
                    node.disks,
                    node.copies,
                    node.uses,
                    node.exports,
                    node.serves,
                    tuple(scenario.nodes) if scenario.cluster else (),
                ),
            )
            for name, node in scenario.nodes.items()
        }
        self.objects: list[ObjectClients] = []
        self.disks: list[DiskClients] = []
        for each in scenario.workload:
            asked = [self.machines[each.node]]
            if scenario.cluster:
                asked = list(self.machines.values())
            if each.kind == "disk":
                self.disks.append(
                    DiskClients(
                        world, asked, origin=each.node, volume=each.volume, clients=each.clients
                    )
                )
                continue
            kind = FileClients if each.kind == "files" else ObjectClients
            self.objects.append(
                kind(
                    world,
                    asked,
                    origin=each.node,
                    volume=each.volume,
                    redundancy=each.redundancy,
                    clients=each.clients,
                    keys=each.keys,
                    sizes=each.sizes,
                    versioning=each.versioning,
                    slow_s=each.slow_s,
                    anywhere=each.anywhere,
                )
            )
        self.troubles = Troubles(world, self.network, self.machines)

    @property
    def clients(self) -> list[ObjectClients | DiskClients]:
        """Everybody who works."""
        return [*self.objects, *self.disks]

    async def main(self) -> None:
        for machine in self.machines.values():
            machine.start()
        clients = self.clients
        async with asyncio.timeout(BACK_S):
            for each in clients:
                await each.prepare()
        until = self.world.now + self.scenario.load_s
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_homes(until))
            for each in clients:
                group.create_task(each.run(until))
            for number, fault in enumerate(self.scenario.fault):
                group.create_task(self.troubles.run(number, fault, until))
        try:
            async with asyncio.timeout(BACK_S):
                await self._settle()
        except TimeoutError:
            origins = dict.fromkeys(each.node for each in self.scenario.workload)
            machines = self.machines.values()
            waiting = [each for each in origins if all(one.home(each) is None for one in machines)]
            self.problems.append(
                f"{BACK_S} s after the last fault: not back, or not clean: {waiting}"
            )
        if not self.problems:
            await (self._lose_node() if self.scenario.cluster else self._lose_disks())
        for each in clients:
            self.problems += each.judge()

    async def _watch_homes(self, until: float) -> None:
        """Look again and again whether two machines would answer for the same volumes."""
        while self.world.now < until:
            await asyncio.sleep(LOOK_S)
            for origin in self.scenario.nodes:
                homes = [each.name for each in self.machines.values() if each.home(origin)]
                if len(homes) > 1:
                    self.problems.append(
                        f"at {self.world.now:.3f} s: {homes} are homes of {origin}"
                    )
                    return

    async def _settle(self) -> None:
        """Start everything anew, look at everything once more."""
        await asyncio.sleep(QUIET_S)
        if self.scenario.cluster:
            left = (await self._cluster()).left
            for machine in self.machines.values():
                machine.gone = machine.name in left  # the others may have refused
        for machine in self.machines.values():  # what only page caches have is lost here
            self.troubles.cut_power(machine)
        for objects in self.objects:
            objects.ended()
        for machine in self.machines.values():
            machine.power_on()
        for each in self.clients:
            await each.last_look()
        for origin in dict.fromkeys(each.node for each in self.scenario.workload):
            await self._check(origin)

    async def _cluster(self) -> Map:
        """Read what the nodes of a cluster agree on."""
        return await domains.read(Client(self.consensus, "observer"))

    async def _lose_node(self) -> None:
        """Lose one node of a cluster for good, once everything has two copies: the others have to have it all."""
        try:
            async with asyncio.timeout(BACK_S):
                while True:
                    await asyncio.sleep(LOOK_S)
                    if all(map(_has_two_copies, (await self._cluster()).domains.values())):
                        break
        except TimeoutError:
            known = await self._cluster()
            few = [n for n, each in known.domains.items() if not _has_two_copies(each)]
            self.problems.append(f"domains {few} have not two whole copies: {known.domains}")
            return
        lost = self.world.chance("lost").choice([m for m in self.machines.values() if not m.gone])
        lost.gone = True
        self.troubles.cut_power(lost)
        try:
            async with asyncio.timeout(BACK_S):
                for each in self.clients:
                    await each.last_look()
        except TimeoutError:
            self.problems.append(f"{BACK_S} s after {lost.name} was lost: not back")

    async def _lose_disks(self) -> None:
        """Lose one disk of each node that has a copy of everything on another one; what had copies has to be there."""
        for machine in self.machines.values():
            shape = machine.shape
            if not shape.serves or shape.copies < 2:
                continue
            media = [
                *machine.media,
                *(self.machines[other].exported[machine.name] for other in shape.uses),
            ]
            lost = self.world.chance(f"lost of {machine.name}").choice(media)
            kept = [
                each
                for each in self.clients
                if each.origin == machine.name and each.redundancy != "none"
            ]
            try:
                async with asyncio.timeout(BACK_S):
                    await self._until_copied(machine)
                    self.troubles.cut_power(machine)
                    lost.replace()
                    machine.power_on()
                    for each in kept:
                        await each.last_look()
            except TimeoutError:
                self.problems.append(f"{BACK_S} s after {lost.name} was lost: not back")

    async def _until_copied(self, machine: Machine) -> None:
        """Wait until a node has brought its copies up to date, as far as it does so by itself; the journal's come with a start."""
        while True:
            await asyncio.sleep(HEALED_S)
            stack = machine.running
            if stack is not None and all(copy.alive for copy in stack.journal.copies):
                return
            self.troubles.kill(machine)
            machine.start()

    async def _check(self, origin: str) -> None:
        async def check(node: Stack) -> list[str]:
            report = await Check(node.namespace, deep=True, progress=_nothing).run()
            return report.problems

        machine = next(each for each in self.machines.values() if each.home(origin) is not None)
        try:
            found = await machine.ask(origin, check)
        except (Away, Died, WarpError) as error:
            found = [f"cannot be checked: {error!r}"]
        self.problems += [f"fsck of {origin}: {each}" for each in found]

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in self.clients:
            for name, count in each.counts.items():
                found[name] = found.get(name, 0) + count
        found |= {f"fault {name}": count for name, count in sorted(self.troubles.counts.items())}
        found["starts"] = sum(machine.starts for machine in self.machines.values())
        media = [medium for machine in self.machines.values() for medium in machine.all_media]
        found["syncs"] = sum(medium.syncs for medium in media)
        found["sectors lost"] = sum(medium.lost_writes for medium in media)
        found["messages"] = self.network.delivered
        found["commits"] = self.consensus.rows.latest
        return found


def _has_two_copies(domain: Domain) -> bool:
    """Say whether everything acknowledged in a domain is with two nodes."""
    return len({kept.node for kept in domain.row.stores if kept.store in domain.whole}) >= 2


def _nothing(report: Any) -> None:
    return
