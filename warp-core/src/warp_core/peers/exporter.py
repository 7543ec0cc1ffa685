"""The side that has stores and lets named peers use them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from warp_core import logs
from warp_core.calls import answer_each
from warp_core.errors import (
    InvalidArgument,
    PermissionDenied,
    StoreFailed,
    TooLarge,
    Unsupported,
    WarpError,
)
from warp_core.interfaces.stores import BlobStore, Buffer
from warp_core.interfaces.transports import PAYLOAD_MAX, Link
from warp_core.peers.gate import Gate
from warp_core.peers.messages import (
    LIST_MAX,
    VERSION,
    Claim,
    Flag,
    Reply,
    Request,
    Verb,
    pack,
    read_request,
    refusal,
)

ANYONE = "*"
IN_FLIGHT = 64  # requests of one link that are worked on at once; more wait in the peer's send
PARTS_MAX = 256 * 1024 * 1024  # bytes of a link's puts that are not complete yet

_log = logs.get("warp_core.peers")


@dataclass(frozen=True, slots=True)
class Offer:
    """A store that peers may use; `to` names them, or is ANYONE where the transport proves no names."""

    store: BlobStore
    to: frozenset[str]
    gate: Gate | None = None  # of a store that one home after another uses


@dataclass(slots=True)
class _Session:
    """What is known of one link."""

    peer: str
    store: BlobStore | None = None
    gate: Gate | None = None
    fence: int = 0  # the token that it came with
    parts: dict[str, list[memoryview]] = field(default_factory=dict)
    parts_size: int = 0


Work = tuple[Reply, Sequence[Buffer]]


class Exporter:
    """Serves stores over links. `incarnation` is another one in each process: see `PeerStore`."""

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        """Take the stores, open, by the names that peers ask for."""
        self.incarnation = os.urandom(16).hex()
        self._offers = dict(offers)

    def offer(self, name: str, offer: Offer) -> None:
        """Let peers use another store from now on, or others use the one of that name."""
        self._offers[name] = offer

    @property
    def offers(self) -> Mapping[str, Offer]:
        """What peers may use, by name."""
        return self._offers

    async def serve(self, link: Link) -> None:
        """Answer the requests of one link until it ends; what is in progress then is finished."""
        session = _Session(link.peer)

        async def answer(header: bytes, payload: memoryview) -> None:
            await self._answer(link, session, read_request(header), payload)

        await answer_each(link, answer, at_once=IN_FLIGHT, log=_log)

    async def _answer(
        self, link: Link, session: _Session, request: Request, payload: memoryview
    ) -> None:
        content: Sequence[Buffer] = ()
        try:
            reply, content = await self._do(session, request, payload)
            answer = pack(reply)
        except WarpError as error:
            answer = pack(refusal(request.id, error))
        except Exception as error:
            _log.exception("a request of a peer failed", error, peer=link.peer, verb=request.verb)
            answer = pack(refusal(request.id, error))
        try:
            await link.send(answer, content)
        except WarpError as error:
            _log.info("a reply found no link", peer=link.peer, reason=str(error))

    async def _do(self, session: _Session, request: Request, payload: memoryview) -> Work:
        if request.verb == Verb.HELLO:
            return await self._hello(session, request)
        if session.gate is not None:
            with session.gate.passing(session.fence):
                return await self._work(session, request, payload)
        return await self._work(session, request, payload)

    async def _work(self, session: _Session, request: Request, payload: memoryview) -> Work:
        if session.store is None:
            raise InvalidArgument("no store was asked for")
        if request.token and request.verb in _PROMISED and request.token != self.incarnation:
            raise StoreFailed(
                f"{request.name}: the node started anew since it was written to; what was not synced may be lost"
            )
        if request.verb == Verb.WRITE:
            await _write(session.store, request, payload)
            return Reply(request.id, token=self.incarnation), ()
        handler = _HANDLERS.get(request.verb)
        if handler is None:
            raise Unsupported(f"verb {request.verb}")
        return await handler(session, session.store, request, payload)

    async def _hello(self, session: _Session, request: Request) -> Work:
        if request.offset != VERSION:
            raise Unsupported(f"version {request.offset} of the peers' protocol, this is {VERSION}")
        offer = self._offers.get(request.name)
        if offer is None or not ({session.peer, ANYONE} & offer.to):
            # The same answer for both: who may not use a store need not learn that it exists.
            _log.warning("export refused", peer=session.peer, export=request.name)
            raise PermissionDenied(f'no store "{request.name}" for node "{session.peer}"')
        if offer.gate is not None:
            session.fence = _fence(request.token)
            await offer.gate.admit(session.fence)
            session.gate = offer.gate
        claims = offer.store.capabilities
        flags = (
            (Claim.DURABLE if claims.durable else 0)
            | (Claim.GROW if claims.grow else 0)
            | (Claim.PUNCH if claims.punch else 0)
        )
        session.store = offer.store
        return Reply(request.id, "", offer.store.id, self.incarnation, flags, (VERSION,)), ()


def _fence(token: str) -> int:
    if not token:
        return 0
    if not token.isdecimal() or len(token) > 20:
        raise InvalidArgument("the greeting's token is no number")
    return int(token)


Handler = Callable[[_Session, BlobStore, Request, memoryview], Awaitable[Work]]


async def _put(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    parts = session.parts.pop(request.token, [])
    session.parts_size -= sum(map(len, parts))
    if len(parts) != request.offset:
        raise InvalidArgument(f"{len(parts)} parts came before, not {request.offset}")
    await store.put(request.name, [*parts, payload], vital=bool(request.flags & Flag.VITAL))
    return Reply(request.id), ()


async def _part(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    if session.parts_size + len(payload) > PARTS_MAX:
        raise TooLarge(f"more than {PARTS_MAX} bytes of puts that are not complete")
    session.parts.setdefault(request.token, []).append(payload)
    session.parts_size += len(payload)
    return Reply(request.id), ()


async def _read(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    if request.length > PAYLOAD_MAX:
        raise TooLarge(f"a read of {request.length} bytes > {PAYLOAD_MAX}")
    data: Buffer | None = store.read_now(request.name, offset=request.offset, length=request.length)
    if data is None:
        data = await store.read(request.name, offset=request.offset, length=request.length)
    return Reply(request.id), (data,)


async def _delete(
    session: _Session, store: BlobStore, request: Request, payload: memoryview
) -> Work:
    await store.delete(request.name)
    return Reply(request.id), ()


async def _list(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    limit = min(request.length, LIST_MAX)
    found = await store.list(request.name, after=request.token, limit=limit)
    return Reply(
        request.id, infos=tuple((each.name, each.size, each.allocated) for each in found)
    ), ()


async def _stat(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    found = await store.stat(request.name)
    return Reply(request.id, infos=((found.name, found.size, found.allocated),)), ()


async def _space(
    session: _Session, store: BlobStore, request: Request, payload: memoryview
) -> Work:
    total, free, reserve = map(int, await store.space())
    return Reply(request.id, numbers=(total, free, reserve)), ()


async def _create(
    session: _Session, store: BlobStore, request: Request, payload: memoryview
) -> Work:
    await store.create(
        request.name,
        reserve=request.length,
        recycle=bool(request.flags & Flag.RECYCLE),
        vital=bool(request.flags & Flag.VITAL),
    )
    return Reply(request.id), ()


async def _write(store: BlobStore, request: Request, payload: memoryview) -> None:
    await store.write(
        request.name,
        offset=request.offset,
        buffers=[payload],
        sync=bool(request.flags & Flag.SYNC),
    )


async def _sync(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    await store.sync(request.name)
    return Reply(request.id), ()


async def _seal(session: _Session, store: BlobStore, request: Request, payload: memoryview) -> Work:
    await store.seal(request.name, size=request.length)
    return Reply(request.id), ()


async def _punch(
    session: _Session, store: BlobStore, request: Request, payload: memoryview
) -> Work:
    await store.punch(request.name, offset=request.offset, length=request.length)
    return Reply(request.id), ()


_PROMISED = frozenset({Verb.WRITE, Verb.SYNC, Verb.SEAL})
_HANDLERS: Mapping[int, Handler] = {
    Verb.PUT: _put,
    Verb.PART: _part,
    Verb.READ: _read,
    Verb.DELETE: _delete,
    Verb.LIST: _list,
    Verb.STAT: _stat,
    Verb.SPACE: _space,
    Verb.CREATE: _create,
    Verb.SYNC: _sync,
    Verb.SEAL: _seal,
    Verb.PUNCH: _punch,
}
