"""The engine: rows in PostgreSQL, one line of commits, views without transactions."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
from warp_core.errors import Corrupt, NewerFormat, Unavailable, WarpError
from warp_core.interfaces.consistency import (
    Change,
    Commit,
    Lease,
    MetaCapabilities,
    MetaStore,
    View,
)
from warp_core.metadata.limits import check_limits

from warp_postgres.committer import Committer
from warp_postgres.config import Config
from warp_postgres.errors import Lost, Raced, refusal, translated
from warp_postgres.leases import Leases
from warp_postgres.reader import Reader
from warp_postgres.schema import FORMAT, create, statements
from warp_postgres.server import Line, Server
from warp_postgres.views import Views
from warp_postgres.watching import Watching

PRUNE_S = 1.0  # between looks for what may be forgotten
PRUNE_VERSIONS = 10_000  # at a time: about 50,000 rows, tenths of a second

_log = logging.getLogger(__name__)


class Postgres(MetaStore):
    """MetaStore on PostgreSQL; several nodes may use one schema."""

    capabilities = MetaCapabilities(durable=True, watch=True, lease=True, shared=True)

    def __init__(
        self,
        config: Config,
        *,
        folder: Path,
        node: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._server = Server(config, folder=folder, node=node)
        self._monotonic = monotonic
        self._tasks: list[asyncio.Task[None]] = []
        self._lines: list[Line] = []
        self._opened = False

    async def __aenter__(self) -> Self:
        connection = await self._server.connect_first()
        try:
            version = await self._found(connection)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, asyncpg.PostgresError):
                raise refusal(error, self._server.place, self._server.user) or Unavailable(
                    f"metadata: {translated(error, self._server.place)}"
                ) from error
            raise
        schema = self._config.schema
        sql = statements(schema, notify=self._server.kind == "postgres")
        self._sql = sql
        self._reader = Reader(self._server, sql)
        self._views = Views(self._reader, sql, self._monotonic)
        self._views.saw(version)
        self._committer = Committer(self._server, schema, sql, self._views)
        self._watching = Watching(self._server, schema, sql, self._views)
        self._leases = Leases(self._server, sql)
        self._lines = [Line(self._server) for _ in range(self._config.connections)]
        self._lines[0].adopt(connection)
        loops = [self._committer.serve(), self._watching.serve(), self._prune()]
        loops += [self._reader.serve(line) for line in self._lines]
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        self._opened = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened = False
        self._reader.close()
        self._committer.close()
        self._watching.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            await line.close()
        await self._leases.close()

    async def _found(self, connection: Any) -> int:
        """Make the tables where they are not there; return the newest version.

        Raises:
            NewerFormat: A newer release made them.
        """
        schema = self._config.schema
        sql = statements(schema, notify=False)
        if not await connection.fetchval(sql.exists):
            tuned = self._server.kind == "postgres"
            known = await connection.fetchval(
                "SELECT true FROM information_schema.schemata WHERE schema_name = $1", schema
            )
            # Whoever may not make schemas may still use one that somebody made.
            making = create(schema, uuid.uuid4().hex, tuned=tuned)[1 if known else 0 :]
            for attempt in range(10):
                try:
                    async with connection.transaction():
                        for statement in making:
                            await connection.execute(statement)
                    break
                except (
                    asyncpg.UniqueViolationError,
                    asyncpg.DuplicateTableError,
                    asyncpg.DuplicateSchemaError,
                    asyncpg.SerializationError,
                    asyncpg.DeadlockDetectedError,
                ):
                    # Another node makes them at this moment.
                    if attempt == 9:
                        raise
                    await asyncio.sleep(0.05 * (attempt + 1))
        row = await connection.fetchrow(sql.format)
        if row is None:
            raise Corrupt(
                f"metadata: {schema}.head in {self._server.place} is empty: restore a backup"
            )
        if row[0] > FORMAT:
            raise NewerFormat(
                f"metadata: schema {schema} in {self._server.place} has format {row[0]}, "
                f"this release reads up to {FORMAT}: install the newer one"
            )
        self.identity = str(row[2])
        return int(row[1])

    async def _prune(self) -> None:
        """Forget what this node saw as the newest `history` ago, again and again; every node does, whoever comes first.

        It is timed by the node's own monotonic clock: nobody's clock that jumps makes anything be forgotten early.
        """
        line = Line(self._server)
        clock = asyncio.get_running_loop().time
        seen: deque[tuple[float, int]] = deque()
        due = 0
        try:
            while True:
                await asyncio.sleep(PRUNE_S)
                try:
                    deadline_s = clock() + self._server.timeout_s
                    head, horizon = (await line.fetch(self._sql.extent, (), deadline_s))[0]
                    seen.append((clock(), head))
                    while seen and seen[0][0] <= clock() - self._config.history:
                        due = seen.popleft()[1]
                    while horizon < due:
                        horizon = min(due, horizon + PRUNE_VERSIONS)
                        deadline_s = clock() + self._server.timeout_s
                        await line.fetch(self._sql.prune, (horizon,), deadline_s)
                except (Lost, Raced, WarpError) as error:
                    _log.debug("what is old is forgotten later: %s", error)
        finally:
            await line.close()

    def view(self) -> View:
        """See `MetaStore.view`."""
        if not self._opened:
            raise Unavailable("the metadata engine is closed")
        return self._views.take()

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        size = check_limits(commit)
        version = await self._committer.commit(commit, size)
        self._watching.tell()
        return version

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`. A request that is older than `history` is forgotten, and taken for one that was not applied."""
        return await self._committer.outcome(request_id)

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        return self._watching.watch(prefix, since)

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`. It lasts by the server's clock."""
        return await self._leases.grant(name, holder, ttl_s)

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        return await self._leases.renew(lease)

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        await self._leases.release(lease)
