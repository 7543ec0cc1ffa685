"""WARP plugin: snapshots that are made and removed as the policy of their volume says."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service
from warp_core.registry import Entry, Registry

from warp_snapshots.config import Config, Declared
from warp_snapshots.service import SnapshotPolicies

__all__ = ["Config", "Declared", "SnapshotPolicies"]


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `snapshots`."""
    registry.add(
        Entry(
            "snapshots",
            build=lambda config, context: SnapshotPolicies(config),
            config=Config,
            summary="makes and removes snapshots as the policy of their volume says",
        )
    )
