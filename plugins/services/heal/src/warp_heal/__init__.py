"""WARP plugin: missing and damaged copies are written anew."""

from __future__ import annotations

from warp_core.hooks import hookimpl
from warp_core.interfaces.services import Service
from warp_core.registry import Entry, Registry

from warp_heal.config import Config
from warp_heal.service import Healing

__all__ = ["Config", "Healing"]


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `heal`."""
    registry.add(
        Entry(
            "heal",
            build=lambda config, context: Healing(config),
            config=Config,
            summary="writes missing and damaged copies anew",
        )
    )
