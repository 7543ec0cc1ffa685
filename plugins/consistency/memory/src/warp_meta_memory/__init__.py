"""WARP plugin: MetaStore in memory, for tests and throwaway servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_meta_memory.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import MetaContext
    from warp_core.interfaces.consistency import MetaStore

    from warp_meta_memory.engine import Memory


def build(config: Config, context: MetaContext) -> Memory:
    """Make the engine."""
    from warp_meta_memory.engine import Memory

    return Memory(context.monotonic)


@hookimpl
def warp_register_consistency(registry: Registry[MetaStore]) -> None:
    """Offer the engine."""
    registry.add(
        Entry(
            "memory",
            build=build,
            config=Config,
            summary="in memory: for tests and throwaway servers",
            sample=lambda folder: Config(),
        )
    )


__all__ = ["Config", "build", "warp_register_consistency"]
