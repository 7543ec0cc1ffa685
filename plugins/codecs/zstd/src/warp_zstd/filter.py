"""The filter: one Zstandard frame (RFC 8878) with its content size for each of ours, without checksum: records have their own."""

from __future__ import annotations

import threading
from typing import Literal

import zstandard
from warp_core.errors import Corrupt
from warp_core.interfaces.codecs import CodecCapabilities, Filter
from warp_core.interfaces.stores import Buffer

SAVED_MIN_SHIFT = (
    5  # a frame that saves less than 1/32 is kept as it is: each read would pay to decompress it
)


class Zstd(Filter):
    """Compresses at one level. Safe to share between threads: each has a compressor and a decompressor of its own."""

    capabilities = CodecCapabilities(
        deterministic=False, releases_gil=True
    )  # releases of libzstd differ
    stage: Literal["compress", "encrypt"] = "compress"

    def __init__(self, level: int) -> None:
        self.level = level
        self._own = _Own(level)

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Return the compressed frame, or None where it saves less than 1/32."""
        stored = self._own.compressor.compress(frame)
        size = len(frame)
        return stored if len(stored) < size - (size >> SAVED_MIN_SHIFT) else None

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Return the frame; memory for it is taken only once its header names exactly `length` bytes.

        Raises:
            Corrupt: Not one whole Zstandard frame of `length` bytes.
        """
        try:
            # The library allocates what the header says, whatever limit it is given.
            stated = zstandard.frame_content_size(stored)
            if stated != length:
                raise Corrupt(f"zstd frame of {stated} bytes where {length} are expected")
            frame: bytes = self._own.decompressor.decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Corrupt(f"not a zstd frame of {length} bytes: {error}") from error
        if len(frame) != length:
            raise Corrupt(f"zstd frame holds {len(frame)} bytes and says {length}")
        return frame


class _Own(threading.local):
    """What each thread has of its own: contexts are reused (their tables cost more than a frame) and never shared."""

    def __init__(self, level: int) -> None:
        self.compressor = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
        self.decompressor = zstandard.ZstdDecompressor()
