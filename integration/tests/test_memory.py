"""Memory stays flat however large an object is."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from warp_integration.clients import s3_client
from warp_integration.server import WarpServer

pytestmark = [pytest.mark.workspace, pytest.mark.usefixtures("warp_serve")]

MIB = 1 << 20
GROWTH_MAX = 64 * MIB  # what design promises for an object of any size
_BLOCK = hashlib.shake_256(b"block").digest(MIB)


class Stream(io.RawIOBase):
    """`size` bytes that take no room; every MiB is different."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        parts = []
        while self._at < end:
            number, offset = divmod(self._at, MIB)
            block = number.to_bytes(8, "big") + _BLOCK[8:]
            part = block[offset : offset + end - self._at]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)


class Sink(io.RawIOBase):
    """Forgets what is written, except that it was what `Stream` gives."""

    def __init__(self) -> None:
        self._expected = Stream(1 << 62)
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        assert data == self._expected.read(len(data)), f"wrong bytes after {self.size}"
        self.size += len(data)
        return len(data)


@contextmanager
def growth_of(server: WarpServer) -> Iterator[list[int]]:
    """Give a list that holds, at the end, how far RssAnon rose above what it was at the start."""
    start, peak, over = server.rss_anon(), [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            peak[0] = max(peak[0], server.rss_anon() - start)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(256 * MIB, id="256 MiB"),
        pytest.param(5120 * MIB, id="5 GiB", marks=pytest.mark.slow),
    ],
)
def test_a_multipart_round_trip_needs_no_more_memory_than_promised(
    server: WarpServer, size: int
) -> None:
    s3 = s3_client(server.s3)
    bucket = f"memory-{size}"
    s3.create_bucket(Bucket=bucket)
    with growth_of(server) as up:
        s3.upload_fileobj(Stream(size), bucket, "large")
    sink = Sink()
    with growth_of(server) as down:
        for chunk in s3.get_object(Bucket=bucket, Key="large")["Body"].iter_chunks(MIB):
            sink.write(chunk)

    print(f"growth: upload {up[0] / MIB:.1f} MiB, download {down[0] / MIB:.1f} MiB")
    assert sink.size == size
    assert up[0] <= GROWTH_MAX
    assert down[0] <= GROWTH_MAX
