"""The audit log of a running node: changes are on record before they begin and before their answer leaves.

Lines that wait while one sync runs go with the next, as commits do. The head of the chain is anchored in the metadata behind each
sync, without anybody waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from warp_core.audit.anchor import Anchor, read_anchor, write_anchor
from warp_core.audit.entries import FORMAT, NO_HASH, Entry, Event, clipped, seal, told
from warp_core.audit.files import NO_HEAD, Appender, Head, log_files, read_tail
from warp_core.errors import Ambiguous, Busy, Corrupt, NoSpace, StoreFailed, WarpError
from warp_core.interfaces.audit import Audit, Caller
from warp_core.interfaces.consistency import MetaStore
from warp_core.logs import get
from warp_core.metrics import Metrics

WAITING_MAX: Final = 10_000
"""Lines that may wait for a sync, 5 MB of them; a change beyond is refused."""

BATCH_MAX: Final = 500
"""Lines of one write."""

CLOSE_S: Final = 10.0
"""How long leaving waits for the metadata to take the last anchor."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

log = get("warp_core.audit")


class _Waiting(NamedTuple):
    entry: Entry
    written: asyncio.Future[int]


class AuditLog(Audit):
    """Appends to the files of one folder; used by one node at a time, in its event loop. Nothing is opened before the first change."""

    def __init__(
        self,
        folder: Path,
        metastore: MetaStore,
        *,
        node: str,
        identity: str,
        required: bool = True,
        file_size: int = 16 * 1024 * 1024,
        files_max: int = 256,
        metrics: Metrics | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take where it writes; `required` refuses changes that cannot be written down."""
        self.folder = folder
        self.identity = identity
        self._metastore = metastore
        self._node = node
        self._required = required
        self._files_max = files_max
        self._clock_ns = clock_ns
        self._appender = Appender(folder, file_size=file_size)
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._anchorer: asyncio.Task[None] | None = None
        self._head: Head | None = None  # None: not opened
        self._anchor = Anchor()
        self._anchored = NO_HEAD
        counters = (metrics or Metrics()).counters(
            "warp_audit_lines_total", "Lines of the audit log", labels=("result",)
        )
        self._written, self._failed = counters.labels("written"), counters.labels("failed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is being written, and for the anchor."""
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        await self.anchored(CLOSE_S)
        self._appender.close()

    # What callers do ------------------------------------------------------------------------------

    def change(
        self, caller: Caller, what: str, of: Mapping[str, object]
    ) -> AbstractAsyncContextManager[None]:
        """As `Audit.change`."""
        return self._change(caller, what, of)

    @asynccontextmanager
    async def _change(
        self, caller: Caller, what: str, of: Mapping[str, object]
    ) -> AsyncIterator[None]:
        about = told(dict(of))
        begun = await self._write(self._entry("begun", caller, what, about))

        def outcome(result: str, error: BaseException | None = None) -> Entry:
            return self._entry("done", caller, what, {}, begun=begun, result=result, error=error)

        try:
            yield
        except asyncio.CancelledError:
            self._leave(outcome("cancelled"))
            raise
        except Exception as error:
            result = "refused" if isinstance(error, WarpError) or _answers(error) else "failed"
            try:
                await self._write(outcome(result, error))
            except WarpError as unwritten:  # the change was not made; its own error says more
                log.error("a refusal is not in the audit log", what=what, error=str(unwritten))
            raise
        try:
            await self._write(outcome("ok"))
        except WarpError as error:
            raise Ambiguous(
                f"{what} was done, but its result is not in the audit log: {error}"
            ) from error

    async def note(
        self, caller: Caller, what: str, of: Mapping[str, object], *, error: BaseException
    ) -> None:
        """As `Audit.note`."""
        with contextlib.suppress(
            WarpError
        ):  # it was refused already, and the log says why this failed
            entry = self._entry(
                "noted", caller, what, told(dict(of)), result="refused", error=error
            )
            await self._write(entry)

    @property
    def head(self) -> Head | None:
        """The end of the chain as it is now; None before the first change of this run."""
        return self._head

    async def anchor(self) -> Anchor | None:
        """Return the anchor as the metadata has it."""
        return await read_anchor(self._metastore, self.identity)

    async def anchored(self, seconds: float) -> bool:
        """Wait until the metadata knows the head; False if that takes too long."""
        if self._head is not None and self._head != self._anchored:
            self._anchor_soon()
        if self._anchorer is not None:
            await asyncio.wait([self._anchorer], timeout=seconds)
            if not self._anchorer.done():
                self._anchorer.cancel()
                await asyncio.gather(self._anchorer, return_exceptions=True)
        return self._head is None or self._head == self._anchored

    # Writing --------------------------------------------------------------------------------------

    def _entry(
        self,
        event: Event,
        caller: Caller,
        what: str,
        of: dict[str, object],
        *,
        begun: int = 0,
        result: str = "",
        error: BaseException | None = None,
    ) -> Entry:
        moment = datetime.fromtimestamp(self._clock_ns() / 1e9, UTC)
        return Entry(
            v=FORMAT,
            seq=0,
            time=moment.isoformat("T", "microseconds").replace("+00:00", "Z"),
            node=self._node,
            event=event,
            by=clipped(caller.name),
            via=caller.via,
            address=caller.address,
            what=clipped(what),
            of=of,
            begun=begun,
            result=result,
            error=type(error).__name__ if error is not None else "",
            message=clipped(str(error)) if error is not None else "",
            prev=NO_HASH,
        )

    async def _write(self, entry: Entry) -> int:
        """Write a line, and return its number once it is durable; 0 where it cannot be, and need not."""
        try:
            return await asyncio.shield(self._enqueue(entry))
        except (StoreFailed, NoSpace, Busy) as error:
            self._failed.add()
            log.error("the audit log cannot be written", error=str(error), refused=self._required)
            if self._required:
                raise
            return 0

    def _leave(self, entry: Entry) -> None:
        """Have a line written that nobody can wait for."""
        with contextlib.suppress(Busy):
            self._enqueue(entry)

    def _enqueue(self, entry: Entry) -> asyncio.Future[int]:
        if len(self._waiting) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} lines wait to be written to the audit log")
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        written.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append(_Waiting(entry, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._flush(), name="audit log")
        return written

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            try:
                if self._head is None:
                    await self._open()
                assert self._head is not None
                head, lines = self._head, list[bytes]()
                first = head.seq + 1
                for each in batch:
                    entry = msgspec.structs.replace(each.entry, seq=head.seq + 1, prev=head.hash)
                    line, hash = seal(entry)
                    lines.append(line)
                    head = Head(entry.seq, hash)
                await asyncio.to_thread(self._appender.append, first, lines)
            except (OSError, WarpError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                full = isinstance(error, OSError) and error.errno in _FULL
                failed = (NoSpace if full else StoreFailed)(
                    f"the audit log in {self.folder} cannot be written ({reason}), so nothing may be changed:"
                    ' make room or mend the disk, or say mode = "best effort" in [audit]'
                )
                for each in batch:
                    if not each.written.done():
                        each.written.set_exception(failed)
                continue
            self._head = head
            self._written.add(len(lines))
            for number, each in enumerate(batch, first):
                if not each.written.done():
                    each.written.set_result(number)
            self._anchor_soon()

    # Opening --------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """Find the end of the chain.

        Where the files end before the anchor, or not as it says, the chain goes on from the anchor, in a new file: what is missing
        stays missing, and whoever verifies finds the place.
        """
        anchor = await read_anchor(self._metastore, self.identity)
        self._head, before = await asyncio.to_thread(self._find_end, anchor)
        self._anchor = anchor or Anchor(before=before)
        self._anchored = self._anchor.head

    def _find_end(self, anchor: Anchor | None) -> tuple[Head, Head]:
        files = log_files(self.folder)
        known = anchor.head if anchor is not None else NO_HEAD
        before = NO_HEAD
        if files and anchor is None:
            before = Head(
                files[0].first - 1, read_tail(files[0]).hashes.get(files[0].first - 1, NO_HASH)
            )
        for index in range(len(files) - 1, -1, -1):
            file = files[index]
            tail = read_tail(file)
            if tail.sound and not tail.head.hash and index:
                continue  # a crash between making a file and its first line
            there = tail.hashes.get(known.seq)
            missing = known.seq > tail.head.seq or (there is not None and there != known.hash)
            if tail.sound and not missing:
                head = tail.head if tail.head.hash else Head(tail.head.seq, known.hash)
                if index == len(files) - 1:
                    self._appender.open(file.path, tail.size)
                return head, before
            log.error(
                "the audit log is not what was written: see `warp audit verify`",
                file=str(file.path),
                last_whole=tail.head.seq,
                anchored=known.seq,
            )
            damaged = sum(1 for _ in file.path.open("rb")) + file.first
            number = max(known.seq, damaged if not tail.sound else tail.head.seq)
            return Head(number, known.hash if known.seq else tail.head.hash or NO_HASH), before
        if known.seq:
            log.error("the audit log is gone: see `warp audit verify`", anchored=known.seq)
        return known, before

    # The anchor -----------------------------------------------------------------------------------

    def _anchor_soon(self) -> None:
        if self._anchorer is None or self._anchorer.done():
            self._anchorer = asyncio.create_task(self._keep_anchored(), name="audit anchor")

    async def _keep_anchored(self) -> None:
        """Bring the anchor to the head; what fails is tried with the next line."""
        try:
            while self._head is not None and self._anchored != self._head:
                head = self._head
                before = await asyncio.to_thread(self._oldest)
                anchor = Anchor(before=before, head=head, time_ns=self._clock_ns())
                await write_anchor(self._metastore, self.identity, anchor)
                self._anchor, self._anchored = anchor, head
                await asyncio.to_thread(self._remove_before, before)
        except (OSError, WarpError) as error:
            log.warning("the audit log is not anchored", error=str(error))

    def _oldest(self) -> Head:
        """Return what the oldest file that is to be kept follows."""
        files = log_files(self.folder)
        if len(files) <= self._files_max:
            return self._anchor.before
        oldest = files[-self._files_max]
        with contextlib.suppress(Corrupt, OSError):
            hash = read_tail(oldest).hashes.get(oldest.first - 1)
            if hash is not None:
                return Head(oldest.first - 1, hash)
        return self._anchor.before

    def _remove_before(self, before: Head) -> None:
        """Remove files of which the anchor says that they are no longer kept."""
        for file in log_files(self.folder)[: -self._files_max]:
            if file.first <= before.seq:
                os.unlink(file.path)
                log.info("the oldest file of the audit log is removed", file=str(file.path))


def _answers(error: Exception) -> bool:
    """Say whether an error is a protocol's answer rather than a defect: those have a status below 500."""
    status = getattr(error, "status", None)
    return isinstance(status, int) and status < 500
