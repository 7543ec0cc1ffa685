"""Threads for file calls: what was begun ends before its caller does, errors arrive, closing waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from warp_disk.threads import Threads


async def test_results_and_errors_arrive() -> None:
    threads = Threads(2, "test")

    def fail() -> None:
        raise OSError(5, "no")

    assert await threads.run(lambda: 7) == 7
    with pytest.raises(OSError, match="no"):
        await threads.run(fail)
    assert await threads.run(lambda: 8) == 8
    threads.close()


async def test_calls_go_on_at_once_up_to_the_count() -> None:
    threads = Threads(3, "test")
    together = threading.Barrier(3, timeout=20)

    await asyncio.gather(*(threads.run(together.wait) for _ in range(3)))
    names = {thread.name for thread in threads._threads}
    await asyncio.gather(*(threads.run(lambda: None) for _ in range(20)))

    assert names == {"test_0", "test_1", "test_2"} == {one.name for one in threads._threads}
    threads.close()


async def test_a_cancelled_caller_waits_for_its_call() -> None:
    threads = Threads(1, "test")
    go_on = threading.Event()
    ended = False

    def work() -> None:
        nonlocal ended
        go_on.wait(20)
        ended = True

    async def call() -> None:
        await threads.run(work)

    task = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended
    threads.close()


async def test_a_cancelled_caller_hears_of_no_error_and_nobody_is_told_later() -> None:
    threads = Threads(1, "test")
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    go_on = threading.Event()

    def work() -> None:
        go_on.wait(20)
        raise OSError(5, "late")

    task = asyncio.create_task(_awaited(threads, work))
    await asyncio.sleep(0.01)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task

    assert told == []
    threads.close()


async def _awaited(threads: Threads, work: object) -> None:
    await threads.run(work)  # type: ignore[arg-type]


async def test_closing_waits_for_what_was_begun_and_takes_no_more() -> None:
    threads = Threads(2, "test")
    done = threads.run(lambda: time.sleep(0.05) or 3)
    threads.close()

    assert await done == 3
    with pytest.raises(RuntimeError):
        threads.run(lambda: None)
