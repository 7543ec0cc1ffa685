"""WARP plugin: copies of volumes at other S3 endpoints, by the volumes' replication rules."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service
from warp_core.registry import Entry, Registry

from warp_replication.config import Config, Destination
from warp_replication.service import Replicator

__all__ = ["Config", "Destination", "Replicator"]


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `replication`."""
    registry.add(
        Entry(
            "replication",
            build=lambda config, context: Replicator(config),
            config=Config,
            summary="copies objects to buckets of other S3 endpoints as the rules of their volume say",
        )
    )
