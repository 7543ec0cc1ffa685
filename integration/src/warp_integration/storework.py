"""A workload on one disk store: what its calls promised has to be there after a power cut.

Runs as a process of its own inside the recorded file system:
`python -m warp_integration.storework DIR LEDGER POSITION STEPS SEED`.

Blobs that were put are one register each. Growing blobs are registers of one 4 KiB slot each, since a store promises nothing
about a write that is not synced, but 4 KiB arrive whole.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from warp_core.config.types import Size
from warp_core.errors import InvalidArgument, NotFound
from warp_core.interfaces.stores import BlobStore
from warp_disk import Config, Disk

from warp_integration.powercut.bench import Recording, Remains
from warp_integration.powercut.campaign import Unreadable, Workload
from warp_integration.powercut.ledger import ABSENT, Ledger, Operation
from warp_integration.powercut.position import Position
from warp_integration.s3load import body_of, identify

SLOT = 4096
SLOTS = 8
SIZES = (100, 5000, 60_000)


class StoreLoad:
    """Random calls on one store, noted in a ledger."""

    def __init__(self, store: BlobStore, ledger: Ledger, seed: int) -> None:
        self._store = store
        self._ledger = ledger
        self._rng = random.Random(seed)
        self._serial = (
            seed * 1_000_000
        )  # names stay unique when the next seed goes on with the same store
        self._growing: list[str] = []
        self._whole = [f"w/{n}" for n in range(6)]

    def adopt(self, seen: Mapping[str, str]) -> None:
        """Go on with a store that holds `seen`."""
        for key, content in seen.items():
            self._ledger.observe(key, content)
        self._growing = [name for name, content in seen.items() if content == "there"]

    async def step(self) -> None:
        """Make one call."""
        verbs = (self._put, self._delete, self._create, self._write, self._burst, self._retire)
        await self._rng.choices(verbs, (6, 2, 2, 8, 4, 1))[0]()

    def _content(self, key: str) -> str:
        self._serial += 1
        return f"{key}~{self._serial}"

    async def _put(self) -> None:
        name = self._rng.choice(self._whole)
        content = self._content(name)
        operation = self._ledger.begin(name, content)
        await self._store.put(name, [body_of(content, self._rng.choice(SIZES))])
        self._ledger.acknowledge(operation)

    async def _delete(self) -> None:
        name = self._rng.choice(self._whole)
        if self._ledger.allowed(name) == (ABSENT,):
            return
        operation = self._ledger.begin(name, ABSENT)
        with suppress(NotFound):
            await self._store.delete(name)
        self._ledger.acknowledge(operation)

    async def _create(self) -> None:
        self._serial += 1
        name = f"g/{self._serial}"
        operation = self._ledger.begin(name, "there")
        await self._store.create(name, reserve=SLOT * SLOTS, recycle=self._rng.random() < 0.7)
        self._ledger.acknowledge(operation)
        self._growing.append(name)

    def _begin_slot(self, name: str, slot: int) -> tuple[Operation, bytes]:
        key = f"{name}[{slot}]"
        content = self._content(key)
        return self._ledger.begin(key, content), body_of(content, SLOT)

    async def _write(self) -> None:
        if not self._growing:
            return
        name, slot = self._rng.choice(self._growing), self._rng.randrange(SLOTS)
        operation, body = self._begin_slot(name, slot)
        await self._store.write(name, offset=slot * SLOT, buffers=[body], sync=True)
        self._ledger.acknowledge(operation)

    async def _burst(self) -> None:
        """Write several slots, then sync them together."""
        if not self._growing:
            return
        name = self._rng.choice(self._growing)
        operations = []
        for slot in self._rng.sample(range(SLOTS), 3):
            operation, body = self._begin_slot(name, slot)
            await self._store.write(name, offset=slot * SLOT, buffers=[body])
            operations.append(operation)
        await self._store.sync(name)
        for operation in operations:
            self._ledger.acknowledge(operation)

    async def _retire(self) -> None:
        """Seal or delete a growing blob."""
        if len(self._growing) < 3:
            return
        name = self._growing.pop(self._rng.randrange(len(self._growing)))
        if self._rng.random() < 0.5:
            operation = self._ledger.begin(name, "sealed")
            await self._store.seal(name, size=SLOT * SLOTS)
            self._ledger.acknowledge(operation)
            return
        keys = [name, *(f"{name}[{slot}]" for slot in range(SLOTS))]
        operations = [self._ledger.begin(key, ABSENT) for key in keys]
        await self._store.delete(name)
        for operation in operations:
            self._ledger.acknowledge(operation)


async def contents(store: BlobStore) -> dict[str, str]:
    """Return what a store holds, as the load's ledger names it."""
    seen: dict[str, str] = {}
    after = ""
    while listed := await store.list(after=after, limit=100):
        for blob in listed:
            body = await store.read(blob.name, offset=0, length=blob.size)
            if not blob.name.startswith("g/"):
                seen[blob.name] = identify(body)
                continue
            seen[blob.name] = await _state(store, blob.name)
            for slot in range(SLOTS):
                content = identify(body[slot * SLOT : (slot + 1) * SLOT])
                key = f"{blob.name}[{slot}]"
                if content.startswith(f"{key}~"):  # else zeros, or what a recycled file held
                    seen[key] = content
        after = listed[-1].name
    return seen


async def _state(store: BlobStore, name: str) -> str:
    try:
        await store.write(name, offset=SLOT * SLOTS, buffers=[])
    except InvalidArgument:
        return "sealed"
    return "there"


def open_disk(folder: Path) -> Disk:
    """Return the store in `folder`, small enough for a small disk."""
    return Disk(Config(path=str(folder), reserve=Size(1 << 20), spares=2), folder)


async def read_store(folder: Path) -> dict[str, str]:
    """Open the store in `folder` as its next owner would, and return what it holds."""
    async with open_disk(folder) as store:
        return await contents(store)


class StoreWorkload(Workload):
    """The load in its own process."""

    def __init__(self, *, steps: int, seed: int) -> None:
        self._steps = steps
        self._seed = seed
        self.environment: Mapping[str, str] | None = None

    def run(self, recording: Recording) -> Ledger:
        """Run the load to its end."""
        ledger = recording.mounts[0].parent / "ledger"
        numbers = (str(self._steps), str(self._seed))
        places = (recording.mounts[0] / "store", ledger, recording.position_file)
        child = recording.namespace.popen(
            [sys.executable, "-m", __name__, *places, *numbers],
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        _, errors = child.communicate()
        if child.returncode:
            raise RuntimeError(f"the load failed: {errors.decode()}")
        return Ledger.load(ledger)

    def read_back(self, remains: Remains) -> Mapping[str, str]:
        """Open the store as its next owner would."""

        try:
            return asyncio.run(read_store(remains.path() / "store"))
        except Exception as error:
            raise Unreadable(repr(error)) from error


async def _work(folder: Path, ledger: Ledger, *, steps: int, seed: int) -> None:
    async with open_disk(folder) as store:
        load = StoreLoad(store, ledger, seed)
        load.adopt(await contents(store))
        for _ in range(steps):
            await load.step()


def main(arguments: list[str]) -> None:
    """Run the load."""
    folder, file, position_file, steps, seed = arguments
    position: Callable[[], int]
    with Position(Path(position_file)) as shared:
        position = shared.read
        with closing(Ledger(position, file=Path(file))) as ledger:
            asyncio.run(_work(Path(folder), ledger, steps=int(steps), seed=int(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
