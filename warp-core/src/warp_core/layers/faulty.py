"""Scripted faults: what a failing disk, a lying cache or a flaky network do, on demand and repeatably.

A script is a list of rules, each about one kind of call: `Rule.parse("write:torn@3")` tears the third
write, `"sync:error@10-"` fails every sync from the tenth on, `"read:flip%0.01"` flips a bit in one of
a hundred reads. Chance comes from the script's seed, so a run can be repeated.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from warp_core.errors import (
    Ambiguous,
    Conflict,
    InvalidArgument,
    NoSpace,
    StoreFailed,
    Unavailable,
    WarpError,
)
from warp_core.interfaces.consistency import Commit, MetaStore
from warp_core.interfaces.stores import BlobStore, Buffer
from warp_core.layers.forward import MetaLayer, StoreLayer
from warp_core.layers.slow import Sleep

T = TypeVar("T")

Action = Literal[
    "error",  # not done, and an error: StoreFailed of a store, Unavailable of an engine
    "full",  # not done, NoSpace
    "late",  # done, and an error all the same
    "lost",  # not done, and success claimed
    "torn",  # writes: a random prefix is done, and an error
    "cut",  # writes: a random prefix is done, and success claimed
    "flip",  # reads: one bit of the answer is wrong
    "delay",  # done, a second later
    "hang",  # never returns
    "conflict",  # commits: not done, Conflict
    "ambiguous",  # commits: done or not, by chance, and Ambiguous
]

DELAY_S = 1.0
_RULE = re.compile(
    r"(?P<call>[a-z_]+|\*):(?P<action>[a-z]+)"
    r"(?:@(?P<first>\d+)(?P<dash>-(?P<last>\d*))?)?(?:%(?P<chance>[0-9.]+))?(?: (?P<blob>\S+))?"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to which calls: those of `call` on blobs that match `blob`, counted from 1."""

    call: str
    action: Action
    first: int = 1
    last: int | None = None  # None: for ever
    chance: float = 1.0
    blob: str = "*"

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `CALL:ACTION[@FIRST[-[LAST]]][%CHANCE][ BLOB]`; `@3` alone is the third call only.

        Raises:
            InvalidArgument: It reads otherwise.
        """
        match = _RULE.fullmatch(text)
        actions = Action.__args__  # type: ignore[attr-defined]
        if match is None or match["action"] not in actions:
            raise InvalidArgument(
                f'fault "{text}" is not CALL:ACTION[@FIRST[-[LAST]]][%CHANCE][ BLOB]'
                f" with an action of {', '.join(actions)}"
            )
        first = int(match["first"] or 1)
        last = None if match["first"] is None or match["dash"] else first
        return cls(
            match["call"],
            match["action"],  # type: ignore[arg-type]
            first,
            int(match["last"]) if match["last"] else last,
            float(match["chance"] or 1),
            match["blob"] or "*",
        )


@dataclass(slots=True)
class Script:
    """Rules, how often each call was seen, and what was done to it."""

    rules: Sequence[Rule]
    seed: int = 0
    enabled: bool = True
    fired: list[tuple[str, str, Action]] = field(default_factory=list)  # (call, blob, action)
    _counts: dict[int, int] = field(default_factory=dict)
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    @classmethod
    def parse(cls, rules: Iterable[str], seed: int = 0) -> Script:
        """Read rules; raises as `Rule.parse`."""
        return cls([Rule.parse(rule) for rule in rules], seed)

    def next(self, call: str, blob: str = "") -> Action | None:
        """Return what happens to this call: the action of the first rule that it meets."""
        if not self.enabled:
            return None
        chosen: Action | None = None
        for index, rule in enumerate(self.rules):
            if rule.call not in (call, "*") or not fnmatchcase(blob, rule.blob):
                continue
            seen = self._counts[index] = self._counts.get(index, 0) + 1
            due = rule.first <= seen and (rule.last is None or seen <= rule.last)
            if chosen is None and due and (rule.chance >= 1 or self._draw.random() < rule.chance):
                chosen = rule.action
        if chosen is not None:
            self.fired.append((call, blob, chosen))
        return chosen

    def below(self, limit: int) -> int:
        """Draw a number from 0 to `limit` - 1; 0 if there is none."""
        return self._draw.randrange(limit) if limit > 0 else 0


class FaultyStore(StoreLayer):
    """A store that fails as scripted."""

    def __init__(self, inner: BlobStore, script: Script, *, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__(inner)
        self.script = script
        self._sleep = sleep

    async def _call(self, call: str, name: str, size: int, run: Callable[[], Awaitable[T]]) -> T:
        return await self._act(self.script.next(call, name), call, name, run)

    async def _act(
        self, action: Action | None, call: str, name: str, run: Callable[[], Awaitable[T]]
    ) -> T:
        if action == "lost":
            return None  # type: ignore[return-value]
        if action == "delay":
            await self._sleep(DELAY_S)
        elif action == "hang":
            await asyncio.Event().wait()
        elif action not in (None, "late", "flip"):
            raise _refusal(action, call, name)
        result = await run()
        if action == "late":
            raise _refusal(action, call, name)
        if action == "flip" and isinstance(result, bytes):
            result = self._flip(result)  # type: ignore[assignment]
        return result

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """As the inner store, unless the script has it otherwise."""
        action = self.script.next("put", name)
        kept = self._prefix(action, buffers)
        if kept is not None:
            await self.inner.put(name, kept, vital=vital)
            _after_prefix(action, "put", name)
            return
        await self._act(action, "put", name, lambda: self.inner.put(name, buffers, vital=vital))

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """As the inner store, unless the script has it otherwise."""
        action = self.script.next("write", name)
        kept = self._prefix(action, buffers)
        if kept is not None:
            await self.inner.write(name, offset=offset, buffers=kept, sync=sync)
            _after_prefix(action, "write", name)
            return
        await self._act(
            action,
            "write",
            name,
            lambda: self.inner.write(name, offset=offset, buffers=buffers, sync=sync),
        )

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """As the inner store, unless the script has it otherwise."""
        action = self.script.next("read", name)
        if action == "lost":
            return bytes(length)  # what a device returns for what it never wrote
        return await self._act(
            action, "read", name, lambda: self.inner.read(name, offset=offset, length=length)
        )

    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        """As the inner store, unless the script has it otherwise."""
        data = await self.read(name, offset=offset, length=len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """As the inner store, unless reads are scripted: then None, so that `read` decides."""
        if self._scripted("read"):
            return None
        return self.inner.read_now(name, offset=offset, length=length)

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """As `read_now`."""
        if self._scripted("read"):
            return None
        return self.inner.read_into_now(name, offset=offset, buffer=buffer)

    def _scripted(self, call: str) -> bool:
        return self.script.enabled and any(rule.call in (call, "*") for rule in self.script.rules)

    def _prefix(self, action: Action | None, buffers: Sequence[Buffer]) -> list[Buffer] | None:
        if action not in ("torn", "cut"):
            return None
        data = b"".join(buffers)
        return [data[: self.script.below(len(data))]]

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        bit = self.script.below(len(data) * 8)
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        return bytes(wrong)


class FaultyMeta(MetaLayer):
    """A metadata engine that fails as scripted; calls are commit, get, scan, outcome, lease, ..."""

    def __init__(self, inner: MetaStore, script: Script, *, sleep: Sleep = asyncio.sleep) -> None:
        super().__init__(inner)
        self.script = script
        self._sleep = sleep

    async def _call(self, call: str, run: Callable[[], Awaitable[T]]) -> T:
        return await self._act(self.script.next(call), call, run)

    async def _act(self, action: Action | None, call: str, run: Callable[[], Awaitable[T]]) -> T:
        if action == "delay":
            await self._sleep(DELAY_S)
        elif action == "hang":
            await asyncio.Event().wait()
        elif action == "ambiguous":
            if self.script.below(2):
                await run()
            raise Ambiguous(f"{call}: interrupted, as scripted")
        elif action == "late":
            await run()
            raise Unavailable(f"{call}: failed late, as scripted")
        elif action == "conflict":
            raise Conflict(f"{call}: conflict, as scripted")
        elif action is not None:
            raise Unavailable(f"{call}: failed, as scripted")
        return await run()

    async def commit(self, commit: Commit) -> int:
        """As the inner engine, unless the script has it otherwise; "lost" claims a version."""
        action = self.script.next("commit")
        if action == "lost":
            view = self.inner.view()
            view.close()
            return view.version + 1
        return await self._act(action, "commit", lambda: self.inner.commit(commit))


def _refusal(action: Action | None, call: str, name: str) -> WarpError:
    if action == "full":
        return NoSpace(f"{call} {name}: no space, as scripted")
    return StoreFailed(f"{call} {name}: failed as scripted")


def _after_prefix(action: Action | None, call: str, name: str) -> None:
    if action == "torn":
        raise StoreFailed(f"{call} {name}: torn as scripted")
