"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import MetaContext
    from warp_core.interfaces.consistency import MetaStore

__all__ = ["Config", "build", "warp_register_consistency"]


def build(config: Config, context: MetaContext) -> MetaStore:
    """Make it; resources open when it is entered."""
    from warp_skeleton.engine import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_consistency(registry: Registry[MetaStore]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
