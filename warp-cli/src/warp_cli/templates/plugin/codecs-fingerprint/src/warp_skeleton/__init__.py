"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import CodecContext
    from warp_core.interfaces.codecs import Codec

__all__ = ["Config", "build", "warp_register_codecs"]


def build(config: Config, context: CodecContext) -> Codec:
    """Make it; resources open when it is entered."""
    from warp_skeleton.fingerprint import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_codecs(registry: Registry[Codec]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
