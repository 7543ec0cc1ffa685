"""WARP plugin: BlobStore in memory."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.stores import BlobStore
from warp_core.registry import Entry, Registry

from warp_store_memory.config import Config
from warp_store_memory.store import Memory

__all__ = ["Config", "Memory"]


@hookimpl
def warp_register_stores(registry: Registry[BlobStore]) -> None:
    """Offer `memory`."""
    registry.add(
        Entry(
            "memory",
            build=lambda config, context: Memory(config),
            config=Config,
            summary="blobs in memory, gone with the process",
        )
    )
