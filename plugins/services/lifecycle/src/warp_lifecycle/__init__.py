"""WARP plugin: lifecycle rules of volumes, carried out."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service
from warp_core.registry import Entry, Registry

from warp_lifecycle.config import Config
from warp_lifecycle.service import LifecycleRules

__all__ = ["Config", "LifecycleRules"]


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `lifecycle`."""
    registry.add(
        Entry(
            "lifecycle",
            build=lambda config, context: LifecycleRules(config, context.namespace),
            config=Config,
            summary="expires and moves objects as the rules of their volume say, restores archived ones",
        )
    )
