"""The one file that a query over Parquet sees: DuckDB asks for ranges, the node answers."""

from __future__ import annotations

import datetime
import io
from typing import Any, Final

from fsspec.spec import AbstractFileSystem

from warp_select.reading import Remote

ADDRESS: Final = "warp://object"

READ_AHEAD: Final = 256 * 1024
"""Bytes asked for at least: DuckDB reads pages of a few KiB one after another."""


class ParquetFiles(AbstractFileSystem):  # type: ignore[misc]
    """A file system of one file."""

    protocol = "warp"
    cachable = False

    def __init__(self, remote: Remote, size: int) -> None:
        """Serve an object of `size` bytes."""
        super().__init__()
        self._remote = remote
        self._length = size

    def open(self, path: str, mode: str = "rb", **options: Any) -> ObjectFile:
        """Open the file for reading.

        Raises:
            PermissionError: For writing.
        """
        if mode != "rb":
            raise PermissionError(path)
        return ObjectFile(self._remote, self._length)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Describe the file."""
        return {"name": path, "size": self._length, "type": "file"}

    def exists(self, path: str, **options: Any) -> bool:
        """Say that it is there."""
        return True

    def isfile(self, path: str) -> bool:
        """Say that it is a file."""
        return True

    def glob(self, path: str, **options: Any) -> list[str]:
        """List the file."""
        return [path]

    def modified(self, path: str) -> datetime.datetime:
        """Say that it never changes: its reader pins it."""
        return datetime.datetime.fromtimestamp(0, tz=datetime.UTC)


class ObjectFile(io.RawIOBase):
    """An open object, with what was read last."""

    mode = "rb"

    def __init__(self, remote: Remote, size: int) -> None:
        """Start at the first byte."""
        super().__init__()
        self._remote = remote
        self._size = size
        self._at = 0
        self._kept_at = 0
        self._kept = b""

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def readable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, length: int = -1) -> bytes:
        """Read from the position."""
        if length < 0:
            length = self._size - self._at
        length = max(0, min(length, self._size - self._at))
        start = self._at - self._kept_at
        if not 0 <= start <= start + length <= len(self._kept):
            self._kept_at, start = self._at, 0
            self._kept = self._remote.read_at(
                self._at, min(max(length, READ_AHEAD), self._size - self._at)
            )
        self._at += length
        return self._kept[start : start + length]

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
