"""Commits: those that wait go together, in one statement that applies only where nobody was faster.

```
 commit ─► waiting ─► ask what their checks need, of one moment, at version h
                      judge them in order, as versions h+1, h+2, …
                      apply all in one statement, if `head` still is h ──► told
                        └ another node was faster: ask again, next time in turn (an advisory lock, a courtesy only)
                        └ the connection ended: move `head`, so that the statement can no longer apply; then look whether it has
```

Nothing is locked between two statements, so a node that stops in the middle holds nobody up.
"""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from collections import deque
from dataclasses import dataclass

from warp_core.errors import Ambiguous, Busy, Unavailable, WarpError
from warp_core.interfaces.consistency import Commit
from warp_core.metadata.limits import REQUEST_ID_SIZE

from warp_postgres.batch import Plan, answer, judge, questions
from warp_postgres.errors import Lost, Raced
from warp_postgres.schema import Statements
from warp_postgres.server import BACKOFF_FIRST_S, BACKOFF_MAX_S, Line, Server
from warp_postgres.views import Views

TOGETHER_MAX = 128  # commits in one statement: beyond that nothing is gained
TOGETHER_BYTES_MAX = 4 << 20  # of keys and values in one statement
WAITING_MAX = 20_000  # commits that wait: some seconds' worth
CONTENDED_S = 1.0  # for which turns are taken after another node was faster
TURN_MAX_S = 0.2  # to wait for one's turn; then go without


@dataclass(slots=True)
class Request:
    """One commit that waits, with a request id."""

    commit: Commit
    size: int
    future: asyncio.Future[int]
    deadline_s: float


class Committer:
    """Applies commits in order. Run `serve` in a task."""

    def __init__(self, server: Server, schema: str, statements: Statements, views: Views) -> None:
        self._server = server
        self._statements = statements
        self._views = views
        self._line = Line(server, writes=True)
        self._waiting: deque[Request] = deque()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()  # nothing is being applied
        self._settled.set()
        self._closed = False
        self._contended_until_s = 0.0
        self._turn = zlib.crc32(schema.encode())  # number of the advisory lock

    async def commit(self, commit: Commit, size: int) -> int:
        """Apply a commit of `size` bytes and return its version; raises as `MetaStore.commit`."""
        if self._closed:
            raise Unavailable("the metadata engine is closed")
        if len(self._waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} commits wait for PostgreSQL at {self._server.place}")
        if not commit.request_id:
            commit = _named(commit)
        loop = asyncio.get_running_loop()
        request = Request(commit, size, loop.create_future(), loop.time() + self._server.timeout_s)
        self._waiting.append(request)
        self._wake.set()
        return await request.future

    async def serve(self) -> None:
        """Apply what comes until cancelled."""
        try:
            while True:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                batch = self._take()
                self._settled.clear()
                try:
                    if batch:
                        await self._apply(batch)
                except WarpError as error:
                    _refuse(batch, error)
                except asyncio.CancelledError:
                    _refuse(batch, Ambiguous("the metadata engine was closed meanwhile"))
                    raise
                except Exception as error:  # a defect: who asked hears of it, the others go on
                    for request in batch:
                        if not request.future.done():
                            request.future.set_exception(error)
                finally:
                    self._settled.set()
        finally:
            self.close()
            await self._line.close()

    def _take(self) -> list[Request]:
        batch: list[Request] = []
        size = 0
        waiting = self._waiting
        while waiting and len(batch) < TOGETHER_MAX:
            if waiting[0].future.done():  # nobody waits for it any more
                waiting.popleft()
                continue
            size += waiting[0].size
            if batch and size > TOGETHER_BYTES_MAX:
                break
            batch.append(waiting.popleft())
        return batch

    async def _apply(self, batch: list[Request]) -> None:
        """Settle every request of a batch.

        Raises:
            WarpError: What those that are not settled are told.
        """
        clock = asyncio.get_running_loop().time
        deadline_s = batch[0].deadline_s
        delay_s = 0.0
        while True:
            try:
                # Where commits of other nodes were faster lately, take turns.
                in_turn = clock() < self._contended_until_s
                if await (self._once_in_turn if in_turn else self._once)(batch, deadline_s):
                    return
                self._contended_until_s = clock() + CONTENDED_S
            except (Lost, Raced) as error:
                if clock() >= deadline_s:
                    raise Unavailable(f"metadata: {error}") from error
                if isinstance(error, Raced):
                    self._contended_until_s = clock() + CONTENDED_S
            if clock() >= deadline_s:
                raise Unavailable("metadata: commits of other nodes were faster until the deadline")
            if delay_s:
                await asyncio.sleep(delay_s * random.random())
            delay_s = min(2 * delay_s, BACKOFF_MAX_S) or BACKOFF_FIRST_S / 10

    async def _once_in_turn(self, batch: list[Request], deadline_s: float) -> bool:
        line = self._line
        turn_s = min(deadline_s, asyncio.get_running_loop().time() + TURN_MAX_S)
        got = False
        try:
            await line.fetch("SELECT pg_advisory_lock($1)", (self._turn,), turn_s)
            got = True
        except (Lost, Raced):
            pass  # it is a courtesy: correctness rests on `head`
        try:
            return await self._once(batch, deadline_s)
        finally:
            if got and line.connected:
                try:
                    await line.fetch("SELECT pg_advisory_unlock($1)", (self._turn,), deadline_s)
                except (Lost, Raced, WarpError):
                    line.drop()  # the lock ends with the session

    async def _once(self, batch: list[Request], deadline_s: float) -> bool:
        """Try once; say whether it was settled, else another node was faster."""
        commits = [request.commit for request in batch]
        views = self._views.waiting()
        try:
            rows = await self._line.fetch(
                self._statements.judge, questions(commits).arguments(), deadline_s
            )
        except BaseException:
            self._views.restore(views)
            raise
        known = answer(rows)
        for view in views:
            view.fix(known.head)
        plan = judge(commits, known)
        if plan.version > plan.head:
            try:
                applied = await self._line.fetch(
                    self._statements.apply, plan.arguments(), deadline_s
                )
            except Lost as error:
                await self._resolve(batch, plan, error)
                return True
            if not applied:
                return False
        self._views.saw(plan.version)
        _tell(batch, plan)
        return True

    async def _resolve(self, batch: list[Request], plan: Plan, error: Lost) -> None:
        """Find out what became of a statement whose answer was lost, and settle what it settles.

        Raises:
            Lost: It was not applied, and will not be.
            Ambiguous: Nobody could tell in time.
        """
        deadline_s = asyncio.get_running_loop().time() + self._server.timeout_s
        try:
            found = await self.outcomes(plan.made[1], deadline_s)
        except WarpError as cause:
            raise Ambiguous(
                f"{error}; whether it was applied could not be asked: {cause}"
            ) from cause
        if len(found) < len(plan.made[1]):
            raise error
        self._views.saw(plan.version)
        _tell(batch, plan)

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`."""
        await self._settled.wait()  # what is being applied would be tried again after the fence
        deadline_s = asyncio.get_running_loop().time() + self._server.timeout_s
        return (await self.outcomes([request_id], deadline_s)).get(request_id)

    async def outcomes(self, requests: list[bytes], deadline_s: float) -> dict[bytes, int]:
        """Return the versions of those of some requests that were applied; the others will not be.

        Raises:
            Unavailable: The server does not tell.
        """
        line = Line(self._server, writes=True)

        async def ask() -> dict[bytes, int]:
            await line.fetch(self._statements.fence, (), deadline_s)
            rows = await line.fetch(self._statements.applied, (requests,), deadline_s)
            return {row[0]: row[1] for row in rows}

        try:
            return await line.retried(ask, deadline_s)
        finally:
            await line.close()

    def adopt(self, connection: object) -> None:
        """Go on with a connection that was made already."""
        self._line.adopt(connection)

    def close(self) -> None:
        """Refuse what waits and what comes."""
        self._closed = True
        _refuse(self._waiting, Unavailable("the metadata engine is closed"))
        self._waiting.clear()


def _named(commit: Commit) -> Commit:
    """Give a commit a request id of its own, so that it can be asked for."""
    return Commit(
        commit.checks, commit.writes, commit.merges, commit.stamps, os.urandom(REQUEST_ID_SIZE)
    )


def _tell(batch: list[Request], plan: Plan) -> None:
    for request, outcome in zip(batch, plan.outcomes, strict=True):
        if request.future.done():
            continue
        if isinstance(outcome, int):
            request.future.set_result(outcome)
        else:
            request.future.set_exception(outcome)


def _refuse(batch: list[Request] | deque[Request], error: WarpError) -> None:
    for request in batch:
        if not request.future.done():
            request.future.set_exception(type(error)(str(error)))
