"""Open containers for streams: each is written by one stream at a time, and handed on until it is full.

They are kept apart by how they are kept: (copies, number of the place).
"""

from __future__ import annotations

from contextlib import suppress

from warp_core.containers.appender import OpenContainer
from warp_core.containers.fleet import Fleet
from warp_core.errors import WarpError

IDLE_MAX = 16  # open containers that wait for a stream, per way of keeping: as many as upload at once on a busy node
ROOM_MIN = 1024 * 1024  # a container with less room than this is sealed rather than handed on
NEARLY_FULL = 8  # one whose room is less than this part of it waits for a short stream…
NEARLY_FULL_MAX = 2  # …and only so many do: nothing in an open container can be freed


class Leases:
    """Gives out containers with room."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._idle: dict[tuple[int, int], list[OpenContainer]] = {}
        self._since_s: dict[int, float] = {}  # container of a place → since when it waits

    async def take(self, kept: tuple[int, int], need: int) -> OpenContainer:
        """Return a container with at least `need` bytes of room that nobody else writes to.

        Raises:
            Unavailable, NoSpace: As `OpenContainer.create`.
        """
        idle = self._idle.setdefault(kept, [])
        fitting = [one for one in idle if one.room >= need and len(one.entry.copies) >= one.enough]
        if fitting:
            chosen = min(fitting, key=lambda one: one.room)  # fill up what is nearly full
            idle.remove(chosen)
            self._since_s.pop(chosen.id, None)
            return chosen
        fresh = OpenContainer(self._fleet, *kept)
        await fresh.create()
        return fresh

    async def give_back(self, container: OpenContainer) -> None:
        """End a lease; what is linked in the container was synced. One that cannot be sealed now is sealed by the next start."""
        idle = self._idle.setdefault(container.kept, [])
        if (
            container.room >= ROOM_MIN
            and len(idle) < IDLE_MAX
            and len(container.entry.copies) >= container.enough
        ):
            idle.append(container)
            if container.kept[1]:
                self._since_s[container.id] = self._fleet.monotonic()
            limit = self._fleet.container_size // NEARLY_FULL
            full = sorted((one for one in idle if one.room < limit), key=lambda one: one.room)
            if len(full) > NEARLY_FULL_MAX:
                idle.remove(full[0])
                await self._seal(full[0])
        else:
            await self._seal(container)

    async def retire(self, container: int) -> None:
        """Seal a container that nobody writes to at the moment, so that what is dead in it can be freed."""
        for idle in self._idle.values():
            for one in idle:
                if one.id == container:
                    idle.remove(one)
                    await self._seal(one)
                    return

    async def settle(self, before_s: float) -> None:
        """Seal what belongs to a place and has waited since then, so that it can go there."""
        for container in [one for one, since_s in self._since_s.items() if since_s <= before_s]:
            await self.retire(container)

    async def _seal(self, container: OpenContainer) -> None:
        self._since_s.pop(container.id, None)
        with suppress(WarpError):
            await container.seal()

    async def close(self) -> None:
        """Seal every idle container."""
        for idle in self._idle.values():
            while idle:
                await self._seal(idle.pop())
