"""The plain layer: forwards every call. Layers that do something override `_call` or single methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Change,
    Commit,
    EngineMember,
    Lease,
    MetaCapabilities,
    MetaStore,
    Progress,
    Row,
    View,
)
from warp_core.interfaces.stores import BlobInfo, BlobStore, Buffer, Space, StoreCapabilities

T = TypeVar("T")


class StoreLayer(BlobStore):
    """A store around a store."""

    def __init__(self, inner: BlobStore) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> StoreCapabilities:  # type: ignore[override]
        """What the inner store claims."""
        return self.inner.capabilities

    @property
    def id(self) -> str:  # type: ignore[override]
        """The inner store's id."""
        return self.inner.id

    @property
    def path(self) -> Path | None:  # type: ignore[override]
        """The inner store's folder."""
        return self.inner.path

    async def _call(self, call: str, name: str, size: int, run: Callable[[], Awaitable[T]]) -> T:
        """Make one call of the inner store; `size` is how many bytes it moves, 0 for the others."""
        return await run()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.inner.__aexit__(kind, error, trace)

    async def put(self, name: str, buffers: Sequence[Buffer], *, vital: bool = False) -> None:
        """As the inner store."""
        size = sum(map(len, buffers))
        await self._call("put", name, size, lambda: self.inner.put(name, buffers, vital=vital))

    async def read(self, name: str, *, offset: int, length: int) -> bytes:
        """As the inner store."""
        return await self._call(
            "read", name, length, lambda: self.inner.read(name, offset=offset, length=length)
        )

    async def read_into(self, name: str, *, offset: int, buffer: memoryview) -> int:
        """As the inner store."""
        return await self._call(
            "read",
            name,
            len(buffer),
            lambda: self.inner.read_into(name, offset=offset, buffer=buffer),
        )

    def read_now(self, name: str, *, offset: int, length: int) -> bytes | None:
        """As the inner store."""
        return self.inner.read_now(name, offset=offset, length=length)

    def read_into_now(self, name: str, *, offset: int, buffer: memoryview) -> int | None:
        """As the inner store."""
        return self.inner.read_into_now(name, offset=offset, buffer=buffer)

    async def delete(self, name: str) -> None:
        """As the inner store."""
        await self._call("delete", name, 0, lambda: self.inner.delete(name))

    async def list(self, prefix: str = "", *, after: str = "", limit: int = 1000) -> list[BlobInfo]:
        """As the inner store."""
        return await self._call(
            "list", prefix, 0, lambda: self.inner.list(prefix, after=after, limit=limit)
        )

    async def stat(self, name: str) -> BlobInfo:
        """As the inner store."""
        return await self._call("stat", name, 0, lambda: self.inner.stat(name))

    async def space(self) -> Space:
        """As the inner store."""
        return await self._call("space", "", 0, self.inner.space)

    async def create(
        self, name: str, *, reserve: int, recycle: bool = False, vital: bool = False
    ) -> None:
        """As the inner store."""
        await self._call(
            "create",
            name,
            0,
            lambda: self.inner.create(name, reserve=reserve, recycle=recycle, vital=vital),
        )

    async def write(
        self, name: str, *, offset: int, buffers: Sequence[Buffer], sync: bool = False
    ) -> None:
        """As the inner store."""
        await self._call(
            "write",
            name,
            sum(map(len, buffers)),
            lambda: self.inner.write(name, offset=offset, buffers=buffers, sync=sync),
        )

    async def sync(self, name: str) -> None:
        """As the inner store."""
        await self._call("sync", name, 0, lambda: self.inner.sync(name))

    async def seal(self, name: str, *, size: int) -> None:
        """As the inner store."""
        await self._call("seal", name, 0, lambda: self.inner.seal(name, size=size))

    async def punch(self, name: str, *, offset: int, length: int) -> None:
        """As the inner store."""
        await self._call(
            "punch", name, 0, lambda: self.inner.punch(name, offset=offset, length=length)
        )


class MetaLayer(MetaStore):
    """A metadata engine around a metadata engine."""

    def __init__(self, inner: MetaStore) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> MetaCapabilities:  # type: ignore[override]
        """What the inner engine claims, except answers without waiting: a layer has to see every call."""
        return replace(self.inner.capabilities, immediate=False, relaxed=False)

    @property
    def identity(self) -> str:  # type: ignore[override]
        """As the inner engine."""
        return self.inner.identity

    async def _call(self, call: str, run: Callable[[], Awaitable[T]]) -> T:
        """Make one call of the inner engine or of one of its views."""
        return await run()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.inner.__aexit__(kind, error, trace)

    def view(self) -> View:
        """As the inner engine."""
        return _ViewLayer(self.inner.view(), self)

    def latest(self) -> View:
        """As `view`, see `capabilities`: nothing is acknowledged before it is durable."""
        return super().latest()

    async def reach(self, version: int) -> None:
        """Nothing to wait for, see `capabilities`."""
        await super().reach(version)

    async def settle(self) -> None:
        """Nothing to wait for, see `capabilities`."""
        await super().settle()

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        """Refused, see `capabilities`."""
        return super().get_now(key)

    async def commit(self, commit: Commit) -> int:
        """As the inner engine."""
        return await self._call("commit", lambda: self.inner.commit(commit))

    async def outcome(self, request_id: bytes) -> int | None:
        """As the inner engine."""
        return await self._call("outcome", lambda: self.inner.outcome(request_id))

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """As the inner engine."""
        return self.inner.watch(prefix, since)

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """As the inner engine."""
        return await self._call("lease", lambda: self.inner.lease(name, holder, ttl_s))

    async def renew(self, lease: Lease) -> Lease:
        """As the inner engine."""
        return await self._call("renew", lambda: self.inner.renew(lease))

    async def release(self, lease: Lease) -> None:
        """As the inner engine."""
        await self._call("release", lambda: self.inner.release(lease))

    async def members(self) -> Sequence[EngineMember]:
        """As the inner engine."""
        return await self._call("members", self.inner.members)

    async def invite(self, name: str, address: str) -> Mapping[str, object]:
        """As the inner engine."""
        return await self._call("invite", lambda: self.inner.invite(name, address))

    async def expel(self, name: str) -> None:
        """As the inner engine."""
        await self._call("expel", lambda: self.inner.expel(name))

    async def examine(self, progress: Progress) -> list[str]:
        """As the inner engine."""
        return await self._call("examine", lambda: self.inner.examine(progress))

    async def rebuild(self, progress: Progress) -> Mapping[str, object]:
        """As the inner engine."""
        return await self._call("rebuild", lambda: self.inner.rebuild(progress))


class _ViewLayer(View):
    def __init__(self, inner: View, layer: MetaLayer) -> None:
        self.inner = inner
        self.layer = layer
        self.version = inner.version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        return await self.layer._call("get", lambda: self.inner.get(key))

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        return super().get_now(key)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        return await self.layer._call(
            "scan", lambda: self.inner.scan(start, end, limit=limit, reverse=reverse)
        )

    async def columns(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX
    ) -> tuple[list[bytes], list[bytes]]:
        return await self.layer._call("scan", lambda: self.inner.columns(start, end, limit=limit))

    def close(self) -> None:
        self.inner.close()
