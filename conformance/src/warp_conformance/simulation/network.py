"""A network between simulated machines: links that are slow, stall, end, and are cut one way or both.

A link keeps the contract of `Transport`: messages arrive whole and in order, or the link ends. So nothing is duplicated or reordered
on one link; what is sent over two links (bulk and control) arrives in any order. While a direction is cut, what was sent waits, as TCP
would send it again, and arrives late, or the link ends. A killed process' links end at once for its peers; those of a machine without
power stay silent until it is back or somebody gives up.
"""

from __future__ import annotations

import asyncio
import contextvars
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from warp_core.errors import (
    AlreadyRunning,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.stores import Buffer
from warp_core.interfaces.transports import (
    HEADER_MAX,
    PAYLOAD_MAX,
    Allocate,
    Link,
    Listener,
    Message,
    Transport,
    TransportCapabilities,
)

from warp_conformance.simulation.loop import PROCESS, Process
from warp_conformance.simulation.world import World

DELAY_S = (0.0001, 0.002)  # one way
HICCUP_S = (0.02, 0.3)  # one way, now and then: a lost packet that is sent again
HICCUP = 0.01
WINDOW = 4 * PAYLOAD_MAX  # bytes on their way or not received: then `send` waits
GIVE_UP_S = (
    2.0,
    20.0,
)  # until a side notices that nobody acknowledges; kernels take minutes, keepalive less

PROBE_S = (0.01, 1.0)  # between probes of an idle link

Serve = Callable[[Link], Awaitable[None]]


class Network:
    """Who can reach whom, and the listeners by address."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.listeners: dict[str, SimListener] = {}
        self.links: list[SimLink] = []  # one end each, of those that are open
        self._chance = world.chance("network")
        self._cut: set[tuple[str, str]] = set()
        self._off: set[str] = set()  # machines without power
        self.delivered = 0

    def reaches(self, source: str, target: str) -> bool:
        """Say whether packets go from one machine to another."""
        return (source, target) not in self._cut and not {source, target} & self._off

    def cut(self, source: str, target: str) -> None:
        """Lose every packet from one machine to another, from now on."""
        self._cut.add((source, target))

    def mend(self, source: str, target: str) -> None:
        """Let packets through again; what waited follows."""
        self._cut.discard((source, target))
        self._flush()

    def power(self, machine: str, *, on: bool) -> None:
        """Take a machine off the network as a power cut does, or bring it back: its old links are gone then."""
        if on:
            self._off.discard(machine)
            self._reset(machine)
        else:
            self._off.add(machine)
        self._flush()

    def _reset(self, machine: str) -> None:
        """Have a machine answer what belongs to links from before it lost power, probes of idle ones too: it knows none of them."""
        for link in list(self.links):
            if link.other.machine == machine and link.other.ended:
                wait_s = self._chance.uniform(*PROBE_S)
                self.world.loop.call_later(wait_s, link.end, "reset", context=contextvars.Context())

    def delay_s(self) -> float:
        """Draw how long one message takes one way."""
        if self._chance.random() < HICCUP:
            return self._chance.uniform(*HICCUP_S)
        return self._chance.uniform(*DELAY_S)

    def give_up_s(self) -> float:
        """Draw how long it takes until a side notices that the other one is silent."""
        return self._chance.uniform(*GIVE_UP_S)

    def break_links(self, one: str, other: str) -> int:
        """End the links between two machines, as a reset does; return how many."""
        broken = [
            link for link in list(self.links) if link.machine == one and link.other.machine == other
        ]
        broken += [
            link for link in list(self.links) if link.machine == other and link.other.machine == one
        ]
        for link in broken:
            link.lose()
            link.end("reset")
        return len(broken)

    def died(self, process: Process, *, silent: bool) -> None:
        """End the links of a killed process: at once for its peers, or (`silent`) when they give up."""
        for link in [link for link in self.links if link.process is process]:
            if silent:
                link.lose()
            link.end("its process died", silent=silent)
        for address, listener in list(self.listeners.items()):
            if listener.process is process:
                del self.listeners[address]

    def _flush(self) -> None:
        for link in list(self.links):
            link.pump()


class SimLink(Link):
    """One end of a link: what it sends comes out at `other`."""

    other: SimLink

    def __init__(self, network: Network, machine: str, peer: str) -> None:
        self.machine = machine
        self.peer = peer
        self.process = PROCESS.get()
        self.ended = ""
        self._network = network
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._sent: deque[tuple[float, bytes, bytes]] = (
            deque()
        )  # (due, header, content), on its way
        self._last = 0.0  # when the newest of them is due
        self._arrival: asyncio.TimerHandle | None = None  # of the first of them
        self._giving_up: asyncio.TimerHandle | None = None
        self._unread = 0  # bytes sent that the other side has not received
        self._room: list[asyncio.Future[None]] = []

    async def send(self, header: Buffer, payload: Sequence[Buffer] = ()) -> None:
        """See `Link.send`."""
        content = b"".join(payload)
        if len(header) > HEADER_MAX or len(content) > PAYLOAD_MAX:
            raise TooLarge(f"message of {len(header)} + {len(content)} bytes")
        while not self.ended and self._unread > WINDOW:
            future = self._network.world.loop.create_future()
            self._room.append(future)
            await future
        if self.ended:
            raise Unavailable(f"the link to {self.peer} ended: {self.ended}")
        self._unread += len(header) + len(content)
        self._last = max(self._last, self._network.world.now + self._network.delay_s())
        self._sent.append((self._last, bytes(header), content))
        self.pump()

    def pump(self) -> None:
        """See to it that the first message on its way arrives, or is given up."""
        network = self._network
        loop = network.world.loop
        if not self._sent or self._arrival is not None:
            return
        if network.reaches(self.machine, self.other.machine):
            due = max(self._sent[0][0], network.world.now)
            self._arrival = loop.call_at(due, self._arrive, context=contextvars.Context())
        elif self._giving_up is None:
            self._giving_up = loop.call_later(
                network.give_up_s(), self._give_up, context=contextvars.Context()
            )

    def _arrive(self) -> None:
        self._arrival = None
        network, other = self._network, self.other
        if network.reaches(self.machine, other.machine):
            if self._giving_up is not None:
                self._giving_up.cancel()
                self._giving_up = None
            _, header, content = self._sent.popleft()
            if not other.ended:
                network.delivered += 1
                checksum = zlib.crc32(content, zlib.crc32(header))
                network.world.note(
                    other.machine,
                    f"from {self.machine}: {len(header)}+{len(content)} {checksum:08x}",
                )
                other._inbox.append((header, content))
                other._notify()
        self.pump()

    def _give_up(self) -> None:
        self._giving_up = None
        if self._sent:
            self._sent.clear()
            self.end("nobody acknowledges")

    def lose(self) -> None:
        """Lose what is on its way."""
        self._sent.clear()
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    async def receive(self, allocate: Allocate | None = None) -> Message:
        """See `Link.receive`."""
        while not self._inbox:
            if self.ended:
                raise Unavailable(f"the link to {self.peer} ended: {self.ended}")
            self._wake = self._network.world.loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        header, content = self._inbox.popleft()
        self.other._read(len(header) + len(content))
        room = (
            allocate(header, len(content))
            if allocate and content
            else memoryview(bytearray(len(content)))
        )
        room[:] = content
        return Message(header, room)

    def _read(self, size: int) -> None:
        self._unread -= size
        self._let_in()

    def _let_in(self) -> None:
        waiting, self._room = self._room, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def end(self, reason: str, *, silent: bool = False) -> None:
        """End this side now, and the other as soon as it can hear of it; `silent` says that nobody tells it."""
        if self.ended:
            return
        self.ended = reason
        network = self._network
        if self in network.links:
            network.links.remove(self)
        self._let_in()
        self._notify()
        if self.other.ended:
            return
        if silent or not network.reaches(self.machine, self.other.machine):
            wait = network.give_up_s()
        else:  # what was sent before arrives before
            wait = max(self._last - network.world.now, 0.0) + network.delay_s()
        network.world.loop.call_later(
            wait, self.other.end, "the other side closed it", context=contextvars.Context()
        )

    async def close(self) -> None:
        """See `Link.close`."""
        self.end("closed")


class SimListener(Listener):
    """An address of one process."""

    def __init__(self, network: Network, machine: str, address: str, serve: Serve) -> None:
        self.address = address
        self.machine = machine
        self.process = PROCESS.get()
        self.context = contextvars.copy_context()
        self.links: list[SimLink] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._network = network
        self._serve = serve

    def accept(self, link: SimLink) -> None:
        """Serve one link in a task of the listening process."""
        context = self.context.copy()
        loop = self._network.world.loop
        self.tasks.append(loop.create_task(self._run(link), context=context))
        self.links.append(link)

    async def _run(self, link: SimLink) -> None:
        try:
            await self._serve(link)
        except WarpError as error:
            self._network.world.note(self.machine, f"a link's service failed: {error}")
        finally:
            link.end("its service returned")

    async def close(self) -> None:
        """See `Listener.close`."""
        self._network.listeners.pop(self.address, None)
        for link in self.links:
            link.end("the listener closed")
        await asyncio.gather(*self.tasks, return_exceptions=True)


class SimTransport(Transport):
    """One process' way into the network. Addresses are `machine:port`; every machine proves its name."""

    capabilities = TransportCapabilities(authenticated=True, encrypted=True)

    def __init__(self, network: Network, machine: str) -> None:
        self._network = network
        self._machine = machine
        self._port = 1024

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    async def dial(self, address: str, *, peer: str = "", timeout_s: float = 5.0) -> Link:
        """See `Transport.dial`."""
        network = self._network
        target = address.partition(":")[0]
        began = network.world.now
        while True:  # packets of the handshake are sent again until they are answered
            await asyncio.sleep(network.delay_s() + network.delay_s())
            if network.reaches(self._machine, target) and network.reaches(target, self._machine):
                break
            left = began + timeout_s - network.world.now
            if left <= 0:
                raise TimedOut(f"{address} did not answer within {timeout_s} s")
            await asyncio.sleep(min(0.5, left))
        listener = network.listeners.get(address)
        if listener is None or (listener.process is not None and listener.process.dead):
            raise Unavailable(f"nobody listens at {address}")
        if peer and listener.machine != peer:
            raise Unauthenticated(f"{address} is {listener.machine}, not {peer}")
        ours = SimLink(network, self._machine, listener.machine)
        theirs = SimLink(network, listener.machine, self._machine)
        theirs.process = listener.process
        ours.other, theirs.other = theirs, ours
        network.links += [ours, theirs]
        network.world.note(self._machine, f"dialled {address}")
        listener.accept(theirs)
        return ours

    async def listen(self, address: str, serve: Serve) -> Listener:
        """See `Transport.listen`."""
        network = self._network
        host, _, port = address.partition(":")
        if port == "0":
            self._port += 1
            address = f"{host}:{self._port}"
        if address in network.listeners:
            raise AlreadyRunning(f"{address} is taken")
        listener = network.listeners[address] = SimListener(network, self._machine, address, serve)
        await asyncio.sleep(0)
        return listener
