"""Read views: a version, and reads as of it; no transaction stays open on the server.

A view is *unfixed* until its first read says what the newest version is. A commit of this process that begins meanwhile fixes the
views taken before it, at the version that it starts from, so that none of them shows what came later. Whatever other processes were
told to be committed before the view was taken is older than either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from warp_core.errors import Expired
from warp_core.interfaces.consistency import SCAN_MAX, VIEW_MAX_S, Row, View

from warp_postgres.reader import Reader
from warp_postgres.schema import UNFIXED, Statements

_new = tuple.__new__


class Views:
    """What the views of one engine share."""

    def __init__(
        self, reader: Reader, statements: Statements, monotonic: Callable[[], float]
    ) -> None:
        self.reader = reader
        self.statements = statements
        self.monotonic = monotonic
        self.newest = 0  # that this process knows of
        self._unfixed: dict[int, PostgresView] = {}

    def take(self) -> PostgresView:
        """Return a view of now."""
        view = PostgresView(self)
        self._unfixed[id(view)] = view
        return view

    def waiting(self) -> list[PostgresView]:
        """Hand over the views that nothing has fixed yet."""
        waiting = list(self._unfixed.values())
        self._unfixed.clear()
        return waiting

    def restore(self, views: list[PostgresView]) -> None:
        """Take back views that were handed over and not fixed after all."""
        for view in views:
            if not view.fixed:
                self._unfixed[id(view)] = view

    def forget(self, view: PostgresView) -> None:
        """Drop a view that is closed, fixed or about to be."""
        self._unfixed.pop(id(view), None)

    def saw(self, version: int) -> None:
        """Note a version that the server told of."""
        if version > self.newest:
            self.newest = version


class PostgresView(View):
    """See `View`. `version` is what this process knows when the view is taken, until the view is fixed: never too new for a check."""

    __slots__ = ("_fixing", "_taken_s", "_views", "fixed", "version")

    def __init__(self, views: Views) -> None:
        self._views = views
        self._taken_s = views.monotonic()
        self._fixing: asyncio.Future[None] | None = None
        self.version = views.newest
        self.fixed = False

    def fix(self, version: int) -> None:
        """Set the moment, unless it is set already."""
        if not self.fixed:
            self.version = version
            self.fixed = True

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """See `View.get`."""
        self._check_age()
        reader = self._views.reader
        if not self.fixed and await self._first():
            try:
                head, horizon, row = await reader.get(key, UNFIXED)
            except BaseException:
                self._unfix()
                raise
            return row if self._settled(head, horizon) else await self.get(key)
        head, horizon, row = await reader.get(key, self.version)
        self._views.saw(head)
        self._check_horizon(horizon)
        return row

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """See `View.scan`."""
        rows = await self._rows(start, end, limit, reverse)
        return [_new(Row, (row[0], row[1], row[2])) for row in rows]

    async def columns(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX
    ) -> tuple[list[bytes], list[bytes]]:
        """See `View.columns`."""
        rows = await self._rows(start, end, limit, False)
        return [row[0] for row in rows], [row[1] for row in rows]

    async def _rows(
        self, start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[tuple[bytes, bytes, int, int]]:
        """Return up to `limit` (key, value, version, 0)."""
        self._check_age()
        limit = min(limit, SCAN_MAX)
        if limit <= 0 or start >= end:
            return []
        views = self._views
        statement = views.statements.scan_back if reverse else views.statements.scan
        if not self.fixed and await self._first():
            try:
                rows = await views.reader.query(statement, start, end, UNFIXED, limit)
            except BaseException:
                self._unfix()
                raise
            _, _, head, horizon = rows[0]
            if not self._settled(head, horizon):
                return await self._rows(start, end, limit, reverse)
            return rows[1:]
        rows = await views.reader.query(statement, start, end, self.version, limit)
        _, _, head, horizon = rows[0]
        views.saw(head)
        self._check_horizon(horizon)
        return rows[1:]

    async def _first(self) -> bool:
        """Say whether this read is the one that fixes the view; others wait for it."""
        while not self.fixed:
            if self._fixing is None:
                self._fixing = asyncio.get_running_loop().create_future()
                return True
            await asyncio.shield(self._fixing)
        return False

    def _settled(self, head: int, horizon: int) -> bool:
        """Fix the view by what its first read found; say whether that read is of the view's moment.

        It is not where a commit that began before the read fixed the view first.
        """
        self._views.saw(head)
        self._views.forget(self)
        mine = not self.fixed
        self.fix(head)
        self._wake()
        if mine:
            self._check_horizon(horizon)
        return mine or self.version == head

    def _unfix(self) -> None:
        """Let another read try."""
        self._wake()

    def _wake(self) -> None:
        fixing, self._fixing = self._fixing, None
        if fixing is not None and not fixing.done():
            fixing.set_result(None)

    def _check_age(self) -> None:
        if self._views.monotonic() - self._taken_s > VIEW_MAX_S:
            raise Expired(f"view of version {self.version} is older than {VIEW_MAX_S:g} s")

    def _check_horizon(self, horizon: int) -> None:
        """Refuse what was read where it was forgotten meanwhile, as after this process was stopped for long."""
        if self.version < horizon:
            raise Expired(f"view of version {self.version}: what is below {horizon} is forgotten")

    def close(self) -> None:
        """See `View.close`."""
        self._views.forget(self)
