"""Clients that compete for a few objects, and what they should have seen: a register for each key, linearizable across crashes."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from warp_core.cluster import directory
from warp_core.errors import (
    AlreadyExists,
    Ambiguous,
    Corrupt,
    NotFound,
    PreconditionFailed,
    TimedOut,
    Unavailable,
    VolumeNotFound,
    WarpError,
)
from warp_core.interfaces.auth import Principal
from warp_core.node.stack import Stack
from warp_core.views import Files, Objects
from warp_core.views.objects import ALWAYS, SMALL_MAX, Attributes, Condition, Digests

from warp_conformance.linearizability import NEVER, Model, Operation, TooMuchOverlap, check
from warp_conformance.simulation.machine import Away, Died, Machine
from warp_conformance.simulation.world import World

CLIENTS = Principal("account:clients")
PLAIN = Attributes()
VERBS = ("put", "put", "swap", "swap", "first", "get", "get", "get", "head", "delete", "list")
PAUSE_S = (0.0, 0.04)  # between two requests of one client
RETRY_S = 0.1  # until a node that is away is asked again
ABSENT = ""
STEP = 128 * 1024  # bytes of a large body that come at once


@dataclass(frozen=True, slots=True)
class Request:
    """One request for one key. `new` is the ETag that it leaves, `expected` its condition: an ETag, "*" for none, or ""."""

    verb: str
    new: str = ""
    expected: str = ""


def after(state: str, operation: Operation) -> str | None:
    """Return the ETag of an object (ABSENT for none) after a request, None where the answer does not fit it."""
    asked: Request = operation.asked
    if asked.verb == "get":
        return state if operation.answer == state else None
    if asked.verb == "delete":
        return ABSENT
    holds = not asked.expected or state == (ABSENT if asked.expected == "*" else asked.expected)
    if operation.answered and operation.answer != holds:
        return None
    return asked.new if holds else state


OBJECT = Model(ABSENT, after)


def etag_of(number: int) -> str:
    """Return the ETag of a write, which its content is made of."""
    return f"{number:032x}"


def content(etag: str, size: int) -> bytes:
    """Return what a write stores: no two writes share any part of it."""
    return hashlib.shake_128(etag.encode()).digest(size)


class Viewed(Protocol):
    """What a client asks: a stack, or the views of all volumes."""

    @property
    def objects(self) -> Objects:
        """The view of objects."""

    @property
    def files(self) -> Files:
        """The view of files."""


class ObjectClients:
    """Clients of one volume. `violations` is what they saw that may not be."""

    verbs: ClassVar[Sequence[str]] = VERBS

    def __init__(
        self,
        world: World,
        machines: Sequence[Machine],
        *,
        origin: str,
        volume: str,
        redundancy: str,
        clients: int,
        keys: int,
        sizes: Sequence[int],
        versioning: bool,
        slow_s: float,
        anywhere: bool = False,
    ) -> None:
        self.world = world
        self.machines = machines
        self.origin = origin  # the node that made the volume
        self.volume = volume
        self.redundancy = redundancy
        self.clients = clients
        self.sizes = sizes
        self.versioning = versioning
        self.anywhere = anywhere  # they ask any node, else the home
        self.slow_s = slow_s  # between parts of a large body, times 0 to 3: some clients are slow
        self.history: dict[str, list[Operation]] = {f"k{number}": [] for number in range(keys)}
        self.violations: list[str] = []
        self.counts: dict[str, int] = {"answered": 0, "failed": 0, "unanswered": 0, "away": 0}
        self._sizes: dict[str, int] = {}
        self._known: dict[bytes, str] = {}  # of files: SHA-256 of what was written → its ETag
        self._seen: dict[str, str] = dict.fromkeys(self.history, ABSENT)
        self._number = 0

    async def prepare(self) -> None:
        """Create the volume, however often that takes."""

        async def create(node: Stack) -> None:
            policy = {"redundancy": self.redundancy}
            with suppress(AlreadyExists):  # an earlier attempt did it
                await node.namespace.volumes.create(self.volume, owner=CLIENTS.name, policy=policy)
            if self.versioning:
                await node.objects.set_versioning(self.volume, "on")

        machine = next(each for each in self.machines if each.name == self.origin)

        async def name(node: Stack) -> None:
            if machine.keeper is not None:
                await directory.adopt(machine.keeper.shared, node.number, [self.volume])

        while True:
            try:
                await machine.ask(self.origin, create)
                await machine.ask(self.origin, name)
            except (Away, Died, WarpError) as error:
                self.world.note("clients", f"volume {self.volume}: {error!r}")
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def run(self, until: float) -> None:
        """Ask until then."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                name = f"{self.volume}.{number}"
                group.create_task(self._client(name, self.world.chance(name), until))

    async def _client(self, name: str, chance: random.Random, until: float) -> None:
        while self.world.now < until:
            await asyncio.sleep(chance.uniform(*PAUSE_S))
            machine = chance.choice(list(self.machines))
            verb = chance.choice(self.verbs)
            key = chance.choice(list(self.history))
            if not await self._ask(machine, name, verb, key, chance):
                await asyncio.sleep(RETRY_S)

    async def _ask(
        self, machine: Machine, name: str, verb: str, key: str, chance: random.Random
    ) -> bool:
        asked, size = Request("get"), 0
        if verb in ("put", "swap", "first"):
            self._number += 1
            new, size = etag_of(self._number), chance.choice(list(self.sizes))
            self._sizes[new] = size
            seen = self._seen[key]
            expected = {"put": "", "swap": seen or etag_of(0), "first": "*"}[verb]
            asked = Request("put", new, expected)
        elif verb == "delete":
            asked = Request("delete")
        called_at = self.world.now
        self.world.note(name, f"{verb} {key} {asked.new[-6:]} {asked.expected[-6:]} {size or ''}")
        self.counts["unanswered"] += 1
        try:
            answer = await self._answer(
                machine, lambda node: self._do(node, verb, asked, key, size)
            )
        except Away:
            self.counts["unanswered"] -= 1
            self.counts["away"] += 1
            return False
        except Died:
            self._note(key, Operation(called_at, NEVER, asked, answered=False, client=name))
            return False
        except (WarpError, Wrong) as error:
            # What failed may have happened all the same: its commit, say, was not answered.
            self.world.note(name, f"{verb} {key}: {type(error).__name__}: {error}")
            self.counts["unanswered"] -= 1
            self.counts["failed"] += 1
            if isinstance(error, Corrupt | Wrong | VolumeNotFound):
                self.violations.append(
                    f"at {self.world.now:.3f} s: {verb} {self.volume}/{key}: {error}"
                )
            lost: tuple[type[WarpError], ...] = (Ambiguous,)
            if self.anywhere:  # between the node that was asked and the home
                lost = (Ambiguous, Unavailable, TimedOut)
            until = NEVER if isinstance(error, lost) else self.world.now
            self._note(key, Operation(called_at, until, asked, answered=False, client=name))
            return True
        self.world.note(name, f"{verb} {key} -> {answer}")
        self.counts["unanswered"] -= 1
        self.counts["answered"] += 1
        if verb == "list":
            return True
        self._note(key, Operation(called_at, self.world.now, asked, answer, True, name))
        if isinstance(answer, str):
            self._seen[key] = answer
        elif answer and asked.new:
            self._seen[key] = asked.new
        return True

    async def _answer(
        self, machine: Machine, verb: Callable[[Viewed], Awaitable[str | bool]]
    ) -> str | bool:
        if self.anywhere:
            return await machine.ask_anywhere(verb)
        return await machine.ask(self.origin, verb)

    async def _do(self, node: Viewed, verb: str, asked: Request, key: str, size: int) -> str | bool:
        """Return what was seen: an ETag of reads, of writes whether they were done."""
        objects, volume, name = node.objects, self.volume, key.encode()
        if verb == "list":
            for entry in (await objects.list(volume)).entries:
                if entry.key.decode() not in self.history:
                    raise Wrong(f"the listing shows {entry.key!r}")
            return True
        if verb == "head":
            try:
                return (await objects.head(volume, name)).etag
            except VolumeNotFound:
                raise
            except NotFound:
                return ABSENT
        if verb == "get":
            return await self._get(node, name)
        if verb == "delete":
            await objects.delete(volume, name)
            return True
        condition = ALWAYS
        if asked.expected:
            condition = (
                Condition(absent=True) if asked.expected == "*" else Condition(etag=asked.expected)
            )
        body, digests = content(asked.new, size), Digests(etag=asked.new)
        try:
            if size <= SMALL_MAX:
                await objects.put(volume, name, body, PLAIN, digests, condition=condition)
            else:
                writer = await objects.writer(volume, name, PLAIN, condition=condition, size=size)
                try:
                    for at in range(0, size, STEP):
                        await writer.write(body[at : at + STEP])
                        await asyncio.sleep(int(asked.new, 16) % 4 * self.slow_s)
                    await writer.commit(digests)
                finally:
                    await writer.abort()
        except PreconditionFailed:
            return False
        except VolumeNotFound:
            raise
        except NotFound:
            return False  # If-Match of an object that is gone
        return True

    async def _get(self, node: Viewed, name: bytes) -> str:
        try:
            reader = await node.objects.open(self.volume, name)
        except VolumeNotFound:
            raise
        except NotFound:
            return ABSENT
        try:
            etag = reader.info.etag
            size = self._sizes.get(etag)
            if size is None or reader.info.size != size:
                raise Wrong(f"{etag} has {reader.info.size} bytes, {size} were written")
            parts = []
            at = 0
            while at < size:
                part = bytes(await reader.read(at, min(size - at, 1 << 20)))
                if not part:
                    break
                parts.append(part)
                at += len(part)
            if b"".join(parts) != content(etag, size):
                raise Wrong(f"{etag} reads other bytes than were written")
            return etag
        finally:
            reader.close()

    def ended(self) -> None:
        """Take it that nothing that was asked before is still on its way: what has not happened by now never will."""
        for history in self.history.values():
            history[:] = [replace(each, until=min(each.until, self.world.now)) for each in history]

    def _note(self, key: str, operation: Operation) -> None:
        if operation.answered or operation.asked.verb != "get":
            self.history[key].append(operation)

    async def last_look(self) -> None:
        """Read every key once more: whatever was acknowledged has to be there."""
        chance = random.Random(0)
        for key in self.history:
            before = self.counts["answered"]
            while self.counts["answered"] == before:
                for machine in self.machines:
                    await self._ask(machine, "last", "get", key, chance)
                await asyncio.sleep(RETRY_S)

    def judge(self) -> list[str]:
        """Return what is wrong, in sentences."""
        found = list(self.violations)
        for key, history in self.history.items():
            try:
                verdict = check(history, OBJECT, steps_max=200_000)
            except TooMuchOverlap as error:
                found.append(f"{self.volume}/{key} cannot be judged: {error}")
                continue
            if not verdict.linearizable:
                found.append(f"{self.volume}/{key} is not linearizable: {verdict}")
        return found


class Wrong(Exception):
    """A client read what nobody wrote."""
