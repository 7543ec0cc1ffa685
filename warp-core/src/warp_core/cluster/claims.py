"""Claims of a whole cluster: a client of a protocol becomes one at each home whose volumes it uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from warp_core.cluster.router import Router
from warp_core.errors import StaleHandle, WarpError
from warp_core.forward import Views
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner, Range
from warp_core.namespace.shares import HERE
from warp_core.views.claims import LOCK_END, Claims, Recalled, Tell
from warp_core.views.files import Ref


@dataclass(slots=True)
class _Client:
    """One client, and its ids at the homes where it is one, by their claims."""

    id: int
    name: str
    ttl_s: float | None
    tell: Tell | None
    gone: Callable[[], None] | None
    at: WeakKeyDictionary[Claims, int] = field(default_factory=WeakKeyDictionary)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class RoutedClaims(Claims):
    """See the module. Client ids are this node's own."""

    def __init__(self, router: Router) -> None:
        """Take the router."""
        self._router = router
        self._clients: dict[int, _Client] = {}
        self._ids = count(HERE + 1)

    async def owner_at(self, views: Views, owner: Any) -> Any:
        """Return an owner as a home knows it; what is no owner stays as it is.

        Raises:
            StaleHandle: Its client is gone.
        """
        if not isinstance(owner, Owner) or owner.client == HERE:
            return owner
        return owner._replace(client=await self._id_at(views.files.claims, owner.client))

    def _client(self, client: int) -> _Client:
        try:
            return self._clients[client]
        except KeyError:
            raise StaleHandle(f"client {client} is gone") from None

    async def _id_at(self, claims: Claims, client: int) -> int:
        known = self._client(client)
        async with known.turn:
            if claims not in known.at:
                tell = None if known.tell is None else _telling(known.tell, known.id)

                def lost(claims: Claims = claims) -> None:
                    known.at.pop(claims, None)
                    if known.gone is not None:
                        known.gone()

                known.at[claims] = await claims.add_client(
                    known.name, ttl_s=known.ttl_s, tell=tell, gone=lost
                )
            return known.at[claims]

    def _owner_here(self, claims: Claims, owner: Owner) -> Owner:
        """Return the owner of a range that another holds, as this node knows it; a stranger keeps a number that is nobody's here."""
        for known in self._clients.values():
            if known.at.get(claims) == owner.client:
                return owner._replace(client=known.id)
        return owner if owner.client == HERE else owner._replace(client=-owner.client)

    async def add_client(
        self,
        name: str,
        *,
        ttl_s: float | None = None,
        tell: Tell | None = None,
        gone: Callable[[], None] | None = None,
    ) -> int:
        """As `Claims.add_client`; the homes learn of it when it uses their volumes.

        After `gone` the client lives on, and becomes one again at the home whose session ended.
        """
        client = _Client(next(self._ids), name, ttl_s, tell, gone)
        self._clients[client.id] = client
        return client.id

    async def renew(self, client: int) -> None:
        """As `Claims.renew`, everywhere."""
        for claims, number in list(self._client(client).at.items()):
            await claims.renew(number)

    async def drop_client(self, client: int) -> None:
        """As `Claims.drop_client`; a home that is away drops it by itself."""
        known = self._clients.pop(client, None)
        for claims, number in list(known.at.items()) if known is not None else ():
            try:
                await claims.drop_client(number)
            except WarpError:
                continue

    async def lock(
        self,
        file: Ref,
        owner: Owner,
        start: int,
        end: int,
        *,
        exclusive: bool,
        wait: bool = False,
        cacher: Owner | None = None,
        reclaim: bool = False,
    ) -> None:
        """As `Claims.lock`."""

        async def verb(views: Views) -> None:
            await views.files.claims.lock(
                file,
                await self.owner_at(views, owner),
                start,
                end,
                exclusive=exclusive,
                wait=wait,
                cacher=await self.owner_at(views, cacher),
                reclaim=reclaim,
            )

        await self._router.do(file.volume, verb)

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, end: int, *, exclusive: bool
    ) -> Range | None:
        """As `Claims.test_lock`."""

        async def verb(views: Views) -> Range | None:
            claims = views.files.claims
            mine = await self.owner_at(views, owner)
            found = await claims.test_lock(file, mine, start, end, exclusive=exclusive)
            return found and found._replace(owner=self._owner_here(claims, found.owner))

        return await self._router.do(file.volume, verb, changes=False)

    async def unlock(self, file: Ref, owner: Owner, start: int = 0, end: int = LOCK_END) -> None:
        """As `Claims.unlock`."""

        async def verb(views: Views) -> None:
            await views.files.claims.unlock(file, await self.owner_at(views, owner), start, end)

        await self._router.do(file.volume, verb, changes=False)

    async def unlock_all(self, file: Ref, owner: Owner) -> None:
        """As `Claims.unlock_all`."""

        async def verb(views: Views) -> None:
            await views.files.claims.unlock_all(file, await self.owner_at(views, owner))

        await self._router.do(file.volume, verb, changes=False)

    async def lease(
        self,
        file: Ref,
        owner: Owner,
        kinds: Kind,
        *,
        reclaim: bool = False,
        beside_writers: bool = False,
    ) -> Kind:
        """As `Claims.lease`."""

        async def verb(views: Views) -> Kind:
            mine = await self.owner_at(views, owner)
            return await views.files.claims.lease(
                file, mine, kinds, reclaim=reclaim, beside_writers=beside_writers
            )

        return await self._router.do(file.volume, verb)

    async def give_back(self, file: Ref, owner: Owner, keep: Kind | None = None) -> None:
        """As `Claims.give_back`."""

        async def verb(views: Views) -> None:
            await views.files.claims.give_back(file, await self.owner_at(views, owner), keep)

        await self._router.do(file.volume, verb)

    async def reclaimed(self, volume: str, client: int) -> None:
        """As `Claims.reclaimed`."""

        async def verb(views: Views) -> None:
            claims = views.files.claims
            await claims.reclaimed(volume, await self._id_at(claims, client))

        await self._router.do(volume, verb)


def _telling(tell: Tell, client: int) -> Tell:
    def told(recalled: Recalled) -> None:
        tell(recalled._replace(owner=recalled.owner._replace(client=client)))

    return told
