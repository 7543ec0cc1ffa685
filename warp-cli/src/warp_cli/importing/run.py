"""An import from its first question to its report: two listings side by side, and workers that carry what the second one lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from warp_core.errors import InvalidArgument, Unavailable, WarpError
from warp_core.s3 import Client, Endpoint

from warp_cli.importing.carrying import Carrier
from warp_cli.importing.listing import UNKNOWN, Key, Version, keys_of, missing, wanted
from warp_cli.importing.progress import PROBLEMS_MAX, SAVE_S, Counts, Kept, Order, Problem
from warp_cli.importing.settings import copy_settings

T = TypeVar("T")
Tell = Callable[[Counts], None]

AHEAD: Final = 4
"""Keys that wait for each worker: listing goes on while bytes move."""

OURS: Final = "WARP"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    bucket: str
    prefix: str = ""
    volume: str
    into: str = ""  # what target keys begin with instead of `prefix`
    history: bool = True  # all versions
    acl: bool = False
    settings: bool = False
    overwrite: bool = (
        False  # what is in the way is left, as a version, and everything is written behind it
    )
    jobs: int = 8
    dry_run: bool = False
    again: bool = False


class Result(msgspec.Struct, kw_only=True):
    """What became of it."""

    source: str
    target: str
    dry_run: bool
    ids: bool  # versions kept their ids
    resumed_after: str
    counts: Counts
    settings: dict[str, str] = {}
    problems: list[Problem] = []


@dataclass(frozen=True, slots=True)
class Ends:
    """The two endpoints: `source` and `here` make clients of boto3, `target` is where content is sent."""

    source: Callable[[], Any]
    here: Callable[[], Any]
    target: Endpoint


async def run(plan: Plan, ends: Ends, data: Path | None, tell: Tell) -> Result:
    """Carry over what is missing.

    Raises:
        WarpError: It cannot begin; what goes wrong with single versions is in the result.
    """
    with ThreadPoolExecutor(2 * plan.jobs + 2, thread_name_prefix="warp-import") as pool:
        async with Client(ends.target, connections_max=plan.jobs + 1) as target:
            return await _Import(plan, ends, data, tell, pool, target).run()


class _Import:
    def __init__(
        self,
        plan: Plan,
        ends: Ends,
        data: Path | None,
        tell: Tell,
        pool: ThreadPoolExecutor,
        target: Client,
    ) -> None:
        self._plan = plan
        self._ends = ends
        self._tell = tell
        self._pool = pool
        self._target = target
        self._source = ends.source()
        self._here = ends.here()
        self._counts = Counts()
        self._problems: list[Problem] = []
        self._order = Order()
        name = f"{self._source.meta.endpoint_url}/{plan.bucket}/{plan.prefix}"
        shown = f"{plan.volume}/{plan.into}"
        how = "" if plan.history else "?current"
        self._kept = Kept(None if plan.dry_run else data, name + how, shown)
        if plan.again:
            self._kept.state.after = ""
        self._keeps = False  # the target keeps versions
        self._suspend = False
        self._exists = True
        self._ids = False

    async def run(self) -> Result:
        plan, state = self._plan, self._kept.state
        resumed = state.after
        history = plan.history and await self._blocking(self._has_history)
        carrier = await self._blocking(self._prepare)
        queue: asyncio.Queue[tuple[Key, list[Version]] | None] = asyncio.Queue(AHEAD * plan.jobs)
        saver = asyncio.create_task(self._save())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(plan.jobs):
                    group.create_task(self._work(queue, carrier))
                await self._compare(queue, history)
                for _ in range(plan.jobs):
                    await queue.put(None)
        finally:
            saver.cancel()
            self._note()
        settings: dict[str, str] = {}
        if not plan.dry_run:
            if plan.settings:
                settings = await self._blocking(
                    lambda: copy_settings(self._source, plan.bucket, self._here, plan.volume)
                )
            if self._suspend:
                await self._blocking(lambda: self._versioning("Suspended"))
            state.finished = True
            await self._blocking(self._kept.save)
        return Result(
            source=state.source,
            target=state.target,
            dry_run=plan.dry_run,
            ids=self._ids,
            resumed_after=resumed,
            counts=self._counts,
            settings=settings,
            problems=self._problems,
        )

    # Before ---------------------------------------------------------------------------------------

    def _has_history(self) -> bool:
        """Say whether the source can tell its versions."""
        from botocore.exceptions import ClientError

        try:
            self._source.list_object_versions(Bucket=self._plan.bucket, MaxKeys=1)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in UNKNOWN:
                return False
            raise
        return True

    def _prepare(self) -> Carrier:
        """Make the volume if it is not there, and find out what both sides can."""
        from botocore.exceptions import ClientError

        plan, source, here = self._plan, self._source, self._here
        head = source.head_bucket(Bucket=plan.bucket)
        kept = source.get_bucket_versioning(Bucket=plan.bucket).get("Status", "")
        try:
            source.get_object_lock_configuration(Bucket=plan.bucket)
            locked = True
        except ClientError:
            locked = False
        try:
            here.head_bucket(Bucket=plan.volume)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            self._exists = False
            if not plan.dry_run:
                here.create_bucket(Bucket=plan.volume, ObjectLockEnabledForBucket=locked)
                self._exists = True
                if plan.history and kept and not locked:
                    self._versioning("Enabled")
                    self._suspend = kept == "Suspended"
        lock = False
        if self._exists:
            self._keeps = here.get_bucket_versioning(Bucket=plan.volume).get("Status") == "Enabled"
            try:
                here.get_object_lock_configuration(Bucket=plan.volume)
                lock = True
            except ClientError:
                lock = False
        else:
            self._keeps = plan.history and bool(kept)
        if plan.history and kept and not self._keeps:
            raise InvalidArgument(
                f'the bucket "{plan.bucket}" has versions and the volume "{plan.volume}" keeps none: '
                f"warp volume set {plan.volume} versioning=on, or import --current"
            )
        server = head["ResponseMetadata"]["HTTPHeaders"].get("server", "")
        self._ids = server == OURS and self._keeps and plan.history and bool(kept)
        return Carrier(
            source,
            self._pool,
            plan.bucket,
            self._target,
            plan.volume,
            ids=self._ids,
            lock=lock,
            acl=plan.acl,
        )

    def _versioning(self, status: str) -> None:
        self._here.put_bucket_versioning(
            Bucket=self._plan.volume, VersioningConfiguration={"Status": status}
        )

    # What is missing ------------------------------------------------------------------------------

    async def _compare(
        self, queue: asyncio.Queue[tuple[Key, list[Version]] | None], history: bool
    ) -> None:
        plan, counts, after = self._plan, self._counts, self._kept.state.after
        keeps = self._keeps and history
        there = self._ends.source()
        sources = keys_of(there, plan.bucket, prefix=plan.prefix, after=after, history=history)
        targets: Iterator[Key] = iter(())
        if self._exists:
            begin = self._place(after) if after else ""
            targets = keys_of(
                self._ends.here(),
                plan.volume,
                prefix=plan.into,
                after=begin,
                history=self._keeps,
            )
        target = await self._next(targets)
        while (source := await self._next(sources)) is not None:
            place = self._place(source.key)
            while target is not None and target.key.encode() < place.encode():
                target = await self._next(targets)
            has = target.versions if target is not None and target.key == place else ()
            want = wanted(source, history=keeps)
            lacks = missing(want, has, ids=self._ids, history=keeps)
            counts.keys += 1
            if lacks is None:
                if not plan.overwrite:
                    self._problem(
                        source.versions[-1], "other versions are in its place (--overwrite)"
                    )
                    continue
                lacks = list(want)
            counts.present += len(want) - len(lacks)
            self._order.begin(source.key)
            if plan.dry_run:
                for one in lacks:
                    self._count(one, one.size)
            if plan.dry_run or not lacks:
                self._order.done(source.key)
            else:
                await queue.put((source, lacks))
            self._tell(counts)

    def _place(self, key: str) -> str:
        """Return where a key goes."""
        return self._plan.into + key.removeprefix(self._plan.prefix)

    async def _next(self, keys: Iterator[Key]) -> Key | None:
        return await self._blocking(lambda: next(keys, None))

    # Workers --------------------------------------------------------------------------------------

    async def _work(
        self, queue: asyncio.Queue[tuple[Key, list[Version]] | None], carrier: Carrier
    ) -> None:
        while (item := await queue.get()) is not None:
            key, versions = item
            for version in versions:
                try:
                    done = await carrier.carry(version, self._place(key.key))
                except Unavailable:
                    raise
                except WarpError as error:
                    self._problem(version, str(error))
                    break  # what follows would be in the wrong place
                self._count(version, done.bytes)
                for note in done.notes:
                    self._counts.notes[note] = self._counts.notes.get(note, 0) + 1
                self._tell(self._counts)
            self._order.done(key.key)

    def _count(self, version: Version, size: int) -> None:
        if version.marker:
            self._counts.markers += 1
        else:
            self._counts.versions += 1
            self._counts.bytes += size

    def _problem(self, version: Version, reason: str) -> None:
        self._counts.problems += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(version.key, version.version, reason))

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            self._note()

    def _note(self) -> None:
        """Write how far it is; a file of a few hundred bytes."""
        if self._order.after:
            self._kept.state.after = self._order.after
            self._kept.save()

    async def _blocking(self, work: Callable[[], T]) -> T:
        """Ask one of the endpoints in a thread.

        Raises:
            Unavailable: It does not answer, or refuses.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(str(error)) from error
