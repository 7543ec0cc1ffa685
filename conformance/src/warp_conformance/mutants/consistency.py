"""Faulty metadata engines: the plain one, with one thing wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest
from warp_core.errors import Conflict, InvalidArgument, TooLarge
from warp_core.interfaces.consistency import (
    KEY_MAX,
    SCAN_MAX,
    Change,
    Commit,
    KeyCheck,
    Lease,
    MetaStore,
    RangeCheck,
    Row,
    View,
)
from warp_core.metadata import check_limits, merged

from warp_conformance.kits.consistency import Make, MetaStoreKit
from warp_conformance.mutation import Faults
from warp_conformance.reference.consistency import Plain, PlainView, Rows

faults = Faults("consistency")


class OnEngine(MetaStoreKit):
    implementation: ClassVar[type[Plain]] = Plain

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        def opened() -> AbstractAsyncContextManager[MetaStore]:
            return self.implementation(tmp_path / "log")

        return opened


# Commits ------------------------------------------------------------------------------------------


@faults(OnEngine, "MetaStore.commit", "lost-write")
class LostWrite(Plain):
    def changed(self, commit: Commit, version: int) -> Rows:
        rows = super().changed(commit, version)
        return rows[:-1] if len(rows) > 3 else rows


@faults(OnEngine, "MetaStore.commit", "leaked-transaction")
class Leaked(Plain):
    async def commit(self, commit: Commit) -> int:
        try:
            return await super().commit(commit)
        except Conflict:
            for key, value in commit.writes[:1]:
                self.rows.setdefault(key, []).append((self.version, value))
            raise


@faults(OnEngine, "MetaStore.commit", "half-visible")
class HalfVisible(Plain):
    async def commit(self, commit: Commit) -> int:
        if len(commit.writes) > 10:
            half = len(commit.writes) // 2
            await super().commit(Commit(commit.checks, commit.writes[:half]))
            await asyncio.sleep(0)
            commit = Commit(
                (), commit.writes[half:], commit.merges, commit.stamps, commit.request_id
            )
        return await super().commit(commit)


@faults(OnEngine, "MetaStore.commit", "late-judgement")
class LateJudgement(Plain):
    """Judges, waits, applies: what happened between is not looked at."""

    async def commit(self, commit: Commit) -> int:
        for check in commit.checks:
            self.judge(check)
        await asyncio.sleep(0)
        return await super().commit(_with_checks(commit, ()))


@faults(OnEngine, "MetaStore.commit", "early-acknowledgement")
class Early(Plain):
    """Applies after it answered."""

    async def commit(self, commit: Commit) -> int:
        check_limits(commit)
        for check in commit.checks:
            self.judge(check)
        asyncio.get_running_loop().call_soon(
            lambda: asyncio.ensure_future(super(Early, self).commit(commit))
        )
        return self.version + 1


@faults(OnEngine, "MetaStore.commit", "same-version-twice")
class SameVersion(Plain):
    async def commit(self, commit: Commit) -> int:
        version = await super().commit(commit)
        if not (commit.writes or commit.merges or commit.stamps):
            self.version -= 1
            return version - 1
        return version


@faults(OnEngine, "MetaStore.commit", "not-durable")
class NotDurable(Plain):
    def persist(self, version: int, request_id: bytes, rows: Rows) -> None:
        if version % 2:
            super().persist(version, request_id, rows)


@faults(OnEngine, "MetaStore.commit", "written-behind")
class WrittenBehind(Plain):
    """Keeps commits in a buffer that a kill takes along."""

    def persist(self, version: int, request_id: bytes, rows: Rows) -> None:
        flush, self.file.flush = self.file.flush, lambda: None
        super().persist(version, request_id, rows)
        del self.file.flush
        assert flush


@faults(OnEngine, "MetaStore.commit", "torn-commit")
class Torn(Plain):
    """Writes a commit's rows one by one: a kill between leaves half of it."""

    def persist(self, version: int, request_id: bytes, rows: Rows) -> None:
        for row in rows[:-1]:
            super().persist(version, request_id, [row])
            time.sleep(0.0005)
        super().persist(version, request_id, rows[-1:])


# Checks -------------------------------------------------------------------------------------------


@faults(OnEngine, "KeyCheck", "ignored")
class ChecksNoKeys(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, RangeCheck):
            super().judge(check)


@faults(OnEngine, "KeyCheck", "only-the-first")
class ChecksFirst(Plain):
    async def commit(self, commit: Commit) -> int:
        return await super().commit(_with_checks(commit, commit.checks[:1]))


@faults(OnEngine, "KeyCheck", "absence-ignored")
class AbsenceIgnored(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if not (isinstance(check, KeyCheck) and check.version == 0):
            super().judge(check)


@faults(OnEngine, "KeyCheck", "deletes-ignored")
class KeyDeletesIgnored(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, KeyCheck) and self.at(check.key, self.version) is None:
            return
        super().judge(check)


@faults(OnEngine, "KeyCheck", "compares-existence")
class ComparesExistence(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, KeyCheck) and check.version and self.at(check.key, self.version):
            return
        super().judge(check)


@faults(OnEngine, "RangeCheck", "ignored")
class ChecksNoRanges(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, KeyCheck):
            super().judge(check)


@faults(OnEngine, "RangeCheck", "lost-delete-phantom")
class LostDelete(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, RangeCheck):
            for key in self.rows:
                row = self.at(key, self.version)
                if check.start <= key < check.end and row and row[1] > check.version:
                    raise Conflict("changed")
            return
        super().judge(check)


@faults(OnEngine, "RangeCheck", "includes-its-end")
class IncludesEnd(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, RangeCheck):
            check = check._replace(end=check.end + b"\0")
        super().judge(check)


@faults(OnEngine, "RangeCheck", "excludes-its-start")
class ExcludesStart(Plain):
    def judge(self, check: KeyCheck | RangeCheck) -> None:
        if isinstance(check, RangeCheck):
            check = check._replace(start=check.start + b"\0")
        super().judge(check)


# Views --------------------------------------------------------------------------------------------


@faults(OnEngine, "MetaStore.view", "stale-read")
class Stale(Plain):
    def view(self) -> View:
        return PlainView(self, max(0, self.version - 1))


@faults(OnEngine, "View.get", "reads-the-newest")
class ReadsNewest(Plain):
    def view(self) -> View:
        class Newest(PlainView):
            async def get(self, key: bytes) -> tuple[bytes, int] | None:
                return self._store.at(key, self._store.version)

        return Newest(self, self.version)


@faults(OnEngine, "View.get", "wrong-version")
class WrongVersion(Plain):
    def view(self) -> View:
        class Wrong(PlainView):
            async def get(self, key: bytes) -> tuple[bytes, int] | None:
                row = await super().get(key)
                return row and (row[0], self.version)

        return Wrong(self, self.version)


class _Scanning(Plain):
    """An engine whose scans are changed by `altered`."""

    def altered(
        self, view: PlainView, rows: list[Row], start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[Row]:
        raise AssertionError("every mutant gives its own")

    def view(self) -> View:
        altered = self.altered

        class Altered(PlainView):
            async def scan(
                self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
            ) -> list[Row]:
                rows = [
                    Row(key, *row)
                    for key in sorted(self._store.rows)
                    if (row := self._store.at(key, self.version))
                ]
                return altered(self, rows, start, end, limit, reverse)

        return Altered(self, self.version)


@faults(OnEngine, "View.scan", "ignored-end")
class IgnoredEnd(_Scanning):
    def altered(
        self, view: PlainView, rows: list[Row], start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[Row]:
        found = [row for row in rows if row.key >= start]
        return (found[::-1] if reverse else found)[:limit]


@faults(OnEngine, "View.scan", "reverse-takes-the-wrong-end")
class WrongEnd(_Scanning):
    def altered(
        self, view: PlainView, rows: list[Row], start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[Row]:
        found = [row for row in rows if start <= row.key < end][: min(limit, SCAN_MAX)]
        return found[::-1] if reverse else found


@faults(OnEngine, "View.scan", "limit-counts-deleted-rows")
class CountsDeleted(_Scanning):
    def altered(
        self, view: PlainView, rows: list[Row], start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[Row]:
        every = sorted((key for key in self.rows if start <= key < end), reverse=reverse)
        live = {row.key: row for row in rows}
        return [live[key] for key in every[: min(limit, SCAN_MAX)] if key in live]


@faults(OnEngine, "View.scan", "no-limit")
class NoLimit(_Scanning):
    def altered(
        self, view: PlainView, rows: list[Row], start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[Row]:
        found = [row for row in rows if start <= row.key < end]
        return (found[::-1] if reverse else found)[: limit if limit < SCAN_MAX else None]


@faults(OnEngine, "View.scan", "sorted-as-text")
class SortedAsText(_Scanning):
    def altered(
        self, view: PlainView, rows: list[Row], start: bytes, end: bytes, limit: int, reverse: bool
    ) -> list[Row]:
        rows = sorted(rows, key=lambda row: [(byte + 128) % 256 for byte in row.key])
        found = [row for row in rows if start <= row.key < end]
        return (found[::-1] if reverse else found)[: min(limit, SCAN_MAX)]


# Merges and stamps --------------------------------------------------------------------------------


@faults(OnEngine, "Merge", "conflicts-with-merges")
class MergesConflict(Plain):
    async def commit(self, commit: Commit) -> int:
        seen = {merge.key: self.last(merge.key) for merge in commit.merges}
        await asyncio.sleep(0)
        for key, version in seen.items():
            if self.last(key) != version:
                raise Conflict("another merge was faster")
        return await super().commit(commit)


@faults(OnEngine, "Merge", "lost-under-concurrency")
class MergesLost(Plain):
    async def commit(self, commit: Commit) -> int:
        rows = [(merge, self.at(merge.key, self.version)) for merge in commit.merges]
        values = [(merge.key, merged(row[0] if row else None, merge)) for merge, row in rows]
        check_limits(commit)
        if commit.request_id not in self.requests:
            await asyncio.sleep(0)
        version = await super().commit(commit)
        for key, value in values:
            self.rows[key][-1] = (self.rows[key][-1][0], value)
        return version


@faults(OnEngine, "Merge", "max-of-an-absent-row-is-zero")
class MaxFromZero(Plain):
    def changed(self, commit: Commit, version: int) -> Rows:
        merges = [
            merge
            if self.at(merge.key, self.version)
            else merge._replace(max=tuple(max(0, value) for value in merge.max))
            for merge in commit.merges
        ]
        return super().changed(Commit((), commit.writes, merges, commit.stamps), version)


@faults(OnEngine, "Merge", "misfit-truncates")
class MisfitTruncates(Plain):
    def changed(self, commit: Commit, version: int) -> Rows:
        try:
            return super().changed(commit, version)
        except InvalidArgument:
            return super().changed(Commit((), commit.writes, (), commit.stamps), version)


@faults(OnEngine, "Stamp", "version-before")
class StampBefore(Plain):
    def changed(self, commit: Commit, version: int) -> Rows:
        return super().changed(commit, version - 1 if commit.stamps else version)


@faults(OnEngine, "Stamp", "descending-ignored")
class StampAscends(Plain):
    def changed(self, commit: Commit, version: int) -> Rows:
        stamps = [stamp._replace(descending=False) for stamp in commit.stamps]
        return super().changed(Commit((), commit.writes, commit.merges, stamps), version)


# Request ids and limits ---------------------------------------------------------------------------


@faults(OnEngine, "MetaStore.commit", "applied-twice")
class AppliedTwice(Plain):
    async def commit(self, commit: Commit) -> int:
        self.requests.pop(commit.request_id, None)
        return await super().commit(commit)


@faults(OnEngine, "MetaStore.commit", "request-forgotten-by-a-restart")
class RequestsForgotten(Plain):
    def persist(self, version: int, request_id: bytes, rows: Rows) -> None:
        super().persist(version, b"", rows)


@faults(OnEngine, "MetaStore.commit", "refused-request-is-remembered")
class RefusedRemembered(Plain):
    async def commit(self, commit: Commit) -> int:
        try:
            return await super().commit(commit)
        except Conflict:
            if commit.request_id:
                self.requests[commit.request_id] = self.version
            raise


@faults(OnEngine, "MetaStore.outcome", "always-unknown")
class OutcomeUnknown(Plain):
    async def outcome(self, request_id: bytes) -> int | None:
        return None


@faults(OnEngine, "MetaStore.commit", "long-keys-accepted")
class LongKeys(Plain):
    async def commit(self, commit: Commit) -> int:
        long = [write for write in commit.writes if len(write.key) > KEY_MAX]
        if not long:
            return await super().commit(commit)
        return self.apply(self.version + 1, b"", list(commit.writes))


@faults(OnEngine, "MetaStore.commit", "wrong-error-beyond-a-limit")
class WrongError(Plain):
    async def commit(self, commit: Commit) -> int:
        try:
            return await super().commit(commit)
        except TooLarge as error:
            raise Conflict(str(error)) from error


# Watches and leases -------------------------------------------------------------------------------


@faults(OnEngine, "MetaStore.watch", "lost-change")
class LostChange(Plain):
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        async for change in super().watch(prefix, since):
            if change.version % 5:
                yield change


@faults(OnEngine, "MetaStore.watch", "repeats-since")
class RepeatsSince(Plain):
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        async for change in super().watch(prefix, since - 1):
            yield change


@faults(OnEngine, "MetaStore.watch", "never-wakes")
class NeverWakes(Plain):
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        for change in list(self.changes):
            if change.version > since and change.key.startswith(prefix):
                yield change
        await asyncio.Event().wait()


@faults(OnEngine, "MetaStore.watch", "ignored-prefix")
class IgnoredPrefix(Plain):
    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        async for change in super().watch(b"", since):
            yield change


@faults(OnEngine, "MetaStore.lease", "two-holders")
class TwoHolders(Plain):
    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        self.leases.pop(name, None)
        return await super().lease(name, holder, ttl_s)


@faults(OnEngine, "MetaStore.lease", "same-token")
class SameToken(Plain):
    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        lease = (await super().lease(name, holder, ttl_s))._replace(token=1)
        self.leases[name] = (lease, self.leases[name][1])
        return lease


@faults(OnEngine, "MetaStore.lease", "never-ends")
class NeverEnds(Plain):
    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        lease = await super().lease(name, holder, ttl_s)
        self.leases[name] = (lease, float("inf"))
        return lease


@faults(OnEngine, "MetaStore.renew", "revives-the-dead")
class Revives(Plain):
    async def renew(self, lease: Lease) -> Lease:
        return lease


@faults(OnEngine, "MetaStore.renew", "does-not-extend")
class DoesNotExtend(Plain):
    async def renew(self, lease: Lease) -> Lease:
        before = self.leases.get(lease.name)
        renewed = await super().renew(lease)
        assert before is not None
        self.leases[lease.name] = before
        return renewed


@faults(OnEngine, "MetaStore.release", "releases-anybodys")
class ReleasesAnybodys(Plain):
    async def release(self, lease: Lease) -> None:
        self.leases.pop(lease.name, None)


def _with_checks(commit: Commit, checks: Sequence[KeyCheck | RangeCheck]) -> Commit:
    return Commit(checks, commit.writes, commit.merges, commit.stamps, commit.request_id)
