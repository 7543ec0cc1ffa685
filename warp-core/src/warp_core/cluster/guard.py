"""One domain's part of the shared MetaStore: its keys get the domain's prefix, its commits a check that its home has not changed.

The check is what fences: a commit that an old home sent late fails in the engine itself, whatever its clock says, because the takeover
changed the domain's row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from warp_core.errors import Conflict, Fenced, Unavailable
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Change,
    Commit,
    KeyCheck,
    Lease,
    Merge,
    MetaCapabilities,
    MetaStore,
    RangeCheck,
    Row,
    Stamp,
    View,
    Write,
)

TOP: Final = b"\xff" * 8  # behind every key that there is


class DomainStore(MetaStore):
    """The rows of a domain, as the stack of its home sees them. Whoever opened the engine closes it."""

    def __init__(
        self,
        shared: MetaStore,
        prefix: bytes,
        guard: KeyCheck,
        *,
        held: Callable[[], bool],
        lost: Callable[[], None],
    ) -> None:
        """Take the engine, entered.

        Args:
            shared: Where the rows are.
            prefix: Of the domain's keys.
            guard: Holds as long as this node is the home.
            held: Asked before each read and commit: whether the lease cannot have ended.
            lost: Told when a commit found that another node is the home.
        """
        self._shared = shared
        self._prefix = prefix
        self._end = _after(prefix)
        self._guard = guard
        self._held = held
        self._lost = lost

    @property
    def capabilities(self) -> MetaCapabilities:  # type: ignore[override]
        """What the engine claims, except answers without waiting and leases: those are the cluster's."""
        return replace(
            self._shared.capabilities,
            immediate=False,
            journaled=False,
            lease=False,
            rebuild=False,
            relaxed=False,
        )

    @property
    def identity(self) -> str:  # type: ignore[override]
        """Of the engine."""
        return self._shared.identity

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def view(self) -> View:
        """See `MetaStore.view`.

        Raises:
            Fenced: The lease may have ended.
        """
        self._check()
        return _DomainView(self._shared.view(), self._prefix, self._end)

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`.

        Raises:
            Fenced: Another node is the home, or may be; nothing was applied.
        """
        self._check()
        try:
            return await self._shared.commit(self._placed(commit))
        except Conflict:
            await self._look()
            raise

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`."""
        return await self._shared.outcome(request_id)

    async def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        cut = len(self._prefix)
        async for change in self._shared.watch(self._prefix + prefix, since):
            yield change._replace(key=change.key[cut:])

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Refused, see `capabilities`."""
        return await super().lease(name, holder, ttl_s)

    def _check(self) -> None:
        if not self._held():
            raise Fenced("another node may be the home of the domain")

    async def _look(self) -> None:
        """Tell a conflict with another transaction from one with another home.

        Raises:
            Fenced: It was the latter.
        """
        view = self._shared.view()
        try:
            found = await view.get(self._guard.key)
        finally:
            view.close()
        if found is None or found[1] != self._guard.version:
            self._lost()
            raise Fenced("another node is the home of the domain: nothing was changed")

    def _placed(self, commit: Commit) -> Commit:
        prefix = self._prefix
        if not prefix:
            return Commit(
                [*commit.checks, self._guard],
                commit.writes,
                commit.merges,
                commit.stamps,
                commit.request_id,
            )
        checks: list[KeyCheck | RangeCheck] = [self._guard]
        for check in commit.checks:
            if isinstance(check, KeyCheck):
                checks.append(KeyCheck(prefix + check.key, check.version))
            else:
                end = prefix + check.end if check.end else self._end
                checks.append(RangeCheck(prefix + check.start, end, check.version))
        return Commit(
            checks,
            [Write(prefix + key, value) for key, value in commit.writes],
            [Merge(prefix + key, add, most) for key, add, most in commit.merges],
            [
                Stamp(prefix + start, suffix, value, descending)
                for start, suffix, value, descending in commit.stamps
            ],
            commit.request_id,
        )


class _DomainView(View):
    def __init__(self, inner: View, prefix: bytes, end: bytes) -> None:
        self._inner = inner
        self._prefix = prefix
        self._end = end

    @property
    def version(self) -> int:  # type: ignore[override]
        return self._inner.version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        return await self._inner.get(self._prefix + key)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        prefix, cut = self._prefix, len(self._prefix)
        rows = await self._inner.scan(
            prefix + start, prefix + end if end else self._end, limit=limit, reverse=reverse
        )
        return [row._replace(key=row.key[cut:]) for row in rows] if cut else rows

    async def columns(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX
    ) -> tuple[list[bytes], list[bytes]]:
        prefix, cut = self._prefix, len(self._prefix)
        keys, values = await self._inner.columns(
            prefix + start, prefix + end if end else self._end, limit=limit
        )
        return ([key[cut:] for key in keys] if cut else keys), values

    def close(self) -> None:
        self._inner.close()


def _after(prefix: bytes) -> bytes:
    """Return the smallest key behind all keys with a prefix; for none, one behind all keys that there are."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else TOP


def unavailable(domain: int) -> Unavailable:
    """Return what verbs are answered with past the deadline."""
    return Unavailable(f"this node is not the home of domain {domain}: ask again in a moment")
