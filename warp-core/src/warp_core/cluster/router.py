"""The router: which home a verb goes to, and what it goes through.

A volume's name leads to its domain, the domain to its home: the stack in this process, or a line to another node. What is
known of both may be out of date, and is looked up anew where a home cannot be reached or does not know the volume. A verb is
sent twice only if it did not leave the first time, or changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from warp_core.cluster.home import Holder, Homes
from warp_core.cluster.lines import Lines
from warp_core.errors import Unavailable, VolumeNotFound
from warp_core.forward import Views
from warp_core.namespace.volumes import SNAPSHOT_MARK

if TYPE_CHECKING:
    from warp_core.node.stack import Stack

PATIENCE_S = (
    5.0  # a domain that moves has a new home within a lease's time; clients wait longer than that
)
AGAIN_S = 0.1  # between looks for it
KNOWN_MAX = 100_000  # names; then all are asked for again

T = TypeVar("T")


class Router:
    """Finds views."""

    def __init__(self, homes: Homes, lines: Lines, *, patience_s: float = PATIENCE_S) -> None:
        """Take who knows the homes, what leads to those elsewhere, and how long one that moves is waited for."""
        self._patience_s = patience_s
        self._looking: dict[int, asyncio.Task[Holder]] = {}
        self.homes = homes
        self.lines = lines
        self._known: dict[str, int] = {}  # what was found once, for answers at once

    def local_now(self, volume: str) -> Stack | None:
        """Return the stack of a volume if it is in this process and that is known without asking."""
        domain = self._known.get(volume)
        return None if domain is None else self.homes.local.get(domain)

    async def domain_of(self, volume: str, *, fresh: bool = False) -> int:
        """Return the domain of a volume, or of a snapshot of one by the name VOLUME.snap-NAME.

        Raises:
            VolumeNotFound: No domain has it.
            Unavailable: Nobody can be asked.
        """
        domain = await self.homes.domain_of(volume, fresh=fresh)
        if domain is None and SNAPSHOT_MARK in volume:
            domain = await self.homes.domain_of(volume.partition(SNAPSHOT_MARK)[0], fresh=fresh)
        if domain is None:
            self._known.pop(volume, None)
            raise VolumeNotFound(f"no volume {volume!r}")
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
        self._known[volume] = domain
        return domain

    def forget(self, volume: str) -> None:
        """Look a volume up anew next time."""
        self._known.pop(volume, None)
        self.homes.forget(volume)

    async def views(self, domain: int, *, patience_s: float | None = None) -> tuple[Views, Holder]:
        """Return the views of a domain, of a home that is there; while it moves, it is waited for.

        Raises:
            Unavailable: It has none, or it cannot be reached, for longer than `patience_s` (default: the router's).
        """
        loop = asyncio.get_running_loop()
        holder = await self.homes.holder_of(domain)
        until = loop.time() + (self._patience_s if patience_s is None else patience_s)
        while True:
            try:
                return await self._reached(holder), holder
            except Unavailable:
                if loop.time() > until:
                    raise
            holder = await self._looked_up(domain)

    async def _looked_up(self, domain: int) -> Holder:
        """Look a home up anew, a moment later; those who wait for the same one look together."""
        looking = self._looking.get(domain)
        if looking is None:
            looking = self._looking[domain] = asyncio.create_task(self._look(domain))
            looking.add_done_callback(lambda task: self._looking.pop(domain, None))
        return await asyncio.shield(looking)

    async def _look(self, domain: int) -> Holder:
        await asyncio.sleep(AGAIN_S)
        return await self.homes.holder_of(domain, fresh=True)

    async def _reached(self, holder: Holder) -> Views:
        if holder.local is not None:
            return views_of(holder.local)
        if holder.name == self.homes.node:
            raise Unavailable(
                f"domain {holder.domain} is not open here: its lease was lost, or it is about to open"
            )
        home = self.lines.to(holder)
        await home.line.session()
        return home.views

    async def do(
        self, volume: str, verb: Callable[[Views], Awaitable[T]], *, changes: bool = True
    ) -> T:
        """Do a verb of a volume at its home; one that does not change anything is done again where the first home was none."""
        domain = await self.domain_of(volume)
        views, holder = await self.views(domain)
        try:
            return await verb(views)
        except VolumeNotFound:
            self.forget(volume)
            if await self.domain_of(volume, fresh=True) == domain:
                raise
        except Unavailable:
            if changes or await self.homes.holder_of(domain, fresh=True) == holder:
                raise
        views, _ = await self.views(await self.domain_of(volume))
        return await verb(views)

    async def each(
        self, verb: Callable[[Views], Awaitable[T]], *, patience_s: float | None = None
    ) -> dict[int, T | Unavailable]:
        """Do a verb that changes nothing at the homes of all domains; return what each answered, or why it did not."""

        async def one(domain: int) -> T | Unavailable:
            try:
                views, _ = await self.views(domain, patience_s=patience_s)
                return await verb(views)
            except Unavailable as error:
                return error

        domains = self.homes.domains()
        answers = await asyncio.gather(*(one(domain) for domain in domains))
        return dict(zip(domains, answers, strict=True))


def views_of(stack: Stack) -> Views:
    """Return the views of a stack in this process."""
    return Views(stack.objects, stack.files, stack.blocks)
