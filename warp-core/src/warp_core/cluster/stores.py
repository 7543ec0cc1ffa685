"""The stores of domains as one node sees them: those that lie here, each behind a gate, and those that lie with others."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from warp_core.calls import Calls
from warp_core.config import Part
from warp_core.errors import NotFound, StoreFailed, Unavailable, WarpError
from warp_core.interfaces.stores import BlobStore, StoreCapabilities
from warp_core.interfaces.transports import Link, Transport
from warp_core.layers.metered import MeteredStore
from warp_core.metrics import Metrics
from warp_core.peers.gate import Gate
from warp_core.peers.messages import Reply
from warp_core.peers.store import PeerStore

SUPERBLOCK = "node/superblock"


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A store of some domain that lies here. While another node is that domain's home it goes through the gate."""

    export: str  # the name under which others ask for it
    store: BlobStore
    gate: Gate
    part: Part | None  # as configured; None in tests


class DomainPeer(PeerStore):
    """A store of a domain that lies with another node, which need not be there."""

    here = False  # it answered when it was opened
    reason = ""  # why not

    def __init__(
        self,
        dial: Callable[[], Awaitable[Link]],
        *,
        export: str,
        peer: str,
        store: str,
        fence: int,
        deadline_s: float,
    ) -> None:
        """Take how to reach it; `store` is its id, "" if it was never used."""
        super().__init__(dial, export=export, peer=peer, deadline_s=deadline_s, fence=fence)
        self.id = store

    async def __aenter__(self) -> Self:
        """Try to reach it; without success every call raises StoreFailed: whoever wants it again opens it anew."""
        try:
            await super().__aenter__()
        except WarpError as error:
            # What is written in its absence is never on it, so what it claims does not matter.
            self.capabilities = StoreCapabilities(durable=True, grow=True, punch=True)
            self.reason = str(error)
        else:
            self.here = True
        return self

    async def _link(self, *, bulk: bool) -> Calls[Reply]:
        """As `PeerStore._link`. One that was not here is not asked at every turn: a cable that is cut takes a second to say so."""
        if self.reason:
            raise Unavailable(self.reason)
        return await super()._link(bulk=bulk)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)


@dataclass(frozen=True, slots=True)
class Place:
    """How a peer's store is reached."""

    node: str
    address: str
    transport: str
    export: str
    deadline_s: float


class Peers:
    """Opens stores of other nodes."""

    def __init__(
        self,
        transport: Callable[[str], Awaitable[Transport]],
        metrics: Metrics,
        *,
        deadline_s: float,
    ) -> None:
        """Take the node's transports, and the longest time that a call may take."""
        self._transport = transport
        self._metrics = metrics
        self._deadline_s = deadline_s

    @asynccontextmanager
    async def open(
        self, place: Place, *, store: str, fence: int, dial_s: float = math.inf, away: str = ""
    ) -> AsyncIterator[tuple[DomainPeer, BlobStore]]:
        """Open one, whether it is here or not, within `dial_s`: bare, and as it is used. One that is `away` is not asked."""
        deadline_s = min(place.deadline_s, self._deadline_s)

        async def dial() -> Link:
            if away:
                raise Unavailable(away)
            transport = await self._transport(place.transport)
            timeout_s = min(deadline_s, dial_s)
            return await transport.dial(place.address, peer=place.node, timeout_s=timeout_s)

        bare = DomainPeer(
            dial,
            export=place.export,
            peer=place.node,
            store=store,
            fence=fence,
            deadline_s=deadline_s,
        )
        async with AsyncExitStack() as stack:
            metered = MeteredStore(bare, self._metrics, f"{place.node}/{place.export}")
            yield bare, await stack.enter_async_context(metered)


class _Superblock(msgspec.Struct, frozen=True):
    format: int
    node: str


async def check_superblock(store: BlobStore, identity: str) -> None:
    """See that a store is a domain's; one that nobody used becomes it.

    Raises:
        StoreFailed: It is another's.
    """
    data = b""
    with suppress(NotFound):
        data = await store.read(SUPERBLOCK, offset=0, length=4096)
    if not data:
        await store.put(SUPERBLOCK, [msgspec.json.encode(_Superblock(1, identity))])
        return
    try:
        found = msgspec.json.decode(data, type=_Superblock).node
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreFailed(f"the superblock of store {store.id} is damaged: {error}") from None
    if found != identity:
        raise StoreFailed(
            f"store {store.id} belongs to another node ({found[:8]}), not to the domain's ({identity[:8]})"
        )
