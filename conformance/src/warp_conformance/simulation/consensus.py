"""The consensus that simulated nodes share: one linearizable engine behind the network.

It never fails as a whole (what Raft is for), but each node reaches it over the network: calls take time, and fail when the node is cut
off. A commit whose answer is lost is `Ambiguous`, whether it was applied or arrives later; `outcome` then decides it for good.
"""

from __future__ import annotations

import asyncio
import contextvars
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from warp_core.errors import Ambiguous, Conflict, Unavailable, WarpError
from warp_core.interfaces.consistency import (
    SCAN_MAX,
    Change,
    Commit,
    Lease,
    MetaCapabilities,
    MetaStore,
    Row,
    View,
)
from warp_core.metadata.history import History
from warp_core.metadata.leases import Leases
from warp_core.metadata.limits import check_limits
from warp_core.metadata.rows import Rows, RowsView

from warp_conformance.simulation.loop import PROCESS
from warp_conformance.simulation.network import Network
from warp_conformance.simulation.world import World

T = TypeVar("T")

PLACE = "quorum"  # its machine in the network
DEADLINE_S = 2.0  # of one call


class Consensus:
    """The engine itself, with leases by virtual time."""

    def __init__(self, world: World, network: Network) -> None:
        self.world = world
        self.network = network
        self.rows = Rows()
        self.history = History(self.rows)
        self.leases = Leases(world.loop.time, self._token)
        self.refused: set[bytes] = set()  # requests of which somebody was told that they never will

    def commit(self, commit: Commit) -> int:
        """Judge and apply; raises as `MetaStore.commit`."""
        rows = self.rows
        size = check_limits(commit)
        earlier = rows.applied(commit.request_id) if commit.request_id else None
        if earlier is not None:
            return earlier
        if commit.request_id in self.refused:
            raise Conflict("this commit was given up")
        changes = rows.judge(commit)
        version = rows.apply(changes, commit.request_id)
        rows.durable = rows.sealed = version
        self.history.append(version, changes, size)
        self.history.wake()
        checksum = zlib.crc32(repr(changes).encode())
        self.world.note(PLACE, f"commit {version}: {len(changes)} rows {checksum:08x}")
        return version

    def outcome(self, request_id: bytes) -> int | None:
        """Tell what became of a request, and keep to it."""
        version = self.rows.applied(request_id)
        if version is None:
            self.refused.add(request_id)
        return version

    async def _token(self) -> int:
        return self.commit(Commit())


class Client(MetaStore):
    """One node's way to it."""

    capabilities = MetaCapabilities(durable=True, watch=True, lease=True, shared=True)

    def __init__(self, consensus: Consensus, machine: str) -> None:
        self._consensus = consensus
        self._machine = machine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    async def ask(self, what: Callable[[], Awaitable[T]], lost: type[WarpError]) -> T:
        """Have something done at the consensus; raises `lost` if no answer came in time, whether it was done or not."""
        network = self._consensus.network
        loop = self._consensus.world.loop
        answer: asyncio.Future[T] = loop.create_future()
        process = PROCESS.get()

        async def travel() -> None:  # it goes on without whoever asked
            await asyncio.sleep(network.delay_s())
            while not network.reaches(self._machine, PLACE):
                if process is not None and process.unplugged:
                    return
                await asyncio.sleep(0.25)  # sent again
            result: T | None = None
            failure: WarpError | None = None
            try:
                result = await what()
            except WarpError as error:
                failure = error
            await asyncio.sleep(network.delay_s())
            if not network.reaches(PLACE, self._machine) or answer.done():
                return
            if failure is not None:
                answer.set_exception(failure)
                answer.exception()
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        task = loop.create_task(travel(), context=contextvars.Context())
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await asyncio.shield(answer)
        except TimeoutError:
            raise lost(f"no answer from the consensus within {DEADLINE_S} s") from None
        finally:
            if lost is Unavailable:
                task.cancel()  # a read that nobody waits for

    def view(self) -> View:
        """See `MetaStore.view`."""
        return _View(self, self._consensus.rows)

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        check_limits(commit)

        async def there() -> int:
            return self._consensus.commit(commit)

        return await self.ask(there, Ambiguous)

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`."""

        async def there() -> int | None:
            return self._consensus.outcome(request_id)

        return await self.ask(there, Unavailable)

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        return self._consensus.history.watch(prefix, since)

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        return await self.ask(
            lambda: self._consensus.leases.grant(name, holder, ttl_s), Unavailable
        )

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""

        async def there() -> Lease:
            return self._consensus.leases.renew(lease)

        return await self.ask(there, Unavailable)

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""

        async def there() -> None:
            self._consensus.leases.release(lease)

        await self.ask(there, Unavailable)


class _View(View):
    """A view of the moment at which it was taken; its reads travel."""

    def __init__(self, client: Client, rows: Rows) -> None:
        self._client = client
        self._rows = RowsView(rows)
        self.version = self._rows.version

    async def get(self, key: bytes) -> tuple[bytes, int] | None:
        return await self._client.ask(lambda: self._rows.get(key), Unavailable)

    async def scan(
        self, start: bytes, end: bytes, *, limit: int = SCAN_MAX, reverse: bool = False
    ) -> list[Row]:
        return await self._client.ask(
            lambda: self._rows.scan(start, end, limit=limit, reverse=reverse), Unavailable
        )

    def close(self) -> None:
        self._rows.close()
