"""Clients of a disk, and what it may hold: the last write of each block, or after a crash one of those since the last flush.

A block is 512 bytes. Each client writes ranges of blocks that no other one uses at that moment, so what a block holds is known but
for crashes and for writes that failed: `Blocks` keeps the changes that it may show now, and those that it may show after a crash.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from warp_core.errors import AlreadyExists, Corrupt, WarpError
from warp_core.node.stack import Stack
from warp_core.views.blocks import BLOCK, Disk

from warp_conformance.simulation.loop import Process
from warp_conformance.simulation.machine import Away, Died, Machine
from warp_conformance.simulation.objects import CLIENTS
from warp_conformance.simulation.world import World

T = TypeVar("T")

BLOCKS = 64  # that clients write
BASE = 1024 * 1024 - BLOCKS // 2 * BLOCK  # across the border of two windows of extents
SIZE = 2 * 1024 * 1024
LENGTH_MAX = 12  # blocks of one request
VERBS = ("write", "write", "write", "fua", "flush", "read", "read", "trim", "zero")
PAUSE_S = (0.0, 0.03)
IDLE_S = (
    0.5,
    4.0,
)  # one pause in IDLE: what happened to the home meanwhile, its connection has to tell
IDLE = 0.01
RETRY_S = 0.1
MOVE = 0.03  # after a request: the disk is opened anew, perhaps elsewhere
PATH = b"disks/one"


def block(stamp: int) -> bytes:
    """Return a block that names its write; 0 is zeros."""
    return stamp.to_bytes(8, "big") * (BLOCK // 8)


def stamp_of(data: bytes) -> int | None:
    """Return the write that a block names, None if it is not of one write."""
    first = data[:8]
    return int.from_bytes(first, "big") if data == first * (BLOCK // 8) else None


Change = tuple[int, int]  # (when it was asked for, counting; its stamp)


class Blocks:
    """What each block may hold: `now`, and (`kept`) after a crash."""

    def __init__(self) -> None:
        self.asked = 0
        self.now: list[frozenset[Change]] = [frozenset({(0, 0)})] * BLOCKS
        self.kept: list[frozenset[Change]] = [frozenset({(0, 0)})] * BLOCKS

    def ask(self, blocks: range, stamp: int) -> Change:
        """Note a change that is asked for: from now on it may have happened, in any of its blocks."""
        self.asked += 1
        change = (self.asked, stamp)
        for each in blocks:
            self.now[each] |= {change}
            self.kept[each] |= {change}
        return change

    def done(self, blocks: range, change: Change, *, durable: bool) -> None:
        """Note that it returned."""
        for each in blocks:
            self.now[each] = frozenset({change})
            if durable:
                self.kept[each] = frozenset({change})

    def flushed(self, moment: list[frozenset[Change]], asked: int) -> None:
        """Note that a flush returned that began when the disk held `moment`, after `asked` changes."""
        for each, held in enumerate(moment):
            since = {change for change in self.kept[each] if change[0] > asked}
            self.kept[each] = (held & self.kept[each]) | since

    def crashed(self) -> None:
        """Note a crash: what was not flushed may be lost."""
        self.now = list(self.kept)

    def read(self, at: int, stamp: int | None) -> bool:
        """Note what a block read as; say whether that may be."""
        found = frozenset(change for change in self.now[at] if change[1] == stamp)
        if found:
            self.now[at] = found
        return bool(found)


@dataclass(frozen=True, slots=True)
class Connection:
    """A disk that a client has open. What it asks goes to the process that opened it, as over a socket."""

    name: str
    machine: Machine
    process: Process
    disk: Disk


class DiskClients:
    """Clients of one disk."""

    def __init__(
        self, world: World, machines: Sequence[Machine], *, origin: str, volume: str, clients: int
    ) -> None:
        self.world = world
        self.machines = machines
        self.origin = origin  # the node that made the volume
        self.volume = volume
        self.redundancy = "journal"  # what is written in place has as many copies as that
        self.clients = clients
        self.blocks = Blocks()
        self.violations: list[str] = []
        self.counts: dict[str, int] = {"answered": 0, "failed": 0, "unanswered": 0, "away": 0}
        self._busy = [False] * BLOCKS
        self._stamp = 0
        self._life = 0  # counts crashes
        self._incarnations: set[str] = set()  # of the disk, as connections were told

    async def prepare(self) -> None:
        """Create volume and disk, however often that takes."""

        async def create(node: Stack) -> None:
            with suppress(AlreadyExists):  # an earlier attempt did it
                await node.objects.create_volume(self.volume, owner=CLIENTS)
            with suppress(AlreadyExists):
                await node.blocks.create(self.volume, PATH, size=SIZE)

        machine = next(each for each in self.machines if each.name == self.origin)
        while True:
            try:
                await machine.ask(self.origin, create)
            except (Away, Died, WarpError) as error:
                self.world.note("clients", f"disk: {error!r}")
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _opened(self, incarnation: str) -> None:
        """Take note of what a new connection is told: another incarnation has what was flushed, and perhaps more."""
        if incarnation not in self._incarnations:
            self._incarnations.add(incarnation)
            self._life += 1
            self.blocks.crashed()

    async def run(self, until: float) -> None:
        """Work until then."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                name = f"{self.volume}.{number}"
                group.create_task(self._client(name, self.world.chance(name), until))

    async def _client(self, name: str, chance: random.Random, until: float) -> None:
        while self.world.now < until:
            machine = chance.choice(list(self.machines))
            try:
                connection = await self._open(machine, name)
                while self.world.now < until and chance.random() > MOVE:
                    idle = chance.random() < IDLE
                    await asyncio.sleep(chance.uniform(*(IDLE_S if idle else PAUSE_S)))
                    await self._step(connection, chance)
            except Away:
                self.counts["away"] += 1
                await asyncio.sleep(RETRY_S)
            except (Died, WarpError) as error:
                self.counts["failed"] += 1
                self.world.note(name, f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_S)

    async def _open(self, machine: Machine, name: str) -> Connection:
        async def connect(node: Stack) -> Disk:
            return await node.blocks.open(self.volume, PATH, initiator=name)

        process = machine.process
        disk = await machine.ask(self.origin, connect)
        assert process is not None
        self._opened(disk.info.incarnation)
        return Connection(name, machine, process, disk)

    async def _step(self, connection: Connection, chance: random.Random) -> None:
        verb = chance.choice(VERBS)
        if verb == "flush":
            await self._flush(connection)
            return
        blocks = self._free(chance)
        if not blocks:
            return
        with self._taken(blocks):
            if verb == "read":
                await self._read(connection, blocks)
            else:
                await self._change(connection, verb, blocks)

    def _free(self, chance: random.Random) -> range:
        first = chance.randrange(BLOCKS)
        last = min(first + chance.randint(1, LENGTH_MAX), BLOCKS)
        end = first
        while end < last and not self._busy[end]:
            end += 1
        return range(first, end)

    @contextmanager
    def _taken(self, blocks: range) -> Iterator[None]:
        for each in blocks:
            self._busy[each] = True
        try:
            yield
        finally:
            for each in blocks:
                self._busy[each] = False

    async def _change(self, connection: Connection, verb: str, blocks: range) -> None:
        offset, length = BASE + blocks[0] * BLOCK, len(blocks) * BLOCK
        stamp = 0
        if verb in ("write", "fua"):
            self._stamp += 1
            stamp = self._stamp
        self.world.note(connection.name, f"{verb} {blocks[0]}+{len(blocks)} {stamp}")
        asked = self.blocks.ask(blocks, stamp)
        life = self._life
        disk = connection.disk

        async def change() -> None:
            if verb == "trim":
                await disk.trim(offset, length)
            elif verb == "zero":
                await disk.zero(offset, length)
            else:
                await disk.write(offset, block(stamp) * len(blocks), fua=verb == "fua")

        await self._ask(connection, verb, change)
        if life == self._life:
            self.blocks.done(blocks, asked, durable=verb == "fua")

    async def _flush(self, connection: Connection) -> None:
        self.world.note(connection.name, "flush")
        moment, asked, life = list(self.blocks.now), self.blocks.asked, self._life
        await self._ask(connection, "flush", connection.disk.flush)
        if life == self._life:
            self.blocks.flushed(moment, asked)

    async def _read(self, connection: Connection, blocks: range) -> None:
        offset, length = BASE + blocks[0] * BLOCK, len(blocks) * BLOCK
        self.world.note(connection.name, f"read {blocks[0]}+{len(blocks)}")
        life = self._life

        async def read() -> bytes:
            return bytes(await connection.disk.read(offset, length))

        data = await self._ask(connection, "read", read)
        if life == self._life:
            self._compare(blocks, data)

    def _compare(self, blocks: Sequence[int], data: bytes) -> None:
        for number, at in enumerate(blocks):
            found = stamp_of(data[number * BLOCK : (number + 1) * BLOCK])
            allowed = sorted({stamp for _, stamp in self.blocks.now[at]})
            if not self.blocks.read(at, found):
                what = "a mix of writes" if found is None else f"write {found}"
                self.violations.append(
                    f"at {self.world.now:.3f} s: block {at} of {self.volume} is {what}, may be {allowed}"
                )

    async def _ask(self, connection: Connection, verb: str, what: Callable[[], Awaitable[T]]) -> T:
        self.counts["unanswered"] += 1
        try:
            answer = await connection.machine.ask_process(connection.process, what)
        except WarpError as error:
            self.counts["unanswered"] -= 1
            if isinstance(error, Corrupt):
                self.violations.append(f"at {self.world.now:.3f} s: {verb}: {error}")
            raise
        self.counts["unanswered"] -= 1
        self.counts["answered"] += 1
        return answer

    def judge(self) -> list[str]:
        """Return what is wrong, in sentences."""
        return self.violations

    async def last_look(self) -> None:
        """Read the whole range once more."""
        while True:
            for machine in self.machines:
                with suppress(Away, Died, WarpError):
                    await self._read(await self._open(machine, "last"), range(BLOCKS))
                    return
            await asyncio.sleep(RETRY_S)
