"""A MetaStore that is slow and plainly right: every version of every row is kept, every question is answered by looking at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import msgspec
from warp_core.errors import Conflict, Fenced, Locked
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Change,
    Commit,
    KeyCheck,
    Lease,
    MetaCapabilities,
    MetaStore,
    RangeCheck,
    Row,
    View,
)
from warp_core.metadata import check_limits, merged

Rows = list[tuple[bytes, bytes | None]]


class PlainView(View):
    """Everything up to a version."""

    def __init__(self, store: Plain, version: int) -> None:
        self._store = store
        self.version = version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        """See `View.get`."""
        return self._store.at(key, self.version)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        """See `View.scan`."""
        keys = sorted((key for key in self._store.rows if start <= key < end), reverse=reverse)
        found = []
        for key in keys:
            row = self._store.at(key, self.version)
            if row is not None:
                found.append(Row(key, *row))
        return found[: max(0, min(limit, SCAN_MAX))]


class Plain(MetaStore):
    """The reference engine; with a `path` its commits survive a kill (not a power cut: that would cost a sync each)."""

    def __init__(self, path: Path | None = None) -> None:
        self.capabilities = MetaCapabilities(durable=path is not None, watch=True, lease=True)
        self.path = path
        self.version = 0
        self.rows: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self.changes: list[Change] = []
        self.requests: dict[bytes, int] = {}
        self.leases: dict[str, tuple[Lease, float]] = {}
        self.more = asyncio.Event()
        self.file: Any = None

    async def __aenter__(self) -> Self:
        """Read what was committed before."""
        if self.path is not None:
            self.path.touch()
            for line in self.path.read_bytes().splitlines():
                version, request_id, rows = msgspec.json.decode(
                    line, type=tuple[int, bytes, list[tuple[bytes, bytes | None]]]
                )
                self.apply(version, request_id, rows)
            self.file = self.path.open("ab")
        return self

    async def __aexit__(self, *rest: object) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()

    def at(self, key: bytes, version: int) -> tuple[bytes, int] | None:
        """Return value and version of a row as of a version."""
        for changed, value in reversed(self.rows.get(key, [])):
            if changed <= version:
                return None if value is None else (value, changed)
        return None

    def last(self, key: bytes) -> int:
        """Return when a row was last changed, deletes included."""
        chain = self.rows.get(key)
        return chain[-1][0] if chain else 0

    def view(self) -> View:
        """See `MetaStore.view`."""
        return PlainView(self, self.version)

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        check_limits(commit)
        if commit.request_id in self.requests:
            return self.requests[commit.request_id]
        for check in commit.checks:
            self.judge(check)
        rows = self.changed(commit, self.version + 1)
        self.persist(self.version + 1, commit.request_id, rows)
        return self.apply(self.version + 1, commit.request_id, rows)

    def judge(self, check: KeyCheck | RangeCheck) -> None:
        """Raise Conflict if a check does not hold."""
        if isinstance(check, KeyCheck):
            if check.version == 0:
                holds = self.at(check.key, self.version) is None
            else:
                holds = self.last(check.key) <= check.version
        else:
            holds = all(
                self.last(key) <= check.version
                for key in self.rows
                if check.start <= key < check.end
            )
        if not holds:
            raise Conflict(f"{check} does not hold")

    def changed(self, commit: Commit, version: int) -> Rows:
        """Return the rows that a commit sets."""
        rows: Rows = list(commit.writes)
        for merge in commit.merges:
            row = self.at(merge.key, self.version)
            rows.append((merge.key, merged(row[0] if row else None, merge)))
        for stamp in commit.stamps:
            number = 2**64 - 1 - version if stamp.descending else version
            rows.append((stamp.prefix + number.to_bytes(8, "big") + stamp.suffix, stamp.value))
        return rows

    def persist(self, version: int, request_id: bytes, rows: Rows) -> None:
        """Make a commit durable."""
        if self.file is not None:
            self.file.write(msgspec.json.encode((version, request_id, rows)) + b"\n")
            self.file.flush()

    def apply(self, version: int, request_id: bytes, rows: Rows) -> int:
        """Show a commit."""
        for key, value in rows:
            self.rows.setdefault(key, []).append((version, value))
            self.changes.append(Change(key, value, version))
        if request_id:
            self.requests[request_id] = version
        self.version = version
        self.more.set()
        self.more = asyncio.Event()
        return version

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`."""
        return self.requests.get(request_id)

    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        index = 0
        while True:
            while index < len(self.changes):
                change = self.changes[index]
                index += 1
                if change.version > since and change.key.startswith(prefix):
                    yield change
            await self.more.wait()

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        held = self.leases.get(name)
        if held and held[0].holder != holder and held[1] > time.monotonic():
            raise Locked(name)
        token = await self.commit(Commit())
        lease = Lease(name, holder, token, ttl_s)
        self.leases[name] = (lease, time.monotonic() + ttl_s)
        return lease

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        held = self.leases.get(lease.name)
        if not held or held[0].token != lease.token or held[1] <= time.monotonic():
            raise Fenced(lease.name)
        self.leases[lease.name] = (lease, time.monotonic() + lease.ttl_s)
        return lease

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        held = self.leases.get(lease.name)
        if held and held[0].token == lease.token:
            del self.leases[lease.name]
