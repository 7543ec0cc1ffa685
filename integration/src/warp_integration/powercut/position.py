"""Share how far a trace has come, so that an acknowledgement can say when it arrived."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType


class Position:
    """Count the complete records of a trace in a file that several processes map.

    One writer, any number of readers; a read is one aligned 8-byte load. The recorder counts a record before
    it answers the kernel, so whoever reads the position after an acknowledgement sees every write
    that the acknowledgement could stand on.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self._cell = memoryview(self._map).cast("Q")

    def read(self) -> int:
        """Return the number of records in the trace."""
        return self._cell[0]

    def advance(self) -> None:
        """Count one more record; for the recorder alone."""
        self._cell[0] += 1

    def close(self) -> None:
        """Unmap the file."""
        self._cell.release()
        self._map.close()

    def __enter__(self) -> Position:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
