"""Verbs of locks."""

from __future__ import annotations

import fcntl
from typing import Final

from warp_fuse import wire
from warp_fuse.connection import Answer, interruptible
from warp_fuse.state import State
from warp_fuse.wire import Request

FLOCK_AT: Final = (
    1 << 63
)  # beyond every byte of fcntl(2): the two kinds of locks do not see each other, as on Linux


class Locks(State):
    """Byte-range locks of fcntl(2), and flock(2)."""

    async def getlk(self, request: Request) -> Answer:
        """Return a lock that is in the way."""
        number, locker, start, end, kind, _, flags, _ = wire.LOCK_IN.unpack_from(request.body)
        node = self.handle(number).node
        found = await self.files.claims.test_lock(
            node.ref,
            self.locker(locker, flock=bool(flags & wire.LOCK_FLOCK)),
            start,
            min(end + 1, FLOCK_AT),
            exclusive=kind == fcntl.F_WRLCK,
        )
        if found is None:
            return wire.LOCK_OUT.pack(start, end, fcntl.F_UNLCK, 0)
        client, key, _ = found.owner
        ours = client == self.cache.owner.client and isinstance(key, int)
        pid = self.lockers.get(int(key), 0) if ours else 0
        mode = fcntl.F_WRLCK if found.exclusive else fcntl.F_RDLCK
        last = min(found.end - 1, wire.LOCK_END)
        return wire.LOCK_OUT.pack(found.start, last, mode, pid)

    async def setlk(self, request: Request) -> Answer:
        """Lock or unlock, at once or not at all."""
        await self._lock(request, wait=False)
        return b""

    async def setlkw(self, request: Request) -> Answer:
        """Lock, waiting for others; a signal ends it."""
        with interruptible():
            await self._lock(request, wait=True)
        return b""

    async def _lock(self, request: Request, *, wait: bool) -> None:
        number, locker, start, end, kind, pid, flags, _ = wire.LOCK_IN.unpack_from(request.body)
        handle = self.handle(number)
        node = handle.node
        flock = bool(flags & wire.LOCK_FLOCK)
        owner = self.locker(locker, flock=flock)
        stop = min(end + 1, FLOCK_AT)
        if flock:
            start, stop = FLOCK_AT, FLOCK_AT + 1
        if kind == fcntl.F_UNLCK:
            if start == 0 and stop >= FLOCK_AT:
                self.locked.discard((node.number, owner.key))
            await self.files.claims.unlock(node.ref, owner, start, stop)
            return
        if not flock:
            self.lockers[locker] = pid
            handle.lockers.add(locker)
        await self.files.claims.lock(
            node.ref,
            owner,
            start,
            stop,
            exclusive=kind == fcntl.F_WRLCK,
            wait=wait,
            cacher=self.cache.owner,
        )
        self.locked.add((node.number, owner.key))
