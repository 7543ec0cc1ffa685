"""The recorder process: `python -m warp_integration.powercut.recorder MOUNTPOINT NAMESPACE TRACE POSITION IMAGE...`.

Serves each image as a file of the same name under MOUNTPOINT in the mount namespace NAMESPACE, records what is written to
it, and prints `ready`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from warp_integration.powercut import fuse
from warp_integration.powercut.position import Position
from warp_integration.powercut.trace import TraceWriter


class RecordedDisk:
    """An image file whose writes and flushes go into the trace before they are answered."""

    def __init__(self, number: int, image: Path, trace: TraceWriter, position: Position) -> None:
        self.name = image.name
        self.size = image.stat().st_size
        self._number = number
        self._trace = trace
        self._position = position
        self._image = os.open(image, os.O_RDWR | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, less at the end of the disk."""
        return os.pread(self._image, size, offset)

    def write(self, offset: int, data: memoryview) -> None:
        """Record and apply a write."""
        self._trace.write(self._number, offset, data)
        os.pwrite(self._image, data, offset)
        self._position.advance()

    def sync(self) -> None:
        """Record a flush; the image itself needs none, a real power cut is no part of the test."""
        self._trace.flush(self._number)
        self._position.advance()


def main(
    mountpoint: Path, namespace: Path, trace: Path, position: Path, images: list[Path]
) -> None:
    """Record until the file system is unmounted or this process is killed."""
    writer = TraceWriter(trace)
    shared = Position(position)
    disks = [RecordedDisk(number, image, writer, shared) for number, image in enumerate(images)]
    descriptor = fuse.mount(mountpoint, namespace)
    print("ready", flush=True)
    try:
        fuse.Server(descriptor, disks).serve()
    finally:
        writer.close()


if __name__ == "__main__":
    first, second, third, fourth, *rest = map(Path, sys.argv[1:])
    main(first, second, third, fourth, rest)
