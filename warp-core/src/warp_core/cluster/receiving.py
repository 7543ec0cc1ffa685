"""What other nodes may have of this one over a link: the domains that are at home here, and the stores that it exports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from warp_core.cluster.home import Homes
from warp_core.cluster.rows import member_key
from warp_core.errors import InvalidArgument, PermissionDenied, RemoteProtocolError, Unavailable
from warp_core.forward import Forwarder, Views
from warp_core.forward.messages import is_greeting
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import Allocate, Link, Message
from warp_core.logs import get
from warp_core.views.commands import Commands

if TYPE_CHECKING:
    from warp_core.node.stack import Stack

log = get("warp_core.cluster")

LOOK_S = 0.5  # how often it is checked that what sessions use is still open here

Serve = Callable[[Link], Awaitable[None]]


class Receiver:
    """Serves the domains of this node to the members of the cluster. Use it as a context manager."""

    def __init__(self, homes: Homes, commands: Callable[[Stack], Commands]) -> None:
        """Take who knows the homes, and what makes the commands of a stack."""
        self._homes = homes
        self._commands = commands
        self._forwarder = Forwarder(self._admitted)
        self._serving: dict[str, Stack] = {}  # target → what its sessions use
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Receiver:
        self._looking = asyncio.create_task(self._look(), name="sessions of other nodes")
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._forwarder.end()

    async def serve(self, link: Link) -> None:
        """Serve a link whose first message asks for a domain."""
        await self._forwarder.serve(link)

    async def _admitted(self, peer: str, target: str) -> Views:
        """Return the views of a domain that is at home here.

        Raises:
            PermissionDenied: The peer is no member of the cluster.
            Unavailable: The domain has another home.
        """
        view = self._homes.shared.view()
        try:
            member = await view.get(member_key(peer))
        finally:
            view.close()
        if member is None:
            raise PermissionDenied(f'node "{peer}" is no member of the cluster')
        try:
            domain = int(target)
        except ValueError:
            raise InvalidArgument(f"domain {target!r}") from None
        stack = self._homes.local.get(domain)
        if stack is None:
            raise Unavailable(f'domain {domain} is not at home at node "{self._homes.node}"')
        await self._end_others(target, stack)
        self._serving[target] = stack
        return Views(stack.objects, stack.files, stack.blocks, self._commands(stack))

    async def _end_others(self, target: str, stack: Stack | None) -> None:
        """End sessions that use an earlier stack of a domain."""
        before = self._serving.get(target)
        if before is not None and before is not stack:
            del self._serving[target]
            await self._forwarder.end(target)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            local = self._homes.local
            for target in list(self._serving):
                await self._end_others(target, local.get(int(target)))


async def divided(link: Link, stores: Serve, domains: Serve) -> None:
    """Serve a link by what its first message asks for: an exported store, or a domain."""
    try:
        first = await link.receive()
    except RemoteProtocolError as error:
        log.warning("a peer's link is ended", peer=link.peer, reason=str(error))
        await link.close()
        return
    except Unavailable:
        await link.close()
        return
    begun = _Begun(link, first)
    await (domains if is_greeting(first.header) else stores)(begun)


class _Begun(Link):
    """A link whose first message was looked at."""

    def __init__(self, link: Link, first: Message) -> None:
        self.peer = link.peer
        self._link = link
        self._first: Message | None = first

    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        await self._link.send(header, payload)

    async def receive(self, allocate: Allocate | None = None) -> Message:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._link.receive(allocate)

    async def close(self) -> None:
        await self._link.close()
