"""The service: which volumes have rules, and a task for each that has something new; `following` says what it does.

It runs at the volume's home, and what it writes there is fenced as everything that the home writes.
"""

from __future__ import annotations

import asyncio
import hashlib
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec
from warp_core.errors import Busy, ReadOnly, Unavailable, VolumeNotFound, WarpError
from warp_core.interfaces.services import Report, Service, ServiceContext
from warp_core.logs import get
from warp_core.namespace.objects import NamespaceObjects
from warp_core.namespace.tree import Volume
from warp_core.replication import DOCUMENT, unpack

from warp_replication.config import Config, Destination

if TYPE_CHECKING:
    from warp_core.s3 import Client

    from warp_replication.following import Run

AWAY_S: Final = 1.0
AWAY_MAX_S: Final = 60.0
"""How long a volume waits whose destination is away: doubled from the first to the second."""

PAGES: Final = 16
"""Pages of a volume between two looks at its rules."""

LOOK_SHARE: Final = 50
"""Looking at all volumes comes after so many times as long as it took, where that is more than `interval`."""

PASS_S: Final = 0.25
"""How long a pass waits for what it began."""

log = get("warp_replication")


class Replicator(Service):
    """Carries out the replication rules of all volumes."""

    def __init__(self, config: Config) -> None:
        self.interval_s = self._interval_s = float(config.interval)
        self._jobs = config.jobs
        self._destinations = {one.bucket: one for one in config.destination}
        self._clients: dict[str, Client] = {}
        self._objects: NamespaceObjects | None = None
        self._running: dict[int, asyncio.Task[None]] = {}  # by volumes' numbers
        self._away: dict[int, tuple[float, float]] = {}  # volume: until when, and how long
        self._counts: dict[str, int] = {}
        self._told: set[tuple[int, str]] = set()

    async def __aenter__(self) -> Self:
        """Nothing is opened before there is something to send."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what is on its way, and close connections."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._running.clear()
        for client in self._clients.values():
            await client.__aexit__(None, None, None)
        self._clients.clear()

    async def work(self, context: ServiceContext) -> Report:
        """See to it that something is done for each volume that has rules; what takes longer goes on between passes.

        So a destination that is slow, or away without saying so, holds up nobody but those who want to go there.
        """
        namespace = context.namespace
        objects = self._objects = self._objects or NamespaceObjects(namespace, reads_archives=True)
        now_s = asyncio.get_running_loop().time()
        for volume in await namespace.volumes.all():
            if volume.number in self._running or volume.row.frozen or volume.row.read_only:
                continue
            document = (await namespace.volumes.documents(volume)).get(DOCUMENT)
            if document is None or self._away.get(volume.number, (0.0, 0.0))[0] > now_s:
                continue
            try:
                rules = unpack(document)
            except msgspec.DecodeError as error:
                self._tell(volume, f"rules cannot be read: {error}")
                continue
            from warp_replication.following import Run  # a node without rules starts faster

            stamp = hashlib.sha256(document).hexdigest()[:16]
            run = Run(self, namespace, objects, volume, rules, stamp, self._counts)
            self._running[volume.number] = asyncio.create_task(
                self._follow(volume, run), name=f"replication of {volume.row.name}"
            )
        took_s = asyncio.get_running_loop().time() - now_s
        self.interval_s = max(self._interval_s, LOOK_SHARE * took_s)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=PASS_S)
        for number, task in list(self._running.items()):
            if task.done():
                del self._running[number]
        counts = dict(self._counts)
        self._counts.clear()
        return Report(counts, idle=not self._running)

    async def _follow(self, volume: Volume, run: Run) -> None:
        """Send what is new of a volume, until there is nothing, or its rules should be looked at again."""
        try:
            for _ in range(PAGES):
                if await run.work():
                    break
                self._away.pop(volume.number, None)
        except (VolumeNotFound, ReadOnly, Busy):  # deleted meanwhile, or rolled back just now
            return
        except WarpError as error:
            self._wait(volume, error)
        except Exception as error:
            log.exception("replication failed", error, volume=volume.row.name)
            self._wait(volume, error)
        else:
            self._away.pop(volume.number, None)

    def _wait(self, volume: Volume, error: Exception) -> None:
        last_s = self._away.get(volume.number, (0.0, 0.0))[1]
        wait_s = min(max(AWAY_S, 2 * last_s), AWAY_MAX_S)
        self._away[volume.number] = asyncio.get_running_loop().time() + wait_s, wait_s
        log.warning(
            "replication waits", volume=volume.row.name, reason=str(error), again_in_s=wait_s
        )

    @property
    def jobs(self) -> int:
        """Return how many objects go at once."""
        return self._jobs

    def client(self, bucket: str) -> tuple[Client, str]:
        """Return who writes to a destination, and the bucket's name there.

        Raises:
            Unavailable: It is not configured.
        """
        found = self._destinations.get(bucket)
        if found is None:
            raise Unavailable(
                f'no [[services.replication.destination]] with bucket = "{bucket}" is configured'
            )
        client = self._clients.get(bucket)
        if client is None:
            client = self._clients[bucket] = _client(found, self._jobs)
        return client, found.there or found.bucket

    def _tell(self, volume: Volume, what: str) -> None:
        if (volume.number, what) not in self._told:
            self._told.add((volume.number, what))
            log.error(what, volume=volume.row.name)


def _client(destination: Destination, jobs: int) -> Client:
    from warp_core.s3 import Client, Endpoint

    tls = None
    if destination.authorities:
        import ssl

        tls = ssl.create_default_context(cafile=destination.authorities)
    endpoint = Endpoint.parse(
        destination.endpoint,
        destination.access_key,
        destination.secret_key,
        region=destination.region,
    )
    return Client(endpoint, connections_max=jobs, tls=tls)
