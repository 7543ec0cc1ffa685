"""Calls over one link: requests go out, replies come back in any order, each to whoever waits for it; and the other side of it.

What a request and a reply hold is their owner's business (`warp_core.peers`, `warp_core.forward`): here they have numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from warp_core import logs
from warp_core.errors import (
    RemoteProtocolError,
    StoreFailed,
    TimedOut,
    Unavailable,
    WarpError,
    leaves,
)
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import Link

TEXT_MAX = 1000  # characters of an error's message
Plain = str | int | bool | None


class Numbered(Protocol):
    """A reply: the number of its request (0: nobody asked, an event), and the name of an error class or nothing."""

    @property
    def id(self) -> int:
        """The request's number."""

    @property
    def error(self) -> str:
        """The name of a class of the error tree, or nothing."""


R = TypeVar("R", bound=Numbered)
Make = Callable[[int], Buffer]


class _Waiting(Generic[R]):
    """One call: where its reply goes, and its payload if the caller named a buffer."""

    __slots__ = ("future", "into")

    def __init__(
        self, future: asyncio.Future[tuple[R, memoryview]], into: memoryview | None
    ) -> None:
        self.future = future
        self.into = into


class Calls(Generic[R]):
    """The calling side of one link. Once it is broken it stays so."""

    def __init__(
        self,
        link: Link,
        *,
        peer: str,
        deadline_s: float,
        read: Callable[[bytes], R],
        raised: Callable[[R], WarpError],
        heard: Callable[[R, memoryview], None] | None = None,
    ) -> None:
        """Take an open link.

        Args:
            link: It is closed with the calls.
            peer: For messages.
            deadline_s: For calls that name none of their own.
            read: Decodes a reply; raises RemoteProtocolError.
            raised: Returns the error that a reply tells.
            heard: Takes events; without it they break the link. Must not wait, may raise RemoteProtocolError.
        """
        self.peer = peer
        self.broken: WarpError | None = None
        self._link = link
        self._deadline_s = deadline_s
        self._read = read
        self._raised = raised
        self._heard = heard
        self._numbers = count(1)
        self._waiting: dict[int, _Waiting[R]] = {}
        self._receiver = asyncio.create_task(self._receive(), name=f"replies of {peer}")

    async def call(
        self,
        request: Make,
        payload: Sequence[Buffer] = (),
        *,
        into: memoryview | None = None,
        deadline_s: float | None = None,
        withdraw: Make | None = None,
    ) -> tuple[R, memoryview]:
        """Ask, and return the reply with its payload, which is in `into` if that was given and is as long.

        A call that is cancelled ends when its reply is there all the same, or the link is not: until then the caller's buffers are
        in use. `withdraw` makes the message that asks the peer to end it soon.

        Args:
            request: Makes the message of a number.
            payload: What goes with it.
            into: Room for the reply's payload.
            deadline_s: Infinity is for what waits on others; the link's owner watches over the link then.
            withdraw: See above.

        Raises:
            Unavailable: The link ended, before or after the peer did what was asked.
            TimedOut: No reply came in time; the link is given up.
            WarpError: What the peer answered.
        """
        number = next(self._numbers)
        working = asyncio.ensure_future(self._call(number, request, payload, into, deadline_s))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            if withdraw is not None and not working.done():
                with contextlib.suppress(WarpError, asyncio.CancelledError):
                    await self._link.send(withdraw(number))
            while not working.done():
                # Who cancels twice is in a hurry, but a reply may still be received into the caller's buffers.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([working])
            if not working.cancelled():
                working.exception()  # nobody asks any more
            raise

    async def _call(
        self,
        number: int,
        request: Make,
        payload: Sequence[Buffer],
        into: memoryview | None,
        deadline_s: float | None,
    ) -> tuple[R, memoryview]:
        if self.broken is not None:
            raise self.broken
        deadline_s = self._deadline_s if deadline_s is None else deadline_s
        future: asyncio.Future[tuple[R, memoryview]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(future, into)
        try:
            async with asyncio.timeout(None if deadline_s == float("inf") else deadline_s):
                await self._link.send(request(number), payload)
                reply, data = await future
        except TimeoutError:
            error = TimedOut(f"{self.peer}: no reply within {deadline_s} s")
            await self._end(error)
            raise error from None
        except Unavailable as error:
            await self._end(error)
            raise
        finally:
            self._waiting.pop(number, None)
        if reply.error:
            raise self._raised(reply)
        return reply, data

    def _room(self, header: bytes, length: int) -> memoryview:
        waiting = self._waiting.get(self._read(header).id)
        if waiting is not None and waiting.into is not None and length <= len(waiting.into):
            return waiting.into[:length]
        return memoryview(bytearray(length))

    async def _receive(self) -> None:
        try:
            while True:
                header, payload = await self._link.receive(self._room)
                reply = self._read(header)
                if not reply.id and self._heard is not None:
                    self._heard(reply, payload)
                    continue
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

    async def ended(self) -> None:
        """Return when the link has ended."""
        await asyncio.wait([self._receiver])

    async def close(self) -> None:
        """End the link; calls in progress fail."""
        await self._end(Unavailable(f"{self.peer}: closed"))
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)


# The other side -----------------------------------------------------------------------------------

Answer = Callable[[bytes, memoryview], Awaitable[None]]


async def answer_each(
    link: Link,
    answer: Answer,
    *,
    at_once: int,
    log: logs.Logger,
    leaving: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Answer the messages of a link until it ends, each in a task of its own; what is in progress then is finished.

    Tasks begin in the order of the messages.

    Args:
        link: It is closed at the end.
        answer: Takes a message and sends the reply; RemoteProtocolError ends the link.
        at_once: So many are worked on at the same time; more wait in the peer's `send`.
        log: Where it is noted when the peer breaks the protocol.
        leaving: Called when the link has ended, before what is in progress is waited for: it may have to be told.
    """
    room = asyncio.Semaphore(at_once)
    working: set[asyncio.Task[None]] = set()

    async def work(header: bytes, payload: memoryview) -> None:
        try:
            await answer(header, payload)
        except RemoteProtocolError as error:
            log.warning("a peer's link is ended", peer=link.peer, reason=str(error))
            await link.close()
        except Exception as error:  # a defect: without a reply the peer would wait for its deadline
            log.exception("a message is not answered: its link is ended", error, peer=link.peer)
            await link.close()
        finally:
            room.release()

    try:
        while True:
            await room.acquire()
            header, payload = await link.receive()
            task = asyncio.create_task(work(header, payload))
            working.add(task)
            task.add_done_callback(working.discard)
    except RemoteProtocolError as error:
        log.warning("a peer's link is ended", peer=link.peer, reason=str(error))
    except Unavailable:
        pass  # it left
    finally:
        if leaving is not None:
            await leaving()
        if working:
            await asyncio.wait(working)
        await link.close()


# Errors as they travel ----------------------------------------------------------------------------

_ERRORS: dict[str, type[WarpError]] = {
    kind.__name__: kind for kind in leaves() if kind.__module__ == WarpError.__module__
}


def told(error: Exception) -> tuple[str, str, dict[str, Plain]]:
    """Return class, message and fields of an error; what is none of the tree becomes StoreFailed."""
    for kind in type(error).__mro__:
        if _ERRORS.get(kind.__name__) is kind:
            fields = {name: vars(error).get(name) for name in _FIELDS[kind.__name__]}
            return kind.__name__, str(error)[:TEXT_MAX], fields
    return StoreFailed.__name__, f"{type(error).__name__}: {error}"[:TEXT_MAX], {}


def untold(name: str, text: str, fields: Mapping[str, Plain]) -> WarpError:
    """Return the error that was told; a class that only the teller knows becomes StoreFailed."""
    kind: Any = _ERRORS.get(name)
    if kind is None:
        return StoreFailed(f"{name}: {text}")
    made: WarpError = kind(text, **{each: fields[each] for each in _FIELDS[name] if each in fields})
    return made


def _keywords(kind: type[WarpError]) -> tuple[str, ...]:
    """Return which attributes an error class has that travel: its keywords of plain types."""
    if kind.__init__ is Exception.__init__:
        return ()
    return tuple(
        each.name
        for each in inspect.signature(kind.__init__).parameters.values()
        if each.kind is each.KEYWORD_ONLY and isinstance(each.default, Plain)
    )


_FIELDS = {name: _keywords(kind) for name, kind in _ERRORS.items()}
