"""Files of the audit log: which there are, how one grows, and how its end is found after a crash.

A file is named after its first line, `00000000000000000001.jsonl`. It is only ever appended to; a line that a crash cut short was
never acknowledged and is taken off before the next one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from warp_core.audit.entries import NO_HASH, open_line
from warp_core.errors import Corrupt
from warp_core.space import reserve_behind

RESERVED: Final = 128 * 1024
"""Bytes kept ahead of a file's end: on a full disk some hundred changes can still be written down, such as deletions."""

_NAME: Final = re.compile(r"(\d{20})\.jsonl\Z")


class Head(NamedTuple):
    """The end of a chain: number and hash of its last line."""

    seq: int
    hash: str


NO_HEAD: Final = Head(0, NO_HASH)


class LogFile(NamedTuple):
    """A file and the number of its first line, as its name says."""

    first: int
    path: Path


def log_files(folder: Path) -> list[LogFile]:
    """Return the files of a log, oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [(match, folder / name) for name in names if (match := _NAME.match(name))]
    return sorted(LogFile(int(match[1]), path) for match, path in found)


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, each with its end; what has none comes last."""
    with path.open("rb") as file:
        yield from file


class Tail(NamedTuple):
    """What the last file of a log holds that is whole."""

    head: Head
    size: int  # bytes of the whole lines
    torn: int  # bytes behind them
    hashes: dict[int, str]  # of its lines
    sound: bool  # False: a line that was whole once is not what it was


def read_tail(file: LogFile) -> Tail:
    """Walk the last file, whose first line is taken to follow something."""
    head, size, hashes = Head(file.first - 1, ""), 0, dict[int, str]()
    for line in lines_of(file.path):
        if not line.endswith(b"\n"):
            break
        try:
            entry, hash = open_line(line[:-1])
        except Corrupt:
            return Tail(head, size, file.path.stat().st_size - size, hashes, sound=False)
        if entry.seq != head.seq + 1 or (head.hash and entry.prev != head.hash):
            return Tail(head, size, file.path.stat().st_size - size, hashes, sound=False)
        if not hashes:
            hashes[file.first - 1] = entry.prev
        head = Head(entry.seq, hash)
        hashes[entry.seq] = hash
        size += len(line)
    return Tail(head, size, file.path.stat().st_size - size, hashes, sound=True)


class Appender:
    """Writes lines behind one another, into a new file when one is full. Blocking; used by one thread at a time."""

    def __init__(self, folder: Path, *, file_size: int) -> None:
        self._folder = folder
        self._file_size = file_size
        self._descriptor = -1
        self._path: Path | None = None
        self._size = 0  # bytes that are durable
        self._dirty = False  # there may be more, of a write that failed
        self._reserved = 0

    def open(self, path: Path, size: int) -> None:
        """Go on in a file, of which `size` bytes are good; what is behind them is taken off.

        Raises:
            OSError
        """
        self.close()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._path, self._size, self._dirty = path, size, True
        self._reserved = 0

    def append(self, first: int, lines: Sequence[bytes]) -> None:
        """Write lines, the first of which has this number, and sync them: all are durable, or none counts.

        Raises:
            OSError: None counts.
        """
        if self._descriptor < 0 or self._size >= self._file_size:
            self._begin(first)
        if self._dirty:
            self._clean()
        data = b"".join(lines)
        self._reserve(len(data))
        self._dirty = True
        view = memoryview(data)
        at = self._size
        while view:
            written = os.pwrite(self._descriptor, view, at)
            view, at = view[written:], at + written
        os.fsync(self._descriptor)
        self._size, self._dirty = at, False

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._path = -1, None

    def _begin(self, first: int) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / f"{first:020}.jsonl"
        self.close()
        # A file of that name holds nothing that was acknowledged: the chain ends before its first line.
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path, self._size, self._dirty, self._reserved = path, 0, True, 0
        _sync_folder(self._folder)
        _sync_folder(self._folder.parent)

    def _clean(self) -> None:
        os.ftruncate(self._descriptor, self._size)
        os.fsync(self._descriptor)
        self._dirty = False
        self._reserved = self._size

    def _reserve(self, count: int) -> None:
        """Keep space ahead, while there is any; without, writing decides."""
        if self._size + count > self._reserved - RESERVED // 2 and self._path is not None:
            with contextlib.suppress(OSError):
                if reserve_behind(self._path, count + RESERVED):
                    self._reserved = self._size + count + RESERVED


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
