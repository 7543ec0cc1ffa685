"""What a mount does when the node that has its volume goes away, and comes back.

```
            gone                      entered and reopened
   up ───────────────▶ away ──────────────────────────────────▶ up
    calls pass          calls wait `patience`, then EHOSTDOWN
                        │ away for `give_up`
                        └──────────▶ unmounted
```

Going away, everything that the kernel has is dropped: a home that lives waits longer for a sign of life than this side does, so
nobody else gets a lease before. Where the volume is at home in this process none of it ever happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from warp_core import logs
from warp_core.errors import StaleHandle, Unavailable, WarpError

from warp_fuse.connection import Answer, Handler
from warp_fuse.wire import Opcode, Request

LEAVE_S: Final = 0.5  # to come back is not put off for longer by what the kernel is to forget
PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # between attempts to come back; then always the last

# What may be asked again without an answer to the first time: it leads to the same, or only looks.
AGAIN: Final = frozenset(
    {
        Opcode.LOOKUP,
        Opcode.GETATTR,
        Opcode.SETATTR,
        Opcode.READLINK,
        Opcode.OPEN,
        Opcode.READ,
        Opcode.WRITE,
        Opcode.STATFS,
        Opcode.FSYNC,
        Opcode.GETXATTR,
        Opcode.LISTXATTR,
        Opcode.READDIR,
        Opcode.READDIRPLUS,
        Opcode.FSYNCDIR,
        Opcode.SYNCFS,
        Opcode.GETLK,
        Opcode.LSEEK,
    }
)
# What ends something: close(2) waits for nobody, also that of files which a new process does not inherit.
ENDING: Final = frozenset({Opcode.FLUSH, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.DESTROY})

_log = logs.get("warp_fuse")


class Tether:
    """Whether the home is there."""

    def __init__(
        self, *, remote: bool, patience_s: float, give_up_s: float, gave_up: Callable[[], None]
    ) -> None:
        """Begin with the home there.

        Args:
            remote: It is not this process.
            patience_s: How long a call waits for it.
            give_up_s: How long it may be away; 0: for ever.
            gave_up: Called when it was.
        """
        self.turn = 0  # grows whenever it goes
        self.leave: Callable[[], Awaitable[None]]  # has the kernel forget
        self.enter: Callable[[], Awaitable[None]]  # becomes a client again, and opens what was open
        self._remote = remote
        self._patience_s = patience_s
        self._give_up_s = give_up_s
        self._gave_up = gave_up
        self._up = asyncio.Event()
        self._up.set()
        self._coming: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Future[None]] = set()
        self._closed = False

    def gone(self) -> None:
        """Hear that the home is away; must not wait."""
        self.turn += 1
        if self._closed:
            return
        self._up.clear()
        if self._coming is None or self._coming.done():
            self._coming = asyncio.create_task(self._back())

    async def close(self) -> None:
        """Give up coming back."""
        self._closed = True
        if self._coming is not None and self._coming is not asyncio.current_task():
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        for leaving in list(self._leaving):
            leaving.cancel()

    async def here(self) -> None:
        """Wait for the home.

        Raises:
            Unavailable: It did not come back while a call waits.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                await self._up.wait()
        except TimeoutError:
            raise Unavailable("the node that has the volume is away") from None

    def held(self, opcode: int, handler: Handler) -> Handler:
        """Return a handler that waits for the home, and is asked again where that does no harm."""
        if opcode in ENDING or not self._remote:
            return handler
        again = opcode in AGAIN

        async def waits(request: Request) -> Answer:
            if not self._up.is_set():
                await self.here()
            turn = self.turn
            try:
                return await handler(request)
            except (Unavailable, StaleHandle) as error:
                if self.turn == turn and isinstance(error, StaleHandle):
                    raise
                if not again:
                    raise Unavailable("the node went away: it may have been done") from error
            return await self._again(handler, request)

        return waits

    async def _again(self, handler: Handler, request: Request) -> Answer:
        """Ask until there is an answer, or no more patience."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience_s
        while True:
            await self.here()
            turn = self.turn
            try:
                return await handler(request)
            except (Unavailable, StaleHandle) as error:
                # A node that ends says so before its links do.
                if (self.turn == turn and isinstance(error, StaleHandle)) or loop.time() > end:
                    raise
            await asyncio.sleep(PAUSES_S[0])

    async def _back(self) -> None:
        _log.warning("the node that has the volume is away")
        loop = asyncio.get_running_loop()
        since, attempt = loop.time(), 0
        # What is asked meanwhile waits for the node, and may hold what the kernel needs to forget something.
        leaving = asyncio.ensure_future(self.leave())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        await asyncio.wait([leaving], timeout=LEAVE_S)
        while True:
            turn = self.turn
            try:
                await self.enter()
                if turn == self.turn:
                    break
            except WarpError as error:
                _log.debug("the node is still away", reason=str(error))
            if self._give_up_s and loop.time() - since > self._give_up_s:
                self._gave_up()
                return
            await asyncio.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            attempt += 1
        self._up.set()
        _log.warning("the node is back", away_s=round(loop.time() - since, 1))
