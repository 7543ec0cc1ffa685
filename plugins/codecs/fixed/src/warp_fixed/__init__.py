"""WARP plugin: chunker that cuts at fixed sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_fixed.config import SIZE_MIN, Config, size_of

if TYPE_CHECKING:
    from warp_core.contexts import CodecContext
    from warp_core.interfaces.codecs import Codec

__all__ = ["Config", "warp_register_codecs"]


def build(config: Config, context: CodecContext) -> Codec:
    """Make the chunker; `fixed:SIZE` overrules the table's size."""
    from warp_fixed.chunker import Fixed

    return Fixed(size_of(config, context.arguments))


@hookimpl
def warp_register_codecs(registry: Registry[Codec]) -> None:
    """Offer `fixed`."""
    registry.add(
        Entry(
            "fixed",
            build=build,
            config=Config,
            summary="cuts streams into chunks of one size, fixed:8MiB",
            sample=lambda folder: Config(size=SIZE_MIN),
        )
    )
