"""WARP plugin: BlobStore on a local file system."""

from __future__ import annotations

from warp_core.config.types import Size
from warp_core.hooks import hookimpl
from warp_core.interfaces.stores import BlobStore
from warp_core.registry import Entry, Registry

from warp_disk.config import Config
from warp_disk.store import Disk

__all__ = ["Config", "Disk"]


@hookimpl
def warp_register_stores(registry: Registry[BlobStore]) -> None:
    """Offer `disk`."""
    registry.add(
        Entry(
            "disk",
            build=lambda config, context: Disk(config, context.data),
            config=Config,
            summary="files on a local file system",
            sample=lambda folder: Config(path=str(folder / "disk"), reserve=Size(1 << 20)),
        )
    )
