"""The home's side: it does for other nodes what they forward, on its own views.

A session is two links of one peer. It holds what the peer opened and the clients that it began; where one link ends, or the peer is
silent for SILENT_S, the session ends and all of that is closed, as it would be with a process of this node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from warp_core import logs
from warp_core.calls import answer_each
from warp_core.errors import (
    InvalidArgument,
    PermissionDenied,
    RemoteProtocolError,
    Unavailable,
    Unsupported,
    WarpError,
)
from warp_core.forward.held import Held, Views
from warp_core.forward.messages import (
    CANCEL,
    CLOSE,
    HEADER_VALUES,
    HELLO,
    NOTHING,
    PART,
    PING,
    STAGE,
    STEP,
    VALUE_MAX,
    VERSION,
    Reply,
    Request,
    divide,
    lengths_of,
    pack,
    read_request,
    refusal,
)
from warp_core.forward.verbs import pack_value
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import Link

# Requests of one link that are worked on at once. What is small may wait for others (locks, recalled leases) whose answers
# come over the same link, so many are let in; of content each holds up to 4 MiB.
CONTROL_AT_ONCE = 4096
BULK_AT_ONCE = 16
CONTROL_MAX = 128 * 1024  # bytes of one payload over a control link
SESSIONS_MAX = 256  # of all peers: a node has one for each domain of each other
SILENT_S = 10.0  # without a sign of life for so long, a session ends

Admit = Callable[[str, str], Awaitable[Views]]  # (peer, target) → what it may use

_log = logs.get("warp_core.forward")


class _Greeting(msgspec.Struct, array_like=True, frozen=True):
    version: int
    session: str
    link: str  # "control" or "bulk"
    target: str
    before: str = ""  # the caller's session before, of which nothing may be done any more


_greeting = msgspec.msgpack.Decoder(_Greeting)


@dataclass(slots=True)
class _Session:
    """The home's half of a session."""

    held: Held
    target: str
    heard_s: float
    links: dict[str, Link]
    working: dict[tuple[str, int], asyncio.Task[tuple[Reply, list[Buffer]]]]


class Forwarder:
    """Serves views over links."""

    def __init__(self, admit: Admit, *, silent_s: float = SILENT_S) -> None:
        """Take what decides which peer may use which target: it returns its views or raises WarpError."""
        self._admit = admit
        self._silent_s = silent_s
        self._sessions: dict[tuple[str, str], _Session] = {}

    async def serve(self, link: Link) -> None:
        """Answer the requests of one link until it, or its session, ends."""
        try:
            header, payload = await link.receive()
            request = read_request(header)
            name, part, session = await self._greeted(link, request, payload)
        except RemoteProtocolError as error:
            _log.warning("a peer's link is ended", peer=link.peer, reason=str(error))
            await link.close()
            return
        except Unavailable:
            await link.close()
            return
        if session is None:
            await link.close()
            return
        at_once = CONTROL_AT_ONCE if part == "control" else BULK_AT_ONCE

        async def answer(header: bytes, payload: memoryview) -> None:
            session.heard_s = asyncio.get_running_loop().time()
            if part == "control" and len(payload) > CONTROL_MAX:
                raise RemoteProtocolError(f"{len(payload)} bytes over a control link")
            await self._answer(session, part, link, read_request(header), payload)

        async def leaving() -> None:
            # One link without the other is of no use, and what waits for a lock waits no longer.
            self._sessions.pop((link.peer, name), None)
            for other in list(session.links.values()):
                await other.close()
            await session.held.leave()

        watch = asyncio.create_task(self._watch(session))
        try:
            await answer_each(link, answer, at_once=at_once, log=_log, leaving=leaving)
        finally:
            watch.cancel()
            await session.held.close()

    async def _greeted(
        self, link: Link, request: Request, payload: memoryview
    ) -> tuple[str, str, _Session | None]:
        """Answer a hello, and return session name, part and session; without a session where it was refused."""
        if request.verb != HELLO:
            raise RemoteProtocolError(f"{request.verb!r} before a greeting")
        values, _ = divide(request, payload)
        try:
            greeting = _greeting.decode(values)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RemoteProtocolError(f"a greeting that cannot be read: {error}") from error
        name, part, target = greeting.session, greeting.link, greeting.target
        try:
            session = await self._joined(link, greeting)
        except WarpError as error:
            _log.warning("a peer is refused", peer=link.peer, target=target, reason=str(error))
            await link.send(pack(refusal(request.id, error)))
            return name, part, None
        await link.send(pack(Reply(request.id, values=msgspec.Raw(pack_value([VERSION])))))
        return name, part, session

    async def _joined(self, link: Link, greeting: _Greeting) -> _Session:
        name, part, target = greeting.session, greeting.link, greeting.target
        if greeting.version != VERSION:
            raise Unsupported(f"version {greeting.version} of forwarding, this is {VERSION}")
        key = (link.peer, name)
        session = self._sessions.get(key)
        if part == "bulk":
            if session is None or part in session.links or session.target != target:
                raise InvalidArgument("no session waits for this link")
        elif part == "control":
            if session is not None or len(self._sessions) >= SESSIONS_MAX:
                raise PermissionDenied(f"a session again, or more than {SESSIONS_MAX}")
            views = await self._admit(link.peer, target)
            # What the session before still does must not come after what this one will ask for again.
            await self._end_where(lambda key, each: key == (link.peer, greeting.before))
            now = asyncio.get_running_loop().time()
            session = _Session(Held(views, link.peer), target, now, {}, {})
            session.held.tell = lambda reply: link.send(pack(reply))
            self._sessions[key] = session
        else:
            raise InvalidArgument(f"a link for {part!r}")
        session.links[part] = link
        return session

    async def _watch(self, session: _Session) -> None:
        """End a session whose peer is silent."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._silent_s / 4)
            if loop.time() > session.heard_s + self._silent_s:
                break
        _log.warning("a peer is silent: its session ends", peer=session.held.peer)
        for link in list(session.links.values()):
            await link.close()

    async def end(self, target: str | None = None) -> None:
        """End all sessions, or those of a target: it is no longer served here. What they hold is closed on return."""
        await self._end_where(lambda key, each: target is None or each.target == target)

    async def dismiss(self, peer: str) -> None:
        """End the sessions of a peer, which is not to come back. What they hold is closed on return."""
        await self._end_where(lambda key, each: key[0] == peer)

    async def _end_where(self, ends: Callable[[tuple[str, str], _Session], bool]) -> None:
        for key, session in list(self._sessions.items()):
            if ends(key, session):
                self._sessions.pop(key, None)
                for link in list(session.links.values()):
                    await link.close()
                for task in (working := list(session.working.values())):
                    task.cancel()
                await asyncio.gather(*working, return_exceptions=True)
                await session.held.leave()
                await session.held.close()

    # Requests -------------------------------------------------------------------------------------

    async def _answer(
        self, session: _Session, part: str, link: Link, request: Request, payload: memoryview
    ) -> None:
        if request.verb == CANCEL:
            task = session.working.get((part, request.handle))
            if task is not None:
                task.cancel()
            return
        values, buffers = divide(request, payload)
        # A task of its own, so that the peer can withdraw it.
        work = asyncio.create_task(self._done(session, request, values, buffers))
        session.working[part, request.id] = work
        try:
            await asyncio.wait([work])
        finally:
            session.working.pop((part, request.id), None)
        error = Unavailable("withdrawn") if work.cancelled() else work.exception()
        if error is None:
            reply, content = work.result()
        elif isinstance(error, Exception):
            if not isinstance(error, WarpError):
                _log.exception("a forwarded verb failed", error, peer=link.peer, verb=request.verb)
            reply, content = refusal(request.id, error), []
        else:
            raise error
        try:
            await self._send(link, reply, content)
        except WarpError as failed:
            _log.info("a reply found no link", peer=link.peer, reason=str(failed))

    async def _done(
        self, session: _Session, request: Request, values: Buffer, buffers: Sequence[memoryview]
    ) -> tuple[Reply, list[Buffer]]:
        held = session.held
        if request.verb == PING:
            return Reply(request.id), []
        if request.verb == CLOSE:
            await held.shut(request.handle)
            return Reply(request.id), []
        if request.verb == STAGE:
            held.stage(request.handle, buffers)
            return Reply(request.id), []
        if request.staged:
            buffers = [memoryview(held.staged(request.staged))]
        return await held.do(request, values, buffers)

    async def _send(self, link: Link, reply: Reply, content: list[Buffer]) -> None:
        """Send a reply; a result that is too large for one message goes in parts before it."""
        packed: Buffer = reply.values
        if len(packed) <= HEADER_VALUES:
            await link.send(pack(reply), content)
            return
        if len(packed) > VALUE_MAX:
            await link.send(
                pack(refusal(reply.id, Unsupported(f"a result of {len(packed)} bytes")))
            )
            return
        view = memoryview(packed)
        while len(view) > STEP:
            await link.send(pack(Reply(0, PART, handle=reply.id)), [view[:STEP]])
            view = view[STEP:]
        whole = msgspec.structs.replace(
            reply, values=NOTHING, spilled=len(view), lengths=lengths_of(content)
        )
        await link.send(pack(whole), [view, *content])
