"""What a simulated run consists of besides its nodes: one seed, one clock, one trace, and no entropy from outside."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import random
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar
from unittest import mock

from warp_core import logs
from warp_core.containers import Containers, leases
from warp_core.containers.buffers import BUFFERS_MAX, BufferPool
from warp_core.containers.journal import Journal
from warp_core.metadata import transaction
from warp_core.namespace.namespace import Namespace

from warp_conformance.simulation.loop import PROCESS, VirtualLoop

T = TypeVar("T")

TAIL = 4000  # lines of a trace that are kept to be shown; the digest covers all
SEGMENT = 256 * 1024
CONTAINER = 1024 * 1024
BUFFER = (
    128 * 1024
)  # of streams: what came is written, and not synced, while a slow client sends the rest
STREAM_ROOM = (
    128 * 1024
)  # that a container needs to be handed on to the next stream: else all are sealed, and so synced, at once
EPOCH_NS = 1_795_000_000_000_000_000  # the wall clock at the start of every run: November 2026


class Trace:
    """What happened, in order. `digest` covers every line, so that two runs that agree in it were the same run."""

    def __init__(self) -> None:
        self.lines = 0
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.watch: Callable[[str], None] | None = None
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, line: str) -> None:
        """Note one line."""
        self.lines += 1
        self._hash.update(line.encode() + b"\n")
        self.tail.append(line)
        if self.watch is not None:
            self.watch(line)

    @property
    def digest(self) -> str:
        """32 hex digits."""
        return self._hash.hexdigest()


class World:
    """One run. Everything that varies draws from `chance(name)`; everything that happens is `note`d."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace = Trace()
        self.over = False
        self.defects: list[
            str
        ] = []  # errors that nodes wrote into their logs: they expected none of these
        self.loop = VirtualLoop(self.chance("executor"))

    def chance(self, name: str) -> random.Random:
        """Return a source of its own for a part, so that one part's draws do not move another's."""
        return random.Random(f"{self.seed}/{name}")

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.loop.time()

    def note(self, who: str, what: str) -> None:
        """Add to the trace, until the run is over: what is closed then is no part of it."""
        if not self.over:
            self.trace.add(f"{self.loop.time():12.6f} {who:<8} {what}")

    def defect(self, what: str) -> None:
        """Note an error that nobody expected, and that is not about the world."""
        if not self.over:
            self.defects.append(what)

    def log(self, name: str, level: str, event: str, fields: Mapping[str, object]) -> None:
        """Take a line that a node wrote into its log."""
        process = PROCESS.get()
        error = fields.get("exc_info")
        text = " ".join(f"{key}={value}" for key, value in fields.items())
        self.note(process.name if process else "-", f"log {level} {name}: {event} {text}")
        if isinstance(error, BaseException):
            shown = "".join(traceback.format_exception(error))
            self.defect(f"{process.name if process else '-'}: {event}: {shown}")

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end of `main`, with time and entropy of this world in the place of the machine's."""
        collecting = gc.isenabled()
        gc.disable()  # when cycles are found depends on what else the interpreter has done
        try:
            with _sealed(self):
                try:
                    return self.loop.run_until_complete(main())
                finally:
                    self.over = True
                    with (
                        mock.patch.object(sys, "unraisablehook", _unheard),
                        warnings.catch_warnings(),
                    ):
                        warnings.simplefilter("ignore", RuntimeWarning)  # never awaited: killed
                        self.loop.bury()
                        self.loop.close()
                        gc.collect()
        finally:
            if collecting:
                gc.enable()


def _unheard(error: object) -> None:
    """Take what destructors of killed processes complain of."""


def _no_threads(thread: threading.Thread) -> None:
    raise RuntimeError(f"a simulation has no threads, and {thread.name} is one")


@contextlib.contextmanager
def _sealed(world: World) -> Iterator[None]:
    """Give whoever asks the process for time or entropy those of the world."""
    entropy = world.chance("entropy")
    state = random.getstate()
    loop = world.loop
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, state)
        random.seed(entropy.randbytes(16))

        def instead(module: Any, name: str, made: object) -> None:
            stack.enter_context(mock.patch.object(module, name, made))

        stack.enter_context(mock.patch.object(transaction, "_request_ids", []))  # else once for all
        instead(os, "urandom", entropy.randbytes)
        instead(random, "_urandom", entropy.randbytes)  # of `secrets` and SystemRandom
        instead(time, "monotonic", loop.time)
        instead(time, "perf_counter", loop.time)
        instead(time, "monotonic_ns", lambda: int(loop.time() * 1e9))
        instead(time, "time_ns", lambda: wall_ns(loop))
        instead(time, "time", lambda: wall_ns(loop) / 1e9)
        instead(logs, "_write", world.log)
        instead(leases, "ROOM_MIN", STREAM_ROOM)
        instead(BufferPool.__init__, "__defaults__", (BUFFER, BUFFERS_MAX))
        instead(time, "sleep", _no_sleep)
        # Clocks that are arguments, where nobody hands one over; and sizes at which segments and containers end within a run.
        for made, values in (
            (Journal, {"wall_ns": lambda: wall_ns(loop), "segment_size": SEGMENT}),
            (
                Containers,
                {
                    "now_ns": lambda: wall_ns(loop),
                    "monotonic": loop.time,
                    "container_size": CONTAINER,
                },
            ),
            (Namespace, {"clock_ns": lambda: wall_ns(loop)}),
        ):
            stack.enter_context(mock.patch.dict(made.__init__.__kwdefaults__, values))
        instead(threading.Thread, "start", _no_threads)
        yield


def _no_sleep(seconds: float) -> None:
    if seconds:
        raise RuntimeError("a simulation does not wait: time.sleep was called")


def wall_ns(loop: VirtualLoop) -> int:
    """Return the wall clock of the machine whose process runs, or the true one."""
    process = PROCESS.get()
    offset = getattr(process, "wall_offset_ns", 0)
    return EPOCH_NS + int(loop.time() * 1e9) + int(offset)
