"""Kill a server under load again and again, and judge after every restart."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warp_integration.powercut.ledger import Finding
from warp_integration.s3load import S3Load, settle
from warp_integration.server import WarpServer

EARLIEST_S, LATEST_S = 0.02, 0.8  # after the load began; the spread matters more than the length
EARLY_SHARE = (
    0.15  # of the starts that are killed before they are ready: recovery has to survive, too
)
PER_KILL = 6  # acknowledged on average before each kill at least, however slow the machine is
_HANG_S = 120.0  # within which that is so on any machine
_LOOK_S = 0.01


@dataclass(slots=True)
class Killings:
    """What a series of kills did."""

    kills: int = 0
    early_kills: int = 0
    acknowledged: int = 0
    findings: list[tuple[int, Finding]] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        slowest = max(self.start_s, default=0.0)
        lines = [
            f"{self.kills} kills under load, {self.early_kills} while starting, {self.acknowledged} acknowledged, "
            f"slowest start {slowest:.2f} s, {len(self.findings)} findings"
        ]
        return "\n".join(lines + [f"  kill {n}: {finding}" for n, finding in self.findings[:20]])


def kill_under_load(
    server: WarpServer,
    load: S3Load,
    *,
    kills: int,
    seed: int,
    while_down: Callable[[int], Sequence[str]] = lambda number: (),
    stop_at: int = 20,
) -> Killings:
    """SIGKILL `server` `kills` times at random moments of `load`, restart, judge.

    Args:
        server: Not running yet.
        load: On a ledger without positions.
        kills: How many under load; starts that are killed come on top.
        seed: Decides the moments.
        while_down: Called with the number of each kill before the restart: may damage what redundancy covers, and returns the
            options that the next start needs for it.
        stop_at: How many findings are enough.
    """
    rng = random.Random(seed)
    result = Killings()
    _start(server, result)
    asyncio.run(load.prepare(server.s3))
    for number in range(kills):
        least = PER_KILL * (number + 1)
        asyncio.run(_load_and_kill(server, load, rng.uniform(EARLIEST_S, LATEST_S), least))
        result.kills += 1
        options = while_down(number)
        while rng.random() < EARLY_SHARE:
            server.launch(*options)
            time.sleep(rng.uniform(0, 1.2 * result.start_s[-1]))
            server.kill()
            result.early_kills += 1
        _start(server, result, *options)
        found = asyncio.run(settle(load, server.s3))
        result.findings += [(number, finding) for finding in found]
        if len(result.findings) >= stop_at:
            break
    result.acknowledged = load.ledger.acknowledged()
    server.kill()
    return result


def _start(server: WarpServer, result: Killings, *options: str) -> None:
    started = time.monotonic()
    server.start(*options)
    result.start_s.append(time.monotonic() - started)


async def _load_and_kill(server: WarpServer, load: S3Load, after_s: float, least: int) -> None:
    async def kill() -> None:
        await asyncio.sleep(after_s)
        deadline = asyncio.get_running_loop().time() + _HANG_S
        while load.ledger.acknowledged() < least:
            assert asyncio.get_running_loop().time() < deadline, "nothing is acknowledged"
            await asyncio.sleep(_LOOK_S)
        server.kill()

    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(server.s3, seconds=after_s + 2 * _HANG_S))
        group.create_task(kill())
