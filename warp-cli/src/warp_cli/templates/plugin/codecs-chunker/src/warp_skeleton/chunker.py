"""The chunker: where a stream is cut."""

from __future__ import annotations

from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import Chunker, CodecCapabilities

from warp_skeleton.config import Config


class Skeleton(Chunker):
    """Say where it cuts."""

    capabilities = CodecCapabilities(content_defined=False)

    def __init__(self, config: Config, context: CodecContext) -> None:
        """Read `context.arguments`: what follows the colon in `skeleton:64KiB`."""
        self.min_size = 16 * 1024
        self.max_size = 256 * 1024

    def cut(self, window: memoryview, *, final: bool) -> int:
        """Return the length of the next chunk at the start of `window`, or 0 to see more first."""
        raise NotImplementedError
