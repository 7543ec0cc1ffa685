"""What a session holds at the home, and how its verbs are done there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from warp_core import logs
from warp_core.errors import Busy, InvalidArgument, StaleHandle, TooLarge, Unsupported, WarpError
from warp_core.forward.messages import RECALLED, RESIZED, SMALL, Reply, Request, lengths_of
from warp_core.forward.verbs import OPENED, VERBS, Travelling, Verb, pack_value
from warp_core.interfaces.stores import Buffer
from warp_core.namespace.leases import Kind
from warp_core.namespace.locks import Owner
from warp_core.namespace.shares import HERE
from warp_core.views.blocks import Blocks, Disk
from warp_core.views.claims import Claims, Recalled
from warp_core.views.commands import Commands
from warp_core.views.files import Files, OpenFile, Ref
from warp_core.views.objects import Objects, Reader, Writer

HANDLES_MAX = 16_384  # open at once in one session: connections of one node, with room
STAGED_MAX = 32 << 20  # bytes of content that waits for its request
EVENTS_MAX = 1_024  # resizes and recalls on their way; a peer that takes none is silent, and its session ends

Opened = Reader | Writer | Disk | OpenFile


class _NoCommands(Commands):
    async def run(self, verb: str, arguments: bytes) -> bytes:
        raise Unsupported(f"{verb} is not for other nodes")


NONE = _NoCommands()

_log = logs.get("warp_core.forward")
_stamps = count(1)


@dataclass(frozen=True, slots=True)
class Views:
    """What a peer may use."""

    objects: Objects
    files: Files
    blocks: Blocks
    commands: Commands = NONE  # where there are some


@dataclass(slots=True)
class _Handle:
    """One thing that is open for a peer. `turn` keeps a writer's pieces in order."""

    thing: Opened
    view: str  # the verbs that it takes
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    failed: WarpError | None = None
    listening: asyncio.Task[None] | None = None


class Held:
    """Views, handles and clients of one session."""

    def __init__(self, views: Views, peer: str) -> None:
        """Begin with nothing open."""
        self.peer = peer
        self.tell: Callable[[Reply], Awaitable[None]]
        self._views = views
        self._handles: dict[int, _Handle] = {}
        self._numbers = count(1)
        self._claims = _Claims(self, views.files.claims)
        self._staged: dict[int, list[memoryview]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._closed = False

    async def leave(self) -> None:
        """Drop the session's clients: what they hold is free, and what waits for it ends."""
        self._closed = True
        await self._claims.close()

    async def close(self) -> None:
        """Close everything; harmless when repeated."""
        self._closed = True
        self._staged.clear()
        for number in list(self._handles):
            with contextlib.suppress(WarpError):
                await self.shut(number)
        for task in list(self._telling):
            task.cancel()

    # Verbs ----------------------------------------------------------------------------------------

    async def do(
        self, request: Request, values: Buffer, buffers: Sequence[Buffer]
    ) -> tuple[Reply, list[Buffer]]:
        """Do a verb, and return the reply with its content.

        Raises:
            Unsupported: There is no such verb.
            InvalidArgument: It does not take these arguments.
            StaleHandle: What it is asked of is not open.
            WarpError: What the view answers.
        """
        verb = VERBS.get(request.verb)
        if verb is None:
            raise Unsupported(f"verb {request.verb!r}")
        args, named = verb.unpack(values, buffers)
        view = verb.name.partition(".")[0]
        if view in ("objects", "files", "blocks", "commands"):
            args, named = await self._claims.of_session(args, named)
            result = await getattr(getattr(self._views, view), verb.method)(*args, **named)
            return await self._told(request.id, verb, result)
        if view == "claims":
            args, named = await self._claims.of_session(args, named)
            result = await getattr(self._claims, verb.method)(*args, **named)
            return self._reply(request.id, result)
        handle = self._handles.get(request.handle)
        if handle is None or handle.view != view:
            raise StaleHandle(f"handle {request.handle}: no {view} is open under it")
        if view == "writer":
            result = await self._write(handle, verb, args)
        else:
            result = await getattr(handle.thing, verb.method)(*args, **named)
        reply, content = await self._told(request.id, verb, result)
        if isinstance(handle.thing, Disk | OpenFile):
            reply = msgspec.structs.replace(reply, size=_size(handle.thing))
        return reply, content

    async def _write(self, handle: _Handle, verb: Verb, args: list[Any]) -> object:
        """Do a writer's verb in its turn; after one that failed, none is done."""
        async with handle.turn:
            if handle.failed is not None:
                raise handle.failed
            try:
                return await getattr(handle.thing, verb.method)(*args)
            except WarpError as error:
                handle.failed = error
                raise

    def _reply(self, number: int, result: object) -> tuple[Reply, list[Buffer]]:
        return Reply(number, values=msgspec.Raw(pack_value(result))), []

    async def _told(self, number: int, verb: Verb, result: object) -> tuple[Reply, list[Buffer]]:
        """Return the reply that tells a result."""
        if verb.method == "read_runs":
            runs: Sequence[tuple[int, int, Buffer | None]] = result  # type: ignore[assignment]
            packed = pack_value([(at, length, data is not None) for at, length, data in runs])
            content = [data for _, _, data in runs if data is not None]
            return Reply(number, values=msgspec.Raw(packed), lengths=lengths_of(content)), content
        if verb.result is not None:
            reply, content = self._reply(number, result)
            if verb.name == "blocks.resize":
                size = (next(_stamps), result.size)  # type: ignore[attr-defined]
                reply = msgspec.structs.replace(reply, size=size)
            return reply, content
        if isinstance(result, bytes | bytearray | memoryview):
            return Reply(number, lengths=lengths_of([result])), [result]
        made = False
        if isinstance(result, tuple):
            result, made = result
        assert isinstance(result, OPENED), f"{verb.name} returned {type(result).__name__}"
        if isinstance(result, Reader) and result.info.size <= SMALL:
            found = await self._content(result)
            if found is not None:
                packed = pack_value(result.info)
                result.close()
                return Reply(number, values=msgspec.Raw(packed), lengths=(len(found),)), [found]
        return self._opened(number, result, made), []

    async def _content(self, reader: Reader) -> Buffer | None:
        """Return the whole content of a small object; None where it cannot be read: the peer will see why when it reads."""
        size = reader.info.size
        try:
            found = reader.read_now(0, size)
            return found if found is not None else await reader.read(0, size)
        except WarpError:
            return None

    def _opened(self, number: int, thing: Opened, made: bool) -> Reply:
        handle = next(self._numbers)
        if isinstance(thing, Reader):
            held, values, size = _Handle(thing, "reader"), pack_value(thing.info), None
        elif isinstance(thing, Writer):
            held, values, size = _Handle(thing, "writer"), pack_value(None), None
        elif isinstance(thing, Disk):
            held, values, size = _Handle(thing, "disk"), pack_value(thing.info), _size(thing)
            held.listening = asyncio.create_task(self._resizes(handle, thing))
        else:
            held, values = _Handle(thing, "file"), pack_value((thing.ref, made))
            size = _size(thing)
        self._handles[handle] = held
        if self._closed or len(self._handles) > HANDLES_MAX:
            self.later(self.shut(handle))
            raise Busy(f"{HANDLES_MAX} things are open for {self.peer}")
        return Reply(number, handle=handle, values=msgspec.Raw(values), size=size)

    async def shut(self, number: int) -> None:
        """Close something that is open; harmless where nothing is."""
        handle = self._handles.pop(number, None)
        if handle is None:
            return
        if handle.listening is not None:
            handle.listening.cancel()
        if isinstance(handle.thing, Reader):
            handle.thing.close()
        elif isinstance(handle.thing, Writer):
            async with handle.turn:
                await handle.thing.abort()
        else:
            await handle.thing.close()

    # Content ahead of its request -----------------------------------------------------------------

    def stage(self, token: int, buffers: Sequence[memoryview]) -> None:
        """Keep content for a request that will name the token.

        Raises:
            TooLarge: STAGED_MAX.
        """
        kept = sum(len(each) for parts in self._staged.values() for each in parts)
        if kept + sum(map(len, buffers)) > STAGED_MAX or len(self._staged) > HANDLES_MAX:
            raise TooLarge(f"more than {STAGED_MAX} bytes wait for their requests")
        self._staged.setdefault(token, []).extend(buffers)

    def staged(self, token: int) -> bytes:
        """Return what was kept, and keep it no longer.

        Raises:
            InvalidArgument: Nothing was.
        """
        parts = self._staged.pop(token, None)
        if parts is None:
            raise InvalidArgument(f"nothing was staged under {token}")
        return b"".join(parts)

    # Events ---------------------------------------------------------------------------------------

    def later(self, work: Any) -> None:
        """Run something that nobody waits for."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _send(self, event: Reply) -> None:
        with contextlib.suppress(WarpError):  # the link ended: so does the session
            await self.tell(event)

    async def _resizes(self, handle: int, disk: Disk) -> None:
        async for size in disk.resizes():
            values = pack_value((next(_stamps), size))
            await self._send(Reply(0, RESIZED, handle=handle, values=msgspec.Raw(values)))

    def recalled(self, client: int, recalled: Recalled) -> None:
        """Tell the peer of a lease that is called back from one of its clients."""
        if len(self._telling) >= EVENTS_MAX:
            _log.warning("a recall is not told: the lease will time out", peer=self.peer)
            return
        values = msgspec.Raw(pack_value(recalled))
        self.later(self._send(Reply(0, RECALLED, handle=client, values=values)))


class _Claims(Travelling):
    """The claims of one session: its clients are dropped with it, and its own users are a client of their own here."""

    def __init__(self, held: Held, claims: Claims) -> None:
        self._held = held
        self._claims = claims
        self._clients: set[int] = set()
        self._own: int | None = None
        self._beginning = asyncio.Lock()

    async def of_session(
        self, args: list[Any], named: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return arguments with the peer's owners as they are known here.

        Raises:
            StaleHandle: An owner's client is none of this session.
        """
        if any(type(each) is Owner for each in (*args, *named.values())):
            own = await self._own_client()
            args = [self._owner(each, own) for each in args]
            named = {name: self._owner(each, own) for name, each in named.items()}
        return args, named

    async def _own_client(self) -> int:
        async with self._beginning:
            if self._own is None:
                self._own = await self._claims.add_client(f"node {self._held.peer}")
                self._clients.add(self._own)
            return self._own

    def _owner(self, value: Any, own: int) -> Any:
        if type(value) is not Owner:
            return value
        if value.client == HERE:
            return value._replace(client=own)
        self._check(value.client)
        return value

    def _check(self, client: int) -> None:
        if client not in self._clients or client == self._own:
            raise StaleHandle(f"client {client} is none of this session")

    def _as_told(self, owner: Owner) -> Owner:
        return owner._replace(client=HERE) if owner.client == self._own else owner

    async def close(self) -> None:
        """Drop all clients, and with them what they hold."""
        for client in list(self._clients):
            with contextlib.suppress(WarpError):
                await self._claims.drop_client(client)
        self._clients.clear()

    async def add_client(self, name: str, ttl_s: float | None, tells: bool) -> int:
        told: list[int] = []

        def tell(recalled: Recalled) -> None:
            self._held.recalled(told[0], recalled)

        client = await self._claims.add_client(name, ttl_s=ttl_s, tell=tell if tells else None)
        told.append(client)
        self._clients.add(client)
        return client

    async def renew(self, client: int) -> None:
        self._check(client)
        await self._claims.renew(client)

    async def drop_client(self, client: int) -> None:
        if client in self._clients and client != self._own:
            self._clients.discard(client)
            await self._claims.drop_client(client)

    async def lock(
        self,
        file: Ref,
        owner: Owner,
        start: int,
        last: int,
        exclusive: bool,
        wait: bool,
        cacher: Owner | None,
        reclaim: bool,
    ) -> None:
        await self._claims.lock(
            file,
            owner,
            start,
            last + 1,
            exclusive=exclusive,
            wait=wait,
            cacher=cacher,
            reclaim=reclaim,
        )

    async def test_lock(
        self, file: Ref, owner: Owner, start: int, last: int, exclusive: bool
    ) -> tuple[Owner, int, int, bool] | None:
        found = await self._claims.test_lock(file, owner, start, last + 1, exclusive=exclusive)
        if found is None:
            return None
        return self._as_told(found.owner), found.start, found.end - 1, found.exclusive

    async def unlock(self, file: Ref, owner: Owner, start: int, last: int) -> None:
        await self._claims.unlock(file, owner, start, last + 1)

    async def unlock_all(self, file: Ref, owner: Owner) -> None:
        await self._claims.unlock_all(file, owner)

    async def lease(
        self, file: Ref, owner: Owner, kinds: Kind, reclaim: bool, beside_writers: bool
    ) -> Kind:
        return await self._claims.lease(
            file, owner, kinds, reclaim=reclaim, beside_writers=beside_writers
        )

    async def give_back(self, file: Ref, owner: Owner, keep: Kind) -> None:
        await self._claims.give_back(file, owner, keep)

    async def reclaimed(self, volume: str, client: int) -> None:
        self._check(client)
        await self._claims.reclaimed(volume, client)


def _size(thing: Disk | OpenFile) -> tuple[int, int]:
    return next(_stamps), thing.size
