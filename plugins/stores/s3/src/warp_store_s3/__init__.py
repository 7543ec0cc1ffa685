"""WARP plugin: BlobStore in a bucket of any S3 endpoint."""

from __future__ import annotations

from pathlib import Path

import msgspec
from warp_core.errors import Unsupported
from warp_core.hooks import hookimpl
from warp_core.interfaces.stores import BlobStore
from warp_core.registry import Entry, Registry

from warp_store_s3.config import Config
from warp_store_s3.store import S3Store

__all__ = ["Config", "S3Store"]


def sample(folder: Path) -> msgspec.Struct:
    """Tell that a bucket cannot be made up.

    Raises:
        Unsupported: Always.
    """
    raise Unsupported("a store in a bucket needs an S3 endpoint; see the plugin's own tests")


@hookimpl
def warp_register_stores(registry: Registry[BlobStore]) -> None:
    """Offer `s3`."""
    registry.add(
        Entry(
            "s3",
            build=lambda config, context: S3Store(config, context.data),
            config=Config,
            summary="whole blobs in a bucket of any S3 endpoint, for storage classes",
            sample=sample,
            whole_only=True,
        )
    )
