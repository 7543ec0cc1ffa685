"""The chunker: every chunk but the last has one size."""

from __future__ import annotations

from warp_core.interfaces.codecs import Chunker, CodecCapabilities


class Fixed(Chunker):
    """Cuts every `size` bytes."""

    capabilities = CodecCapabilities(deterministic=True, content_defined=False)

    def __init__(self, size: int) -> None:
        self.min_size = self.max_size = size

    def cut(self, window: memoryview, *, final: bool) -> int:
        """Return `size` once so many bytes are there, and what is left at the end."""
        length = len(window)
        return self.max_size if length >= self.max_size else length if final else 0
