"""An asyncio loop whose time is virtual and whose tasks belong to simulated processes, which can be paused and killed.

Nothing waits: when no callback is ready, the clock jumps to the next timer. There are no sockets and no threads: what is handed to
an executor runs in the loop after a virtual moment. Callbacks of one instant keep asyncio's order (first come, first served), since
real code may rely on it; what varies with the seed is how long every device, link and executor takes.

A callback belongs to the process in whose context it was made. Those of a paused process wait, those of a killed one are never run:
no `finally`, no `except`, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import heapq
import itertools
import random
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any

STEPS_MAX = 100_000  # callbacks of one instant: more is a loop that never ends
FINALLY_MAX = 100  # blocks of one coroutine, one in another, that await in the end
EXECUTOR_S = (
    0.00005,
    0.002,
)  # how long work in an executor takes: a switch of threads up to a slow file call


class Stuck(Exception):
    """Nothing is ready and no timer is set: everybody waits for somebody else; or nothing ever comes to rest."""


class Process:
    """One run of a program on a simulated machine. Its callbacks run while it is neither paused nor dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.unplugged = False  # its machine lost power
        self.wall_offset_ns = 0  # of its machine's wall clock
        self.waiting: list[asyncio.Handle] = []  # ready since it was paused
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class SimFuture(asyncio.Future[Any]):
    """A future that sorts into sets by its number, not by its address: sets of futures are walked in one order in every run."""

    def __init__(self, *, loop: VirtualLoop) -> None:
        super().__init__(loop=loop)
        self.number = next(loop.numbers)
        self.process = PROCESS.get()

    def __hash__(self) -> int:
        return self.number


class SimTask(asyncio.Task[Any]):
    """A task, numbered as `SimFuture`."""

    def __init__(self, coro: Any, *, loop: VirtualLoop, **options: Any) -> None:
        self.number = next(loop.numbers)
        context = options.get("context")
        self.process = context.get(PROCESS) if context is not None else PROCESS.get()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `chance` draws how long executors take."""

    # Of BaseEventLoop: the callbacks that are ready, a heap of timers, whether `stop` was called.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.steps = 0
        self.errors: list[str] = []  # what no task caught
        self._now = 0.0
        self._chance = chance
        self._buried: list[
            asyncio.Handle
        ] = []  # of killed processes: dropping them would run their `finally`
        self.set_task_factory(lambda loop, coro, **options: SimTask(coro, loop=self, **options))
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        """See `BaseEventLoop.create_future`."""
        return SimFuture(loop=self)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run the function in the loop, after a moment; as in a thread, it is run even if nobody waits any more."""
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self._chance.uniform(*EXECUTOR_S), work)
        return future

    def resume(self, process: Process) -> None:
        """Let a paused process go on: what became ready meanwhile is run in the order in which it did."""
        process.paused = False
        self._ready.extend(process.waiting)
        process.waiting.clear()

    def bury(self) -> None:
        """Close what killed processes left, at the end of a run: nothing of it may run later, in another one.

        A `finally` that is run by that, or by dropping what nobody awaits any more, may begin tasks. It has to find this loop running,
        else they would belong to another; they end before they began.
        """
        closed: set[asyncio.Task[Any]] = set()
        self.set_exception_handler(lambda loop, context: None)  # the run is over
        events._set_running_loop(self)
        try:
            while left := asyncio.all_tasks(self) - closed:
                for task in sorted(left, key=hash):
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    _close(task.get_coro())
                closed |= left
                for task in asyncio.all_tasks(self) - closed:  # begun by what was just closed
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._ready.clear()
                self._scheduled.clear()
                self._buried.clear()
                gc.collect()
        finally:
            events._set_running_loop(None)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        task = context.get("future") or context.get("task")
        process = task.process if isinstance(task, SimTask | SimFuture) else None
        if process is None or not process.dead:  # whoever would have heard of it was killed
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r} {task!r}")

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not ready and not self._stopping:
            if not scheduled:
                raise Stuck(f"after {self._now:.3f} s nothing is ready, and no timer is set")
            self._now = max(self._now, scheduled[0].when())
            self.steps = 0
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self._now):
            timer = heapq.heappop(scheduled)
            if not timer.cancelled():
                ready.append(timer)
        self.steps += len(ready)
        if self.steps > STEPS_MAX:
            raise Stuck(f"more than {STEPS_MAX} callbacks at {self._now:.6f} s")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            process: Process | None = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if process is None or not (process.dead or process.paused):
                handle._run()
            elif process.dead:
                self._buried.append(handle)
            else:
                process.waiting.append(handle)

    def _write_to_self(self) -> None:
        pass  # nobody sleeps who would have to be woken

    def _process_events(self, event_list: Any) -> None:
        pass  # there are no sockets


def _close(coro: Any) -> None:
    """Close a coroutine; each `finally` of it that awaits ends there, and takes one more call."""
    for _ in range(FINALLY_MAX):
        with contextlib.suppress(BaseException):
            coro.close()
            return


def running_loop() -> VirtualLoop:
    """Return the loop of the simulation that runs."""
    loop = events.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop
