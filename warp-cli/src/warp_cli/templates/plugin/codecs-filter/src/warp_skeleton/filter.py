"""The filter: frames of at most 64 KiB to stored bytes and back."""

from __future__ import annotations

from typing import Literal

from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import CodecCapabilities, Filter
from warp_core.interfaces.stores import Buffer

from warp_skeleton.config import Config


class Skeleton(Filter):
    """Say what it does to a frame."""

    capabilities = CodecCapabilities(deterministic=True, releases_gil=False)
    stage: Literal["compress", "encrypt"] = "compress"

    def __init__(self, config: Config, context: CodecContext) -> None:
        """Read `context.arguments`: what follows the colon in `skeleton:3`."""

    def encode(self, frame: memoryview, *, context: bytes) -> Buffer | None:
        """Return the stored form, or None to keep the frame as it is."""
        raise NotImplementedError

    def decode(self, stored: memoryview, *, length: int, context: bytes) -> Buffer:
        """Return the frame, exactly `length` bytes.

        Raises:
            Corrupt: The stored bytes are not what `encode` made.
        """
        raise NotImplementedError
