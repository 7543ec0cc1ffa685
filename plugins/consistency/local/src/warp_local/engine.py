"""The engine: a commit is durable when its record in the node's journal is; the index follows in
checkpoints.

```
 commit ─▶ judge (Rows, in memory) ─▶ record in the journal ─▶ flush, shared with everything else queued ─▶ version
                     │
                     └─ rows changed since the last checkpoint: chains of versions
 view   ─▶ chains, and below them the index as of the last checkpoint
 checkpoint, in a thread: changes older than every open view ─▶ one LMDB transaction on each copy ─▶ chains and journal let go
```
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec
from warp_core.containers import format as fmt
from warp_core.containers.journal import Journal
from warp_core.containers.segments import START, Position
from warp_core.errors import (
    Ambiguous,
    ConfigError,
    Conflict,
    Corrupt,
    NoSpace,
    StoreFailed,
    Unavailable,
    WarpError,
    WritesStopped,
)
from warp_core.interfaces.consistency import (
    Change,
    Commit,
    Lease,
    MetaCapabilities,
    MetaStore,
    Progress,
    View,
)
from warp_core.interfaces.stores import BlobStore
from warp_core.logs import get
from warp_core.metadata.history import History
from warp_core.metadata.leases import Leases
from warp_core.metadata.limits import check_limits
from warp_core.metadata.rows import Rows, RowsView

from warp_local import records
from warp_local.config import Config
from warp_local.images import Images
from warp_local.index import FOLDER, Changed, Index
from warp_local.replay import commits_after

log = get("warp_local")

RECORD_ROOM = (
    4096  # bytes that a commit's record adds to its rows at most: keys and values are counted
)
OVERLAY_MAX = 8  # checkpoints' worth of rows or bytes in memory; then commits wait for a checkpoint
VIEWS_POLL_S = 0.01  # how often a checkpoint looks whether the views that hold it back are closed
TICK_S = 0.5  # how often expired views are looked for, a fraction of VIEW_MAX_S
RETRY_S = 1.0  # after a checkpoint that found a disk full
IMAGE_RETRY_S = 10.0  # after an image that could not be written
LOST = "run `warp fsck --rebuild`, which makes it anew from its image and the journal"


class Local(MetaStore):
    """Embedded MetaStore of one node, on the node's journal and an index on each of `stores` that
    has a local path.
    """

    capabilities = MetaCapabilities(
        durable=True,
        journaled=True,
        watch=True,
        lease=True,
        rebuild=True,
        immediate=True,
        relaxed=True,
    )

    def __init__(
        self,
        config: Config,
        stores: Sequence[BlobStore],
        journal: Journal | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the stores of the copies and the journal, which are open when the engine is entered.

        Raises:
            ConfigError: No journal.
        """
        if journal is None:
            raise ConfigError('metadata engine "local" needs the node\'s journal')
        self._config = config
        self._stores = stores
        self._journal = journal
        self._monotonic = monotonic
        self._indexes: list[Index] = []
        self._rows = Rows()
        self._history = History(self._rows)
        self._leases = Leases(monotonic, self._empty_commit)
        self._batch = -1
        self._relaxed = 0  # the newest version that was acknowledged before it was durable
        self._flusher: asyncio.Task[None] | None = None
        self._bytes = 0  # of changes that are not in the index
        self._unflushed: deque[tuple[int, int]] = deque()  # (sequence, version)
        # Of commits that are not in the index: (version, end of record, bytes, request id).
        self._ends: deque[tuple[int, tuple[int, int], int, bytes]] = deque()
        self._oldest_s = 0.0  # when the oldest change that is not in the index was made
        self._due = asyncio.Event()
        self._full = ""  # why the last checkpoint failed
        self._waiting: list[asyncio.Future[None]] = []
        self._checkpointing = asyncio.Lock()
        self._checkpointer: asyncio.Task[None] | None = None
        self._images = Images(stores, journal, config.image_after)
        self._imager: asyncio.Task[None] | None = None
        self._image_due = asyncio.Event()
        self._begins = True  # the journal still has its very beginning
        self._applied = START  # up to where the index has the journal
        self._closed = True
        self.checkpoints = 0

    # Opening and closing --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the copies of the index and bring all of them up to the journal's end.

        Raises:
            ConfigError: No store has a local path.
            Corrupt: Commits are missing that were acknowledged.
        """
        with_path = [store for store in self._stores if store.path is not None]
        if not with_path:
            raise ConfigError(
                'metadata engine "local" needs a store with a local path, such as "disk"'
            )
        self._indexes = []
        for store in with_path:
            assert store.path is not None
            self._indexes.append(Index(store.path / FOLDER, self._config.index_max))
        await self._images.find()
        self._begins = await self._journal.reaches(START)
        try:
            best = await self._open_indexes()
            await self._replay()
            best.refresh()
        except BaseException:
            for index in self._indexes:
                index.close()
            raise
        self._rows = Rows(best, version=best.state.version)
        for request_id, version in best.requests():
            self._rows.remember(request_id, version)
        self._history = History(self._rows)
        self._applied = best.state.position
        self._release()
        self._begin_image()
        self._closed = False
        self._checkpointer = asyncio.create_task(self._checkpoints(), name="metadata checkpoints")
        self._imager = asyncio.create_task(self._write_images(), name="metadata images")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Checkpoint, so that the next start has nothing to replay, and close."""
        self._closed = True
        self._due.set()
        if self._flusher is not None:
            await asyncio.gather(self._flusher, return_exceptions=True)
        if self._imager is not None:
            # What is written of an image is begun anew by the next run; the file it reads is closed below.
            self._imager.cancel()
            await asyncio.gather(self._imager, return_exceptions=True)
        if self._checkpointer is not None:
            await asyncio.gather(self._checkpointer, return_exceptions=True)
        with suppress(WarpError):
            await self._journal.flush()
        self._advance()
        rows = self._rows
        rows.expire_views(rows.latest + 1)
        if self._journal.failed is None:
            with suppress(WarpError):
                await self.checkpoint()  # of a frozen layer
                await self.checkpoint()  # of what came after it
        self._history.wake()
        for index in self._indexes:
            index.close()

    def _living(self) -> list[Index]:
        living = [index for index in self._indexes if not index.failed]
        if not living:
            reasons = "; ".join(index.failed for index in self._indexes)
            raise WritesStopped(f"no copy of the index can be written: {reasons}")
        return living

    async def _open_indexes(self) -> Index:
        """Open every copy, rebuild those that are missing or too old from the newest, and return
        that.
        """
        for index in self._indexes:
            try:
                await asyncio.to_thread(index.open)
            except (StoreFailed, Corrupt) as error:
                index.failed = str(error)
        good = [index for index in self._indexes if not index.failed]
        if not good:
            reasons = "; ".join(index.failed for index in self._indexes)
            raise Corrupt(f"no copy of the metadata index can be used ({reasons}): {LOST}")
        best = max(good, key=lambda index: (not index.empty, index.state.version))
        if best.empty:
            if self._images.any or not self._begins:
                raise Corrupt(f"the metadata index is lost on every copy: {LOST}")
            best.begin(os.urandom(16))
        for index in self._indexes:
            if index is best:
                continue
            if index.failed or index.empty or not await self._journal.reaches(index.state.position):
                await self._rebuild(index, best)
            elif index.state.lineage != best.state.lineage:
                raise ConfigError(
                    f"the indexes in {best.folder} and {index.folder} belong to different servers: "
                    "remove the wrong one"
                )
        return best

    async def _rebuild(self, index: Index, best: Index) -> None:
        """Replace a copy by one of the best."""
        index.close()
        try:
            if best.state.version:
                await asyncio.to_thread(best.copy_to, index.folder)
            await asyncio.to_thread(index.open)
            if index.empty:
                index.begin(best.state.lineage)
            index.failed = ""
        except (WarpError, OSError) as error:
            index.failed = str(error)

    async def _replay(self) -> None:
        """Apply what the journal has beyond the copies, in batches of one checkpoint."""
        living = self._living()
        since = min(index.state.position for index in living)
        newest = began = min(index.state.version for index in living)
        ahead = max(index.state.version for index in living)
        rows: dict[bytes, tuple[int, bytes | None]] = {}
        requests: list[tuple[bytes, int]] = []
        position = since

        def changed() -> Changed:
            return sorted((key, *row) for key, row in rows.items())

        async for record, end in commits_after(self._journal, since, began):
            newest, position = record.version, end
            for key, value in record.changes:
                rows[key] = (newest, value)
            if record.request_id:
                requests.append((record.request_id, newest))
            # Copies may begin at different commits; rows that one has already are written again, the same.
            if len(rows) >= self._config.checkpoint_rows and newest >= ahead:
                await self._apply(changed, requests, newest, position)
                rows, requests = {}, []
        if newest > min(index.state.version for index in living):
            await self._apply(changed, requests, newest, position)
        for index in living:
            if index.state.version < ahead and not index.failed:
                # The journal ends before the newest copy.
                await self._rebuild(index, max(living, key=lambda index: index.state.version))

    # Commits --------------------------------------------------------------------------------------

    def view(self) -> View:
        """See `MetaStore.view`."""
        return RowsView(self._rows)

    def latest(self) -> View:
        """See `MetaStore.latest`."""
        return RowsView(self._rows, latest=True)

    @property
    def unsettled(self) -> bool:
        """See `MetaStore.unsettled`."""
        return self._relaxed > self._rows.durable

    async def reach(self, version: int) -> None:
        """See `MetaStore.reach`."""
        if version > self._rows.durable:
            self._advance()
        if version > self._rows.durable:
            try:
                await self._journal.flush()
            except WarpError as error:
                raise Unavailable(f"the journal failed: {error}") from error
            self._advance()

    async def settle(self) -> None:
        """See `MetaStore.settle`."""
        self._advance()
        if self._relaxed > self._rows.durable and self._journal.failed is None:
            with suppress(WarpError):
                await self._flush()

    def get_now(self, key: bytes) -> tuple[bytes, int] | None:
        """See `MetaStore.get_now`."""
        rows = self._rows
        return rows.get(key, rows.durable)

    async def commit(self, commit: Commit) -> int:
        """See `MetaStore.commit`."""
        if self._closed:
            raise Unavailable("the metadata engine is closed")
        rows, journal = self._rows, self._journal
        size = check_limits(commit)
        if rows.logged_rows > OVERLAY_MAX * self._config.checkpoint_rows or (
            self._bytes > OVERLAY_MAX * self._config.checkpoint_bytes
        ):
            await self._wait_for_checkpoint()
        while not journal.has_room(size + RECORD_ROOM):
            await journal.room(size + RECORD_ROOM)
        request_id = commit.request_id
        if request_id and (earlier := rows.applied(request_id)) is not None:
            if earlier > rows.durable:
                await self._flush()
            return earlier
        try:
            changes = rows.judge(commit)
        except Conflict:
            if rows.latest > rows.durable:
                with suppress(WarpError):
                    await self._flush()  # what was in the way is visible to the next attempt
            raise
        version = rows.latest + 1
        chunk = journal.append(fmt.Kind.COMMIT, records.pack(version, request_id, changes))
        if journal.batch != self._batch:
            self._batch = journal.batch
            rows.sealed = rows.latest
        rows.apply(changes, request_id)
        end = (chunk.container, fmt.align(chunk.offset + chunk.stored))
        self._unflushed.append((journal.sequence, version))
        self._ends.append((version, end, size, request_id))
        self._history.append(version, changes, size)
        self._bytes += size
        if len(self._ends) == 1:
            self._oldest_s = self._monotonic()
            self._due.set()
        elif (
            rows.logged_rows >= self._config.checkpoint_rows
            or self._bytes >= self._config.checkpoint_bytes
        ):
            self._due.set()
        if commit.relaxed:
            self._relaxed = version
            if self._flusher is None or self._flusher.done():
                self._flusher = asyncio.create_task(self._follow(), name="relaxed commits")
            return version
        await self._flush()
        return version

    async def _follow(self) -> None:
        """Make relaxed commits durable, as many together as came while the last ones were written."""
        while self._relaxed > self._rows.durable and self._journal.failed is None:
            try:
                await self._flush()
            except WarpError as error:
                log.error("acknowledged commits may be lost", error=str(error))
                return

    async def _flush(self) -> None:
        try:
            await self._journal.flush()
        except WarpError as error:
            raise Ambiguous(f"the journal failed: {error}") from error
        self._advance()

    def _advance(self) -> None:
        """Show views what became durable."""
        unflushed, durable = self._unflushed, self._journal.durable
        version = 0
        while unflushed and unflushed[0][0] <= durable:
            version = unflushed.popleft()[1]
        if version:
            self._rows.durable = version
            self._history.wake()

    async def _empty_commit(self) -> int:
        return await self.commit(Commit())

    async def outcome(self, request_id: bytes) -> int | None:
        """See `MetaStore.outcome`.

        Raises:
            WritesStopped: The journal failed; a restart will tell.
        """
        version = self._rows.applied(request_id)
        if version is not None and version > self._rows.durable:
            if self._journal.failed is not None:
                raise self._journal.failed
            await self._flush()
        return version

    # Checkpoints ----------------------------------------------------------------------------------

    async def _checkpoints(self) -> None:
        """Checkpoint when enough has changed, or some time after anything has."""
        while True:
            await self._due.wait()
            if self._closed:
                return
            rows, config = self._rows, self._config
            self._advance()
            rows.tick(self._monotonic())
            age_s = self._monotonic() - self._oldest_s
            if not self._ends:
                self._due.clear()
                continue
            much = (
                rows.logged_rows >= config.checkpoint_rows
                or self._bytes >= config.checkpoint_bytes
                or rows.crowded
            )
            if much or age_s >= config.checkpoint_after:
                try:
                    await self.checkpoint()
                except WarpError as error:
                    self._full = str(error)
                    self._let_go()
                    await asyncio.sleep(RETRY_S)
                continue
            self._due.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._due.wait()
            self._due.set()

    async def checkpoint(self) -> None:
        """Bring the index up to date with everything committed before this call.

        Raises:
            NoSpace: A disk is full; try again later.
            WritesStopped: The journal failed, or no copy of the index is left.
        """
        async with self._checkpointing:
            await self._checkpoint()

    async def _checkpoint(self) -> None:
        rows, ends = self._rows, self._ends
        if not ends:
            return
        if not rows.frozen_at:
            rows.freeze()
        upto = rows.frozen_at
        place, size, count = (0, 0), 0, 0
        requests: list[tuple[bytes, int]] = []
        for version, end, each, request_id in ends:
            if version > upto:
                break
            place, size, count = end, size + each, count + 1
            if request_id:
                requests.append((request_id, version))
        while not rows.can_thaw:
            if self._journal.failed is not None:
                raise self._journal.failed
            await asyncio.sleep(VIEWS_POLL_S)
            self._advance()
            rows.tick(self._monotonic())
        position = Position(*place)
        await self._apply(rows.frozen, requests, upto, position)
        best = self._living()[0]
        best.refresh(rows.frozen_keys() if best is rows.base else None)
        rows.base = best
        rows.thaw()
        for _ in range(count):
            ends.popleft()
        self._bytes -= size
        self._oldest_s = self._monotonic()
        self._full = ""
        self.checkpoints += 1
        self._applied = position
        self._release()
        self._begin_image()
        self._let_go()

    def _release(self) -> None:
        """Let go of commits that both the index and an image have."""
        images = self._images
        position = self._applied
        if self._journal.tight is None or not images.problem:
            position = min(position, images.position)
        # Else a full disk comes first: deletes need the journal's space, and the next image mends it.
        if position > START:
            self._journal.release(position)

    def _begin_image(self) -> None:
        """Let the next image begin, if it is due: after a checkpoint, as there is nothing new to write before one."""
        if self._applied > START and self._images.due(begins=self._begins):
            self._image_due.set()

    async def _write_images(self) -> None:
        """Write an image whenever one is due."""
        images = self._images
        while True:
            await self._image_due.wait()
            self._image_due.clear()
            try:
                # Checkpoints went on while the last one was written, so it may not be due any more.
                if images.due(begins=self._begins):
                    await images.write(self._living()[0], stopped=lambda: self._closed)
                    self._release()
            except WarpError as error:
                if not images.problem:
                    log.warning("the image of the index waits", error=str(error))
                images.problem = str(error)
                self._release()
                await asyncio.sleep(IMAGE_RETRY_S)
                self._image_due.set()

    async def image(self) -> None:
        """Write an image of the index as it is after the last checkpoint.

        Raises:
            NoSpace, StoreFailed: A store did not take it.
        """
        await self._images.write(self._living()[0], stopped=lambda: self._closed)
        self._release()

    async def _apply(
        self,
        changed: Callable[[], Changed],
        requests: Sequence[tuple[bytes, int]],
        version: int,
        position: Position,
    ) -> None:
        """Bring every copy that is behind to `version`, in a thread.

        Raises:
            NoSpace: A disk is full.
            WritesStopped: No copy is left.
        """

        def apply() -> list[WarpError | None]:
            rows = changed()
            results: list[WarpError | None] = []
            for index in living:
                try:
                    if index.state.version < version:
                        index.apply(rows, requests, version, position)
                    results.append(None)
                except WarpError as error:
                    results.append(error)
            return results

        living = self._living()
        results = await asyncio.to_thread(apply)
        full: NoSpace | None = None
        for index, result in zip(living, results, strict=True):
            if isinstance(result, NoSpace):
                full = result
            elif result is not None:
                index.failed = str(result)
        if full is not None:
            raise full
        self._living()

    async def _wait_for_checkpoint(self) -> None:
        """Hold a commit back while too much waits for the index.

        Raises:
            NoSpace: The index cannot be written: a disk is full.
        """
        if self._full:
            raise NoSpace(self._full)
        self._due.set()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future
        if self._full:
            raise NoSpace(self._full)

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # Verification and rebuild, of an engine that is not entered -----------------------------------

    async def examine(self, progress: Progress) -> list[str]:
        """See `MetaStore.examine`."""
        from warp_local.probe import probe
        from warp_local.verify import folders, verify

        told = []
        probed = [
            await probe(place / FOLDER, self._config.index_max) for place in folders(self._stores)
        ]
        if all(each.version >= 0 and not each.damaged for each in probed):
            try:
                async with self._again():
                    pass  # every copy is at the journal's end now, and one that was lost is there again
            except WarpError as error:
                told.append(str(error))
        return told + await verify(self._config, self._stores, self._journal, progress)

    async def rebuild(self, progress: Progress) -> Mapping[str, object]:
        """See `MetaStore.rebuild`."""
        from warp_local.verify import rebuild

        made = await rebuild(self._config, self._stores, self._journal, progress)
        async with self._again():
            pass  # which makes the other copies
        return msgspec.structs.asdict(made)

    def _again(self) -> Local:
        return Local(self._config, self._stores, self._journal, self._monotonic)

    # Capabilities ---------------------------------------------------------------------------------

    def watch(self, prefix: bytes, since: int) -> AsyncIterator[Change]:
        """See `MetaStore.watch`."""
        return self._history.watch(prefix, since)

    async def lease(self, name: str, holder: str, ttl_s: float) -> Lease:
        """See `MetaStore.lease`."""
        return await self._leases.grant(name, holder, ttl_s)

    async def renew(self, lease: Lease) -> Lease:
        """See `MetaStore.renew`."""
        return self._leases.renew(lease)

    async def release(self, lease: Lease) -> None:
        """See `MetaStore.release`."""
        self._leases.release(lease)
