"""What goes wrong in a run, when, and for how long: drawn from the seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from warp_core.cluster.domains import remove
from warp_core.errors import NotFound, WarpError

from warp_conformance.simulation.disks import Medium
from warp_conformance.simulation.machine import Died, Machine
from warp_conformance.simulation.network import Network
from warp_conformance.simulation.scenario import Fault
from warp_conformance.simulation.world import World

CLOCK_JUMPS_S = (-7200.0, -3600.0, -1.0, 0.5, 3600.0, 86_400.0)


class Troubles:
    """Makes faults until it is told to stop."""

    def __init__(
        self,
        world: World,
        network: Network,
        machines: Mapping[str, Machine],
    ) -> None:
        self.world = world
        self.network = network
        self.machines = machines
        self.counts: dict[str, int] = {}

    async def run(self, number: int, fault: Fault, until: float) -> None:
        """Make one kind of fault again and again."""
        chance = self.world.chance(f"fault {number}")
        while True:
            await asyncio.sleep(chance.uniform(*fault.every_s))
            if self.world.now >= until:
                return
            self.counts[fault.kind] = self.counts.get(fault.kind, 0) + 1
            if fault.kind == "remove":
                await self._remove(self.machines[fault.node], until)
                return
            await self._make(fault, chance)

    async def _make(self, fault: Fault, chance: random.Random) -> None:
        machine = self.machines[fault.node]
        for_s = chance.uniform(*fault.for_s)
        if fault.kind == "kill":
            self.kill(machine)
            await asyncio.sleep(for_s)
            machine.start()
        elif fault.kind == "power":
            self.cut_power(machine)
            await asyncio.sleep(for_s)
            machine.power_on()
        elif fault.kind == "pause":
            machine.pause()
            await asyncio.sleep(for_s)
            machine.resume()
        elif fault.kind == "clock":
            machine.jump(chance.choice(CLOCK_JUMPS_S))
        elif fault.kind in ("disk", "stall", "full"):
            await self._disk(fault, chance, for_s)
        elif fault.kind == "reset":
            broken = self.network.break_links(fault.node, fault.other)
            self.world.note("network", f"{broken} ends between {fault.node}, {fault.other} reset")
        else:
            await self._cut(fault, chance, for_s)

    async def _remove(self, machine: Machine, until: float) -> None:
        """Lose a machine for good, and tell the others until they believe it: they refuse as long as only that one has something."""
        machine.gone = True
        self.cut_power(machine)
        while self.world.now < until:
            await asyncio.sleep(0.5)
            for other in self.machines.values():
                process, keeper = other.process, other.keeper
                if process is None or keeper is None:
                    continue
                shared = keeper.shared
                try:
                    await other.ask_process(process, lambda s=shared: remove(s, machine.name))  # type: ignore[misc]
                except NotFound:  # an attempt whose answer was lost did it
                    pass
                except (Died, WarpError) as error:
                    self.world.note(other.name, f"does not remove {machine.name}: {error!r}")
                    continue
                self.world.note(other.name, f"removed {machine.name}")
                return

    def kill(self, machine: Machine) -> None:
        """Kill a node's process, if there is one."""
        if machine.process is not None:
            machine.kill()

    def cut_power(self, machine: Machine) -> None:
        """Cut a machine's power."""
        if machine.powered:
            machine.cut_power()

    async def _disk(self, fault: Fault, chance: random.Random, for_s: float) -> None:
        machine = self.machines[fault.node]
        media: list[Medium] = list(machine.exported.values() if fault.exported else machine.media)
        medium = chance.choice(media)
        if fault.kind == "stall":
            medium.stalled_until = self.world.now + for_s
            medium.note(f"stalls for {for_s:.3f} s")
            await asyncio.sleep(for_s)
            return
        if fault.kind == "full":
            capacity, medium.capacity = medium.capacity, medium.used + fault.room
            medium.note(f"is filled for {for_s:.3f} s")
            await asyncio.sleep(for_s)
            medium.capacity = capacity
            medium.note("has room again")
            return
        medium.failing = frozenset(fault.calls)
        medium.note(f"fails: {', '.join(fault.calls)}")
        await asyncio.sleep(for_s)
        medium.failing = frozenset()
        medium.note("works again")

    async def _cut(self, fault: Fault, chance: random.Random, for_s: float) -> None:
        ways = [(fault.node, fault.other), (fault.other, fault.node)]
        if fault.kind == "cut one way":
            ways = [chance.choice(ways)]
        for source, target in ways:
            self.network.cut(source, target)
            self.world.note("network", f"{source} -> {target} cut")
        await asyncio.sleep(for_s)
        for source, target in ways:
            self.network.mend(source, target)
            self.world.note("network", f"{source} -> {target} mended")
