"""The engine: processes that answer, wait, and are killed when nobody wants their answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from warp_core.interfaces.queries import CsvInput, CsvOutput, Progress, Query, QueryRefused
from warp_select import Config
from warp_select.engine import Engine

PIECE = b"1234567,abcdefg,55555\n" * 47_662  # a little less than 1 MiB


class Repeated:
    """An object as long as wanted that is in memory once; `reads` counts."""

    def __init__(self, size: int, *, wait_s: float = 0.0) -> None:
        self.size = size
        self.reads = 0
        self._wait_s = wait_s

    async def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        await asyncio.sleep(self._wait_s)
        length = min(length, self.size - offset)
        start = offset % len(PIECE)
        return (PIECE[start:] + PIECE * (length // len(PIECE) + 1))[:length]


def about(expression: str) -> Query:
    return Query(expression=expression, input=CsvInput(), output=CsvOutput())


async def answer(engine: Engine, expression: str, content: Repeated) -> tuple[bytes, Progress]:
    records, progress = b"", Progress()
    async for item in engine.run(about(expression), content, content.size):
        if isinstance(item, Progress):
            progress = item
        else:
            records += item
    return records, progress


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(Config()) as opened:
        yield opened


def told(pid: int, name: str) -> str:
    """Return what the kernel tells of a process."""
    return Path(f"/proc/{pid}/{name}").read_text()


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def processes(engine: Engine) -> list[int]:
    return [worker.process.pid for worker in [*engine._idle, *engine._busy]]


async def test_a_process_answers_one_query_after_another(engine: Engine) -> None:
    content = Repeated(2 * len(PIECE))
    first = await answer(engine, "SELECT COUNT(*) FROM S3Object", content)
    pids = processes(engine)
    second = await answer(engine, "SELECT _2 FROM S3Object LIMIT 2", content)

    assert first == (b"95324\n", Progress(content.size, content.size))
    assert second[0] == b"abcdefg\nabcdefg\n"
    assert processes(engine) == pids


async def test_a_refusal_costs_no_process(engine: Engine) -> None:
    content = Repeated(100)
    pids: set[int] = set()
    for expression in ("nonsense", "SELECT INT(_2) FROM S3Object", "SELECT x FROM S3Object"):
        with pytest.raises(QueryRefused):
            await answer(engine, expression, content)
        pids.update(processes(engine))
    answered = await answer(engine, "SELECT COUNT(*) FROM S3Object", content)

    assert answered[0] == b"5\n"
    assert len(pids) == 1


async def test_memory_stays_flat_and_only_what_is_needed_is_read(engine: Engine) -> None:
    content = Repeated(10 * len(PIECE))
    await answer(engine, "SELECT SUM(INT(_1)) FROM S3Object", content)
    before = peak(processes(engine)[0])
    content = Repeated(40 * len(PIECE))
    found, _ = await answer(engine, "SELECT SUM(INT(_1)), COUNT(*) FROM S3Object", content)
    after = peak(processes(engine)[0])

    assert found == f"{1234567 * 47662 * 40},{47662 * 40}\n".encode()
    assert after < 256 << 20
    assert after - before < 24 << 20
    few = Repeated(40 * len(PIECE))
    await answer(engine, "SELECT _1 FROM S3Object LIMIT 1", few)
    assert few.reads <= 8


async def test_a_client_that_leaves_ends_its_process(engine: Engine) -> None:
    content = Repeated(1 << 40, wait_s=0.001)
    asked = engine.run(about("SELECT COUNT(*) FROM S3Object"), content, content.size)
    await anext(asked)
    (pid,) = processes(engine)
    await asked.aclose()

    assert processes(engine) == []
    assert not exists(pid)


async def test_a_query_ends_at_its_time_limit() -> None:
    async with Engine(msgspec.structs.replace(Config(), time_limit=1.0)) as engine:
        started = time.monotonic()
        with pytest.raises(QueryRefused, match="longer than 1 s"):
            await answer(engine, "SELECT COUNT(*) FROM S3Object", Repeated(1 << 40, wait_s=0.001))

        assert time.monotonic() - started < 20
        assert processes(engine) == []


async def test_too_many_queries_are_told_to_come_back() -> None:
    config = msgspec.structs.replace(Config(), workers_max=1, patience=0.05)
    async with Engine(config) as engine:
        content = Repeated(1 << 40, wait_s=0.001)
        asked = engine.run(about("SELECT COUNT(*) FROM S3Object"), content, content.size)
        await anext(asked)
        with pytest.raises(QueryRefused) as refused:
            await answer(engine, "SELECT 1 FROM S3Object", Repeated(10))
        await asked.aclose()

        assert refused.value.code == "Busy"
        assert (await answer(engine, "SELECT 1 FROM S3Object", Repeated(22)))[0] == b"1\n"


async def test_a_process_that_dies_is_told_and_replaced(engine: Engine) -> None:
    content = Repeated(1 << 40, wait_s=0.001)
    asked = engine.run(about("SELECT COUNT(*) FROM S3Object"), content, content.size)
    await anext(asked)
    os.kill(processes(engine)[0], 9)
    with pytest.raises(QueryRefused) as refused:
        async for _ in asked:
            pass

    assert refused.value.code == "InternalError"
    assert (await answer(engine, "SELECT 1 FROM S3Object", Repeated(22)))[0] == b"1\n"


async def test_a_process_has_no_secrets_and_writes_no_files(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARP_SECRET_KEY", "very-secret-indeed")
    await answer(engine, "SELECT 1 FROM S3Object", Repeated(22))
    (pid,) = processes(engine)
    limits = told(pid, "limits")

    assert "very-secret" not in told(pid, "environ")
    assert "NoNewPrivs:\t1" in told(pid, "status")
    assert [line.split()[3:5] for line in limits.splitlines() if "Max file size" in line] == [
        ["0", "0"]
    ]


async def test_idle_processes_end() -> None:
    async with Engine(msgspec.structs.replace(Config(), idle=0.2)) as engine:
        await answer(engine, "SELECT 1 FROM S3Object", Repeated(22))
        (pid,) = processes(engine)
        async with asyncio.timeout(20):
            while exists(pid):
                await asyncio.sleep(0.02)

        assert processes(engine) == []


def peak(pid: int) -> int:
    """Return the most memory that a process had, bytes."""
    lines = told(pid, "status").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
