"""Lines that wait for their delivery, in files of the node: they survive the process, but not a power cut soon after."""

import os
from pathlib import Path
from typing import Final

import msgspec

FILE_MAX: Final = 8 * 1024 * 1024
"""Bytes of one file: what a delivery has in memory."""

FILES_MAX: Final = 64
"""Files that wait: with FILE_MAX half a GiB. Then lines are dropped, and counted."""

_SUFFIX: Final = ".lines"


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A line of one bucket's log."""

    bucket: str
    second: int
    text: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class Spool:
    """Files of lines in one folder, which nobody else writes to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self._path: Path | None = None
        self._size = 0
        self.dropped = 0

    def append(self, entry: Line, *, now_ns: int) -> None:
        """Write a line behind those that wait.

        Raises:
            OSError: The file system does not take it.
        """
        if self._descriptor >= 0 and self._size >= FILE_MAX:
            self.rotate()
        if self._descriptor < 0 and not self._open(now_ns):
            self.dropped += 1
            return
        data = _encode(entry) + b"\n"
        os.write(self._descriptor, data)
        self._size += len(data)

    def _open(self, now_ns: int) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(self.waiting()) >= FILES_MAX:
            return False
        self._path = self._folder / f"{now_ns:020d}{_SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = 0
        return True

    def rotate(self) -> None:
        """End the file that is written to, so that it can be delivered."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._path = -1, None

    def waiting(self) -> list[Path]:
        """Return the files that are not written to any more, oldest first."""
        if not self._folder.exists():
            return []
        found = sorted(self._folder.glob(f"*{_SUFFIX}"))
        return [path for path in found if path != self._path]

    def read(self, path: Path) -> list[Line]:
        """Return the lines of a file; one that a crash cut short is left out."""
        lines: list[Line] = []
        for data in path.read_bytes().splitlines():
            try:
                lines.append(_decode(data))
            except msgspec.DecodeError:
                continue
        return lines

    def remove(self, path: Path) -> None:
        """Drop a file that was delivered."""
        path.unlink(missing_ok=True)
