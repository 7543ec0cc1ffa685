"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.interfaces.services import Service, ServiceContext

__all__ = ["Config", "build", "warp_register_services"]


def build(config: Config, context: ServiceContext) -> Service:
    """Make it; resources open when it is entered."""
    from warp_skeleton.service import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_services(registry: Registry[Service]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
