"""WARP plugin: garbage collection and compaction."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service
from warp_core.registry import Entry, Registry

from warp_gc.config import Config
from warp_gc.service import Collection

__all__ = ["Collection", "Config"]


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `gc`."""
    registry.add(
        Entry(
            "gc",
            build=lambda config, context: Collection(config),
            config=Config,
            summary="frees the space of what was deleted or never linked",
        )
    )
