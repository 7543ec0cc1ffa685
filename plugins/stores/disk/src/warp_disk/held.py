"""A file that holds part of the reserve: what others fill the file system with cannot take it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from warp_disk import files

HELD_MAX = (
    80 * 1024 * 1024
)  # a ledger and a segment of the journal: others may take the rest of a large reserve
SLACK = 1024 * 1024  # given up beyond what is asked for: the file system needs blocks of its own


class Held:
    """Space that is taken, to be given up for vital calls when nothing else is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._giving = threading.Lock()
        self.size = 0  # bytes
        self.short = False  # some was given up

    def fill(self, reserve: int) -> None:
        """Hold up to `reserve` bytes, but no more than half of what is free."""
        with self._giving:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                status = os.fstat(descriptor)
                has = status.st_blocks * 512
                wanted = min(reserve, HELD_MAX)
                if has > wanted or status.st_size > has:
                    os.ftruncate(descriptor, min(wanted, has))
                elif has < wanted:
                    files.allocate(descriptor, min(wanted, has + _available(self._path) // 2))
                self.size = os.fstat(descriptor).st_blocks * 512
                self.short = self.size < wanted
            finally:
                os.close(descriptor)

    def give(self, size: int) -> None:
        """Let `size` bytes be free, as far as it is held here."""
        with self._giving:
            missing = size + SLACK - _available(self._path)
            if missing > 0 and self.size:
                os.truncate(self._path, max(0, self.size - missing))
                self.size = os.stat(self._path).st_blocks * 512
                self.short = True


def _available(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
