"""A workload on the embedded metadata engine over its journal on three disks.

Runs as a process of its own inside the recorded file systems:
`python -m warp_integration.metawork LEDGER POSITION STEPS SEED DISK...`.

Several writers commit at once, so that their commits share syncs. Each commit writes two rows far apart; after a cut
both must tell the same.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

from warp_core.config.types import Size
from warp_core.containers.journal import Journal
from warp_core.interfaces.consistency import SCAN_MAX, Commit, MetaStore, Write
from warp_disk import Config as DiskConfig
from warp_disk import Disk
from warp_local.config import Config
from warp_local.engine import Local

from warp_integration.powercut.bench import Recording, Remains
from warp_integration.powercut.campaign import Unreadable, Workload
from warp_integration.powercut.ledger import ABSENT, Ledger
from warp_integration.powercut.position import Position

DISKS = 3
_WRITERS = 8
_KEYS = 6  # of each writer
_SEGMENT = 1 << 20  # small, so that a run fills several
_CHECKPOINT_ROWS = 40  # likewise, so that cuts hit checkpoints
_FIRST, _SECOND = b"a/", b"z/"


@asynccontextmanager
async def open_engine(folders: Sequence[Path]) -> AsyncIterator[Local]:
    """Open the engine with its copies in `folders`."""
    async with AsyncExitStack() as stack:
        stores = []
        for folder in folders:
            disk = Disk(DiskConfig(path=str(folder), reserve=Size(1 << 20)), folder)
            stores.append(await stack.enter_async_context(disk))
        journal = await stack.enter_async_context(Journal(stores, segment_size=_SEGMENT))
        config = Config(checkpoint_rows=_CHECKPOINT_ROWS)
        yield await stack.enter_async_context(Local(config, stores, journal))


async def contents(engine: MetaStore) -> dict[str, str]:
    """Return the content of every pair of rows; halves that differ are a content of their own."""
    first, second = [await _rows(engine, prefix) for prefix in (_FIRST, _SECOND)]
    seen = {}
    for key in first.keys() | second.keys():
        halves = {first.get(key, ABSENT), second.get(key, ABSENT)}
        seen[key] = " and ".join(sorted(halves))
    return seen


async def _rows(engine: MetaStore, prefix: bytes) -> dict[str, str]:
    view = engine.view()
    rows = await view.scan(prefix, prefix + b"\xff", limit=SCAN_MAX)
    view.close()
    return {
        row.key.removeprefix(prefix).decode(): row.value.partition(b" ")[0].decode() for row in rows
    }


async def _write(engine: MetaStore, ledger: Ledger, writer: int, *, steps: int, seed: int) -> None:
    rng = random.Random(seed * 100 + writer)
    for step in range(steps):
        key = f"{writer}-{rng.randrange(_KEYS)}"
        filler = b" " + bytes(rng.choice((0, 100, 3000, 30_000)))
        deletes = rng.random() < 0.2
        content = ABSENT if deletes else f"{key}~{step}"
        value = None if deletes else content.encode() + filler
        operation = ledger.begin(key, content)
        rows = [Write(prefix + key.encode(), value) for prefix in (_FIRST, _SECOND)]
        await engine.commit(Commit(writes=rows))
        ledger.acknowledge(operation)


class MetaWorkload(Workload):
    """The load in its own process; `lose` takes a disk away at every second cut, each in turn."""

    disks = DISKS

    def __init__(self, *, steps: int, seed: int, lose: bool = False) -> None:
        self._steps = steps
        self._seed = seed
        self._lose = lose
        self._cuts = 0
        self.environment: Mapping[str, str] | None = None

    def run(self, recording: Recording) -> Ledger:
        """Run the load to its end."""
        ledger = recording.mounts[0].parent / "ledger"
        numbers = (str(self._steps), str(self._seed))
        stores = [mount / "store" for mount in recording.mounts]
        child = recording.namespace.popen(
            [sys.executable, "-m", __name__, ledger, recording.position_file, *numbers, *stores],
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        _, errors = child.communicate()
        if child.returncode:
            raise RuntimeError(f"the load failed: {errors.decode()}")
        return Ledger.load(ledger)

    def read_back(self, remains: Remains) -> Mapping[str, str]:
        """Open the engine as its next owner would."""
        folders = [remains.path(disk) / "store" for disk in range(DISKS)]
        self._cuts += 1
        if self._lose and self._cuts % 2:
            shutil.rmtree(folders[self._cuts // 2 % DISKS], ignore_errors=True)

        async def read() -> dict[str, str]:
            async with open_engine(folders) as engine:
                return await contents(engine)

        try:
            return asyncio.run(read())
        except Exception as error:
            raise Unreadable(repr(error)) from error


async def _work(folders: Sequence[Path], ledger: Ledger, *, steps: int, seed: int) -> None:
    async with open_engine(folders) as engine, asyncio.TaskGroup() as group:
        for writer in range(_WRITERS):
            group.create_task(_write(engine, ledger, writer, steps=steps, seed=seed))


def main(arguments: list[str]) -> None:
    """Run the load."""
    file, position_file, steps, seed, *folders = arguments
    with (
        Position(Path(position_file)) as position,
        closing(Ledger(position.read, file=Path(file))) as ledger,
    ):
        asyncio.run(_work([Path(f) for f in folders], ledger, steps=int(steps), seed=int(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
