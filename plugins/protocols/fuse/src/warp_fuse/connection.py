"""The descriptor of one mount: requests come in, each becomes a task, answers go out; what the kernel caches is called back.

Nothing here knows files. A handler gets the request and returns the answer's body; what it raises becomes an errno.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from warp_core import logs
from warp_core.errors import OutOfRange, WarpError
from warp_core.interfaces.stores import Buffer

from warp_fuse import wire
from warp_fuse.wire import Init, Opcode, Request

READS_MAX: Final = 32
"""Requests taken in one turn of the loop, so that other protocols get theirs."""

NOTIFIERS: Final = 4
"""Threads for notifications: each may have to wait for pages or directories that the kernel holds locked."""

FLAGS: Final = (
    Init.ASYNC_READ
    | Init.POSIX_LOCKS
    | Init.BIG_WRITES
    | Init.DONT_MASK  # a directory's default ACL takes the place of the umask
    | Init.FLOCK_LOCKS
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.POSIX_ACL
    | Init.MAX_PAGES
    | Init.EXPLICIT_INVAL_DATA
    | Init.SETXATTR_EXT
)
BACKGROUND_MAX: Final = 64  # read-ahead and asynchronous I/O that the kernel keeps on its way
_SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})

Answer: TypeAlias = Buffer | Sequence[Buffer]
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]

_log = logs.get("warp_fuse")


class Refuse(Exception):
    """Answer with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.code = code


class Connection:
    """Requests of one mount until it is unmounted."""

    def __init__(
        self,
        descriptor: int,
        handlers: Mapping[int, Handler],
        forget: Callable[[int, int], None],
        ended: Callable[[], None],
        agreed: Callable[[Init], None] = lambda flags: None,
    ) -> None:
        """Take a descriptor of /dev/fuse that does not block.

        Args:
            handlers: By opcode; one that is missing is answered with ENOSYS.
            forget: Told (node, times) of what the kernel forgot.
            ended: Called once when the mount is gone.
            agreed: Told what kernel and server agreed on, before the first request.
        """
        self._descriptor = descriptor
        self._handlers = handlers
        self._forget = forget
        self._ended = ended
        self._agreed = agreed
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(wire.BUFFER))
        self._working: dict[int, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(NOTIFIERS, thread_name_prefix="warp-fuse")
        self._open = True
        self._loop.add_reader(descriptor, self._readable)

    @property
    def open(self) -> bool:
        """Say whether the kernel still has the mount."""
        return self._open

    async def close(self) -> None:
        """Cut the connection: everybody who still uses the mount gets ENOTCONN."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
        for task in list(self._working.values()):
            task.cancel()
        await asyncio.gather(*self._working.values(), return_exceptions=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)  # threads that wait in a notification are let go by this
            self._descriptor = -1
        self._threads.shutdown(wait=False)

    async def drained(self, within_s: float) -> None:
        """Wait until what was asked is answered, at most so long."""
        if self._working:
            await asyncio.wait(list(self._working.values()), timeout=within_s)

    async def notify(self, message: bytes) -> None:
        """Tell the kernel to let go of something; it may wait for its own locks first."""
        await self._loop.run_in_executor(self._threads, self._notify, message)

    def _notify(self, message: bytes) -> None:
        try:
            os.write(self._descriptor, message)
        except OSError as error:
            # ENOENT: it does not have it (any more). The others: the mount is gone.
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.EBADF):
                _log.warning("the kernel refused a notification", error=str(error))

    def _readable(self) -> None:
        for _ in range(READS_MAX):
            if not self._open:
                return
            try:
                length = os.readv(self._descriptor, [self._buffer])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno == errno.ENOENT:  # the request was interrupted while it was read
                    continue
                if error.errno != errno.ENODEV:  # not simply unmounted
                    _log.error("the connection to the kernel failed", error=str(error))
                self._gone()
                return
            try:
                self._take(wire.parse(self._buffer[:length]))
            except ValueError as error:
                _log.error("the kernel sent what is no request", error=str(error))
                self._gone()
                return

    def _gone(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            self._ended()

    def _take(self, request: Request) -> None:
        opcode = request.opcode
        if opcode in _SILENT:
            self._note(request)
            return
        if opcode == Opcode.INIT:
            self._agree(request)
            return
        handler = self._handlers.get(opcode)
        if handler is None:
            self._send(wire.failure(request.unique, errno.ENOSYS))
            return
        # The buffer is read into again before the task runs.
        kept = request._replace(body=memoryview(bytes(request.body)))
        task = self._loop.create_task(self._work(handler, kept))
        self._working[request.unique] = task
        task.add_done_callback(lambda _: self._working.pop(kept.unique, None))

    async def _work(self, handler: Handler, request: Request) -> None:
        try:
            body = await handler(request)
        except asyncio.CancelledError:
            self._send(wire.failure(request.unique, errno.EINTR))
        except Refuse as refusal:
            self._send(wire.failure(request.unique, refusal.code))
        except WarpError as error:
            self._send(wire.failure(request.unique, errno_of(error)))
        except ValueError as error:
            _log.warning("a request that makes no sense", opcode=request.opcode, error=str(error))
            self._send(wire.failure(request.unique, errno.EINVAL))
        except Exception as error:
            _log.exception("a request failed", error, opcode=request.opcode)
            self._send(wire.failure(request.unique, errno.EIO))
        else:
            if isinstance(body, (bytes, bytearray, memoryview)):
                body = (body,)
            length = wire.OUT_HEADER.size + sum(len(part) for part in body)
            self._send(wire.OUT_HEADER.pack(length, 0, request.unique), *body)

    def _send(self, *parts: Buffer) -> None:
        try:
            os.writev(self._descriptor, parts)
        except OSError as error:
            # ENOENT: nobody waits for the answer any more. The others: the mount is gone.
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.EBADF):
                _log.error("the kernel refused an answer", error=str(error))

    def _note(self, request: Request) -> None:
        body = request.body
        if request.opcode == Opcode.FORGET:
            self._forget(request.node, wire.FORGET_IN.unpack_from(body)[0])
        elif request.opcode == Opcode.BATCH_FORGET:
            for node, times in wire.FORGET_ONE.iter_unpack(body[wire.BATCH_FORGET_IN.size :]):
                self._forget(node, times)
        else:
            (unique,) = wire.INTERRUPT_IN.unpack_from(body)
            # Only what waits for others may end early: a change that has begun tells how it ended.
            task = self._working.get(unique)
            if task is not None and task.get_name() == WAITS:
                task.cancel()

    def _agree(self, request: Request) -> None:
        major, minor, readahead, offered = wire.INIT_IN.unpack_from(request.body)
        if major != wire.MAJOR or minor < wire.MINOR_MIN:
            _log.error("this kernel's FUSE is too old", version=f"{major}.{minor}")
            self._send(wire.failure(request.unique, errno.EPROTO))
            self._gone()
            return
        self._agreed(Init(offered & FLAGS))
        answer = wire.INIT_OUT.pack(
            wire.MAJOR,
            min(minor, wire.MINOR),
            readahead,
            offered & FLAGS,
            BACKGROUND_MAX,
            BACKGROUND_MAX * 3 // 4,
            wire.WRITE_MAX,
            1,  # ns: times are exact
            wire.WRITE_MAX // wire.BLOCK,
            0, 0, 0, 0,
        )  # fmt: skip
        self._send(wire.reply(request.unique, answer))


WAITS: Final = "waits for others"
"""The name of a task that an interrupt may cancel."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Mark the running task as one that an interrupt may end, while the block runs."""
    task = asyncio.current_task()
    assert task is not None
    before = task.get_name()
    task.set_name(WAITS)
    try:
        yield
    finally:
        task.set_name(before)


def errno_of(error: WarpError) -> int:
    """Return what a file system answers."""
    if isinstance(error, OutOfRange):
        return errno.ENXIO  # of SEEK_DATA and SEEK_HOLE: nothing of the kind follows
    return error.errno
