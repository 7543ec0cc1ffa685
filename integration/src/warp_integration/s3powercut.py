"""Power cuts under S3 load: the whole server on recorded disks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from warp_integration.powercut.bench import Recording, Remains
from warp_integration.powercut.campaign import Unreadable, Workload
from warp_integration.powercut.disks import MIB
from warp_integration.powercut.ledger import Ledger
from warp_integration.s3client import ConnectionLost
from warp_integration.s3load import S3Load, read_everything
from warp_integration.server import REPLACE_STORES, ServerFailed, WarpServer, config_text


class S3Workload(Workload):
    """`warp serve` under load; disk 0 holds the data directory, each other disk one store.

    With no disk but the first, the default store inside the data directory is used.

    Args:
        seconds: How long the load runs at least.
        acknowledged: How many operations are acknowledged at least.
        seed: Decides it.
        stores: How many stores on disks of their own.
        redundancy: The volumes' policy.
        lose: Take one store away at every second cut, each in turn.
        environment: For the server, such as planted faults; not for the one that reads back.
    """

    size = 512 * MIB

    def __init__(
        self,
        *,
        seconds: float,
        seed: int,
        acknowledged: int = 100,
        stores: int = 0,
        redundancy: str = "none",
        lose: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.disks = 1 + stores
        self._seconds = seconds
        self._acknowledged = acknowledged
        self._seed = seed
        self._redundancy = redundancy
        self._lose = lose
        self._environment = environment
        self._cuts = 0
        self.load: S3Load | None = None
        """What ran, with what was found while it did."""

    def run(self, recording: Recording) -> Ledger:
        """Serve from the recorded disks, load, kill the server."""
        base = recording.mounts[0].parent
        (base / "warp.toml").write_text(self._config(recording.mounts))
        ledger = Ledger(recording.position.read)
        self.load = S3Load(ledger, seed=self._seed)
        server = WarpServer(
            recording.mounts[0] / "data",
            config=base / "warp.toml",
            prefix=recording.namespace.prefix,
            environment=self._environment,
            logs=base / "logs",
        )
        with server:
            asyncio.run(self._drive(server.s3))
        return ledger

    def _config(self, mounts: tuple[Path, ...]) -> str:
        stores = [mount / "store" for mount in mounts[1:]]
        return config_text(stores=stores, redundancy=self._redundancy)

    async def _drive(self, endpoint: str) -> None:
        assert self.load
        await self.load.prepare(endpoint)
        await self.load.run(endpoint, seconds=self._seconds, acknowledged=self._acknowledged)

    def read_back(self, remains: Remains) -> Mapping[str, str]:
        """Serve what the cut left, and read everything."""
        assert self.load
        base = remains.mounts[0].parent
        self._cuts += 1
        options = []
        if self._lose and self._cuts % 2:
            lost = 1 + self._cuts // 2 % (self.disks - 1)
            shutil.rmtree(remains.path(lost) / "store", ignore_errors=True)
            options.append(REPLACE_STORES)
        server = WarpServer(
            remains.mounts[0] / "data",
            config=base / "warp.toml",
            prefix=remains.namespace.prefix,
            logs=base / "logs-after",
        )
        try:
            with closing(server):
                server.start(*options)
                return asyncio.run(read_everything(server.s3, self.load.ledger.used_keys()))
        except (ServerFailed, ConnectionLost) as error:
            raise Unreadable(f"{error}\n{server.log_tail()}") from error
