"""Applies commits: one batch at a time is on its way, what arrives meanwhile is the next one.

    wait → plan → [read what is missing] → append → applied: tell all · lost: learn what came first, plan again
                                             └ no answer: append again; the condition on the head lets only one of the two happen

Sending the same batch again is harmless, because its condition fails once it was applied, and the log then names its commits. So an
unclear answer is cleared up here as long as there is time; only then the caller is told `Ambiguous`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from warp_core.errors import Ambiguous, Busy, Corrupt, StoreFailed, Unavailable, WarpError
from warp_core.interfaces.consistency import Commit
from warp_core.logs import get as get_log
from warp_core.metadata.limits import REQUEST_ID_SIZE, check_limits
from warp_core.metrics import Metrics

from warp_etcd import messages
from warp_etcd.batch import Pending, Plan, Room, plan
from warp_etcd.client import RANGE, TXN, Client
from warp_etcd.layout import Layout, unpack_entry, unpack_head, unpack_row
from warp_etcd.past import Past
from warp_etcd.wire import etcd_pb2 as pb

WAITING_MAX = 10_000  # commits in memory; beyond, callers are told to come back
LOG_KEPT_S = (
    30.0  # how long request ids and changes are remembered: longer than any transaction tries
)
LOG_KEPT_MAX = 50_000  # entries; a new node reads them all when it starts
LOG_CUT_MIN = 64  # entries dropped at a time
OVERHEAD = 64  # bytes around each key and value of a request, at most
PAUSE_S = 0.02  # after etcd did not answer
READ_MAX = 100  # rows asked for at once: etcd's limit is 128 operations

log = get_log("warp_etcd")


class Committer:
    """The queue of one node; `run` works it off."""

    def __init__(
        self,
        client: Client,
        layout: Layout,
        room: Room,
        *,
        timeout_s: float,
        monotonic: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.past = Past()
        self._client = client
        self._layout = layout
        self._room = room
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._waiting: list[Pending] = []
        self._wake = asyncio.Event()
        self._calls = 0  # of etcd, begun
        self._fresh = 0  # everything that was applied before this call began is known
        self._closed = False
        self._batches = metrics.counters(
            "warp_etcd_batches_total", "Batches of commits sent to etcd", labels=("outcome",)
        )
        self._commits = metrics.counter("warp_etcd_commits_total", "Commits that etcd applied")
        metrics.gauge(
            "warp_etcd_commits_waiting", "Commits not applied yet", lambda: len(self._waiting)
        )
        self.refuse: WarpError | None = None  # why rows are not set for now: there is no space

    async def begin(self) -> None:
        """Learn where the log ends, and the part of it that is kept."""
        self.past.begin(0, 0)
        page = messages.scan(self._layout.entries, self._layout.log_end, limit=messages.LOG_PAGE)
        now = self._monotonic()
        answer = await self._client.call(TXN, messages.read(messages.get(self._layout.head), page))
        head, found = _ranges(answer)
        if found.kvs:
            self.past.begin_before(unpack_entry(found.kvs[0].value).before)
        elif head.kvs:
            self.past.begin(unpack_head(head.kvs[0].value).version, head.kvs[0].mod_revision)
        await self._absorb(answer, now)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="commits to etcd")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._fail(Unavailable("the metadata engine is closed"))

    async def _run(self) -> None:
        """Work the queue off until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    await self._round()
                except (Unavailable, Busy) as error:
                    self._expire(error)
                    await asyncio.sleep(PAUSE_S)
                except WarpError as error:
                    self._fail(error)  # etcd refuses, and would again
                except Exception as error:
                    log.exception("a commit failed unexpectedly", error)
                    self._fail(StoreFailed(f"the metadata engine failed: {error!r}"))
                self._waiting = [pending for pending in self._waiting if not pending.done.done()]

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        size = check_limits(commit)
        if self._closed:
            raise Unavailable("the metadata engine is closed")
        if self.refuse is not None and any(write.value is not None for write in commit.writes):
            raise self.refuse
        applied = self.past.requests.get(commit.request_id) if commit.request_id else None
        if applied is not None:
            return applied
        if len(self._waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} commits wait for etcd")
        names = sum(len(write.key) for write in commit.writes)
        rows = len(commit.writes) + len(commit.merges) + len(commit.stamps)
        pending = Pending(
            commit,
            commit.request_id or os.urandom(REQUEST_ID_SIZE),
            size + names + rows * OVERHEAD,
            self._calls,
            self._monotonic() + self._timeout_s,
            asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(pending)
        self._wake.set()
        return await pending.done

    # One round ------------------------------------------------------------------------------------

    async def _round(self) -> None:
        made = plan(self.past, self._waiting, self._room)
        if made.wanted or any(pending.asked >= self._fresh for pending, _ in made.doubted):
            await self._catch_up(made.wanted)
            made = plan(self.past, self._waiting, self._room)
        for pending, version in made.known:
            _tell(pending, version)
        for pending, error in made.refused:
            _refuse(pending, error)
        for pending, error in made.doubted:
            if pending.asked < self._fresh:
                _refuse(pending, error)
        if made.commits:
            await self._append(made)

    async def _append(self, made: Plan) -> None:
        past = self.past
        now = self._monotonic()
        cut = past.cut(now - LOG_KEPT_S, LOG_KEPT_MAX, LOG_CUT_MIN)
        request = messages.append(
            self._layout, made, before=past.version, guard=past.guard, cut=cut
        )
        left_s = max(pending.deadline_s for pending, _ in made.members) - now
        self._calls += 1
        call = self._calls
        try:
            answer = await self._client.attempt(TXN, request, timeout_s=max(left_s, 0.01))
        except (Unavailable, asyncio.CancelledError):
            for pending, _ in made.members:
                pending.sent = True
            self._batches.labels("unclear").add()
            raise
        if answer.succeeded:
            past.applied(tuple(made.commits), answer.header.revision, now, made.counters)
            past.forget(cut)
            self._batches.labels("applied").add()
            self._commits.add(len(made.commits))
            for pending, version in made.members:
                _tell(pending, version)
            self._settle()
        else:
            self._batches.labels("lost").add()  # another node was faster
            await self._absorb(answer, now)
        self._fresh = call

    def _settle(self) -> None:
        """The head moved: what was sent before and is not in the log will never be."""
        for pending in self._waiting:
            pending.sent = False

    # Learning -------------------------------------------------------------------------------------

    async def _catch_up(self, wanted: Mapping[bytes, bool]) -> None:
        """Learn what others did, and rows that checks and merges need."""
        until = self._monotonic() + self._timeout_s
        names = list(wanted)
        for at in range(0, max(len(names), 1), READ_MAX):
            keys = names[at : at + READ_MAX]
            now = self._monotonic()
            self._calls += 1
            call = self._calls
            request = messages.catch_up(self._layout, self.past.version, keys)
            answer = await self._client.call(TXN, request, until=until)
            moment = await self._absorb(answer, now)
            self._fresh = call
            for key, response in zip(keys, list(answer.responses)[2:], strict=True):
                kvs = response.response_range.kvs
                value, version = unpack_row(kvs[0].value) if kvs else (None, 0)
                self.past.saw(key, version, moment)
                if wanted[key]:
                    self.past.saw_counter(key, value, moment)

    async def _absorb(self, answer: pb.TxnResponse, now: float) -> int:
        """Learn from an answer that begins with head and log; return the version of its moment."""
        past = self.past
        head, found = _ranges(answer)
        version, guard = 0, 0
        if head.kvs:
            version, guard = unpack_head(head.kvs[0].value).version, head.kvs[0].mod_revision
        if version < past.version:
            raise Corrupt(
                f"etcd went back from version {past.version} to {version}: it lost data or was restored from a"
                " backup; start the nodes anew if that is meant"
            )
        known = past.version
        while past.version < version:
            if not all(
                past.learn(unpack_entry(pair.value), pair.mod_revision, now) for pair in found.kvs
            ):
                past.begin(version, guard)  # away for so long that the log was cut meanwhile
            elif past.version < version:
                page = messages.entries_after(self._layout, past.version)
                found = await self._client.call(RANGE, page)
                if not found.kvs:
                    past.begin(version, guard)
        if past.version > known:
            self._settle()
        return version

    # Those who wait -------------------------------------------------------------------------------

    def _expire(self, error: WarpError) -> None:
        """Tell those whose time is over."""
        now = self._monotonic()
        for pending in self._waiting:
            if now < pending.deadline_s:
                continue
            if pending.sent:
                told: WarpError = Ambiguous(f"the commit may have been applied: {error}")
            else:
                told = Unavailable(str(error))
            told.__cause__ = error
            _refuse(pending, told)

    def _fail(self, error: WarpError) -> None:
        waiting, self._waiting = self._waiting, []
        for pending in waiting:
            unclear = Ambiguous(f"the commit may have been applied: {error}")
            _refuse(pending, unclear if pending.sent else error)


def _ranges(answer: pb.TxnResponse) -> tuple[pb.RangeResponse, pb.RangeResponse]:
    return answer.responses[0].response_range, answer.responses[1].response_range


def _tell(pending: Pending, version: int) -> None:
    if not pending.done.done():
        pending.done.set_result(version)


def _refuse(pending: Pending, error: WarpError) -> None:
    if not pending.done.done():
        pending.done.set_exception(error)
