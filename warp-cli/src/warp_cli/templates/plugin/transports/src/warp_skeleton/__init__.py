"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import TransportContext
    from warp_core.interfaces.transports import Transport

__all__ = ["Config", "build", "warp_register_transports"]


def build(config: Config, context: TransportContext) -> Transport:
    """Make it; resources open when it is entered."""
    from warp_skeleton.transport import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_transports(registry: Registry[Transport]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
