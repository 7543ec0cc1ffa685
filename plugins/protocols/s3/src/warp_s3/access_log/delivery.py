"""The task that writes lines down and brings them to their buckets."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
from warp_core import logs
from warp_core.errors import NotFound, ReadOnly, VolumeNotFound, WarpError
from warp_core.interfaces.accounts import Accounts
from warp_core.views import Objects
from warp_core.views.objects import Attributes, Digests, VolumeInfo

from warp_s3.access import acl as acls
from warp_s3.access_log import target as targets
from warp_s3.access_log.record import Record, line
from warp_s3.access_log.spool import Line, Spool
from warp_s3.access_log.target import EVENT, LOGGING, Target
from warp_s3.errors import S3Error
from warp_s3.owners import owner_of

LOOK_S: Final = 30.0
"""How often it is seen which buckets have a log: another node may have been told."""

_DAY_S: Final = 86_400

_log = logs.get("warp_s3")


class AccessLog:
    """Lines of this node's requests, on their way."""

    def __init__(
        self,
        objects: Objects,
        accounts: Callable[[], Awaitable[Accounts]],
        folder: Path,
        *,
        region: str,
        interval_s: float,
    ) -> None:
        self._objects = objects
        self._accounts = accounts
        self._spool = Spool(folder)
        self._region = region
        self._interval_s = interval_s
        self._wanted: dict[str, Target] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    async def start(self) -> None:
        """Find out which buckets have a log, and begin to deliver."""
        with contextlib.suppress(
            WarpError
        ):  # another node's buckets may be away: it is looked again
            await self._look()
        self._task = asyncio.create_task(self._run(), name="access logs")

    async def stop(self) -> None:
        """End; what was not delivered waits in its files for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._spool.rotate()

    def wants(self, bucket: str) -> bool:
        """Say whether requests to a bucket are logged."""
        return bucket in self._wanted

    def told(self, bucket: str, target: Target | None) -> None:
        """Note what a bucket says from now on."""
        self._wanted.pop(bucket, None)
        if target is not None:
            self._wanted[bucket] = target

    def write(self, record: Record) -> None:
        """Write a line down."""
        entry = Line(record.bucket, record.second, line(record))
        try:
            self._spool.append(entry, now_ns=time.time_ns())
        except OSError as error:  # a full disk: requests go on without their lines
            self._spool.dropped += 1
            if not self._failing:
                _log.error("access logs are not written", error=str(error))
            self._failing = True

    async def _run(self) -> None:
        looked = delivered = time.monotonic()
        while True:
            await asyncio.sleep(min(self._interval_s, LOOK_S))
            now = time.monotonic()
            try:
                if now - looked >= LOOK_S:
                    looked = now
                    await self._look()
                if now - delivered >= self._interval_s:
                    delivered = now
                    await self.deliver()
            except (WarpError, OSError) as error:
                _log.warning("access logs wait for their delivery", error=str(error))

    async def _look(self) -> None:
        wanted: dict[str, Target] = {}
        for volume in await self._objects.volumes():
            document = volume.documents.get(LOGGING)
            if document is not None:
                with contextlib.suppress(msgspec.DecodeError):
                    wanted[volume.name] = targets.decode(document)
        self._wanted = wanted

    async def deliver(self) -> None:
        """Bring all that waits to its buckets.

        Raises:
            WarpError, OSError: A bucket does not take it now; what is left is delivered later.
        """
        self._spool.rotate()
        for path in self._spool.waiting():
            lines = await asyncio.to_thread(self._spool.read, path)
            for (bucket, second), texts in self._batches(path, lines).items():
                await self._put(path.name, bucket, second, "".join(texts).encode("latin-1"))
            self._spool.remove(path)
        if self._spool.dropped:
            _log.warning("lines of access logs were dropped", count=self._spool.dropped)
            self._spool.dropped = 0
        self._failing = False

    def _batches(self, path: Path, lines: list[Line]) -> dict[tuple[str, int], list[str]]:
        """Return the texts of each object that is to be made, by bucket and the second of its name."""
        # The file's name is the time of its first line: the same however often it is delivered.
        begun = int(path.name.partition(".")[0]) // 10**9
        found: dict[tuple[str, int], list[str]] = {}
        for each in lines:
            target = self._wanted.get(each.bucket)
            by_event = target is not None and target.partition == EVENT
            second = each.second // _DAY_S * _DAY_S if by_event else begun
            found.setdefault((each.bucket, second), []).append(each.text)
        return found

    async def _put(self, batch: str, bucket: str, second: int, content: bytes) -> None:
        target = self._wanted.get(bucket)
        if target is None:  # turned off meanwhile
            return
        try:
            source = await self._objects.volume(bucket)
            place = await self._objects.volume(target.bucket)
            accounts = await self._accounts()
            key = targets.object_key(
                target,
                number=owner_of(accounts, source.owner).number,
                region=self._region,
                bucket=bucket,
                second=second,
                event=target.partition == EVENT,
                batch=batch,
            )
            attributes = Attributes(
                headers={"content-type": "text/plain"},
                owner=place.owner,
                acl=_acl(target, place, accounts),
            )
            digests = Digests(etag=hashlib.md5(content, usedforsecurity=False).hexdigest())
            writer = await self._objects.writer(target.bucket, key, attributes, size=len(content))
            try:
                await writer.write(content)
                await writer.commit(digests)
            except BaseException:
                await writer.abort()
                raise
        except (VolumeNotFound, NotFound, ReadOnly) as error:  # as at S3, nobody is asked again
            _log.warning(
                "an access log is dropped", bucket=bucket, target=target.bucket, error=str(error)
            )


def _acl(target: Target, place: VolumeInfo, accounts: Accounts) -> bytes:
    """Return the ACL of a log's object, as its bucket's owner gave it."""
    if not target.grants:
        return b""
    owner = owner_of(accounts, place.owner).canonical_id
    document = (
        f"<AccessControlPolicy><Owner><ID>{owner}</ID></Owner>"
        f"<AccessControlList>{target.grants}</AccessControlList></AccessControlPolicy>"
    )
    try:
        return acls.pack(acls.from_xml(document.encode(), accounts, owner=place.owner))
    except S3Error:  # somebody who was granted something is gone
        return b""
