"""One SFTP session on its channel: requests in, answers out, in the order that keeps their meaning.

    data ──▶ requests ──▶ a READ that nobody has to be waited for: answered in the call that brought it
                     └──▶ everything else waits in a queue: one at a time, reads side by side, nothing overtakes

Answers are kept as parts and sent together. Where the client takes none, no further requests are begun, and where too many wait, its
channel is not read.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import asyncssh
from warp_core import logs
from warp_core.errors import RemoteProtocolError, WarpError
from warp_core.interfaces.stores import Buffer
from warp_core.metrics import Counter

from warp_sftp import wire
from warp_sftp.errors import status_of
from warp_sftp.session import Session
from warp_sftp.verbs import EXTENSIONS, Verbs
from warp_sftp.wire import Kind, Status

if TYPE_CHECKING:
    from warp_sftp.channel import FileChannel

SEND_TOGETHER: Final = 256 * 1024
"""Bytes of answers that are sent at once."""

UNSENT_MAX: Final = 1 << 20
"""Bytes of answers that wait for the client before no further requests are begun."""

QUEUED_MAX: Final = 512
"""Requests that wait before the channel is left alone; clients have 64 on their way, some 128."""

QUEUED_BYTES_MAX: Final = 8 << 20
"""Bytes of requests that wait, likewise."""

READS_MAX: Final = 16
"""Reads of one session that wait for a device at once."""

_ZEROS: Final = memoryview(bytes(wire.TRANSFER_MAX))

_log = logs.get("warp_sftp")

Begin = Callable[[], Awaitable[Verbs]]


class Serving(asyncssh.SSHServerSession[bytes]):
    """One session."""

    def __init__(
        self,
        begin: Begin,
        ended: Callable[[Serving], None],
        count: Callable[[int], Counter],
        told: dict[str, object],
    ) -> None:
        """Take what makes the verbs, whom to tell of the end, what counts requests, and what logs say of the session."""
        self._begin = begin
        self._ended = ended
        self._count = count
        self._told = told
        self._channel: FileChannel
        self._session = Session()
        self._verbs: Verbs | None = None
        self._queue: deque[memoryview] = deque()
        self._queued = 0  # bytes
        self._out: list[Buffer] = []
        self._out_size = 0
        self._reads: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._idle = False  # the worker waits for requests
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._held = False
        self._eof = False
        self._leaving = False
        self.version_known = False

    # What asyncssh calls --------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Take the channel."""
        self._channel = chan  # type: ignore[assignment]

    def subsystem_requested(self, subsystem: str) -> bool:
        """Agree to SFTP."""
        return subsystem == "sftp"

    def exec_requested(self, command: str) -> bool:
        """Agree to a command that means SFTP, as certificates and keys of users may force it."""
        if command.split(" ")[0] == "internal-sftp":
            return True
        return self._refuse("scp -O" if command.startswith("scp ") else "commands")

    def shell_requested(self) -> bool:
        """Say what this is."""
        return self._refuse("shells")

    def _refuse(self, what: str) -> bool:
        text = f"This server serves files over SFTP, no {what}: use sftp, scp or sshfs.\r\n"

        def tell() -> None:
            if not self._channel.is_closing():
                self._channel.write_stderr(text.encode())
                self._channel.exit(1)

        asyncio.get_running_loop().call_soon(tell)
        self._leaving = True
        return True

    def session_started(self) -> None:
        """Begin to work."""
        if not self._leaving:
            self._worker = asyncio.create_task(self._work())

    def data_received(self, data: bytes | memoryview, datatype: int | None = None) -> None:
        """Take data; what can be answered at once is."""
        if self._leaving or self._eof:
            return
        try:
            for message in self._session.receive(data):
                if (
                    message[0] == Kind.READ
                    and self._idle
                    and not self._queue
                    and self._out_size + self._channel.waits < UNSENT_MAX
                    and self._read_now(message)
                ):
                    continue
                self._queue.append(message)
                self._queued += len(message)
        except RemoteProtocolError as error:
            self._fail(error)

    def fed(self) -> None:
        """Go on with what came together."""
        if self._out_size:
            self._send()
        if self._queue:
            self._more.set()
            if not self._held and (
                len(self._queue) > QUEUED_MAX or self._queued > QUEUED_BYTES_MAX
            ):
                self._held = True
                self._channel.pause_reading()

    def eof_received(self) -> bool:
        """Finish what came before, then end."""
        self._eof = True
        self._more.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop everything."""
        self._leaving = True
        if self._worker is not None:
            self._worker.cancel()
        else:
            self._ended(self)

    def sent(self) -> None:
        """Note that the client took some answers."""
        if self._channel.waits + self._out_size < UNSENT_MAX:
            self._room.set()

    # ----------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Say whether requests are under way, or answers."""
        return bool(
            self._queue
            or not self._idle
            or self._reads
            or self._out_size
            or self._channel.waits
            or not self._session.between_messages
        )

    @property
    def waits_for_client(self) -> bool:
        """Say whether it is the client's turn: to ask, or to take its answers."""
        return not self.busy or bool(self._channel.waits)

    def leave(self) -> None:
        """Finish what came so far, then end."""
        self._eof = True
        self._more.set()

    def _fail(self, error: WarpError) -> None:
        _log.warning("session ended: not SFTP", error=str(error), **self._told)
        self._leaving = True
        self._queue.clear()
        if self._worker is not None:
            self._worker.cancel()
        self._channel.abort()

    async def _work(self) -> None:
        verbs: Verbs | None = None
        try:
            verbs = await self._begin()
            self._verbs = verbs
            while True:
                while self._queue:
                    if self._out_size + self._channel.waits >= UNSENT_MAX:
                        self._send()
                        await self._wait_for_room()
                    await self._next(verbs)
                self._release()
                if self._out_size:
                    self._send()
                if self._eof and not self._queue:
                    await self._settled()
                    break
                self._more.clear()
                self._idle = (
                    True  # reads under way are in nobody's way: further ones may overtake them
                )
                await self._more.wait()
                self._idle = False
            self._send()
            self._channel.exit(0)
        except WarpError as error:
            _log.warning("session refused", error=str(error), **self._told)
            self._channel.write_stderr(f"{error}\r\n".encode())
            self._channel.exit(1)
        except Exception as error:
            _log.error("session ended: a defect", error=repr(error), **self._told)
            self._channel.abort()
        finally:
            self._idle = False
            for task in self._reads:
                task.cancel()
            try:
                if verbs is not None:
                    await verbs.end()
            finally:
                self._ended(self)

    async def _wait_for_room(self) -> None:
        self._room.clear()
        self.sent()
        await self._room.wait()

    def _release(self) -> None:
        """Read the channel again."""
        if self._held and not self._leaving:
            self._held = False
            self._channel.resume_reading()

    async def _next(self, verbs: Verbs) -> None:
        message = self._queue.popleft()
        self._queued -= len(message)
        if (
            self._held
            and len(self._queue) < QUEUED_MAX // 2
            and self._queued < QUEUED_BYTES_MAX // 2
        ):
            self._release()
        if message[0] == Kind.READ:
            if not self._read_now(message):
                await self._read_later(verbs, message)
        else:
            await self._settled()
            self._add(await self._answer(verbs, message))
        if self._out_size >= SEND_TOGETHER:
            self._send()

    async def _settled(self) -> None:
        """Wait for reads: what comes behind them may change what they read."""
        while self._reads:
            await asyncio.wait(self._reads)

    async def _answer(self, verbs: Verbs, message: memoryview) -> bytes:
        kind = message[0]
        if kind == Kind.INIT:
            return self._init(message)
        number = int.from_bytes(message[1:5], "big")
        began_s = time.perf_counter()
        self._count(kind).add()
        try:
            if not self.version_known:
                raise wire.Malformed("no INIT came first")
            return await verbs.do(message)
        except WarpError as error:
            code, text = status_of(error)
            _log.debug("request failed", request=kind, error=text, **self._told)
            return wire.status(number, code, text)
        except Exception as error:
            _log.error("request failed: a defect", request=kind, error=repr(error), **self._told)
            return wire.status(
                number, Status.FAILURE, "Input/output error: a defect of this server"
            )
        finally:
            took_s = time.perf_counter() - began_s
            if took_s > 5.0:
                _log.warning("slow request", request=kind, seconds=round(took_s, 1), **self._told)

    def _init(self, message: memoryview) -> bytes:
        if len(message) < 5:
            raise wire.Malformed("INIT is too short")
        self.version_known = True
        return wire.version(EXTENSIONS)

    # Reads ----------------------------------------------------------------------------------------

    def _read_now(self, message: memoryview) -> bool:
        """Answer a READ if neither a row nor a device nor anybody has to be waited for, and say whether that was so."""
        verbs = self._verbs
        if verbs is None or not self.version_known:
            return False
        try:
            number, handle, offset, wanted = wire.unpack_read(message)
            file, length = verbs.reader(handle, wanted)
            length = min(length, file.size - offset)
            if length <= 0:
                return False
            runs = file.read_runs_now(offset, length)
        except WarpError:
            return False  # told by who waits
        if runs is None:
            return False
        self._count(Kind.READ).add()
        self._add(wire.data_head(number, length))
        for _, size, data in runs:
            self._out.append(_ZEROS[:size] if data is None else data)
        self._out_size += length
        if self._out_size >= SEND_TOGETHER:
            self._send()
        return True

    async def _read_later(self, verbs: Verbs, message: memoryview) -> None:
        while len(self._reads) >= READS_MAX:
            await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._read(verbs, message))
        self._reads.add(task)
        task.add_done_callback(self._read_done)

    def _read_done(self, task: asyncio.Task[None]) -> None:
        self._reads.discard(task)
        self._more.set()  # the worker sends what it brought
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("session ended: a defect", error=repr(error), **self._told)
            self._channel.abort()

    async def _read(self, verbs: Verbs, message: memoryview) -> None:
        number = int.from_bytes(message[1:5], "big")
        self._count(Kind.READ).add()
        try:
            number, handle, offset, wanted = wire.unpack_read(message)
            file, length = verbs.reader(handle, wanted)
            data = await file.read(offset, length)
        except WarpError as error:
            self._add(wire.status(number, *status_of(error)))
        else:
            if len(data):
                self._add(wire.data_head(number, len(data)))
                self._out.append(data)
                self._out_size += len(data)
            else:
                self._add(wire.status(number, Status.EOF, "End of file"))
        if self._out_size >= SEND_TOGETHER:
            self._send()

    # Answers --------------------------------------------------------------------------------------

    def _add(self, part: bytes) -> None:
        self._out.append(part)
        self._out_size += len(part)

    def _send(self) -> None:
        out, size = self._out, self._out_size
        self._out, self._out_size = [], 0
        if size:
            self._channel.send(out, size)
