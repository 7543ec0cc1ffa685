"""File calls in threads, with little around them.

`run_in_executor` and `shield` make three futures, a condition and two trips through the loop of each call. A batch of commits is one
call, and a server makes thousands a second. Here it is one future, and one trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Done(asyncio.Future[T], Generic[T]):
    """The end of a call, which cannot be called back: whoever is cancelled waits for it, since the thread uses its buffers."""

    def cancel(self, msg: Any = None) -> bool:
        """Refuse; the task that waits is cancelled when the call has ended."""
        return False


_Call = tuple[Callable[[], Any], Done[Any], asyncio.AbstractEventLoop]


class Threads:
    """Up to `count` threads, started as they are needed. `run` and `close` are for the loop's thread."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._busy = 0  # calls that were not reported to have ended
        self._closed = False

    def run(self, work: Callable[[], T]) -> Done[T]:
        """Have a thread do something; await what is returned.

        Raises:
            RuntimeError: The threads have ended.
        """
        if self._closed:
            raise RuntimeError("the store is closed")
        loop = asyncio.get_running_loop()
        done: Done[T] = Done(loop=loop)
        self._busy += 1
        if self._busy > len(self._threads) < self._count:
            # Daemons: a program that ends without closing its store is a crash for the store.
            name = f"{self._name}_{len(self._threads)}"
            thread = Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put((work, done, loop))
        return done

    def close(self) -> None:
        """Wait for what was begun, and end the threads."""
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        calls = self._calls
        while (call := calls.get()) is not None:
            work, done, loop = call
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._ended, done, result, error)
            del call, work, done, loop, result, error

    def _ended(self, done: Done[Any], result: object, error: BaseException | None) -> None:
        self._busy -= 1
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)
