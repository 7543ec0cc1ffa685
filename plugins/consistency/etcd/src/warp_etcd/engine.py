"""The engine: `MetaStore` on etcd."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from warp_core.errors import ConfigError, Unsupported
from warp_core.interfaces.consistency import (
    Change,
    Commit,
    EngineMember,
    Lease,
    MetaCapabilities,
    MetaStore,
    View,
)
from warp_core.metrics import Metrics

from warp_etcd import cluster
from warp_etcd.client import Access, Client
from warp_etcd.committer import Committer
from warp_etcd.config import Config
from warp_etcd.layout import Layout
from warp_etcd.leases import Leases
from warp_etcd.member import Member
from warp_etcd.membership import Membership
from warp_etcd.space import Space
from warp_etcd.views import Reader
from warp_etcd.watching import watch

START_S = 30.0  # how long a cluster may take to be there: after a power cut, etcd and its nodes start together


class Etcd(MetaStore):
    """Rows in an etcd cluster that several nodes share. Commits of all nodes form one log (`warp_etcd.past`)."""

    def __init__(
        self,
        config: Config,
        data: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        metrics: Metrics | None = None,
    ) -> None:
        self.capabilities = MetaCapabilities(
            durable=True,
            watch=True,
            lease=True,
            shared=bool(config.endpoints or config.listen),
            promise=config.reads,
        )
        self._config = config
        self._data = data
        self._monotonic = monotonic
        self._metrics = metrics or Metrics()
        self._stack = AsyncExitStack()
        self._membership: Membership | None = None

    async def __aenter__(self) -> Self:
        config, clock = self._config, self._monotonic
        async with AsyncExitStack() as stack:
            if config.endpoints:
                access = _access(config, self._data)
            else:
                member = Member(config, self._data / "etcd")
                access = Access((await stack.enter_async_context(member),))
            timeout_s = float(config.timeout)
            client = Client(access, timeout_s=timeout_s, monotonic=clock)
            self._client = await stack.enter_async_context(client)
            self._layout = Layout(config.prefix)
            room = await cluster.check(client, self._layout, until=clock() + START_S)
            if config.listen:
                self._membership = await stack.enter_async_context(
                    Membership(client, config.listen, clock)
                )
            self._committer = Committer(
                client,
                self._layout,
                room,
                timeout_s=timeout_s,
                monotonic=clock,
                metrics=self._metrics,
            )
            await self._committer.begin()
            self._reader = Reader(
                client,
                self._layout,
                self._committer.past,
                serializable=config.reads == "serializable",
                monotonic=clock,
            )
            stack.push_async_callback(self._reader.close)
            self._leases = Leases(client, self._layout, timeout_s=timeout_s, monotonic=clock)
            stack.push_async_callback(self._leases.close)
            space = Space(
                client,
                self._committer,
                int(config.quota),
                own=not config.endpoints,
                metrics=self._metrics,
            )
            await stack.enter_async_context(space)
            await stack.enter_async_context(self._committer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def view(self) -> View:
        """See `MetaStore.view`."""
        return self._reader.view()

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        if self._reader.unfixed:
            await self._reader.fix_all()
        return await self._committer.commit(commit)

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`."""
        # A commit of nothing moves the head: what is still on its way can be applied no more.
        await self._committer.commit(Commit())
        return self._committer.past.requests.get(request_id)

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        return watch(self._client, self._layout, prefix, since)

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        return await self._leases.grant(name, holder, ttl_s)

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        return await self._leases.renew(lease)

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        await self._leases.release(lease)

    async def members(self) -> Sequence[EngineMember]:
        """See `MetaStore.members`."""
        return await self._demand_members().all()

    async def invite(self, name: str, address: str) -> Mapping[str, object]:
        """See `MetaStore.invite`."""
        return await self._demand_members().invite(name, address)

    async def expel(self, name: str) -> None:
        """See `MetaStore.expel`."""
        await self._demand_members().expel(name)

    def _demand_members(self) -> Membership:
        if self._membership is None:
            raise Unsupported(
                "this node's etcd is alone, or not WARP's own: give [metadata] a `listen`, where other nodes reach it"
            )
        return self._membership


def _access(config: Config, data: Path) -> Access:
    """Read the certificates.

    Raises:
        ConfigError: One cannot be read.
    """
    targets = tuple(_target(endpoint) for endpoint in config.endpoints)
    tls = None
    if config.endpoints[0].startswith("https://"):
        names = (config.authority, config.certificate, config.key)
        authority, certificate, key = (_read(data / name) if name else None for name in names)
        tls = (authority, certificate, key)
    return Access(targets, tls, config.user, str(config.password))


def _target(endpoint: str) -> str:
    """Return gRPC's name of an endpoint."""
    scheme, _, rest = endpoint.partition("://")
    return f"unix:{rest}" if scheme == "unix" else rest.rstrip("/")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): etcd's certificates"
        ) from error
