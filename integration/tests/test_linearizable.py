"""Clients that compete for the same keys see one object, whatever happens to the server meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from warp_conformance.linearizability import Operation, check
from warp_integration.histories import OBJECT, Histories, swaps
from warp_integration.server import WarpServer, config_text

SEED = int(os.environ.get("WARP_TEST_SEED", "1"))

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]


def stale(history: list[Operation]) -> list[Operation]:
    """Return a history whose last read saw what the first write had left, which others had overwritten by then."""
    history = sorted(history, key=lambda each: each.called_at)
    first = next(each for each in history if each.answer is True and each.asked.verb == "put")
    reads = [each for each in history if each.asked.verb in ("get", "head")]
    at = history.index(reads[-1])
    return [*history[:at], replace(history[at], answer=first.asked.new), *history[at + 1 :]]


@pytest.mark.parametrize(
    ("seconds", "kills"),
    [(3.0, 0), (4.0, 2), pytest.param(300.0, 150, marks=pytest.mark.slow)],
)
def test_what_clients_saw_could_have_happened_one_by_one(
    tmp_path: Path, seconds: float, kills: int
) -> None:
    config = tmp_path / "warp.toml"
    config.write_text(config_text())
    histories = Histories(SEED)
    rng = random.Random(SEED)

    async def killed_again_and_again(server: WarpServer) -> None:
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0.2, 1.6) * seconds / (kills + 1))
            server.kill()
            await asyncio.sleep(0.05)  # until the clients have seen it
            histories.ended()
            await asyncio.to_thread(server.start)

    async def run(server: WarpServer) -> None:
        await histories.prepare(server.s3)
        async with asyncio.TaskGroup() as group:
            group.create_task(killed_again_and_again(server))
            group.create_task(
                histories.run(lambda: [server.s3], clients=8, seconds=seconds, answers=31)
            )

    with WarpServer(tmp_path / "data", config=config, logs=tmp_path / "logs") as server:
        asyncio.run(run(server))
        verdicts = histories.verdicts()

    for key, verdict in verdicts.items():
        assert verdict.linearizable, f"{key}: {verdict}"
        answered = [each for each in histories.operations[key] if each.answered]
        assert len(answered) > 30
        assert {each.asked.verb for each in answered} == {"put", "get", "head", "delete"}
        assert swaps(answered) == {True, False}, "won or lost: nobody competed"
        assert not check(stale(histories.operations[key]), OBJECT).linearizable, (
            "it would go unnoticed"
        )
    print({key: str(verdict) for key, verdict in verdicts.items()})
