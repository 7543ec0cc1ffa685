"""Watches: pages of `past` in the order of commits, and a connection that listens for the next ones.

Every commit that is applied tells the channel its version. A watcher reads from where it is until there is no more, then waits for the
channel, for a commit of this process, or for a while, whichever comes first: a notice that is lost, or a server that has no channels,
costs time and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from warp_core.errors import Expired, Unavailable, WarpError
from warp_core.interfaces.consistency import Change
from warp_core.metadata.keys import prefix_end

from warp_postgres.batch import VERSION_MAX
from warp_postgres.errors import Lost
from warp_postgres.schema import Statements, channel
from warp_postgres.server import BACKOFF_FIRST_S, BACKOFF_MAX_S, Line, Server
from warp_postgres.views import Views

PAGE = 1000  # changes in one answer
POLL_S = 1.0  # between looks while the channel is silent
POLL_BLIND_S = 0.1  # where the server has no channels


class Watching:
    """What the watchers of one engine share. Run `serve` in a task."""

    def __init__(self, server: Server, schema: str, statements: Statements, views: Views) -> None:
        self._server = server
        self._channel = channel(schema)
        self._statements = statements
        self._views = views
        self._wanted = asyncio.Event()  # somebody watches
        self._news = asyncio.Event()  # replaced at each notice
        self._lost = asyncio.Event()
        self._closed = False

    def tell(self) -> None:
        """Wake the watchers: there is something new."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def serve(self) -> None:
        """Listen, from the first watch on, until cancelled."""
        await self._wanted.wait()
        line = Line(self._server)
        clock = asyncio.get_running_loop().time
        delay_s = BACKOFF_FIRST_S
        try:
            while self._server.kind == "postgres":
                try:
                    connection = await line.connect(clock() + self._server.timeout_s)
                    self._lost.clear()
                    connection.add_termination_listener(lambda _: self._lost.set())
                    await connection.add_listener(self._channel, lambda *_: self.tell())
                    delay_s = BACKOFF_FIRST_S
                    self.tell()  # what came while nobody listened
                    await self._lost.wait()
                except (WarpError, Lost, OSError, _driver_error()):
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, BACKOFF_MAX_S)
        finally:
            await line.close()

    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        end = prefix_end(prefix)
        since = min(since, VERSION_MAX)
        poll_s = POLL_S if self._server.kind == "postgres" else POLL_BLIND_S
        self._wanted.set()
        while True:
            news = self._news
            page, since, more = await self._page(prefix, end, since)
            for change in page:
                yield change
            if more:
                continue
            if self._closed:
                raise Unavailable("the metadata engine is closed")
            try:
                async with asyncio.timeout(poll_s):
                    await news.wait()
            except TimeoutError:
                pass

    async def _page(self, start: bytes, end: bytes, since: int) -> tuple[list[Change], int, bool]:
        """Return changes after `since`, whole commits only; how far they reach, and whether there may be more at once."""
        query = self._views.reader.query
        limit = PAGE
        while True:
            found = await query(self._statements.changes, since, start, end, limit)
            whole = [(row[0], row[1]) for row in found]
            if len(whole) == limit:  # the last commit may go on
                whole = [pair for pair in whole if pair[0] < whole[-1][0]]
            if whole or len(found) < limit:
                break
            limit *= 2  # one commit alone fills the page; it has an end
        until = whole[-1][0] if whole else since
        keys = list({key for _, key in whole})
        answer = await query(self._statements.values, since, until, keys)
        _, head, _, horizon = answer[0]
        self._views.saw(head)
        if since < horizon:
            raise Expired(
                f"changes up to version {horizon} are forgotten, {since} is older: scan anew"
            )
        values = {(row[0], row[1]): row[2] for row in answer[1:]}
        changes = [Change(key, values.get((key, version)), version) for version, key in whole]
        return changes, until, len(found) >= limit

    def close(self) -> None:
        """End what waits."""
        self._closed = True
        self.tell()


def _driver_error() -> type[Exception]:
    import asyncpg

    error: type[Exception] = asyncpg.PostgresError
    return error
