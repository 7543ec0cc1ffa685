"""A simulated machine: disks and a wall clock that last, and the process of a node that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from warp_core.cluster import directory
from warp_core.cluster.keeper import Keeper
from warp_core.cluster.lines import Lines
from warp_core.cluster.receiving import Receiver, divided
from warp_core.cluster.routed import RoutedBlocks, RoutedFiles, RoutedObjects
from warp_core.cluster.router import Router
from warp_core.cluster.rows import FORMAT, MemberRow
from warp_core.cluster.stores import LocalStore, Peers, Place
from warp_core.cluster.tenure import Parts
from warp_core.containers import Containers, DataPolicy, StoreSlot
from warp_core.containers.journal import Journal
from warp_core.containers.segments import Position
from warp_core.errors import InvalidArgument, NotFound, Unsupported, WarpError
from warp_core.forward import Views
from warp_core.interfaces.codecs import Chunker, Codec
from warp_core.interfaces.consistency import MetaStore
from warp_core.interfaces.stores import BlobStore
from warp_core.interfaces.transports import Link
from warp_core.metrics import Metrics
from warp_core.namespace.apart import Inodes
from warp_core.namespace.blocks import NamespaceBlocks
from warp_core.namespace.filelog import FileLog
from warp_core.namespace.files import NamespaceFiles
from warp_core.namespace.garbage import Garbage
from warp_core.namespace.namespace import Namespace
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.opens import Opens
from warp_core.namespace.snapshots import Snapshots
from warp_core.namespace.upkeep import Upkeep
from warp_core.node.stack import Stack
from warp_core.peers import Exporter, Gate, Offer, PeerStore
from warp_core.views.commands import Commands

from warp_conformance.simulation.consensus import Client, Consensus
from warp_conformance.simulation.disks import Medium, SimDisk
from warp_conformance.simulation.loop import Process
from warp_conformance.simulation.network import Network, SimTransport
from warp_conformance.simulation.world import World

T = TypeVar("T")

PORT = 7000  # of what a machine exports
TTL_S = 2.0  # of a domain's lease
CHECKPOINT_S = 2.0
UPKEEP_S = 1.0
BUDGET = 4 * 1024 * 1024  # bytes that one pass of upkeep may read or move
START_RETRY_S = 0.3  # between attempts of a supervisor to start a node that could not start
PEER_DEADLINE_S = 3.0
NO_COMMITS = Position(2**64 - 1, 0)


class Died(Exception):
    """The process that was asked is gone: what it was asked may have happened or not."""


class Away(Exception):
    """Nobody was asked: no process serves there."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a machine has and runs.

    Attributes:
        name: Of the machine, and of its node.
        disks: How many.
        copies: Copies of the journal.
        uses: Machines of which it uses a disk that they export, as a store like its own.
        exports: Machines that may use a disk of this one each; these disks come behind its own.
        serves: Whether it has volumes; without, it only exports.
        cluster: The machines of its cluster, itself included. Each keeps its domain on its first disk and on one that the next
            machine exports to it, and takes over those of others.
    """

    name: str
    disks: int
    copies: int = 1
    uses: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    serves: bool = True
    cluster: tuple[str, ...] = ()


class Fixed(Chunker):
    """Cuts at one size."""

    def __init__(self, size: int) -> None:
        self.min_size = self.max_size = size

    def cut(self, window: memoryview, *, final: bool) -> int:
        """See `Chunker.cut`."""
        length = len(window)
        return self.max_size if length >= self.max_size else length if final else 0


def codec(name: str) -> Codec:
    """Offer `fixed:N`, and no other codec."""
    kind, _, size = name.partition(":")
    if kind != "fixed" or not size.isdecimal():
        raise Unsupported(f"codec {name!r}")
    return Fixed(int(size))


class Machine:
    """See the module. A supervisor starts the node again whenever it ended, as long as the power is on."""

    def __init__(self, world: World, network: Network, consensus: Consensus, shape: Shape) -> None:
        self.world = world
        self.network = network
        self.shape = shape
        self.name = shape.name
        self.media = [Medium(world, f"{shape.name}{number}") for number in range(shape.disks)]
        self.exported = {user: Medium(world, f"{shape.name}-for-{user}") for user in shape.exports}
        self.rooms: dict[str, Medium] = {}  # by export: made while it ran, as a folder is
        self.gone = False  # for good
        self.process: Process | None = None
        self.running: Stack | None = None
        self.keeper: Keeper | None = None
        self.views: Views | None = (
            None  # of a cluster: of all its volumes, wherever they are at home
        )
        self.whole: tuple[str, ...] = ()  # what a data directory keeps of the journal's copies
        self.starts = 0
        self.kills = 0
        self.powered = True
        self._consensus = consensus
        self._asked: list[asyncio.Future[object]] = []
        self._offset_ns = 0
        self._changed: list[asyncio.Future[None]] = []

    # Of the machine -------------------------------------------------------------------------------

    def jump(self, seconds: float) -> None:
        """Move the wall clock."""
        self._offset_ns += int(seconds * 1e9)
        if self.process is not None:
            self.process.wall_offset_ns = self._offset_ns
        self.world.note(self.name, f"the wall clock jumps by {seconds:.1f} s")

    def start(self) -> None:
        """Start the node; nothing happens if it runs."""
        if self.process is not None or not self.powered or self.gone:
            return
        self.starts += 1
        process = self.process = Process(self.name)
        process.wall_offset_ns = self._offset_ns
        self.world.note(self.name, f"start {self.starts}")
        loop = self.world.loop
        loop.create_task(self._main(process), context=process.context.copy())

    def kill(self, *, why: str = "killed", silent: bool = False) -> None:
        """End the process without a word; what was asked of it stays unanswered."""
        process = self.process
        if process is None:
            return
        self.world.note(self.name, why)
        self.kills += 1
        process.dead, process.unplugged = True, silent
        self.process = self.running = self.keeper = self.views = None
        self.network.died(process, silent=silent)
        asked, self._asked = self._asked, []
        for future in asked:
            if not future.done():
                future.set_exception(Died(why))
        self._tell()

    def cut_power(self) -> None:
        """Lose power: process, page caches, network."""
        self.kill(why="power cut", silent=True)
        for medium in self.all_media:
            medium.cut()
        self.powered = False
        self.network.power(self.name, on=False)

    @property
    def all_media(self) -> list[Medium]:
        """Every disk in it."""
        return [*self.media, *self.exported.values(), *self.rooms.values()]

    def power_on(self) -> None:
        """Give it power again, and start the node."""
        if not self.powered:
            self.powered = True
            self.network.power(self.name, on=True)
        self.start()

    def pause(self) -> None:
        """Stop the process as SIGSTOP does."""
        if self.process is not None:
            self.world.note(self.name, "paused")
            self.process.paused = True

    def resume(self) -> None:
        """Let it go on."""
        if self.process is not None and self.process.paused:
            self.world.note(self.name, "goes on")
            self.world.loop.resume(self.process)

    def home(self, origin: str) -> Stack | None:
        """Return the stack with the volumes of a node, if this machine is their home."""
        keeper = self.keeper
        if keeper is None:
            return self.running if origin == self.name else None
        for number, stack in keeper.local.items():
            domain = keeper.map.domains.get(number)
            if domain is not None and domain.row.origin == origin:
                return stack
        return None

    async def ready(self) -> None:
        """Wait until the node serves."""
        while self.running is None:
            future: asyncio.Future[None] = self.world.loop.create_future()
            self._changed.append(future)
            await future

    def _tell(self) -> None:
        changed, self._changed = self._changed, []
        for future in changed:
            if not future.done():
                future.set_result(None)

    # Clients' way in ------------------------------------------------------------------------------

    async def ask(self, origin: str, verb: Callable[[Stack], Awaitable[T]]) -> T:
        """Have the node do something with the volumes of `origin`, in its own process.

        Raises:
            Away: No node serves here.
            Died: It was killed before it answered.
            WarpError: What it answered.
        """
        process, running = self.process, self.home(origin)
        if process is None or running is None:
            raise Away(self.name)
        return await self.ask_process(process, lambda: verb(running))

    async def ask_anywhere(self, verb: Callable[[Views], Awaitable[T]]) -> T:
        """Have the node do something with volumes wherever they are at home; raises as `ask`."""
        process, views = self.process, self.views
        if process is None or views is None:
            raise Away(self.name)
        return await self.ask_process(process, lambda: verb(views))

    async def ask_process(self, process: Process, verb: Callable[[], Awaitable[T]]) -> T:
        """Have a process of this machine do something: over a connection that it has, whatever it is the home of by now.

        Raises:
            Died: It was killed, before or after it was asked.
            WarpError: What it answered.
        """
        if process is not self.process:
            raise Died(self.name)
        loop = self.world.loop
        answer: asyncio.Future[object] = loop.create_future()
        self._asked.append(answer)

        async def serve() -> None:
            try:
                result = await verb()
            except WarpError as error:
                answer.set_exception(error)
            except Exception as error:
                answer.set_exception(error)  # a mistake, or what its caller raises
            else:
                answer.set_result(result)

        loop.create_task(serve(), context=process.context.copy())
        try:
            return await answer  # type: ignore[return-value]
        finally:
            if answer in self._asked:
                self._asked.remove(answer)

    # The process ----------------------------------------------------------------------------------

    async def _main(self, process: Process) -> None:
        """Start, serve, and if it cannot start try again: a supervisor's loop."""
        while True:
            try:
                async with AsyncExitStack() as stack:
                    await self._serve(stack)
            except WarpError as error:
                self.world.note(self.name, f"cannot start: {type(error).__name__}: {error}")
            except Exception as error:
                self.world.defect(f"{self.name}: the node failed: {error!r}")
            if self.world.over:
                return
            self.running = self.keeper = self.views = None
            await asyncio.sleep(START_RETRY_S)

    async def _serve(self, stack: AsyncExitStack) -> None:
        shape = self.shape
        if shape.cluster:
            await self._serve_cluster(stack)
            return
        transport = await stack.enter_async_context(SimTransport(self.network, self.name))
        if self.exported:
            offers = {
                f"for-{user}": Offer(SimDisk(medium), frozenset({user}))
                for user, medium in self.exported.items()
            }
            exporter = Exporter(offers)
            listener = await transport.listen(f"{self.name}:{PORT}", exporter.serve)
            stack.push_async_callback(listener.close)
        if not shape.serves:
            self.world.note(self.name, "exports")
            await asyncio.Event().wait()
        stores: list[BlobStore] = [SimDisk(medium) for medium in self.media]
        peers = [self._peer(transport, user) for user in shape.uses]
        stores += [await stack.enter_async_context(peer) for peer in peers]
        metastore = Client(self._consensus, self.name)
        self.running = await self._open(stack, stores, metastore)
        self.world.note(self.name, "serves")
        self._tell()
        await asyncio.Event().wait()

    async def _serve_cluster(self, stack: AsyncExitStack) -> None:
        transport = await stack.enter_async_context(SimTransport(self.network, self.name))
        local = {
            export: LocalStore(export, SimDisk(medium), Gate(), None)
            for export, medium in {
                "@0": self.media[0],
                **{f"for-{user}": medium for user, medium in self.exported.items()},
                **self.rooms,
            }.items()
        }
        others = frozenset(self.shape.cluster) - {self.name}
        exporter = Exporter(
            {each.export: Offer(each.store, others, each.gate) for each in local.values()}
        )
        address = f"{self.name}:{PORT}"

        async def transports(name: str) -> SimTransport:
            return transport

        parts = Parts(
            node=self.name,
            shared=Client(self._consensus, self.name),
            peers=Peers(transports, Metrics(), deadline_s=PEER_DEADLINE_S),
            open_stack=self._opened,
            codec=codec,
            place=lambda kept: None,
            local=dict,
            ttl_s=TTL_S,
            monotonic=self.world.loop.time,
        )
        own: list[LocalStore | Place] = [local["@0"]]
        own += [
            Place(other, f"{other}:{PORT}", "sim", f"for-{self.name}", PEER_DEADLINE_S)
            for other in self.shape.uses
        ]
        member = MemberRow(FORMAT, self.name, address, "sim", {}, identity=f"{self.name:0>32}")
        self.keeper = keeper = Keeper(
            parts, member, local=list(local.values()), own=own, patience_s=2.0
        )

        async def make_room(export: str, home: str) -> LocalStore:
            medium = self.rooms[export] = Medium(self.world, f"{self.name}-{export}")
            made = LocalStore(export, SimDisk(medium), Gate(), None)
            exporter.offer(export, Offer(made.store, others, made.gate))
            return made

        keeper.make_room = make_room
        await keeper.fence()  # before anybody can ask, as in `warp_core.node.clustered`
        lines = Lines(transports)
        stack.push_async_callback(lines.close)
        keeper.on_change.append(lines.follow)
        receiver = await stack.enter_async_context(Receiver(keeper, lambda stack: Commands()))

        async def linked(link: Link) -> None:
            await divided(link, exporter.serve, receiver.serve)

        listener = await transport.listen(address, linked)
        stack.push_async_callback(listener.close)
        await stack.enter_async_context(keeper)
        router = Router(keeper, lines)
        self.views = Views(RoutedObjects(router), RoutedFiles(router), RoutedBlocks(router))
        self.world.note(self.name, "is in the cluster")
        await asyncio.Event().wait()

    @asynccontextmanager
    async def _opened(
        self,
        number: int,
        journal: Journal,
        containers: Containers,
        metastore: MetaStore,
        stores: Sequence[BlobStore],
    ) -> AsyncIterator[Stack]:
        async with AsyncExitStack() as stack:
            self.world.note(self.name, f"opens domain {number}")
            opened = await self._above(stack, number, journal, containers, metastore, stores)
            volumes = [each.row.name for each in await opened.namespace.volumes.all()]
            await directory.adopt(Client(self._consensus, self.name), number, volumes)
            yield opened
            self.world.note(self.name, f"closes domain {number}")

    def _peer(self, transport: SimTransport, machine: str) -> PeerStore:
        async def dial() -> Link:
            return await transport.dial(f"{machine}:{PORT}", peer=machine, timeout_s=1.0)

        return PeerStore(dial, export=f"for-{self.name}", peer=machine, deadline_s=PEER_DEADLINE_S)

    async def _open(
        self, stack: AsyncExitStack, stores: Sequence[BlobStore], metastore: MetaStore
    ) -> Stack:
        """Open what a node opens, in the same order (`warp_core.node.assembly`), with the machine's clocks."""
        copies = stores[: self.shape.copies]

        async def leaving(living: Sequence[str]) -> None:
            self.whole = tuple(living)

        journal = await stack.enter_async_context(
            Journal(copies, leaving=leaving, whole=self.whole)
        )
        slots = [
            StoreSlot(f"{self.name}/{number}", store, str(number))
            for number, store in enumerate(stores)
        ]
        containers = await stack.enter_async_context(
            Containers(slots, codec=codec, journal=journal)
        )
        await stack.enter_async_context(metastore)
        if not metastore.capabilities.journaled:
            journal.release(NO_COMMITS)
        return await self._above(stack, 0, journal, containers, metastore, stores)

    async def _above(
        self,
        exits: AsyncExitStack,
        number: int,
        journal: Journal,
        containers: Containers,
        metastore: MetaStore,
        stores: Sequence[BlobStore],
    ) -> Stack:
        """Open what lies above data and metadata, in the order of `warp_core.node.stack`, with work that comes often."""
        loop = self.world.loop
        policy = DataPolicy(chunker="fixed:65536")
        namespace = Namespace(metastore, containers, opens=Opens(loop.time), policy=policy)
        inodes = Inodes(namespace, FileLog(journal, containers, stores))
        files = NamespaceFiles(namespace, inodes)
        await inodes.recover()
        stack = Stack(
            number,
            journal,
            containers,
            metastore,
            namespace,
            NamespaceObjects(namespace),
            files,
            NamespaceBlocks(files),
            Snapshots(namespace, inodes),
        )
        tasks = [loop.create_task(self._checkpoints(inodes)), loop.create_task(self._upkeep(stack))]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await files.settle_collections()
                await inodes.checkpoint()
            except WarpError as error:
                self.world.note(self.name, f"files are behind: {error}")

        exits.push_async_callback(end)
        return stack

    async def _checkpoints(self, inodes: Inodes) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            try:
                await inodes.checkpoint()
            except WarpError as error:
                self.world.note(self.name, f"checkpoint failed: {error}")

    async def _upkeep(self, running: Stack) -> None:
        """Do what the services `gc` and `heal` do, in their order."""
        garbage, upkeep = Garbage(running.namespace), Upkeep(running.namespace)
        containers = running.containers
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                await garbage.drain()
                await upkeep.work()
                await garbage.advance()
                await containers.recover(garbage.refers, budget=BUDGET)
                await garbage.reclaim()
                await containers.collect(budget=BUDGET)
                await containers.repair(budget=BUDGET)
                await containers.heal(budget=BUDGET)
            except (WarpError, NotFound, InvalidArgument) as error:
                self.world.note(self.name, f"upkeep failed: {type(error).__name__}: {error}")
            except Exception as error:
                self.world.defect(f"{self.name}: upkeep failed: {error!r}")
