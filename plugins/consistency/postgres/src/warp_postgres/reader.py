"""Reads: a few connections, and requests that wait go together.

```
 get ─┐
 get ─┼─► waiting ─► the next free connection takes all gets that wait, as one statement, or one scan
 scan ┘
```

While every connection is busy, gets gather; so the busier it is, the less each costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from warp_core.errors import Busy, Unavailable, WarpError

from warp_postgres.schema import Statements
from warp_postgres.server import Line, Server

TOGETHER_MAX = 256  # gets in one statement: about a millisecond of the server's time
WAITING_MAX = 20_000  # requests that wait for a connection: some seconds' worth


@dataclass(slots=True)
class Get:
    """One row wanted, as of a version."""

    key: bytes
    at: int
    future: asyncio.Future[tuple[int, int, tuple[bytes, int] | None]]  # head, horizon, the row
    deadline_s: float


@dataclass(slots=True)
class Query:
    """One statement wanted."""

    statement: str
    arguments: tuple[object, ...]
    future: asyncio.Future[list[Any]]
    deadline_s: float


class Reader:
    """Answers reads over a fixed number of connections. Run `serve` in as many tasks."""

    def __init__(self, server: Server, statements: Statements) -> None:
        self._server = server
        self._statements = statements
        self._waiting: deque[Get | Query] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False

    async def get(self, key: bytes, at: int) -> tuple[int, int, tuple[bytes, int] | None]:
        """Return the newest version, the version up to which the past is forgotten, and the row as of `at`."""
        loop = asyncio.get_running_loop()
        request = Get(key, at, loop.create_future(), loop.time() + self._server.timeout_s)
        self._submit(request)
        return await request.future

    async def query(self, statement: str, *arguments: object) -> list[Any]:
        """Return the rows of one statement that only reads."""
        loop = asyncio.get_running_loop()
        request = Query(
            statement, arguments, loop.create_future(), loop.time() + self._server.timeout_s
        )
        self._submit(request)
        return await request.future

    def _submit(self, request: Get | Query) -> None:
        if self._closed:
            raise Unavailable("the metadata engine is closed")
        if len(self._waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} reads wait for PostgreSQL at {self._server.place}")
        self._waiting.append(request)
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return

    async def serve(self, line: Line) -> None:
        """Answer requests over one connection until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                idle = loop.create_future()
                self._idle.append(idle)
                await idle
                continue
            request = self._waiting.popleft()
            if isinstance(request, Query):
                await self._answer_query(line, request)
            else:
                await self._answer_gets(line, self._more(request))

    def _more(self, first: Get) -> list[Get]:
        """Return a get and those that wait right behind it."""
        gets = [first]
        waiting = self._waiting
        while waiting and len(gets) < TOGETHER_MAX and isinstance(waiting[0], Get):
            gets.append(waiting.popleft())  # type: ignore[arg-type]
        return gets

    async def _answer_query(self, line: Line, request: Query) -> None:
        await self._answer(
            line,
            request.statement,
            request.arguments,
            [request],
            lambda rows: _settle(request.future, rows),
        )

    async def _answer_gets(self, line: Line, gets: list[Get]) -> None:
        arguments = ([get.key for get in gets], [get.at for get in gets])

        def deliver(rows: list[Any]) -> None:
            head = horizon = 0
            found: dict[int, tuple[bytes, int]] = {}
            for number, version, value, forgotten in rows:
                if number:
                    found[number] = (value, version)
                else:
                    head, horizon = version, forgotten
            for number, get in enumerate(gets, 1):
                _settle(get.future, (head, horizon, found.get(number)))

        await self._answer(line, self._statements.gets, arguments, gets, deliver)

    async def _answer(
        self,
        line: Line,
        statement: str,
        arguments: Sequence[object],
        requests: Sequence[Get | Query],
        deliver: Callable[[list[Any]], None],
    ) -> None:
        deadline_s = requests[0].deadline_s
        try:
            rows = await line.retried(
                lambda: line.fetch(statement, arguments, deadline_s), deadline_s
            )
        except WarpError as error:
            for request in requests:
                if not request.future.done():
                    request.future.set_exception(type(error)(str(error)))
            return
        except BaseException as error:
            for request in requests:
                if not request.future.done():
                    request.future.set_exception(
                        Unavailable("the metadata engine is closed")
                        if isinstance(error, asyncio.CancelledError)
                        else error
                    )
            if isinstance(error, Exception):
                return  # a defect: who asked hears of it, the others go on
            raise
        deliver(rows)

    def close(self) -> None:
        """Refuse what waits and what comes."""
        self._closed = True
        while self._waiting:
            future = self._waiting.popleft().future
            if not future.done():
                future.set_exception(Unavailable("the metadata engine is closed"))


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
