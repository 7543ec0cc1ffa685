"""A store that another node has, used like a disk of this one.

Two links carry it, one for content and one for everything small, so that a sync never waits behind megabytes. They are opened when
they are needed and anew after they ended. What was written and not synced is only safe while the peer's process lives: it tells
its incarnation with every write, later writes and the sync repeat it, and a peer that started anew in between refuses them, as a
disk that failed would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from types import TracebackType
from typing import Self

from warp_core.calls import Calls
from warp_core.errors import StoreFailed, TimedOut, Unavailable
from warp_core.interfaces.stores import (
    BlobInfo,
    BlobStore,
    Buffer,
    Space,
    StoreCapabilities,
    check_blob_name,
)
from warp_core.interfaces.transports import Link
from warp_core.peers.messages import (
    LIST_MAX,
    NUMBER_MAX,
    VERSION,
    Claim,
    Flag,
    Reply,
    Request,
    Verb,
    infos,
    numbered,
    raised,
    read_reply,
)

STEP = 1 << 20  # bytes of content in one message
WINDOW = 4  # messages of one read or write on their way at once
SMALL = 64 * 1024  # content up to here may go with everything small
PAUSE_S = 0.5  # after a failed attempt to reach the peer, the next ones fail at once for so long

TWO = "two"  # in the place of an incarnation: no peer has all of it

Dial = Callable[[], Awaitable[Link]]
Answer = tuple[Reply, memoryview]


class PeerStore(BlobStore):
    """One exported store of one peer."""

    def __init__(
        self, dial: Dial, *, export: str, peer: str, deadline_s: float = 30.0, fence: int = 0
    ) -> None:
        """Take what opens a link to the node `peer`, and the name under which it offers the store.

        `fence` is the token of the home that this node is, of a store that one home after another uses.
        """
        self._dial = dial
        self._fence = str(fence) if fence else ""
        self._export = export
        self._peer = f"{peer}/{export}"
        self._deadline_s = deadline_s
        self._calls: dict[bool, Calls[Reply]] = {}  # bulk → its link
        self._opening: dict[bool, asyncio.Lock] = {}
        self._unsynced: dict[str, str] = {}  # blob → incarnation of the peer that has writes of it
        self._puts = count(1)
        self._failed: tuple[float, Unavailable] | None = None
        self.capabilities = StoreCapabilities()

    async def __aenter__(self) -> Self:
        """Reach the peer and learn what the store is.

        Raises:
            Unavailable: The peer does not answer, or does not offer the store to this node.
        """
        self._opening = {True: asyncio.Lock(), False: asyncio.Lock()}
        await self._link(bulk=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for calls in self._calls.values():
            await calls.close()
        self._calls.clear()

    async def _link(self, *, bulk: bool) -> Calls[Reply]:
        calls = self._calls.get(bulk)
        if calls is not None and calls.broken is None:
            return calls
        async with self._opening[bulk]:
            calls = self._calls.get(bulk)
            if calls is not None and calls.broken is None:
                return calls
            now = asyncio.get_running_loop().time()
            if self._failed is not None and now < self._failed[0] + PAUSE_S:
                raise Unavailable(str(self._failed[1]))
            try:
                self._calls[bulk] = calls = await self._opened()
            except Unavailable as error:
                self._failed = (asyncio.get_running_loop().time(), error)
                raise
            self._failed = None
            return calls

    async def _opened(self) -> Calls[Reply]:
        calls = Calls(
            await self._dial(),
            peer=self._peer,
            deadline_s=self._deadline_s,
            read=read_reply,
            raised=lambda reply: raised(reply, self._peer),
        )
        try:
            hello, _ = await calls.call(
                numbered(Request(0, Verb.HELLO, self._export, VERSION, token=self._fence))
            )
            if hello.numbers != (VERSION,) or not hello.text:
                raise Unavailable(f"{self._peer}: not the greeting of version {VERSION}")
            if self.id and hello.text != self.id:
                raise StoreFailed(
                    f"{self._peer} is another store now ({hello.text}, was {self.id})"
                )
        except BaseException:
            await calls.close()
            raise
        self.id = hello.text
        self.capabilities = StoreCapabilities(
            durable=bool(hello.flags & Claim.DURABLE),
            grow=bool(hello.flags & Claim.GROW),
            punch=bool(hello.flags & Claim.PUNCH),
        )
        return calls

    async def _call(
        self,
        verb: Verb,
        name: str = "",
        payload: Sequence[Buffer] = (),
        *,
        offset: int = 0,
        length: int = 0,
        flags: int = 0,
        token: str = "",
        bulk: bool = False,
        into: memoryview | None = None,
    ) -> Answer:
        request = Request(0, verb, name, offset, min(length, NUMBER_MAX), flags, token)
        with _as_of_a_disk():
            calls = await self._link(bulk=bulk)
            return await calls.call(numbered(request), payload, into=into)

    # Whole blobs ----------------------------------------------------------------------------------

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """As `BlobStore.put`."""
        check_blob_name(name)
        *before, last = _steps(buffers) or [[]]
        flags = Flag.VITAL if vital else 0
        if not before:
            size = sum(len(memoryview(each).cast("B")) for each in last)
            await self._call(Verb.PUT, name, last, flags=flags, bulk=size > SMALL)
            return
        token = str(next(self._puts))
        with _as_of_a_disk():
            calls = await self._link(bulk=True)  # the parts are kept there until the put
            for part in before:
                await calls.call(numbered(Request(0, Verb.PART, token=token)), part)
            put = Request(0, Verb.PUT, name, len(before), flags=flags, token=token)
            await calls.call(numbered(put), last)

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """As `BlobStore.read`."""
        buffer = bytearray(
            length if length <= STEP else min(length, await self._left(name, offset))
        )
        found = await self.read_into(name, offset=offset, buffer=memoryview(buffer))
        return bytes(memoryview(buffer)[:found])

    async def _left(self, name: str, offset: int) -> int:
        return max(0, (await self.stat(name)).size - offset)

    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        """As `BlobStore.read_into`; the content is received into the buffer."""
        check_blob_name(name)
        if len(buffer) <= STEP:
            return await self._read_step(name, offset, buffer)
        room = asyncio.Semaphore(WINDOW)

        async def step(at: int) -> int:
            async with room:
                return await self._read_step(name, offset + at, buffer[at : at + STEP])

        async with _Together() as group:
            steps = [group.create_task(step(at)) for at in range(0, len(buffer), STEP)]
        total = 0
        for task in steps:
            total += task.result()
            if task.result() < STEP:
                break
        return total

    async def _read_step(self, name: str, offset: int, buffer: memoryview) -> int:
        length = len(buffer)
        _, data = await self._call(
            Verb.READ,
            name,
            offset=offset,
            length=length,
            bulk=length > SMALL,
            into=buffer,
        )
        if len(data) > length:
            raise StoreFailed(f"{self._peer}: {len(data)} bytes for a read of {length}")
        return len(data)

    async def delete(self, name: str) -> None:
        """As `BlobStore.delete`."""
        check_blob_name(name)
        await self._call(Verb.DELETE, name)
        self._unsynced.pop(name, None)

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """As `BlobStore.list`."""
        found: list[BlobInfo] = []
        while len(found) < limit:
            step = min(limit - len(found), LIST_MAX)
            last = found[-1].name if found else after
            reply, _ = await self._call(Verb.LIST, prefix, length=step, token=last)
            page = infos(reply)
            found += page
            if len(page) < step:
                break
        return found

    async def stat(self, name: str) -> BlobInfo:
        """As `BlobStore.stat`."""
        check_blob_name(name)
        reply, _ = await self._call(Verb.STAT, name)
        return infos(reply)[0]

    async def space(self) -> Space:
        """As `BlobStore.space`."""
        reply, _ = await self._call(Verb.SPACE)
        return Space(*reply.numbers)

    # Growing blobs --------------------------------------------------------------------------------

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """As `BlobStore.create`."""
        check_blob_name(name)
        flags = (Flag.RECYCLE if recycle else 0) | (Flag.VITAL if vital else 0)
        await self._call(Verb.CREATE, name, length=reserve, flags=flags)
        self._unsynced.pop(name, None)

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """As `BlobStore.write`.

        Raises:
            StoreFailed: Also if the peer is gone, whether it wrote or not, and if it started anew since an earlier write that was
                not synced.
        """
        check_blob_name(name)
        *before, last = _steps(buffers) or [[]]
        token = self._unsynced.get(name, "")
        room = asyncio.Semaphore(WINDOW)

        async def step(at: int, part: Sequence[Buffer]) -> None:
            async with room:
                reply, _ = await self._call(
                    Verb.WRITE, name, part, offset=at, token=token, bulk=True
                )
                self._note(name, reply.token)

        if before:
            async with _Together() as group:
                for number, part in enumerate(before):
                    group.create_task(step(offset + number * STEP, part))
        size = sum(len(memoryview(each).cast("B")) for each in last)
        reply, _ = await self._call(
            Verb.WRITE,
            name,
            last,
            offset=offset + len(before) * STEP,
            flags=Flag.SYNC if sync else 0,
            token=self._unsynced.get(name, ""),
            bulk=bool(before) or size > SMALL,
        )
        if sync:
            self._unsynced.pop(name, None)
        else:
            self._note(name, reply.token)

    def _note(self, name: str, incarnation: str) -> None:
        """Note which incarnation of the peer has what was written to a blob and not synced."""
        if self._unsynced.setdefault(name, incarnation) != incarnation:
            self._unsynced[name] = TWO  # two writes at once, a new start between them

    async def sync(self, name: str) -> None:
        """As `BlobStore.sync`; raises as `write`."""
        check_blob_name(name)
        await self._call(Verb.SYNC, name, token=self._unsynced.get(name, ""))
        self._unsynced.pop(name, None)

    async def seal(self, name: str, *, size: int) -> None:
        """As `BlobStore.seal`; raises as `write`."""
        check_blob_name(name)
        await self._call(Verb.SEAL, name, length=size, token=self._unsynced.get(name, ""))
        self._unsynced.pop(name, None)

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """As `BlobStore.punch`."""
        check_blob_name(name)
        await self._call(Verb.PUNCH, name, offset=offset, length=length)


@contextlib.contextmanager
def _as_of_a_disk() -> Iterator[None]:
    """Let a peer that cannot be reached look as a disk that fails: whoever uses stores knows what to do then."""
    try:
        yield
    except (Unavailable, TimedOut) as error:
        raise StoreFailed(str(error)) from error


class _Together(asyncio.TaskGroup):
    """A group that raises its first error by itself, as one call would."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None


def _steps(buffers: Sequence[Buffer]) -> list[list[memoryview]]:
    """Return the content in messages of STEP bytes; only the last one is shorter."""
    steps: list[list[memoryview]] = []
    room = 0
    for buffer in buffers:
        rest = memoryview(buffer).cast("B")
        while len(rest):
            if not room:
                steps.append([])
                room = STEP
            piece = rest[:room]
            steps[-1].append(piece)
            room -= len(piece)
            rest = rest[len(piece) :]
    return steps
