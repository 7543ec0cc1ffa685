"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import StoreContext
    from warp_core.interfaces.stores import BlobStore

__all__ = ["Config", "build", "warp_register_stores"]


def build(config: Config, context: StoreContext) -> BlobStore:
    """Make it; resources open when it is entered."""
    from warp_skeleton.store import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_stores(registry: Registry[BlobStore]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
