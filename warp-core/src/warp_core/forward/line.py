"""The calling side's way to a home: sessions of two links each, opened when they are needed and anew after they ended.

One link carries what is small, the other content and long listings, so that a sync never waits behind megabytes. What was opened
belongs to its session and dies with it, as it would with the home's process: whether a write arrived that has no answer cannot be
known, and nothing is asked twice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import count
from typing import Any, TypeVar

import msgspec

from warp_core import logs
from warp_core.calls import Calls
from warp_core.errors import (
    PermissionDenied,
    RemoteProtocolError,
    StaleHandle,
    TimedOut,
    Unauthenticated,
    Unavailable,
    Unsupported,
    WarpError,
)
from warp_core.forward import messages
from warp_core.forward.messages import (
    CANCEL,
    CLOSE,
    HEADER_VALUES,
    HELLO,
    NOTHING,
    PING,
    SMALL,
    STAGE,
    STEP,
    VALUE_MAX,
    VERSION,
    Reply,
    Request,
    divide,
    lengths_of,
    pack,
    read_reply,
)
from warp_core.forward.verbs import Verb, pack_value
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import Link

DEADLINE_S = 30.0  # of a call; what waits for others (a queued lock) lasts as long as its session
PONG_S = 5.0  # without an answer to one, the session ends: the cable is dead, and nobody hangs up
PING_S = 2.0  # between signs of life; the home drops a session that gives none for SILENT_S
WINDOW = 4  # messages of one large read or write on their way at once
PAUSE_S = 0.25  # after a failed attempt to reach the home, the next ones fail at once for so long
LARGE = frozenset(  # verbs whose results may be long
    {
        "blocks.disks",
        "files.readdir",
        "objects.list",
        "objects.list_parts",
        "objects.list_uploads",
        "objects.list_versions",
        "objects.volumes",
    }
)

T = TypeVar("T")
Dial = Callable[[], Awaitable[Link]]
_hello = msgspec.msgpack.Decoder(list[int])
_log = logs.get("warp_core.forward")


class Size:
    """The size of a file or disk, as the newest reply told it; all opens of it in a session share one."""

    __slots__ = ("now", "stamp")

    def __init__(self) -> None:
        self.stamp = -1
        self.now = 0

    def note(self, told: tuple[int, int] | None) -> None:
        """Note what a reply told; replies overtake each other on two links."""
        if told is not None and told[0] > self.stamp:
            self.stamp, self.now = told


class Answer:
    """A reply with what came beside it."""

    __slots__ = ("buffers", "handle", "reply", "values")

    def __init__(self, reply: Reply, values: Buffer, buffers: list[memoryview]) -> None:
        self.reply = reply
        self.values = values
        self.buffers = buffers


class Session:
    """Two links to one home, and what was opened over them."""

    def __init__(self, peer: str, deadline_s: float) -> None:
        """Begin without links."""
        self.peer = peer
        self.name = os.urandom(16).hex()
        self._ended: WarpError | None = None
        self.sizes: dict[tuple[str, int, str], Size] = {}
        # (event, handle or client) → who hears its values; None at the session's end
        self.hearing: dict[tuple[str, int], Callable[[Buffer | None], None]] = {}
        self._deadline_s = deadline_s
        self._parts: dict[tuple[bool, int], list[memoryview]] = {}
        self._links: dict[bool, Calls[Reply]] = {}  # bulk → its link
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tokens = count(1)

    @property
    def ended(self) -> WarpError | None:
        """Why the session is over, if it is."""
        for calls in self._links.values():
            if calls.broken is not None:
                return calls.broken
        return self._ended

    def over(self) -> WarpError | None:
        """Return why the session is over, if it is; who listens to it has been told then."""
        ended = self.ended
        if ended is not None and self._ended is None:
            self._end(Unavailable(str(ended)))
        return ended

    async def open(self, dial: Dial, target: str, *, before: str = "") -> None:
        """Open both links, and begin to watch over them; the home ends the session `before` first.

        Raises:
            Unavailable: The home is not there, or does not serve the target, or not this node.
        """
        name = self.name
        try:
            for bulk in (False, True):
                link = await dial()
                self._links[bulk] = Calls(
                    link,
                    peer=self.peer,
                    deadline_s=self._deadline_s,
                    read=read_reply,
                    raised=lambda reply: messages.raised(reply, self.peer),
                    heard=lambda reply, payload, bulk=bulk: self._heard(bulk, reply, payload),  # type: ignore[misc]
                )
                part = "bulk" if bulk else "control"
                values = pack_value([VERSION, name, part, target, before])
                answer = await self.ask(HELLO, values, bulk=bulk, deadline_s=PONG_S)
                if _hello.decode(answer.values)[:1] != [VERSION]:
                    raise Unavailable(f"{self.peer}: not the greeting of version {VERSION}")
        except (PermissionDenied, Unsupported, Unauthenticated, TimedOut) as error:
            await self.close()
            raise Unavailable(f"{self.peer}: {error}") from error
        except msgspec.DecodeError as error:
            await self.close()
            raise Unavailable(f"{self.peer}: not a greeting") from error
        except BaseException:
            await self.close()
            raise
        self.later(self._watch())

    async def _watch(self) -> None:
        """Keep telling that this side lives; where one link ends, end the other."""
        ends = [asyncio.ensure_future(calls.ended()) for calls in self._links.values()]
        try:
            while not any(end.done() for end in ends):
                await asyncio.wait(ends, timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
                try:
                    await self.ask(PING, NOTHING, deadline_s=PONG_S)
                except WarpError:
                    break
        finally:
            for end in ends:
                end.cancel()
            broken = next((each.broken for each in self._links.values() if each.broken), None)
            self._end(Unavailable(str(broken or f"{self.peer}: closed")))
            for calls in self._links.values():
                await calls.close()

    def _end(self, error: Unavailable) -> None:
        if self._ended is None:
            self._ended = error
            for hear in list(self.hearing.values()):
                hear(None)

    async def close(self) -> None:
        """End both links; what was opened is closed by the home."""
        self._end(Unavailable(f"{self.peer}: closed"))
        tasks = [each for each in self._tasks if each is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for calls in self._links.values():
            await calls.close()

    def later(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something whose outcome nobody waits for; it ends with the session."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def size_of(self, volume: str, inode: int, snapshot: str = "") -> Size:
        """Return what is known of the size of a file or disk."""
        return self.sizes.setdefault((volume, inode, snapshot), Size())

    def _heard(self, bulk: bool, reply: Reply, payload: memoryview) -> None:
        if reply.error == messages.PART:
            parts = self._parts.get((bulk, reply.handle))
            if parts is None or sum(map(len, parts)) + len(payload) > VALUE_MAX:
                raise RemoteProtocolError(f"{self.peer}: a part of no result, or of one too large")
            parts.append(payload)
            return
        hear = self.hearing.get((reply.error, reply.handle))
        if hear is None:
            return  # it was closed meanwhile
        try:
            hear(reply.values)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RemoteProtocolError(f"{self.peer}: an event that cannot be read") from error

    async def ask(
        self,
        verb: str,
        values: Buffer,
        buffers: Sequence[Buffer] = (),
        *,
        handle: int = 0,
        bulk: bool = False,
        into: memoryview | None = None,
        deadline_s: float | None = None,
        staged: int = 0,
    ) -> Answer:
        """Ask the home, and return its answer.

        Raises:
            Unavailable: The session ended before there was an answer; what was asked may have been done.
            WarpError: What the home answered.
        """
        if (ended := self.over()) is not None:
            raise Unavailable(str(ended))
        lengths = lengths_of(buffers)
        spilled = 0
        payload = buffers
        if len(values) > HEADER_VALUES:
            spilled, payload, values = len(values), [values, *buffers], NOTHING
        bulk = bulk or spilled + sum(lengths) > SMALL
        numbers: list[int] = []

        def request(number: int) -> bytes:
            numbers.append(number)
            self._parts[bulk, number] = []
            return pack(
                Request(number, verb, handle, msgspec.Raw(values), spilled, lengths, staged)
            )

        def withdraw(number: int) -> bytes:
            return pack(Request(0, CANCEL, number))

        try:
            reply, data = await self._links[bulk].call(
                request, payload, into=into, deadline_s=deadline_s, withdraw=withdraw
            )
            parts = self._parts[bulk, reply.id]
        except TimedOut as error:
            self.over()
            raise Unavailable(f"{error}; what {verb} asked for may have been done") from error
        except Unavailable:
            self.over()
            raise
        finally:
            for number in numbers:
                self._parts.pop((bulk, number), None)
        try:
            found, beside = divide(reply, data)
        except RemoteProtocolError as error:
            raise Unavailable(f"{self.peer}: {error}") from error
        return Answer(reply, b"".join((*parts, found)) if parts else found, beside)

    async def ask_staged(self, verb: str, values: Buffer, data: Buffer, *, handle: int) -> Answer:
        """Ask for a verb whose one buffer is larger than a message takes: it goes ahead in parts. Raises as `ask`."""
        token = next(self._tokens)
        for _, piece in steps(0, data):
            await self.ask(STAGE, NOTHING, [piece], handle=token, bulk=True)
        return await self.ask(verb, values, handle=handle, bulk=True, staged=token)

    async def ask_verb(
        self,
        verb: Verb,
        args: Sequence[object],
        named: Mapping[str, object],
        *,
        handle: int = 0,
        size: Size | None = None,
        bulk: bool = False,
        into: memoryview | None = None,
        deadline_s: float | None = None,
        raw: bool = False,
    ) -> Any:
        """Ask for a verb and return its result; of one that returns a buffer or opens something, and if `raw`, the `Answer`."""
        values, buffers = verb.pack(args, named)
        answer = await self.ask(
            verb.name,
            values,
            buffers,
            handle=handle,
            bulk=bulk or verb.name in LARGE,
            into=into,
            deadline_s=deadline_s,
        )
        if size is not None:
            size.note(answer.reply.size)
        if raw or verb.result is None:
            return answer
        return self.decoded(verb.result, answer)

    def decoded(self, decoder: msgspec.msgpack.Decoder[Any], answer: Answer) -> Any:
        """Return the packed value of an answer.

        Raises:
            Unavailable: It is not what was asked for.
        """
        try:
            return decoder.decode(answer.values)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unavailable(f"{self.peer}: an answer that cannot be read: {error}") from error

    def drop(self, handle: int) -> None:
        """Close something at the home, without waiting for it."""
        if self.ended is None and handle:
            self.later(self._drop(handle))

    async def shut(self, handle: int) -> None:
        """Close something at the home; where the home is away, it has done that."""
        if self.ended is None:
            await self._drop(handle)

    async def _drop(self, handle: int) -> None:
        try:
            await self.ask(CLOSE, NOTHING, handle=handle)
        except WarpError as error:
            _log.info("not closed at the home", peer=self.peer, reason=str(error))


class Line:
    """A way to one target at one home. The views over it are made of it."""

    def __init__(
        self, dial: Dial, *, peer: str, target: str = "", deadline_s: float = DEADLINE_S
    ) -> None:
        """Take what opens a link to the node `peer`, and what the home is asked for there."""
        self.peer = peer
        self._dial = dial
        self._target = target
        self._deadline_s = deadline_s
        self._session: Session | None = None
        self._before = ""  # the session that was opened last
        self._opening = asyncio.Lock()
        self._failed: tuple[float, str] | None = None
        self._closed = False

    async def session(self) -> Session:
        """Return the session, opened anew where the last one ended.

        Raises:
            Unavailable: The home cannot be reached.
        """
        session = self._session
        if session is not None and session.ended is None:
            return session
        async with self._opening:
            session = self._session
            if session is not None and session.ended is None:
                return session
            if self._closed:
                raise Unavailable(f"{self.peer}: closed")
            now = asyncio.get_running_loop().time()
            if self._failed is not None and now < self._failed[0] + PAUSE_S:
                raise Unavailable(self._failed[1])
            session = Session(self.peer, self._deadline_s)
            try:
                await session.open(self._dial, self._target, before=self._before)
            except WarpError as error:
                self._failed = (asyncio.get_running_loop().time(), str(error))
                raise Unavailable(str(error)) from error
            self._session, self._before = session, session.name
            self._failed = None
            return session

    async def close(self) -> None:
        """End the session, for good."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


class Opened:
    """A file or a disk that a home has open, behind a session; it dies with that."""

    def __init__(self, session: Session, handle: int, size: Size) -> None:
        """Take what an answer told."""
        self._session = session
        self._handle = handle
        self._size = size

    @property
    def size(self) -> int:
        """The size as the newest answer told it."""
        return self._size.now

    async def _ask(
        self,
        verb: Verb,
        args: Sequence[object],
        named: Mapping[str, object],
        *,
        bulk: bool = False,
        into: memoryview | None = None,
        raw: bool = False,
    ) -> Any:
        if not self._handle:
            raise StaleHandle("closed")
        if (ended := self._session.over()) is not None:
            raise StaleHandle(f"what was open is gone with its home: {ended}")
        return await self._session.ask_verb(
            verb, args, named, handle=self._handle, size=self._size, bulk=bulk, into=into, raw=raw
        )

    async def _shut(self) -> None:
        """Close at the home, and return when that is done; harmless when repeated."""
        handle, self._handle = self._handle, 0
        if handle:
            await self._session.shut(handle)


def steps(offset: int, data: Buffer) -> list[tuple[int, memoryview]]:
    """Return content in pieces of at most STEP bytes, each with its place."""
    view = memoryview(data).cast("B")
    return [(offset + at, view[at : at + STEP]) for at in range(0, len(view), STEP)]


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run pieces of one read or write, WINDOW at a time, and return their results; raise the first error by itself."""
    if len(works) == 1:
        return [await works[0]]
    room = asyncio.Semaphore(WINDOW)

    async def run(work: Coroutine[Any, Any, T]) -> T:
        async with room:
            return await work

    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(run(work)) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        for work in works:
            work.close()  # of those that never began
    return [task.result() for task in tasks]
