"""Transactions: reads remember what they saw, writes wait in memory, one commit carries both.

```python
async def transfer(tx: Transaction) -> None:
    balance = await tx.get(b"a")
    ...
    tx.put(b"a", ...)


await transact(store, transfer)
```

A body may run several times: it changes nothing but its transaction, and starts from what it reads
in this run.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from warp_core.errors import Ambiguous, Conflict, Expired, Unavailable, WarpError
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Commit,
    KeyCheck,
    Merge,
    MetaStore,
    RangeCheck,
    Row,
    Stamp,
    View,
    Write,
)
from warp_core.metadata.counters import combined, merged
from warp_core.metadata.limits import REQUEST_ID_SIZE

T = TypeVar("T")

BUDGET_S = (
    10.0  # time that retries of one transaction may take together; clients give up at about 30 s
)
BACKOFF_FIRST_S = 0.001  # about one round trip or sync
BACKOFF_MAX_S = 0.25
_new = tuple.__new__
_NEW_ROW = 0  # version of a row that only this transaction sees


class Transaction:
    """One attempt: read a moment, buffer changes, commit them if what was read still holds.

    All reads see the same moment and this transaction's own changes. Close it (or use `async
    with`): its view holds back checkpoints.
    """

    __slots__ = (
        "_elsewhere",
        "_immediate",
        "_merges",
        "_ranges",
        "_reads",
        "_relaxed",
        "_stamps",
        "_store",
        "_view",
        "_writes",
        "version",
    )

    def __init__(self, store: MetaStore, *, relaxed: bool = False) -> None:
        """Begin one; `relaxed`: it may be acknowledged before it is durable."""
        self._store = store
        self._relaxed = relaxed
        self._immediate = store.capabilities.immediate
        self._view: View | None = None
        self._reads: dict[bytes, int] = {}  # as the view showed them
        self._elsewhere: dict[bytes, int] = {}  # as somebody else was shown them
        self._ranges: list[RangeCheck] = []
        self._writes: dict[bytes, bytes | None] = {}
        self._merges: dict[bytes, Merge] = {}
        self._stamps: list[Stamp] = []
        self.version = 0  # of the commit, once there is one

    async def get(self, key: bytes, *, checked: bool = True) -> bytes | None:
        """Return the row's value or None.

        With `checked`, the commit conflicts if another changes the row before it.

        Raises:
            Expired: The transaction took longer than VIEW_MAX_S.
        """
        if key in self._writes:
            return self._writes[key]
        view = self._view
        if view is None:
            view = self._view = self._store.latest()
        row = view.get_now(key) if self._immediate else await view.get(key)
        if row is None:
            value = None
            if checked:
                self._reads[key] = 0
        else:
            value = row[0]
            if checked:
                self._reads[key] = row[1]
        if self._merges and key in self._merges:
            return merged(value, self._merges[key])
        return value

    async def scan(
        self,
        start: bytes,
        end: bytes,
        *,
        limit: int = SCAN_MAX,
        reverse: bool = False,
        checked: bool = True,
    ) -> list[Row]:
        """Return up to `limit` (at most SCAN_MAX) rows of [start, end); rows of its own have
        version 0.

        With `checked`, the commit conflicts if another adds, changes or deletes a row in the part
        of the range that was read.

        Raises:
            Expired: The transaction took longer than VIEW_MAX_S.
        """
        limit = min(limit, SCAN_MAX)
        if limit <= 0 or start >= end:
            return []
        view = self._view
        if view is None:
            view = self._view = self._store.latest()
        own = await self._own(view, start, end)
        if own:
            rows = await _scan_with(view, own, start, end, limit, reverse)
        else:
            rows = await view.scan(start, end, limit=limit, reverse=reverse)
        if checked:
            if len(rows) < limit:
                self._ranges.append(RangeCheck(start, end, view.version))
            elif reverse:
                self._ranges.append(RangeCheck(rows[-1].key, end, view.version))
            else:
                self._ranges.append(RangeCheck(start, rows[-1].key + b"\0", view.version))
        return rows

    async def _own(self, view: View, start: bytes, end: bytes) -> dict[bytes, bytes | None]:
        """Return what this transaction changed in a range."""
        own = {key: value for key, value in self._writes.items() if start <= key < end}
        for key, merge in self._merges.items():
            if start <= key < end:
                row = await view.get(key)
                own[key] = merged(row[0] if row else None, merge)
        return own

    def put(self, key: bytes, value: bytes) -> None:
        """Set a row."""
        if self._merges:
            self._merges.pop(key, None)
        self._writes[key] = value

    def delete(self, key: bytes) -> None:
        """Delete a row; harmless when it is absent."""
        if self._merges:
            self._merges.pop(key, None)
        self._writes[key] = None

    def merge(self, key: bytes, *, add: tuple[int, ...] = (), max: tuple[int, ...] = ()) -> None:
        """Change a counter row without reading it; see `Merge`.

        Raises:
            InvalidArgument: It does not fit what this transaction did to the row before.
        """
        merge = Merge(key, add, max)
        if key in self._writes:
            self._writes[key] = merged(self._writes[key], merge)
        elif key in self._merges:
            self._merges[key] = combined(self._merges[key], merge)
        else:
            self._merges[key] = merge

    def stamp(
        self, prefix: bytes, suffix: bytes, value: bytes, *, descending: bool = False
    ) -> None:
        """Write a row whose key carries the commit's version.

        See `Stamp`. Reads of this transaction do not see it.
        """
        self._stamps.append(Stamp(prefix, suffix, value, descending))

    def check(self, key: bytes, version: int) -> None:
        """Demand that a row read elsewhere did not change after `version`.

        0 demands that it is absent.
        """
        known = self._elsewhere.get(key)
        self._elsewhere[key] = version if known is None else min(known, version)

    @property
    def changes_anything(self) -> bool:
        """Whether a commit would write."""
        return bool(self._writes or self._merges or self._stamps)

    async def rests(self) -> None:
        """Return when what was read is durable: a commit of its own would wait for that, a refusal or an answer without one has to.

        Raises:
            Unavailable: It never will be.
        """
        if self._view is not None:
            await self._store.reach(self._view.version)

    async def commit(self) -> int:
        """Commit once and return the version. Without changes nothing is sent: what was read is one
        consistent moment.

        Raises:
            Conflict: Something that was read changed; or the engine lost the commit. Start a new
                transaction. Ambiguous: The engine cannot tell whether it was applied. TooLarge:
                Beyond the limits of a commit.
        """
        if not (self._writes or self._merges or self._stamps):
            self.version = self._view.version if self._view is not None else 0
            return self.version
        checks: list[KeyCheck | RangeCheck] = [_new(KeyCheck, read) for read in self._reads.items()]
        seen = len(checks)
        if self._elsewhere:
            checks += [_new(KeyCheck, read) for read in self._elsewhere.items()]
        if self._ranges:
            checks += self._ranges
        commit = Commit(
            checks,
            [_new(Write, write) for write in self._writes.items()],
            list(self._merges.values()),
            self._stamps,
            new_request_id(),
            seen,
            self._view.version if self._view is not None else 0,
            self._relaxed,
        )
        self.version = await commit_once(self._store, commit)
        return self.version

    def close(self) -> None:
        """Release the view; harmless when repeated."""
        if self._view is not None:
            self._view.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _RequestIds:
    """Makes ids that are unique without asking the kernel each time, which would let another thread run."""

    def __init__(self) -> None:
        self._prefix = os.urandom(REQUEST_ID_SIZE - 8)
        self._numbers = itertools.count(int.from_bytes(os.urandom(7), "big"))

    def __call__(self) -> bytes:
        return self._prefix + next(self._numbers).to_bytes(8, "big")


_request_ids: list[_RequestIds] = []
os.register_at_fork(after_in_child=_request_ids.clear)


def new_request_id() -> bytes:
    """Return an id that no commit had before."""
    if not _request_ids:
        _request_ids.append(_RequestIds())
    return _request_ids[0]()


async def commit_once(store: MetaStore, commit: Commit) -> int:
    """Commit, find out what became of it where the engine cannot tell at first, and return the version.

    Raises:
        Conflict: A check does not hold, or the engine lost the commit.
        Ambiguous: The engine cannot tell whether it was applied.
        TooLarge: Beyond the limits of a commit.
    """
    try:
        return await store.commit(commit)
    except Ambiguous as error:
        return await _resolved(store, commit.request_id, error)


async def _resolved(store: MetaStore, request_id: bytes, error: Ambiguous) -> int:
    """Find out what became of a commit."""
    deadline = time.monotonic() + BUDGET_S
    delay = BACKOFF_FIRST_S
    while True:
        try:
            version = await store.outcome(request_id)
        except (Unavailable, Ambiguous):
            if time.monotonic() + delay > deadline:
                raise error from None
            await asyncio.sleep(delay * random.random())
            delay = min(2 * delay, BACKOFF_MAX_S)
            continue
        except WarpError:
            raise error from None  # nobody will ever tell
        if version is None:
            raise Conflict("the commit was lost before it was applied") from error
        return version


async def _scan_with(
    view: View, own: dict[bytes, bytes | None], start: bytes, end: bytes, limit: int, reverse: bool
) -> list[Row]:
    """Scan a view with changes laid over it."""
    rows: list[Row] = []
    while True:
        step = min(limit - len(rows) + len(own), SCAN_MAX)
        below = await view.scan(start, end, limit=step, reverse=reverse)
        exhausted = len(below) < step
        if exhausted:
            low, high = start, end
        elif reverse:
            low, high = below[-1].key, end
        else:
            low, high = start, below[-1].key + b"\0"
        part = [row for row in below if row.key not in own]
        part += [
            Row(key, value, _NEW_ROW)
            for key, value in own.items()
            if value is not None and low <= key < high
        ]
        part.sort(reverse=reverse)
        rows += part
        if exhausted or len(rows) >= limit:
            return rows[:limit]
        if reverse:
            end = low
        else:
            start = high


async def transact(
    store: MetaStore,
    body: Callable[[Transaction], Awaitable[T]],
    *,
    budget_s: float = BUDGET_S,
    relaxed: bool = False,
) -> T:
    """Run a body and commit what it wrote; run it again if another was faster, and return what its
    last run returned.

    What it returns or raises rests on durable rows, unless it may be `relaxed`.

    Raises:
        Conflict: Others were faster until the budget ran out.
        Ambiguous: The engine cannot tell whether the change was applied.
        WarpError: Whatever the body raised; then nothing was written.
    """
    deadline = 0.0
    delay = 0.0
    while True:
        tx = Transaction(store, relaxed=relaxed)
        try:
            try:
                result = await body(tx)
            except (Conflict, Expired):
                raise
            except WarpError:
                if not relaxed:
                    await (
                        tx.rests()
                    )  # what is refused must not be for something that a crash takes back
                raise
            try:
                await tx.commit()
            except Unavailable as error:
                raise _NotNow(str(error)) from error
            if not relaxed and not tx.changes_anything:
                await tx.rests()
            return result
        except (Conflict, Expired) as error:
            now = time.monotonic()
            if not deadline:
                deadline = now + budget_s
            if now + delay > deadline:
                if isinstance(error, _NotNow) and isinstance(error.__cause__, Unavailable):
                    raise error.__cause__ from None
                raise
        finally:
            tx.close()
        # The first retry follows at once: a single collision is over by the time that its loser
        # hears of it.
        if delay:
            await asyncio.sleep(delay * random.random())
        delay = min(2 * delay, BACKOFF_MAX_S) or BACKOFF_FIRST_S


class _NotNow(Conflict):
    """The engine could not be reached, so the commit was not applied."""
