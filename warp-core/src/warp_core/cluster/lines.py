"""Lines to the homes of domains, one for each domain that is at home elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from warp_core.cluster.domains import Map
from warp_core.cluster.home import Holder
from warp_core.cluster.rows import MemberRow
from warp_core.errors import Unavailable, WarpError
from warp_core.forward import Line, RemoteBlocks, RemoteCommands, RemoteFiles, RemoteObjects, Views
from warp_core.interfaces.transports import Link, Transport

DIAL_S = 2.0  # a node of the same cluster answers in milliseconds, or is away
DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Home:
    """A home elsewhere: who it is, and its views."""

    holder: Holder
    line: Line
    views: Views


class Lines:
    """Opens lines when they are needed, and closes those to homes that are none any more."""

    def __init__(
        self,
        transport: Callable[[str], Awaitable[Transport]],
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Take the node's transports by name."""
        self._transport = transport
        self._deadline_s = deadline_s
        self._homes: dict[int, Home] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def to(self, holder: Holder) -> Home:
        """Return the home of a domain elsewhere; nothing is opened yet.

        Raises:
            Unavailable: Nobody is its home, or it is not known where.
        """
        if not holder.name or not holder.address:
            who = f'its last home "{holder.name}" is away' if holder.name else "it has no home"
            raise Unavailable(f"domain {holder.domain} cannot be reached: {who}")
        known = self._homes.get(holder.domain)
        if known is not None and _same(known.holder, holder):
            return known
        if known is not None:
            self._close(known.line)

        async def dial() -> Link:
            transport = await self._transport(holder.transport)
            return await transport.dial(holder.address, peer=holder.name, timeout_s=DIAL_S)

        line = Line(dial, peer=holder.name, target=str(holder.domain), deadline_s=self._deadline_s)
        views = Views(
            RemoteObjects(line), RemoteFiles(line), RemoteBlocks(line), RemoteCommands(line)
        )
        self._homes[holder.domain] = home = Home(holder, line, views)
        return home

    def follow(self, known: Map) -> None:
        """Close lines to homes that are none any more: who waits there for an answer, perhaps at a dead cable, need not."""
        for number, home in list(self._homes.items()):
            domain = known.domains.get(number)
            if domain is not None and domain.row.token > home.holder.token:
                del self._homes[number]
                self._close(home.line)

    async def answers(self, member: MemberRow, *, timeout_s: float) -> bool:
        """Say whether a node answers, now, at the address that it told."""
        if not member.address:
            return False
        try:
            transport = await self._transport(member.transport)
            link = await transport.dial(member.address, peer=member.name, timeout_s=timeout_s)
        except WarpError:
            return False
        await link.close()
        return True

    def _close(self, line: Line) -> None:
        task = asyncio.create_task(line.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all lines."""
        homes, self._homes = list(self._homes.values()), {}
        for home in homes:
            await home.line.close()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _same(one: Holder, other: Holder) -> bool:
    return (one.name, one.address, one.transport, one.token) == (
        other.name,
        other.address,
        other.transport,
        other.token,
    )
