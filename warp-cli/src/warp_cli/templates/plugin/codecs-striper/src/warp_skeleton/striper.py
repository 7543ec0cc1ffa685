"""The striper: k data shards, m parity shards, any k of which rebuild all."""

from __future__ import annotations

from collections.abc import Sequence

from warp_core.contexts import CodecContext
from warp_core.interfaces.codecs import CodecCapabilities, Striper
from warp_core.interfaces.stores import Buffer

from warp_skeleton.config import Config


class Skeleton(Striper):
    """Say which code it is, and cite where it is written down."""

    capabilities = CodecCapabilities(releases_gil=True)

    def __init__(self, config: Config, context: CodecContext) -> None:
        """Read `context.arguments`: what follows the colon in `skeleton:4+2`."""
        self.data_shards = 4
        self.parity_shards = 2

    def encode(self, stripe: memoryview) -> list[Buffer]:
        """Return k data shards, verbatim, and m parity shards.

        Raises:
            InvalidArgument: The length is no multiple of k.
        """
        raise NotImplementedError

    def decode(self, shards: Sequence[Buffer | None]) -> list[Buffer]:
        """Return all shards from any k of them; None marks a lost one.

        Raises:
            Corrupt: Fewer than k are present.
        """
        raise NotImplementedError
