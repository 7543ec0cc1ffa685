"""WARP plugin: SUMMARY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp_core.hooks import hookimpl
from warp_core.registry import Entry, Registry

from warp_skeleton.config import Config

if TYPE_CHECKING:
    from warp_core.contexts import ProtocolContext
    from warp_core.interfaces.protocols import Protocol

__all__ = ["Config", "build", "warp_register_protocols"]


def build(config: Config, context: ProtocolContext) -> Protocol:
    """Make it; resources open when it is entered."""
    from warp_skeleton.server import Skeleton

    return Skeleton(config, context)


@hookimpl
def warp_register_protocols(registry: Registry[Protocol]) -> None:
    """Offer `skeleton`."""
    registry.add(Entry("skeleton", build=build, config=Config, summary="SUMMARY"))
