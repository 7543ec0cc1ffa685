"""WARP plugin: Zstandard compression filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_zstd.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import CodecContext
    from warp_core.interfaces.codecs import Codec

__all__ = ["Config", "warp_register_codecs"]


def build(config: Config, context: CodecContext) -> Codec:
    """Make the filter; `zstd:LEVEL` overrules the table's level."""
    from warp_zstd.config import level_of  # the library is loaded when a volume uses it
    from warp_zstd.filter import Zstd

    return Zstd(level_of(config, context.arguments))


@hookimpl
def warp_register_codecs(registry: Registry[Codec]) -> None:
    """Offer `zstd`."""
    registry.add(
        Entry(
            "zstd",
            build=build,
            config=Config,
            summary="compresses frames with Zstandard, zstd:1 (fast) to zstd:19 (small)",
            sample=lambda folder: Config(level=1),
        )
    )
