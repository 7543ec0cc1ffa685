"""Leases: a row each, by the server's clock, whose token grows with every grant."""

from __future__ import annotations

import asyncio
from typing import Any

from warp_core.errors import Fenced, InvalidArgument, Locked
from warp_core.interfaces.consistency import Lease

from warp_postgres.schema import Statements
from warp_postgres.server import Line, Server

NAME_MAX = 480  # bytes, as keys
TTL_MAX_S = 86_400.0  # a lease is renewed; what lasts longer is a row


class Leases:
    """Grants, renews and ends leases, one at a time, over a connection of its own."""

    def __init__(self, server: Server, statements: Statements) -> None:
        self._server = server
        self._statements = statements
        self._line = Line(server, writes=True)
        self._turn = asyncio.Lock()

    async def grant(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        if not 0 < ttl_s <= TTL_MAX_S:
            raise InvalidArgument(f"lease of {ttl_s} s: above 0 and at most {TTL_MAX_S:g}")
        for text in (name, holder):
            if not text or "\0" in text or len(text.encode()) > NAME_MAX:
                raise InvalidArgument(
                    f"lease {text!r}: 1 to {NAME_MAX} bytes without NUL are needed"
                )
        # Granting again to the same holder after a lost answer fences the token that nobody heard of.
        rows = await self._ask(self._statements.grant, name, holder, ttl_s)
        if not rows:
            held = await self._ask(self._statements.holder, name)
            raise Locked(f'lease "{name}" is held by "{held[0][0] if held else "?"}"')
        return Lease(name, holder, rows[0][0], ttl_s)

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        if not await self._ask(self._statements.renew, lease.name, lease.token, lease.ttl_s):
            raise Fenced(f'lease "{lease.name}" with token {lease.token} ended')
        return lease

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        await self._ask(self._statements.release, lease.name, lease.token)

    async def _ask(self, statement: str, *arguments: object) -> list[Any]:
        deadline_s = asyncio.get_running_loop().time() + self._server.timeout_s
        async with self._turn:
            return await self._line.retried(
                lambda: self._line.fetch(statement, arguments, deadline_s), deadline_s
            )

    async def close(self) -> None:
        """End the connection."""
        await self._line.close()
