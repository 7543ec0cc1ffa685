"""The fingerprint: a name for content."""

from __future__ import annotations

from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import CodecCapabilities, Fingerprint
from warp_core.interfaces.stores import Buffer

from warp_skeleton.config import Config


class Skeleton(Fingerprint):
    """Say which hash it is."""

    capabilities = CodecCapabilities(releases_gil=True)
    size = 32

    def __init__(self, config: Config, context: CodecContext) -> None:
        """Read `context.arguments`: what follows the colon in `skeleton:16`."""

    def digest(self, data: Buffer) -> bytes:
        """Return the name of `data`, `size` bytes."""
        raise NotImplementedError
