"""Keeps an eye on etcd's database: near its quota nothing more is set, so that deletes still have room."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from warp_core.errors import NoSpace, WarpError
from warp_core.logs import get as get_log
from warp_core.metrics import Metrics

from warp_etcd import cluster
from warp_etcd.client import ALARM, DEFRAGMENT, Client
from warp_etcd.committer import Committer
from warp_etcd.wire import etcd_pb2 as pb

LOOK_S = 5.0  # at 20 MiB/s of commits etcd grows by 100 MiB meanwhile, 5 % of its default quota
STOP_AT = 0.9  # of the quota
GO_ON_AT = 0.85
DEFRAGMENT_AT = 0.7  # of the quota, where more than half of it is free within
DEFRAGMENTED_WITHIN_S = 600.0  # nobody is served meanwhile, some seconds for each GiB
REST_LOOKS = 24  # between two defragmentations

log = get_log("warp_etcd")


class Space:
    """Looks now and then while it is entered; a member of our own (`own`) is defragmented and its alarm disarmed."""

    def __init__(
        self, client: Client, committer: Committer, quota: int, *, own: bool, metrics: Metrics
    ) -> None:
        self._client = client
        self._committer = committer
        self._quota = quota
        self._own = own
        self._size = metrics.gauge("warp_etcd_database_bytes", "Size of etcd's fullest database")
        metrics.gauge("warp_etcd_quota_bytes", "What it may grow to", lambda: float(quota))
        self._rest = 0  # looks until it may be defragmented again
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(self._run(), name="space of etcd")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except WarpError as error:
                log.warning("etcd does not tell how full it is", error=str(error))

    async def look(self) -> None:
        """Look once."""
        size, used, alarm = await cluster.space(self._client)
        self._rest -= 1
        # While the alarm is on nothing is written, and without writing etcd does not count what a compaction freed.
        emptied = size > DEFRAGMENT_AT * self._quota and used < size / 2
        if self._own and self._rest < 0 and (alarm or emptied):
            self._rest = REST_LOOKS
            await self._defragment()
            size, used, alarm = await cluster.space(self._client)
            if alarm and size < GO_ON_AT * self._quota:
                await self._disarm()
                alarm = False
        self._size.set(size)
        refused = self._committer.refuse is not None
        if alarm or size > (GO_ON_AT if refused else STOP_AT) * self._quota:
            if not refused:
                log.error("etcd is nearly full", size=size, in_use=used, quota=self._quota)
            self._committer.refuse = NoSpace(
                f"etcd's database has {size} of {self._quota} bytes: delete, then compact and defragment it, or raise"
                " --quota-backend-bytes and `quota`"
            )
        else:
            self._committer.refuse = None

    async def _defragment(self) -> None:
        log.info("etcd's database is defragmented")
        await self._client.attempt(
            DEFRAGMENT, pb.DefragmentRequest(), timeout_s=DEFRAGMENTED_WITHIN_S
        )

    async def _disarm(self) -> None:
        raised = await self._client.call(ALARM, pb.AlarmRequest(alarm=pb.NOSPACE))
        for each in raised.alarms:
            await self._client.call(
                ALARM,
                pb.AlarmRequest(
                    action=pb.AlarmRequest.DEACTIVATE, member_id=each.member_id, alarm=each.alarm
                ),
            )
