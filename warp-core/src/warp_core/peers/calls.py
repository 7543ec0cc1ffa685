"""Calls over one link: requests go out, replies come back in any order, each to whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

import msgspec

from warp_core.errors import RemoteProtocolError, TimedOut, Unavailable, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import Link
from warp_core.peers.messages import Reply, Request, pack, raised, read_reply

Answer = tuple[Reply, memoryview]


class _Waiting:
    """One call: where its reply goes, and its payload if the caller named a buffer."""

    __slots__ = ("future", "into")

    def __init__(self, future: asyncio.Future[Answer], into: memoryview | None) -> None:
        self.future = future
        self.into = into


class Calls:
    """The calling side of one link. Once it is broken it stays so."""

    def __init__(self, link: Link, *, peer: str, deadline_s: float) -> None:
        """Take an open link; `peer` is for messages."""
        self.peer = peer
        self.broken: WarpError | None = None
        self._link = link
        self._deadline_s = deadline_s
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._receiver = asyncio.create_task(self._receive(), name=f"replies of {peer}")

    async def call(
        self, request: Request, payload: Sequence[Buffer] = (), *, into: memoryview | None = None
    ) -> Answer:
        """Ask, and return the reply with its payload, which is in `into` if that was given and is as long.

        A call that is cancelled ends when its reply is there all the same, or the link is not: until then the caller's buffers are
        in use.

        Raises:
            Unavailable: The link ended, before or after the peer did what was asked.
            TimedOut: No reply came in time; the link is given up.
            WarpError: What the peer answered.
        """
        working = asyncio.ensure_future(self._call(request, payload, into))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            if not working.cancelled():
                working.exception()  # nobody asks any more
            raise

    async def _call(
        self, request: Request, payload: Sequence[Buffer], into: memoryview | None
    ) -> Answer:
        if self.broken is not None:
            raise self.broken
        request = msgspec.structs.replace(request, id=next(self._numbers))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = _Waiting(future, into)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._link.send(pack(request), payload)
                reply, data = await future
        except TimeoutError:
            error = TimedOut(f"{self.peer}: no reply within {self._deadline_s} s")
            await self._end(error)
            raise error from None
        except Unavailable as error:
            await self._end(error)
            raise
        finally:
            self._waiting.pop(request.id, None)
        if reply.error:
            raise raised(reply, self.peer)
        return reply, data

    def _room(self, header: bytes, length: int) -> memoryview:
        waiting = self._waiting.get(read_reply(header).id)
        if waiting is not None and waiting.into is not None and length <= len(waiting.into):
            return waiting.into[:length]
        return memoryview(bytearray(length))

    async def _receive(self) -> None:
        try:
            while True:
                header, payload = await self._link.receive(self._room)
                reply = read_reply(header)
                waiting = self._waiting.pop(reply.id, None)
                if waiting is None:
                    raise RemoteProtocolError(f"{self.peer} answers {reply.id}, which nobody asked")
                if not waiting.future.done():
                    waiting.future.set_result((reply, payload))
        except WarpError as error:
            await self._end(Unavailable(f"{self.peer}: {error}"))

    async def _end(self, error: WarpError) -> None:
        if self.broken is None:
            self.broken = Unavailable(f"{self.peer}: the link ended: {error}")
        for waiting in list(self._waiting.values()):
            if not waiting.future.done():
                waiting.future.set_exception(Unavailable(f"{self.peer}: {error}"))
                waiting.future.exception()  # whoever waits still sees it; nobody has to
        await self._link.close()

    async def close(self) -> None:
        """End the link; calls in progress fail."""
        await self._end(Unavailable(f"{self.peer}: closed"))
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
