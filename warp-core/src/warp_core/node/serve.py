"""`warp serve`: a node in the foreground, from the ready line to the drained end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

import msgspec

from warp_core import logs
from warp_core.config import Settings
from warp_core.node.assembly import Node, open_node
from warp_core.plugins import Plugins, State

# Threads of the pool (hashes, codecs, file calls) hold the interpreter for at most so long while the
# loop wants it; the default of 5 ms would be the latency of every request beside a checksum.
SWITCH_INTERVAL_S = 0.0005

# A launcher that passes on the signal which the whole process group got makes two of one.
ECHO_S = 0.5

# What a request allocates is freed by its last reference; the collector looks for cycles only, which errors leave behind. At the
# default of 700 new containers it looked every few requests, and walked the rows of a listing several times. 50,000 are about 10 MiB.
COLLECT_AFTER = (50_000, 10, 10)

Greet = Callable[[Settings, Mapping[str, str], str], None]

log = logs.get("warp_core.node")


def serve(
    settings: Settings,
    plugins: Plugins,
    *,
    out: TextIO,
    replace_stores: bool = False,
    greet: Greet | None = None,
) -> int:
    """Run the node until SIGTERM or SIGINT; returns the exit status.

    Args:
        settings: What to run.
        plugins: Where the parts come from.
        out: Gets one JSON line once every endpoint accepts connections.
        replace_stores: Take empty stores where known ones were.
        greet: Called then with the settings, the endpoints and the root access key.

    Raises:
        WarpError: It cannot start; the message says what to do.
    """
    logs.configure(level=settings.log.level, format=settings.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return asyncio.run(_serve(settings, plugins, out, replace_stores, greet))


async def _serve(
    settings: Settings, plugins: Plugins, out: TextIO, replace_stores: bool, greet: Greet | None
) -> int:
    stop = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None, "asyncio.run runs a task"
    loop = asyncio.get_running_loop()

    first_s = 0.0

    def asked(number: signal.Signals) -> None:
        nonlocal first_s
        if not stop.is_set():
            first_s = loop.time()
            stop.set()
        elif loop.time() - first_s > ECHO_S:
            task.cancel()  # asked again: do not wait for requests in flight

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    try:
        async with open_node(settings, plugins, replace_stores=replace_stores) as node:
            _ready(node, out, greet)
            await stop.wait()
            log.info("draining", drain_s=float(settings.node.drain))
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        log.warning("stopped without draining")
        return 1
    log.info("stopped")
    return 0


def _ready(node: Node, out: TextIO, greet: Greet | None) -> None:
    # What is alive now lives as long as the node: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    line = msgspec.json.encode({"event": "ready", "endpoints": dict(node.endpoints)})
    with contextlib.suppress(BrokenPipeError):  # whoever started the node need not listen
        out.write(line.decode() + "\n")
        out.flush()
    for status in node.data.plugins.status():
        if status.state is State.FAILED:
            log.warning("plugin failed", plugin=status.found.entry, reason=status.reason)
    if greet is not None:
        greet(node.data.settings, node.endpoints, node.root_access_key)
