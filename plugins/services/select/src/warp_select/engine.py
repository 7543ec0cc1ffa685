"""Queries on worker processes: one query each at a time, kept warm between queries, killed when nobody wants the answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import msgspec
from warp_core import logs
from warp_core.interfaces.queries import Progress, Queries, Query, QueryRefused, Readable

from warp_select import messages
from warp_select.config import Config
from warp_select.errors import refused
from warp_select.messages import HEAD, PAYLOAD_MAX, Job, pack

REUSED_MAX: Final = 64
"""Queries that a process answers before it is replaced: what leaks in a long life does not add up."""

READ: Final = 1024 * 1024
"""Bytes read from an object at a time: what a reader gives at most."""

BEAT_S: Final = 1.0
"""Without news from the worker for so long, the asker hears that it still works."""

_log = logs.get("warp_select")


class Worker:
    """A process and the socket to it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self.answered = 0
        self.idle_since = 0.0

    def end(self) -> None:
        """Kill the process; it has nothing to lose."""
        self.writer.transport.abort()
        self.process.kill()
        self.process.wait()


class Engine(Queries):
    """Answers queries with DuckDB in processes of their own."""

    def __init__(self, config: Config) -> None:
        """Start without processes."""
        self._config = config
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._turns = asyncio.Semaphore(config.workers_max)
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Get ready; the first query starts the first process."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill every process."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for worker in [*self._idle, *self._busy]:
            worker.end()
        self._idle.clear()
        self._busy.clear()

    async def run(
        self, query: Query, content: Readable, size: int
    ) -> AsyncGenerator[bytes | Progress, None]:
        """Answer a query on a process of its own."""
        try:
            async with asyncio.timeout(float(self._config.patience)):
                await self._turns.acquire()
        except TimeoutError as error:
            raise refused("Busy") from error
        try:
            worker = self._idle.pop() if self._idle else await self._start()
            self._busy.add(worker)
            whole = False
            try:
                async for item in self._converse(worker, query, content, size):
                    yield item
                whole = True
            except QueryRefused as error:
                whole = error.code not in {"InternalError", "Busy"}
                raise
            finally:
                self._busy.discard(worker)
                self._put_back(worker, reusable=whole)
        finally:
            self._turns.release()

    async def _converse(
        self, worker: Worker, query: Query, content: Readable, size: int
    ) -> AsyncGenerator[bytes | Progress, None]:
        deadline = time.monotonic() + float(self._config.time_limit)
        job = Job(
            query=query,
            size=size,
            memory=int(self._config.memory),
            now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )
        worker.writer.write(pack(messages.QUERY, msgspec.msgpack.encode(job)))
        progress = Progress()
        receiving: asyncio.Task[tuple[int, bytes]] | None = None
        try:
            while True:
                receiving = receiving or asyncio.create_task(_receive(worker.reader))
                done, _ = await asyncio.wait({receiving}, timeout=BEAT_S)
                if time.monotonic() > deadline:
                    limit = float(self._config.time_limit)
                    raise QueryRefused("InternalError", f"the query took longer than {limit:g} s")
                if not done:
                    yield progress
                    continue
                try:
                    kind, payload = receiving.result()
                except (OSError, EOFError, asyncio.IncompleteReadError) as error:
                    _log.error("query worker ended", status=worker.process.poll())
                    raise refused("InternalError") from error
                receiving = None
                if kind == messages.WANT:
                    offset, length = msgspec.msgpack.decode(payload, type=tuple[int, int])
                    await _send_data(worker.writer, content, offset, length)
                elif kind == messages.RECORDS:
                    yield payload
                elif kind == messages.PROGRESS:
                    progress = Progress(*msgspec.msgpack.decode(payload, type=tuple[int, int]))
                    yield progress
                elif kind == messages.REFUSED:
                    raise QueryRefused(*msgspec.msgpack.decode(payload, type=tuple[str, str]))
                else:
                    return
        finally:
            if receiving is not None:
                receiving.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, EOFError):
                    await receiving

    async def _start(self) -> Worker:
        """Start a process with one end of a pair of sockets and nothing else of this one."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [
                sys.executable,
                "-I",
                "-X",
                "utf8",
                "-m",
                "warp_select.worker",
                str(theirs.fileno()),
                str(int(self._config.memory)),
            ]
            process = await asyncio.to_thread(_spawn, command, theirs.fileno())
        reader, writer = await asyncio.open_connection(sock=ours, limit=PAYLOAD_MAX)
        return Worker(process, reader, writer)

    def _put_back(self, worker: Worker, *, reusable: bool) -> None:
        worker.answered += 1
        idle = float(self._config.idle)
        if not reusable or worker.answered >= REUSED_MAX or not idle:
            worker.end()
            return
        worker.idle_since = time.monotonic()
        self._idle.append(worker)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(idle, self._sweep)

    def _sweep(self) -> None:
        """End processes that have waited too long."""
        idle, now = float(self._config.idle), time.monotonic()
        for worker in [one for one in self._idle if now - one.idle_since >= idle * 0.99]:
            self._idle.remove(worker)
            worker.end()
        self._sweeper = None
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(idle, self._sweep)


def _spawn(command: list[str], descriptor: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"LANG": "C.UTF-8"},
        start_new_session=True,  # Ctrl-C on the node's terminal is for the node
    )


async def _receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length, kind = HEAD.unpack(await reader.readexactly(HEAD.size))
    if length > PAYLOAD_MAX:
        raise EOFError
    return kind, await reader.readexactly(length - 1)


async def _send_data(
    writer: asyncio.StreamWriter, content: Readable, offset: int, length: int
) -> None:
    """Send what the worker wants. It is not waited for: the worker may be sending itself, and wants one thing at a time."""
    if not 0 < length <= PAYLOAD_MAX // 2:
        raise refused("InternalError")
    parts: list[bytes] = []
    while length > 0:
        data = bytes(await content.read(offset, min(READ, length)))
        if not data:
            break
        parts.append(data)
        offset += len(data)
        length -= len(data)
    writer.write(HEAD.pack(sum(map(len, parts)) + 1, messages.DATA))
    writer.writelines(parts)
